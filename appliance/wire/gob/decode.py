"""Gob to message.

A stream is a row of messages, each with its length before it: definitions of types, then the value.
One value is a struct: for each field that is not zero the distance from the field before it and the
content, and 0 at the end.

Decoding is bounded as that of CBOR: nesting by `max_depth`, counted alike, and memory by the size
of the input. Refused besides whatever is malformed: more than one value, bytes after it, a value
that is no struct, a field of another type than the message's.

Source: the description of Go's package `encoding/gob`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from appliance.core.message import Message
from appliance.errors import DecodeError
from appliance.wire.gob.encode import MESSAGE_DESCRIPTORS
from appliance.wire.gob.numbers import CUT_SHORT, read_int, read_long, read_uint
from appliance.wire.gob.plan import (
    GO_NAMES,
    READ_BOOL,
    READ_INT,
    READ_MESSAGE,
    READ_TEXT,
    READ_TEXTS,
    Descriptor,
    Plan,
)
from appliance.wire.gob.types import (
    BYTES,
    COMPLEX,
    INTERFACE,
    MAX_TYPES,
    STRING,
    ArrayType,
    MapType,
    OpaqueType,
    SliceType,
    StructType,
    WireType,
)
from appliance.wire.layout import MAX_TEXTS, MAX_VALUES

# Descriptors read before, kept by their bytes.
#
# Peers of one build send the same descriptor with every message; reading it costs ten times as much
# as the value. What is kept is bounded, and one peer that makes up new ones all the time does not
# push out those that others really use: newcomers have places of their own, become regulars only by
# being used, and the regular that goes is the least used one.

MAX_KEPT_BYTES = 4_096
MAX_NEWCOMERS = 16
MAX_REGULARS = 16
USES_TO_STAY = 8


class DescriptorCache:
    """Not locked: each step is one operation of a dict, and a lost entry is read again."""

    def __init__(self, pinned: Iterable[bytes]) -> None:
        """`pinned` are kept for good; the first is the `latest` to begin with."""
        self._pinned = {raw: Descriptor(raw) for raw in pinned}
        self._newcomers: dict[bytes, Descriptor] = {}
        self._regulars: dict[bytes, Descriptor] = {}
        self._uses: dict[bytes, float] = {}
        self.latest = next(iter(self._pinned.values()))
        """The one that was used last: the next message begins with the same bytes, most likely."""

    def __len__(self) -> int:
        return len(self._pinned) + len(self._newcomers) + len(self._regulars)

    def get(self, raw: bytes) -> Descriptor:
        """The descriptor of these bytes, read now if need be.

        Raises:
            DecodeError: the bytes are none.
        """
        known = self._pinned.get(raw)
        if known is not None:
            self.latest = known
            return known
        known = self._regulars.get(raw)
        if known is None:
            return self._newcomers.get(raw) or Descriptor(raw)
        self._uses[raw] = self._uses.get(raw, 0.0) + 1.0
        self.latest = known
        return known

    def keep(self, descriptor: Descriptor) -> None:
        """Remember one that led to a message; called for every message that it leads to."""
        raw = descriptor.raw
        if descriptor.size_bytes > MAX_KEPT_BYTES or raw in self._pinned or raw in self._regulars:
            return
        uses = self._uses.get(raw, 0.0) + 1.0
        self._newcomers.pop(raw, None)
        if uses >= USES_TO_STAY:
            self._make_room()
            self._regulars[raw] = descriptor
        else:
            self._newcomers[raw] = descriptor
            for oldest in list(self._newcomers)[:-MAX_NEWCOMERS]:
                self._newcomers.pop(oldest, None)
                self._uses.pop(oldest, None)
        self._uses[raw] = uses

    def _make_room(self) -> None:
        """Let the least used regular go if there is no room, and what all did long ago count less."""
        if len(self._regulars) < MAX_REGULARS:
            return
        regulars = list(self._regulars)
        least = min(regulars, key=lambda raw: self._uses.get(raw, 0.0))
        self._regulars.pop(least, None)
        self._uses.pop(least, None)
        for raw in regulars:
            if raw != least:
                self._uses[raw] = self._uses.get(raw, 0.0) / 2


_ZERO = tuple(Message())
_descriptors = DescriptorCache(MESSAGE_DESCRIPTORS)


def decode_gob(payload: bytes, *, max_depth: int = 16, max_values: int = MAX_VALUES) -> Message:
    """Decode one message.

    Args:
        max_depth: messages and lists inside one another; a message with texts needs two, each
        previous message one more.
        max_values: texts of all lists; a value that a message has no field for counts as several.

    Raises:
        DecodeError: anything that is not exactly one message.
    """
    latest = _descriptors.latest
    begins_alike = payload.startswith(latest.raw)
    try:
        start, pos, type_id = _find_value(payload, latest.size_bytes if begins_alike else 0)
        begins_alike = begins_alike and start == latest.size_bytes
        descriptor = latest if begins_alike else _descriptors.get(payload[:start])
        plan = descriptor.plan_for(type_id)
        message, pos = _read_message(
            payload, pos, plan, descriptor.types, max_depth, [max_values] * 2
        )
    except (IndexError, OverflowError):  # compiled, an index of over 63 bits is the latter
        raise DecodeError(f"{CUT_SHORT}, or has a field that its type does not have") from None
    if pos != len(payload):
        raise DecodeError("bytes after the message")
    if descriptor is not latest:
        _descriptors.keep(descriptor)
    return message


def _find_value(payload: bytes, pos: int) -> tuple[int, int, int]:
    """Pass over definitions: where the value's message begins, where its content begins, its type.

    May raise IndexError at the end of the input, as all reading here.
    """
    for _ in range(MAX_TYPES + 1):
        start = pos
        size = payload[pos]
        pos += 1
        if size > 127:
            size, pos = read_long(payload, pos, size)
        stop = pos + size
        number = payload[pos]
        pos += 1
        if number > 127:
            number, pos = read_long(payload, pos, number)
        if pos > stop or stop > len(payload):
            raise DecodeError(CUT_SHORT)
        if not number & 1:
            if stop != len(payload):
                raise DecodeError("bytes after the message")
            return start, pos, number >> 1
        pos = stop
    raise DecodeError(f"the gob stream defines more than {MAX_TYPES} types")


def _read_message(
    data: bytes, pos: int, plan: Plan, types: Mapping[int, WireType], depth: int, budget: Budget
) -> tuple[Message, int]:
    """One struct as a message, and where it ends.

    NB: written flat because it runs for every field of every message: a call per field would cost
    half as much again.
    """
    if depth < 1:
        raise DecodeError("messages inside one another deeper than the limit")
    end = len(data)
    fields = plan.fields
    values: list[Any] = [*_ZERO]
    field = -1
    while True:
        delta = data[pos]
        pos += 1
        if delta > 127:
            delta, pos = read_long(data, pos, delta)
        if delta == 0:
            return Message._make(values), pos
        field += delta
        read, slot, more = fields[field]
        if read == READ_TEXT:
            size = data[pos]
            pos += 1
            if size > 127:
                size, pos = read_long(data, pos, size)
            stop = pos + size
            if stop > end:
                raise DecodeError(f"field {GO_NAMES[slot]} is cut short")
            values[slot] = data[pos:stop].decode("utf-8", "surrogateescape")
            pos = stop
        elif read == READ_INT:
            number = data[pos]
            pos += 1
            if number > 127:
                number, pos = read_long(data, pos, number)
            values[slot] = ~(number >> 1) if number & 1 else number >> 1
        elif read == READ_TEXTS:
            if depth < 2:
                raise DecodeError(f"field {GO_NAMES[slot]} is nested deeper than the limit")
            values[slot], pos = _read_texts(data, pos, slot, budget)
        elif read == READ_BOOL:
            number = data[pos]
            pos += 1
            if number > 127:
                number, pos = read_long(data, pos, number)
            values[slot] = number != 0
        elif read == READ_MESSAGE:
            values[slot], pos = _read_message(data, pos, more, types, depth - 1, budget)
        else:
            pos = skip_value(data, pos, more, types, depth - 1, budget)


def _read_texts(data: bytes, pos: int, slot: int, budget: Budget) -> tuple[tuple[str, ...], int]:
    end = len(data)
    count = data[pos]
    pos += 1
    if count > 127:
        count, pos = read_long(data, pos, count)
    if count > MAX_TEXTS:
        raise DecodeError(f"field {GO_NAMES[slot]} holds {count} texts, more than {MAX_TEXTS}")
    if count > end - pos:
        raise DecodeError(f"field {GO_NAMES[slot]} is cut short")
    spend(budget, count)
    texts = []
    for _ in range(count):
        size = data[pos]
        pos += 1
        if size > 127:
            size, pos = read_long(data, pos, size)
        stop = pos + size
        if stop > end:
            raise DecodeError(f"field {GO_NAMES[slot]} is cut short")
        texts.append(data[pos:stop].decode("utf-8", "surrogateescape"))
        pos = stop
    return tuple(texts), pos


# Pass over values that a message has no field for.
#
# Every element of whatever type takes a byte at least, so the time is bounded by the stream's size,
# and by a count of values besides: a small compressed frame can hold millions. Nesting is bounded by
# the caller's depth.

SKIP_COST = 64
"""What passing over a value costs beside a text of a list, which one step reads."""

Budget = list[int]
"""Two numbers: how many values are left, and how many there were at first."""


def spend(budget: Budget, count: int) -> None:
    """Count values that are about to be read.

    Raises:
        DecodeError: there are too many.
    """
    budget[0] -= count
    if budget[0] < 0:
        raise DecodeError(
            f"more than {budget[1]} values in the gob stream (one that has no field counts as {SKIP_COST})"
        )


def skip_value(
    data: bytes, pos: int, type_id: int, types: Mapping[int, WireType], depth: int, budget: Budget
) -> int:
    """Where the value ends. `depth` is how many containers may still be inside one another.

    Raises:
        DecodeError: no such value here, or too deep.
    """
    spend(budget, SKIP_COST)
    definition = types.get(type_id)
    if definition is None:
        return _skip_built_in(data, pos, type_id)
    if isinstance(definition, OpaqueType):
        return _skip_bytes(data, pos)
    if depth < 1:
        raise DecodeError("values inside one another deeper than the limit")
    if isinstance(definition, StructType):
        return _skip_struct(data, pos, definition, types, depth - 1, budget)
    count, pos = read_uint(data, pos)
    if count > len(data) - pos:
        raise DecodeError(CUT_SHORT)
    if isinstance(definition, ArrayType) and count != definition.length:
        raise DecodeError("an array of another length than its type's")
    if isinstance(definition, MapType):
        for _ in range(count):
            pos = skip_value(data, pos, definition.key, types, depth - 1, budget)
            pos = skip_value(data, pos, definition.element, types, depth - 1, budget)
        return pos
    assert isinstance(definition, SliceType | ArrayType)
    for _ in range(count):
        pos = skip_value(data, pos, definition.element, types, depth - 1, budget)
    return pos


def _skip_struct(
    data: bytes,
    pos: int,
    struct: StructType,
    types: Mapping[int, WireType],
    depth: int,
    budget: Budget,
) -> int:
    field = -1
    while True:
        delta, pos = read_uint(data, pos)
        if delta == 0:
            return pos
        field += delta
        if field >= len(struct.fields):
            raise DecodeError("a field that its type does not have")
        pos = skip_value(data, pos, struct.fields[field][1], types, depth, budget)


def _skip_built_in(data: bytes, pos: int, type_id: int) -> int:
    if type_id in (STRING, BYTES):
        return _skip_bytes(data, pos)
    if type_id == INTERFACE:
        return _skip_interface(data, pos)
    if type_id == COMPLEX:
        _, pos = read_uint(data, pos)
    _, pos = read_uint(data, pos)
    return pos


def _skip_bytes(data: bytes, pos: int) -> int:
    size, pos = read_uint(data, pos)
    if size > len(data) - pos:
        raise DecodeError(CUT_SHORT)
    return pos + size


def _skip_interface(data: bytes, pos: int) -> int:
    """The name of the concrete type, or none for nil; its id; the value with its size before it."""
    size, pos = read_uint(data, pos)
    if size == 0:
        return pos
    if size > len(data) - pos:
        raise DecodeError(CUT_SHORT)
    type_id, pos = read_int(data, pos + size)
    if type_id < 0:
        raise DecodeError("a type defined inside the value")
    return _skip_bytes(data, pos)
