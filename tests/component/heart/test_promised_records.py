"""Records that were accepted for an acknowledging destination which acknowledges nothing any more: they still arrive."""

from __future__ import annotations

import asyncio

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
