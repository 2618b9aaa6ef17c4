"""Takes copied files: beside their target first, checked, then renamed over it in one step.

Pieces are written where they belong in `.<name>.appl-part-<key>` beside the target, synced before they are
acknowledged, so a piece that comes again changes nothing and a daemon that was killed goes on with what is there. The
key is made of sender, transfer and target: nobody writes into somebody else's part. What is hashed already is not
written again, so what was hashed is what is renamed. Parts that nobody finishes are removed after a day, and the
oldest ones of a sender that begins too many; a small file per part below the state directory remembers where they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.core.copying import (
    BEGIN_AGAIN,
    HASH_DIFFERS,
    NO_ATTRIBUTES,
    Attributes,
    Piece,
    check_piece,
)
from appliance.core.message import text_to_bytes
from appliance.errors import BeginAgain, CopyFailed, HandlerError
from appliance.methods.base import WriteRights
from appliance.methods.copies.attributes import set_attributes
from appliance.methods.files.confine import write_all
from appliance.methods.files.paths import Target, failed, open_target, refuse_special
from appliance.methods.texts import shorten
from appliance.supervision import run_in_pool

# Notes of unfinished files: a small file for each, so that parts all over the machine are found and removed again.
#
# Blocking; called in the threads of `_copy_taker`.

PART_MARK = b".appl-part-"
"""In the name of every part; nothing else is ever removed."""
MAX_PARTS = 32
"""Unfinished files of one sender: who begins another one loses the one that lies untouched the longest."""
PART_KEEP_S = 86_400.0
SWEEP_EVERY_S = 3_600.0
CLOCK_PLAY_S = 60.0
"""A time further in the future was given by a clock that was wrong then, and says nothing."""
MAKING_S = 60.0
"""Between a note and its part."""
_SENDER_CHARACTERS = 8


def part_key(sender: str, piece: Piece, path: str) -> str:
    """The name of a part; its beginning tells parts of one sender from those of others."""
    facts = b"\0".join(map(text_to_bytes, (sender, piece.id, str(piece.size), piece.sha256, path)))
    whose = hashlib.sha256(text_to_bytes(sender)).hexdigest()[:_SENDER_CHARACTERS]
    return whose + hashlib.sha256(facts).hexdigest()[: 32 - _SENDER_CHARACTERS]


class PartNotes:
    """A directory of its own: a note's name is the part's key, its content where the part is, its time when the part was
    touched last. That time is written by us and of the clock `now`, which nobody can set: files that wait for the rest
    must not look old because the wall clock was.
    """

    def __init__(self, directory: Path, now: Callable[[], float]) -> None:
        self._directory = directory
        self._now = now
        self._sweep_at = 0.0

    def add(self, key: str, where: bytes) -> None:
        """Remember a part that is about to be made."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        (self._directory / key).write_bytes(where)
        self.touch(key)

    def touch(self, key: str) -> None:
        """The part was written to."""
        now = self._now()
        with contextlib.suppress(OSError):
            os.utime(self._directory / key, (now, now))

    def remove(self, key: str) -> None:
        """The part is none any more."""
        with contextlib.suppress(OSError):
            (self._directory / key).unlink()

    def make_room(self, key: str) -> None:
        """Remove what the sender of this part has left over beyond its share."""
        whose = key[:_SENDER_CHARACTERS]
        notes = [note for note in self._list() if note.name.startswith(whose)]
        now = self._now()
        touched = sorted((_touched_at(note, now), note) for note in notes)
        for _, note in touched[: max(0, len(touched) - MAX_PARTS + 1)]:
            with contextlib.suppress(OSError):
                _remove_part(note)

    def sweep(self) -> None:
        """Remove parts that nobody has touched for a day, and notes of what is gone; looks once an hour, however often
        it is called.
        """
        now = self._now()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_EVERY_S
        for note in self._list():
            with contextlib.suppress(OSError):
                keep_s = PART_KEEP_S if _has_part(note) else MAKING_S
                if now - _touched_at(note, now) > keep_s:
                    _remove_part(note)

    def _list(self) -> list[Path]:
        try:
            return [self._directory / name for name in os.listdir(self._directory)]
        except FileNotFoundError:
            return []


def _has_part(note: Path) -> bool:
    try:
        return os.path.lexists(note.read_bytes())
    except ValueError:
        return False


def _touched_at(note: Path, now: float) -> float:
    """When the part of a note was written to last, as far as that can be: the part's own time, which the wall clock gave
    it, can only make it younger.
    """
    times = [0.0]
    with contextlib.suppress(OSError):
        times.append(note.stat().st_mtime)
    with contextlib.suppress(OSError, ValueError):
        times.append(os.lstat(note.read_bytes()).st_mtime)
    return max(time for time in times if time <= now + CLOCK_PLAY_S)


