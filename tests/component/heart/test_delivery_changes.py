"""A reload that changes how a subject is carried: both sides move to the other way, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from appliance.core.specs import Delivery, DesiredState
from appliance.delivery import modes
from appliance.delivery.base import Intake, LaneCarrier, Mode
from tests.component.heart.worlds import config, numbered, play
from tests.support.heart_checks import find_violations
from tests.support.heart_world import Behaviour, World

OTHER = cast(Delivery, "other")
COMMAND, CONSOLE = "REQCliCommand", "REQToConsole"
PUBLISHED = config().replace(
    "  alpha:\n",
    "  alpha:\n    publish: {console: {to: beta, method: REQToConsole}, commands: {to: beta, method: REQCliCommand}}\n",
)
HEART_METHODS = {COMMAND, CONSOLE}


class Noted:
    """Carries as the first mode does, and notes what it was asked for and what has ended."""

    def __init__(self, mode: Mode, made: list[str]) -> None:
        self._mode = mode
        self._made = made

    def make_carrier(self, spec) -> LaneCarrier:
        self._made.append(f"carrier {spec.method}")
        return self._mode.make_carrier(spec)

    def make_intake(self, spec, on_answers_denied, *, begins_once) -> Intake:
        self._made.append(f"intake {spec.method}")
        return self._mode.make_intake(spec, on_answers_denied, begins_once=begins_once)

    def with_rests(self, main, spec, *, begins_once) -> Intake:
        return self._mode.with_rests(main, spec, begins_once=begins_once)


def carried_as(desired: DesiredState, mode: Delivery) -> DesiredState:
    workers = {
        key: replace(spec, delivery=mode) if spec.method in HEART_METHODS else spec
        for key, spec in desired.workers.items()
    }
    return replace(desired, workers=workers)


@pytest.mark.parametrize("seed", range(3))
def test_both_sides_change_the_mode_of_delivery_under_load(monkeypatch, seed):
    made: list[str] = []

    def make_other(*parts) -> Mode:
        return Noted(modes._MODES[Delivery.CORE](*parts), made)

    monkeypatch.setattr(modes, "_MODES", {**modes._MODES, OTHER: make_other})

    async def scenario(world: World) -> None:
        alpha = await world.add_daemon("alpha", PUBLISHED, ["alpha"])
        beta = await world.add_daemon("beta", PUBLISHED, ["beta"])
        world.default_behaviour = Behaviour(0.05)
        texts = {method: numbered(120, method) for method in HEART_METHODS}
        there = alpha.desired, beta.desired

        async def send() -> None:
            for number in range(0, 120, 10):
                for method, all_texts in texts.items():
                    await alpha.submit(all_texts[number : number + 10], method=method)
                await asyncio.sleep(0.2)

        async def move(mode: Delivery) -> None:
            for daemon, desired in zip((alpha, beta), there, strict=True):
                daemon.reload(carried_as(desired, mode))
                await asyncio.sleep(0.4)

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            await asyncio.sleep(0.3)
            await move(OTHER)
            assert {handle.spec.delivery for handle in handles(world)} == {OTHER}
            await move(Delivery.CORE)
            await move(OTHER)
        assert await world.settle(600, until=world.is_quiet)
        for method in HEART_METHODS:
            assert made.count(f"carrier {method}") == made.count(f"intake {method}") == 2
        # find_violations holds that each was done, and a command no more than once
        assert find_violations(world) == []

    play(scenario, seed=seed)


def handles(world: World) -> list:
    return [
        handle
        for daemon in world.daemons.values()
        for handle in daemon.pool.handles.values()
        if handle.spec.method in HEART_METHODS and handle.spec.key in daemon.desired.workers
    ]
