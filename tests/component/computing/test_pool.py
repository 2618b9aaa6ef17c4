"""The pool of processes that compute, in virtual time, on processes that are doubles."""

import asyncio
import random

import pytest

from appliance.methods.computing import pool as pools
from appliance.methods.computing.pool import ProcessPhase, ProcessPool
from appliance.methods.computing.process import ProcessEnded
from tests.support.virtual_time import run_virtual


class Double:
    """A process whose orders say how long they take and how they end: ``b"5"``, ``b"1 die"``, ``b"hang"``."""

    def __init__(self, pid):
        self.pid = pid
        self.ended = asyncio.Event()
        self.orders = []
        self._end = ""

    async def ask(self, order):
        if self.ended.is_set():
            raise ProcessEnded(self.describe_end())
        assert len(self.orders) == 0 or self.orders[-1].endswith(b" done"), "one at a time"
        self.orders.append(order)
        seconds, _, word = order.decode().partition(" ")
        working = asyncio.ensure_future(asyncio.sleep(1e6 if seconds == "hang" else float(seconds)))
        dying = asyncio.ensure_future(self.ended.wait())
        try:
            await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            dying.cancel()
        if word == "die":
            self.die("was killed by signal 11")
        if self.ended.is_set():
            raise ProcessEnded(self.describe_end())
        self.orders[-1] += b" done"
        return b"%d" % self.pid

    def die(self, end):
        self._end = self._end or end
        self.ended.set()

    def kill(self):
        self.die("was killed by signal 9")

    async def end(self):
        self.kill()

    def describe_end(self):
        return self._end


class World:
    """A pool, the processes that it started, and what it told."""

    def __init__(self):
        self.started = []
        self.died = []
        self.restarted = []
        self.start_error = None
        self.pool = ProcessPool(self._start, self)

    async def _start(self):
        await asyncio.sleep(0.3)
        if self.start_error is not None:
            raise self.start_error
        self.started.append(Double(100 + len(self.started)))
        return self.started[-1]

    def process_died(self, number, pid, reason, doing):
        self.died.append((number, pid, reason, doing))

    def process_restarted(self, number, pid):
        self.restarted.append((number, pid))

    def compute(self, order, limit_s=60.0):
        return asyncio.ensure_future(self.pool.compute(order, limit_s, order.decode()))

    @property
    def alive(self):
        return [one.pid for one in self.started if not one.ended.is_set()]

    def phases(self):
        return [view.phase for view in self.pool.views()]


def play(scenario, seed=None):
    async def main():
        world = World()
        try:
            await scenario(world)
        finally:
            await world.pool.close()
        assert world.alive == []

    run_virtual(main(), seed=seed)


def now():
    return asyncio.get_running_loop().time()


def test_no_process_runs_while_none_is_wanted_and_one_comes_for_an_order_all_the_same():
    async def scenario(world):
        world.pool.resize(4, is_wanted=False)
        await asyncio.sleep(10)
        assert world.started == []
        # by a worker that somebody has started beside the config, or one that ends with what it has in hand
        assert await world.compute(b"1") == b"100"
        await asyncio.sleep(1)
        assert world.pool.views() == []

    play(scenario)


def test_processes_that_are_wanted_are_there_before_the_first_order():
    async def scenario(world):
        world.pool.resize(3, is_wanted=True)
        await asyncio.sleep(1)
        assert world.phases() == [ProcessPhase.IDLE] * 3
        began = now()
        await asyncio.gather(*[world.compute(b"1") for _ in range(6)])
        assert now() - began == pytest.approx(2.0)
        assert sum(view.handled for view in world.pool.views()) == 6

    play(scenario)


def test_orders_begin_in_the_order_in_which_they_came():
    async def scenario(world):
        world.pool.resize(1, is_wanted=True)
        await asyncio.gather(*[world.compute(b"1 %d" % number) for number in range(5)])
        assert world.started[0].orders == [b"1 %d done" % number for number in range(5)]

    play(scenario)


def test_process_that_dies_takes_its_own_order_with_it_and_is_started_again():
    async def scenario(world):
        world.pool.resize(2, is_wanted=True)
        dying, other, next_one = (world.compute(word) for word in (b"2 die", b"5", b"1"))
        with pytest.raises(ProcessEnded, match="signal 11"):
            await dying
        assert await other == b"101"
        assert await next_one
        assert world.died == [(1, 100, "was killed by signal 11", "2 die")]
        assert world.restarted == [(1, 102)]
        assert [view.restarts for view in world.pool.views()] == [1, 0]
        assert world.pool.restarts == 1

    play(scenario)


def test_process_that_dies_while_it_has_nothing_to_do_is_started_again():
    async def scenario(world):
        world.pool.resize(1, is_wanted=True)
        await asyncio.sleep(1)
        world.started[0].die("was killed by signal 9")
        await asyncio.sleep(1)
        assert world.phases() == [ProcessPhase.IDLE]
        assert world.alive == [101]
        assert await world.compute(b"1") == b"101"
        world.started[1].die("was killed by signal 9")
        await asyncio.sleep(1)
        assert world.alive == [102]
        # nor is what it had finished before to blame
        assert [one[3] for one in world.died] == ["", ""]

    play(scenario)


def test_processes_that_die_again_and_again_are_started_after_growing_pauses():
    async def scenario(world):
        world.pool.resize(1, is_wanted=True)
        for _ in range(12):
            with pytest.raises(ProcessEnded):
                await world.compute(b"0 die")
        # 0.1 s, doubled each time, and a start
        assert now() - 1_000.0 > sum(0.1 * 2**number for number in range(9))
        began = now()
        assert await world.compute(b"1")
        assert now() - began <= pools.AGAIN_MAX_S + 2
        with pytest.raises(ProcessEnded):
            await world.compute(b"0 die")
        began = now()
        assert await world.compute(b"1"), "it has finished something: the next pause is short again"
        assert now() - began < 2

    play(scenario)


