"""Follows a file by its name, as far as `allow_paths` goes: through rotation, truncation, and its coming to be.

What a name stands for is looked at every `POLL_S`. A file that took the place of the one being read is turned to once
it holds something, and once the old one is read to its end: whoever rotates makes the new file first and tells the
writer then, who goes on in the old one meanwhile. What was rotated away in between is found by its name (`places`). A
file that has become shorter is read from its start. A known limit: what was written between the last look and a
truncation is missed, unless the file's copy is found when a follower goes on.

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
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from appliance.core.message import text_to_bytes
from appliance.errors import CopyFailed, HandlerError
from appliance.methods.files.paths import failed, open_source
from appliance.methods.files.places import Place, Places, Run, begin_run, find_rotated
from appliance.methods.programs.chunks import Chunker

POLL_S = 0.2
SIZELESS_POLL_S = 1.0
STREAM = "stdout"
NOTE_STREAM = "stderr"
"""What is not the file's own goes here, as with the command of that name."""

LINES_MISSING = (
    "was replaced or cut short meanwhile, and what it held is not found: lines may be missing"
)
_BLOCK_BYTES = 64 * 1024
_MAX_SEARCH_BYTES = 64 * 1024 * 1024
"""How far back the last lines are looked for."""
_threads = ThreadPoolExecutor(8, thread_name_prefix="tail")


class Look(NamedTuple):
    """What one look at the file found; with `run` it is the first of another place."""

    data: bytes
    may_have_more: bool
    run: Run | None = None


class Opened(NamedTuple):
    """How following a file began; `is_found` tells whether the place was found where somebody had come to."""

    is_there: bool
    is_found: bool
    run: Run | None


NOTHING = Look(b"", may_have_more=False)


