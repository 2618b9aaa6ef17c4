"""Imported before the program is, this has it know the method."""

from tests.support.computing import add_methods

add_methods()
