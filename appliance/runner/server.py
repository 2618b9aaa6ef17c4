"""The runner: runs commands for a daemon that has not the rights to run them itself.

It talks to nobody but who connects to its socket, and of those only to the users it was told, as the kernel names
them (SO_PEERCRED). What may run stands in a file that only root (or its own user, where that is another) can write,
read again for every command. Everything is bounded: the request's size and the time it may take to come, how many
commands run at once, how long one may run, what is kept of its output. When the other side goes, the command goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import struct
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.api.unix_socket import listen_unix
from appliance.core.allow import is_command_allowed
from appliance.core.message import bytes_to_text
from appliance.errors import ApplianceError, DaemonError, HandlerError, PathForbidden
from appliance.methods.files.paths import open_directory
from appliance.methods.programs.account import find_account
from appliance.methods.programs.child import AS_WE_ARE, Launch
from appliance.methods.programs.command import CommandResult, run_command, stream_command
from appliance.methods.programs.runner_client import (
    MAX_REQUEST_BYTES,
    MESSAGE_VARIABLES,
    Ended,
    Refused,
    RunRequest,
    RunWithRequest,
    Said,
    read_frame,
    read_request,
    to_frame,
)
from appliance.runner.allow import RunnerRules, parse_rules
from appliance.service_manager import ServiceManager, settings_of_process

_log = logging.getLogger("appliance.runner")

REQUEST_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
"""How long the last word of a command may wait for somebody who does not read it."""
MAX_ASKING = 16
"""How many may be about to ask, beside those whose commands run."""
TURNED_AWAY_S = 1.0
MAX_SHOWN_CHARACTERS = 200
MAX_TIMEOUT_S = 7 * 86_400.0
MAX_STOP_GRACE_S = 600.0
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""As `max_output_bytes` of a subscription."""
FIRST_PASSED_FD = 3
"""Where the service manager puts the sockets it hands over, see sd_listen_fds(3)."""
_PEER = struct.Struct("3I")
_SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class AllowListUnusable(ApplianceError):
    """The allow list cannot be read, or somebody else could write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """What the command line says. `socket_path` None: the service manager hands the socket over."""

    allow_path: Path
    user_ids: frozenset[int]
    socket_path: Path | None = None
    max_commands: int = 16


MAX_ALLOW_CHARACTERS = 1024 * 1024


def read_allow_list(path: Path) -> RunnerRules:
    """The rules of the file.

    Raises:
        AllowListUnusable: see there.
    """
    try:
        # NB: no line ends but newlines, so that none is hidden in what looks like one line
        with open(path, encoding="utf-8", newline="") as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid not in (0, os.geteuid()):
                raise AllowListUnusable(f"{path} belongs to another user")
            if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise AllowListUnusable(f"{path} can be written by others than its owner")
            text = file.read(MAX_ALLOW_CHARACTERS + 1)
        if len(text) > MAX_ALLOW_CHARACTERS:
            raise AllowListUnusable(f"{path} is longer than {MAX_ALLOW_CHARACTERS} characters")
        return parse_rules(text)
    except OSError as error:
        raise AllowListUnusable(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise AllowListUnusable(f"{path}: {error}") from error


def take_listener(
    settings: RunnerSettings, environ: MutableMapping[str, str], pid: int
) -> socket.socket:
    """The socket to answer on: the service manager's, or one made at `socket_path`.

    Raises:
        DaemonError: there is none.
    """
    count = environ.pop("LISTEN_FDS", "")
    is_for_us = environ.pop("LISTEN_PID", "") == str(pid)
    environ.pop("LISTEN_FDNAMES", None)
    if settings.socket_path is not None:
        return listen_unix(settings.socket_path)
    if not (is_for_us and count == "1"):
        raise DaemonError("no socket: none was handed over, and --socket names none")
    listener = socket.socket(fileno=FIRST_PASSED_FD)
    listener.setblocking(False)
    return listener


class Runner:
    """Answers on one socket until it is stopped. What runs then is killed."""

    def __init__(self, settings: RunnerSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._base = {name: environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in environ}
        self._base["PATH"] = _SAFE_PATH
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT. Raises AllowListUnusable when it cannot even begin."""
        read_allow_list(self._settings.allow_path)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        manager = ServiceManager(
            settings_of_process(),
            summary=lambda: f"{self._running} commands running",
            is_alive=lambda: True,
        )
        manager.start()
        server = await asyncio.start_unix_server(self._take, sock=listener)
        try:
            manager.ready()
            await stop.wait()
            manager.stopping()
        finally:
            server.close()
            tasks = set(self._tasks)
            for task in tasks:
                # what runs is killed with its group, rather than left without anybody who reads it
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await manager.close()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._settings.max_commands + MAX_ASKING:
            _turn_away(writer, f"{len(self._tasks)} ask already")
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="command")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one command."""
        is_turned_away = False
        try:
            # before a byte is read: who may not ask must not make us parse anything
            user_id = _peer_user(writer)
            if user_id not in self._settings.user_ids:
                _log.warning("turned away", extra={"fields": {"user_id": user_id}})
                _turn_away(writer, f"user {user_id} may not ask here")
                is_turned_away = True
                return
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                request = read_request(await read_frame(reader, MAX_REQUEST_BYTES))
            await self._answer(request, reader, writer)
        except (EOFError, OSError, TimeoutError):
            pass  # gone, or never said what it wanted
        except ValueError as error:
            _turn_away(writer, f"no request: {error}")
            is_turned_away = True
        finally:
            if not is_turned_away:
                writer.close()

    async def _answer(
        self, request: RunRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        words = [bytes_to_text(word) for word in request.argv]
        # arguments may be secrets, of the node's config, too, and nothing here knows which: the message tells them
        program = words[0][:MAX_SHOWN_CHARACTERS] if words else ""
        shown = {"program": program, "arguments": len(words) - 1, **_origin(request)}
        with self._seat() as is_free:
            if is_free:
                # the file is read anew for each command, and may lie on a disk that is slow
                rules = await asyncio.to_thread(self._find_rules, words, request)
            else:
                rules = Refused("failed", f"{self._running} commands run already")
            if isinstance(rules, RunnerRules):
                await self._run_while_asked(request, rules, shown, reader, writer)
                return
            refusal = rules
        _log.warning("command refused", extra={"fields": {**shown, "reason": refusal.reason}})
        await _send(writer, refusal)

    @contextlib.contextmanager
    def _seat(self) -> Iterator[bool]:
        """One of the places for commands, if there is one; taken before anything is waited for."""
        if self._running >= self._settings.max_commands:
            yield False
            return
        self._running += 1
        try:
            yield True
        finally:
            self._running -= 1

    def _find_rules(self, words: Sequence[str], request: RunRequest) -> RunnerRules | Refused:
        """The rules, as far as they let this be run; where it is run is looked at when it is."""
        # the kernel would end the word there, and the list would have judged another one
        if any("\0" in word for word in words):
            return Refused("failed", "no command")
        try:
            rules = read_allow_list(self._settings.allow_path)
        except AllowListUnusable as error:
            return Refused("failed", str(error))
        if not is_command_allowed(words, rules.commands):
            return Refused("forbidden", "it is not in the runner's allow list")
        if isinstance(request, RunWithRequest):
            if request.user and request.user not in rules.users:
                return Refused(
                    "forbidden", f"no line `@user {request.user[:60]}` in its allow list"
                )
            for name in request.variables:
                if name not in rules.variables:
                    return Refused(
                        "forbidden", f"no line `@variable {name[:60]}` in its allow list"
                    )
        return rules

    async def _run_while_asked(
        self,
        request: RunRequest,
        rules: RunnerRules,
        shown: dict[str, object],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        running = asyncio.create_task(self._run_with(request, rules, writer), name="program")
        leaving = asyncio.create_task(_until_gone(reader), name="leaving")
        try:
            await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                result = running.result()
                if isinstance(result, Refused):
                    _log.warning(
                        "command refused", extra={"fields": {**shown, "reason": result.reason}}
                    )
                    await _send(writer, result)
                    return
                _log.info(
                    "command ended", extra={"fields": {**shown, "exit_status": result.exit_status}}
                )
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await _send(writer, Ended(**asdict(result)))
            else:
                _log.info("command given up by the one who asked", extra={"fields": shown})
        finally:
            running.cancel()
            leaving.cancel()
            await asyncio.wait({running, leaving})

    async def _run_with(
        self, request: RunRequest, rules: RunnerRules, writer: asyncio.StreamWriter
    ) -> CommandResult | Refused:
        if not isinstance(request, RunWithRequest):
            return await self._run(request, writer, AS_WE_ARE, {})
        directory_fd = None
        try:
            account = find_account(request.user) if request.user else None
            if request.directory:
                path = bytes_to_text(request.directory)
                patterns = rules.directories
                directory_fd = await asyncio.to_thread(
                    open_directory, path, patterns, "the lines `@directory` of its allow list"
                )
            given = {name: bytes_to_text(raw) for name, raw in request.variables.items()}
            variables = {**({} if account is None else account.variables), **given}
            return await self._run(request, writer, Launch(account, directory_fd), variables)
        except PathForbidden as error:
            return Refused("forbidden", str(error))
        except HandlerError as error:
            return Refused("failed", str(error))
        finally:
            if directory_fd is not None:
                os.close(directory_fd)

    async def _run(
        self,
        request: RunRequest,
        writer: asyncio.StreamWriter,
        launch: Launch,
        variables: Mapping[str, str],
    ) -> CommandResult:
        environment = {
            **self._base,
            **variables,
            # nothing else that was asked for: who can set LD_PRELOAD needs no allow list
            **{
                name: _to_text(request.environment[name])
                for name in MESSAGE_VARIABLES
                if name in request.environment
            },
        }
        # bounds of our own: whoever has taken over the daemon would ask for more
        timeout_s = min(request.timeout_s, MAX_TIMEOUT_S)
        stop_grace_s = min(request.stop_grace_s, MAX_STOP_GRACE_S)
        if request.max_output_bytes is None:

            async def say(data: bytes, stream: str) -> None:
                await _send(writer, Said(stream, data))

            return await stream_command(
                request.argv,
                environment=environment,
                timeout_s=timeout_s,
                say=say,
                stop_grace_s=stop_grace_s,
                stdin=request.stdin,
                launch=launch,
            )
        limit_bytes = min(request.max_output_bytes, MAX_OUTPUT_BYTES)
        return await run_command(
            request.argv,
            environment=environment,
            timeout_s=timeout_s,
            max_output_bytes=limit_bytes,
            stdin=request.stdin,
            stop_grace_s=stop_grace_s,
            launch=launch,
        )


def _to_text(value: str | bytes) -> str:
    return bytes_to_text(value) if isinstance(value, bytes) else value


def _origin(request: RunRequest) -> dict[str, str]:
    return {
        "from": _to_text(request.environment.get("APPLIANCE_FROM_NODE", "")),
        "message_id": _to_text(request.environment.get("APPLIANCE_MESSAGE_ID", "")),
    }


def _peer_user(writer: asyncio.StreamWriter) -> int:
    """The user of the process at the other end, as the kernel knows it."""
    connection = writer.get_extra_info("socket")
    facts = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(facts)[1])


def _turn_away(writer: asyncio.StreamWriter, reason: str) -> None:
    """Say no, without a place for who waits to hear it. The line stays open for a moment: what the other side is still
    writing would break it before it has read why.
    """
    with contextlib.suppress(OSError, RuntimeError):
        writer.write(to_frame(Refused("failed", reason)))
        writer.write_eof()
    asyncio.get_running_loop().call_later(TURNED_AWAY_S, writer.close)


async def _send(writer: asyncio.StreamWriter, answer: Said | Ended | Refused) -> None:
    writer.write(to_frame(answer))
    await writer.drain()


async def _until_gone(reader: asyncio.StreamReader) -> None:
    """Until the other side closes; it has nothing more to say, so anything else is the end as well."""
    with contextlib.suppress(OSError):
        await reader.read(1)


def run_runner(settings: RunnerSettings) -> None:
    """Run it until told to stop.

    Raises:
        AllowListUnusable: the allow list must be mended first.
        DaemonError: there is no socket to answer on.
    """
    listener = take_listener(settings, os.environ, os.getpid())
    asyncio.run(Runner(settings, dict(os.environ)).run(listener))
