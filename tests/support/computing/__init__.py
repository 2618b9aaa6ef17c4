"""A method that computes, and a daemon that has it: as if somebody had added a file to `appliance/methods`."""

import sys
from pathlib import Path

import appliance.methods

METHOD_PATH = str(Path(__file__).parent / "methods")
COMMAND = [sys.executable, "-m", "tests.support.computing"]
"""In the place of `python -m appliance`."""


def add_methods() -> None:
    """Have the program find them. Before its registry is imported, where that is to know them."""
    if METHOD_PATH not in appliance.methods.__path__:
        appliance.methods.__path__.append(METHOD_PATH)
