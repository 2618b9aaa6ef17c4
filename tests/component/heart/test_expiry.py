"""A time that is over is over, whatever keeps a lane from being sent, and however much of it lies on disk only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from appliance.outbox.lane import MAX_RECORDS
from appliance.outbox.records import AWAITED_ORIGIN
from appliance.workers.given_up import LaneExpiry
from tests.support.one_lane import Shore, open_shore, running
from tests.support.virtual_time import run_virtual

MANY = 3 * MAX_RECORDS


@asynccontextmanager
async def sweeping(shore: Shore) -> AsyncIterator[None]:
    """A daemon looks after lanes that nobody has."""
    expiry = LaneExpiry(shore.services, shore.publisher.stats, lambda *_: "denied: no")
    task = asyncio.create_task(expiry.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def test_a_lane_whose_publisher_cannot_start_ends_what_is_expired() -> None:
    async def scenario() -> None:
        async with open_shore("CommandACK") as central, sweeping(central):
            await central.accept(MANY, expires_s=60.0)
            await central.accept(1, expires_s=600.0)
            await asyncio.sleep(55.0)
            assert central.store.counts().pending == MANY + 1
            await asyncio.sleep(60.0)
            assert central.store.counts().pending == 1
            assert central.store.counts().dead == MANY
            assert central.publisher.stats.dead == MANY
            reason = "expired: no acknowledgement within 60 s: denied: no"
            assert central.reports == [reason] * MANY

    run_virtual(scenario())


def test_a_running_publisher_without_a_broker_ends_what_is_expired() -> None:
    async def scenario() -> None:
        async with open_shore("CommandACK") as central, running(central):
            central.broker.stop()
            await central.accept(MANY, expires_s=60.0)
            await asyncio.sleep(120.0)
            assert central.store.counts().pending == 0
            assert central.store.counts().dead == MANY
            reason = "expired: no acknowledgement within 60 s: there is no connection to the broker"
            assert set(central.reports) == {reason}

    run_virtual(scenario())


@pytest.mark.parametrize("has_publisher", [True, False])
def test_what_somebody_waits_for_is_told_him_and_leaves_no_dead_letter(has_publisher: bool) -> None:
    async def scenario() -> None:
        async with open_shore("CommandACK") as central:
            (awaited,) = await central.accept(expires_s=60.0, origin=AWAITED_ORIGIN)
            fate = central.services.waiters.expect(awaited)
            async with running(central) if has_publisher else sweeping(central):
                central.broker.stop()
                found = await fate
            assert str(found.reason).startswith("expired: ")
            counts = central.store.counts()
            assert (counts.pending, counts.dead, central.publisher.stats.dead) == (0, 0, 0)

    run_virtual(scenario())


def test_a_lane_that_its_publisher_has_is_left_to_it() -> None:
    async def scenario() -> None:
        async with (
            open_shore("CommandACK") as central,
            running(central),
            sweeping(central),
        ):
            await central.accept(10, expires_s=60.0)
            await asyncio.sleep(120.0)
            assert central.store.counts().dead == 10
            reason = "expired: no acknowledgement within 60 s: nobody there takes it"
            assert set(central.reports) == {reason}

    run_virtual(scenario())


def test_a_lane_that_stands_still_is_looked_at_seldom_and_yet_ends_what_is_expired_in_time() -> (
    None
):
    """Thousands of nodes may be away for days: each look at one costs the daemon that waits for them."""
    looks: list[float] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with open_shore("CommandACK") as central, running(central):
            central.broker.stop()
            turn = central.publisher._sender.turn

            def counted() -> float | None:
                looks.append(loop.time())
                return turn()

            central.publisher._sender.turn = counted
            await central.accept(100, expires_s=86_400.0)
            await asyncio.sleep(3_600.0)
            assert len(looks) < 150
            # what comes to a lane that sleeps is known by its own time
            await central.accept(1, expires_s=3.0)
            await asyncio.sleep(2.9)
            assert central.store.counts().dead == 0
            await asyncio.sleep(1.2)
            assert central.store.counts().dead == 1
            await asyncio.sleep(600.0)
            await central.accept(1, expires_s=100.5)
            await asyncio.sleep(100.4)
            assert central.store.counts().dead == 1
            await asyncio.sleep(1.2)
            assert central.store.counts().dead == 2

    run_virtual(scenario())


def test_whoever_follows_messages_learns_soon_that_the_broker_is_away() -> None:
    async def scenario() -> None:
        async with open_shore("CommandACK") as central, running(central):
            with central.services.telemetry._events.listen() as listener:
                await central.accept(1, expires_s=86_400.0)
                await asyncio.sleep(600.0)
                central.broker.stop()
                await asyncio.sleep(2.0)
            whys = [event["why"] async for event in listener if event["event"] == "message_waits"]
            assert whys == ["nobody there", "broker away"]

    run_virtual(scenario())
