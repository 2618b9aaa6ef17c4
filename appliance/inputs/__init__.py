"""Steward's inputs: sockets, HTTP and a folder that take its JSON and YAML message lists."""
