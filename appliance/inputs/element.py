"""One element of a list to a request, with everything that is wrong with it. Pure.

As the original: `toNode` wins over `toNodes`, one message per node, a number below 1 means the
default. Unlike it: a key that nobody knows is refused with the nearest known one, since a setting
that silently does not hold is found out too late.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from appliance.api.requests import EncodedData, SubmitRequest, WholeSeconds
from appliance.config.parse import PlainText
from appliance.config.scalars import NumberRefused, resolve_plain
from appliance.core.suggest import describe_kind, did_you_mean_quoted, find_nearest, shorten
from appliance.inputs.keys import (
    BY_LOWER_CASE,
    FIELDS,
    IGNORED,
    KNOWN,
    MAX_TIME_S,
    MAX_TRIES,
    REFUSED,
    Shape,
)
from appliance.inputs.notes import MAX_NOTES, LineOf, Note, Reading

_MAX_KEY = 80
"""Characters of a key that are shown; none of ours is nearly as long."""


class ElementReader:
    """Reads one element into a `Reading`."""

    def __init__(self, into: Reading, index: int, line_of: LineOf, from_node: str | None) -> None:
        self._into = into
        self._index = index
        self._line_of = line_of
        self._from_node = from_node
        self._is_good = True
        self._written: dict[str, str] = {}
        """Keys by their proper name, as they stand in the text."""

    def read(self, element: Any, repeated: Sequence[str] = ()) -> None:
        """Read it; `repeated` are keys that stand in it twice."""
        if not isinstance(element, Mapping):
            self._problem(None, f"a message is a map, this is {describe(element)}")
            return
        for key in repeated:
            self._problem(key, "the key stands twice in this message")
        fields = self._by_name(element)
        values = {
            attr: self._field(name, shape, fields[name])
            for name, (attr, shape) in FIELDS.items()
            if name in fields
        }
        to_nodes = self._destinations(fields)
        if is_empty(values.get("method")) and self._is_good:
            self._problem("method", "the message names no method")
        if self._is_good:
            known = {attr: value for attr, value in values.items() if value not in (None, "")}
            request = SubmitRequest(to_nodes=to_nodes, from_node=self._from_node, **known)
            self._into.requests.append((self._index, request))
            self._into.places[self._index] = self._line_of

    def _by_name(self, element: Mapping[str, Any]) -> dict[str, Any]:
        """Values by the key's proper name; keys that are none of ours are told."""
        found: dict[str, Any] = {}
        for written, value in element.items():
            name = BY_LOWER_CASE.get(written.lower())
            if name is None:
                self._unknown(written)
                continue
            if name in found:
                self._problem(written, f"the key stands twice, as {shorten(name)} too")
                continue
            found[name] = value
            self._written[name] = written
            if is_empty(value):
                continue
            if name in IGNORED:
                self._warning(written, f"ignored: {IGNORED[name]}")
            elif name in REFUSED:
                self._problem(written, f"not possible: {REFUSED[name]}")
            elif written != name:
                self._warning(written, f"taken as {shorten(name)}, which is how it is written")
        return found

    def _unknown(self, written: str) -> None:
        is_told = len(self._into.problems) < MAX_NOTES
        nearest = find_nearest(written, KNOWN) if is_told and len(written) <= _MAX_KEY else None
        self._problem(written, f"unknown key {shorten(written)}{did_you_mean_quoted(nearest)}")

    def _destinations(self, fields: Mapping[str, Any]) -> list[str]:
        single = self._try("toNode", read_text, fields.get("toNode")) or ""
        several = self._try("toNodes", read_texts, fields.get("toNodes")) or []
        if single:
            if several and several != [single]:
                self._warning("toNodes", "not used: `toNode` is set and wins, as in the original")
            return [single]
        nodes = list(dict.fromkeys(several))
        if len(nodes) < len(several):
            self._warning("toNodes", "a node stands twice; it gets one message")
        if not nodes and self._is_good:
            self._problem("toNode", "neither `toNode` nor `toNodes` names a node")
        elif "" in nodes:
            self._problem("toNodes", "a node's name is empty")
        return nodes

    def _field(self, name: str, shape: Shape, value: Any) -> Any:
        match shape:
            case Shape.TEXT:
                return self._try(name, read_text, value)
            case Shape.TEXTS:
                return self._try(name, read_texts, value)
            case Shape.DATA:
                return self._try(name, read_data, value)
            case Shape.SECONDS:
                number = self._whole(name, value, MAX_TIME_S)
                return None if number is None else WholeSeconds(number)
            case Shape.TRIES:
                return self._whole(name, value, MAX_TRIES)

    def _whole(self, name: str, value: Any, maximum: int) -> int | None:
        number: int | None = self._try(name, lambda given: read_whole(given, maximum), value)
        if number is None or number >= 1:
            return number
        if number == -1 and name in ("methodTimeout", "replyMethodTimeout"):
            self._warning(name, "no limit is sent as 366 days")
            return MAX_TIME_S
        if number < 0:
            self._warning(name, "below 1 means the default, as in the original")
        return None

    def _try(self, name: str, read: Callable[[Any], Any], value: Any) -> Any:
        try:
            return read(value)
        except ValueRefused as error:
            self._problem(name, str(error))
            return None

    def _problem(self, key: str | None, message: str) -> None:
        self._is_good = False
        if self._into.has_room_in(self._into.problems):
            self._into.problems.append(self._note(key, message))

    def _warning(self, key: str, message: str) -> None:
        if self._into.has_room_in(self._into.warnings):
            self._into.warnings.append(self._note(key, message))

    def _note(self, key: str | None, message: str) -> Note:
        key = self._written.get(key, key) if key is not None else None
        shown = key if key is None or len(key) <= _MAX_KEY else f"{key[: _MAX_KEY - 1]}…"
        return Note(index=self._index, key=shown, line=self._line_of(key), message=message)