class FollowedFile:
    """The file behind a path. Blocks; whoever waits no longer leaves a thread behind, which ends by itself."""

    def __init__(self, path: str, patterns: Sequence[str] | None) -> None:
        self._path = path
        self._patterns = patterns
        self._lock = threading.Lock()
        self._is_closed = False
        self._file_fd = -1
        self._offset = 0
        self._run: Run | None = None
        """Where what is read next begins, where it does not follow what was read last."""
        self._in_between: deque[str] | None = None
        """Files that were rotated away since the one that is read was; None while nobody has looked."""
        self._shown = b""
        """Of a file that tells no size: what it said last."""
        self._due_mono = 0.0

    def open_first(self, last_lines: int, place: Place | None = None) -> Opened:
        """Open what is there and go to its last lines, or to a place where somebody had come to.

        Raises:
            HandlerError: not allowed, no regular file, not to be read.
        """
        with self._lock:
            if self._is_closed:
                return Opened(is_there=True, is_found=True, run=None)
            is_there = self._try_open(self._path)
            if place is not None:
                is_found = self._go_to(place)
                run = begin_run(self._file_fd, self._offset) if self._file_fd >= 0 else None
                self._run = None
                return Opened(is_there=self._file_fd >= 0, is_found=is_found, run=run)
            if not is_there:
                return Opened(is_there=False, is_found=True, run=None)
            self._offset = find_last_lines(self._file_fd, last_lines)
            self._run = None
            return Opened(is_there=True, is_found=True, run=begin_run(self._file_fd, self._offset))

    def look(self, max_bytes: int) -> Look:
        """What was written since the last look.

        Raises:
            HandlerError: what the name stands for now is not allowed.
        """
        with self._lock:
            if self._is_closed or (self._file_fd < 0 and not self._open_next()):
                return NOTHING
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
            self._run = begin_run(self._file_fd, 0)
        data = os.pread(self._file_fd, min(max_bytes, _BLOCK_BYTES), self._offset)
        # asked again: it may have been cut short and written to in between
        if data and not size and not os.fstat(self._file_fd).st_size:
            return self._look_at_sizeless(data)
        if data:
            self._offset += len(data)
            run, self._run = self._run, None
            return Look(data, may_have_more=True, run=run)
        return Look(b"", may_have_more=is_replaced and self._open_next())

    def _look_at_sizeless(self, data: bytes) -> Look:
        """A file of the kernel (/proc, /sys) has no end to go on from: it is shown anew when it says something else, and
        not more often than somebody can read.
        """
        now = time.monotonic()
        if data == self._shown or now < self._due_mono:
            return NOTHING
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
        """Open what was rotated away meanwhile, else what the name stands for now, unless that is yet to come or to be
        given its rights.
        """
        if self._file_fd >= 0:
            if self._in_between is None:
                self._in_between = deque(self._rotated_since())
            while self._in_between:
                if self._try_open_rotated(self._in_between.popleft()):
                    return True
        if not self._try_open(self._path, waits_for_rights=True):
            return False
        self._in_between = None
        return True

    def _rotated_since(self) -> list[str]:
        """Names of files that were written after the one that is read, and were rotated away, too."""
        mine = os.fstat(self._file_fd)
        found: list[str] = []
        for path in find_rotated(self._path):
            with contextlib.suppress(OSError):
                facts = os.stat(text_to_bytes(path))
                if facts.st_mtime_ns > mine.st_mtime_ns and facts.st_ino != mine.st_ino:
                    found.append(path)
        return found

    def _go_to(self, place: Place) -> bool:
        """Turn to the file in which a place is; False where there is none: then to the beginning of what is there."""
        is_open = self._file_fd >= 0
        if is_open and place.is_file(self._file_fd) and place.is_in(self._file_fd):
            self._offset = place.offset
            return True
        rotated = find_rotated(self._path)[::-1]
        for must_be_file in (True, False):
            if not must_be_file and place.offset == 0:
                break  # every file begins so
            if not must_be_file and is_open and place.is_in(self._file_fd):
                self._offset = place.offset
                return True
            for path in rotated:
                kept_fd, self._file_fd = self._file_fd, -1
                if self._try_open_rotated(path):
                    is_it = place.is_in(self._file_fd)
                    if is_it and (place.is_file(self._file_fd) or not must_be_file):
                        if kept_fd >= 0:
                            os.close(kept_fd)
                        self._offset = place.offset
                        return True
                self._close_file()
                self._file_fd = kept_fd
        self._offset = 0
        return False

    def _try_open(self, path: str, *, waits_for_rights: bool = False) -> bool:
        waited_for = (FileNotFoundError, PermissionError) if waits_for_rights else FileNotFoundError
        try:
            self._open(path)
        except CopyFailed as error:
            if isinstance(error.__cause__, waited_for):
                return False
            raise
        return True

    def _try_open_rotated(self, path: str) -> bool:
        """What may not be read under its new name is left out."""
        try:
            self._open(path)
        except HandlerError:
            return False
        return True

    def _open(self, path: str) -> None:
        file_fd, _ = open_source(path, self._patterns)
        self._close_file()
        self._file_fd = file_fd
        self._offset = 0
        self._run = begin_run(file_fd, 0)

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


Begin = Callable[[], Awaitable[None]]
"""Told once it is known where following begins."""


async def follow(
    path: str,
    patterns: Sequence[str] | None,
    talk: Chunker,
    *,
    last_lines: int = 0,
    place: Place | None = None,
    places: Places | None = None,
    on_begin: Begin | None = None,
    tells_absence: bool = False,
) -> None:
    """Add to `talk` what the file says, until cancelled; with `tells_absence` also that it is waited for.

    It begins with the last lines, or at `place`; `places` is told what is read from where.

    Raises:
        HandlerError: it may not be read, or not any more.
    """
    file = FollowedFile(path, patterns)
    places = places if places is not None else Places()
    loop = asyncio.get_running_loop()
    try:
        opened = await loop.run_in_executor(_threads, file.open_first, last_lines, place)
        places.read(opened.run, 0)
        if tells_absence and not opened.is_there:
            talk.add(NOTE_STREAM, text_to_bytes(f"{path} is not there yet: waiting for it\n"))
        elif tells_absence and not opened.is_found:
            talk.add(NOTE_STREAM, text_to_bytes(f"{path} {LINES_MISSING}\n"))
        if on_begin is not None and opened.is_there:
            await on_begin()
        while True:
            # a listener who is behind slows down the reading, and nothing piles up here
            await talk.wait_room()
            look = await loop.run_in_executor(_threads, file.look, talk.room)
            if look.data:
                places.read(look.run, len(look.data))
                talk.add(STREAM, look.data)
            if not look.may_have_more:
                await asyncio.sleep(POLL_S)
    finally:
        with contextlib.suppress(RuntimeError):  # the program ends, and its threads have
            _threads.submit(file.close)
