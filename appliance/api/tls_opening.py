"""A connection that begins with TLS: counted before its handshake, and made with the certificate of that moment.

A listener of asyncio can do TLS itself, yet by one context for all its life, and it shows a connection only when the
handshake is over: a renewed certificate would need another listener, and strangers could hold as many half-open
connections as they like.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, MutableMapping

HANDSHAKE_TIMEOUT_S = 10.0
SHUTDOWN_TIMEOUT_S = 5.0


class TlsOpening(asyncio.Protocol):
    """Life: a handshake; what comes then is for a protocol of `make`."""

    def __init__(
        self,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        admit: Callable[[asyncio.BaseProtocol], bool],
        admitted: MutableMapping[asyncio.BaseProtocol, str],
    ) -> None:
        self.transport: asyncio.BaseTransport | None = None
        """Of the connection, until the handshake is over."""
        self._context = context
        self._make = make
        self._admit = admit
        self._admitted = admitted
        self.keep_alive: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it, and shake hands."""
        self.transport = transport
        if not self._admit(self):
            return
        # NB: a transport that was given to us reads what belongs to the handshake, with uvloop even when it is paused;
        # one that is closed here has read nothing, and the connection stays open by the second descriptor
        own = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        transport.close()
        self.keep_alive = asyncio.get_running_loop().create_task(self._open(own))

    def abandon(self) -> None:
        """The listener ends: so does a handshake that goes on."""
        if self.keep_alive is not None:
            self.keep_alive.cancel()

    async def _open(self, own: socket.socket) -> None:
        own.setblocking(False)
        opened: asyncio.BaseProtocol | None = None
        try:
            # who speaks no TLS, or brings a certificate of somebody else, is nothing to tell of
            with contextlib.suppress(OSError):
                _, opened = await asyncio.get_running_loop().connect_accepted_socket(
                    self._make,
                    own,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                    ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
                )
        finally:
            if opened is None:
                own.close()
            self.transport = None
            name = self._admitted.pop(self, None)
            if opened is not None and name is not None:
                self._admitted[opened] = name
