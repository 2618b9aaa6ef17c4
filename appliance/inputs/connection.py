"""One connection of a socket or TCP input: bytes in until the text ends, one line of JSON out.

The text ends when the client closes its sending half (`nc -N`), or when a JSON list is closed and
nothing follows for a moment. Any other silence is no end: half a list may look whole in YAML.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

from appliance.api.guards import is_bearer_of
from appliance.core.durations import format_duration
from appliance.core.specs import InputSettings
from appliance.errors import ApplianceError
from appliance.inputs.importer import Answer, Outcome, refuse
from appliance.inputs.json_end import JsonEnd

QUIET_S = 0.2
"""Silence after which a closed JSON list is taken."""
LINGER_S = 1.0
"""Time a client has to read its answer while bytes of it are still on the way to us."""
MAX_FIRST_LINE_BYTES = 8_192
_CHUNK_BYTES = 65_536
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
    ) -> None:
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
        if not has_header or not is_bearer_of(given, wanted):
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
