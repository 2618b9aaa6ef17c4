"""The bus over NATS: one logical connection that outlives brokers, networks and changes of settings.

`NatsBus` owns the table of subscriptions and at most one live `Wire`. A keeper task makes a new wire whenever there
is none, for ever; every subscription is announced and confirmed on it before it counts as connected. Nothing is
buffered while there is none: `publish` raises, and the outbox, which is durable, keeps the message.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable
from contextlib import suppress

from appliance.bus.base import OnDelivery, OnDenied
from appliance.bus.connector import Connector
from appliance.bus.denials import DenialRouter
from appliance.bus.events import BusEvents, Reporter
from appliance.bus.frames import check_publish_subject, check_subscribe_subject
from appliance.bus.protocol import Wire
from appliance.bus.servers import ServerPool
from appliance.bus.subscription import NatsSubscription
from appliance.bus.watchdog import Loopback, watch_wire
from appliance.core.specs import BrokerSettings
from appliance.errors import BusUnauthorized, BusUnavailable

_log = logging.getLogger(__name__)

_MAX_RETRY_WAIT_S = 2.0
"""Longest wait between attempts to connect: a broker that returns is used within seconds."""

_MAX_UNAUTHORIZED_WAIT_S = 5.0
"""Between attempts with credentials that were refused; every one is a line in the broker's log."""

_BARRIER_TIMEOUT_S = 5.0
"""For the round trips of an unsubscribe; beyond it the other side is taken for dead."""

_MAX_KNOWN_SUBJECTS = 4096
"""Checked subjects that are remembered; acknowledgements go to a new one each."""


