"""The folder on disk: which files are there, claiming one, and putting it away with its answer.

A claim is a rename into a directory of its own, below ``.taking-<store>``: of two daemons only one
succeeds, and each finds after a crash its own claims alone. Everything blocks; called in threads.
Names are bytes throughout: a file's name need not be text.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

MAX_LISTED = 10_000
"""Files looked at in one look; the others wait."""
MAX_SWEPT = 1_000
MAX_NAME_BYTES = 200
"""Of a name that is kept; what is added to it must fit in 255."""
DONE, FAILED = b"done", b"failed"
_ANSWER = b".answer.json"
_RANDOM_BITS = 20

_OUR_OWN_TROUBLE = (errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What fails not because of the file."""

Stamp = tuple[int, int, int]
"""Inode, size and time of the last change: while it stays, the content holds still."""


class Claim(NamedTuple):
    """One file that is ours. `number` is unique and grows with time."""

    number: int
    name: bytes

    @property
    def claimed_at(self) -> float:
        """When, in wall-clock seconds."""
        return (self.number >> _RANDOM_BITS) / 1000


class UnfitFile(Exception):
    """A claimed file that cannot be a list of messages; the text says why."""


class FolderFiles:
    """The files of one folder."""

    def __init__(self, path: str, store: str) -> None:
        self._root = os.fsencode(path)
        self._taking = os.path.join(self._root, b".taking-" + store.encode("ascii"))

    def prepare(self) -> None:
        """Make the folder and what belongs into it. Raises OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._root, 0o770)
        for name in (DONE, FAILED):
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.join(self._root, name), 0o770)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._taking, 0o700)
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def list(self) -> dict[bytes, Stamp]:
        """Regular files whose names do not begin with a dot, oldest first. Raises OSError."""
        found: list[tuple[int, bytes, Stamp]] = []
        with os.scandir(self._root) as entries:
            for entry in entries:
                if entry.name.startswith(b".") or not entry.is_file(follow_symlinks=False):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
                    found.append((status.st_mtime_ns, entry.name, stamp))
                if len(found) >= MAX_LISTED:
                    break
        return {name: stamp for _, name, stamp in sorted(found)}

    def claim(self, name: bytes) -> Claim | None:
        """Make a file ours; None when somebody was faster. Raises OSError."""
        number = (int(time.time() * 1000) << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        claim = Claim(number, name)
        directory = self._directory(claim)
        os.mkdir(directory, 0o700)
        try:
            os.rename(os.path.join(self._root, name), os.path.join(directory, name))
        except OSError as error:
            os.rmdir(directory)
            if isinstance(error, FileNotFoundError):
                return None
            raise
        # NB: before anything is accepted: after a power cut the file must not be in the folder again
        for path in (directory, self._taking, self._root):
            _sync(path)
        return claim

    def claims(self) -> Iterator[Claim]:
        """What was claimed and not put away, oldest first. Raises OSError."""
        for entry in sorted(os.listdir(self._taking)):
            try:
                number = int(entry, 16)
            except ValueError:
                continue
            names = os.listdir(os.path.join(self._taking, entry))
            if names:
                yield Claim(number, names[0])
            else:
                os.rmdir(os.path.join(self._taking, entry))

    def read(self, claim: Claim, max_bytes: int) -> bytes | None:
        """The content; None when the file changed meanwhile, somebody still writes to it.

        Raises:
            UnfitFile: too large, or no regular file.
            OSError: it cannot be read.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path(claim), flags)
            with os.fdopen(descriptor, "rb") as file:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    raise UnfitFile("this is no regular file")
                raw = file.read(max_bytes + 1)
                after = os.fstat(descriptor)
        except OSError as error:
            if error.errno in _OUR_OWN_TROUBLE:
                raise
            raise UnfitFile(f"the file cannot be read: {os.strerror(error.errno or 0)}") from error
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            return None
        if len(raw) > max_bytes:
            raise UnfitFile(f"the file exceeds {max_bytes} bytes (`inputs.max_bytes`)")
        return raw

    def give_back(self, claim: Claim) -> None:
        """Put the file where it was, unless another one stands there now. Raises OSError."""
        path = os.path.join(self._root, claim.name)
        if os.path.lexists(path):
            path += b".%x" % claim.number
        os.rename(self._path(claim), path)
        os.rmdir(self._directory(claim))

    def put_away(self, claim: Claim, where: bytes, answer: bytes) -> None:
        """Move the file to `done` or `failed`, its answer beside it. Raises OSError."""
        directory = os.path.join(self._root, where)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o770)
        temporary = os.path.join(directory, b".answer-%x" % claim.number)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o660)
        with os.fdopen(descriptor, "wb") as file:
            file.write(answer)
        name = claim.name[:MAX_NAME_BYTES]
        path = os.path.join(directory, name)
        if os.path.lexists(path) or os.path.lexists(path + _ANSWER):
            path += b".%x" % claim.number
        os.rename(temporary, path + _ANSWER)
        os.rename(self._path(claim), path)
        os.rmdir(self._directory(claim))

    def sweep(self, before: float) -> None:
        """Delete what was put away before a time, some at a time."""
        count = 0
        for where in (DONE, FAILED):
            with (
                contextlib.suppress(OSError),
                os.scandir(os.path.join(self._root, where)) as entries,
            ):
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    # NB: the time of the rename; the file's own may be of last year
                    if stat.S_ISDIR(status.st_mode) or status.st_ctime >= before:
                        continue
                    os.unlink(entry.path)
                    count += 1
                    if count >= MAX_SWEPT:
                        return

    def _directory(self, claim: Claim) -> bytes:
        return os.path.join(self._taking, b"%016x" % claim.number)

    def _path(self, claim: Claim) -> bytes:
        return os.path.join(self._directory(claim), claim.name)


def _sync(directory: bytes) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
