"""The files beside the database that protect it: a lock, a mark, a ballast.

- The lock keeps a second appliance out, at once and with the owner's pid.
- The mark remembers that a database existed, which one, and how many commits it had. An emptied
  file
  looks like a new database to SQLite, and one flipped bit in the write-ahead log silently ends the
  log there (both measured); with the mark either is noticed. It is written through a memory map:
  after the commit, without a sync, so it is never ahead of what is durable and costs nothing.
- The ballast is room held back: a full disk refuses DELETE too, so without it a full outbox could
  never empty itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import zlib
from pathlib import Path

from appliance.core.ages import Anchor
from appliance.errors import StoreLocked, StoreUnusable

DATABASE_NAME = "store.db"
LOCK_NAME = "store.lock"
MARK_NAME = "store.mark"
BALLAST_NAME = "store.ballast"
BALLAST_BYTES = 1024 * 1024
_SPARE_BYTES = 4 * BALLAST_BYTES
"""Free space needed before the ballast is put back."""

_SLOT_BYTES = 160
_MARK_BYTES = 2 * _SLOT_BYTES
"""Two slots that are written in turn: a kill in the middle of one leaves the other."""


class Lock:
    """Exclusive use of a state directory's store, for the life of the process at most."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            StoreLocked: another holds it.
            StoreUnusable: nothing can be written there.
        """
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            told = say_system_error(error)
            raise StoreUnusable(f"the state directory cannot be used: {told}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            by = f" by process {owner}" if owner.isdigit() else ""
            raise StoreLocked(
                f"the store in {path.parent} is in use{by}; another daemon needs a --state-dir of its own"
            ) from error
        with contextlib.suppress(
            OSError
        ):  # a full disk: the lock holds, only the owner's name is missing
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others in. The file stays: removing it would race with the next opener."""
        os.close(self._fd)


class Mark:
    """What this directory remembers of its database, apart from the database.

    Also the newest moment of the steady clock, so that ages go on exactly after a kill.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._slot = 0
        self.instance: str | None = None
        self.commits = 0
        self.anchor: Anchor | None = None
        with contextlib.suppress(FileNotFoundError):
            self._read(path.read_bytes()[:_MARK_BYTES])

    def _read(self, raw: bytes) -> None:
        for slot in range(2):
            found = _parse_slot(raw[slot * _SLOT_BYTES : (slot + 1) * _SLOT_BYTES])
            if found is not None and (self.instance is None or found[1:3] > self._newest()):
                self.instance, self.commits, _, self.anchor = found
                self._slot = 1 - slot
        if self.instance is None:  # as earlier versions wrote it, or torn beyond recognition
            words = raw[:64].decode("ascii", "replace").split()
            if len(words) >= 3 and words[0] == "appliance":
                self.instance = words[1]
                self.commits = int(words[2]) if words[2].isdigit() else 0

    def _newest(self) -> tuple[int, float]:
        return self.commits, self.anchor.steady if self.anchor is not None else 0.0

    @property
    def exists(self) -> bool:
        """Whether a database was here before."""
        return self.instance is not None

    def attach(self, instance: str, commits: int, anchor: Anchor) -> None:
        """Begin to follow a database; makes the file where there is none."""
        content = _compose_slot(instance, commits, anchor)
        if not self.exists:
            fresh = self._path.with_suffix(".new")
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content * 2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._path)
            sync_directory(self._path.parent)
        self.instance = instance
        with open(self._path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _MARK_BYTES:
                file.seek(size)
                file.write(b"\n" * (_MARK_BYTES - size))
                file.flush()
            self._map = mmap.mmap(file.fileno(), _MARK_BYTES)
        self.advance(commits, anchor)

    def advance(self, commits: int, anchor: Anchor) -> None:
        """Note that this many commits are durable, and what time it is."""
        self.commits, self.anchor = commits, anchor
        if self._map is not None and self.instance is not None:
            start = self._slot * _SLOT_BYTES
            self._map[start : start + _SLOT_BYTES] = _compose_slot(self.instance, commits, anchor)
            self._slot = 1 - self._slot

    def close(self) -> None:
        """Stop following."""
        if self._map is not None:
            self._map.close()
            self._map = None


def _compose_slot(instance: str, commits: int, anchor: Anchor) -> bytes:
    words = (
        f"appliance {instance} {commits:020d} {anchor.boot_id or '-'} {anchor.steady:.6f}"
        f" {anchor.mono:.6f} {anchor.wall:.6f} "
    ).encode()
    return (words + b"%08x" % zlib.crc32(words)).ljust(_SLOT_BYTES - 1) + b"\n"


def _parse_slot(raw: bytes) -> tuple[str, int, float, Anchor] | None:
    words = raw.split()
    if len(words) != 8 or b"%08x" % zlib.crc32(raw[: raw.rindex(words[7])]) != words[7]:
        return None
    _, instance, commits, boot_id, steady, mono, wall, _ = (word.decode() for word in words)
    anchor = Anchor("" if boot_id == "-" else boot_id, float(steady), float(mono), float(wall))
    return instance, int(commits), anchor.steady, anchor


class Ballast:
    """A file of real bytes, given up when the disk is full and put back later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_held = path.exists() and path.stat().st_size >= BALLAST_BYTES

    def release(self) -> bool:
        """Give the room back to the disk; False when there was none to give."""
        if not self.is_held:
            return False
        self.is_held = False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def restore(self) -> None:
        """Hold room back again, if there is plenty; otherwise stay without."""
        if self.is_held:
            return
        try:
            free = os.statvfs(self._path.parent)
            if free.f_bavail * free.f_frsize < _SPARE_BYTES:
                return
            with open(
                os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            ) as file:
                file.write(os.urandom(BALLAST_BYTES))  # NB: zeros may take no room on some disks
                file.flush()
                os.fsync(file.fileno())
            self.is_held = True
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def say_system_error(error: OSError) -> str:
    """The system's words, with the file that they are about."""
    words = (error.strerror or str(error)).lower()
    return f"{os.fsdecode(error.filename)}: {words}" if error.filename else words


def prepare_directory(directory: Path) -> None:
    """Make the state directory, private to its owner; an existing one keeps its rights.

    Raises:
        StoreUnusable: it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnusable(
            f"cannot make the state directory {directory}: {say_system_error(error)}"
        ) from error


def prepare_database_file(path: Path) -> None:
    """Make the file before SQLite does, so that it and its companions are private to the owner."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def sync_directory(directory: Path) -> None:
    """Make names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
