"""Numbers as gob writes them.

Below 128 an unsigned number is one byte. Otherwise one byte holds 256 minus the count of the bytes
that follow, most significant first. A signed number is an unsigned one whose lowest bit tells
whether all others are to be complemented. Callers on the hot path read the one-byte form inline.

Source: the description of Go's package `encoding/gob`.
"""

from __future__ import annotations

from appliance.errors import DecodeError

CUT_SHORT = "the gob stream is cut short"


def read_long(data: bytes, pos: int, first: int) -> tuple[int, int]:
    """The rest of a number whose first byte is over 127: its value and where it ends.

    Raises:
        DecodeError: over 64 bits, or not all there.
    """
    size = 256 - first
    if size > 8:
        raise DecodeError(f"a number of {size * 8} bits in the gob stream")
    stop = pos + size
    if stop > len(data):
        raise DecodeError(CUT_SHORT)
    return int.from_bytes(data[pos:stop], "big"), stop


def read_uint(data: bytes, pos: int) -> tuple[int, int]:
    """An unsigned number and where it ends.

    Raises:
        DecodeError: over 64 bits, or not all there.
    """
    if pos >= len(data):
        raise DecodeError(CUT_SHORT)
    first = data[pos]
    if first < 128:
        return first, pos + 1
    return read_long(data, pos + 1, first)


def read_int(data: bytes, pos: int) -> tuple[int, int]:
    """A signed number and where it ends.

    Raises:
        DecodeError: over 64 bits, or not all there.
    """
    value, pos = read_uint(data, pos)
    return to_signed(value), pos


def to_signed(value: int) -> int:
    """The signed number that an unsigned one stands for."""
    return ~(value >> 1) if value & 1 else value >> 1


def write_uint(value: int) -> bytes:
    """An unsigned number in its shortest form."""
    if value < 128:
        return bytes((value,))
    size = (value.bit_length() + 7) >> 3
    return bytes((256 - size,)) + value.to_bytes(size, "big")


def write_int(value: int) -> bytes:
    """A signed number in its shortest form."""
    return write_uint(~value << 1 | 1 if value < 0 else value << 1)
