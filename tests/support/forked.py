"""Starts our command in a tenth of the time: forked from a process that has its modules loaded already.

What runs is the command's own `__main__` in a process of its own, with its own arguments, environment, directory and
descriptors; only the imports, which cost most of a start, were made before. Tests about the start itself (signals in the
first second, late imports, wrong environments) run `python -m appliance` instead.

    process = start(["run", "fleet.yaml"], stdout=log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0

For whatever starts programs by itself, scripts and shells and `subprocess`, there is a file that it can run:

    subprocess.run(["sh", "-c", '"$0" status | grep healthy', program()])
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import marshal
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

_MAX_REQUEST_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)
_PROGRAM = """#!{interpreter} -IS
# stands for the command: has it forked, passes signals on to it, and ends as it does
import _signal, _socket, marshal, os, sys
pids, early = [], []
def pass_on(number, _):
    try:
        os.kill(pids[0], number) if pids else early.append(number)
    except ProcessLookupError:
        pass
for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
    if _signal.getsignal(number) is not _signal.SIG_IGN:
        _signal.signal(number, pass_on)
line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
line.connect({place!r})
request = {{"words": sys.argv, "environment": dict(os.environ), "directory": os.getcwd(),
    "is_plain_user": False, "before": {before!r}}}
files = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
line.sendmsg([marshal.dumps(request)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
os.closerange(0, 3)
line.settimeout(0.5)  # a signal that comes just before one call is heeded at the next
def hear():
    while True:
        try:
            return line.recv(64)
        except TimeoutError:
            pass
pids.append(int(hear()))
for number in early:
    pass_on(number, None)
code = int(hear() or b"1")
if code < 0:
    _signal.signal(-code, _signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""
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
    before: str = "",
    first: str = "",
) -> ForkedProcess:
    """Start our command with these arguments; without a descriptor it reads and writes /dev/null.

    As a plain user it has not root's way around the rights of files. `before` is Python that runs in its process before
    the command does, where a test has the program be more patient, or less. `first` is a module that is imported before
    any of the program is: all that name the same one are forked from one process.
    """
    told, tells = socket.socketpair()
    with open(os.devnull, "r+b") as null, tells:
        files = [null if file is None else file for file in (stdin, stdout, stderr)]
        descriptors = [file if isinstance(file, int) else file.fileno() for file in files]
        request = {
            "words": ["appliance", *map(os.fsdecode, arguments)],
            "environment": {os.fsdecode(name): os.fsdecode(text)
                for name, text in (os.environ if env is None else env).items()},
            "directory": os.fsdecode(cwd or os.getcwd()),
            "is_plain_user": is_plain_user,
            "before": before,
        }  # fmt: skip
        parent, _ = _find_parent(first)
        socket.send_fds(parent, [marshal.dumps(request)], [*descriptors, tells.fileno()])
    return ForkedProcess(told)


def program(path: Path | None = None, *, before: str = "") -> str:
    """The path of an executable file that stands for the command: whoever runs it, has it forked.

    It has the descriptors, arguments, environment and directory of whoever runs it, and is killed with it; its group
    and its terminal it has not. Tests of closed streams run `python -m appliance` instead.

    Args:
        path: where to write it.
        before: see `start`.
    """
    _, place = _find_parent("")
    if path is None:
        path = place.with_name("appliance")
        if path.exists():
            return str(path)
    names = {"interpreter": sys.executable, "place": str(place), "before": before}
    path.write_text(_PROGRAM.format(**names))
    path.chmod(0o755)
    return str(path)


def run(
    arguments: Sequence[str],
    *,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = 120.0,
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
def _find_parent(first: str) -> tuple[socket.socket, Path]:
    """A line to the process that forks, and where others find it. It is started when it is first needed, and ends with
    the line."""
    directory = Path(tempfile.mkdtemp(prefix="forked-", dir="/tmp"))
    place = directory / "line"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST_BYTES)
    with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(place))
        listening.listen(100)
        passed = [theirs.fileno(), listening.fileno()]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked", *map(str, passed), first],
            stdin=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],  # a test may be elsewhere when it needs the first one
            pass_fds=passed,
        )

    def end() -> None:
        ours.close()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(end)
    return ours, place


# -- the process that forks ------------------------------------------------------------------------


class _Children:
    """Those that run, and who is told how each ended: whoever started it, or the stand-in that it is killed with."""

    def __init__(self) -> None:
        self._told: dict[int, socket.socket] = {}
        self._stand_ins: dict[socket.socket, int] = {}

    @property
    def stand_ins(self) -> Iterable[socket.socket]:
        return self._stand_ins

    @property
    def sockets(self) -> Iterable[socket.socket]:
        return self._told.values()

    def add(self, pid: int, told: socket.socket, *, is_stand_in: bool) -> None:
        self._told[pid] = told
        if is_stand_in:
            self._stand_ins[told] = pid
        self._tell(told, pid)

    def kill_of(self, stand_in: socket.socket) -> None:
        """It has gone; it says nothing else."""
        os.kill(self._stand_ins.pop(stand_in), signal.SIGKILL)

    def tell_ends(self) -> None:
        for pid in list(self._told):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                with self._told.pop(pid) as told:
                    self._stand_ins.pop(told, None)
                    self._tell(told, os.waitstatus_to_exitcode(status))

    def _tell(self, told: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            told.sendall(b"%d\n" % number)


def _serve(requests: socket.socket, listening: socket.socket) -> dict:
    """Fork for each request and tell how each child ended. Returns in the children only, with their requests."""
    woken_fd, wakes_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children = _Children()
    while True:
        ready, _, _ = select.select([requests, listening, woken_fd, *children.stand_ins], [], [])
        if woken_fd in ready:
            os.read(woken_fd, 4_096)
            children.tell_ends()
        for stand_in in set(ready).intersection(children.stand_ins):
            children.kill_of(stand_in)
        for asking in {requests, listening}.intersection(ready):
            if asking is requests:
                message, descriptors, _, _ = socket.recv_fds(requests, _MAX_REQUEST_BYTES, 4)
                if not message:
                    raise SystemExit
                told = socket.socket(fileno=descriptors.pop())
            else:
                told, _ = listening.accept()
                message, descriptors, _, _ = socket.recv_fds(told, _MAX_REQUEST_BYTES, 3)
                if not message:
                    told.close()
                    continue
            pid = os.fork()
            if pid == 0:
                _die_with_parent()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number, descriptor in enumerate(descriptors):
                    os.dup2(descriptor, number)
                sockets = [requests, listening, told, *children.sockets]
                numbers = [*descriptors, woken_fd, wakes_fd, *(one.fileno() for one in sockets)]
                os.closerange(3, max(numbers) + 1)
                for one in sockets:
                    one.detach()
                return marshal.loads(message)
            for descriptor in descriptors:
                os.close(descriptor)
            children.add(pid, told, is_stand_in=asking is listening)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _give_up_capabilities() -> None:
    """For good, and for whatever this process starts."""
    for number in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _become(request: dict) -> None:
    """Run the command as an interpreter that was just started would."""
    if request["is_plain_user"]:
        _give_up_capabilities()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = request["words"]
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    try:
        if request["before"]:
            exec(request["before"], {})
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
    *numbers, first = sys.argv[1:]
    for name in filter(None, (first, *_PRELOADED)):
        importlib.import_module(name)
    sys.modules["appliance.cli.app"].load_command()
    gc.collect()
    gc.freeze()  # else the first collection of every child would copy all of its memory
    _become(_serve(*(socket.socket(fileno=int(number)) for number in numbers)))


if __name__ == "__main__":
    main()
