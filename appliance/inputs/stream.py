"""The unix socket and the TCP listener: bounded connections, each answered, none of them our end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from appliance.api.port import Port, close_server
from appliance.api.unix_socket import listen_unix
from appliance.core.current import Current
from appliance.core.specs import InputSettings
from appliance.inputs.connection import ReadToken, Refused, TextReader, send_answer
from appliance.inputs.importer import Answer, Importer, Outcome, refuse

_log = logging.getLogger(__name__)

STOP_GRACE_S = 2.0
_BUFFER_BYTES = 65_536


class StreamConnections:
    """Serves connections, at most so many at a time."""

    def __init__(
        self,
        source: str,
        importer: Importer,
        settings: Current[InputSettings],
        read_token: ReadToken | None,
    ) -> None:
        self._source = source
        self._importer = importer
        self._settings = settings
        self._read_token = read_token
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """Connections open now."""
        return len(self._tasks)

    def make_protocol(self) -> asyncio.BaseProtocol:
        """For the listener: one connection."""
        reader = asyncio.StreamReader(limit=_BUFFER_BYTES)
        return asyncio.StreamReaderProtocol(reader, self._connected)

    async def stop(self) -> None:
        """Let those that are there end, for a moment."""
        if not self._tasks:
            return
        await asyncio.wait(self._tasks, timeout=STOP_GRACE_S)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_crowded = len(self._tasks) >= self._settings.value.max_connections
        if is_crowded and len(self._tasks) >= 2 * self._settings.value.max_connections:
            writer.transport.abort()  # not even an answer: those take a connection too
            return
        task = asyncio.get_running_loop().create_task(
            self._serve(reader, writer, is_crowded=is_crowded), name=f"input {self._source}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_crowded: bool
    ) -> None:
        try:
            if is_crowded:
                answer = refuse(Outcome.BUSY, "too many connections; try again later")
                self._importer.count_refused(self._source)
            else:
                answer = await self._take(reader)
            await send_answer(reader, writer, answer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        except Exception:  # noqa: BLE001 - the boundary around a connection
            _log.exception("input connection failed")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _take(self, reader: asyncio.StreamReader) -> Answer:
        text = TextReader(reader, self._settings.value, self._read_token)
        try:
            raw = await text.read()
        except Refused as refused:
            self._importer.count_refused(self._source)
            return refused.answer
        return await self._importer.inject(self._source, raw)


class SocketListener:
    """The unix socket, removed at the end unless a successor stands there."""

    def __init__(self, path: Path, connections: StreamConnections) -> None:
        self.path = path
        self._connections = connections
        self._server: asyncio.Server | None = None
        self._inode = 0

    @property
    def connections(self) -> int:
        """Connections open now."""
        return self._connections.count

    async def start(self, mode: int) -> None:
        """Listen.

        Raises:
            DaemonError: the socket cannot be made.
        """
        listener = await asyncio.to_thread(listen_unix, self.path, mode)
        try:
            self._inode = os.stat(self.path).st_ino
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(
                self._connections.make_protocol, sock=listener
            )
        except BaseException:
            listener.close()
            raise

    def set_mode(self, mode: int) -> None:
        """Change the rights in place."""
        os.chmod(self.path, mode)

    async def stop(self) -> None:
        """The end, for connections too."""
        server, self._server = self._server, None
        if server is not None:
            await close_server(server)
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        await self._connections.stop()


class TcpListener:
    """The TCP listener."""

    def __init__(self, host: str, port: int, connections: StreamConnections) -> None:
        self.port = Port(connections.make_protocol, host, port)
        self._connections = connections

    @property
    def connections(self) -> int:
        """Connections open now."""
        return self._connections.count

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be taken."""
        await self.port.resume()

    async def stop(self) -> None:
        """The end, for connections too."""
        await self.port.pause()
        await self._connections.stop()
