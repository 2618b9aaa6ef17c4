"""Pass over values that a message has no field for.

Every element of whatever type takes a byte at least, so the time is bounded by the stream's size,
and by a count of values besides: a small compressed frame can hold millions. Nesting is bounded by
the caller's depth.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.errors import DecodeError
from appliance.wire.gob.numbers import CUT_SHORT, read_int, read_uint
from appliance.wire.gob.types import (
    BYTES,
    COMPLEX,
    INTERFACE,
    STRING,
    ArrayType,
    MapType,
    OpaqueType,
    SliceType,
    StructType,
    WireType,
)

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
