"""Where in a file a follower has come to, in a word that outlives the node's daemon, the file's name and its copy.

``<device>.<inode>.<offset>.<length>.<checksum>``: the checksum is that of the `length` bytes before the offset, so that an
inode that was given to another file, a file that was cut short and written anew, and a copy are told apart.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from appliance.core.message import bytes_to_text, text_to_bytes

MARK_BYTES = 256
MAX_SIBLINGS = 64
MAX_ENTRIES = 20_000
"""Of a directory that are looked at for files that were rotated away."""
_PLACE = re.compile(
    r"([0-9a-f]{1,16})\.([0-9a-f]{1,16})\.([0-9]{1,18})\.([0-9]{1,3})\.([0-9a-f]{8})"
)
_ROTATED = re.compile(rb"([.\-_]\d[\d.\-_:T+]*Z?|\.old|\.bak|~)")
"""What rotation puts behind a name: ``.1``, ``-20261129``, ``.old``."""


class Place(NamedTuple):
    """What a word says."""

    device: int
    inode: int
    offset: int
    length: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.device:x}.{self.inode:x}.{self.offset}.{self.length}.{self.checksum:08x}"

    def is_in(self, file_fd: int) -> bool:
        """Whether a file holds before the offset what was there."""
        if os.fstat(file_fd).st_size < self.offset:
            return False
        return zlib.crc32(_read_before(file_fd, self.offset, self.length)) == self.checksum

    def is_file(self, file_fd: int) -> bool:
        """Whether it is the very file, by its number."""
        facts = os.fstat(file_fd)
        return (facts.st_dev, facts.st_ino) == (self.device, self.inode)


def read_place(text: str) -> Place | None:
    """The place that a word names; None for one that is none."""
    found = _PLACE.fullmatch(text)
    if found is None or int(found[4]) > MARK_BYTES or int(found[4]) > int(found[3]):
        return None
    device, inode, offset, length, checksum = found.groups()
    return Place(int(device, 16), int(inode, 16), int(offset), int(length), int(checksum, 16))


@dataclass(slots=True)
class Run:
    """Bytes of one file that are read one after the other, from `offset` on; `before` is what stands before it."""

    device: int
    inode: int
    offset: int
    before: bytes
    begins_at: int = 0
    """How much had been read of all files when it began."""


def begin_run(file_fd: int, offset: int) -> Run:
    """What is read from here on."""
    facts = os.fstat(file_fd)
    before = _read_before(file_fd, offset, min(offset, MARK_BYTES))
    return Run(facts.st_dev, facts.st_ino, offset, before)


class Places:
    """Follows what is read, and tells of what was said of it where that ends."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._read = 0
        self._said = 0

    def read(self, run: Run | None, count: int) -> None:
        """So many bytes were read, with `run` the first of them from another place."""
        if run is not None:
            run.begins_at = self._read
            self._runs.append(run)
        self._read += count

    def say(self, data: bytes) -> str:
        """The next bytes have been said: the word for the place behind them; "" where there is none."""
        self._said += len(data)
        while len(self._runs) > 1 and self._runs[1].begins_at <= self._said:
            self._runs.popleft()
        if not self._runs:
            return ""
        run = self._runs[0]
        new = min(self._said - run.begins_at, len(data))
        if new:
            run.before = (run.before + data[-new:])[-MARK_BYTES:]
        run.offset, run.begins_at = run.offset + self._said - run.begins_at, self._said
        mark = run.before[-min(run.offset, MARK_BYTES) :] if run.offset else b""
        return str(Place(run.device, run.inode, run.offset, len(mark), zlib.crc32(mark)))


def find_rotated(path: str) -> list[str]:
    """Files beside one that may be what its name once stood for, those written last at the end; none that is packed."""
    directory, name = os.path.split(text_to_bytes(path))
    stem, dot, ending = name.rpartition(b".")
    found: list[tuple[int, bytes]] = []
    try:
        with os.scandir(directory) as entries:
            for count, entry in enumerate(entries):
                if count > MAX_ENTRIES:
                    break
                if not _is_rotated(entry.name, name, stem if dot else name, dot + ending):
                    continue
                if entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
    except OSError:
        return []
    found.sort()
    return [bytes_to_text(each) for _, each in found[-MAX_SIBLINGS:]]


def _is_rotated(other: bytes, name: bytes, stem: bytes, ending: bytes) -> bool:
    if other.startswith(name) and _ROTATED.fullmatch(other[len(name) :]):
        return True
    between = other[len(stem) : len(other) - len(ending)]
    is_around = other.startswith(stem) and other.endswith(ending)
    return is_around and stem != name and bool(_ROTATED.fullmatch(between))


def _read_before(file_fd: int, offset: int, length: int) -> bytes:
    return os.pread(file_fd, length, offset - length) if length else b""
