"""Fetching from the web."""
