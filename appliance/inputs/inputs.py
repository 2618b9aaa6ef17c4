"""All inputs together: opened, changed while they run, closed.

A change is made in two steps. `stage` opens everything new beside what runs; when that worked, and
whatever else the config set asks for worked too, `Staged.commit` lets the old go. Until then
`Staged.abandon` leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.api import model
from appliance.api.port import Port, cannot_listen, split_listen
from appliance.api.submission import Submission
from appliance.bus.auth import read_secret
from appliance.core.current import Current
from appliance.core.specs import DesiredState, FolderInput, InputSettings, ListenInput, SocketInput
from appliance.errors import ApplianceError, DaemonError
from appliance.inputs.folder import Folder, OnTrouble
from appliance.inputs.http import HttpListener
from appliance.inputs.importer import Importer
from appliance.inputs.stream import ReadToken, SocketListener, StreamConnections, TcpListener

NAMES = ("socket", "tcp", "http", "folder")
RESULTS = ("accepted", "refused")

Section = SocketInput | ListenInput | FolderInput


class Running(Protocol):
    """One open input."""

    async def stop(self) -> None:
        """The end."""
        ...


@dataclass(slots=True)
class Open:
    """An input with the section it follows; the token of a listener is read from there."""

    section: Section
    running: SocketListener | TcpListener | HttpListener | Folder


class Inputs:
    """Owns every input of the daemon."""

    def __init__(
        self,
        submission: Submission,
        state_dir: Path,
        *,
        store: str,
        now: Callable[[], float],
        desired: Current[DesiredState],
        on_trouble: OnTrouble,
    ) -> None:
        self.settings = Current(InputSettings())
        self.importer = Importer(submission, self.settings)
        self._state_dir = state_dir
        self._store = store
        self._now = now
        """Seconds that nobody can set and that go on over restarts."""
        self._desired = desired
        self._on_trouble = on_trouble
        self.open: dict[str, Open] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def start_taking(self) -> None:
        """Messages can be accepted from now on; before, every text is put off."""
        self.importer.opened.set()

    async def stage(self, new: InputSettings) -> Staged:
        """Open what `new` asks for and is not there, beside what runs.

        Raises:
            DaemonError: something cannot be opened; everything is as it was.
        """
        staged = Staged(self, new)
        try:
            for name in NAMES:
                await staged.open(name)
        except BaseException:
            await staged.abandon()
            raise
        return staged

    async def close(self) -> None:
        """Take nothing more; what is in hand gets a moment to end."""
        self.importer.opened.clear()
        closing, self.open = list(self.open.values()), {}
        for opened in closing:
            self.end(opened.running)
        if self._ending:
            await asyncio.wait(self._ending)

    def leaving_ports(self, new: InputSettings) -> list[Port]:
        """Ports of ours that the new settings give up."""
        leaving = []
        for name, opened in self.open.items():
            section: Section | None = getattr(new, name)
            stays = section is not None and _address(section) == _address(opened.section)
            if not stays and isinstance(opened.running, TcpListener | HttpListener):
                leaving.append(opened.running.port)
        return leaving

    def end(self, running: Running) -> None:
        """Stop an input without waiting for its connections."""
        task = asyncio.get_running_loop().create_task(running.stop(), name="input ending")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def status(self) -> dict[str, model.Input]:
        """What is open, for the status JSON."""
        return {name: self._describe(name, opened) for name, opened in self.open.items()}

    def totals(self) -> dict[tuple[str, str], int]:
        """Messages by input and result."""
        counts = self.importer.counts
        return {(name, result): counts[name, result] for name in NAMES for result in RESULTS}

    def _describe(self, name: str, opened: Open) -> model.Input:
        running, counts = opened.running, self.importer.counts
        described = model.Input(accepted=counts[name, "accepted"], refused=counts[name, "refused"])
        if isinstance(running, SocketListener):
            described.path = str(running.path)
        elif isinstance(running, Folder):
            described.path, described.waiting = running.section.path, running.waiting
            described.error = running.error
        else:
            address = running.port.address
            host = f"[{address[0]}]" if address and ":" in address[0] else address and address[0]
            described.listen = f"{host}:{address[1]}" if address else None
        if not isinstance(running, Folder):
            described.connections = running.connections
        return described

    # -- opening ----------------------------------------------------------------------------------

    async def make_socket(self, section: SocketInput) -> SocketListener:
        """Raises DaemonError."""
        path = self._state_dir / section.path
        listener = SocketListener(path, self._connections("socket", None))
        await listener.start(int(section.mode, 8))
        return listener

    def make_tcp(self, section: ListenInput, token: ReadToken) -> TcpListener:
        """Not listening yet."""
        host, port = split_listen(section.listen)
        return TcpListener(host, port, self._connections("tcp", token))

    def make_http(self, section: ListenInput, token: ReadToken) -> HttpListener:
        """Not listening yet."""
        host, port = split_listen(section.listen)
        return HttpListener(host, port, self.importer, self.settings, token)

    async def make_folder(self, section: FolderInput) -> Folder:
        """Raises DaemonError."""
        folder = Folder(
            section,
            self._store,
            self.importer,
            self.settings,
            now=self._now,
            desired=self._desired,
            on_trouble=self._on_trouble,
        )
        await folder.prepare()
        return folder

    def _connections(self, source: str, token: ReadToken | None) -> StreamConnections:
        return StreamConnections(source, self.importer, self.settings, token)


class Staged:
    """New inputs that are open, and old ones that wait for the word."""

    def __init__(self, inputs: Inputs, new: InputSettings) -> None:
        self._inputs = inputs
        self._new = new
        self._opened: dict[str, Open] = {}
        self._kept: list[str] = []
        self._paused: list[Port] = []
        self._old_mode: int | None = None

    async def open(self, name: str) -> None:
        """Open one input, unless it is off or stays where it is.

        Raises:
            DaemonError: it cannot be opened.
        """
        section: Section | None = getattr(self._new, name)
        if section is None:
            return
        # read once, so that a token that cannot be had refuses the set and not each client
        if isinstance(section, ListenInput) and section.token is not None:
            await _read_token(section)
        current = self._inputs.open.get(name)
        # the same address cannot be opened beside itself: it is kept, and changed at the commit
        if current is not None and _address(current.section) == _address(section):
            self._kept.append(name)
            await self._keep(current, section)
            return
        if isinstance(section, SocketInput):
            self._opened[name] = Open(section, await self._inputs.make_socket(section))
        elif isinstance(section, FolderInput):
            self._opened[name] = Open(section, await self._inputs.make_folder(section))
        else:
            await self._listen(name, section)

    async def commit(self) -> None:
        """The new settings hold; what they do not name ends."""
        inputs = self._inputs
        for name in NAMES:
            current = inputs.open.get(name)
            if current is not None and name not in self._kept:
                inputs.end(current.running)
                del inputs.open[name]
        for name in self._kept:
            opened = inputs.open[name]
            opened.section = getattr(self._new, name)
            if isinstance(opened.running, Folder) and isinstance(opened.section, FolderInput):
                opened.running.section = opened.section
        inputs.open |= self._opened
        inputs.settings.put(self._new)
        for opened in self._opened.values():
            if isinstance(opened.running, Folder):
                opened.running.begin()

    async def abandon(self) -> None:
        """Everything as it was.

        Raises:
            DaemonError: an old listener could not be taken again.
        """
        for opened in self._opened.values():
            await opened.running.stop()
        current = self._inputs.open.get("socket")
        if self._old_mode is not None and current is not None:
            _set_mode(current, self._old_mode)
        for port in self._paused:
            try:
                await port.resume()
            except OSError as error:
                raise cannot_listen(f"port {port.number}", error) from error

    async def _keep(self, current: Open, section: Section) -> None:
        """What changes in place: the rights of the socket. Raises DaemonError."""
        if not isinstance(section, SocketInput) or not isinstance(current.section, SocketInput):
            return
        if section.mode != current.section.mode:
            self._old_mode = int(current.section.mode, 8)
            try:
                _set_mode(current, int(section.mode, 8))
            except OSError as error:
                raise DaemonError(f"{section.path}: {error.strerror}") from error

    async def _listen(self, name: str, section: ListenInput) -> None:
        opened: Open

        async def read_token() -> str | None:
            assert isinstance(opened.section, ListenInput)
            return await _read_token(opened.section)

        make = self._inputs.make_tcp if name == "tcp" else self._inputs.make_http
        listener: TcpListener | HttpListener = make(section, read_token)
        opened = Open(section, listener)
        try:
            await self._listen_or_take_over(section.listen, listener)
        except BaseException:
            await listener.stop()
            raise
        self._opened[name] = opened

    async def _listen_or_take_over(self, listen: str, new: TcpListener | HttpListener) -> None:
        """Listen; where only old listeners of ours that are to go are in the way, they go first."""
        try:
            await new.start()
            return
        except OSError as error:
            number = new.port.number
            leaving = self._inputs.leaving_ports(self._new)
            in_the_way = [old for old in leaving if old.number == number]
            if error.errno != errno.EADDRINUSE or not in_the_way:
                raise cannot_listen(listen, error) from error
        for old in in_the_way:
            # it keeps its connections; if the new one fails after all it listens again
            await old.pause()
            self._paused.append(old)
        try:
            await new.start()
        except OSError as error:
            raise cannot_listen(listen, error) from error


def _address(section: Section) -> str:
    """What an input cannot change in place."""
    return section.listen if isinstance(section, ListenInput) else section.path


def _set_mode(opened: Open, mode: int) -> None:
    if isinstance(opened.running, SocketListener):
        with contextlib.suppress(FileNotFoundError):
            opened.running.set_mode(mode)


async def _read_token(section: ListenInput) -> str | None:
    """The token of this moment: a file that was changed holds from the next connection on."""
    if section.token is None:
        return None
    try:
        return await asyncio.to_thread(read_secret, section.token, "the token of the input")
    except ApplianceError as error:
        raise DaemonError(str(error)) from error
