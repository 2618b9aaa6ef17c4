"""The broker that starts with the daemon, and the way the daemon itself gets in.

Secured, it has a user for each key that the config declares, with the rights that `appliance broker-conf` would write, and
one for the daemon. The daemon's key is made anew at each start, since nobody else needs to know it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from appliance.bus.broker import EmbeddedBroker
from appliance.bus.events import BusEvents, Repeats
from appliance.bus.nats import NatsBus
from appliance.bus.node_keys import make_seed, public_key_of, write_seed
from appliance.core.broker_conf import find_embedded_logins, join_logins, render_conf
from appliance.core.current import Current
from appliance.core.specs import AuthSettings, BrokerSettings, DesiredState, Embedded, SecretRef
from appliance.errors import BusUnavailable
from appliance.telemetry.report import Telemetry

_AGAIN_S = 1.0


class OwnBroker:
    """Life: `start` -> `stop`, with `run` in a task between; built for the set that the daemon starts with."""

    def __init__(
        self,
        directory: Path,
        desired: Current[DesiredState],
        embedded: Embedded,
        report: Callable[[str], None],
    ) -> None:
        self._desired = desired
        self._report = report
        self._seed_path = directory / "daemon.nk"
        self._key = ""
        """The daemon's public key, where a key is needed."""
        self._seed = make_seed() if embedded.secured else ""
        if self._seed:
            self._key = public_key_of(self._seed)
        self._broker = EmbeddedBroker(
            directory,
            desired.value.broker.port,
            jetstream=embedded.jetstream,
            users=self._users_of(desired.value),
            report=report,
            before_first=self._write_seed,
        )
        self._admitting = asyncio.Lock()
        self._is_moving = False
        """Whether a set is on its way into force: both its rights and those of the one before hold."""
        self._has_settled = asyncio.Event()

    @property
    def trouble(self) -> str | None:
        """Why it does not run; None while it does."""
        return self._broker.trouble

    async def start(self) -> None:
        """Start it, now or as soon as it can be: a full disk ends nothing.

        Raises:
            BusUnavailable: there is no program for it, or its port is another's.
        """
        await self._broker.start(insist=False)

    async def stop(self) -> None:
        """End it. Safe to call twice."""
        await self._broker.stop()

    def reach(self, settings: BrokerSettings) -> BrokerSettings:
        """The settings with where it is, and how to get in."""
        seed = SecretRef(kind="file", name=os.fspath(self._seed_path))
        auth = AuthSettings(nkey_seed=seed) if self._key else None
        return replace(settings, servers=(self._broker.url,), auth=auth, tls=None)

    def users_differ(self, old: DesiredState, new: DesiredState) -> bool:
        """Whether one of the sets lets somebody in who the other does not, or to something else."""
        return self._users_of(old) != self._users_of(new)

    async def admit_both(self, old: DesiredState, new: DesiredState) -> None:
        """Allow what either set does: workers of the old one may end what they hold, those of the new one begin.

        Raises:
            BusUnavailable: the broker did not take it.
        """
        self._is_moving = True
        async with self._admitting:
            await self._broker.admit(self._users_of(old, new))

    async def admit_only(self, desired: DesiredState) -> None:
        """Allow what this set does. Raises BusUnavailable."""
        async with self._admitting:
            await self._broker.admit(self._users_of(desired))
        self._is_moving = False

    def settle(self) -> None:
        """The workers are those of the set in force: what only another one allowed ends soon."""
        self._is_moving = False
        self._has_settled.set()

    async def run(self) -> None:
        """Take back what no set allows any more, until cancelled."""
        repeats = Repeats()
        while True:
            await self._has_settled.wait()
            self._has_settled.clear()
            try:
                async with self._admitting:
                    # NB: looked at with the lock held: another set may be on its way by now
                    if not self._is_moving:
                        await self._broker.admit(self._users_of(self._desired.value))
                repeats.forget()
            except BusUnavailable as error:
                if repeats.is_news(str(error)):
                    self._report(str(error))
                await asyncio.sleep(_AGAIN_S)
                self._has_settled.set()

    def _users_of(self, *sets: DesiredState) -> str:
        if not self._key:
            return ""
        return render_conf(join_logins(find_embedded_logins(one, self._key) for one in sets))

    def _write_seed(self) -> None:
        if not self._seed:
            return
        self._seed_path.unlink(missing_ok=True)
        write_seed(self._seed_path, self._seed)


def reach(settings: BrokerSettings, own: OwnBroker | None) -> BrokerSettings:
    """The settings to connect by: with a broker of one's own they say where that is, and the way in."""
    return settings if own is None else own.reach(settings)


async def open_broker(
    stack: AsyncExitStack, state_dir: Path, desired: Current[DesiredState], telemetry: Telemetry
) -> tuple[NatsBus, OwnBroker | None]:
    """Start the daemon's own broker, where it has one, then connect. Both end with the stack.

    Raises:
        BusUnavailable: the own broker cannot be started.
    """
    first = desired.value
    own: OwnBroker | None = None
    if first.broker.embedded:
        own = OwnBroker(
            state_dir / "broker", desired, first.broker.embedded, telemetry.broker_error
        )
        await own.start()
        stack.push_async_callback(own.stop)
    bus = await NatsBus.open(
        reach(first.broker, own),
        name=f"appliance {', '.join(first.run_nodes)[:100]}",
        loopback_node=first.run_nodes[0] if first.run_nodes else None,
        events=BusEvents(
            on_disconnected=lambda: telemetry.broker_disconnected("connection lost"),
            on_error=telemetry.broker_error,
            on_repeated_error=telemetry.broker_error_again,
        ),
        # a broker that is away keeps nobody from handing messages over
        require_connection=False,
    )
    stack.push_async_callback(bus.close)
    return bus, own
