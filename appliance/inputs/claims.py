"""The folder on disk: which files are there, claiming one, and putting it away with its answer.

A claim is a rename into a directory of its own, below ``.taking-<store>``: of two daemons only one
succeeds, and each finds after a crash its own claims alone. Whoever may write into the folder must
not gain the daemon's rights elsewhere by that: every step goes through descriptors of directories
that are no links. Everything blocks; called in threads. Names carry any bytes, as surrogate escapes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

MAX_LISTED = 10_000
"""Files looked at in one look; the others wait."""
MAX_LEFT_LYING = 100
"""Names that are told of."""
MAX_SWEPT = 1_000
CLOCK_PLAY_S = 60.0
"""A time further in the future was given by a clock that was wrong then, and says nothing."""
MAX_NAME_BYTES = 200
"""Of a name that is kept; what is added to it must fit in 255."""
DONE, FAILED = "done", "failed"
_ANSWER = ".answer.json"
_RANDOM_BITS = 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OUR_OWN_TROUBLE = (errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What fails not because of the file."""

_LEFTOVER_ENDS = (
    *("~", "#", ".tmp", ".temp", ".bak", ".old", ".new", ".orig", ".rej", ".save", ".kate-swp"),
    *(".part", ".partial", ".filepart", ".crdownload", ".download", ".upload", ".aria2"),
    *("___jb_tmp___", "___jb_old___", ".lock", ".lck"),
    # what package managers keep of a file beside its successor
    *(".dpkg-new", ".dpkg-old", ".dpkg-dist", ".dpkg-tmp", ".ucf-new", ".ucf-old", ".ucf-dist"),
    *(".rpmnew", ".rpmsave", ".rpmorig"),
)
_LEFTOVER = re.compile(r".*\.(?:sw[a-px]|(?:save|bak)\.?\d+)|sed[A-Za-z0-9]{6}", re.DOTALL)
"""Vim's names for copies when the usual one is taken, numbered ones, and those of `sed -i`."""
_LEFTOVER_BEGINNINGS = ("#", "~$", ".")
_VIM_TRIES = "4913"
"""The name under which vim finds out whether it may write in a directory."""

Stamp = tuple[int, int, int]
"""Inode, size and time of the last change: while it stays, the content holds still."""


class Claim(NamedTuple):
    """One file that is ours. `number` is unique and grows with time."""

    number: int
    name: str

    @property
    def claimed_at(self) -> float:
        """When, by the clock of `FolderFiles`."""
        return (self.number >> _RANDOM_BITS) / 1000

    @property
    def directory(self) -> str:
        """The name of its directory."""
        return f"{self.number:016x}"


class Listing(NamedTuple):
    """What lies in the folder: files to take, oldest first, and names of what is left lying, with the reason."""

    files: dict[str, Stamp]
    left_lying: dict[str, str]


def is_leftover(name: str) -> bool:
    """Whether an editor or an upload keeps a file under such a name beside the one that is meant."""
    return (
        name.startswith(_LEFTOVER_BEGINNINGS)
        or name.lower().endswith(_LEFTOVER_ENDS)
        or name == _VIM_TRIES
        or _LEFTOVER.fullmatch(name) is not None
    )


class UnfitFile(Exception):
    """A claimed file that cannot be a list of messages; the text says why."""


