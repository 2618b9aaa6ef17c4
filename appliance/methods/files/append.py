"""The blocking half of appending: find the place, write a batch, and undo what a crash tore.

How one batch becomes durable, and a message's bytes stand in the file exactly once whatever is
killed when:

1. The batch's place (file, begin, length) is noted in a slot of our own; each message's own
   position is stored with the message (`Intend`). Only then are bytes written, in one piece, and
   synced. Then the callers are told.
2. After a crash `start` undoes torn batches: a file that ends inside a noted batch is cut back to
   the batch's begin. Nobody was told that any message of it was done, so each of them comes again.
3. A message that comes again brings its position. Its bytes count as written only if they stand
   there, in the very file, and stood there when this process first saw the file: what stands at that
   place of another file that has or had the name, and what was written since, belongs to others,
   even where it looks alike. Where none of the files is the one that was noted (the directory was
   copied), any of them may be.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote_to_bytes

from appliance.core.file_names import RESERVED_PREFIX
from appliance.core.message import bytes_to_text, text_to_bytes
from appliance.errors import PathForbidden
from appliance.methods.base import FilePosition
from appliance.methods.files.confine import (
    open_directory,
    open_file,
    open_for_append,
    open_parent,
    open_root,
    write_all,
)
from appliance.methods.files.rotation import Rotation, move_aside, predecessor

SLOT_COUNT = 8
"""Batches that may be under way at once, each in another file."""

_SLOT_DIRECTORY = f"{RESERVED_PREFIX}appending".encode()
_SLOT_BYTES = 16_384
_SLOT_HEADER = struct.Struct(">II")  # crc32 and length of the JSON that follows
_NO_BATCH = bytes(_SLOT_HEADER.size)
_REMEMBERED_FILES = 65_536
MAX_LOOKED_AT = 16
"""Files moved aside in which a repeat is looked for: so many rotations may lie between a write and a crash."""


def position_path(parts: Sequence[str]) -> str:
    """A path as a `FilePosition` holds it, percent-encoded: any store can keep it as text."""
    return quote(text_to_bytes("/".join(parts)))


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one message wants to append, and where it was going to before a crash."""

    data: bytes
    resume: FilePosition | None = None


@dataclass(slots=True)
class Target:
    """The open file of one batch."""

    path: str
    file_fd: int
    inode: int
    size_bytes: int
    written: list[bool] = field(default_factory=list)
    """For each candidate: whether its bytes stand in the file already."""

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.file_fd)


