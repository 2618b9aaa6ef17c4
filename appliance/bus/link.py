"""One logical connection that outlives brokers, networks and changes of settings.

A `Link` holds at most one `Wire` in use. Its keeper task makes a new one whenever there is none, for ever, and watches
the one there is. `NatsBus` puts the bus's interface on top.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

from appliance.bus.connector import Connector
from appliance.bus.events import Reporter
from appliance.bus.protocol import Wire
from appliance.bus.servers import ServerPool
from appliance.bus.subscription import NatsSubscription
from appliance.bus.watchdog import Loopback, watch_wire
from appliance.core.specs import BrokerSettings
from appliance.errors import BusUnauthorized, BusUnavailable
from appliance.supervision import keep_running

_MAX_RETRY_WAIT_S = 2.0
"""Longest wait between attempts to connect: a broker that returns is used within seconds."""

_MAX_UNAUTHORIZED_WAIT_S = 5.0
"""Between attempts with credentials that were refused; every one is a line in the broker's log."""

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
        self._subscriptions = subscriptions
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
