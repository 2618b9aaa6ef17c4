"""One element of a list to a request, with everything that is wrong with it. Pure.

As the original: `toNode` wins over `toNodes`, one message per node, a number below 1 means the
default. Unlike it: a key that nobody knows is refused with the nearest known one, since a setting
that silently does not hold is found out too late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from appliance.api.requests import SubmitRequest, WholeSeconds
from appliance.core.suggest import did_you_mean_quoted, find_nearest, shorten
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
from appliance.inputs.values import (
    ValueRefused,
    describe,
    is_empty,
    read_data,
    read_text,
    read_texts,
    read_whole,
)

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
