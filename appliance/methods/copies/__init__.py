"""Files copied between nodes, in pieces."""
