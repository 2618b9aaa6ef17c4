"""The loop in virtual time keeps what it promises to the tests that stand on it."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from tests.support.virtual_time import (
    START_STEADY_S,
    Clocks,
    Deadlock,
    LeakedTasks,
    Livelock,
    Unhandled,
    run_virtual,
)


def test_a_day_passes_at_once_and_timers_fire_in_order_at_their_times():
    fired: list[tuple[float, str]] = []

    async def scenario() -> float:
        clocks = Clocks()

        async def wait(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            fired.append((clocks.steady() - START_STEADY_S, name))

        async with asyncio.TaskGroup() as group:
            for seconds, name in ((86_400.0, "day"), (0.05, "scan"), (3 * 86_400.0, "days")):
                group.create_task(wait(seconds, name))
        return clocks.steady() - START_STEADY_S

    began = time.process_time()
    assert run_virtual(scenario()) == pytest.approx(3 * 86_400.0, abs=1e-3)
    assert time.process_time() - began < 5
    assert [name for _, name in fired] == ["scan", "day", "days"]
    assert [at for at, _ in fired] == pytest.approx([0.05, 86_400.0, 3 * 86_400.0], abs=1e-3)


def test_timeouts_are_virtual():
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(300):
                await asyncio.get_running_loop().create_future()

    run_virtual(scenario())


def test_wall_clock_jumps_without_the_steady_one():
    async def scenario() -> None:
        clocks = Clocks()
        wall, steady = clocks.wall(), clocks.steady()
        clocks.jump_wall(-3_600)
        await asyncio.sleep(10)
        assert clocks.wall() - wall == pytest.approx(-3_590)
        assert clocks.steady() - steady == pytest.approx(10)

    run_virtual(scenario())


def test_what_can_never_go_on_is_a_deadlock_that_says_where():
    async def stuck_for_good() -> None:
        await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(stuck_for_good(), name="the stuck one")

    with pytest.raises(Deadlock, match=r"the stuck one: .*stuck_for_good:\d+"):
        run_virtual(scenario())


def test_spinning_without_time_passing_is_a_livelock(monkeypatch):
    monkeypatch.setattr("tests.support.virtual_time.MAX_TURNS_AT_ONE_TIME", 1_000)

    async def scenario() -> None:
        while True:  # noqa: ASYNC110 - the point of it
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        run_virtual(scenario())


def test_waking_for_ever_is_a_livelock(monkeypatch):
    monkeypatch.setattr("tests.support.virtual_time.MAX_VIRTUAL_S", 1_000)

    async def scenario() -> None:
        while True:  # noqa: ASYNC110 - the point of it
            await asyncio.sleep(1)

    with pytest.raises(Livelock):
        run_virtual(scenario())


def test_task_that_outlives_its_scenario_is_named():
    kept = []

    async def scenario() -> None:
        kept.append(asyncio.create_task(asyncio.sleep(10), name="left behind"))

    with pytest.raises(LeakedTasks, match="left behind"):
        run_virtual(scenario())


def test_task_that_is_just_ending_is_no_leak():
    kept = []

    async def scenario() -> None:
        kept.append(asyncio.create_task(asyncio.sleep(10)))
        await asyncio.sleep(0)
        kept[0].cancel()

    run_virtual(scenario())
    assert kept[0].cancelled()


def test_error_that_only_the_loop_saw_fails_the_run():
    async def scenario() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    with pytest.raises(Unhandled, match="ZeroDivisionError"):
        run_virtual(scenario())


def test_error_of_the_scenario_is_raised_as_it_is():
    async def scenario() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_virtual(scenario())


def test_threads_are_refused():
    async def scenario() -> None:
        await asyncio.to_thread(time.sleep, 0)

    with pytest.raises(RuntimeError, match="no threads"):
        run_virtual(scenario())


def test_seed_fixes_jitter_and_gives_the_state_back():
    async def scenario() -> list[float]:
        return [random.random() for _ in range(3)]

    random.seed(5)
    expected = random.random()
    random.seed(5)
    assert run_virtual(scenario(), seed=1) == run_virtual(scenario(), seed=1)
    assert run_virtual(scenario(), seed=1) != run_virtual(scenario(), seed=2)
    assert random.random() == expected


def test_timers_of_one_moment_fire_in_the_order_in_which_they_were_set():
    async def scenario():
        loop = asyncio.get_running_loop()
        fired = []
        for number in range(300):
            handle = loop.call_later(number % 3, fired.append, number)
            if number % 5:
                handle.cancel()
        await asyncio.sleep(10)
        return fired

    kept = range(0, 300, 5)
    assert run_virtual(scenario()) == sorted(kept, key=lambda number: number % 3)
