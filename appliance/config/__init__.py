"""The file system's side of configuration: reading, merging, checking the shape, watching."""
