"""A started program with its pipes: watched, killed whole, reaped, whoever reads what it says.

The child leads a process group of its own. Its exit is seen through a pidfd and *not yet reaped*,
so that the group can still be killed without any danger that its number belongs to somebody else by
now; reaping comes last. Pipes are read here rather than through asyncio's transports: with those,
waiting for a child whose output nobody reads hangs for ever on Python 3.11, and a grandchild that
holds a pipe delays the end for as long as it likes.

What cannot be caught: a descendant that opens a session of its own escapes the kill (only a cgroup
holds it). It cannot delay us, for the pipes are closed on our side.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from appliance.methods.programs.account import Account
from appliance.methods.programs.chunks import Chunker

KILL_WAIT_S = 2.0
"""How long a killed child may take to vanish before we stop waiting; it is then reaped later."""
LINGER_S = 1.0
"""How long descendants that hold the pipes of a child that has ended may be silent before they are ended, too."""
MOST_LINGER_S = 5.0
"""How long they may go on at all; who floods on is no end of the command."""
STOP_GRACE_S = 5.0
"""How long who is asked to end may take, where nobody says otherwise."""

_CHUNK_BYTES = 65_536


class Pipe:
    """One output of a child, read as it fills; what is read goes to `_take`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pipe_fd: int) -> None:
        self.ended = asyncio.Event()
        self.heard_mono = loop.time()
        self._loop = loop
        self._pipe_fd = pipe_fd
        os.set_blocking(pipe_fd, False)
        loop.add_reader(pipe_fd, self._read)

    def _room(self) -> int:
        """How much may be read now."""
        return _CHUNK_BYTES

    def _take(self, chunk: bytes) -> None:
        raise NotImplementedError

    def _read(self) -> None:
        try:
            chunk = os.read(self._pipe_fd, self._room())
        except BlockingIOError:
            return
        self.heard_mono = self._loop.time()
        self._take(chunk)
        if not chunk:
            self.close()

    def close(self) -> None:
        """Stop reading; whoever still writes gets a broken pipe."""
        if not self.ended.is_set():
            self._loop.remove_reader(self._pipe_fd)
            os.close(self._pipe_fd)
            self.ended.set()


class KeptPipe(Pipe):
    """Kept up to a limit; the rest is read and thrown away."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pipe_fd: int, limit_bytes: int) -> None:
        self.is_cut = False
        self._limit_bytes = limit_bytes
        self._kept = bytearray()
        super().__init__(loop, pipe_fd)

    def _take(self, chunk: bytes) -> None:
        room = self._limit_bytes - len(self._kept)
        self._kept += chunk[:room]
        if len(chunk) > room:
            self.is_cut = True

    def text(self) -> bytes:
        """What was kept, as it came."""
        return bytes(self._kept)


class TalkingPipe(Pipe):
    """Goes into a talk; while that is full nothing is read, which stops the child at its next word."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pipe_fd: int,
        talk: Chunker,
        stream: str,
        tail_bytes: int,
    ) -> None:
        self._talk = talk
        self._stream = stream
        self._tail_bytes = tail_bytes
        self._is_paused = False
        self._left: int | None = None
        self.tail = bytearray()
        """The end of all that was said."""
        super().__init__(loop, pipe_fd)
        # not before the pipe is open, which is what is resumed
        talk.on_room.append(self._resume)

    @property
    def is_held(self) -> bool:
        """Whether somebody may still write to it, whatever is unread."""
        if self.ended.is_set():
            return False
        poll = select.poll()
        poll.register(self._pipe_fd, 0)
        return not any(happened & select.POLLHUP for _, happened in poll.poll(0))

    def _room(self) -> int:
        room = min(_CHUNK_BYTES, self._talk.room)
        return room if self._left is None else min(room, self._left)

    def _read(self) -> None:
        if self._talk.room:
            super()._read()
        else:
            self._is_paused = True
            self._loop.remove_reader(self._pipe_fd)

    def _resume(self) -> None:
        if self._is_paused and not self.ended.is_set():
            self._is_paused = False
            self._loop.add_reader(self._pipe_fd, self._read)

    def _take(self, chunk: bytes) -> None:
        if not chunk:
            return
        self._talk.add(self._stream, chunk)
        self.tail += chunk
        del self.tail[: -self._tail_bytes]
        if self._left is not None:
            self._left -= len(chunk)
            if not self._left:
                self.close()

    def finish(self) -> None:
        """Read what is in the pipe at this moment, and no more."""
        if self.ended.is_set():
            return
        found = fcntl.ioctl(self._pipe_fd, termios.FIONREAD, bytes(4))
        self._left = struct.unpack("i", found)[0]
        if not self._left:
            self.close()


