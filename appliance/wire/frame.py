"""Frames: a payload and the headers that say how to read it.

Headers are those of the seed: ``serial: cbor`` (absent would mean gob) and ``cmp: z`` (absent means
uncompressed), keys in exactly this case. An encoding's name in the store is the same in one word:
``cbor`` or ``cbor+zstd``. Unlike the Go node, which reads unknown values as gob or as raw bytes,
this refuses them by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.core.message import Message
from appliance.errors import DecodeError, EncodeError
from appliance.wire.cbor import decode_cbor, encode_cbor
from appliance.wire.zstd import compress, decompress

SERIAL_HEADER = "serial"
COMPRESSION_HEADER = "cmp"

_HEADERS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("cbor", "none"): {SERIAL_HEADER: "cbor"},
    ("cbor", "zstd"): {SERIAL_HEADER: "cbor", COMPRESSION_HEADER: "z"},
}

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


def encode_frame(
    message: Message, serialization: str, compression: str
) -> tuple[bytes, dict[str, str]]:
    """Encode a message and name the encoding in headers.

    Raises:
        EncodeError: unknown encoding, or a message that cannot be written.
    """
    headers = frame_headers(serialization, compression)
    payload = encode_cbor(message)
    if compression == "zstd":
        payload = compress(payload)
    return payload, dict(headers)


def decode_frame(
    payload: bytes, headers: Mapping[str, str], limits: WireLimits = DEFAULT_LIMITS
) -> Message:
    """Read a frame from outside.

    Raises:
        DecodeError: whatever is wrong with it; nothing else is raised.
    """
    if len(payload) > limits.max_message_bytes:
        raise DecodeError(
            f"message of {len(payload)} bytes exceeds the limit of {limits.max_message_bytes}"
        )
    serial = compression = None
    for key, value in headers.items():
        if key == SERIAL_HEADER:
            serial = value
        elif key == COMPRESSION_HEADER:
            compression = value
        elif key.lower() in (SERIAL_HEADER, COMPRESSION_HEADER) and key.lower() in headers:
            raise DecodeError(f"header {key.lower()!r} is given twice, in different case")
    if compression is not None:
        if compression != "z":
            raise DecodeError(
                f"unknown compression {compression[:40]!r} in header {COMPRESSION_HEADER!r}"
            )
        if serial == "cbor":
            payload = decompress(payload, limit_bytes=limits.max_decompressed_bytes)
    if serial != "cbor":
        if serial is None:
            raise DecodeError(
                f"no header {SERIAL_HEADER!r}: that is gob, which is not supported yet"
            )
        raise DecodeError(f"unknown serialization {serial[:40]!r} in header {SERIAL_HEADER!r}")
    return decode_cbor(payload, max_depth=limits.max_depth)


def transcode(payload: bytes, from_encoding: str, to_encoding: str) -> bytes:
    """Rewrite a stored payload of ours from one encoding into another.

    Raises:
        EncodeError: an encoding that does not exist here.
        DecodeError: the payload is not what its encoding says.
    """
    if from_encoding == to_encoding:
        return payload
    source, target = _split_encoding(from_encoding), _split_encoding(to_encoding)
    if source[1] == "zstd":
        payload = decompress(payload, limit_bytes=_MAX_STORED_BYTES)
    return compress(payload) if target[1] == "zstd" else payload


def _split_encoding(encoding: str) -> tuple[str, str]:
    serialization, plus, compression = encoding.partition("+")
    pair = (serialization, compression if plus else "none")
    frame_headers(*pair)
    return pair
