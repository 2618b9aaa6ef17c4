"""From a tree of settings to the desired state: pure."""