class FolderFiles:
    """The files of one folder. Every method raises OSError where the folder cannot be used.

    `now` gives seconds that nobody can set and that go on over restarts: a clock set forward must not delete anything.
    """

    def __init__(self, path: str, store: str, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._found_at: dict[tuple[str, str], float] = {}
        """When files were seen first whose time of being put away is not known."""
        self._taking = f".taking-{store}"

    def prepare(self) -> None:
        """Make the folder and what belongs into it."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._path, 0o770)
        with self._root() as root:
            for name, mode in ((DONE, 0o770), (FAILED, 0o770), (self._taking, 0o700)):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, mode, dir_fd=root)
        if not os.access(self._path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def list(self) -> Listing:
        """Regular files, without those that editors and uploads keep beside them."""
        found: list[tuple[int, str, Stamp]] = []
        left_lying: dict[str, str] = {}
        with self._root() as root, os.scandir(root) as entries:
            for entry in entries:
                if entry.name in (DONE, FAILED) or entry.name.startswith(".taking-"):
                    continue
                if is_leftover(entry.name):
                    reason = "its name is that of an editor's or an upload's own file"
                elif not entry.is_file(follow_symlinks=False):
                    reason = "it is no regular file"
                else:
                    reason = ""
                if reason:
                    if len(left_lying) < MAX_LEFT_LYING:
                        left_lying[entry.name] = reason
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
                    found.append((status.st_mtime_ns, entry.name, stamp))
                if len(found) >= MAX_LISTED:
                    break
        return Listing({name: stamp for _, name, stamp in sorted(found)}, left_lying)

    def claim(self, name: str) -> Claim | None:
        """Make a file ours; None when somebody was faster."""
        number = (int(self._now() * 1000) << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        claim = Claim(number, name)
        with self._root() as root, _directory(self._taking, root) as taking:
            os.mkdir(claim.directory, 0o700, dir_fd=taking)
            with _directory(claim.directory, taking) as own:
                try:
                    os.rename(name, name, src_dir_fd=root, dst_dir_fd=own)
                except OSError as error:
                    os.rmdir(claim.directory, dir_fd=taking)
                    if isinstance(error, FileNotFoundError):
                        return None
                    raise
                # NB: before anything is accepted: after a power cut the file must not be in the folder again
                for descriptor in (own, taking, root):
                    os.fsync(descriptor)
        return claim

    def claims(self) -> Iterator[Claim]:
        """What was claimed and not put away, oldest first."""
        with self._root() as root, _directory(self._taking, root) as taking:
            for entry in sorted(os.listdir(taking)):
                try:
                    number = int(entry, 16)
                except ValueError:
                    continue
                with _directory(entry, taking) as own:
                    names = os.listdir(own)
                if names:
                    yield Claim(number, names[0])
                else:
                    os.rmdir(entry, dir_fd=taking)

    def read(self, claim: Claim, max_bytes: int) -> bytes | None:
        """The content; None when the file changed meanwhile, somebody still writes to it.

        Raises:
            UnfitFile: too large, or no regular file that can be read.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self._own(claim) as (_, _, own):
            try:
                descriptor = os.open(claim.name, flags, dir_fd=own)
                with os.fdopen(descriptor, "rb") as file:
                    before = os.fstat(descriptor)
                    if not stat.S_ISREG(before.st_mode):
                        raise UnfitFile("this is no regular file")
                    raw = file.read(max_bytes + 1)
                    after = os.fstat(descriptor)
            except OSError as error:
                if error.errno in _OUR_OWN_TROUBLE:
                    raise
                reason = os.strerror(error.errno or 0)
                raise UnfitFile(f"the file cannot be read: {reason}") from error
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            return None
        if len(raw) > max_bytes:
            raise UnfitFile(f"the file exceeds {max_bytes} bytes (`inputs.max_bytes`)")
        return raw

    def give_back(self, claim: Claim) -> None:
        """Put the file where it was, unless another one stands there now."""
        with self._own(claim) as (root, taking, own):
            name = claim.name
            if _exists(name, root):
                name = f"{_shorten(name)}.{claim.number:x}"
            os.rename(claim.name, name, src_dir_fd=own, dst_dir_fd=root)
            os.rmdir(claim.directory, dir_fd=taking)

    def put_away(self, claim: Claim, where: str, answer: bytes) -> None:
        """Move the file to `done` or `failed`, its answer beside it."""
        with self._own(claim) as (root, taking, own), _directory(where, root) as target:
            name = _shorten(claim.name)
            is_taken = _exists(name, target) or (
                _exists(name + _ANSWER, target) and not _has_answered(claim, name, target)
            )
            if is_taken:
                name += f".{claim.number:x}"
            # one that was interrupted between the two moves has left its answer, which says more than a second one
            if not _has_answered(claim, name, target):
                self._write_answer(claim, name, target, answer)
            os.rename(claim.name, name, src_dir_fd=own, dst_dir_fd=target)
            os.rmdir(claim.directory, dir_fd=taking)

    def _write_answer(self, claim: Claim, name: str, target: int, answer: bytes) -> None:
        temporary = f".answer-{claim.number:x}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o660, dir_fd=target), "wb") as file:
            file.write(answer)
            file.flush()
            now = self._now()
            os.utime(file.fileno(), (now, now))
        os.rename(temporary, name + _ANSWER, src_dir_fd=target, dst_dir_fd=target)

    def sweep(self, keep_s: float) -> None:
        """Delete what was put away longer ago than `keep_s`, some at a time.

        NB: the time of a file is its answer's, which is written by our clock; its own may be of last year.
        """
        now = self._now()
        count = 0
        found_at: dict[tuple[str, str], float] = {}
        for where in (DONE, FAILED):
            with self._root() as root, _directory(where, root) as target:
                # files before their answers: without its answer a file has no time
                for name in sorted(os.listdir(target), key=lambda name: name.endswith(_ANSWER)):
                    status = os.stat(name, dir_fd=target, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        continue
                    at = _put_away_at(name, target, now)
                    if at is None:
                        key = (where, name)
                        at = self._found_at.get(key, now)
                        if len(found_at) < MAX_LISTED:
                            found_at[key] = at
                    if now - at >= keep_s and count < MAX_SWEPT:
                        os.unlink(name, dir_fd=target)
                        count += 1
        self._found_at = found_at

    @contextlib.contextmanager
    def _root(self) -> Iterator[int]:
        descriptor = os.open(self._path, _DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _own(self, claim: Claim) -> Iterator[tuple[int, int, int]]:
        """The folder, the directory of claims, and the one of this claim."""
        with (
            self._root() as root,
            _directory(self._taking, root) as taking,
            _directory(claim.directory, taking) as own,
        ):
            yield root, taking, own


def _put_away_at(name: str, directory: int, now: float) -> float | None:
    """By the answer's time; None where there is none, or where it is of no clock that was right."""
    answer = name if name.endswith(_ANSWER) else name + _ANSWER
    try:
        at = os.stat(answer, dir_fd=directory, follow_symlinks=False).st_mtime
    except OSError:
        return None
    return at if at <= now + CLOCK_PLAY_S else None


@contextlib.contextmanager
def _directory(name: str, above: int) -> Iterator[int]:
    """A directory that is no link."""
    descriptor = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _has_answered(claim: Claim, name: str, directory: int) -> bool:
    """Whether the answer of that name is the claim's: one without its file, and no older than the claim."""
    try:
        found = os.stat(name + _ANSWER, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    is_answer = stat.S_ISREG(found.st_mode) and found.st_mtime >= claim.claimed_at
    return is_answer and not _exists(name, directory)


def _shorten(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:MAX_NAME_BYTES])
