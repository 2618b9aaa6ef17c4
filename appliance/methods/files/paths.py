"""Files anywhere on the machine, as far as `allow_paths` lets a peer touch them.

A path is resolved first, what it resolves to is checked, and exactly that is opened, component by component and never
through a link: whoever exchanges a directory for a link in between gets an error and not another file. Blocking.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.core.allow import is_path_allowed
from appliance.core.copying import MAKE_DIRECTORIES
from appliance.core.message import bytes_to_text, text_to_bytes
from appliance.errors import ArgumentsInvalid, CopyFailed, PathForbidden, say_os_error
from appliance.methods.texts import shorten

MAX_PATH_BYTES = 4_095
NEW_DIRECTORY_MODE = 0o700

_OF_A_PROCESS = re.compile(r"/proc/[0-9]+(/|$)")
_LOOK = getattr(os, "O_PATH", os.O_RDONLY)
"""Going through a directory needs no right to list it."""
_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO must not hang the thread; it means nothing for regular files
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(slots=True)
class Target:
    """Where a file is to be written: its directory, open, its name there, and the whole path in text."""

    directory_fd: int
    name: bytes
    path: str

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self.directory_fd)

    def stat(self) -> os.stat_result | None:
        """What stands there now; None when nothing does."""
        try:
            return os.stat(self.name, dir_fd=self.directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def sync_directory(self) -> None:
        """Make a rename durable, where the directory can be synced at all."""
        with contextlib.suppress(OSError):
            os.fsync(self.directory_fd)


def open_source(path: str, patterns: Sequence[str] | None) -> tuple[int, str]:
    """Open an allowed regular file for reading; its descriptor and resolved path.

    Raises:
        PathForbidden: not allowed, or no regular file.
        CopyFailed: missing, no permission.
    """
    return _open_found(path, patterns, os.O_RDONLY, stat.S_ISREG, "regular file")


def open_socket(path: str, patterns: Sequence[str] | None) -> int:
    """A descriptor of an allowed unix socket, to be connected to by way of ``/proc/self/fd``.

    Raises:
        PathForbidden: not allowed, or no socket.
        CopyFailed: missing, no permission.
    """
    return _open_found(path, patterns, _LOOK, stat.S_ISSOCK, "socket")[0]


def open_directory(
    path: str, patterns: Sequence[str] | None, setting: str = "allow_directories"
) -> int:
    """A descriptor of an allowed directory.

    Raises:
        PathForbidden: not allowed.
        CopyFailed: missing, none, no permission.
    """
    real = os.path.realpath(_checked(path))
    resolved = bytes_to_text(real)
    _check_allowed(path, resolved, patterns, setting)
    try:
        return _walk(real)
    except OSError as error:
        raise failed(path, error) from error


def _open_found(
    path: str,
    patterns: Sequence[str] | None,
    flags: int,
    is_wanted: Callable[[int], bool],
    wanted: str,
) -> tuple[int, str]:
    real = os.path.realpath(_checked(path))
    resolved = bytes_to_text(real)
    _check_allowed(path, resolved, patterns)
    file_fd = -1
    try:
        head, name = os.path.split(real)
        directory_fd = _walk(head)
        try:
            # looked at before it is opened: to open a device or a pipe may do something already
            mode = os.stat(name or b".", dir_fd=directory_fd, follow_symlinks=False).st_mode
            if is_wanted(mode):
                file_fd = os.open(name, flags | _FILE, dir_fd=directory_fd)
                mode = os.fstat(file_fd).st_mode
        finally:
            os.close(directory_fd)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):
            raise PathForbidden(f"{shorten(path)} is no {wanted}") from error
        raise failed(path, error) from error
    if file_fd >= 0 and is_wanted(mode):
        return file_fd, resolved
    if file_fd >= 0:
        os.close(file_fd)
    kind = "a directory" if stat.S_ISDIR(mode) else f"no {wanted}"
    raise PathForbidden(f"{shorten(path)} is {kind}")


_HOW_TO_MAKE = f"(cp --{MAKE_DIRECTORIES} makes it)"
_NO_DIRECTORY = f"no such directory {_HOW_TO_MAKE}"


def open_target(
    path: str, patterns: Sequence[str] | None, *, makes: bool = True, within: str = ""
) -> Target:
    """The place of an allowed file to write; with `makes`, missing directories are made where they are allowed, too,
    and of these with `within` only those below a directory that is there.

    Raises:
        PathForbidden: not allowed, or something else than a regular file stands there.
        CopyFailed: a directory is missing, no permission.
    """
    raw = _checked(path)
    head, name = os.path.split(raw)
    if name in (b"", b".", b".."):
        raise ArgumentsInvalid(f"{shorten(path)} names no file")
    real_head = os.path.realpath(head)
    resolved = bytes_to_text(os.path.join(real_head, name))
    _check_allowed(path, resolved, patterns)
    if makes and within:
        _check_is_there(path, within)
    try:
        directory_fd = _walk(real_head, patterns, makes=makes)
    except FileNotFoundError as error:
        reason = (
            "its directory does not exist, and is not in allow_paths to be made"
            if makes
            else f"its directory does not exist {_HOW_TO_MAKE}"
        )
        raise CopyFailed(shorten(path), reason) from error
    except OSError as error:
        raise failed(path, error) from error
    target = Target(directory_fd, name, resolved)
    try:
        refuse_special(target)
    except OSError as error:
        target.close()
        raise failed(path, error) from error
    except BaseException:
        target.close()
        raise
    return target


def _check_is_there(path: str, within: str) -> None:
    """Whether the directory that whoever copies takes to be there is. Raises ArgumentsInvalid or CopyFailed."""
    raw = _checked(within)
    if not _checked(path).startswith(raw.rstrip(b"/") + b"/"):
        raise ArgumentsInvalid(f"{shorten(path)} is not within {shorten(within)}")
    if not os.path.isdir(raw):
        raise CopyFailed(shorten(within), _NO_DIRECTORY)


def refuse_special(target: Target) -> None:
    """A link, a directory or a device at the target is somebody's intention: say so instead of replacing it."""
    found = target.stat()
    if found is None or stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        raise PathForbidden(f"{shorten(target.path)} is a directory: name the file in it")
    raise PathForbidden(f"{shorten(target.path)} is no regular file")


