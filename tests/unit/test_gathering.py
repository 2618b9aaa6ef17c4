"""What comes few at a time while more is on the way is handed over together, soon and in order."""

from __future__ import annotations

import asyncio

from appliance.bus.base import BusMessage
from appliance.delivery.gathering import ENOUGH, GATHER_S, Gathering
from tests.support.virtual_time import run_virtual


class Ear:
    def __init__(self) -> None:
        self.lists: list[list[int]] = []
        self.gathering = Gathering(self.take)

    def take(self, messages: list[BusMessage]) -> None:
        self.lists.append([int(message.payload) for message in messages])

    def add(self, *numbers: int, has_more: bool = True) -> None:
        messages = [BusMessage("s", b"%d" % number) for number in numbers]
        self.gathering.add(messages, has_more=has_more)


def test_the_last_that_is_on_its_way_takes_along_what_came_before_it() -> None:
    async def scenario() -> None:
        ear = Ear()
        ear.add(1, 2)
        ear.add(3)
        assert ear.lists == []
        ear.add(4, has_more=False)
        assert ear.lists == [[1, 2, 3, 4]]
        await asyncio.sleep(2 * GATHER_S)
        assert ear.lists == [[1, 2, 3, 4]]

    run_virtual(scenario())


def test_nothing_waits_longer_than_a_moment_for_what_does_not_come() -> None:
    async def scenario() -> None:
        ear = Ear()
        ear.add(1)
        await asyncio.sleep(GATHER_S / 2)
        ear.add(2)
        await asyncio.sleep(GATHER_S * 0.6)
        assert ear.lists == [[1, 2]]
        ear.add(3)
        await asyncio.sleep(GATHER_S * 1.1)
        assert ear.lists == [[1, 2], [3]]

    run_virtual(scenario())


def test_as_many_as_are_worth_a_list_of_their_own_do_not_wait() -> None:
    async def scenario() -> None:
        ear = Ear()
        ear.add(*range(ENOUGH - 1))
        assert ear.lists == []
        ear.add(ENOUGH)
        assert [len(one) for one in ear.lists] == [ENOUGH]

    run_virtual(scenario())


def test_an_intake_that_ends_hands_over_what_it_has() -> None:
    async def scenario() -> None:
        ear = Ear()
        ear.add(1)
        ear.gathering.end()
        assert ear.lists == [[1]]
        ear.gathering.end()
        await asyncio.sleep(2 * GATHER_S)
        assert ear.lists == [[1]]

    run_virtual(scenario())
