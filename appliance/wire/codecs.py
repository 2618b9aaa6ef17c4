"""The serializations and compressions there are. A new one is an entry here, and its name in `core/specs.py`.

Each has the word by which the config and the store know it, and the word that stands in the message's header; None where
the header is left out, as the seed does for gob and for what is not compressed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from appliance.core.message import Message
from appliance.wire.alike import Stencil
from appliance.wire.cbor import (
    decode_cbor,
    encode_cbor,
    encode_cbor_fields,
    encode_cbor_utf8,
    make_stencil,
)
from appliance.wire.gob import decode_gob, encode_gob
from appliance.wire.layout import MAX_VALUES
from appliance.wire.zstd import compress, decompress


class Decode(Protocol):
    """Reads a message, within bounds.

    Raises:
        DecodeError: whatever is wrong with it; nothing else is raised.
    """

    def __call__(
        self, payload: bytes, /, *, max_depth: int, max_values: int = MAX_VALUES
    ) -> Message:
        """The message that a payload holds."""
        ...


class Decompress(Protocol):
    """Unpacks a payload.

    Raises:
        DecodeError: it is none, or larger than the limit.
    """

    def __call__(self, payload: bytes, /, *, limit_bytes: int) -> bytes:
        """What was packed."""
        ...


class Serialization(NamedTuple):
    """How a message becomes bytes. `encode` writes what it is given; the three others give None where some peer could
    not read the result, and take a message or its values in the wire's order. `begins` tells by its first byte whether
    a payload is in it, and is False for what every peer reads: that is what none of the others is.
    """

    header: str | None
    encode: Callable[[Message], bytes]
    encode_for_all: Callable[[Message], bytes | None]
    encode_fields: Callable[[list[Any]], bytes | None]
    make_stencil: Callable[[list[Any]], Stencil | None]
    decode: Decode
    begins: Callable[[int], bool]


class Compression(NamedTuple):
    """How bytes become fewer."""

    header: str | None
    compress: Callable[[bytes], bytes]
    decompress: Decompress


def _encode_gob_fields(fields: list[Any]) -> bytes:
    return encode_gob(Message._make(fields))


def _no_stencil(_fields: list[Any]) -> None:
    return None


def _begins_cbor(first: int) -> bool:
    """With the head of an array, which as gob's first length is none."""
    return first >> 5 == 4


def _begins_gob(_first: int) -> bool:
    return False


def _as_it_is(payload: bytes) -> bytes:
    return payload


def _as_it_came(payload: bytes, *, limit_bytes: int) -> bytes:
    return payload


SERIALIZATIONS: Mapping[str, Serialization] = {
    "cbor": Serialization(
        "cbor",
        encode_cbor,
        encode_cbor_utf8,
        encode_cbor_fields,
        make_stencil,
        decode_cbor,
        _begins_cbor,
    ),
    "gob": Serialization(
        None, encode_gob, encode_gob, _encode_gob_fields, _no_stencil, decode_gob, _begins_gob
    ),
}
COMPRESSIONS: Mapping[str, Compression] = {
    "zstd": Compression("z", compress, decompress),
    "none": Compression(None, _as_it_is, _as_it_came),
}
READ_BY_ALL = "gob"
"""What every peer reads, whatever a message holds."""
UNCOMPRESSED = "none"
READ_ALIKE = "cbor"
"""What `alike.AlikeReader` reads."""

SERIALIZATION_OF_HEADER: Mapping[str | None, str] = {
    serialization.header: name for name, serialization in SERIALIZATIONS.items()
}
COMPRESSION_OF_HEADER: Mapping[str | None, str] = {
    compression.header: name for name, compression in COMPRESSIONS.items()
}


def guess_serialization(payload: bytes) -> str:
    """What a payload that is not compressed is in, told by its first byte."""
    first = payload[0] if payload else 0
    named = (name for name, serialization in SERIALIZATIONS.items() if serialization.begins(first))
    return next(named, READ_BY_ALL)
