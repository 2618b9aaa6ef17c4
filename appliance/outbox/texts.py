"""Small values as bytes: JSON that also carries surrogate escapes, and texts with a bound. Pure."""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec

MAX_TEXT = 2_000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def pack(value: object) -> bytes:
    """JSON in bytes; texts may hold surrogate escapes."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def unpack(raw: bytes | str) -> Any:
    """Undo `pack`.

    Raises:
        ValueError: the bytes are no JSON.
    """
    try:
        return _decode(raw)
    except msgspec.DecodeError:
        return json.loads(raw)


def plain_text(text: str) -> str:
    """A text that JSON and SQLite carry: no surrogates, no NUL, bounded."""
    if text.isascii() and len(text) <= MAX_TEXT and "\0" not in text:
        return text
    cut = text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()
    return cut.replace("\0", "\\x00")


def seal(text: str) -> str:
    """Put a checksum before a text: SQLite notices no damage inside of values."""
    return f"{zlib.crc32(text.encode()):08x}{text}"


def unseal(sealed: object) -> str | None:
    """Undo `seal`; None when the text is damaged."""
    if not isinstance(sealed, str):
        return None
    text = sealed[8:]
    is_whole = sealed[:8] == f"{zlib.crc32(text.encode('utf-8', 'replace')):08x}"
    return text if is_whole else None
