"""Handlers: one file each, unaware of each other. `registry` finds them."""
