"""What a gob stream says about its types, before the value.

Each definition is a message of its own: the negated id of the type, then a `wireType`, a struct
with one field set, which says what kind of type it is. Ids below 64 are Go's own.

Everything is bounded: the count of types and fields of one stream, and by them the memory.

Source: the description of Go's package `encoding/gob`.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from appliance.errors import DecodeError
from appliance.wire.gob.numbers import CUT_SHORT, read_int, read_uint

BOOL, INT, UINT, FLOAT, BYTES, STRING, COMPLEX, INTERFACE = range(1, 9)
BUILT_IN_TYPES = frozenset(range(1, 9))
_LAST_OWN_TYPE = 23
"""Up to here Go numbers the types that describe types."""

MAX_TYPES = 32
"""Of a stream; the seed's message needs two, and each costs as much as a message to read."""
MAX_FIELDS = 256
"""Of all structs of a stream; the seed's message has 25, later generations 27."""


class SliceType(NamedTuple):
    """A count and as many elements."""

    element: int


class ArrayType(NamedTuple):
    """As a slice on the wire, with a count known before."""

    element: int
    length: int


class MapType(NamedTuple):
    """A count and as many pairs."""

    key: int
    element: int


class StructType(NamedTuple):
    """Fields in order: name and type id."""

    fields: tuple[tuple[bytes, int], ...]


class OpaqueType(NamedTuple):
    """Bytes that only the type's own code can read (GobEncoder and its like)."""


WireType: TypeAlias = SliceType | ArrayType | MapType | StructType | OpaqueType


def read_types(descriptor: bytes) -> dict[int, WireType]:
    """All definitions of a stream, by id; `descriptor` is nothing but definitions.

    Raises:
        DecodeError: anything else.
    """
    types: dict[int, WireType] = {}
    fields_left = MAX_FIELDS
    pos = 0
    while pos < len(descriptor):
        size, pos = read_uint(descriptor, pos)
        if size > len(descriptor) - pos:
            raise DecodeError(CUT_SHORT)
        reader = _Reader(descriptor[pos : pos + size], fields_left)
        pos += size
        type_id = -reader.read_int()
        if type_id <= _LAST_OWN_TYPE:
            raise DecodeError(f"the gob stream defines type {type_id}, which is Go's own")
        if type_id in types:
            raise DecodeError(f"the gob stream defines type {type_id} twice")
        if len(types) == MAX_TYPES:
            raise DecodeError(f"the gob stream defines more than {MAX_TYPES} types")
        types[type_id] = reader.read_definition()
        fields_left = reader.fields_left
    return types


class _Reader:
    """One definition."""

    def __init__(self, data: bytes, fields_left: int) -> None:
        self._data = data
        self._pos = 0
        self.fields_left = fields_left

    def read_definition(self) -> WireType:
        kind, more = self._next_field(0, 7)
        if not more:
            raise DecodeError("a type of no kind in the gob stream")
        definition: WireType
        if kind == 1:
            element, length = self._read_numbers(2)
            definition = ArrayType(element, length)
        elif kind == 2:
            definition = SliceType(*self._read_numbers(1))
        elif kind == 3:
            definition = self._read_struct()
        elif kind == 4:
            key, element = self._read_numbers(2)
            definition = MapType(key, element)
        else:
            self._read_numbers(0)
            definition = OpaqueType()
        _, more = self._next_field(kind, 7)
        if more or self._pos != len(self._data):
            raise DecodeError("bytes after a type definition in the gob stream")
        return definition

    def read_int(self) -> int:
        value, self._pos = read_int(self._data, self._pos)
        return value

    def _read_uint(self) -> int:
        value, self._pos = read_uint(self._data, self._pos)
        return value

    def _read_text(self) -> bytes:
        size = self._read_uint()
        stop = self._pos + size
        if stop > len(self._data):
            raise DecodeError(CUT_SHORT)
        text = self._data[self._pos : stop]
        self._pos = stop
        return text

    def _next_field(self, field: int, last: int) -> tuple[int, bool]:
        """The number of the struct's next field, from one, and whether there is one."""
        delta = self._read_uint()
        if delta > last - field:
            raise DecodeError("a type definition of an unknown form in the gob stream")
        return field + delta, delta != 0

    def _read_common(self) -> None:
        """Name and id, which say nothing that is needed."""
        field, more = self._next_field(0, 2)
        while more:
            if field == 1:
                self._read_text()
            else:
                self.read_int()
            field, more = self._next_field(field, 2)

    def _read_numbers(self, count: int) -> list[int]:
        """The common part, then `count` signed numbers."""
        numbers = [0] * count
        field, more = self._next_field(0, 1 + count)
        while more:
            if field == 1:
                self._read_common()
            else:
                numbers[field - 2] = self.read_int()
            field, more = self._next_field(field, 1 + count)
        return numbers

    def _read_struct(self) -> StructType:
        fields: list[tuple[bytes, int]] = []
        field, more = self._next_field(0, 2)
        while more:
            if field == 1:
                self._read_common()
            else:
                count = self._read_uint()
                if count > self.fields_left:
                    raise DecodeError(
                        f"the types of the gob stream have more than {MAX_FIELDS} fields"
                    )
                self.fields_left -= count
                fields.extend(self._read_field() for _ in range(count))
            field, more = self._next_field(field, 2)
        return StructType(tuple(fields))

    def _read_field(self) -> tuple[bytes, int]:
        name, type_id = b"", 0
        field, more = self._next_field(0, 2)
        while more:
            if field == 1:
                name = self._read_text()
            else:
                type_id = self.read_int()
            field, more = self._next_field(field, 2)
        return name, type_id