def test_process_that_cannot_be_started_is_tried_again_and_orders_wait_for_it():
    async def scenario(world):
        world.start_error = OSError(11, "Resource temporarily unavailable")
        world.pool.resize(1, is_wanted=True)
        waiting = world.compute(b"1")
        await asyncio.sleep(100)
        assert world.phases() == [ProcessPhase.BACKING_OFF]
        assert "cannot be started" in world.pool.views()[0].trouble
        assert world.pool.waiting == 1
        assert 7 < len(world.died) < 15
        world.start_error = None
        assert await waiting == b"100"
        assert world.pool.views()[0].trouble == ""

    play(scenario)


def test_order_that_takes_too_long_costs_its_process_and_no_other():
    async def scenario(world):
        world.pool.resize(2, is_wanted=True)
        hanging, other = world.compute(b"hang", 5.0), world.compute(b"20")
        began = now()
        with pytest.raises(TimeoutError):
            await hanging
        assert now() - began == pytest.approx(5.3, abs=0.5)
        assert await world.compute(b"1"), "its place is filled at once"
        assert now() - began < 8
        assert await other == b"101"
        assert world.died == [], "its end was ours"

    play(scenario)


def test_time_begins_when_a_process_begins():
    async def scenario(world):
        world.pool.resize(1, is_wanted=True)
        assert await asyncio.gather(*[world.compute(b"4", 5.0) for _ in range(10)])

    play(scenario)


def test_cancelled_order_costs_the_process_that_works_on_it_and_one_that_waits_costs_none():
    async def scenario(world):
        world.pool.resize(1, is_wanted=True)
        working, waiting, other = (world.compute(word) for word in (b"hang", b"1", b"2"))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(0)
        assert world.alive == [100]
        working.cancel()
        assert await other == b"101"
        assert all(b"1" not in one.orders for one in world.started)

    play(scenario)


def test_cancellation_that_comes_with_the_outcome_costs_nobody():
    async def scenario(world):
        world.pool.resize(1, is_wanted=True)
        await asyncio.sleep(1)
        first, second = world.compute(b"1"), world.compute(b"3")
        await asyncio.sleep(0)
        process = world.started[0]
        while process.orders != [b"1 done", b"3"]:
            await asyncio.sleep(0.001)
            if process.orders[0].endswith(b"done"):
                first.cancel()
        assert await second == b"100"

    play(scenario)


def test_fewer_processes_finish_what_they_have_and_take_no_more_than_is_asked():
    async def scenario(world):
        world.pool.resize(4, is_wanted=True)
        asked = [world.compute(b"10") for _ in range(12)]
        await asyncio.sleep(5)
        world.pool.resize(2, is_wanted=True)
        await asyncio.sleep(0)
        assert len(world.pool.views()) == 4
        await asyncio.sleep(10)
        assert world.phases() == [ProcessPhase.WORKING] * 2
        world.pool.resize(3, is_wanted=True)
        await asyncio.gather(*asked)
        assert len(world.pool.views()) == 3
        world.pool.resize(3, is_wanted=False)
        await asyncio.sleep(0.1)
        assert world.pool.views() == []

    play(scenario)


def test_restarts_never_fall_when_a_place_goes():
    async def scenario(world):
        world.pool.resize(2, is_wanted=True)
        for _ in range(4):
            with pytest.raises(ProcessEnded):
                await world.compute(b"0 die")
        await asyncio.sleep(5)
        count = world.pool.restarts
        assert count == 4
        world.pool.resize(1, is_wanted=False)
        await asyncio.sleep(5)
        assert world.pool.restarts == count

    play(scenario)


def test_close_ends_what_runs_and_what_starts():
    async def scenario(world):
        world.pool.resize(3, is_wanted=True)
        asked = [world.compute(b"hang") for _ in range(5)]
        await asyncio.sleep(random.uniform(0, 1))
        await world.pool.close()
        assert world.alive == []
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(one, ProcessEnded | asyncio.CancelledError) for one in found)

    for seed in range(5):
        play(scenario, seed=seed)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_dies_hangs_moves_or_is_cancelled_each_order_has_one_end(seed):
    async def scenario(world):
        world.pool.resize(2, is_wanted=True)
        asked = []
        for _ in range(100):
            await asyncio.sleep(random.choice((0, 0, 0.05, 0.3)))
            match random.randrange(10):
                case 0 if world.alive:
                    pid = random.choice(world.alive)
                    next(one for one in world.started if one.pid == pid).die("was shot")
                case 1:
                    world.pool.resize(random.randint(1, 5), is_wanted=random.random() < 0.8)
                case 2 if asked:
                    random.choice(asked).cancel()
                case 3:
                    asked.append(world.compute(b"hang", 1.0))
                case 4:
                    asked.append(world.compute(b"0.1 die"))
                case _:
                    asked.append(world.compute(b"%.2f" % random.uniform(0, 0.5)))
            busy = [view for view in world.pool.views() if view.phase is ProcessPhase.WORKING]
            assert len(busy) <= 5
        found = await asyncio.gather(*asked, return_exceptions=True)
        allowed = (bytes, ProcessEnded, TimeoutError, asyncio.CancelledError)
        assert all(isinstance(one, allowed) for one in found)
        assert world.pool.waiting == 0
        world.pool.resize(1, is_wanted=True)
        assert await world.compute(b"1"), "and it still works"
        await asyncio.sleep(60)
        assert len(world.pool.views()) == len(world.alive) == 1

    play(scenario, seed=seed)