_P = TypeVar("_P", bound=Pipe)
MakePipe = Callable[[asyncio.AbstractEventLoop, int, str], _P]
"""Makes the reading end of one output, ``stdout`` or ``stderr``."""


@contextlib.contextmanager
def _open_stdin(data: bytes) -> Iterator[int]:
    """A descriptor from which `data` can be read, as a file in memory: nobody has to feed a pipe meanwhile."""
    if not data:
        yield subprocess.DEVNULL
        return
    stdin_fd = os.memfd_create("stdin")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(stdin_fd, view) :]
        os.lseek(stdin_fd, 0, os.SEEK_SET)
        yield stdin_fd
    finally:
        os.close(stdin_fd)


class Launch(NamedTuple):
    """As whom and where a program is started. `directory_fd` is open as long as it is being started."""

    account: Account | None = None
    directory_fd: int | None = None

    def popen_words(self) -> dict[str, Any]:
        """Arguments of `subprocess.Popen`."""
        words: dict[str, Any] = {}
        if self.account is not None and self.account.is_other:
            words["user"], words["group"] = self.account.user_id, self.account.group_id
            words["extra_groups"] = self.account.groups
        if self.directory_fd is not None:
            # by the descriptor: what was judged is where it runs, whatever the name stands for by now
            words["cwd"] = f"/proc/self/fd/{self.directory_fd}"
        return words


AS_WE_ARE = Launch()


