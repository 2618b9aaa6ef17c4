"""JSON texts element by element: a list, or one message, with the line of everything. Pure.

The list is walked here and each element decoded by itself, so that a problem can name the line of
its element and a doubled key is known with the element it stands in.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_DEEP = "nested too deep"


class JsonRefused(ValueError):
    """The text is no JSON list of messages; `offset` is where reading stopped."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class JsonMap(dict[str, Any]):
    """A map that remembers which of its keys stood in it twice."""

    repeated: tuple[str, ...] = ()


class JsonElement(NamedTuple):
    """One element and the stretch of text it was read from."""

    value: Any
    start: int
    end: int


def read_json(text: str, max_elements: int) -> list[JsonElement]:
    """The elements of a list, or the single value that the text is.

    Stops after one element more than `max_elements`.

    Raises:
        JsonRefused: it is no JSON, or goes on after its end.
    """
    start = _skip(text, 0)
    if text[start : start + 1] != "[":
        element = _decode(text, start)
        _expect_end(text, element.end)
        return [element]
    elements: list[JsonElement] = []
    place = _skip(text, start + 1)
    if text[place : place + 1] == "]":
        _expect_end(text, place + 1)
        return elements
    while len(elements) <= max_elements:
        element = _decode(text, place)
        elements.append(element)
        place = _skip(text, element.end)
        sign = text[place : place + 1]
        if sign == "]":
            _expect_end(text, place + 1)
            return elements
        if sign != ",":
            raise JsonRefused("expected a comma or the end of the list", place)
        place = _skip(text, place + 1)
    return elements


class Lines:
    """Lines and columns of places in a text, counted from 1."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._ends: list[int] | None = None

    def line_of(self, offset: int) -> int:
        """The line of a place."""
        if self._ends is None:
            self._ends = [match.start() for match in re.finditer("\n", self.text)]
        return bisect_left(self._ends, offset) + 1

    def column_of(self, offset: int) -> int:
        """The column of a place."""
        return offset - self.text.rfind("\n", 0, offset)


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _expect_end(text: str, place: int) -> None:
    rest = _skip(text, place)
    if rest < len(text):
        raise JsonRefused("the text goes on after its end", rest)


def _decode(text: str, place: int) -> JsonElement:
    try:
        value, end = _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        raise JsonRefused(_lower(error.msg), error.pos) from None
    except (ValueError, RecursionError) as error:
        reason = _DEEP if isinstance(error, RecursionError) else str(error)
        raise JsonRefused(reason, place) from None
    return JsonElement(value, place, end)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _make_map(pairs: list[tuple[str, Any]]) -> JsonMap:
    made = JsonMap(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        made.repeated = tuple(
            dict.fromkeys(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        )
    return made


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _read_int(digits: str) -> int:
    if len(digits) > 40:
        raise ValueError("a number beyond 64 bits")
    return int(digits)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_make_map, parse_constant=_refuse_constant, parse_int=_read_int
)
