"""One logical connection that outlives brokers, networks and changes of settings.

A `Link` holds at most one `Wire` in use. Its keeper task makes a new one whenever there is none, for ever, and watches
the one there is. `NatsBus` puts the bus's interface on top.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from appliance.bus.events import Reporter
from appliance.bus.handshake import open_wire, parse_info, read_addresses
from appliance.bus.protocol import Wire, WireEvents
from appliance.bus.servers import Address, ServerPool
from appliance.bus.subscription import OVERLAP_S, NatsSubscription
from appliance.bus.watchdog import Loopback, watch_wire
from appliance.core.specs import BrokerSettings
from appliance.errors import BusUnauthorized, BusUnavailable
from appliance.supervision import keep_running

_MAX_RETRY_WAIT_S = 2.0
"""Longest wait between attempts to connect: a broker that returns is used within seconds."""

_MAX_UNAUTHORIZED_WAIT_S = 5.0
"""Between attempts with credentials that were refused; every one is a line in the broker's log."""

_REFUSED_AGAIN_S = 0.25
"""Before a login that was refused is tried again: nats-server turns away whoever logs in while it takes in its own changed
configuration, and one in twenty was beside forty changes a second.
"""

_STEADY_AFTER_S = 5.0
"""A connection that lived this long is replaced quickly; one that broke at once waits as after a failure."""

_DEFAULT_MAX_PAYLOAD_BYTES = 1_048_576
"""nats-server's default, assumed until a broker has said its own."""


