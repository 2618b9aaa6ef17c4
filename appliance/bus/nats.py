"""The bus over NATS, as the workers see it: send, subscribe, be told of denials.

Nothing is buffered while there is no connection: sending raises, and the outbox, which is durable, keeps the
message. Subscriptions stand in one table for the life of the bus; `bus.link` has them confirmed on every new
connection before that is used.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from appliance.bus.base import Frame, OnDenied, OnMessages
from appliance.bus.denials import DenialRouter
from appliance.bus.events import BusEvents, Reporter
from appliance.bus.frames import check_subscribe_subject
from appliance.bus.link import Link
from appliance.bus.protocol import Wire
from appliance.bus.subscription import OVERLAP_S, NatsSubscription, SubscriptionTable
from appliance.bus.watchdog import Loopback
from appliance.core.specs import BrokerSettings
from appliance.errors import BusUnavailable
from appliance.wire.headers import encode_headers

_log = logging.getLogger(__name__)

_SHORT_BREAK_S = 1.0
"""How long a lost connection may be away before a new subscription is given up instead of waiting for it."""
_BARRIER_TIMEOUT_S = 5.0
"""For the round trips of an unsubscribe; beyond it the other side is taken for dead."""


class NatsBus:
    """Implements `base.Bus`. Life: `open` -> use -> `close`; `reconfigure` any number of times between."""

    def __init__(self, settings: BrokerSettings, name: str, events: BusEvents) -> None:
        """Store only; use `open`."""
        self._subscriptions = SubscriptionTable()
        self._sids = itertools.count(1)
        reporter = Reporter(events)
        self._denials = DenialRouter(self._subscriptions, reporter.report)
        self._link = Link(
            settings,
            name=name,
            subscriptions=self._subscriptions.by_sid,
            reporter=reporter,
            on_error=self._denials.handle,
        )

    @classmethod
    async def open(
        cls,
        settings: BrokerSettings,
        *,
        name: str,
        loopback_node: str | None = None,
        events: BusEvents | None = None,
        require_connection: bool = False,
    ) -> NatsBus:
        """Try every broker once, then return; without a connection the bus goes on trying in the background.

        Args:
            loopback_node: an own node below which the broker is asked now and then whether it still delivers.
            require_connection: raise instead of going on in the background.

        Raises, and only with `require_connection`:
            BusUnauthorized: a broker refused our credentials, or they cannot be read, and no other took us.
            BusUnavailable: no broker could be reached, or none has room for us.

        Cancellation: nothing stays open.
        """
        bus = cls(settings, name, events or BusEvents())
        loopback = None if loopback_node is None else bus._make_loopback(loopback_node)
        await bus._link.open(require_connection=require_connection, loopback=loopback)
        return bus

    async def close(self) -> None:
        """Write out what was published, hand over what has come, and close. Never raises; bounded in time."""
        await self._link.close()
        self._subscriptions.clear()

    async def reconfigure(self, settings: BrokerSettings, *, insist: bool = True) -> None:
        """Move to other settings: new connection with every subscription confirmed first, then the old one emptied.

        Args:
            insist: raise where no connection comes about; else the new ones are tried until they do.

        Raises:
            BusUnauthorized: the new broker refused the credentials; the old connection goes on.
            BusUnavailable: no new connection came about; the old one goes on.

        Cancellation: either the old or the new connection is in use, the other is closed.
        """
        await self._link.exchange(settings, insist=insist)

    async def renew(self) -> None:
        """Connect anew by the same settings, for certificates, keys and logins that have changed; else as `reconfigure`.

        Raises:
            BusUnauthorized, BusUnavailable: the connection that is there goes on.
        """
        await self._link.renew()

    @property
    def is_connected(self) -> bool:
        """Whether there is a live connection with every subscription confirmed."""
        return self._link.wire is not None

    @property
    def connection_epoch(self) -> int:
        """Grows with every loss of connection."""
        return self._link.epoch

    @property
    def server(self) -> str:
        """The broker in use, or the one used last; without credentials."""
        return self._link.server

    @property
    def connections(self) -> int:
        """How many there were; one that is exchanged for another is not lost."""
        return self._link.connects

    @property
    def reconnects(self) -> int:
        """Connects after the first."""
        return max(0, self._link.connects - 1)

    @property
    def max_payload(self) -> int:
        """Bytes of payload and headers that the broker takes in one message."""
        return self._link.max_payload_bytes

    @property
    def has_streams(self) -> bool:
        """Whether the server that one is connected to has JetStream."""
        return self._link.has_streams

    @property
    def failed(self) -> str | None:
        """Why the broker refuses us, while it does; None otherwise. Trying goes on, slowly."""
        return self._link.failed

    @property
    def trouble(self) -> str | None:
        """Why there is no connection, in the words of the last failure; None while there is one."""
        return self._link.trouble

    @property
    def is_congested(self) -> bool:
        """Whether senders should await `wait_until_writable` first; see `base.Bus`."""
        wire = self._link.wire
        return wire is not None and wire.is_congested

    async def wait_until_writable(self) -> None:
        """Wait for the next turn of the loop, and then while the socket takes no more; see `base.Bus`."""
        await self._require_wire().wait_until_writable()

    def send(self, frames: Sequence[Frame]) -> None:
        """Hand over all frames or none, now; see `base.Bus`."""
        self._require_wire().publish(frames)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str = "",
    ) -> None:
        """Send; see `base.Bus`. Waits only while the socket takes no more.

        Cancellation: nothing was sent.
        """
        block = encode_headers(headers) if headers else b""
        wire = self._require_wire()
        while wire.is_congested:
            await wire.wait_until_writable()
        wire.publish([(subject, reply_to, block, payload)])

    async def subscribe(
        self,
        subject: str,
        on_messages: OnMessages,
        *,
        queue: str = "",
        on_denied: OnDenied | None = None,
    ) -> NatsSubscription:
        """Subscribe and return when the broker has it; see `base.Bus`. A denial goes to `on_denied` before the return.

        Cancellation: nothing is subscribed.
        """
        check_subscribe_subject(subject, queue)
        subscription = NatsSubscription(
            sid=str(next(self._sids)),
            subject=subject,
            queue=queue,
            on_messages=on_messages,
            on_denied=on_denied,
            stop=self._stop_intake,
        )
        # before it is confirmed: a connection that comes up meanwhile announces everything in the table
        self._subscriptions.add(subscription)
        is_confirmed = False
        try:
            async with asyncio.timeout(self._link.settings.connect_timeout_s * 2):
                # again, where the connection was exchanged between SUB and PONG
                while not is_confirmed:
                    is_confirmed = await self._confirm(subscription)
        except TimeoutError:
            raise BusUnavailable("no connection to the broker came up in time") from None
        finally:
            if not is_confirmed:
                self._subscriptions.remove(subscription)
                # a SUB may be on its way on any of them
                for wire in self._link.wires:
                    wire.renounce(subscription)
        return subscription

    async def barrier(self) -> None:
        """Return when the broker has processed everything sent before.

        Raises:
            BusUnavailable: not connected, or the connection was lost first.
        """
        await self._require_wire().barrier()

    def on_connected(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every (re)connect; returns a function that ends it."""
        self._link.on_adopted.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._link.on_adopted.remove(callback)

        return end

    def on_publish_denied(self, subject: str, callback: OnDenied) -> Callable[[], None]:
        """Call `callback` when the broker denies a publish on `subject`; returns a function that ends it."""
        return self._denials.on_publish_denied(subject, callback)

    def _make_loopback(self, node: str) -> Loopback:
        loopback = Loopback(node)
        subscription = NatsSubscription(
            sid=str(next(self._sids)),
            subject=loopback.subject,
            queue="",
            on_messages=loopback.take,
            on_denied=loopback.turn_off,
            stop=self._stop_intake,
        )
        self._subscriptions.add(subscription)
        self._denials.on_publish_denied(loopback.subject, loopback.turn_off)
        return loopback

    async def _confirm(self, subscription: NatsSubscription) -> bool:
        """Have the present connection confirm a subscription; False where it must be tried again."""
        wire = self._link.wire
        if wire is None:
            # a short break is waited out; in a long one nothing must stand still because of this
            left_s = _SHORT_BREAK_S - self._link.away_s
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    await self._link.connected.wait()
            except TimeoutError:
                raise BusUnavailable("not connected to the broker") from None
            return False
        wire.announce(subscription)
        try:
            await wire.barrier()
        except BusUnavailable:
            return False
        subscription.note_confirmed()
        # confirmed on a connection that is not the one in use any more counts for nothing
        return self._link.wire is wire

    async def _stop_intake(self, subscription: NatsSubscription) -> None:
        if subscription.is_closing:
            return
        subscription.is_closing = True  # from here on no new connection announces it
        try:
            async with asyncio.timeout(_BARRIER_TIMEOUT_S):
                await self._overlap(subscription)
                for wire in self._link.wires:
                    wire.renounce(subscription)
                for wire in self._link.wires:
                    # Twice: a message that the broker routed while it took our UNSUB comes before the second answer.
                    await wire.barrier()
                    await wire.barrier()
        except (BusUnavailable, TimeoutError) as error:
            _log.debug("unsubscribing %s: %s", subscription.subject, error)
        finally:
            # cut off while it overlapped, it is unsubscribed all the same
            for wire in self._link.wires:
                wire.renounce(subscription)
            self._subscriptions.remove(subscription)

    async def _overlap(self, subscription: NatsSubscription) -> None:
        """Stay a moment beside whatever has just taken this subscription's place; see `OVERLAP_S`."""
        joined_mono = [
            other.confirmed_mono for other in self._subscriptions.joined_with(subscription)
        ]
        if joined_mono:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, max(joined_mono) + OVERLAP_S - now))

    def _require_wire(self) -> Wire:
        wire = self._link.wire
        if wire is None:
            raise BusUnavailable("not connected to the broker")
        return wire
