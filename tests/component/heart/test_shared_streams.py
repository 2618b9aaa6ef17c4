"""Two daemons of one node behind one consumer, with `ack.on: done`: each message is handled once between them.

Seeded interleavings of kills at commits, lost acknowledgements, lost deliveries and daemons that stay away.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator

import pytest

from appliance.bus.jetstream import JetStreamApi
from appliance.bus.memory import Passage
from appliance.core.streams import ACK_WAIT_S
from appliance.delivery import removal
from appliance.delivery.claims import PAUSE_MAX_S, TAKEOVER_S
from appliance.workers.peers import FACT_KIND as PEERS
from tests.support.heart_checks import find_violations
from tests.support.heart_world import Behaviour, Daemon, End, Run, World, quiet_logs
from tests.support.memory_store import CrashPoint
from tests.support.virtual_time import run_virtual

SEEDS = 40
AT_ONCE = 20
"""Half of both where many leave the stream by one purge."""
FILES, COMMANDS = "REQToFileAppend", "REQCliCommand"
CONFIG = """
version: 1
broker: {servers: ["nats://127.0.0.1:4222"]}
defaults: {delivery: jetstream}
nodes:
  alpha: {subscribe: {REQToFileAppend: {accept_from: any}, REQErrorLog: {accept_from: any}}}
  beta:
    subscribe:
      REQToFileAppend: {accept_from: [alpha], concurrency: CONCURRENCY, ack: {on: done}}
      REQCliCommand: {accept_from: [alpha], allow_commands: any, ack: {on: done}}
