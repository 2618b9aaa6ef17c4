"""Makes connections on which every subscription is confirmed, and empties those no longer wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from appliance.bus.handshake import open_wire, parse_info, read_addresses
from appliance.bus.protocol import Wire, WireEvents
from appliance.bus.servers import Address, ServerPool
from appliance.bus.subscription import OVERLAP_S, NatsSubscription
from appliance.core.specs import BrokerSettings
from appliance.errors import BusUnauthorized, BusUnavailable

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
        """Try each address once; see `connect_once`.

        Where none will do, a refused login is raised rather than a broker that is away, since only the former needs
        somebody to act; the other failures are reported.
        """
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
