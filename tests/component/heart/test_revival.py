"""Dead letters that an earlier version left on a silent line are sent again when their node says hello."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from appliance.core.current import Current
from appliance.core.specs import DesiredState, StateSettings
from appliance.telemetry.events import EventHub
from appliance.telemetry.report import Telemetry
from appliance.workers.given_up import Revival
from tests.support.one_lane import HOUR_S, Shore, open_shore
from tests.support.virtual_time import run_virtual

OLD = "no acknowledgement after 3 tries of 5 s"
WINDOW_S = 25 * HOUR_S
DESIRED = DesiredState(
    run_nodes=(),
    declared_nodes=frozenset(),
    workers={},
    publisher_defaults={},
    state=StateSettings(dedupe_window_s=WINDOW_S),
)


async def bury(shore: Shore, reason: str) -> None:
    await shore.accept()
    (record,) = shore.store.lane((shore.spec.node, shore.spec.subject)).take(1)
    await shore.store.settle_dead(record, reason)


def play(scenario: Callable[[Shore, Revival], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_shore("CommandACK") as shore:
            revival = Revival(
                shore.services.store,
                Telemetry(EventHub()),
                Current(
                    DesiredState(
                        run_nodes=(),
                        declared_nodes=frozenset(),
                        workers={},
                        publisher_defaults={},
                        state=StateSettings(dedupe_window_s=WINDOW_S),
                    )
                ),
            )
            await scenario(shore, revival)
            await revival.close()

    run_virtual(run())


def test_what_nobody_answered_is_sent_again_and_nothing_else() -> None:
    async def scenario(shore: Shore, revival: Revival) -> None:
        for reason in (OLD, "refused by the receiver: no", f"expired: {OLD}", "failed: disk"):
            await bury(shore, reason)
        revival.node_seen("elsewhere")
        await asyncio.sleep(1.0)
        assert shore.store.counts().pending == 0
        revival.node_seen("ship")
        await asyncio.sleep(1.0)
        assert shore.store.counts().pending == 1
        assert shore.store.counts().dead == 3

    play(scenario)


def test_what_the_node_may_have_done_and_forgotten_stays_where_it_is() -> None:
    async def scenario(shore: Shore, revival: Revival) -> None:
        await bury(shore, OLD)
        await asyncio.sleep(WINDOW_S + 1.0)
        revival.node_seen("ship")
        await asyncio.sleep(1.0)
        assert shore.store.counts().pending == 0

    play(scenario)
