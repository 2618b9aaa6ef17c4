"""A connection that begins with TLS: counted before its handshake, and made with the certificate of that moment.

asyncio can do TLS itself, yet by one context for the life of a listener, and it shows a connection only when the
handshake is over: a renewed certificate would need another listener, and strangers could hold as many half-open
connections as they like.
"""

from __future__ import annotations

import asyncio
import contextlib
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
        self.transport: asyncio.Transport | None = None
        self._context = context
        self._make = make
        self._admit = admit
        self._admitted = admitted
        self.keep_alive: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it, and shake hands."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # what comes is for the one who shakes hands
        transport.pause_reading()
        if self._admit(self):
            self.keep_alive = asyncio.get_running_loop().create_task(self._open(transport))

    def connection_lost(self, _error: Exception | None) -> None:
        """It ended before the handshake."""
        self.transport = None

    async def _open(self, transport: asyncio.Transport) -> None:
        protocol = self._make()
        opened: asyncio.Transport | None = None
        # who speaks no TLS, or brings a certificate of somebody else, is nothing to tell of
        with contextlib.suppress(OSError, TimeoutError):
            opened = await asyncio.get_running_loop().start_tls(
                transport,
                protocol,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            )
        name = self._admitted.pop(self, None)
        self.transport = None
        if opened is None:
            transport.abort()
            return
        if name is not None:
            self._admitted[protocol] = name
        protocol.connection_made(opened)
