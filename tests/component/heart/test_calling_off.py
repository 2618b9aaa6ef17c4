"""A command that its sender calls off does not begin: not in its turn, not after a restart, not when it comes late."""

from __future__ import annotations

import asyncio

import pytest

from appliance.core.method import PROGRAM_STOP
from tests.component.heart.worlds import add_pair, config, play
from tests.support.heart_world import Behaviour, Daemon, World

COMMAND = "REQCliCommand"
MINUTE_S = 60.0
ONE_AT_A_TIME = ", concurrency: 1"


async def call_off(daemon: Daemon, number: int) -> None:
    await daemon.submit(
        [f"stop {number}"], method=COMMAND, order=PROGRAM_STOP, method_args=(str(number),)
    )


def is_begun(world: World, text: str) -> bool:
    return bool(world.log.of(text))


def reasons(daemon: Daemon) -> list[str]:
    return [letter.reason for letter in daemon.disk.dead.values()]


@pytest.mark.parametrize("more", ["", ", rerun: true", ", dedupe: false"])
def test_what_waits_for_its_turn_is_told_at_once_and_does_not_begin_after_a_restart(more: str):
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(commands=ONE_AT_A_TIME + more))
        world.behaviour["first"] = Behaviour(MINUTE_S)
        await alpha.submit(["first"], method=COMMAND)
        (waits,) = await alpha.submit(["waits"], method=COMMAND)
        await asyncio.sleep(5)
        await call_off(alpha, waits)
        await asyncio.sleep(5)
        assert any("cancelled before it began" in reason for reason in reasons(alpha))
        beta.kill()
        await beta.start()
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert not is_begun(world, "waits")

    play(scenario)


def test_what_is_killed_before_its_end_is_told_does_not_begin_after_it():
    """The mark is on disk, and what came of it is not."""

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(commands=ONE_AT_A_TIME))
        world.behaviour["first"] = Behaviour(MINUTE_S)
        await alpha.submit(["first"], method=COMMAND)
        (waits,) = await alpha.submit(["waits"], method=COMMAND)
        await asyncio.sleep(5)
        (row,) = [row for row in beta.disk.inbox.values() if row.message_id == waits]
        row.note = "called off"
        beta.kill()
        await beta.start()
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert not is_begun(world, "waits")
        assert any("cancelled before it began" in reason for reason in reasons(alpha))

    play(scenario)


def test_what_runs_and_would_run_again_does_not_when_it_was_called_off():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(commands=", rerun: true"))
        world.behaviour["runs"] = Behaviour(MINUTE_S)
        (runs,) = await alpha.submit(["runs"], method=COMMAND)
        await asyncio.sleep(5)
        await call_off(alpha, runs)
        await asyncio.sleep(5)
        beta.kill()
        await beta.start()
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert len(world.log.of("runs")) == 1
        assert any(reason.startswith("failed: cancelled") for reason in reasons(alpha))

    play(scenario)


def test_what_comes_only_after_it_was_called_off_does_not_begin_even_after_a_restart():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        world.swallows["alpha"] = lambda sent: b"late" in sent.payload
        (late,) = await alpha.submit(["late"], method=COMMAND)
        await call_off(alpha, late)
        await asyncio.sleep(5)
        beta.kill()
        await beta.start()
        world.swallows.clear()
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert not is_begun(world, "late")
        assert any("cancelled before it began" in reason for reason in reasons(alpha))

    play(scenario)


def test_a_new_attempt_of_what_was_called_off_runs():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world, config(commands=ONE_AT_A_TIME))
        world.behaviour["first"] = Behaviour(MINUTE_S)
        await alpha.submit(["first"], method=COMMAND)
        (waits,) = await alpha.submit(["waits"], method=COMMAND)
        await asyncio.sleep(5)
        await call_off(alpha, waits)
        await asyncio.sleep(5)
        await call_off(
            alpha, waits
        )  # it has ended: the second word is in vain, and keeps nothing from beginning
        await asyncio.sleep(5)
        assert await alpha.run(alpha.store.retry_dead([waits])) == 1
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert is_begun(world, "waits")

    play(scenario)
