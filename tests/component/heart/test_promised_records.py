"""Records that were accepted for an acknowledging destination which acknowledges nothing any more: they still arrive."""

from __future__ import annotations

import asyncio

from tests.component.heart.worlds import add_pair, config, play
from tests.support.heart_world import World
from tests.support.one_lane import HOUR_S, open_shore, running
from tests.support.virtual_time import run_virtual

KIND = "CommandNACK"


def test_what_was_promised_waits_until_somebody_is_there() -> None:
    async def scenario() -> None:
        async with open_shore(KIND) as central, running(central):
            promised = await central.accept()
            await asyncio.sleep(HOUR_S)
            assert central.store.counts().pending == 1
            assert central.publisher.lane_reason() == "nobody there"
            ship = await central.ship_arrives()
            await asyncio.sleep(60.0)
            assert central.got == promised
            assert central.store.counts().pending == 0
            assert central.store.counts().dead == 0
            await ship.close()

    run_virtual(scenario())


def test_the_lane_goes_on_as_a_whole_when_somebody_comes() -> None:
    """Not one record at a time, each waited for."""

    async def scenario() -> None:
        async with open_shore(KIND) as central, running(central):
            promised = await central.accept(1_000)
            await asyncio.sleep(HOUR_S)
            ship = await central.ship_arrives()
            await asyncio.sleep(60.0)
            assert central.got == promised
            assert central.store.counts().pending == 0
            await ship.close()

    run_virtual(scenario())


def test_it_is_sent_once_where_somebody_is_there() -> None:
    async def scenario() -> None:
        async with open_shore(KIND) as central, running(central):
            ship = await central.ship_arrives()
            numbers = await central.accept(3)
            await asyncio.sleep(HOUR_S)
            assert central.got == numbers
            assert central.store.counts().pending == 0
            await ship.close()

    run_virtual(scenario())


def test_what_was_never_promised_is_over_once_it_is_sent() -> None:
    async def scenario() -> None:
        async with open_shore(KIND) as central, running(central):
            await central.accept(wants_ack=False)
            await asyncio.sleep(1.0)
            assert central.store.counts().pending == 0

    run_virtual(scenario())


def test_an_appliance_says_when_it_has_done_what_it_need_not_acknowledge() -> None:
    """So thousands of records need no wait for an answer that does not come."""

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        beta.kill()
        texts = [f"m{number}" for number in range(3_000)]
        for first in range(0, len(texts), 500):
            await alpha.submit(texts[first : first + 500], method="REQToConsole")
        quiet = config(events=", ack: {mode: none}")
        alpha.reload(world.desired(quiet, "alpha"))
        beta.desired = world.desired(quiet, "beta")
        await asyncio.sleep(60.0)
        assert len(alpha.disk.records) == len(texts)
        await beta.start()
        assert await world.settle(30.0, until=lambda: not alpha.disk.records)
        assert sorted(world.log.texts()) == sorted(texts)
        assert not alpha.disk.dead

    play(scenario)
