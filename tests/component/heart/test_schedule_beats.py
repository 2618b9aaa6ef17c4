"""Schedules in virtual time: their beat over restarts and outages, and no more than one of their messages waiting."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from tests.component.heart.worlds import add_pair, play
from tests.support.heart_world import World

CONFIG = """
version: 1
broker: {servers: ["nats://127.0.0.1:4222"]}
nodes:
  alpha:
    publish:
      tick: {to: beta, method: REQToConsole, every: 60s, data: [tick]}
  beta: {subscribe: {REQToConsole: {accept_from: [alpha]}}}
"""


def test_beat_goes_on_over_kills_and_clock_jumps():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world, CONFIG)
        for minute in range(60):
            await asyncio.sleep(world.rng.uniform(30, 90))
            if minute % 7 == 3:
                await world.kill_for(alpha, 5.0)
            if minute % 11 == 5:
                world.clocks.jump_wall(world.rng.choice((-7_200, 7_200)))
        began_at = [run.began_at for run in world.log.of("tick")]
        hours_s = world.clocks.steady() - began_at[0]
        assert abs(len(began_at) - hours_s / 60) <= 2
        assert min(later - earlier for earlier, later in pairwise(began_at)) > 45

    play(scenario)


def test_one_message_of_a_schedule_waits_whatever_restarts_meanwhile():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, CONFIG)
        await asyncio.sleep(150)
        before = len(world.log.of("tick"))
        beta.kill()
        for _ in range(10):
            await asyncio.sleep(300)
            await world.kill_for(alpha, 3.0)
            assert len(alpha.disk.records) <= 1
        assert len(alpha.disk.records) == 1
        await beta.start()
        await asyncio.sleep(50)
        assert 1 <= len(world.log.of("tick")) - before <= 2

    play(scenario)