class Link:
    """Life: `open` -> `exchange` any number of times -> `close`.

    `subscriptions` is the bus's table: everything in it is confirmed on a wire before that is put to use.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        name: str,
        subscriptions: Mapping[str, NatsSubscription],
        reporter: Reporter,
        on_error: Callable[[str], None],
    ) -> None:
        """Store only.

        Args:
            on_error: takes the text of an ``-ERR`` line.
        """
        self.wire: Wire | None = None
        """The wire in use."""
        self.settings = settings
        self.server = ServerPool(settings.servers).first
        """The broker in use, or the one used last."""
        self._last_max_payload_bytes = _DEFAULT_MAX_PAYLOAD_BYTES
        self.epoch = 0
        """Losses so far."""
        self.connects = 0
        self.failed: str | None = None
        """Why the broker refuses us, while it does."""
        self.trouble: str | None = None
        """Why there is no connection: the words of the last failure; None while there is one."""
        self.connected = asyncio.Event()
        self.on_adopted: list[Callable[[], None]] = []
        """Called after every connect."""
        self._name = name
        self._reporter = reporter
        self._pool = ServerPool(settings.servers)
        self._connector = Connector(
            name=name,
            subscriptions=subscriptions,
            on_lost=self._on_lost,
            on_error=on_error,
            report=reporter.report,
        )
        self._loopback: Loopback | None = None
        self._is_closing = False
        self._changed = asyncio.Event()
        self._connecting = asyncio.Lock()
        self._adopted_mono = 0.0
        self._lost_mono: float | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def max_payload_bytes(self) -> int:
        """What the broker in use, or the one used last, takes in one message."""
        return self._last_max_payload_bytes if self.wire is None else self.wire.max_payload

    @property
    def has_streams(self) -> bool:
        """Whether the broker in use has JetStream."""
        return self.wire is not None and self.wire.has_streams

    @property
    def wires(self) -> tuple[Wire, ...]:
        """Every wire that may carry a subscription now."""
        return tuple(self._connector.wires)

    @property
    def away_s(self) -> float:
        """For how long there has been no connection; 0 while there is one."""
        if self.wire is not None or self._lost_mono is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._lost_mono

    async def open(self, *, require_connection: bool, loopback: Loopback | None) -> None:
        """Try every broker once; without success go on in the background, or raise if `require_connection`.

        Whatever a broker says now, it may say otherwise later: its list of users is rolled out after ours, a secret is
        mounted late, our own connection of a moment ago still takes the account's only place.
        """
        self._loopback = loopback
        try:
            self._adopt(await self._connector.connect_any(self.settings, self._pool))
        except (BusUnauthorized, BusUnavailable) as error:
            if require_connection:
                raise
            self._note_failure(error)
            self._lost_mono = asyncio.get_running_loop().time()
        self._keeper = asyncio.create_task(
            keep_running("the keeper of the connection", self._keep, self._reporter.report),
            name=f"bus connection of {self._name}",
        )

    async def close(self) -> None:
        """Stop trying; empty and close the wire in use."""
        self._is_closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        # before it is emptied: nothing new is sent on it
        wire, self.wire = self.wire, None
        self.connected.clear()
        if wire is not None:
            await self._connector.retire(wire)

    async def exchange(self, settings: BrokerSettings, *, insist: bool = True) -> None:
        """Connect by other settings, put that to use, and only then empty and close what was in use.

        Args:
            insist: raise where no connection comes about; else go on trying by the new settings alone.

        Raises:
            BusUnauthorized, BusUnavailable: nothing has changed.
        """
        pool = ServerPool(settings.servers)
        async with self._connecting:
            try:
                wire = await self._connector.connect_any(settings, pool)
            except (BusUnauthorized, BusUnavailable) as error:
                if insist:
                    raise
                old = self.wire
                self.settings, self._pool = settings, pool
                if old is not None:
                    self._on_lost(old, "other brokers are asked for")
                self._note_failure(error)
                self._changed.set()
            else:
                # NB: no await from here to the end of the block.
                old = self.wire
                self.settings, self._pool = settings, pool
                self._adopt(wire)
        await self._let_go(old)

    async def renew(self) -> None:
        """Connect anew by the settings in use, since what they name has changed; put that to use, then close the old one.

        Raises:
            BusUnauthorized, BusUnavailable: the connection that is there goes on.
        """
        async with self._connecting:
            old = self.wire
            if old is None:
                return  # the next try reads what is there by then
            self._adopt(await self._connector.connect_any(self.settings, self._pool))
        await self._let_go(old)

    async def _let_go(self, old: Wire | None) -> None:
        if old is None or old.is_lost:
            return
        # an exchange of settings may have connected while we waited for our turn
        if self.wire is None:
            await self._connector.retire(old)
        else:
            await self._connector.replace(old)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._is_closing:
            wire = self.wire
            if wire is not None:
                self._changed.clear()
                await watch_wire(
                    wire,
                    ping_interval_s=self.settings.ping_interval_s,
                    loopback=self._loopback,
                    changed=self._changed,
                )
                if loop.time() - self._adopted_mono > _STEADY_AFTER_S:
                    # it lived long enough: this break is not one of a row
                    failures = 0
                continue
            await asyncio.sleep(self._retry_wait_s(failures))
            failures += 1
            async with self._connecting:
                if self.wire is None:
                    await self._try_connect()

    async def _try_connect(self) -> None:
        try:
            self._adopt(await self._connector.connect_once(self.settings, self._pool))
        except (BusUnauthorized, BusUnavailable) as error:
            self._note_failure(error)

    def _note_failure(self, error: BusUnauthorized | BusUnavailable) -> None:
        if isinstance(error, BusUnauthorized):
            self.failed = str(error)
        self.trouble = str(error)
        self._reporter.report(str(error))

    def _retry_wait_s(self, failures: int) -> float:
        # a whole fleet loses its broker at the same moment, and must not come back as one
        jitter = random.uniform(0.5, 1.5)
        if failures == 0:
            # most breaks are short: the first try comes soon, the others grow apart
            return self.settings.reconnect_wait_s * jitter * 0.2
        ceiling_s = _MAX_RETRY_WAIT_S if self.failed is None else _MAX_UNAUTHORIZED_WAIT_S
        return min(ceiling_s, self.settings.reconnect_wait_s * 1.5 ** min(failures, 20)) * jitter

    def _adopt(self, wire: Wire) -> None:
        self.wire = wire
        self.server = wire.server
        self._last_max_payload_bytes = wire.max_payload
        self.failed = self.trouble = None
        self.connects += 1
        self._adopted_mono = asyncio.get_running_loop().time()
        self.connected.set()
        self._changed.set()
        self._reporter.connected(is_first=self.connects == 1)
        for callback in tuple(self.on_adopted):
            self._reporter.call(callback)

    def _on_lost(self, wire: Wire, reason: str) -> None:
        # one that is being emptied: nothing that is sent now depends on it
        if wire is not self.wire:
            return
        self.wire = None
        self._lost_mono = asyncio.get_running_loop().time()
        self.epoch += 1
        self.connected.clear()
        self._changed.set()
        self.trouble = f"connection to broker {wire.server} lost: {reason}"
        self._reporter.report(self.trouble)
        self._reporter.disconnected()


# Makes connections on which every subscription is confirmed, and empties those no longer wanted.

_log = logging.getLogger(__name__)

_RETIRE_TIMEOUT_S = 5.0
"""For the last round trips of a connection; beyond it the other side is taken for dead."""

_CLOSE_TIMEOUT_S = 1.0
"""For a socket to write what is left and close."""


class Connector:
    """Owned by `NatsBus`, which decides which wire is in use. `subscriptions` is the bus's table."""

    def __init__(
        self,
        *,
        name: str,
        subscriptions: Mapping[str, NatsSubscription],
        on_lost: Callable[[Wire, str], None],
        on_error: Callable[[str], None],
        report: Callable[[str], None],
    ) -> None:
        self._name = name
        self._subscriptions = subscriptions
        self._on_lost = on_lost
        self._on_error = on_error
        self._report = report
        self.wires: set[Wire] = set()
        """Every wire that may carry a subscription: in use, being prepared, being emptied."""

    async def connect_any(self, settings: BrokerSettings, pool: ServerPool) -> Wire:
        """Try each address once, and once more where a login is refused; see `connect_once`.

        Where none will do, a refused login is raised rather than a broker that is away, since only the former needs
        somebody to act; the other failures are reported.
        """
        try:
            return await self._connect_any(settings, pool)
        except BusUnauthorized:
            await asyncio.sleep(_REFUSED_AGAIN_S)
            return await self._connect_any(settings, pool)

    async def _connect_any(self, settings: BrokerSettings, pool: ServerPool) -> Wire:
        failures: list[BusUnauthorized | BusUnavailable] = []
        for _ in range(max(1, len(pool))):
            try:
                wire = await self.connect_once(settings, pool)
            except (BusUnauthorized, BusUnavailable) as error:
                failures.append(error)
            else:
                self._report_all(failures)
                return wire
        refusals = [error for error in failures if isinstance(error, BusUnauthorized)]
        worst = (refusals or failures)[-1]
        failures.remove(worst)
        self._report_all(failures)
        raise worst

    def _report_all(self, failures: list[BusUnauthorized | BusUnavailable]) -> None:
        for error in failures:
            self._report(str(error))

    async def connect_once(self, settings: BrokerSettings, pool: ServerPool) -> Wire:
        """Connect to the next address and have every subscription confirmed there.

        NB: nothing is awaited between the last look at the table and the return, so that a caller that puts the wire
        to use without awaiting misses no subscription.

        Raises:
            BusUnauthorized: the broker refused the credentials, or they cannot be read.
            BusUnavailable: no connection came about.

        Cancellation: nothing stays open.
        """
        try:
            address = pool.take()
        except LookupError as error:
            raise BusUnavailable(str(error)) from None
        wire = await open_wire(
            address,
            settings,
            name=self._name,
            subscriptions=self._subscriptions,
            events=self._make_events(pool, address),
            on_announced=lambda announced: pool.discover(announced, address),
        )
        is_ready = False
        # from here on a subscription that ends is renounced here as well
        self.wires.add(wire)
        try:
            async with asyncio.timeout(settings.connect_timeout_s * 2):
                await self._announce_all(wire)
            is_ready = True
        except TimeoutError:
            raise BusUnavailable(f"broker {wire.server} did not confirm in time") from None
        finally:
            if not is_ready:
                wire.drop("not confirmed")
                self.wires.discard(wire)
        # the others get their turn only when this one fails
        pool.stay()
        return wire

    async def replace(self, wire: Wire) -> None:
        """Take all subscriptions off a wire in whose place another is in use now, and `retire` it.

        Cancellation: the wire is closed.
        """
        for subscription in tuple(self._subscriptions.values()):
            if not subscription.queue:  # this would hear everything twice from now on
                wire.renounce(subscription)
        try:
            await asyncio.sleep(OVERLAP_S)
        except asyncio.CancelledError:
            self.wires.discard(wire)
            wire.close()
            raise
        for subscription in tuple(self._subscriptions.values()):
            wire.renounce(subscription)
        await self.retire(wire)

    async def retire(self, wire: Wire) -> None:
        """Empty a wire no longer in use and close it, in bounded time.

        What was published on it has arrived, and what was under way has been handed over, unless the broker is dead.
        """
        try:
            async with asyncio.timeout(_RETIRE_TIMEOUT_S):
                # twice: what the broker routed while it took our UNSUB comes before the second answer
                await wire.barrier()
                await wire.barrier()
        except (BusUnavailable, TimeoutError) as error:
            _log.debug("retiring a connection: %s", error)
        finally:
            self.wires.discard(wire)
            wire.close()
        await wire.wait_closed(_CLOSE_TIMEOUT_S)

    def _make_events(self, pool: ServerPool, address: Address) -> WireEvents:
        def on_info(wire: Wire, line: bytes) -> None:
            info = parse_info(line)
            pool.discover(read_addresses(info), address)
            max_payload = info.get("max_payload")
            if isinstance(max_payload, int) and max_payload > 0:
                wire.max_payload = max_payload
            wire.has_streams = info.get("jetstream") is True

        return WireEvents(
            on_lost=self._forget,
            on_error=self._on_error,
            on_failure=self._report,
            on_info=on_info,
        )

    def _forget(self, wire: Wire, reason: str) -> None:
        self.wires.discard(wire)
        self._on_lost(wire, reason)

    async def _announce_all(self, wire: Wire) -> None:
        if wire.lost_reason is not None:
            raise BusUnavailable(f"broker {wire.server} was lost after login: {wire.lost_reason}")
        # until none is missing: others subscribe while the barrier is awaited
        while missing := [
            item
            for item in self._subscriptions.values()
            if item.sid not in wire.announced and not item.is_closing
        ]:
            for item in missing:
                wire.announce(item)
            await wire.barrier()
            for item in missing:
                item.note_confirmed()
