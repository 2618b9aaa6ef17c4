"""Listening on, and finding, a unix socket below a directory of any path length.

A socket's address holds at most 107 bytes. A longer path is reached through a descriptor of its
directory (``/proc/self/fd/<n>/<name>``), which is always short.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from appliance.errors import DaemonAlreadyRunning, DaemonError

MAX_ADDRESS_BYTES = 107
BACKLOG = 128


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address for `path` that fits, valid inside the block.

    Raises:
        OSError: the directory cannot be opened.
    """
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def connect_unix(path: Path, timeout_s: float | None) -> socket.socket:
    """Connect to the socket at `path`.

    Raises:
        OSError: nobody answers there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with short_address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def find_listening(name: str) -> list[Path]:
    """Directories of this machine in which somebody listens on a socket that `listen_unix` made, and that we may use.

    The kernel tells it (proc(5), /proc/net/unix); a directory that is known by a descriptor alone stays unknown.
    """
    found = set()
    bound = re.compile(rb"(?:\S+ ){6} *\d+ (.*)\.%b\.(\d+)" % re.escape(os.fsencode(name)))
    try:
        lines = Path("/proc/net/unix").read_bytes().splitlines()
    except OSError:
        return []
    for line in lines:
        # as it was bound: below the directory that its process was in
        match = bound.fullmatch(line)
        if match is None or match[1].startswith(b"/proc/self/"):
            continue
        directory = os.fsdecode(match[1])
        with contextlib.suppress(OSError):
            below = "/" if directory[:1] == "/" else os.readlink(f"/proc/{int(match[2])}/cwd")
            place = Path(below, directory)
            if (place / name).is_socket() and os.access(place / name, os.W_OK):
                found.add(place)
    return sorted(found)


def listen_unix(path: Path, mode: int | None = None) -> socket.socket:
    """Listen at `path`, mode 0660 unless told otherwise; a socket left by a daemon that is gone is replaced.

    The socket appears under its name only when it has its mode and listens: nobody can connect too
    early.

    Raises:
        DaemonAlreadyRunning: somebody answers there.
        DaemonError: the path cannot be used.
    """
    # asked by connecting: a file alone tells nothing of whether somebody listens
    if _is_answered(path):
        raise DaemonAlreadyRunning(f"another daemon answers on {path}")
    try:
        if path.exists() and not path.is_socket():
            raise DaemonError(f"cannot listen on {path}: there is something that is no socket")
        return _listen(path, mode)
    except OSError as error:
        raise DaemonError(f"cannot listen on {path}: {error.strerror or error}") from error


def _listen(path: Path, mode: int | None) -> socket.socket:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        temporary.unlink(missing_ok=True)
        with short_address(temporary) as address:
            listener.bind(address)
        allowed = temporary.stat().st_mode
        # an umask that keeps the group out altogether is meant; the usual 022 is not
        usual = 0o660 if allowed & 0o040 else 0o600
        temporary.chmod(usual if mode is None else mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        # last, and in one step: whoever finds the name finds somebody who listens
        os.replace(temporary, path)
    except BaseException:
        listener.close()
        temporary.unlink(missing_ok=True)
        raise
    return listener


def _is_answered(path: Path) -> bool:
    try:
        connect_unix(path, 2.0).close()
    except TimeoutError:
        return True  # somebody listens and is busy
    except OSError:
        return False
    return True