class AppendFiles:
    """Appending below the data directory; blocks. Calls for one file must not overlap."""

    def __init__(self, root_path: str, wall: Callable[[], float] = time.time) -> None:
        self._root_path = root_path
        self._wall = wall
        self._slot_fds: list[int] = []
        self._first_sizes: OrderedDict[tuple[int, int], int] = OrderedDict()
        self.root_fd = -1

    def start(self) -> None:
        """Open the directory and undo torn batches, before anything else is written."""
        self.root_fd = open_root(self._root_path)
        directory_fd = open_directory(self.root_fd, _SLOT_DIRECTORY)
        try:
            for number in range(SLOT_COUNT):
                slot_fd = open_file(directory_fd, b"%d" % number, os.O_RDWR | os.O_CREAT)
                self._slot_fds.append(slot_fd)
                self._undo_torn(os.pread(slot_fd, _SLOT_BYTES, 0))
                # laid out in full once, so that noting a batch later changes no metadata
                os.pwrite(slot_fd, bytes(_SLOT_BYTES), 0)
                os.fsync(slot_fd)
            os.fsync(directory_fd)
        finally:
            os.close(directory_fd)

    def close(self) -> None:
        """Close what `start` opened."""
        for slot_fd in self._slot_fds:
            os.close(slot_fd)
        self._slot_fds.clear()
        if self.root_fd >= 0:
            os.close(self.root_fd)
            self.root_fd = -1

    def open_target(
        self, parts: Sequence[str], candidates: Sequence[Candidate], rotation: Rotation
    ) -> Target:
        """Open the file of a batch and find out which candidates stand in it already.

        Raises:
            PathForbidden: the path holds something that is no plain directory or file.
            OSError: the system refuses.
        """
        directory_fd, name = open_parent(self.root_fd, parts)
        try:
            target = self._open(directory_fd, name, position_path(parts))
            try:
                candidates = _forget_gone(directory_fd, name, target, candidates)
                self._find_written(target, candidates)
                self._find_rotated(directory_fd, name, target, candidates)
                growth_bytes = sum(
                    len(candidate.data)
                    for candidate, is_written in zip(candidates, target.written, strict=True)
                    if not is_written
                )
                written_at = os.fstat(target.file_fd).st_mtime
                if rotation.is_due(target.size_bytes, growth_bytes, written_at, self._wall()):
                    target = self._rotate(directory_fd, name, target, rotation.keep_files)
            except BaseException:
                target.close()
                raise
            return target
        finally:
            os.close(directory_fd)

    def note_batch(self, slot: int, target: Target, length: int) -> None:
        """Say durably that the file is about to grow by `length` bytes."""
        text = json.dumps([target.path, target.inode, target.size_bytes, length]).encode()
        slot_fd = self._slot_fds[slot]
        os.pwrite(slot_fd, _SLOT_HEADER.pack(zlib.crc32(text), len(text)) + text, 0)
        os.fdatasync(slot_fd)

    def write_batch(self, slot: int, target: Target, data: bytes) -> None:
        """Append and sync. On failure the file has its old length again.

        Raises:
            OSError: the system refuses; nothing was appended.
        """
        begin = os.fstat(target.file_fd).st_size
        try:
            write_all(target.file_fd, data)
            os.fsync(target.file_fd)
        except OSError:
            # all or nothing: half a batch would be written once more by its repeat
            os.ftruncate(target.file_fd, begin)
            raise
        finally:
            # Not synced: after a power cut an outdated note names a batch that the file holds in
            # full.
            os.pwrite(self._slot_fds[slot], _NO_BATCH, 0)

    def _open(self, directory_fd: int, name: bytes, path: str) -> Target:
        file_fd, is_new = open_for_append(directory_fd, name)
        status = os.fstat(file_fd)
        if is_new:  # a freed inode's number may have come back
            self._first_sizes[status.st_dev, status.st_ino] = 0
        self._first_size(status)
        return Target(path, file_fd, status.st_ino, status.st_size)

    def _first_size(self, status: os.stat_result) -> int:
        """The size the file had when this process first saw it."""
        key = (status.st_dev, status.st_ino)
        size_bytes = self._first_sizes.setdefault(key, status.st_size)
        if len(self._first_sizes) > _REMEMBERED_FILES:
            self._first_sizes.popitem(last=False)
        return size_bytes

    def _find_written(self, target: Target, candidates: Sequence[Candidate]) -> None:
        status = os.fstat(target.file_fd)
        first_size = self._first_size(status)
        target.written = [_stands_in(target, first_size, candidate) for candidate in candidates]
        if status.st_size != first_size:
            return
        for candidate in candidates:
            if _ends_inside(target, first_size, candidate):
                # torn although no slot said so (a power cut took the note): undo it here, then
                # write it whole
                assert candidate.resume is not None
                target.size_bytes = candidate.resume.offset
                os.ftruncate(target.file_fd, target.size_bytes)
                self._first_sizes[status.st_dev, status.st_ino] = target.size_bytes
                return

    def _find_rotated(
        self, directory_fd: int, name: bytes, target: Target, candidates: Sequence[Candidate]
    ) -> None:
        """A message may have been written just before its file was moved aside."""
        # none of them is a repeat, so none can have been written before
        if all(candidate.resume is None for candidate in candidates):
            return
        # NB: whatever the config says now: it may have said otherwise when they were written
        for number in range(1, MAX_LOOKED_AT + 1):
            is_sought = [
                candidate.resume is not None and not target.written[index]
                for index, candidate in enumerate(candidates)
            ]
            if not any(is_sought):
                return
            try:
                file_fd = open_file(directory_fd, predecessor(name, number), os.O_RDONLY)
            except (FileNotFoundError, PathForbidden):
                continue
            try:
                status = os.fstat(file_fd)
                older = Target(target.path, file_fd, status.st_ino, status.st_size)
                first_size = self._first_size(status)
                for index, candidate in enumerate(candidates):
                    if is_sought[index]:
                        target.written[index] = _stands_in(older, first_size, candidate)
            finally:
                os.close(file_fd)

    def _rotate(self, directory_fd: int, name: bytes, full: Target, keep_files: int) -> Target:
        move_aside(directory_fd, name, keep_files)
        fresh = self._open(directory_fd, name, full.path)
        fresh.written = full.written
        full.close()
        return fresh

    def _undo_torn(self, slot: bytes) -> None:
        """Cut a file that ends inside the batch noted in `slot` back to where the batch began."""
        note = _read_note(slot)
        if note is None:
            return
        path, inode, begin, length = note
        try:
            directory_fd, name = open_parent(self.root_fd, bytes_to_text(path).split("/"))
        except (OSError, PathForbidden):
            return
        try:
            file_fd = open_file(directory_fd, name, os.O_RDWR)
        except (OSError, PathForbidden):
            return  # the file has gone, and the torn bytes with it
        finally:
            os.close(directory_fd)
        try:
            status = os.fstat(file_fd)
            # the very file, and inside the batch: whole, or written on by others, it is left alone
            if status.st_ino == inode and begin < status.st_size < begin + length:
                os.ftruncate(file_fd, begin)
                os.fsync(file_fd)
        finally:
            os.close(file_fd)


