"""Methods that the config declares."""
