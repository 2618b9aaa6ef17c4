"""The data directory: what methods write and read below it, confined to it."""