"""
STORM_S = 60.0


async def make_fleet(world: World, rng: random.Random) -> tuple[Daemon, Daemon, Daemon]:
    text = CONFIG.replace("CONCURRENCY", str(rng.choice((1, 4, 16))))
    alpha = await world.add_daemon("alpha", text, ["alpha"], start=False)
    one = await world.add_daemon("one", text, ["beta"], start=False)
    two = await world.add_daemon("two", text, ["beta"], start=False)
    for daemon in (one, two, alpha):
        daemon.disk.facts[PEERS] = dict.fromkeys(("alpha", "beta", "errorCentral"), "1")
        daemon.disk.commit_s = lambda: rng.choice((0.0005, 0.002, 0.01))
        await daemon.start()
    return alpha, one, two


class Storm:
    """What is done to a fleet that shares work, by one seed."""

    def __init__(self, world: World, seed: int, at_once: int = 1) -> None:
        """So many messages are submitted `at_once`."""
        self.world = world
        self.at_once = at_once
        self.rng = random.Random(seed)
        self.lose = self.rng.choice((0.0, 0.0, 0.05, 0.3))
        self.away_s = self.rng.choice((0.5, 5.0, 45.0, 200.0))

    def passes(self, passage: Passage) -> Iterable[float]:
        """What goes to the two gets lost; a sender that hears of no storing for minutes stores a message anew."""
        is_lost = passage.receiver in ("one", "two") and self.rng.random() < self.lose
        return () if is_lost else (self.rng.uniform(0, 0.02),)

    async def run(self) -> list[str]:
        world, rng = self.world, self.rng
        alpha, one, two = await make_fleet(world, rng)
        world.policy = self.passes
        world.swallows = {
            name: lambda sent: sent.subject.startswith("$JS.ACK.") and rng.random() < self.lose
            for name in ("one", "two")
        }
        jobs = [
            self._submit(alpha),
            *(self._strike(rng.choice((one, two))) for _ in range(rng.randint(1, 4))),
        ]
        await asyncio.gather(*jobs)
        world.policy = lambda _: (0.0,)
        world.swallows = {}
        for daemon in (one, two):
            daemon.disk.crash_at = None
            if daemon.is_dead:
                await daemon.start()
        assert await world.settle(6 * 3_600.0, until=world.is_quiet)
        return [*find_violations(world), *done_by_both(world)]

    async def _submit(self, alpha: Daemon) -> None:
        rng = self.rng
        for number in range(rng.randint(3, 20)):
            texts = [f"m{number}"]
            if self.at_once > 1:
                texts = [f"m{number}-{at}" for at in range(rng.randint(1, self.at_once))]
            for text in texts:
                self.world.behaviour[text] = Behaviour(rng.choice((0.0, 0.0, 0.05, 2.0)))
            await alpha.submit(texts, method=rng.choice((FILES, FILES, COMMANDS)))
            await asyncio.sleep(rng.choice((0.0, 0.1, 5.0)))

    async def _strike(self, daemon: Daemon) -> None:
        rng = self.rng
        await asyncio.sleep(rng.uniform(0, STORM_S))
        if daemon.is_dead or daemon.disk.crash_at is not None:
            return
        if rng.random() < 0.3:
            self.world.note(f"{daemon.name}: kill -9")
            daemon.kill()
        else:
            daemon.disk.crash_at = CrashPoint(
                daemon.disk.commits + rng.randint(1, 4), rng.random() < 0.5
            )
            self.world.note(f"{daemon.name}: crash at {daemon.disk.crash_at}")
            for _ in range(60):
                await asyncio.sleep(1)
                if daemon.is_dead:
                    break
            daemon.disk.crash_at = None
        if daemon.is_dead:
            await asyncio.sleep(self.away_s)
            await daemon.start()


def done_by_both(world: World) -> Iterator[str]:
    """Messages that both daemons began."""
    for text, runs in world.log.by_text.items():
        of_node = [run for run in runs if run.node == "beta"]
        if len({run.daemon for run in of_node}) > 1:
            yield f"{text} was begun by both: {[(run.daemon, run.began_at, run.end) for run in of_node]}"
        done = [run for run in of_node if run.end is End.DONE]
        if len(done) > 1 and (
            was_recorded(world, done[0], before=done[1]) or done[0].method == COMMANDS
        ):
            yield f"{text} was done, recorded, and done again"


def was_recorded(world: World, run: Run, *, before: Run) -> bool:
    return any(
        one.what == "finished"
        and (one.message_id, one.scope) == (run.message_id, run.scope)
        and one.at <= before.began_at
        for one in world.daemons[run.daemon].disk.evidence
    )


def play(seed: int, at_once: int = 1) -> list[str]:
    async def run() -> list[str]:
        async with World(seed) as world:
            found = await Storm(world, seed, at_once).run()
            return [f"seed {seed}: {one}; after {world.faults}" for one in found]

    with quiet_logs():
        return run_virtual(run(), seed=seed)


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_each_message_is_handled_once_between_two_daemons_of_which_one_is_killed(first: int):
    broken = [found for seed in range(first, first + AT_ONCE) for found in play(seed)]
    assert not broken, "\n".join(broken[:3])


@pytest.mark.parametrize("first", range(0, SEEDS // 2, AT_ONCE // 2))
def test_each_is_handled_once_also_where_many_leave_the_stream_by_one_purge(first, monkeypatch):
    """From two acknowledgements on, by a broker that takes long for each from the start."""
    monkeypatch.setattr(removal, "ENOUGH", 2)
    monkeypatch.setattr(
        removal.Tempo, "is_slow", property(lambda _: True, lambda *_: None), raising=False
    )
    purges = []
    purge = JetStreamApi.purge

    async def watched(api, stream, subject, before):
        if ".claim." not in subject:
            purges.append(before)
        await purge(api, stream, subject, before)

    monkeypatch.setattr(JetStreamApi, "purge", watched)
    seeds = range(first, first + AT_ONCE // 2)
    broken = [found for seed in seeds for found in play(seed, at_once=16)]
    assert not broken, "\n".join(broken[:3])
    assert len(purges) > len(seeds) // 2


def run_pair(
    scenario: Callable[[World, Daemon, Daemon, Daemon], Coroutine[None, None, None]],
) -> None:
    async def run() -> None:
        async with World(1) as world:
            alpha, one, two = await make_fleet(world, random.Random(1))
            await scenario(world, alpha, one, two)

    with quiet_logs():
        run_virtual(run(), seed=1)


async def die_in_mid_work(world: World, alpha: Daemon, method: str) -> tuple[Daemon, Daemon]:
    """One of the two has begun a message and is killed; that one, and the other."""
    world.behaviour["m"] = Behaviour(5.0)
    await alpha.submit(["m"], method=method)
    assert await world.settle(30, until=lambda: bool(world.log.of("m")))
    dead = world.daemons[world.log.of("m")[0].daemon]
    dead.kill()
    return dead, world.daemons["two" if dead.name == "one" else "one"]


@pytest.mark.parametrize("away_s", [1.0, TAKEOVER_S / 2])
def test_what_a_daemon_had_begun_is_left_to_it_while_it_may_come_back(away_s: float) -> None:
    async def scenario(world: World, alpha: Daemon, one: Daemon, two: Daemon) -> None:
        dead, _ = await die_in_mid_work(world, alpha, FILES)
        await asyncio.sleep(away_s)
        await dead.start()
        assert await world.settle(TAKEOVER_S, until=world.is_quiet)
        assert [(run.daemon, run.end) for run in world.log.of("m")] == [
            (dead.name, None),
            (dead.name, End.DONE),
        ]

    run_pair(scenario)


def test_what_a_daemon_had_begun_that_stays_away_is_done_by_the_other_and_forgotten_by_it() -> None:
    async def scenario(world: World, alpha: Daemon, one: Daemon, two: Daemon) -> None:
        dead, other = await die_in_mid_work(world, alpha, FILES)
        until_s = TAKEOVER_S + ACK_WAIT_S + 2 * PAUSE_MAX_S
        assert await world.settle(until_s, until=lambda: len(world.log.of("m")) == 2)
        await dead.start()
        assert await world.settle(TAKEOVER_S, until=world.is_quiet)
        assert [(run.daemon, run.end) for run in world.log.of("m")] == [
            (dead.name, None),
            (other.name, End.DONE),
        ]

    run_pair(scenario)


@pytest.mark.parametrize("is_killed_too", [False, True])
def test_a_command_that_a_daemon_had_begun_which_stays_away_is_reported_and_not_run_again(
    is_killed_too: bool,
) -> None:
    async def scenario(world: World, alpha: Daemon, one: Daemon, two: Daemon) -> None:
        dead, other = await die_in_mid_work(world, alpha, COMMANDS)
        if is_killed_too:
            # right after it has taken the message over
            other.disk.crash_at = CrashPoint(other.disk.commits + 1, is_durable=True)
            assert await world.settle(2 * TAKEOVER_S, until=lambda: other.is_dead)
            await other.start()
        assert await world.settle(2 * TAKEOVER_S, until=lambda: not any(world.kept_messages()))
        await dead.start()
        assert await world.settle(TAKEOVER_S, until=world.is_quiet)
        assert [run.daemon for run in world.log.of("m")] == [dead.name]
        reports = [run for run in world.log.runs if run.method == "REQErrorLog"]
        assert any("stays away" in run.text for run in reports)

    run_pair(scenario)
