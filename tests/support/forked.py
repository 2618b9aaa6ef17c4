"""Starts our command in a tenth of the time: forked from a process that has its modules loaded already.

What runs is the command's own `__main__` in a process of its own, with its own arguments, environment, directory and
descriptors; only the imports, which cost most of a start, were made before. Tests about the start itself (signals in the
first second, late imports, wrong environments) run `python -m appliance` instead.

    process = start(["run", "fleet.yaml"], stdout=log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO

_MAX_REQUEST_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)
_PRELOADED = (
    *("appliance.cli.app", "appliance.daemon.run"),
    # what a running daemon and commands that show tables import late
    *("anyio._backends._asyncio", "encodings.utf_8_sig", "appliance.cli.status_view", "rich.table"),
)


class ForkedProcess:
    """What of `subprocess.Popen` is used here, for a process that is not our child."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told.makefile("rb")
        told.close()
        self.pid = int(self._told.readline())
        self.returncode: int | None = None
        self._pid_fd: int | None = None
        """Its number may be given to another process as soon as it has ended; this may not. None: it has ended already."""
        with contextlib.suppress(ProcessLookupError):
            self._pid_fd = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, in so many seconds.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"pid {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """To a process that has ended nothing is sent."""
        if self.poll() is None and self._pid_fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pid_fd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout_s)[0]:
            line = self._told.readline()
            self.returncode = int(line) if line else -signal.SIGKILL
            self._close()
        return self.returncode

    def __del__(self) -> None:
        if self.returncode is None:
            with contextlib.suppress(OSError, AttributeError):
                self._close()

    def _close(self) -> None:
        self._told.close()
        if self._pid_fd is not None:
            os.close(self._pid_fd)


def start(
    arguments: Sequence[str],
    *,
    stdin: IO | int | None = None,
    stdout: IO | int | None = None,
    stderr: IO | int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    is_plain_user: bool = False,
) -> ForkedProcess:
    """Start our command with these arguments; without a descriptor it reads and writes /dev/null.

    As a plain user it has not root's way around the rights of files.
    """
    told, tells = socket.socketpair()
    with open(os.devnull, "r+b") as null, tells:
        files = [null if file is None else file for file in (stdin, stdout, stderr)]
        descriptors = [file if isinstance(file, int) else file.fileno() for file in files]
        request = {
            "arguments": [os.fspath(word) for word in arguments],
            "environment": dict(os.environ if env is None else env),
            "directory": os.fspath(cwd or os.getcwd()),
            "is_plain_user": is_plain_user,
        }
        message = json.dumps(request).encode()
        socket.send_fds(_find_parent(), [message], [*descriptors, tells.fileno()])
    return ForkedProcess(told)


def run(
    arguments: Sequence[str],
    *,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = 60.0,
    is_text: bool = True,
    is_plain_user: bool = False,
) -> subprocess.CompletedProcess:
    """As `subprocess.run` with captured output, which is UTF-8 unless it is no text."""
    with (
        tempfile.TemporaryFile() as fed,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        fed.write(input)
        fed.seek(0)
        process = start(arguments, stdin=fed, stdout=out, stderr=err, env=env, cwd=cwd,
            is_plain_user=is_plain_user)  # fmt: skip
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        told = []
        for file in (out, err):
            file.seek(0)
            told.append(file.read().decode() if is_text else file.read())
    return subprocess.CompletedProcess(list(arguments), code, *told)


@functools.cache
def _find_parent() -> socket.socket:
    """The process that forks, started when it is first needed; it ends when this end of its socket is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST_BYTES)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# -- the process that forks ------------------------------------------------------------------------


def _serve(requests: socket.socket) -> dict:
    """Fork for each request and tell how each child ended. Returns in the children only, with their requests."""
    woken_fd, wakes_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ends: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([requests, woken_fd], [], [])
        if woken_fd in ready:
            os.read(woken_fd, 4_096)
            _tell_ends(ends)
        if requests not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, _MAX_REQUEST_BYTES, 4)
        if not message:
            raise SystemExit
        *files, told_fd = descriptors
        pid = os.fork()
        if pid == 0:
            _die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, descriptor in enumerate(files):
                os.dup2(descriptor, number)
            os.closerange(3, max(requests.fileno(), *descriptors, woken_fd, wakes_fd, told_fd, *(
                end.fileno() for end in ends.values())) + 1)  # fmt: skip
            for end in (requests, *ends.values()):
                end.detach()
            return json.loads(message)
        for descriptor in files:
            os.close(descriptor)
        ends[pid] = socket.socket(fileno=told_fd)
        ends[pid].sendall(b"%d\n" % pid)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _give_up_capabilities() -> None:
    """For good, and for whatever this process starts."""
    for number in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _tell_ends(ends: dict[int, socket.socket]) -> None:
    for pid in list(ends):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with ends.pop(pid) as told, contextlib.suppress(OSError):
                told.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(request: dict) -> None:
    """Run the command as an interpreter that was just started would."""
    if request["is_plain_user"]:
        _give_up_capabilities()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = ["appliance", *request["arguments"]]
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    try:
        runpy.run_module("appliance", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        # what an interpreter does at its end, save taking apart all that was loaded, module by module
        if isinstance(ended.code, int):
            threading._shutdown()
            atexit._run_exitfuncs()
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(ended.code & 0xFF)
        raise


def main() -> None:
    _die_with_parent()
    for name in _PRELOADED:
        importlib.import_module(name)
    sys.modules["appliance.cli.app"].load_command()
    gc.collect()
    gc.freeze()  # else the first collection of every child would copy all of its memory
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
