"""The file that is copied: opened once, hashed before anything is sent, watched for changes. Bounded in memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from appliance.errors import CopyFailed
from appliance.methods._paths import failed, open_source
from appliance.methods._text import shorten

_T = TypeVar("_T")

HASH_STEP_BYTES = 32 * 1024 * 1024
_BLOCK_BYTES = 1024 * 1024
_threads = ThreadPoolExecutor(4, thread_name_prefix="copy sources")
"""Shared by all copies: they wait for disks and hash without the interpreter's lock."""


class SourceFile:
    """Made by `open`, ended by `close`."""

    def __init__(self, file_fd: int, path: str) -> None:
        self._file_fd = file_fd
        self.path = path
        found = os.fstat(file_fd)
        self.size = found.st_size
        self.changed_ns = found.st_mtime_ns

    @classmethod
    async def open(
        cls, path: str, patterns: Sequence[str] | None, max_bytes: int | None
    ) -> SourceFile:
        """Open an allowed file.

        Raises:
            PathForbidden: not allowed, or no regular file.
            CopyFailed: missing, no permission, too large.
        """
        file_fd, resolved = await _in_thread(open_source, path, patterns)
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
        data = await self._run(os.pread, self._file_fd, length, offset)
        while len(data) < length:
            more = await self._run(os.pread, self._file_fd, length - len(data), offset + len(data))
            if not more:
                raise self._changed()
            data += more
        return data

    async def hash(self, tell: Callable[[], Awaitable[None]]) -> str:
        """The SHA-256 of the whole; `tell` is called now and then."""
        hasher = hashlib.sha256()
        for offset in range(0, self.size, HASH_STEP_BYTES):
            end = min(self.size, offset + HASH_STEP_BYTES)
            await self._run(_hash_range, hasher, self._file_fd, offset, end)
            await tell()
        await self.check_unchanged()
        return hasher.hexdigest()

    async def check_unchanged(self) -> None:
        """Raises CopyFailed when the file is not what it was when it was opened."""
        found = await self._run(os.fstat, self._file_fd)
        if (found.st_size, found.st_mtime_ns) != (self.size, self.changed_ns):
            raise self._changed()

    def _changed(self) -> CopyFailed:
        return CopyFailed(shorten(self.path), "it changed while it was copied")

    async def _run(self, function: Callable[..., _T], *args: object) -> _T:
        try:
            return await _in_thread(function, *args)
        except OSError as error:
            raise failed(self.path, error) from error


async def _in_thread(function: Callable[..., _T], *args: object) -> _T:
    """In a thread; a cancelled caller waits, for the thread uses descriptors that the caller closes."""
    future = asyncio.get_running_loop().run_in_executor(_threads, function, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        if not future.cancelled():
            future.exception()
        raise


def _hash_range(hasher: hashlib._Hash, file_fd: int, offset: int, end: int) -> None:
    while offset < end:
        block = os.pread(file_fd, min(_BLOCK_BYTES, end - offset), offset)
        if not block:
            return  # shorter than it was: told by `check_unchanged`
        hasher.update(block)
        offset += len(block)