class NatsBus:
    """Implements `base.Bus`. Life: `open` -> use -> `close`; `reconfigure` any number of times between."""

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        name: str,
        server_urls: tuple[str, ...],
        loopback_node: str | None,
        events: BusEvents,
    ) -> None:
        """Store only; use `open`."""
        self._settings = settings
        self._reporter = Reporter(events)
        self._pool = ServerPool(server_urls)
        self._wire: Wire | None = None
        self._subscriptions: dict[bytes, NatsSubscription] = {}
        self._sids = itertools.count(1)
        self._known_subjects: set[str] = set()
        self._connected_callbacks: list[Callable[[], None]] = []
        self._denials = DenialRouter(self._subscriptions, self._reporter.report)
        self._connector = Connector(
            name=name,
            subscriptions=self._subscriptions,
            on_lost=self._on_lost,
            on_error=self._denials.handle,
            report=self._reporter.report,
        )
        self._loopback = self._make_loopback(loopback_node)
        self._epoch = 0
        self._connects = 0
        self._server = self._pool.first
        self._failed: str | None = None
        self._is_closing = False
        self._connected = asyncio.Event()
        self._changed = asyncio.Event()
        self._connecting = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        settings: BrokerSettings,
        *,
        name: str,
        server_urls: tuple[str, ...] | None = None,
        loopback_node: str | None = None,
        events: BusEvents | None = None,
        require_connection: bool = False,
    ) -> NatsBus:
        """Try every broker once, then return; without a connection the bus goes on trying in the background.

        Args:
            server_urls: instead of `settings.servers` (the embedded broker's address).
            loopback_node: an own node below which the broker is asked now and then whether it still delivers.
            require_connection: raise instead of going on in the background.

        Raises:
            BusUnauthorized: the broker refused our credentials, or they cannot be read.
            BusUnavailable: only with `require_connection`: no broker could be reached.

        Cancellation: nothing stays open.
        """
        bus = cls(
            settings,
            name=name,
            server_urls=server_urls if server_urls is not None else settings.servers,
            loopback_node=loopback_node,
            events=events or BusEvents(),
        )
        try:
            bus._adopt(await bus._connector.connect_any(settings, bus._pool))
        except BusUnavailable as error:
            if require_connection:
                raise
            bus._reporter.report(str(error))
        bus._keeper = asyncio.create_task(bus._keep(), name=f"bus of {name}")
        return bus

    async def close(self) -> None:
        """Write out what was published, unsubscribe and close. Never raises; bounded in time."""
        self._is_closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        wire, self._wire = self._wire, None
        self._connected.clear()
        self._subscriptions.clear()
        if wire is not None:
            await self._connector.retire(wire)

    async def reconfigure(
        self, settings: BrokerSettings, *, server_urls: tuple[str, ...] | None = None
    ) -> None:
        """Move to other settings: new connection with every subscription confirmed first, then the old one emptied.

        Raises:
            BusUnauthorized: the new broker refused the credentials; the old connection goes on.
            BusUnavailable: no new connection came about; the old one goes on.

        Cancellation: either the old or the new connection is in use, the other is closed.
        """
        pool = ServerPool(server_urls if server_urls is not None else settings.servers)
        async with self._connecting:
            wire = await self._connector.connect_any(settings, pool)
            # NB: no await from here to the end of the block.
            old = self._wire
            self._settings, self._pool = settings, pool
            self._adopt(wire)
        if old is not None and not old.is_lost:
            for subscription in tuple(self._subscriptions.values()):
                old.renounce(subscription)
            await self._connector.retire(old)

    # What is known of the connection

    @property
    def is_connected(self) -> bool:
        """Whether there is a live connection with every subscription confirmed."""
        return self._wire is not None

    @property
    def connection_epoch(self) -> int:
        """Grows with every loss of connection."""
        return self._epoch

    @property
    def server(self) -> str:
        """The broker in use, or the one used last; without credentials."""
        return self._server

    @property
    def reconnects(self) -> int:
        """Connects after the first."""
        return max(0, self._connects - 1)

    @property
    def max_payload(self) -> int:
        """Bytes of payload and headers that the broker takes in one message."""
        return 1_048_576 if self._wire is None else self._wire.max_payload

    @property
    def failed(self) -> str | None:
        """Why the broker refuses us, while it does; None otherwise. Trying goes on, slowly."""
        return self._failed

    # Use

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: dict[str, str] | None = None,
        reply_to: str = "",
    ) -> None:
        """Send; see `base.Bus`. Waits only while the socket takes no more.

        Cancellation: nothing was sent.
        """
        known = self._known_subjects
        if subject not in known:
            self._check(subject)
        if reply_to and reply_to not in known:
            check_publish_subject(reply_to)
        wire = self._wire
        if wire is None:
            raise BusUnavailable("not connected to the broker")
        if wire.is_congested:
            await wire.wait_until_writable()
        wire.send_publish(subject, reply_to, headers, payload)

    async def subscribe(
        self,
        subject: str,
        on_delivery: OnDelivery,
        *,
        queue: str = "",
        limit_messages: int = 16_384,
        on_denied: OnDenied | None = None,
    ) -> NatsSubscription:
        """Subscribe and return when the broker has it; see `base.Bus`. A denial goes to `on_denied` before the return.

        Cancellation: nothing is subscribed.
        """
        check_subscribe_subject(subject, queue)
        subscription = NatsSubscription(
            sid=b"%d" % next(self._sids),
            subject=subject,
            queue=queue,
            on_delivery=on_delivery,
            on_denied=on_denied,
            limit_messages=limit_messages,
            stop=self._stop_intake,
        )
        self._subscriptions[subscription.sid] = subscription
        is_confirmed = False
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s * 2):
                while not is_confirmed:
                    is_confirmed = await self._confirm(subscription)
        except TimeoutError:
            raise BusUnavailable("no connection to the broker came up in time") from None
        finally:
            if not is_confirmed:
                self._subscriptions.pop(subscription.sid, None)
                for wire in tuple(self._connector.wires):
                    wire.renounce(subscription)
        return subscription

    async def barrier(self) -> None:
        """Return when the broker has processed everything sent before.

        Raises:
            BusUnavailable: not connected, or the connection was lost first.
        """
        if self._wire is None:
            raise BusUnavailable("not connected to the broker")
        await self._wire.barrier()

    def on_connected(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every (re)connect; returns a function that ends it."""
        self._connected_callbacks.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._connected_callbacks.remove(callback)

        return end

    def on_publish_denied(self, subject: str, callback: OnDenied) -> Callable[[], None]:
        """Call `callback` when the broker denies a publish on `subject`; returns a function that ends it."""
        return self._denials.on_publish_denied(subject, callback)

    def drop_connection(self, reason: str) -> None:
        """Give the present connection up; the keeper makes a new one."""
        if self._wire is not None:
            self._wire.drop(reason)

    def _make_loopback(self, node: str | None) -> Loopback | None:
        if node is None:
            return None
        loopback = Loopback(node)
        sid = b"%d" % next(self._sids)
        self._subscriptions[sid] = NatsSubscription(
            sid=sid,
            subject=loopback.subject,
            queue="",
            on_delivery=loopback.take,
            on_denied=loopback.turn_off,
            limit_messages=1,
            stop=self._stop_intake,
        )
        self._denials.on_publish_denied(loopback.subject, loopback.turn_off)
        return loopback

    # Connecting

    async def _keep(self) -> None:
        """Make a connection whenever there is none, and watch the one there is."""
        failures = 0
        while not self._is_closing:
            wire = self._wire
            if wire is not None:
                failures = 0
                self._changed.clear()
                await watch_wire(
                    wire,
                    ping_interval_s=self._settings.ping_interval_s,
                    loopback=self._loopback,
                    changed=self._changed,
                )
                continue
            await asyncio.sleep(self._retry_wait_s(failures))
            failures += 1
            async with self._connecting:
                if self._wire is None:
                    await self._try_connect()

    async def _try_connect(self) -> None:
        try:
            self._adopt(await self._connector.connect_once(self._settings, self._pool))
        except BusUnauthorized as error:
            self._failed = str(error)
            self._reporter.report(str(error))
        except BusUnavailable as error:
            self._reporter.report(str(error))

    def _retry_wait_s(self, failures: int) -> float:
        jitter = random.uniform(0.5, 1.5)
        if failures == 0:
            return self._settings.reconnect_wait_s * jitter * 0.2
        ceiling_s = _MAX_RETRY_WAIT_S if self._failed is None else _MAX_UNAUTHORIZED_WAIT_S
        return min(ceiling_s, self._settings.reconnect_wait_s * 1.5 ** min(failures, 20)) * jitter

    def _adopt(self, wire: Wire) -> None:
        """Put a connected wire to use."""
        self._wire = wire
        self._server = wire.server
        self._failed = None
        self._connects += 1
        self._connected.set()
        self._changed.set()
        self._reporter.connected(is_first=self._connects == 1)
        for callback in tuple(self._connected_callbacks):
            self._reporter.call(callback)

    # Subscriptions

    async def _confirm(self, subscription: NatsSubscription) -> bool:
        """Have the present connection confirm a subscription; False where it must be tried again."""
        wire = self._wire
        if wire is None:
            await self._connected.wait()
            return False
        wire.announce(subscription)
        try:
            await wire.barrier()
        except BusUnavailable:
            return False
        subscription.is_confirmed = True
        return self._wire is wire

    async def _stop_intake(self, subscription: NatsSubscription) -> None:
        if subscription.is_closing:
            return
        subscription.is_closing = True  # from here on no new connection announces it
        try:
            async with asyncio.timeout(_BARRIER_TIMEOUT_S):
                for wire in tuple(self._connector.wires):
                    wire.renounce(subscription)
                for wire in tuple(self._connector.wires):
                    # Twice: a message that the broker routed while it took our UNSUB comes before the second answer.
                    await wire.barrier()
                    await wire.barrier()
        except (BusUnavailable, TimeoutError) as error:
            _log.debug("unsubscribing %s: %s", subscription.subject, error)
        finally:
            self._subscriptions.pop(subscription.sid, None)

    def _check(self, subject: str) -> None:
        check_publish_subject(subject)
        if len(self._known_subjects) >= _MAX_KNOWN_SUBJECTS:
            self._known_subjects.clear()
        self._known_subjects.add(subject)

    # Events

    def _on_lost(self, wire: Wire, reason: str) -> None:
        if wire is not self._wire:
            return
        self._wire = None
        self._epoch += 1
        self._connected.clear()
        self._changed.set()
        self._reporter.report(f"connection to broker {wire.server} lost: {reason}")
        self._reporter.disconnected()
