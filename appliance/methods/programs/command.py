"""Run a program: bounded in time and output, killed whole, never waited for without end.

`run_command` keeps what it says, up to a limit. `stream_command` passes it on while it runs; there nothing but the
time bounds the whole, while what is held at once is bounded (`chunks`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from appliance.core.message import Message
from appliance.methods.programs.child import (
    AS_WE_ARE,
    STOP_GRACE_S,
    Child,
    KeptPipe,
    Launch,
    TalkingPipe,
)
from appliance.methods.programs.chunks import Chunker, Say, run_talk
from appliance.methods.programs.running import Leash
from appliance.running_time import running_timeout

LAST_OUTPUT_S = 0.25
"""How long what a program said before it was killed may take to be read."""
TAIL_BYTES = 8_192
"""How much of each stream's end is kept beside what is passed on."""
_USUAL_NAMES = frozenset(
    "PATH HOME LANG LANGUAGE TZ TZDIR TMPDIR USER LOGNAME SHELL TERM".split()  # noqa: SIM905 - reads as a list
)
_USUAL_PREFIX = "LC_"
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
    stderr_tail: bytes = b""
    ends_line: bool = True
    """Whether standard output stopped behind a whole line; only told of output that was passed on."""
    start_error: str | None = None
    is_held: bool = False
    """Whether something that it left behind still held its output, and was ended with what it had not said yet."""
    signal: int | None = None


def usual_environment(
    base: Mapping[str, str], *, passed: Sequence[str] = (), hidden: Set[str] = frozenset()
) -> dict[str, str]:
    """What a program needs of the daemon's environment, and what somebody hands on.

    A list of what may pass and not of what may not: no name tells of every variable that it holds a secret
    (``DATABASE_URL``, ``HTTPS_PROXY``).

    Args:
        passed: names that are handed on beside the usual ones.
        hidden: names that the config takes secrets of its own from; they pass never.
    """
    withheld = hidden | _SERVICE_NAMES
    return {
        name: value
        for name, value in base.items()
        if (name in _USUAL_NAMES or name.startswith(_USUAL_PREFIX) or name in passed)
        and name not in withheld
    }


def make_environment(
    base: Mapping[str, str],
    message: Message,
    *,
    passed: Sequence[str] = (),
    hidden: Set[str] = frozenset(),
) -> dict[str, str]:
    """`usual_environment`, with what the config hands on (`pass_environment`), and the message's origin."""
    environment = usual_environment(base, passed=passed, hidden=hidden)
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
    stop_grace_s: float = STOP_GRACE_S,
    launch: Launch = AS_WE_ARE,
    leash: Leash | None = None,
) -> CommandResult:
    """Run `argv` without a shell and wait for its end.

    `stdin` is what it can read; a program that does not read it is no trouble.

    `max_output_bytes` bounds stdout and stderr each; what exceeds it is read and thrown away, so
    that a program is not ended for talking too much.

    By `leash` it can be told to end; its status is then its own.

    A program whose time is over is asked to end (SIGTERM to its group) and killed after `stop_grace_s`.

    Cancellation: likewise, and reaped before this returns (within the grace and `KILL_WAIT_S`).
    """
    try:
        child = Child(
            argv,
            environment,
            lambda loop, pipe_fd, _: KeptPipe(loop, pipe_fd, max_output_bytes),
            stdin,
            stop_grace_s,
            launch,
        )
    except OSError as error:
        return _not_started(argv, error)
    timed_out = is_held = is_told = False
    try:
        try:
            async with running_timeout(timeout_s):
                if leash is None:
                    await child.exited.wait()
                else:
                    leash.pid = child.pid
                    is_told = not await leash.holds_until(child.exited)
                is_held = not is_told and not await child.hear_out()
        except TimeoutError:
            timed_out = not child.exited.is_set()
            is_held = not timed_out
        if timed_out or is_held or is_told:
            # what is said until all of it has ended is still heard
            await child.stop()
            await child.wait_for_outputs(LAST_OUTPUT_S)
    finally:
        await child.end()
    return CommandResult(
        exit_status=124 if timed_out else child.exit_status,
        stdout=child.stdout.text(),
        stderr=child.stderr.text(),
        timed_out=timed_out,
        truncated=child.stdout.is_cut or child.stderr.is_cut,
        is_held=is_held,
        signal=child.signal,
    )


