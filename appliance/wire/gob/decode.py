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

from collections.abc import Mapping
from typing import Any

from appliance.core.message import Message
from appliance.errors import DecodeError
from appliance.wire.gob.descriptors import DescriptorCache
from appliance.wire.gob.encode import MESSAGE_DESCRIPTORS
from appliance.wire.gob.numbers import CUT_SHORT, read_long
from appliance.wire.gob.plan import (
    GO_NAMES,
    READ_BOOL,
    READ_INT,
    READ_MESSAGE,
    READ_TEXT,
    READ_TEXTS,
    Plan,
)
from appliance.wire.gob.skip import Budget, skip_value, spend
from appliance.wire.gob.types import MAX_TYPES, WireType
from appliance.wire.layout import MAX_TEXTS, MAX_VALUES

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
