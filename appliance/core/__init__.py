"""Decisions on values: no asyncio, no files, no clock, no randomness, no logging."""
