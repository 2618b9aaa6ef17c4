"""The unix socket and the TCP listener: bounded connections, each answered, none of them our end.

On each: bytes in until the text ends, one line of JSON out. The text ends when the client closes its sending half
(`nc -N`), or when a JSON list is closed and nothing follows for a moment. Any other silence is no end: half a list may look
whole in YAML.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from appliance.api.clients import find_address
from appliance.api.guards import is_bearer_of
from appliance.api.limits import Logins, say_too_many
from appliance.api.port import Port, close_server
from appliance.api.unix_socket import listen_unix
from appliance.core.current import Current
from appliance.core.durations import format_duration
from appliance.core.specs import InputSettings
from appliance.errors import ApplianceError
from appliance.inputs.importer import Answer, Importer, Outcome, refuse
from appliance.inputs.json_end import JsonEnd

_log = logging.getLogger(__name__)

STOP_GRACE_S = 2.0
QUIET_S = 0.2
"""Silence after which a closed JSON list is taken."""
LINGER_S = 1.0
"""Time a client has to read its answer while bytes of it are still on the way to us."""
MAX_FIRST_LINE_BYTES = 8_192
_BUFFER_BYTES = _CHUNK_BYTES = 65_536
_HEADER = b"authorization:"
_HTTP = re.compile(rb"[A-Za-z]{3,16} \S{0,2000} HTTP/\d")

ReadToken = Callable[[], Awaitable[str | None]]


class Refused(Exception):
    """The text is not taken; the answer says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.outcome)
        self.answer = answer


class TextReader:
    """Reads one text from a connection. `read_token` is None on the unix socket."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        settings: InputSettings,
        read_token: ReadToken | None,
        wait_s: Callable[[str, bool], float],
    ) -> None:
        """`wait_s` counts a token that was brought, right or wrong: how long before it is looked at."""
        self._wait_s = wait_s
        self._reader = reader
        self._settings = settings
        self._read_token = read_token
        self._buffer = bytearray()
        self.is_at_end = False
        """The client has closed its sending half."""

    async def read(self) -> bytes:
        """The whole text.

        Raises:
            Refused: it is too large, too slow, of a stranger, or no text for us.
        """
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                # before the text: a stranger must not make us read it
                if self._read_token is not None:
                    await self._check_first_line(self._read_token)
                return await self._read_text()
        except TimeoutError:
            limit = format_duration(self._settings.timeout_s)
            raise Refused(
                refuse(Outcome.REFUSED, f"the text did not arrive within {limit}")
            ) from None

    async def _check_first_line(self, read_token: ReadToken) -> None:
        try:
            # asked for each connection, as the file may have changed
            wanted = await read_token()
        except ApplianceError as error:
            raise Refused(refuse(Outcome.BUSY, f"nobody can be let in now: {error}")) from None
        while b"\n" not in self._buffer and len(self._buffer) < MAX_FIRST_LINE_BYTES:
            # where none is needed a token may still be given, and must not be read as part of the text
            if not wanted and not _may_be_header(self._buffer):
                return
            if not await self._receive(self._settings.idle_timeout_s):
                break
        line, _, rest = bytes(self._buffer).partition(b"\n")
        # in words, since a browser that was pointed here would find out nothing else
        if _HTTP.match(line):
            raise Refused(refuse(Outcome.REFUSED, "this input speaks no HTTP"))
        has_header = line[: len(_HEADER)].lower() == _HEADER
        if has_header:
            self._buffer = bytearray(rest)
        if not wanted:
            return
        given = line[len(_HEADER) :].decode("utf-8", "surrogateescape").strip()
        is_right = has_header and is_bearer_of(given, wanted)
        wait_s = self._wait_s(given, is_right) if has_header else 0.0
        if wait_s > 0:
            raise Refused(refuse(Outcome.UNAUTHORIZED, say_too_many(wait_s)))
        if not is_right:
            raise Refused(
                refuse(
                    Outcome.UNAUTHORIZED,
                    "a token is needed: begin with the line `Authorization: Bearer TOKEN`",
                )
            )

    async def _read_text(self) -> bytes:
        settings = self._settings
        end = JsonEnd()
        end.feed(bytes(self._buffer))
        while not self.is_at_end:
            if len(self._buffer) > settings.max_bytes:
                raise Refused(
                    refuse(
                        Outcome.TOO_LARGE,
                        f"the text exceeds {settings.max_bytes} bytes (`inputs.max_bytes`)",
                    )
                )
            # a client that leaves the connection open needs not wait: a text that is whole, and silence, are an end
            wait_s = QUIET_S if end.is_complete else settings.idle_timeout_s
            try:
                end.feed(await self._receive(wait_s))
            except Refused:
                if end.is_complete:
                    break
                raise
        return bytes(self._buffer)

    async def _receive(self, wait_s: float) -> bytes:
        """The next bytes, also in the buffer; nothing at the end.

        Raises:
            Refused: silence.
        """
        try:
            async with asyncio.timeout(wait_s):
                chunk = await self._reader.read(_CHUNK_BYTES)
        except TimeoutError:
            raise Refused(
                refuse(
                    Outcome.REFUSED,
                    f"nothing came for {format_duration(wait_s)} and the text has no end;"
                    " end it by closing the sending half of the connection (nc -N)",
                )
            ) from None
        self.is_at_end = not chunk
        self._buffer += chunk
        return chunk


async def send_answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
) -> None:
    """Write the answer and close, so that it arrives although the client may still be sending.

    A connection closed with bytes unread is reset, and the answer may be lost with it.
    """
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(LINGER_S):
            writer.write(answer.encode())
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            while await reader.read(_CHUNK_BYTES):
                pass


def _may_be_header(begin: bytearray) -> bool:
    """Whether a first line that is not whole yet may be the one with a token."""
    return _HEADER.startswith(bytes(begin[: len(_HEADER)]).lower())


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
        self._logins = Logins(time.monotonic)
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
                answer = await self._take(reader, find_address(writer.transport))
            await send_answer(reader, writer, answer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        except Exception:  # noqa: BLE001 - the boundary around a connection
            _log.exception("input connection failed")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, address: str) -> Answer:
        def wait_s(given: str, is_right: bool) -> float:
            return self._logins.wait_s(address, given, is_right=is_right)

        text = TextReader(reader, self._settings.value, self._read_token, wait_s)
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
