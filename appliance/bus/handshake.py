"""Connect and log in with nats-py, then take its transport over. The only file that imports nats-py.

What is used of nats-py 2.16: addresses, TCP and TLS, INFO, NKEY, JWT and password login, CONNECT. Its background tasks
are never started (see `bus.protocol` for why); what is overridden here is held to the installed version by
`tests/component/bus/test_handshake.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client, RawCredentials, Srv
from nkeys import ErrInvalidPrefixByte, ErrInvalidSeed

from appliance.bus.auth import Login, read_login
from appliance.bus.protocol import Wire, WireEvents
from appliance.bus.servers import Address, hide_userinfo
from appliance.bus.subscription import NatsSubscription
from appliance.core.specs import BrokerSettings
from appliance.errors import BusError, BusUnauthorized, BusUnavailable

_NONCE = re.compile("[A-Za-z0-9_=-]{0,128}")
"""What nats-server asks to have signed; nothing that a signature of a message is made over has this form."""
_REFUSALS = ("authorization violation", "authentication")
"""Words in the first -ERR that mean: these credentials will not do. Not "account": it may only have no room left."""


async def open_wire(
    address: Address,
    settings: BrokerSettings,
    *,
    name: str,
    subscriptions: Mapping[str, NatsSubscription],
    events: WireEvents,
    on_announced: Callable[[tuple[str, ...]], None],
) -> Wire:
    """Connect to one broker and log in.

    Args:
        on_announced: takes the addresses that the broker's first INFO names for its cluster.

    Raises:
        BusUnauthorized: the broker refused the credentials, or they cannot be read.
        BusUnavailable: no connection came about; the text says why.

    Cancellation: the socket is closed.
    """
    shown = hide_userinfo(address.url)
    scheme = shown.partition("://")[0]
    if scheme not in {"nats", "tls"}:
        raise BusUnavailable(f"broker address {shown} is neither nats:// nor tls://")
    login = await asyncio.to_thread(read_login, settings.auth, settings.tls)
    client = _HandshakeClient(
        login, wants_tls=scheme == "tls" or settings.tls is not None, on_announced=on_announced
    )
    wire: Wire | None = None
    try:
        # NB: nats-py bounds each step by connect_timeout; this bounds them together.
        async with asyncio.timeout(settings.connect_timeout_s * 3):
            await client.connect(address.url, **_make_options(address, settings, login, name))
        wire = client.give_up_transport(shown, subscriptions, events)
        return wire
    except Exception as error:
        raise _map_error(error, shown) from error
    finally:
        if wire is None:
            client.abort()


def _make_options(
    address: Address, settings: BrokerSettings, login: Login, name: str
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": name,
        "allow_reconnect": False,
        "connect_timeout": settings.connect_timeout_s,
        "error_cb": _ignore_error,
        "user": login.user,
        "password": login.password,
        "token": login.token,
    }
    if login.credentials is not None:
        options["user_credentials"] = RawCredentials(login.credentials)
    elif login.nkey_seed is not None:
        options["nkeys_seed_str"] = login.nkey_seed
    if login.tls is not None:
        options["tls"] = login.tls
    if address.tls_name is not None:
        options["tls_hostname"] = address.tls_name
    return options


async def _ignore_error(_error: Exception) -> None:
    """Errors of a handshake are raised as well, and reported from there."""


def _map_error(error: Exception, shown: str) -> BusError:
    if isinstance(error, BusError):
        return error
    text = str(error).removeprefix("nats: ").strip(" '\r\n")
    if isinstance(error, ErrInvalidSeed | ErrInvalidPrefixByte):
        return BusUnauthorized("the nkey seed is no valid seed")
    if isinstance(error, nats.errors.Error):
        if any(word in text.lower() for word in _REFUSALS):
            return BusUnauthorized(f"broker {shown} refused the credentials: {text.lower()}")
        return BusUnavailable(f"broker {shown}: {text or type(error).__name__}")
    if isinstance(error, TimeoutError):
        return BusUnavailable(f"broker {shown} did not answer in time")
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or "handshake failed"
        return BusUnavailable(f"broker {shown}: tls: {reason}")
    if isinstance(error, OSError):
        # asyncio's own text repeats the address, and for several addresses holds a list of texts.
        # Name resolution has numbers of its own, below zero.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or text
        return BusUnavailable(f"broker {shown}: {reason.lower()}")
    return BusUnavailable(f"broker {shown}: {type(error).__name__} during login")


class _HandshakeClient(Client):
    """nats-py's client up to the point where it is logged in, for one address and one attempt."""

    def __init__(
        self,
        login: Login,
        *,
        wants_tls: bool,
        on_announced: Callable[[tuple[str, ...]], None],
    ) -> None:
        super().__init__()
        self._login = login
        self._wants_tls = wants_tls
        self._on_announced = on_announced

    async def _select_next_server(self) -> None:
        # The original tries one address for ever and hides each failure.
        server: Srv = self._server_pool[0]
        self._current_server = server
        await self._connect_to_server(server)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # The original appends addresses to its own pool; ours is kept across connections.
        self._on_announced(read_addresses(info))
        if self._wants_tls and info.get("tls_available"):
            info["tls_required"] = True

    def _connect_command(self) -> bytes:
        """CONNECT as nats-py writes it, completed by what it leaves out when several kinds of login are given."""
        transport = self._writers()[0].transport
        if self._wants_tls and transport.get_extra_info("ssl_object") is None:
            # Somebody between us and the broker can strip "tls_required": say nothing to them.
            raise BusUnauthorized("tls is configured but the broker does not offer it")
        nonce = self._server_info.get("nonce", "")
        if not isinstance(nonce, str) or _NONCE.fullmatch(nonce) is None:
            # the key signs messages, too: whoever chooses freely what it signs could have it sign one
            raise BusUnauthorized("the broker asks to have something signed that is no nonce")
        command: bytes = super()._connect_command()
        options = json.loads(command.removeprefix(b"CONNECT "))
        if self._login.user is not None:
            options.setdefault("user", self._login.user)
            if self._login.password is not None:
                options.setdefault("pass", self._login.password)
        if self._login.token is not None:
            options.setdefault("auth_token", self._login.token)
        return b"CONNECT " + json.dumps(options).encode() + b"\r\n"

    async def _read_loop(self) -> None:
        """Not started: a `Wire` reads."""

    async def _flusher(self) -> None:
        """Not started: a `Wire` writes."""

    async def _ping_interval(self) -> None:
        """Not started: the bus keeps watch."""

    def give_up_transport(
        self, shown: str, subscriptions: Mapping[str, NatsSubscription], events: WireEvents
    ) -> Wire:
        """Hand the logged-in transport to a new wire; afterwards this object only keeps it from being collected."""
        if not self.is_connected:
            raise BusUnavailable(f"broker {shown} answered the login with something else than PONG")
        nats_transport: Any = self._transport
        reader = nats_transport._io_reader
        leftover = bytes(reader._buffer)
        reader._buffer.clear()
        wire = Wire(
            server=shown,
            max_payload=int(self._max_payload),
            subscriptions=subscriptions,
            events=events,
        )
        wire.has_streams = self._server_info.get("jetstream") is True
        wire.keep_alive = self
        wire.take_over(self._writers()[0].transport, leftover)
        return wire

    def abort(self) -> None:
        """Close the socket of an attempt that failed."""
        for writer in self._writers():
            writer.transport.abort()

    def _writers(self) -> list[Any]:
        """nats-py's stream writers, the one in use first; a second one where TLS was put on top of it."""
        transport: Any = self._transport
        found = [getattr(transport, name, None) for name in ("_io_writer", "_bare_io_writer")]
        return [writer for writer in found if writer is not None]


def read_addresses(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The cluster's addresses in an INFO, as far as they are `host:port` texts."""
    urls = info.get("connect_urls")
    if not isinstance(urls, list):
        return ()
    return tuple(url for url in urls if isinstance(url, str) and ":" in url and "@" not in url)


def parse_info(line: bytes) -> dict[str, Any]:
    """The INFO of a running connection; empty where it is none."""
    try:
        info = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}