def _remove_part(note: Path) -> None:
    where = note.read_bytes()
    if PART_MARK in os.path.basename(where):  # a damaged note may name anything
        with contextlib.suppress(FileNotFoundError):
            os.unlink(where)
    note.unlink()


FILE_MODE = 0o600
MAX_TRANSFERS = 256
"""Transfers whose hash is kept in memory; of others the whole file is read once more at the end."""
MAX_AHEAD = 1_024
KEPT_FREE_BYTES = 64 * 1024 * 1024
"""Copies leave that much of a file system to others, of a small one less."""
_KEPT_SHARE = 20
_HASH_BLOCK_BYTES = 1024 * 1024
_THREADS = 4
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PART_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True, eq=False)
class _Transfer:
    """What is known of a part: up to where it is hashed, and which pieces stand beyond that."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    inode: int = 0
    hashed_to: int = 0
    hasher: Any = field(default_factory=hashlib.sha256)
    ahead: dict[int, int] = field(default_factory=dict)
    finished: tuple[int, int, int] | None = None
    """Inode, size and time of the file once it is in place."""

    def begin(self, inode: int) -> None:
        """Forget everything: the part is another one."""
        self.inode = inode
        self.hashed_to = 0
        self.hasher = hashlib.sha256()
        self.ahead.clear()
        self.finished = None


class CopyTaker:
    """Implements `base.FileTaker`; `notes` is a directory of its own. One per daemon.

    `now` gives seconds that nobody can set and that go on over restarts.
    """

    def __init__(self, notes: Path, *, now: Callable[[], float]) -> None:
        self._notes = PartNotes(notes, now)
        self._transfers: OrderedDict[str, _Transfer] = OrderedDict()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="copies")

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.to_thread(self._threads.shutdown)

    async def take_file(
        self, path: str, data: bytes, sha256: str | None, _sender: str, rights: WriteRights
    ) -> None:
        """See `base.FileTaker`."""
        if len(data) > rights.max_bytes:
            raise _too_large(path, len(data), rights)
        # before anything is written: what stands there stays as it was
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise CopyFailed(shorten(path), f"its content is not what was sent ({HASH_DIFFERS})")
        await run_in_pool(self._threads, self._write_file, path, data, rights)

    async def take_piece(
        self, path: str, data: bytes, piece: Piece, sender: str, rights: WriteRights
    ) -> None:
        """See `base.FileTaker`."""
        check_piece(piece, len(data))
        # the whole counts, and is known with the first piece
        if piece.size > rights.max_bytes:
            raise _too_large(path, piece.size, rights)
        key = part_key(sender, piece, path)
        transfer = self._find(key)
        async with transfer.lock:
            await run_in_pool(
                self._threads, self._write_piece, transfer, key, path, data, piece, rights
            )

    async def forget(self, path: str, piece: Piece, sender: str, rights: WriteRights) -> None:
        """See `base.FileTaker`."""
        key = part_key(sender, piece, path)
        transfer = self._find(key)
        async with transfer.lock:
            await run_in_pool(self._threads, self._forget_part, transfer, key, path, rights)
        self._transfers.pop(key, None)

    def remove_parts(self, target: Path) -> None:
        """Remove whatever has come of a file of our own; quick, since few files stand beside it."""
        begin = f".{target.name}{PART_MARK.decode()}"
        for name in os.listdir(target.parent):
            if name.startswith(begin):
                self._notes.remove(name.removeprefix(begin))
                with contextlib.suppress(OSError):
                    (target.parent / name).unlink()

    async def sweep(self) -> None:
        """Remove parts that nobody has touched for a day; looks once an hour, however often it is called."""
        await run_in_pool(self._threads, self._notes.sweep)

    def _find(self, key: str) -> _Transfer:
        transfer = self._transfers.get(key) or _Transfer()
        self._transfers[key] = transfer
        self._transfers.move_to_end(key)
        if len(self._transfers) > MAX_TRANSFERS:
            # one that is being written now has a lock that others must find
            idle = (old for old, known in self._transfers.items() if not known.lock.locked())
            oldest = next(idle, key)
            if oldest != key:
                del self._transfers[oldest]
        return transfer

    # -- in a thread: whole files -----------------------------------------------------------------

    def _write_file(self, path: str, data: bytes, rights: WriteRights) -> None:
        target = open_target(
            path, rights.allow_paths, makes=rights.makes_directories, within=rights.within
        )
        temporary = _part_name(target, secrets.token_hex(16))
        try:
            _check_room(target, len(data))
            flags = _PART_FLAGS | os.O_CREAT | os.O_EXCL
            file_fd = os.open(temporary, flags, FILE_MODE, dir_fd=target.directory_fd)
            try:
                write_all(file_fd, data)
                _put_in_place(target, temporary, file_fd, rights.attributes)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=target.directory_fd)
                raise
            finally:
                os.close(file_fd)
        except OSError as error:
            raise failed(path, error) from error
        finally:
            target.close()

    # -- in a thread: pieces ----------------------------------------------------------------------

    def _write_piece(
        self,
        transfer: _Transfer,
        key: str,
        path: str,
        data: bytes,
        piece: Piece,
        rights: WriteRights,
    ) -> None:
        target = open_target(
            path, rights.allow_paths, makes=rights.makes_directories, within=rights.within
        )
        try:
            part = _part_name(target, key)
            # a resend of the last piece: its acknowledgement was lost
            if _is_finished(transfer, target):
                return
            file_fd = self._open_part(transfer, key, target, part, piece)
            if file_fd is None:
                return
            try:
                self._extend(transfer, file_fd, data, piece)
                self._notes.touch(key)
                if piece.offset + len(data) == piece.size:
                    self._finish(transfer, key, target, part, file_fd, piece, rights.attributes)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    # a full disk must not be kept full by parts that cannot be completed
                    self._discard(transfer, key, target, part)
                raise
            finally:
                os.close(file_fd)
        except OSError as error:
            raise failed(path, error) from error
        finally:
            target.close()

    def _open_part(
        self, transfer: _Transfer, key: str, target: Target, part: bytes, piece: Piece
    ) -> int | None:
        """The part, open; None when the file is in place already."""
        try:
            file_fd = os.open(part, _PART_FLAGS, dir_fd=target.directory_fd)
        except FileNotFoundError:
            if piece.offset > 0:
                if _holds(target, piece):
                    return (
                        None  # finished before, and nobody remembers: the acknowledgement was lost
                    )
                raise BeginAgain(BEGIN_AGAIN) from None
            _check_room(target, piece.size)
            # before the part is made: what a sender leaves behind is bounded however often it begins
            self._notes.make_room(key)
            where = os.path.join(os.path.dirname(text_to_bytes(target.path)), part)
            # the note first: a part without one would never be swept
            self._notes.add(key, where)
            flags = _PART_FLAGS | os.O_CREAT | os.O_EXCL
            file_fd = os.open(part, flags, FILE_MODE, dir_fd=target.directory_fd)
            # NB: what is known may be of a part that was removed, and whose inode number this one got
            transfer.begin(os.fstat(file_fd).st_ino)
            target.sync_directory()
        try:
            found = os.fstat(file_fd)
            # others may write in this directory: what stands here need not be ours
            is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
            if not is_plain or found.st_uid != os.geteuid():
                raise CopyFailed(shorten(target.path), "somebody put something else at its part")
            if found.st_ino != transfer.inode or found.st_size < transfer.hashed_to:
                transfer.begin(found.st_ino)
            if piece.offset > found.st_size + MAX_AHEAD * 256 * 1024:
                raise BeginAgain(BEGIN_AGAIN)
        except BaseException:
            os.close(file_fd)
            raise
        return file_fd

    def _extend(self, transfer: _Transfer, file_fd: int, data: bytes, piece: Piece) -> None:
        end = piece.offset + len(data)
        if end <= transfer.hashed_to:
            return  # it came before
        if piece.offset < transfer.hashed_to:
            transfer.begin(
                transfer.inode
            )  # pieces of another size than before: read it all at the end
        _write_at(file_fd, data, piece.offset)
        # before the acknowledgement, which promises that the sender may forget the piece
        os.fdatasync(file_fd)
        if piece.offset == transfer.hashed_to:
            transfer.hasher.update(data)
            transfer.hashed_to = end
            # pieces overtake one another: those that came early are hashed once the gap is closed
            while (length := transfer.ahead.pop(transfer.hashed_to, None)) is not None:
                _hash_up_to(transfer, file_fd, transfer.hashed_to + length)
        elif len(transfer.ahead) < MAX_AHEAD:
            transfer.ahead[piece.offset] = len(data)

    def _finish(
        self,
        transfer: _Transfer,
        key: str,
        target: Target,
        part: bytes,
        file_fd: int,
        piece: Piece,
        attributes: Attributes,
    ) -> None:
        """Check the whole and put it in place; a part that is wrong is removed."""
        if os.fstat(file_fd).st_size == piece.size:
            _hash_up_to(transfer, file_fd, piece.size)
        if transfer.hashed_to != piece.size or transfer.hasher.hexdigest() != piece.sha256:
            self._discard(transfer, key, target, part)
            raise CopyFailed(
                shorten(target.path),
                f"what arrived is not what was sent ({HASH_DIFFERS}); nothing was replaced",
            )
        try:
            _put_in_place(target, part, file_fd, attributes)
        except HandlerError:
            self._discard(transfer, key, target, part)
            raise
        found = os.fstat(file_fd)
        transfer.finished = (found.st_ino, found.st_size, found.st_mtime_ns)
        self._notes.remove(key)

    def _forget_part(self, transfer: _Transfer, key: str, path: str, rights: WriteRights) -> None:
        target = open_target(path, rights.allow_paths, makes=False)
        try:
            self._discard(transfer, key, target, _part_name(target, key))
        except OSError as error:
            raise failed(path, error) from error
        finally:
            target.close()

    def _discard(self, transfer: _Transfer, key: str, target: Target, part: bytes) -> None:
        transfer.begin(0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=target.directory_fd)
        self._notes.remove(key)


def _part_name(target: Target, key: str) -> bytes:
    # the name of a file may be as long as a name can be, so only its beginning goes into the part's
    return b"." + target.name[:180] + PART_MARK + key.encode()


def _too_large(path: str, size: int, rights: WriteRights) -> CopyFailed:
    return CopyFailed(
        shorten(path), f"{size} bytes exceed max_file_bytes of {rights.max_bytes} there"
    )


def measure_room(found: os.statvfs_result) -> tuple[int, int]:
    """The bytes that are free, and how many of them copies leave to others: of a small file system a twentieth."""
    kept = min(KEPT_FREE_BYTES, found.f_blocks * found.f_frsize // _KEPT_SHARE)
    return found.f_bavail * found.f_frsize, kept


def _check_room(target: Target, size: int) -> None:
    free, kept = measure_room(os.statvfs(target.directory_fd))
    if size + kept > free and size > 0:
        raise CopyFailed(
            shorten(target.path),
            f"no room for {size} bytes: {free} are free, {kept} of them are kept",
        )


def _is_finished(transfer: _Transfer, target: Target) -> bool:
    """Whether the file is in place, and still the one that we put there."""
    if transfer.finished is None:
        return False
    found = target.stat()
    facts = None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)
    return facts == transfer.finished


def _holds(target: Target, piece: Piece) -> bool:
    """Whether the very file stands at the target."""
    found = target.stat()
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != piece.size:
        return False
    file_fd = os.open(target.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=target.directory_fd)
    with os.fdopen(file_fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == piece.sha256


def _hash_up_to(transfer: _Transfer, file_fd: int, end: int) -> None:
    while transfer.hashed_to < end:
        wanted = min(_HASH_BLOCK_BYTES, end - transfer.hashed_to)
        block = os.pread(file_fd, wanted, transfer.hashed_to)
        if not block:
            return
        transfer.hasher.update(block)
        transfer.hashed_to += len(block)


def _write_at(file_fd: int, data: bytes, offset: int) -> None:
    if not data.strip(b"\0"):
        # nothing but zeros: a hole, or a file of little would take all of its size on the disk
        end = offset + len(data)
        if not os.pread(file_fd, len(data), offset).strip(b"\0"):
            if os.fstat(file_fd).st_size < end:
                os.ftruncate(file_fd, end)
            return
    view = memoryview(data)
    while view:
        count = os.pwrite(file_fd, view, offset)
        view = view[count:]
        offset += count


def _put_in_place(target: Target, part: bytes, file_fd: int, attributes: Attributes) -> None:
    """Rename, durably; mode and owner of a file that is replaced stay, without set-id bits, unless others are asked for."""
    refuse_special(target)
    old = target.stat()
    if old is not None:
        with contextlib.suppress(PermissionError):
            os.fchown(file_fd, old.st_uid, old.st_gid)
        os.fchmod(file_fd, stat.S_IMODE(old.st_mode) & 0o777)
    if attributes != NO_ATTRIBUTES:
        try:
            set_attributes(file_fd, attributes)
        except (OSError, ValueError) as error:
            reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else error
            raise CopyFailed(shorten(target.path), f"{reason}; nothing was replaced") from error
    # content before name: a rename that survives a power cut must not show an empty file
    os.fsync(file_fd)
    os.rename(part, target.name, src_dir_fd=target.directory_fd, dst_dir_fd=target.directory_fd)
    target.sync_directory()
