"""One TCP address that is listened on, and may be let go and taken again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable

from aiohttp.http_exceptions import HttpProcessingError

from appliance.api.guards import split_host
from appliance.errors import DaemonError

MakeProtocol = Callable[[], asyncio.BaseProtocol]


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """What is no HTTP was answered with 400: anybody could fill the log with a traceback for each."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


http_log = logging.getLogger("appliance.http")
"""For the library's own words about connections."""
http_log.addFilter(_is_worth_telling)


class Port:
    """Hands its connections to protocols of `make`. Port 0 is a free one, kept when taken again.

    A connection whose other end takes nothing for `unread_timeout_ms` is closed; 0: it waits for ever.
    """

    def __init__(
        self, make: MakeProtocol, host: str, port: int, *, unread_timeout_ms: int = 0
    ) -> None:
        self._make = make
        self._unread_timeout_ms = unread_timeout_ms
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port really used; None while it is let go."""
        if self._server is None or not self._server.sockets:
            return None
        name = self._server.sockets[0].getsockname()
        return (name[0], name[1]) if isinstance(name, tuple) else None

    @property
    def number(self) -> int:
        """The port that was asked for, or that a 0 became."""
        return self._port

    async def resume(self) -> None:
        """Listen, if it does not yet. Raises OSError when the address cannot be taken."""
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._make, self._host or None, self._port, reuse_address=True
        )
        if self._unread_timeout_ms:
            for listener in self._server.sockets:
                _close_unread(listener, self._unread_timeout_ms)
        address = self.address
        if address is not None:
            self._port = address[1]

    async def pause(self) -> None:
        """Take no more connections; those that are there go on."""
        server, self._server = self._server, None
        if server is not None:
            await close_server(server)


def _close_unread(listener: socket.socket, timeout_ms: int) -> None:
    """Have the kernel end connections of which nothing is taken; they inherit it from what listens."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(listener.fileno())) as own:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


async def close_server(server: asyncio.Server) -> None:
    """Take no more connections on any kind of listener."""
    # NB: asyncio drops what it accepted just now when the server closes before the protocol is there
    for _ in range(4):
        await asyncio.sleep(0)
    server.close()
    await asyncio.sleep(0)  # the sockets are closed by callbacks of the loop


def split_listen(listen: str) -> tuple[str, int]:
    """Host and port of a listen address.

    Raises:
        DaemonError: it is none.
    """
    host, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise DaemonError(f"{listen}: not of the form host:port")
    return split_host(host) if host.startswith("[") else host, int(port)


def cannot_listen(listen: str, error: OSError) -> DaemonError:
    """The error to tell."""
    words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return DaemonError(f"{listen}: {words.lower()}")
