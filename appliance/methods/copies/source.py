"""The file that is copied: opened once, hashed before anything is sent. Bounded in memory.

What is copied is what the file holds at that moment: one that grows meanwhile, as logs do, is copied up to there, and
one that changes or shrinks is found out, by its hash at the latest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from appliance.errors import CopyFailed
from appliance.methods.files.paths import failed, open_source
from appliance.methods.texts import shorten
from appliance.supervision import run_in_pool

_T = TypeVar("_T")

HASH_STEP_BYTES = 32 * 1024 * 1024
_BLOCK_BYTES = 1024 * 1024
_threads = ThreadPoolExecutor(4, thread_name_prefix="copy sources")
"""Shared by all copies: they wait for disks and hash without the interpreter's lock."""


class SourceFile:
    """Made by `open`, ended by `close`. `size` is how much of it is copied."""

    def __init__(self, file_fd: int, path: str) -> None:
        self._file_fd = file_fd
        self.path = path
        self.size = os.fstat(file_fd).st_size
        self.sha256: str | None = None
        """Of the content, once it is known; whoever knows it beforehand may set it."""

    @classmethod
    async def open(
        cls, path: str, patterns: Sequence[str] | None, max_bytes: int | None
    ) -> SourceFile:
        """Open an allowed file.

        Raises:
            PathForbidden: not allowed, or no regular file.
            CopyFailed: missing, no permission, too large.
        """
        file_fd, resolved = await run_in_pool(_threads, open_source, path, patterns)
        source = cls(file_fd, resolved)
        if max_bytes is not None and source.size > max_bytes:
            source.close()
            raise CopyFailed(
                shorten(path), f"{source.size} bytes exceed max_file_bytes of {max_bytes}"
            )
        return source

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file_fd)

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes.

        Raises:
            CopyFailed: the file has become shorter, or cannot be read.
        """
        data = await self._run(_read_range, self._file_fd, offset, length)
        if len(data) < length:
            raise self.changed()
        return data

    async def read_all(self, most: int) -> bytes | None:
        """The content of a small file; None when it holds more than `most` bytes.

        Read to its end, wherever that is: files of the kernel (/proc, /sys) tell no true size. What was appended
        since it was opened does not count.

        Raises:
            CopyFailed: it cannot be read.
        """
        if self.size > most:
            return None
        # one byte more where no size is told, to see that it is too large
        data = await self._run(_read_range, self._file_fd, 0, self.size or most + 1)
        if len(data) > most:
            raise CopyFailed(shorten(self.path), f"it tells no size, and holds over {most} bytes")
        return data

    async def hash(self, tell: Callable[[], Awaitable[None]]) -> str:
        """The SHA-256 of the whole; `tell` is called now and then.

        Raises:
            CopyFailed: the file has become shorter, or cannot be read.
        """
        # known from when it was brought: large files are not read twice
        if self.sha256 is not None:
            return self.sha256
        hasher = hashlib.sha256()
        for offset in range(0, self.size, HASH_STEP_BYTES):
            end = min(self.size, offset + HASH_STEP_BYTES)
            if not await self._run(_hash_range, hasher, self._file_fd, offset, end):
                raise self.changed()
            await tell()
        self.sha256 = hasher.hexdigest()
        return self.sha256

    def changed(self) -> CopyFailed:
        """The words for a file that is not any more what it was when it was opened."""
        return CopyFailed(shorten(self.path), "it changed while it was copied")

    async def _run(self, function: Callable[..., _T], *args: object) -> _T:
        try:
            return await run_in_pool(_threads, function, *args)
        except OSError as error:
            raise failed(self.path, error) from error


class HeldSource(SourceFile):
    """A small file whose content is here already, for as long as it is sent."""

    def __init__(self, data: bytes, path: str) -> None:
        self._data = data
        self.path = path
        self.size = len(data)
        self.sha256 = hashlib.sha256(data).hexdigest()

    def close(self) -> None:
        """Nothing is open."""

    async def read(self, offset: int, length: int) -> bytes:
        """See `SourceFile`."""
        return self._data[offset : offset + length]

    async def read_all(self, most: int) -> bytes | None:
        """See `SourceFile`."""
        return None if self.size > most else self._data


def _read_range(file_fd: int, offset: int, length: int) -> bytes:
    data = os.pread(file_fd, length, offset)
    while 0 < len(data) < length:
        more = os.pread(file_fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _hash_range(hasher: hashlib._Hash, file_fd: int, offset: int, end: int) -> bool:
    """Whether all of it is there."""
    while offset < end:
        block = os.pread(file_fd, min(_BLOCK_BYTES, end - offset), offset)
        if not block:
            return False
        hasher.update(block)
        offset += len(block)
    return True
