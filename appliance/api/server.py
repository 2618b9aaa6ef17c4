"""The API server: one unix socket for the life of the daemon, and a TCP listener that comes, goes
and moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from appliance.api.access import Gate
from appliance.api.audit import TRAIL, enter
from appliance.api.clients import find_address, find_uid
from appliance.api.following import Following
from appliance.api.guards import FACE, HIDING, MAX_BODY_BYTES, ListenerKind, add_headers, guard
from appliance.api.guards import turn_errors_into_json as turn_errors
from appliance.api.job_routes import CopyRoutes, JobRoutes
from appliance.api.operations import Operations
from appliance.api.page import PageRoutes
from appliance.api.port import Port, cannot_listen, close_server, http_log, split_listen
from appliance.api.routes import Routes
from appliance.api.routing import add_routes
from appliance.api.unix_socket import listen_unix
from appliance.bus.auth import ListenerContext, make_listener_context, read_secret
from appliance.core.audit import Trail
from appliance.core.current import Current
from appliance.core.hidden import Hiding
from appliance.core.specs import AdminSettings
from appliance.errors import ApplianceError, DaemonError
from appliance.telemetry.metrics import Exposition

SHUTDOWN_TIMEOUT_S = 2.0
IDLE_TIMEOUT_S = 30.0
"""A connection that has sent no whole request head by then is closed, the first one included."""
MAX_TCP_CONNECTIONS = 256
"""Of one address half as many."""
MAX_UNIX_CONNECTIONS = 1_024
"""Of one user half as many."""
UNREAD_TIMEOUT_MS = 60_000
"""A connection whose other end takes nothing of an answer for so long is closed by the kernel."""


class AdminServer:
    """Owns both listeners. Closing it ends every stream and connection."""

    def __init__(
        self, control: Operations, hiding: Hiding | None = None, trail: Trail | None = None
    ) -> None:
        self._hiding = hiding or Hiding()
        self._trail = trail
        self._following = Following(control)
        self._routes = Routes(control, Exposition(control.view), self._following, PageRoutes())
        self._settings = Current(AdminSettings())
        self._gate = Gate(self._settings)
        self._unix: _UnixListening | None = None
        self._tcp: _Listening | None = None

    @property
    def tcp_address(self) -> tuple[str, int] | None:
        """Host and port that TCP is taken on now."""
        return self._tcp.address if self._tcp is not None else None

    async def start_unix(self, path: Path) -> None:
        """Serve the whole API on a unix socket.

        Raises:
            DaemonAlreadyRunning: another daemon answers there.
            DaemonError: the socket cannot be made.
        """
        listener = await asyncio.to_thread(listen_unix, path)
        # by which the end knows whether the name is still ours
        inode = os.stat(path).st_ino
        listening = await _Listening.start(self._make_app(ListenerKind()), listener=listener)
        self._unix = _UnixListening(listening, path, inode)

    async def stage_tcp(self, settings: AdminSettings) -> StagedListener:
        """Open the listener that `settings` ask for, beside the one that serves.

        Raises:
            DaemonError: the address or the token cannot be used; everything is as it was.
        """
        # read once, so that what cannot be had refuses the set and not each request
        await self._check_tokens(settings)
        tls = await self._read_tls(settings)
        staged = StagedListener(self, self._settings.value, self._tcp)
        if settings.listen != self._settings.value.listen:
            new: _Listening | None = None
            if settings.listen is not None:
                new = await self._listen_or_take_over(settings.listen, tls)
            self._tcp = new
        self._use_tls(tls)
        self._settings.put(settings)
        return staged

    async def renew_tls(self) -> None:
        """Take certificate, key and authority as they are now; connections go on. Raises DaemonError as `stage_tcp`."""
        self._use_tls(await self._read_tls(self._settings.value))

    def _use_tls(self, tls: ListenerContext | None) -> None:
        """For connections to come; those that are there go on."""
        self._gate.tls = tls
        if self._tcp is not None:
            self._tcp.tls = tls

    async def move_tcp(self, settings: AdminSettings) -> None:
        """Serve as `settings` say and no longer as before. Raises DaemonError as `stage_tcp`."""
        await (await self.stage_tcp(settings)).commit()

    def leaving_port(self, settings: AdminSettings) -> Port | None:
        """The port that `settings` give up."""
        if self._tcp is None or settings.listen == self._settings.value.listen:
            return None
        return self._tcp.port

    async def close(self) -> None:
        """Stop listening, end streams, close connections, remove the socket."""
        self._following.end_all()
        for listening in (self._tcp, self._unix):
            if listening is not None:
                await listening.stop()
        self._tcp = self._unix = None

    def _make_app(self, face: ListenerKind) -> web.Application:
        app = web.Application(middlewares=[turn_errors, guard], client_max_size=MAX_BODY_BYTES)
        app[FACE] = face
        app[HIDING] = self._hiding
        app.on_response_prepare.append(add_headers)
        if self._trail is not None:
            app[TRAIL] = self._trail
            app.on_response_prepare.append(enter)
        routes = self._routes
        control = routes.control
        add_routes(
            app,
            routes,
            routes.page,
            routes.following,
            CopyRoutes(control.copies),
            JobRoutes(control.jobs, control.ending, control.programs),
        )
        return app

    async def _listen_or_take_over(self, listen: str, tls: ListenerContext | None) -> _Listening:
        """Listen; where only our own old listener is in the way (same port, wider address) it goes
        first.
        """
        host, port = split_listen(listen)
        try:
            return await self._listen(host, port, tls)
        except OSError as error:
            old = self._tcp
            if old is None or old.address is None or port != old.address[1]:
                raise cannot_listen(listen, error) from error
            # connections that are there go on; the two cannot listen side by side
            await old.pause()
            try:
                return await self._listen(host, port, tls)
            except OSError as again:
                await old.resume()
                raise cannot_listen(listen, again) from again

    async def _listen(self, host: str, port: int, tls: ListenerContext | None) -> _Listening:
        face = ListenerKind(gate=self._gate, host=host)
        return await _Listening.start(self._make_app(face), host=host, port=port, tls=tls)

    async def _check_tokens(self, settings: AdminSettings) -> None:
        refs = {f"admin.tokens.{item.name}": item.token for item in settings.tokens}
        if settings.token is not None:
            refs["admin.token"] = settings.token
        for place, ref in refs.items():
            try:
                await asyncio.to_thread(read_secret, ref, place)
            except ApplianceError as error:
                raise DaemonError(str(error)) from error

    async def _read_tls(self, settings: AdminSettings) -> ListenerContext | None:
        if settings.tls is None or settings.listen is None:
            return None
        try:
            return await asyncio.to_thread(make_listener_context, settings.tls)
        except ApplianceError as error:
            raise DaemonError(str(error)) from error


class StagedListener:
    """A new listener that serves already, and the old one, which waits for the word."""

    def __init__(
        self, server: AdminServer, old_settings: AdminSettings, old: _Listening | None
    ) -> None:
        self._server = server
        self._old_settings = old_settings
        self._old = old
        self._old_tls = old.tls if old is not None else None

    async def commit(self) -> None:
        """The old one ends."""
        if self._old is not None and self._old is not self._server._tcp:
            await self._old.stop()

    async def abandon(self) -> None:
        """The new one ends, and the old one goes on. Raises OSError when it cannot listen any more."""
        new = self._server._tcp
        self._server._tcp = self._old
        self._server._settings.put(self._old_settings)
        self._server._use_tls(self._old_tls)
        if new is self._old:
            return
        if new is not None:
            await new.stop()
        if self._old is not None:
            await self._old.resume()  # it may have had to make room


@dataclass(frozen=True, slots=True)
class _UnixListening:
    """The listener on the unix socket, and the name that it has in the file system."""

    listening: _Listening
    path: Path
    inode: int

    async def stop(self) -> None:
        """Stop listening, and take the name away unless a successor has put its own there."""
        await self.listening.stop()
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)


class _Listening:
    """One listener with the application behind it."""

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        *,
        is_tcp: bool,
        tls: ListenerContext | None = None,
    ) -> None:
        self._runner = runner
        self._is_tcp = is_tcp
        self.tls = tls
        """What the next connection is made with."""
        self._port = Port(self._make, host, port, unread_timeout_ms=UNREAD_TIMEOUT_MS)
        self._unix: asyncio.Server | None = None
        self._open: dict[asyncio.BaseProtocol, str] = {}

    @classmethod
    async def start(
        cls,
        app: web.Application,
        *,
        listener: socket.socket | None = None,
        host: str = "",
        port: int = 0,
        tls: ListenerContext | None = None,
    ) -> _Listening:
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_log,
            handler_cancellation=True,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            handle_signals=False,
            keepalive_timeout=IDLE_TIMEOUT_S,
        )
        listening = cls(runner, host, port, is_tcp=listener is None, tls=tls)
        try:
            await runner.setup()
            if listener is None:
                await listening.resume()
            else:
                loop = asyncio.get_running_loop()
                listening._unix = await loop.create_unix_server(listening._make, sock=listener)
        except BaseException:
            if listener is not None:
                listener.close()
            await runner.cleanup()
            raise
        return listening

    @property
    def port(self) -> Port:
        """What is listened on."""
        return self._port

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port really used."""
        return self._port.address

    async def resume(self) -> None:
        """Listen on TCP. Raises OSError when the address cannot be taken."""
        await self._port.resume()

    async def pause(self) -> None:
        """Take no more connections; those that are there go on."""
        await self._port.pause()
        server, self._unix = self._unix, None
        if server is not None:
            await close_server(server)

    async def stop(self) -> None:
        """The end, for connections too."""
        await self.pause()
        for opening in [one for one in self._open if isinstance(one, TlsOpening)]:
            opening.abandon()
        await self._runner.cleanup()

    def _make(self) -> asyncio.BaseProtocol:
        """A connection, unless there are too many: operators must not be the way to our end, and strangers not in
        theirs.
        """
        assert self._runner.server is not None
        if self.tls is not None:
            return TlsOpening(self.tls, self._runner.server, self._admit, self._open)
        protocol: asyncio.Protocol = self._runner.server()
        loop = asyncio.get_running_loop()
        # NB: two turns: in the first one the protocol is given its transport
        loop.call_soon(loop.call_soon, self._admit, protocol)
        return protocol

    def _admit(self, protocol: asyncio.BaseProtocol) -> bool:
        transport = getattr(protocol, "transport", None)
        if transport is None:
            return False
        for known in [one for one in self._open if getattr(one, "transport", None) is None]:
            del self._open[known]
        name = find_address(transport) if self._is_tcp else str(find_uid(transport))
        most = MAX_TCP_CONNECTIONS if self._is_tcp else MAX_UNIX_CONNECTIONS
        of_client = sum(known == name for known in self._open.values())
        if len(self._open) >= most or of_client >= max(1, most // 2):
            transport.close()
            return False
        self._open[protocol] = name
        return True


# A connection that begins with TLS: counted before its handshake, and made with the certificate of that moment.
#
# A listener of asyncio can do TLS itself, yet by one context for all its life, and it shows a connection only when the
# handshake is over: a renewed certificate would need another listener, and strangers could hold as many half-open
# connections as they like.

HANDSHAKE_TIMEOUT_S = 10.0
TLS_SHUTDOWN_TIMEOUT_S = 5.0


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
                    ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT_S,
                )
        finally:
            if opened is None:
                own.close()
            self.transport = None
            name = self._admitted.pop(self, None)
            if opened is not None and name is not None:
                self._admitted[opened] = name