def failed(path: str, error: OSError) -> CopyFailed:
    """An error of the operating system in our words."""
    return CopyFailed(shorten(path), say_os_error(error))


def is_of_a_process(resolved: str) -> bool:
    """Whether a resolved path is below the directory of a process in /proc."""
    return _OF_A_PROCESS.match(resolved) is not None


def _checked(path: str) -> bytes:
    try:
        raw = text_to_bytes(path)
    except UnicodeEncodeError:
        raise ArgumentsInvalid(f"{shorten(path)} cannot be written as bytes") from None
    if not raw.startswith(b"/"):
        raise ArgumentsInvalid(f"{shorten(path)} is no absolute path")
    if b"\0" in raw or len(raw) > MAX_PATH_BYTES:
        raise ArgumentsInvalid("a path holds a NUL or is longer than 4095 bytes")
    return raw


def _check_allowed(
    path: str, resolved: str, patterns: Sequence[str] | None, setting: str = "allow_paths"
) -> None:
    if is_of_a_process(resolved):
        # among them our own: `any` and `/proc/**` do not mean the daemon's environment and memory
        raise PathForbidden(f"{shorten(path)} is of a process, and no file")
    if is_path_allowed(resolved, patterns):
        return
    shown = shorten(path) if path == resolved else f"{shorten(path)} ({shorten(resolved)})"
    raise PathForbidden(f"{shown} is not in {setting}")


def _walk(path: bytes, patterns: Sequence[str] | None = (), *, makes: bool = False) -> int:
    """Open a resolved directory; the last one for syncing, where it may be read."""
    parts = [part for part in path.split(b"/") if part]
    directory_fd = os.open("/", _LOOK | _DIRECTORY)
    try:
        for number, part in enumerate(parts, start=1):
            here = "/" + bytes_to_text(b"/".join(parts[:number]))
            may_make = makes and is_path_allowed(here, patterns)
            next_fd = _step(directory_fd, part, may_make=may_make)
            os.close(directory_fd)
            directory_fd = next_fd
        with contextlib.suppress(PermissionError):
            readable_fd = os.open(".", os.O_RDONLY | _DIRECTORY, dir_fd=directory_fd)
            os.close(directory_fd)
            return readable_fd
    except BaseException:
        os.close(directory_fd)
        raise
    return directory_fd


def _step(directory_fd: int, part: bytes, *, may_make: bool) -> int:
    try:
        return os.open(part, _LOOK | _DIRECTORY, dir_fd=directory_fd)
    except FileNotFoundError:
        if not may_make:
            raise
    with contextlib.suppress(FileExistsError):  # another thread was faster
        os.mkdir(part, NEW_DIRECTORY_MODE, dir_fd=directory_fd)
        with contextlib.suppress(OSError):
            os.fsync(directory_fd)
    return os.open(part, _LOOK | _DIRECTORY, dir_fd=directory_fd)
