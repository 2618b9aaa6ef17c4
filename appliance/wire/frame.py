"""Frames: a payload and the headers that say how to read it.

Headers are those of the seed: ``serial: cbor`` (absent means gob) and ``cmp: z`` (absent means
uncompressed), keys in exactly this case. An encoding's name in the store is the same in one word:
``cbor``, ``cbor+zstd``, ``gob`` or ``gob+zstd``. Unlike the Go node, which reads unknown values as
gob or as raw bytes, this refuses them by name.

A message with text that is not UTF-8 goes out as gob whatever was asked for: a Go node refuses it
in CBOR, and the message would be lost. Every receiver reads both, so nobody else notices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.core.message import Message, Texts
from appliance.errors import DecodeError, EncodeError
from appliance.wire.alike import AlikeReader
from appliance.wire.codecs import (
    COMPRESSION_OF_HEADER,
    COMPRESSIONS,
    READ_ALIKE,
    READ_BY_ALL,
    SERIALIZATION_OF_HEADER,
    SERIALIZATIONS,
    UNCOMPRESSED,
)
from appliance.wire.layout import (
    MAX_NESTED_MESSAGES,
    MAX_TEXTS,
    MAX_VALUES,
    PREVIOUS_MESSAGE,
    is_plain,
)

SERIAL_HEADER = "serial"
COMPRESSION_HEADER = "cmp"

_HEADERS: Mapping[tuple[str, str], Mapping[str, str]] = {
    (serialization, compression): {
        key: word
        for key, word in (
            (SERIAL_HEADER, SERIALIZATIONS[serialization].header),
            (COMPRESSION_HEADER, COMPRESSIONS[compression].header),
        )
        if word is not None
    }
    for serialization in SERIALIZATIONS
    for compression in COMPRESSIONS
}

_VALUES_OF_ANY_FRAME = MAX_TEXTS + 4_096
_VALUES_A_BYTE = 64
"""A compressed frame may hold one full list whatever it weighs, and more texts only by its weight: a hundred bytes can
claim four full ones, and each text costs more than a byte of it."""

_MAX_STORED_BYTES = 64 * 1024 * 1024
"""Bound on what a payload of our own store may decompress to; no broker takes messages near it."""


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds on what comes in."""

    max_message_bytes: int = 1_048_576
    max_decompressed_bytes: int = 4_194_304
    max_depth: int = 16


DEFAULT_LIMITS = WireLimits()


def frame_headers(serialization: str, compression: str) -> Mapping[str, str]:
    """The headers that announce an encoding; a constant, copy it before adding to it.

    Raises:
        EncodeError: an encoding that does not exist here.
    """
    headers = _HEADERS.get((serialization, compression))
    if headers is None:
        raise EncodeError(
            f"unknown encoding: serialization {serialization!r}, compression {compression!r}"
        )
    return headers


def encoding_name(serialization: str, compression: str) -> str:
    """The store's word for an encoding: ``cbor`` or ``cbor+zstd``."""
    return serialization if compression == UNCOMPRESSED else f"{serialization}+{compression}"


_ENCODINGS = {pair: encoding_name(*pair) for pair in _HEADERS}


def split_encoding(encoding: str) -> tuple[str, str]:
    """Serialization and compression of an encoding's name.

    Raises:
        EncodeError: an encoding that does not exist here.
    """
    serialization, plus, compression = encoding.partition("+")
    pair = (serialization, compression if plus else UNCOMPRESSED)
    frame_headers(*pair)
    return pair


def encode_payload(message: Message, serialization: str, compression: str) -> bytes:
    """Encode exactly as asked, even where a Go node could not read it.

    Raises:
        EncodeError: unknown encoding, or a message that cannot be written.
    """
    frame_headers(serialization, compression)
    return COMPRESSIONS[compression].compress(SERIALIZATIONS[serialization].encode(message))


def encode_frame(
    message: Message, serialization: str, compression: str
) -> tuple[bytes, dict[str, str]]:
    """Encode a message so that any node can read it, and name in headers what was done.

    Raises:
        EncodeError: unknown encoding, or a message that cannot be written.
    """
    payload, encoding = encode_stored(message, serialization, compression)
    return payload, dict(frame_headers(*split_encoding(encoding)))


def encode_stored(message: Message, serialization: str, compression: str) -> tuple[bytes, str]:
    """As `encode_frame`, for the store: the payload and the name of the encoding it is in.

    Raises:
        EncodeError: unknown encoding, or a message that cannot be written.
    """
    frame_headers(serialization, compression)
    payload = SERIALIZATIONS[serialization].encode_for_all(message)
    if payload is None:
        serialization = READ_BY_ALL
        payload = SERIALIZATIONS[serialization].encode(message)
    return COMPRESSIONS[compression].compress(payload), encoding_name(serialization, compression)


def encode_fields(fields: list[Any], serialization: str, compression: str) -> tuple[bytes, str]:
    """As `encode_stored`, for the values of a message in the wire's order: the short way of nearly all messages.

    Raises:
        EncodeError: unknown encoding, or a message that cannot be written.
    """
    encoding = _ENCODINGS.get((serialization, compression))
    if encoding is not None and fields[PREVIOUS_MESSAGE] is None and is_plain(fields):
        payload = SERIALIZATIONS[serialization].encode_fields(fields)
        if payload is not None:
            return COMPRESSIONS[compression].compress(payload), encoding
    return encode_stored(Message._make(fields), serialization, compression)


