"""Operations that nobody waits for gather on the loop; whatever else comes takes them along."""

import asyncio

import pytest

from appliance.outbox.operations import Call, Finish, Put, Settle
from appliance.outbox.patience import ENOUGH_ROWS, FINISH_WAIT_S, SETTLE_WAIT_S, Patience
from tests.support.virtual_time import run_virtual


class World:
    """A patience in virtual time, and what it handed over."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.handed_over = []
        self.is_untouched = False
        self.patience = Patience(self.loop, self._take, lambda: self.is_untouched)
        self.began_at = self.loop.time()

    def _take(self, together):
        self.handed_over.append((round(self.loop.time() - self.began_at, 6), list(together)))

    def pass_on(self, *operations):
        for operation in operations:
            self.patience.pass_on(operation)
        return operations

    def make_finish(self, *, is_urgent=False, count=1):
        items = [None] * count
        return Finish(items, (), (), lambda _: None, is_urgent)

    def make_put(self):
        return Put([], self.loop.create_future())

    def make_call(self):
        return Call(lambda _: None, self.loop.create_future())


def play(scenario):
    async def run():
        await scenario(World())

    run_virtual(run())


@pytest.mark.parametrize("kind", ["put", "call", "urgent finish"])
def test_what_somebody_waits_for_goes_at_once_and_takes_the_others_along_before_it(kind):
    async def scenario(world):
        make = {
            "put": world.make_put,
            "call": world.make_call,
            "urgent finish": lambda: world.make_finish(is_urgent=True),
        }
        gathered = world.pass_on(Settle(done=[1]), world.make_finish(), Settle(done=[2]))
        assert not world.handed_over
        (last,) = world.pass_on(make[kind]())
        assert world.handed_over == [(0.0, [*gathered, last])]
        await asyncio.sleep(1)
        assert len(world.handed_over) == 1

    play(scenario)


def test_what_nobody_waits_for_goes_when_its_time_is_over():
    async def scenario(world):
        settles = world.pass_on(Settle(done=[1]), Settle(done=[2]))
        await asyncio.sleep(1)
        finishes = world.pass_on(world.make_finish(), world.make_finish())
        await asyncio.sleep(1)
        assert world.handed_over == [
            (SETTLE_WAIT_S, [*settles]),
            (1 + FINISH_WAIT_S, [*finishes]),
        ]

    play(scenario)


def test_the_least_patient_counts_for_all():
    async def scenario(world):
        (settle,) = world.pass_on(Settle(done=[1]))
        await asyncio.sleep(0.01)
        (finish,) = world.pass_on(world.make_finish())
        await asyncio.sleep(1)
        assert world.handed_over == [(0.01 + FINISH_WAIT_S, [settle, finish])]

    play(scenario)


def test_an_operation_after_others_went_has_a_time_of_its_own():
    async def scenario(world):
        world.pass_on(world.make_finish(), world.make_put())
        await asyncio.sleep(FINISH_WAIT_S / 2)
        (settle,) = world.pass_on(Settle(done=[1]))
        await asyncio.sleep(1)
        assert world.handed_over[1:] == [(round(FINISH_WAIT_S / 2 + SETTLE_WAIT_S, 6), [settle])]

    play(scenario)


def test_so_many_are_company_enough():
    async def scenario(world):
        world.pass_on(world.make_finish(count=ENOUGH_ROWS - 1))
        assert not world.handed_over
        world.pass_on(Settle(done=[1]))
        assert len(world.handed_over) == 1
        world.pass_on(world.make_finish(count=ENOUGH_ROWS - 1))
        assert len(world.handed_over) == 1
        await asyncio.sleep(1)

    play(scenario)


def test_what_was_handed_over_and_not_looked_at_yet_is_company():
    async def scenario(world):
        (settle,) = world.pass_on(Settle(done=[1]))
        world.is_untouched = True
        (finish,) = world.pass_on(world.make_finish())
        assert world.handed_over == [(0.0, [settle, finish])]

    play(scenario)
