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
from pathlib import Path

from appliance.errors import StoreLocked, StoreUnusable

DATABASE_NAME = "store.db"
LOCK_NAME = "store.lock"
MARK_NAME = "store.mark"
BALLAST_NAME = "store.ballast"
BALLAST_BYTES = 1024 * 1024
_SPARE_BYTES = 4 * BALLAST_BYTES
"""Free space needed before the ballast is put back."""

_MARK_BYTES = 64


class Lock:
    """Exclusive use of a state directory's store, for the life of the process at most."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            StoreLocked: another holds it.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            by = f" by process {owner}" if owner.isdigit() else ""
            raise StoreLocked(
                f"the store in {path.parent} is in use{by}; another daemon needs a --state-dir of its own"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others in. The file stays: removing it would race with the next opener."""
        os.close(self._fd)


class Mark:
    """What this directory remembers of its database, apart from the database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self.instance: str | None = None
        self.commits = 0
        with contextlib.suppress(FileNotFoundError):
            raw = path.read_bytes()[:_MARK_BYTES].decode("ascii", "replace").split()
            if len(raw) >= 3 and raw[0] == "appliance":
                self.instance = raw[1]
                self.commits = int(raw[2]) if raw[2].isdigit() else 0

    @property
    def exists(self) -> bool:
        """Whether a database was here before."""
        return self.instance is not None

    def attach(self, instance: str, commits: int) -> None:
        """Begin to follow a database; makes the file where there is none."""
        content = self._compose(instance, commits)
        if not self.exists:
            fresh = self._path.with_suffix(".new")
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._path)
            sync_directory(self._path.parent)
        self.instance = instance
        with open(self._path, "r+b") as file:
            if os.fstat(file.fileno()).st_size < _MARK_BYTES:
                file.write(content)
                file.flush()
            self._map = mmap.mmap(file.fileno(), _MARK_BYTES)
        self.advance(commits)

    def advance(self, commits: int) -> None:
        """Note that this many commits are durable."""
        self.commits = commits
        if self._map is not None and self.instance is not None:
            self._map[:] = self._compose(self.instance, commits)

    def close(self) -> None:
        """Stop following."""
        if self._map is not None:
            self._map.close()
            self._map = None

    @staticmethod
    def _compose(instance: str, commits: int) -> bytes:
        return f"appliance {instance} {commits:020d}\n".encode().ljust(_MARK_BYTES - 1) + b"\n"


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


def prepare_directory(directory: Path) -> None:
    """Make the state directory, private to its owner; an existing one keeps its rights.

    Raises:
        StoreUnusable: it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnusable(f"cannot make the state directory {directory}: {error}") from error


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