# Values of one key: text, lists of texts, data in its four forms, whole numbers.
#
# A value comes from JSON with its type, or from YAML as `PlainText` where nothing was quoted; what
# such a scalar is depends on the key it stands at (`methodArgs: [sleep, 5]` is two texts).


class ValueRefused(ValueError):
    """The value is not what its key takes; the text says what it takes."""


def is_empty(value: Any) -> bool:
    """Whether a key with this value says nothing."""
    plain = _settle(value)
    return plain is None or plain == "" or plain is False or plain in (0, [], {})


def read_text(value: Any) -> str | None:
    """One text; None where nothing is said.

    Raises:
        ValueRefused: it is none.
    """
    if isinstance(value, PlainText):
        return None if _settle(value) is None else _checked(str(value))
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueRefused(f"expected text, found {describe(value)}")
    return _checked(value)


def read_texts(value: Any) -> list[str] | None:
    """A list of texts; None where nothing is said.

    Raises:
        ValueRefused: it is none.
    """
    if _settle(value) is None:
        return None
    if not isinstance(value, list):
        raise ValueRefused(f"expected a list of texts, found {describe(value)}")
    texts = []
    for number, item in enumerate(value, start=1):
        text = _checked(str(item)) if isinstance(item, PlainText) else item
        if not isinstance(text, str):
            raise ValueRefused(f"expected a list of texts, item {number} is {describe(item)}")
        texts.append(_checked(text))
    return texts


def read_data(value: Any) -> list[str | EncodedData] | None:
    """Data: a text, texts, ``{"base64": …}``, or the bytes as a list of numbers.

    Raises:
        ValueRefused: it is none of them.
    """
    if _settle(value) is None:
        return None
    if isinstance(value, str | Mapping):
        return [_read_piece(value)]
    if not isinstance(value, list):
        raise ValueRefused(f"{_DATA}, found {describe(value)}")
    numbers = [_settle(item) for item in value]
    if value and all(isinstance(item, int) and not isinstance(item, bool) for item in numbers):
        return [_read_bytes(numbers)]
    return [_read_piece(item) for item in value]


def read_whole(value: Any, maximum: int) -> int | None:
    """A whole number of at most `maximum`; negative ones are the caller's business.

    Raises:
        ValueRefused: it is none, or too large.
    """
    number = _settle(value)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueRefused(f"expected a whole number, found {describe(value)}")
    if number > maximum:
        raise ValueRefused(f"{shorten(number, 24)} is above the limit of {maximum}")
    return number


def describe(value: Any) -> str:
    """What a value is, by kind."""
    return describe_kind(_settle(value))


_DATA = 'expected text, a list of texts, the bytes as numbers from 0 to 255, or {"base64": "…"}'


def _settle(value: Any) -> Any:
    """The value of an unquoted scalar by the rules of YAML 1.2; anything else as it is."""
    if not isinstance(value, PlainText):
        return value
    try:
        return resolve_plain(value)
    except NumberRefused:
        return str(value)


def _checked(text: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueRefused(
                'the text holds half a character (a lone surrogate); bytes go as {"base64": "…"}'
            ) from None
    return text


def _read_piece(value: Any) -> str | EncodedData:
    if isinstance(value, Mapping):
        return _read_encoded(value)
    if not isinstance(value, str):
        raise ValueRefused(f"{_DATA}, found {describe(value)} in it")
    return _checked(str(value))


def _read_encoded(value: Mapping[str, Any]) -> EncodedData:
    text = value.get("base64")
    if set(value) != {"base64"} or not isinstance(text, str):
        raise ValueRefused(f"{_DATA}, found another map")
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueRefused("what stands at `base64` is no base64") from None
    return EncodedData(base64=str(text))


def _read_bytes(numbers: list[Any]) -> EncodedData:
    try:
        raw = bytes(numbers)
    except (ValueError, OverflowError):
        raise ValueRefused("bytes are numbers from 0 to 255") from None
    return EncodedData(base64=base64.b64encode(raw).decode("ascii"))
