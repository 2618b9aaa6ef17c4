"""Small files that must be whole after a crash, at any instant: the old content or the new one, never a part of either."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Replace the content; for the owner's eyes alone. Blocks until it is on the disk.

    Raises:
        OSError: it could not be written; the old content stands.
    """
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb", opener=_private) as file:
        file.write(content)
        file.flush()
        # before the rename: the name must not stand for content that a power cut can take
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove the file, if it is there. Blocks until that is on the disk.

    Raises:
        OSError: it could not be removed.
    """
    path.unlink(missing_ok=True)
    _sync_directory(path.parent)


def takes_no_writes(directory: Path) -> bool:
    """Whether the file system of a directory is read-only. Blocks; leaves nothing.

    The mount does not always say so: one that the kernel has closed after an error (ext4's ``emergency_ro``) is still
    ``rw`` there.
    """
    try:
        if os.statvfs(directory).f_flag & os.ST_RDONLY:
            return True
        # a file without a name
        os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return error.errno == errno.EROFS
    return False


def _sync_directory(path: Path) -> None:
    # a rename is durable when the directory is, not when the file is
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
