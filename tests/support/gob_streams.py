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


UNKNOWN = {
    "bool": (BOOL, b"\x01"),
    "int": (INT, sint(-(2**63))),
    "uint": (UINT, uint(2**64 - 1)),
    "float": (FLOAT, uint(0xF03F)),
    "bytes": (BYTES, text(bytes(200))),
    "string": (STRING, text("x")),
    "complex": (COMPLEX, uint(0x40) + uint(1 << 60)),
    "nil interface": (INTERFACE, text("")),
    "interface": (INTERFACE, text("int") + sint(INT) + framed(b"\0\x2a")),
    "slice of slices": (81, uint(2) + texts("a", "b") + texts()),
    "array": (82, uint(3) + b"\1\2\3"),
    "map": (83, uint(2) + text("k") + texts("v") + text("") + texts()),
    "struct": (84, struct((0, sint(7)), (1, struct((0, sint(8)))))),
    "gob encoder": (85, text(bytes(15))),
    "binary marshaler": (86, text(b"abc")),
    "text marshaler": (87, text("abc")),
    "list of itself": (88, uint(2) + uint(1) + uint(0) + uint(0)),
}
UNKNOWN_TYPES = b"".join(
    (
        slice_type(80, STRING),
        slice_type(81, 80),
        array_type(82, UINT, 3),
        map_type(83, STRING, 80),
        struct_type(84, ("N", INT), ("Inner", 84), name="Tree"),
        opaque_type(85, 4),
        opaque_type(86, 5),
        opaque_type(87, 6),
        slice_type(88, 88),
    )
)


def stream_with(type_id: int, content: bytes, types: bytes = UNKNOWN_TYPES) -> bytes:
    """A message with a field that no message has between two that it has."""
    main = struct_type(65, ("ID", INT), ("Colour", type_id), ("Method", STRING))
    fields = struct((0, sint(1)), (1, content), (2, text("REQPing")))
    return main + types + value(65, fields)