class FrameStencil:
    """`encode_fields` for messages that differ from one in number and data only."""

    __slots__ = ("_compress", "_encoding", "_stencil")

    def __init__(self, fields: list[Any], serialization: str, compression: str) -> None:
        """Of the values of such a message, whatever its number and data.

        Raises:
            EncodeError: unknown encoding.
        """
        frame_headers(serialization, compression)
        stencil = None
        if fields[PREVIOUS_MESSAGE] is None and is_plain(fields):
            stencil = SERIALIZATIONS[serialization].make_stencil(fields)
        self._stencil = stencil if stencil is not None and stencil.is_worth_keeping else None
        self._compress = None if compression == UNCOMPRESSED else COMPRESSIONS[compression].compress
        self._encoding = encoding_name(serialization, compression)

    @property
    def is_of_use(self) -> bool:
        """Whether there may be messages for it."""
        return self._stencil is not None

    def encode(self, number: int, data: Texts) -> tuple[bytes, str] | None:
        """As `encode_fields`; None for what has to be encoded there."""
        payload = None if self._stencil is None else self._stencil.fill(number, data)
        if payload is None:
            return None
        return payload if self._compress is None else self._compress(payload), self._encoding


def decode_frame(
    payload: bytes, headers: Mapping[str, str], limits: WireLimits = DEFAULT_LIMITS
) -> Message:
    """Read a frame from outside.

    Raises:
        DecodeError: whatever is wrong with it; nothing else is raised.
    """
    serialization, compression = _read_headers(headers)
    return decode_payload(payload, serialization, compression, limits)


def decode_payload(
    payload: bytes,
    serialization: str,
    compression: str,
    limits: WireLimits,
    *,
    alike: AlikeReader | None = None,
    number: int | None = None,
) -> Message:
    """Read a payload from outside whose headers have been read.

    Args:
        alike: what was read before, which makes the next of the same kind cheaper.
        number: stands in the message in the place of its own.

    Raises:
        DecodeError: whatever is wrong with it; nothing else is raised.
    """
    if len(payload) > limits.max_message_bytes:
        raise DecodeError(
            f"message of {len(payload)} bytes exceeds the limit of {limits.max_message_bytes}"
        )
    max_values = MAX_VALUES
    if compression != UNCOMPRESSED:
        max_values = min(MAX_VALUES, _VALUES_OF_ANY_FRAME + _VALUES_A_BYTE * len(payload))
        unpack = COMPRESSIONS[compression].decompress
        payload = unpack(payload, limit_bytes=limits.max_decompressed_bytes)
    if serialization != READ_ALIKE:
        alike = None
    if alike is not None:
        known = alike.read(payload, number)
        if known is not None:
            return known
    decode = SERIALIZATIONS[serialization].decode
    message = decode(payload, max_depth=limits.max_depth, max_values=max_values)
    if alike is not None:
        alike.learn(payload, message)
    return message if number is None else message._replace(id=number)


def _read_headers(headers: Mapping[str, str]) -> tuple[str, str]:
    """Serialization and compression that the headers name; a word that we do not know is refused."""
    serial: str | None = None
    compression: str | None = None
    for key, value in headers.items():
        if key == SERIAL_HEADER:
            serial = value
        elif key == COMPRESSION_HEADER:
            compression = value
        elif key.lower() in (SERIAL_HEADER, COMPRESSION_HEADER):
            if key.lower() in headers:
                raise DecodeError(f"header {key.lower()!r} is given twice, in different case")
            # a Go node would take it for absent; what it says is what was meant all the same
            raise DecodeError(f"header {key!r} has to be written {key.lower()!r}")
    if serial not in SERIALIZATION_OF_HEADER:
        raise DecodeError(
            f"unknown serialization {(serial or '')[:40]!r} in header {SERIAL_HEADER!r}"
        )
    if compression not in COMPRESSION_OF_HEADER:
        raise DecodeError(
            f"unknown compression {(compression or '')[:40]!r} in header {COMPRESSION_HEADER!r}"
        )
    return SERIALIZATION_OF_HEADER[serial], COMPRESSION_OF_HEADER[compression]


def transcode(payload: bytes, from_encoding: str, to_encoding: str) -> tuple[bytes, str]:
    """Rewrite a stored payload of ours into another encoding; the payload and what it is in now.

    What holds text that is not UTF-8 stays gob, as in `encode_frame`.

    Raises:
        EncodeError: an encoding that does not exist here.
        DecodeError: the payload is not what its encoding says.
    """
    if from_encoding == to_encoding:
        return payload, from_encoding
    source, target = split_encoding(from_encoding), split_encoding(to_encoding)
    plain = COMPRESSIONS[source[1]].decompress(payload, limit_bytes=_MAX_STORED_BYTES)
    if source[0] == target[0]:
        return COMPRESSIONS[target[1]].compress(plain), to_encoding
    message = SERIALIZATIONS[source[0]].decode(plain, max_depth=MAX_NESTED_MESSAGES + 1)
    rewritten, encoding = encode_stored(message, *target)
    return (payload, from_encoding) if encoding == from_encoding else (rewritten, encoding)
