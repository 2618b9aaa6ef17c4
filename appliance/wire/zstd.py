"""Zstandard frames with a hard limit on what they may grow to.

Compressing is deterministic: level 3, content size and checksum in the frame, as Go's encoder
writes them; nothing becomes nothing (Go encodes an empty payload as 0 bytes). Decompressing accepts
any level, and frames without a size (Go leaves it out of small ones), but one frame only and
nothing after it.

Source: measurements of zstandard 0.25: `max_output_size` is ignored when the frame states its size,
so the stated size is checked first; the stream readers accept truncated frames, so only the
one-shot call is used.
"""

from __future__ import annotations

import zstandard

from appliance.errors import DecodeError, EncodeError
from appliance.wire.base import Compression

LEVEL = 3
_MAGIC = zstandard.FRAME_HEADER
MAX_WINDOW_BYTES = 32 * 1024 * 1024
"""Go's best level, which the seed uses, works with a window of 32 MiB."""

# Contexts are costly to make and must not be used by two threads at once: each call borrows one.
# `pop` and `append` of a list are atomic, so the lists need no lock; they never hold more contexts
# than threads ran at once.
_compressors: list[zstandard.ZstdCompressor] = []
_decompressors: list[zstandard.ZstdDecompressor] = []


def compress(data: bytes) -> bytes:
    """Compress into one frame.

    Raises:
        EncodeError: the library failed.
    """
    if not data:
        return b""
    try:
        compressor = _compressors.pop()
    except IndexError:
        compressor = zstandard.ZstdCompressor(
            level=LEVEL, write_checksum=True, write_content_size=True
        )
    try:
        return compressor.compress(data)
    except (zstandard.ZstdError, MemoryError) as error:
        raise EncodeError(f"cannot compress: {error}") from error
    finally:
        _compressors.append(compressor)


def decompress(data: bytes, *, limit_bytes: int) -> bytes:
    """Undo one frame.

    Raises:
        DecodeError: not exactly one whole frame, or more than `limit_bytes` inside.
    """
    if not data:
        return b""
    try:
        # NB: -1 when the frame states no size
        stated_bytes = zstandard.frame_content_size(data)
    except (zstandard.ZstdError, ValueError) as error:
        raise DecodeError(f"not a zstd frame: {error}") from error
    if stated_bytes > limit_bytes:
        raise _too_large(stated_bytes, limit_bytes)
    try:
        decompressor = _decompressors.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    try:
        plain = decompressor.decompress(data, max_output_size=limit_bytes, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError, MemoryError) as error:
        raise DecodeError(f"cannot decompress within {limit_bytes} bytes: {error}") from error
    finally:
        _decompressors.append(decompressor)
    if len(plain) > limit_bytes:
        raise _too_large(len(plain), limit_bytes)
    return plain


def _too_large(size_bytes: int, limit_bytes: int) -> DecodeError:
    return DecodeError(
        f"decompressed size of {size_bytes} bytes exceeds the limit of {limit_bytes}"
    )


def _begins(payload: bytes) -> bool:
    return payload.startswith(_MAGIC)


COMPRESSION = Compression("z", compress, decompress, _begins)
"""See `codecs`."""
