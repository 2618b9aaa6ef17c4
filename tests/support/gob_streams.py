"""Gob streams written by hand, independent of our encoder: any types, any ids, any order, any mistake."""

from __future__ import annotations

BOOL, INT, UINT, FLOAT, BYTES, STRING, COMPLEX, INTERFACE = range(1, 9)


def uint(value: int) -> bytes:
    if value < 128:
        return bytes([value])
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([256 - len(raw)]) + raw


def sint(value: int) -> bytes:
    return uint((-1 - value) * 2 + 1 if value < 0 else value * 2)


def text(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return uint(len(raw)) + raw


def texts(*values: bytes | str) -> bytes:
    return uint(len(values)) + b"".join(map(text, values))


def struct(*fields: tuple[int, bytes]) -> bytes:
    """A struct value: pairs of field number, from zero and rising, and content."""
    parts, last = [], -1
    for number, content in fields:
        parts += [uint(number - last), content]
        last = number
    return b"".join([*parts, b"\0"])


def framed(body: bytes) -> bytes:
    return uint(len(body)) + body


def value(type_id: int, content: bytes) -> bytes:
    return framed(sint(type_id) + content)


def _definition(type_id: int, kind: int, body: bytes) -> bytes:
    return framed(sint(-type_id) + struct((kind, body)))


def _common(type_id: int, name: str) -> bytes:
    return struct((0, text(name)), (1, sint(type_id)))


def struct_type(type_id: int, *fields: tuple[str, int], name: str = "Message") -> bytes:
    listed = b"".join(struct((0, text(n)), (1, sint(t))) for n, t in fields)
    return _definition(
        type_id, 2, struct((0, _common(type_id, name)), (1, uint(len(fields)) + listed))
    )


def slice_type(type_id: int, element: int) -> bytes:
    return _definition(type_id, 1, struct((0, _common(type_id, "[]x")), (1, sint(element))))


def array_type(type_id: int, element: int, length: int) -> bytes:
    body = struct((0, _common(type_id, "[n]x")), (1, sint(element)), (2, sint(length)))
    return _definition(type_id, 0, body)


def map_type(type_id: int, key: int, element: int) -> bytes:
    body = struct((0, _common(type_id, "map")), (1, sint(key)), (2, sint(element)))
    return _definition(type_id, 3, body)


def opaque_type(type_id: int, kind: int = 4) -> bytes:
    """A type with its own code: GobEncoder (4), BinaryMarshaler (5), TextMarshaler (6)."""
    return _definition(type_id, kind, struct((0, _common(type_id, "Time"))))