async def stream_command(
    argv: Sequence[bytes],
    *,
    environment: Mapping[str, str],
    timeout_s: float,
    say: Say,
    stop_grace_s: float = STOP_GRACE_S,
    stdin: bytes = b"",
    launch: Launch = AS_WE_ARE,
    leash: Leash | None = None,
) -> CommandResult:
    """Run `argv` without a shell and `say` what it writes while it runs; a listener who is behind slows it down.

    The result holds what could not be said any more: the listener was away until the time was over. `stderr_tail` is
    the end of everything the program wrote there.

    Cancellation: as with `run_command`. What `say` raises ends the program and is raised here.
    """
    talk = Chunker()
    try:
        child = Child(
            argv,
            environment,
            lambda loop, pipe_fd, stream: TalkingPipe(loop, pipe_fd, talk, stream, TAIL_BYTES),
            stdin,
            stop_grace_s,
            launch,
        )
    except OSError as error:
        return _not_started(argv, error)
    speech = _Speech(child)
    if leash is not None:
        leash.pid = child.pid
    try:
        is_stopped = await run_talk(
            talk,
            speech.hear_out(),
            say,
            timeout_s=timeout_s,
            stop=speech.stop,
            stop_grace_s=stop_grace_s,
            leaving=None if leash is None else leash.asked,
        )
        has_more = not (child.stdout.ended.is_set() and child.stderr.ended.is_set())
    finally:
        await speech.end()
    rest = talk.rest()
    is_told = leash is not None and leash.asked.is_set()
    timed_out = is_stopped and speech.was_running and not is_told
    return CommandResult(
        exit_status=124 if timed_out else child.exit_status,
        stdout=rest.get("stdout", b""),
        stderr=rest.get("stderr", b""),
        stderr_tail=bytes(child.stderr.tail),
        ends_line=not child.stdout.tail or child.stdout.tail.endswith(b"\n"),
        timed_out=timed_out,
        truncated=has_more,
        is_held=speech.is_held or (is_stopped and not timed_out and not is_told),
        signal=child.signal,
    )


class _Speech:
    """What a program says while it runs, until it has ended or is stopped."""

    def __init__(self, child: Child[TalkingPipe]) -> None:
        self.is_held = False
        self.was_running = False
        """Whether it was the program itself that was stopped."""
        self._child = child
        self._stopping: asyncio.Task[None] | None = None

    async def hear_out(self) -> None:
        """Until the program has ended and all it said is heard."""
        child = self._child
        await child.exited.wait()
        if not await child.hear_out():
            # held by a descendant, or not read yet: what is in the pipes counts, what comes later does not
            self.is_held = child.stdout.is_held or child.stderr.is_held
            child.ask_to_end()
            child.kill_group()
            child.stdout.finish()
            child.stderr.finish()
            await child.stdout.ended.wait()
            await child.stderr.ended.wait()

    def stop(self) -> None:
        """Have the program end, at last by force."""
        if self._stopping is None:
            self.was_running = not self._child.exited.is_set()
            self._stopping = asyncio.create_task(self._child.stop(), name="stop program")

    async def end(self) -> None:
        """Let go of the program; nothing of it is left."""
        if self._stopping is not None:
            self._stopping.cancel()
            # cancelled it kills at once
            await asyncio.wait({self._stopping})
        await self._child.end()


def _not_started(argv: Sequence[bytes], error: OSError) -> CommandResult:
    reason = error.strerror or str(error)
    return CommandResult(
        exit_status=127 if isinstance(error, FileNotFoundError) else 126,
        # as a shell says it: whoever waits for the answer sees nothing else
        stderr=b"%s: %s\n" % (argv[0][:200], reason.encode()),
        start_error=reason,
    )