class Child(Generic[_P]):
    """A started program with its pipes."""

    def __init__(
        self,
        argv: Sequence[bytes],
        environment: Mapping[str, str],
        make_pipe: MakePipe[_P],
        stdin: bytes = b"",
        stop_grace_s: float = STOP_GRACE_S,
        launch: Launch = AS_WE_ARE,
    ) -> None:
        self.exited = asyncio.Event()
        self.exit_status = 0
        self.signal: int | None = None
        """The signal that ended it, where one did."""
        self._stop_grace_s = stop_grace_s
        self._is_asked = False
        self._is_killed = False
        self._loop = asyncio.get_running_loop()
        pipe_fds: list[int] = []
        try:
            pipe_fds += os.pipe()
            pipe_fds += os.pipe()
            # NB: on the loop's thread on purpose. The spawn takes about a millisecond and holds the
            # interpreter lock in any thread; here a cancellation cannot come between it and our
            # taking hold of the child.
            with _open_stdin(stdin) as stdin_fd:
                self._popen = subprocess.Popen(
                    list(argv),
                    stdin=stdin_fd,
                    stdout=pipe_fds[1],
                    stderr=pipe_fds[3],
                    env=environment,
                    # a group of its own, which can be killed as a whole
                    start_new_session=True,
                    **launch.popen_words(),
                )
        except BaseException:
            for pipe_fd in pipe_fds:
                os.close(pipe_fd)
            raise
        # the child's ends: kept open here, its outputs would never end
        os.close(pipe_fds[1])
        os.close(pipe_fds[3])
        self.stdout: _P = make_pipe(self._loop, pipe_fds[0], "stdout")
        self.stderr: _P = make_pipe(self._loop, pipe_fds[2], "stderr")
        self._watch()

    def _watch(self) -> None:
        """Set `exited` when the child ends; until `end` it is a zombie whose number stays ours."""
        pid = self._popen.pid
        try:
            pid_fd = os.pidfd_open(pid)
        except (
            AttributeError,
            OSError,
        ):  # no pidfd in this kernel or sandbox: a thread waits instead
            # not one of the shared threads: a program may run for hours, and they are few
            threading.Thread(target=self._wait_in_thread, args=(pid,), daemon=True).start()
            return

        def on_exit() -> None:
            self._loop.remove_reader(pid_fd)
            os.close(pid_fd)
            self.exited.set()

        self._loop.add_reader(pid_fd, on_exit)

    def _wait_in_thread(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is gone, and whoever waited with it
            self._loop.call_soon_threadsafe(self.exited.set)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    def ask_to_end(self) -> None:
        """Have the child and all it started tidy up and end, save what opened a session of its own; `stop` sees to it."""
        if self._stop_grace_s and not self._is_asked:
            self._is_asked = True
            self._signal_group(signal.SIGTERM)

    def kill_group(self) -> None:
        """Kill the child and all it started, save what opened a session of its own."""
        self._is_killed = True
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        if (
            self._popen.returncode is None
        ):  # not reaped, hence the group's number is still the child's
            # it may be gone, or run with another user's rights, which only that user may kill
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    async def stop(self) -> None:
        """End the child and all it started: first asked, and killed when the grace is over.

        All of it has ended when the child has and nobody holds its pipes any more; what holds none goes with the kill.
        """
        self.ask_to_end()
        try:
            # what outlives a kill, in a session of its own, is not waited for a second time
            if self._stop_grace_s and not self._is_killed:
                async with asyncio.timeout(self._stop_grace_s):
                    await self.exited.wait()
                    await self.stdout.ended.wait()
                    await self.stderr.ended.wait()
        except TimeoutError:
            pass
        finally:
            self.kill_group()

    async def wait_for_outputs(self, timeout_s: float) -> bool:
        """Wait until both pipes are at their end, or for so long; whether they are."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.stdout.ended.wait()
                await self.stderr.ended.wait()
        except TimeoutError:
            return False
        return True

    async def hear_out(self) -> bool:
        """After the child's exit: wait while more is said; whether both pipes came to their end.

        Otherwise descendants hold them and have been silent for `LINGER_S`, or go on and on.
        """
        began = self._loop.time()
        while not (self.stdout.ended.is_set() and self.stderr.ended.is_set()):
            heard_mono = max(began, self.stdout.heard_mono, self.stderr.heard_mono)
            due_mono = min(heard_mono + LINGER_S, began + MOST_LINGER_S)
            left_s = due_mono - self._loop.time()
            if left_s <= 0:
                return False
            await self.wait_for_outputs(left_s)
        return True

    async def end(self) -> None:
        """Stop what still runs or holds a pipe, and reap."""
        is_held = not (self.stdout.ended.is_set() and self.stderr.ended.is_set())
        try:
            if is_held or not self.exited.is_set():
                # also for what it left behind: descendants that hold a pipe belong to the command
                await self.stop()
        finally:
            await self._close()

    async def _close(self) -> None:
        self.stdout.close()
        self.stderr.close()
        try:
            async with asyncio.timeout(KILL_WAIT_S):
                await self.exited.wait()
        except TimeoutError:
            pass
        finally:
            self._reap()

    def _reap(self) -> None:
        status = self._popen.poll()
        if status is None:
            # Stuck in the kernel (a dead network disk): reap it whenever it comes out. The callback
            # keeps us alive.
            self._loop.call_later(KILL_WAIT_S, self._reap)
        else:
            self.exit_status = status if status >= 0 else 128 - status
            self.signal = -status if status < 0 else None