def _read_note(slot: bytes) -> tuple[bytes, int, int, int] | None:
    if len(slot) < _SLOT_HEADER.size:
        return None
    checksum, size_bytes = _SLOT_HEADER.unpack_from(slot)
    text = slot[_SLOT_HEADER.size : _SLOT_HEADER.size + size_bytes]
    if not text or zlib.crc32(text) != checksum:
        return None
    path, inode, begin, length = json.loads(text)
    return unquote_to_bytes(path), inode, begin, length


def _forget_gone(
    directory_fd: int, name: bytes, target: Target, candidates: Sequence[Candidate]
) -> Sequence[Candidate]:
    """Without the number of a file that is none of those which are looked at: it has gone, or has another number here."""
    noted = {candidate.resume.inode for candidate in candidates if candidate.resume is not None}
    if noted <= {0, target.inode}:
        return candidates
    there = {0, target.inode}
    for number in range(1, MAX_LOOKED_AT + 1):
        with contextlib.suppress(FileNotFoundError):
            older = os.stat(predecessor(name, number), dir_fd=directory_fd, follow_symlinks=False)
            there.add(older.st_ino)
    return [
        candidate
        if candidate.resume is None or candidate.resume.inode in there
        else Candidate(candidate.data, replace(candidate.resume, inode=0))
        for candidate in candidates
    ]


def _may_be_in(target: Target, candidate: Candidate) -> FilePosition | None:
    """Where in this very file the message was to stand."""
    resume = candidate.resume
    if resume is None or resume.path != target.path or resume.length != len(candidate.data):
        return None
    return resume if resume.inode in (0, target.inode) else None


def _stands_in(target: Target, first_size: int, candidate: Candidate) -> bool:
    resume = _may_be_in(target, candidate)
    if resume is None or not 0 <= resume.offset <= first_size - resume.length:
        return False
    return os.pread(target.file_fd, resume.length, resume.offset) == candidate.data


def _ends_inside(target: Target, size_bytes: int, candidate: Candidate) -> bool:
    resume = _may_be_in(target, candidate)
    if resume is None or not 0 <= resume.offset < size_bytes < resume.offset + resume.length:
        return False
    torn = os.pread(target.file_fd, size_bytes - resume.offset, resume.offset)
    return candidate.data.startswith(torn)
