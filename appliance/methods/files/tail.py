"""Follows a file by its name, as far as `allow_paths` goes: through rotation, truncation, and its coming to be.

What a name stands for is looked at every `POLL_S`. A file that took the place of the one being read is turned to once
it holds something, and once the old one is read to its end: whoever rotates makes the new file first and tells the
writer then, who goes on in the old one meanwhile. A file that has become shorter is read from its start. Known limits:
of two rotations while the listener is away the middle file is missed, and so is a truncation after which the file
grew beyond where it was before anybody looked.

The name may go through links; what counts is the file that it leads to, each time that another one is opened
(`_paths`). Everything that waits for the disk happens in threads of its own: a dead network disk holds other tails at
the worst.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from appliance.core.message import text_to_bytes
from appliance.errors import CopyFailed
from appliance.methods.files.paths import failed, open_source
from appliance.methods.programs.chunks import Chunker

POLL_S = 0.2
SIZELESS_POLL_S = 1.0
STREAM = "stdout"
NOTE_STREAM = "stderr"
"""What is not the file's own goes here, as with the command of that name."""

_BLOCK_BYTES = 64 * 1024
_MAX_SEARCH_BYTES = 64 * 1024 * 1024
"""How far back the last lines are looked for."""
_threads = ThreadPoolExecutor(8, thread_name_prefix="tail")


class Look(NamedTuple):
    """What one look at the file found."""

    data: bytes
    may_have_more: bool


class FollowedFile:
    """The file behind a path. Blocks; whoever waits no longer leaves a thread behind, which ends by itself."""

    def __init__(self, path: str, patterns: Sequence[str] | None) -> None:
        self._path = path
        self._patterns = patterns
        self._lock = threading.Lock()
        self._is_closed = False
        self._file_fd = -1
        self._offset = 0
        self._shown = b""
        """Of a file that tells no size: what it said last."""
        self._due_mono = 0.0

    def open_first(self, last_lines: int) -> bool:
        """Open what is there and go to its last lines; False when nothing is there, which is no trouble.

        Raises:
            HandlerError: not allowed, no regular file, not to be read.
        """
        with self._lock:
            if self._is_closed:
                return True
            try:
                self._open()
            except CopyFailed as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                return False
            self._offset = find_last_lines(self._file_fd, last_lines)
            return True

    def look(self, max_bytes: int) -> Look:
        """What was written since the last look.

        Raises:
            HandlerError: what the name stands for now is not allowed.
        """
        with self._lock:
            if self._is_closed or (self._file_fd < 0 and not self._open_next()):
                return Look(b"", may_have_more=False)
            try:
                return self._read(max_bytes)
            except OSError as error:
                raise failed(self._path, error) from error

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._is_closed = True
            self._close_file()

    def _read(self, max_bytes: int) -> Look:
        is_replaced = self._is_replaced()  # asked first: what is read next is then its end
        # cut short, as `>` does: what stands there is all new
        size = os.fstat(self._file_fd).st_size
        if size < self._offset:
            self._offset = 0
        data = os.pread(self._file_fd, min(max_bytes, _BLOCK_BYTES), self._offset)
        # asked again: it may have been cut short and written to in between
        if data and not size and not os.fstat(self._file_fd).st_size:
            return self._look_at_sizeless(data)
        self._offset += len(data)
        return Look(data, may_have_more=bool(data) or (is_replaced and self._open_next()))

    def _look_at_sizeless(self, data: bytes) -> Look:
        """A file of the kernel (/proc, /sys) has no end to go on from: it is shown anew when it says something else, and
        not more often than somebody can read.
        """
        now = time.monotonic()
        if data == self._shown or now < self._due_mono:
            return Look(b"", may_have_more=False)
        self._shown, self._due_mono = data, now + SIZELESS_POLL_S
        return Look(data, may_have_more=False)

    def _is_replaced(self) -> bool:
        """Whether the name stands for another file, in which something was written already."""
        try:
            found = os.stat(text_to_bytes(self._path))
        except OSError:
            return False
        mine = os.fstat(self._file_fd)
        return found.st_size > 0 and (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino)

    def _open_next(self) -> bool:
        """Open what the name stands for now, unless it is yet to come or to be given its rights."""
        try:
            self._open()
        except CopyFailed as error:
            if isinstance(error.__cause__, (FileNotFoundError, PermissionError)):
                return False
            raise
        return True

    def _open(self) -> None:
        file_fd, _ = open_source(self._path, self._patterns)
        self._close_file()
        self._file_fd = file_fd
        self._offset = 0

    def _close_file(self) -> None:
        if self._file_fd >= 0:
            os.close(self._file_fd)
            self._file_fd = -1


def find_last_lines(file_fd: int, count: int) -> int:
    """Where the last `count` lines of a file begin; a last one without an end is one of them."""
    end = os.fstat(file_fd).st_size
    if count == 0:
        return end
    left = count
    begin = end
    while begin > 0 and end - begin < _MAX_SEARCH_BYTES:
        block_begin = max(0, begin - _BLOCK_BYTES)
        block = os.pread(file_fd, begin - block_begin, block_begin)
        found = len(block)
        while (found := block.rfind(b"\n", 0, found)) >= 0:
            if block_begin + found + 1 == end:
                continue  # it ends the last line and begins none
            left -= 1
            if left == 0:
                return block_begin + found + 1
        begin = block_begin
    return begin


async def follow(
    path: str,
    patterns: Sequence[str] | None,
    talk: Chunker,
    *,
    last_lines: int = 0,
    tells_absence: bool = False,
) -> None:
    """Add to `talk` what the file says, until cancelled; with `tells_absence` also that it is waited for.

    Raises:
        HandlerError: it may not be read, or not any more.
    """
    file = FollowedFile(path, patterns)
    loop = asyncio.get_running_loop()
    try:
        is_there = await loop.run_in_executor(_threads, file.open_first, last_lines)
        if not is_there and tells_absence:
            talk.add(NOTE_STREAM, text_to_bytes(f"{path} is not there yet: waiting for it\n"))
        while True:
            # a listener who is behind slows down the reading, and nothing piles up here
            await talk.wait_room()
            look = await loop.run_in_executor(_threads, file.look, talk.room)
            if look.data:
                talk.add(STREAM, look.data)
            if not look.may_have_more:
                await asyncio.sleep(POLL_S)
    finally:
        with contextlib.suppress(RuntimeError):  # the program ends, and its threads have
            _threads.submit(file.close)
