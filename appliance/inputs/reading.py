"""A text from an injector to requests: JSON first, YAML where it is none. No I/O.

What is wrong with one element does not touch the others; what is wrong with the text (its syntax,
its size) refuses it whole, since nobody can tell what the rest of it would have meant.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from appliance.api.requests import MAX_TOTAL_BYTES, SubmitRequest
from appliance.config.parse import MISSING, Document, parse_foreign
from appliance.core.problems import Problem
from appliance.inputs.element import ElementReader
from appliance.inputs.notes import Note, Reading


class TextKind(StrEnum):
    """What the injector says the text is."""

    ANY = "any"
    JSON = "json"


_INDEX = re.compile(r"^\[(\d+)\](?:\.(.+))?$")
_KEY_SEARCH = 65_536
"""How far into an element a key's line is looked for."""
_BOM = b"\xef\xbb\xbf"


def read_text_of_messages(
    raw: bytes, *, max_messages: int, from_node: str | None, kind: TextKind = TextKind.ANY
) -> Reading:
    """Everything in a text: requests, problems, warnings.

    Args:
        max_messages: bound of elements times their destinations.
    """
    reading = Reading()
    raw = raw.rstrip(b"\0").removeprefix(_BOM)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        reading.refuse("the text is not UTF-8", line=raw.count(b"\n", 0, error.start) + 1)
        return reading
    if not text.strip():
        reading.refuse("the text is empty")
        return reading
    refused = _read_as_json(reading, text, max_messages, from_node)
    if refused is not None:
        looks_like_json = text.lstrip()[:1] in ("[", "{", '"')
        if kind is TextKind.JSON or not _read_as_yaml(
            reading, raw, max_messages, from_node, is_last_word=not looks_like_json
        ):
            reading.refuse(
                f"not valid JSON: {refused}",
                line=Lines(text).line_of(refused.offset),
                column=Lines(text).column_of(refused.offset),
            )
    _bound(reading, max_messages)
    return reading


def _read_as_json(
    reading: Reading, text: str, max_messages: int, from_node: str | None
) -> JsonRefused | None:
    try:
        elements = read_json(text, max_messages)
    except JsonRefused as error:
        return error
    if not _fits(reading, len(elements), max_messages):
        return None
    lines = Lines(text)
    for index, element in enumerate(elements):
        repeated = element.value.repeated if isinstance(element.value, JsonMap) else ()
        reader = ElementReader(reading, index, _json_lines(lines, element), from_node)
        reader.read(element.value, repeated)
    return None


def _json_lines(lines: Lines, element: JsonElement) -> Callable[[str | None], int | None]:
    def find(key: str | None) -> int | None:
        offset = element.start
        if key is not None:
            end = min(element.end, offset + _KEY_SEARCH)
            offset = max(offset, lines.text.find(f'"{key}"', offset, end))
        return lines.line_of(offset)

    return find


def _read_as_yaml(
    reading: Reading,
    raw: bytes,
    max_messages: int,
    from_node: str | None,
    *,
    is_last_word: bool,
) -> bool:
    """Read it as YAML; False when it is none and JSON's own complaint says more."""
    document = parse_foreign("input", raw)
    of_elements, of_text = _sort_problems(document.problems)
    if of_text or not document.is_whole:
        if is_last_word:
            for problem in of_text:
                reading.refuse(problem.message, line=problem.line, column=problem.column)
        return is_last_word
    tree = document.tree
    if tree is None:
        reading.refuse("there is no message in the text")
        return True
    is_list = isinstance(tree, list)
    elements = tree if is_list else [tree]
    if not _fits(reading, len(elements), max_messages):
        return True
    for index, element in enumerate(elements):
        bad = of_elements.get(index if is_list else None, ())
        if bad:
            for problem in bad:
                if reading.has_room_in(reading.problems):
                    reading.problems.append(_note_of(problem, index))
        elif element is not MISSING:
            lines = _yaml_lines(document, index if is_list else None)
            ElementReader(reading, index, lines, from_node).read(element)
    return True


def _sort_problems(
    problems: Sequence[Problem],
) -> tuple[Mapping[int | None, list[Problem]], list[Problem]]:
    """Those of single elements by index (None: of the one message), and those of the text."""
    of_elements: dict[int | None, list[Problem]] = {}
    of_text: list[Problem] = []
    for problem in problems:
        match = _INDEX.match(problem.path)
        if match:
            of_elements.setdefault(int(match[1]), []).append(problem)
        elif problem.path:
            of_elements.setdefault(None, []).append(problem)
        else:
            of_text.append(problem)
    return of_elements, of_text


def _note_of(problem: Problem, index: int) -> Note:
    match = _INDEX.match(problem.path)
    key = match[2] if match else problem.path
    return Note(
        index=index,
        key=key or None,
        line=problem.line,
        column=problem.column,
        message=problem.message,
    )


def _yaml_lines(document: Document, index: int | None) -> Callable[[str | None], int | None]:
    spot = document.source_map if index is None else document.source_map.children[index]

    def find(key: str | None) -> int | None:
        if key is not None:
            for written, place in spot.keys.items():
                if written.lower() == key.lower():
                    return place.line
        return spot.place.line

    return find


def _fits(reading: Reading, count: int, max_messages: int) -> bool:
    if count > max_messages:
        reading.refuse(f"more than {max_messages} messages (`inputs.max_messages`) in one text")
        reading.is_too_large = True
        return False
    if not count:
        reading.warnings.append(Note(message="there is no message in the list"))
    return True


def _bound(reading: Reading, max_messages: int) -> None:
    """Each destination gets a message, and data, of its own."""
    requests = [request for _, request in reading.requests]
    count = sum(len(request.to_nodes) for request in requests)
    if count > max_messages:
        reading.refuse(
            f"{count} messages for all nodes exceed the limit of {max_messages}"
            " (`inputs.max_messages`) in one text"
        )
        reading.is_too_large = True
        return
    total_bytes = sum(_size_of(request) * len(request.to_nodes) for request in requests)
    if total_bytes > MAX_TOTAL_BYTES:
        reading.refuse(
            f"{total_bytes} bytes of data for all nodes exceed the limit of {MAX_TOTAL_BYTES}"
        )
        reading.is_too_large = True


def _size_of(request: SubmitRequest) -> int:
    texts = (
        *(request.data or ()),
        *(request.method_args or ()),
        *(request.reply_method_args or ()),
    )
    return sum(len(item if isinstance(item, str) else item.base64) for item in texts)


# JSON texts element by element: a list, or one message, with the line of everything. Pure.
#
# The list is walked here and each element decoded by itself, so that a problem can name the line of
# its element and a doubled key is known with the element it stands in.

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
