"""A small exchange, with the sender or the receiver crashing at each of its commits: just before it is durable, right after.

Messages of three kinds go out, the commands are answered. Whatever the commit at which it happens, each message is handled
once, each answer arrives once, and nothing is left.
"""

from __future__ import annotations

import asyncio

import pytest

from appliance.errors import StoreError
from tests.support.heart_checks import find_violations, was_begun
from tests.support.heart_mutants import AcknowledgesFirst
from tests.support.heart_world import Daemon, Line, World, quiet_logs
from tests.support.memory_store import CrashPoint
from tests.support.virtual_time import run_virtual

CONFIG = """
version: 1
broker: {{servers: ["nats://127.0.0.1:4222"]}}
defaults: {{window: {window}}}
nodes:
  alpha: {{subscribe: {{REQToFileAppend: {{accept_from: [beta]}}, REQErrorLog: {{accept_from: any}}}}}}
  beta:
    subscribe:
      REQToFileAppend: {{accept_from: [alpha], ack: {{on: {ack_on}}}}}
      REQToConsole: {{accept_from: [alpha], ack: {{on: {ack_on}}}}}
      REQCliCommand: {{accept_from: [alpha], allow_commands: any, ack: {{on: {ack_on}}}}}
"""
METHODS = ("REQToFileAppend", "REQToConsole", "REQCliCommand")
REST_S = 1_800.0


class Exchange:
    """One run of the scenario."""

    def __init__(self, ack_on: str, window: int, victim: str, point: CrashPoint | None) -> None:
        self.config = CONFIG.format(ack_on=ack_on, window=window)
        self.victim = victim
        self.point = point
        self.commits = 0
        self.has_crashed = False

    def run(self, line_class: type[Line] = Line) -> list[str]:
        """What was violated."""
        with quiet_logs():
            return run_virtual(self._run(line_class), seed=1)

    async def _run(self, line_class: type[Line]) -> list[str]:
        async with World() as world:
            world.line_class = line_class
            alpha = await world.add_daemon("alpha", self.config, ["alpha"], start=False)
            beta = await world.add_daemon("beta", self.config, ["beta"], start=False)
            victim = world.daemons[self.victim]
            victim.disk.crash_at = self.point
            await beta.start()
            await alpha.start()
            nurse = asyncio.get_running_loop().create_task(world.revive_the_dead(1.0))
            await self._submit(world, alpha)
            is_quiet = await world.settle(REST_S, until=world.is_quiet)
            nurse.cancel()
            self.commits = victim.disk.commits
            self.has_crashed = bool(victim.died_at)
            return [
                *find_violations(world),
                *self._find_missing(world),
                *([] if is_quiet else ["no rest"]),
            ]

    async def _submit(self, world: World, alpha: Daemon) -> None:
        for method in METHODS:
            for text in (f"{method} 1", f"{method} 2"):
                while text not in world.accepted:
                    if not alpha.is_up:
                        await asyncio.sleep(0.5)
                        continue
                    try:
                        await alpha.submit([text], method=method)
                    except (asyncio.CancelledError, StoreError):
                        text = f"{text}, offered anew"
            await asyncio.sleep(0.5)

    def _find_missing(self, world: World) -> list[str]:
        """What was accepted and not done; a command that a crash cut off is reported, not done."""
        done = set(world.log.texts())
        cut_off = {run.text for run in world.log.runs if run.end is None}
        return [
            f"I1 {text} was not done"
            for text, (_, number) in world.accepted.items()
            if text not in done | cut_off and not was_begun(world, number)
        ]


@pytest.mark.parametrize("ack_on", ["received", "done"])
@pytest.mark.parametrize("window", [1, 256])
@pytest.mark.parametrize("victim", ["alpha", "beta"])
def test_crash_at_any_commit_loses_and_doubles_nothing(ack_on: str, window: int, victim: str):
    calm = Exchange(ack_on, window, victim, None)
    assert calm.run() == []
    assert calm.commits >= 6, "a scenario of hardly any commits tries hardly any crashes"
    for commit in range(1, calm.commits + 1):
        for is_durable in (False, True):
            crashed = Exchange(ack_on, window, victim, CrashPoint(commit, is_durable))
            assert crashed.run() == [], f"crash at {crashed.point} of {calm.commits}"
            assert crashed.has_crashed, f"commit {commit} was never reached"


def test_acknowledging_before_the_commit_loses_messages_here():
    calm = Exchange("received", 1, "beta", None)
    calm.run()
    found: list[str] = []
    for commit in range(1, calm.commits + 1):
        found += Exchange("received", 1, "beta", CrashPoint(commit, is_durable=False)).run(
            AcknowledgesFirst
        )
    assert any(violation.startswith("I1") for violation in found), found
