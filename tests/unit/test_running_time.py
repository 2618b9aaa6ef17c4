"""A bound on time in which the process ran, in virtual time: what it stood still is not counted."""

import asyncio

import pytest

from appliance.running_time import running_timeout
from tests.support.virtual_time import run_virtual


def stand_still(seconds):
    """The loop does nothing for so long, as under SIGSTOP: its clock goes on."""
    asyncio.get_running_loop().pass_time(seconds)


@pytest.mark.parametrize("limit_s", [0.0, 0.3, 1.0, 7.5])
def test_what_takes_longer_is_cut_off_when_its_time_is_over(limit_s):
    async def scenario():
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with running_timeout(limit_s):
                await asyncio.sleep(60)
        assert loop.time() - began == pytest.approx(limit_s, abs=0.01)

    run_virtual(scenario())


def test_what_ends_in_time_leaves_no_timer():
    async def scenario():
        loop = asyncio.get_running_loop()
        async with running_timeout(2.5):
            await asyncio.sleep(2.4)
        began = loop.time()
        await asyncio.sleep(100)
        assert loop.time() - began == pytest.approx(100)

    run_virtual(scenario())


def test_without_a_limit_nothing_is_cut_off():
    async def scenario():
        async with running_timeout(None):
            await asyncio.sleep(1_000_000)

    run_virtual(scenario())


@pytest.mark.parametrize("stood_still_s", [20.0, 100_000.0])
def test_a_standstill_takes_hardly_anything_of_the_time(stood_still_s):
    async def scenario():
        async with running_timeout(5.0):
            await asyncio.sleep(0.5)
            stand_still(stood_still_s)
            await asyncio.sleep(2.0)

    run_virtual(scenario())


def test_what_takes_too_long_after_a_standstill_is_cut_off_as_ever():
    async def work():
        async with running_timeout(5.0):
            stand_still(20.0)
            await asyncio.sleep(5.0)

    async def scenario():
        with pytest.raises(TimeoutError):
            await work()

    run_virtual(scenario())


def test_a_cancellation_from_outside_is_no_timeout():
    async def scenario():
        async def work():
            async with running_timeout(5.0):
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(scenario())
