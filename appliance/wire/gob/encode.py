"""Message to gob, byte for byte as a Go node of the seed writes it.

Each stream carries its types: the struct under the name `Message` and the two kinds of lists it
has. Fields of zero value and empty lists are left out, a previous message is not, however empty.

Source: the description of Go's package `encoding/gob`; recorded streams of Go nodes.
"""

from __future__ import annotations

from appliance.core.message import Message, Texts
from appliance.errors import EncodeError
from appliance.wire.gob.numbers import write_int, write_uint
from appliance.wire.gob.plan import (
    FIELD_READS,
    GO_NAMES,
    READ_BOOL,
    READ_INT,
    READ_MESSAGE,
    READ_TEXT,
    READ_TEXTS,
)
from appliance.wire.gob.types import BOOL, INT, STRING
from appliance.wire.layout import check_encodable

_MESSAGE, _NODES, _STRINGS = 65, 66, 67
"""The ids that a Go program gives them which uses gob for nothing else."""

_BUILT_IN = {READ_TEXT: STRING, READ_INT: INT, READ_BOOL: BOOL, READ_MESSAGE: _MESSAGE}


def _describe(package: str) -> bytes:
    """The definitions as a Go program writes them whose node names are `package`.Node."""

    def define(type_id: int, kind: int, name: str, more: bytes) -> bytes:
        common = b"\x01" + _write_text(name) + b"\x01" + write_int(type_id) + b"\x00"
        body = write_int(-type_id) + bytes((kind, 1)) + common + b"\x01" + more + b"\x00\x00"
        return write_uint(len(body)) + body

    fields = [write_uint(len(GO_NAMES))]
    for name, read in zip(GO_NAMES, FIELD_READS, strict=True):
        type_id = _BUILT_IN.get(read) or (_NODES if name == "ToNodes" else _STRINGS)
        fields.append(b"\x01" + _write_text(name) + b"\x01" + write_int(type_id) + b"\x00")
    return (
        define(_MESSAGE, 3, "Message", b"".join(fields))
        + define(_NODES, 2, f"[]{package}.Node", write_int(STRING))
        + define(_STRINGS, 2, "[]string", write_int(STRING))
    )


def _write_text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return write_uint(len(raw)) + raw


_DESCRIPTOR = _describe("main")
MESSAGE_DESCRIPTORS = (_DESCRIPTOR, _describe("steward"))
"""Ours, and that of the seed itself; the name of a type of lists is the only difference."""

_VALUE_TYPE = write_int(_MESSAGE)
_ONE_BYTE = tuple(bytes((number,)) for number in range(256))


def encode_gob(message: Message) -> bytes:
    """Encode as Go does, byte for byte. An empty list is written as none, which gob cannot tell apart.

    Raises:
        EncodeError: a field's type or range, nesting, or a text with surrogates that stand for no
        byte.
    """
    check_encodable(message)
    parts: list[bytes] = []
    try:
        _write_struct(message, parts)
    except UnicodeEncodeError as error:
        raise EncodeError("a text holds a surrogate that stands for no byte") from error
    value = b"".join(parts)
    return b"".join((_DESCRIPTOR, write_uint(len(_VALUE_TYPE) + len(value)), _VALUE_TYPE, value))


def _write_struct(message: Message, parts: list[bytes]) -> None:
    """NB: flat for the same reason as the decoder; nearly all numbers and lengths are one byte."""
    last = -1
    for field, value in enumerate(message):
        # None, zero, nothing, false; but a previous message is a tuple of 25 and never falsy
        if not value:
            continue
        parts.append(_ONE_BYTE[field - last])
        last = field
        read = FIELD_READS[field]
        if read == READ_TEXT:
            raw = value.encode("utf-8", "surrogateescape")  # type: ignore[union-attr]
            size = len(raw)
            parts.append(_ONE_BYTE[size] if size < 128 else write_uint(size))
            parts.append(raw)
        elif read == READ_INT:
            parts.append(write_int(value))  # type: ignore[arg-type]
        elif read == READ_TEXTS:
            _write_texts(value, parts)  # type: ignore[arg-type]
        elif read == READ_BOOL:
            parts.append(b"\x01")
        else:
            _write_struct(value, parts)  # type: ignore[arg-type]
    parts.append(b"\x00")


def _write_texts(texts: Texts, parts: list[bytes]) -> None:
    assert texts is not None
    parts.append(write_uint(len(texts)))
    for text in texts:
        raw = text.encode("utf-8", "surrogateescape")
        size = len(raw)
        parts.append(_ONE_BYTE[size] if size < 128 else write_uint(size))
        parts.append(raw)
