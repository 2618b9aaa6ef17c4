"""Words for what stands where something else was expected: its kind, never its content, which may be a secret."""

from __future__ import annotations

from collections.abc import Mapping


def describe_kind(value: object) -> str:
    """``nothing``, ``a number``, ``a list``…"""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case Mapping():
            return "a map"
        case _:
            return "something unusable"
