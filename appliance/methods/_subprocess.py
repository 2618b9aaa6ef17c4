"""Run a program: bounded in time and output, killed whole, never waited for without end.

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
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from appliance.core.message import Message

KILL_WAIT_S = 2.0
"""How long a killed child may take to vanish before we stop waiting; it is then reaped later."""
LINGER_S = 0.25
"""How long output may still come after the child's exit, from descendants that hold its pipes."""

_CHUNK_BYTES = 65_536
_SECRET_NAME = re.compile(
    r"^(APPLIANCE|NKEY|NATS)_|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL"
    r"|API_?KEY|PRIVATE_?KEY|_SEED$",
    re.IGNORECASE,
)
_SERVICE_NAMES = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
)
"""The service manager's words to the daemon alone; a child could speak to it in our name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What became of a program. A signal that ended it counts as 128 plus its number."""

    exit_status: int
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False
    truncated: bool = False
    start_error: str | None = None


def make_environment(
    base: Mapping[str, str], message: Message, hidden: Set[str] = frozenset()
) -> dict[str, str]:
    """The daemon's environment less what is or looks like a credential, plus the message's origin.

    `hidden` are the variables that the config names as holding secrets.
    """
    environment = {
        name: value
        for name, value in base.items()
        if not _SECRET_NAME.search(name) and name not in _SERVICE_NAMES and name not in hidden
    }
    environment["APPLIANCE_MESSAGE_ID"] = str(message.id)
    environment["APPLIANCE_FROM_NODE"] = message.from_node
    return environment


async def run_command(
    argv: Sequence[bytes],
    *,
    environment: Mapping[str, str],
    timeout_s: float,
    max_output_bytes: int,
    stdin: bytes = b"",
) -> CommandResult:
    """Run `argv` without a shell and wait for its end.

    `stdin` is what it can read; a program that does not read it is no trouble.

    `max_output_bytes` bounds stdout and stderr each; what exceeds it is read and thrown away, so
    that a program is not ended for talking too much.

    Cancellation: the whole process group is killed, and reaped before this returns (within
    `KILL_WAIT_S`).
    """
    try:
        child = _Child(argv, environment, max_output_bytes, stdin)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = error.strerror or str(error)
        return CommandResult(
            exit_status=127 if is_missing else 126,
            # as a shell says it: whoever waits for the answer sees nothing else
            stderr=b"%s: %s\n" % (argv[0][:200], reason.encode()),
            start_error=reason,
        )
    timed_out = False
    try:
        try:
            async with asyncio.timeout(timeout_s):
                await child.exited.wait()
        except TimeoutError:
            timed_out = True
            child.kill_group()
        await child.wait_for_outputs(LINGER_S)
    finally:
        await child.end()
    return CommandResult(
        exit_status=124 if timed_out else child.exit_status,
        stdout=child.stdout.text(),
        stderr=child.stderr.text(),
        timed_out=timed_out,
        truncated=child.stdout.is_cut or child.stderr.is_cut,
    )


class _Output:
    """One pipe of the child, read as it fills, kept up to a limit."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pipe_fd: int, limit_bytes: int) -> None:
        self.ended = asyncio.Event()
        self.is_cut = False
        self._loop = loop
        self._pipe_fd = pipe_fd
        self._limit_bytes = limit_bytes
        self._kept = bytearray()
        os.set_blocking(pipe_fd, False)
        loop.add_reader(pipe_fd, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._pipe_fd, _CHUNK_BYTES)
        except BlockingIOError:
            return
        room = self._limit_bytes - len(self._kept)
        self._kept += chunk[:room]
        if len(chunk) > room:
            self.is_cut = True
        if not chunk:
            self.close()

    def close(self) -> None:
        """Stop reading; whoever still writes gets a broken pipe."""
        if not self.ended.is_set():
            self._loop.remove_reader(self._pipe_fd)
            os.close(self._pipe_fd)
            self.ended.set()

    def text(self) -> bytes:
        """What was kept, and a last line that says so where something was not."""
        kept = bytes(self._kept)
        if not self.is_cut:
            return kept
        gap = b"" if not kept or kept.endswith(b"\n") else b"\n"
        return kept + gap + b" [cut at %d bytes]\n" % self._limit_bytes


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


class _Child:
    """A started program with its pipes."""

    def __init__(
        self, argv: Sequence[bytes], environment: Mapping[str, str], limit_bytes: int, stdin: bytes
    ) -> None:
        self.exited = asyncio.Event()
        self.exit_status = 0
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
                    start_new_session=True,
                )
        except BaseException:
            for pipe_fd in pipe_fds:
                os.close(pipe_fd)
            raise
        os.close(pipe_fds[1])
        os.close(pipe_fds[3])
        self.stdout = _Output(self._loop, pipe_fds[0], limit_bytes)
        self.stderr = _Output(self._loop, pipe_fds[2], limit_bytes)
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
            waiting = self._loop.run_in_executor(
                None, os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT
            )
            waiting.add_done_callback(lambda _: self.exited.set())
            return

        def on_exit() -> None:
            self._loop.remove_reader(pid_fd)
            os.close(pid_fd)
            self.exited.set()

        self._loop.add_reader(pid_fd, on_exit)

    def kill_group(self) -> None:
        """Kill the child and all it started, save what opened a session of its own."""
        if self._popen.returncode is None:  # not reaped, hence the number is still the child's
            # it may be gone, or run with another user's rights, which only that user may kill
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    async def wait_for_outputs(self, timeout_s: float) -> None:
        """Wait until both pipes are at their end, or for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.stdout.ended.wait()
                await self.stderr.ended.wait()
        except TimeoutError:
            pass

    async def end(self) -> None:
        """Kill what still runs or holds a pipe, and reap."""
        is_held = not (self.stdout.ended.is_set() and self.stderr.ended.is_set())
        if is_held or not self.exited.is_set():
            self.kill_group()
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
