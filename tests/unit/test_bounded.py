"""A bounded wait behaves as one under asyncio's own timeout, whether the coroutine waits or not."""

import asyncio

import pytest

from appliance.workers.bounded import within
from tests.support.waiting import turns

SOON_S = 0.02
LONG_S = 30.0


async def give(value, *waits):
    for wait in waits:
        await wait()
    return value


def turn():
    return turns()


def elsewhere():
    """A wait that the loop itself cannot end."""
    return asyncio.to_thread(int)


@pytest.mark.parametrize("waits", [(), (turn,), (turn, elsewhere, turn)])
@pytest.mark.parametrize("limit_s", [None, LONG_S])
async def test_the_result_comes_back(waits, limit_s):
    assert await within(give(41, *waits), limit_s) == 41


async def test_one_that_never_waits_arms_no_timer(monkeypatch):
    monkeypatch.setattr(asyncio, "timeout", None)
    assert await within(give("at once"), LONG_S) == "at once"


@pytest.mark.parametrize("waits", [(), (turn,)])
async def test_a_failure_goes_through(waits):
    async def fail():
        await give(None, *waits)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await within(fail(), LONG_S)


async def test_what_takes_too_long_is_cancelled_and_cleans_up():
    seen = []

    async def endless():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await turn()
            seen.append("cleaned up")
            raise

    with pytest.raises(TimeoutError):
        await within(endless(), SOON_S)
    assert seen == ["cancelled", "cleaned up"]
    assert asyncio.current_task().cancelling() == 0


async def test_cancelling_the_caller_cancels_the_coroutine_and_is_no_timeout():
    ended = asyncio.Event()

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(within(endless(), LONG_S))
    await turn()
    await turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_coroutine_may_outlive_a_cancellation_and_go_on_waiting():
    async def stubborn():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await elsewhere()
        return "kept"

    task = asyncio.create_task(within(stubborn(), LONG_S))
    await turn()
    await turn()
    task.cancel()
    assert await task == "kept"


@pytest.mark.parametrize(("inner_s", "outer_s", "who"), [(0.01, LONG_S, "inner"), (LONG_S, 0.01, "outer")])  # fmt: skip
async def test_a_timeout_begun_before_the_first_wait_stays_its_own(inner_s, outer_s, who):
    async def bounded():
        try:
            async with asyncio.timeout(inner_s):
                await asyncio.Event().wait()
        except TimeoutError:
            return "inner"

    try:
        assert await within(bounded(), outer_s) == who
    except TimeoutError:
        assert who == "outer"


async def test_tasks_of_the_coroutine_belong_to_it():
    async def group():
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(give(number, turn)) for number in range(3)]
        return [task.result() for task in made]

    assert await within(group(), LONG_S) == [0, 1, 2]


async def test_one_that_is_dropped_while_it_waits_is_closed():
    ended = []

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    waiting = within(endless(), None)
    waiting.send(None)
    waiting.close()
    assert ended == [True]
