"""The files on this side of `cp`: read and written with the rights of whoever typed it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from appliance.core.copying import HASH_DIFFERS, NO_ATTRIBUTES, Attributes
from appliance.errors import ApplianceError
from appliance.methods.copies.attributes import set_attributes

BLOCK_BYTES = 256 * 1024
MAX_OF_KERNEL_BYTES = 4 * 1024 * 1024
"""What a file may hold that tells no true size, as those of /proc and /sys."""


class LocalFailed(ApplianceError):
    """A file here cannot be read or written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class Readable(Protocol):
    """Content that comes from the daemon."""

    def read(self, amount: int) -> bytes:
        """The next bytes; empty at the end."""
        ...


class LocalSource:
    """A regular file that is brought to the daemon. `sha256` is that of what was read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: BinaryIO = self._open()
        status = os.fstat(self._file.fileno())
        self.size = status.st_size
        if status.st_blocks == 0:
            # without a block on any disk: empty, full of holes, or a file of the kernel, whose size says nothing
            self._read_at_once()
        self._hasher = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of all that was read."""
        return self._hasher.hexdigest()

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def blocks(self, tell: Callable[[int, int], None]) -> Iterator[bytes]:
        """Everything, up to where it ended when it was opened; `tell` hears how far it is.

        Raises:
            LocalFailed: it has become shorter, or cannot be read.
        """
        left = self.size
        while left:
            try:
                block = self._file.read(min(BLOCK_BYTES, left))
            except OSError as error:
                raise _failed(self.path, error) from error
            if not block:
                raise LocalFailed(self.path, "it changed while it was read")
            self._hasher.update(block)
            left -= len(block)
            tell(self.size - left, self.size)
            yield block

    def _read_at_once(self) -> None:
        content = bytearray()
        try:
            # in blocks: /proc/sys refuses to be read by more at once than the kernel can allocate
            while len(content) <= MAX_OF_KERNEL_BYTES and (block := self._file.read(BLOCK_BYTES)):
                content += block
            self._file.seek(0)
        except OSError as error:
            self._file.close()
            raise _failed(self.path, error) from error
        if len(content) <= MAX_OF_KERNEL_BYTES:
            self._file.close()
            self._file, self.size = io.BytesIO(content), len(content)
        elif not self.size:
            self._file.close()
            words = f"it tells no size, and holds over {MAX_OF_KERNEL_BYTES} bytes"
            raise LocalFailed(self.path, words)

    def _open(self) -> BinaryIO:
        try:
            # NB: a pipe without a writer must not hang us
            file_fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _failed(self.path, error) from error
        mode = os.fstat(file_fd).st_mode
        if not stat.S_ISREG(mode):
            os.close(file_fd)
            kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise LocalFailed(self.path, f"it is {kind}; regular files are copied")
        return os.fdopen(file_fd, "rb")


def check_writable(path: str) -> None:
    """Find out before a long copy what would only be found out after it. Raises LocalFailed."""
    real = os.path.realpath(path)
    directory = os.path.dirname(real)
    if os.path.isdir(real):
        raise LocalFailed(path, "it is a directory")
    if _is_special(real):
        return
    if not os.path.isdir(directory):
        raise LocalFailed(path, "its directory does not exist")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise LocalFailed(path, "no permission to write in its directory")


def write_file(
    path: str, content: Readable, sha256: str, attributes: Attributes = NO_ATTRIBUTES
) -> int:
    """Write beside the target, check, rename over it: it is there whole or not at all.

    Links are followed and a device or a pipe is written to, as cp does. What is nothing but zeros stays a hole. Returns
    the size.

    Raises:
        LocalFailed: it cannot be written, or what came is not what was sent.
    """
    real = os.path.realpath(path)
    try:
        if _is_special(real):
            with open(real, "wb", buffering=0) as file:
                return _copy(path, content, file, sha256, leaves_holes=False)
        directory, name = os.path.split(real)
        temporary = os.path.join(directory, f".{name[:60]}.part-{secrets.token_hex(6)}")
        try:
            with open(temporary, "xb") as file:
                size = _copy(path, content, file, sha256, leaves_holes=True)
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(file.fileno(), stat.S_IMODE(os.stat(real).st_mode) & 0o777)
                file.flush()
                try:
                    set_attributes(file.fileno(), attributes)
                except ValueError as error:
                    raise LocalFailed(path, str(error)) from None
                os.fsync(file.fileno())
            os.replace(temporary, real)
            return size
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _failed(path, error) from error


def _copy(path: str, content: Readable, file: BinaryIO, sha256: str, *, leaves_holes: bool) -> int:
    hasher = hashlib.sha256()
    size = 0
    while block := content.read(BLOCK_BYTES):
        hasher.update(block)
        size += len(block)
        if leaves_holes and not block.strip(b"\0"):
            file.seek(len(block), os.SEEK_CUR)
            continue
        view = memoryview(block)
        while view:
            view = view[file.write(view) :]
    if leaves_holes:
        file.truncate(size)
    if hasher.hexdigest() != sha256:
        raise LocalFailed(path, f"what arrived is not what was sent ({HASH_DIFFERS})")
    return size


def _is_special(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _failed(path: str, error: OSError) -> LocalFailed:
    return LocalFailed(path, (error.strerror or str(error)).lower())
