"""One process that computes, as the daemon has it: started, asked, killed, reaped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping

from appliance.methods.computing.frames import HEAD, MAX_OUTCOME_BYTES, READY, Greeting
from appliance.methods.programs.command import usual_environment

START_TIMEOUT_S = 60.0
"""A machine that swaps takes long to load a program."""
END_TIMEOUT_S = 2.0
"""How long who was told to end may take, and who was killed to vanish."""
_PYTHON_NAMES = ("PYTHONPATH", "PYTHONHOME")


class ProcessEnded(Exception):
    """A process ended before it answered; the text says how, as in ``was killed by signal 9``."""


class HandlerProcess:
    """Life: `start` -> `ask`, one after the other -> `end`; `kill` at any time."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        alarm_fd: int,
    ) -> None:
        self._popen = popen
        self._reader = reader
        self._writer = writer
        self._alarm_fd = alarm_fd
        self._fault = ""
        """What we killed it for, where its end would not tell."""
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._watch()

    @classmethod
    async def start(
        cls, environ: Mapping[str, str], hidden: frozenset[str], greet: Callable[[], Greeting]
    ) -> HandlerProcess:
        """Returns when it takes orders. It gets an environment of its own, nothing of our memory and no descriptor of ours.

        Raises:
            OSError: it cannot be started.
            ProcessEnded: it ended, or did not come up in time.
        """
        here, there = socket.socketpair()
        alarm_out, alarm_in = os.pipe()
        environment = usual_environment(environ, passed=_PYTHON_NAMES, hidden=hidden)
        command = (
            # NB: as isolated as the daemon: what lies in a home or is said in the environment is no part of the program
            *(sys.executable, "-I" if sys.flags.isolated else "-P"),
            *("-m", "appliance.methods.computing.child"),
            *(str(there.fileno()), str(alarm_out)),
        )
        try:
            popen = subprocess.Popen(  # noqa: ASYNC220 - a millisecond, as with any program
                command,
                stdin=subprocess.DEVNULL,
                # what a library prints is for the journal; nobody reads it as an answer
                stdout=2,
                env=environment,
                pass_fds=(there.fileno(), alarm_out),
                # a signal from the terminal is the daemon's
                start_new_session=True,
            )
        except BaseException:
            here.close()
            os.close(alarm_in)
            raise
        finally:
            there.close()
            os.close(alarm_out)
        here.setblocking(False)
        try:
            reader, writer = await asyncio.open_connection(sock=here)
        except BaseException:
            here.close()
            os.close(alarm_in)  # which kills it
            popen.kill()
            popen.wait()
            raise
        process = cls(popen, reader, writer, alarm_in)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                said = await process.ask(greet().encode())
        except TimeoutError:
            await process.end()
            raise ProcessEnded(f"did not come up within {START_TIMEOUT_S:.0f} s") from None
        except BaseException:
            await process.end()
            raise
        if said != READY:
            await process.end()
            raise ProcessEnded("began with other words than it should")
        return process

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    async def ask(self, order: bytes) -> bytes:
        """The outcome of one order, as it came.

        Raises:
            ProcessEnded: it ended before, or answered what it must not, and was killed for that.

        Cancellation: the process goes on with it; who does not want that kills it.
        """
        try:
            self._writer.write(HEAD.pack(len(order)))
            self._writer.write(order)
            await self._writer.drain()
            (size,) = HEAD.unpack(await self._reader.readexactly(HEAD.size))
            if size > MAX_OUTCOME_BYTES:
                self._fault = f"answered with more than {MAX_OUTCOME_BYTES} bytes"
                self.kill()
            else:
                return await self._reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError):
            # it ends, and how it does is to be heard; unless it has closed the line and lives on
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_TIMEOUT_S):
                    await self.ended.wait()
            self.kill()
        await self.ended.wait()
        raise ProcessEnded(self.describe_end())

    def kill(self) -> None:
        """End it now, whatever it does."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Have it end, and reap it. It has nothing in hand that anybody waits for."""
        self._writer.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self.ended.wait()
        except TimeoutError:
            self.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_TIMEOUT_S):
                    await self.ended.wait()
        finally:
            self.kill()
            # closed last: it is what kills a process that nobody can reach any more
            if self._alarm_fd >= 0:
                os.close(self._alarm_fd)
                self._alarm_fd = -1

    def describe_end(self) -> str:
        """How it ended, in words."""
        if self._fault:
            return self._fault
        status = self._popen.returncode
        if status is None:
            return "does not answer"
        return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"

    def _watch(self) -> None:
        def on_exit() -> None:
            # what it started and left, before it is reaped: until then nobody else can have its number
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.poll()
            self.ended.set()

        def on_readable(pid_fd: int) -> None:
            self._loop.remove_reader(pid_fd)
            os.close(pid_fd)
            on_exit()

        def wait() -> None:
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
            with contextlib.suppress(RuntimeError):  # the loop is gone, and whoever waited with it
                self._loop.call_soon_threadsafe(on_exit)

        try:
            found = os.pidfd_open(self._popen.pid)
        except (AttributeError, OSError):  # no pidfd in this kernel or sandbox: a thread waits
            threading.Thread(target=wait, name="handler process", daemon=True).start()
        else:
            self._loop.add_reader(found, on_readable, found)
