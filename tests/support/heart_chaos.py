"""One seeded interleaving: a small world, some messages, some faults at random moments, rest, and the checks.

`run_seed(seed)` gives what it found; everything that it does follows from the seed. With `python -m
tests.lab --rows R19` any number of seeds is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from appliance.bus.memory import Passage, Permissions
from appliance.errors import StoreError
from appliance.workers.peers import FACT_KIND as PEERS
from tests.support.heart_checks import find_violations
from tests.support.heart_world import Behaviour, Daemon, End, Line, World, desired_of, quiet_logs
from tests.support.memory_store import CrashPoint, MemoryStore
from tests.support.virtual_time import run_virtual

STORM_S = 40.0
"""Faults begin within this time."""
REST_S = 6 * 3_600.0
"""In this time everything must have come to its end."""

METHODS = ("REQToFileAppend", "REQToConsole", "REQCliCommand")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed means."""

    seed: int
    ack_on: str
    window: int
    concurrency: int
    has_second: bool
    """Whether another daemon runs the receiving node, too."""
    messages: int
    lose: float
    double: float
    late_s: float
    delivery: str = "core"

    def config(
        self,
        *,
        window: int | None = None,
        concurrency: int | None = None,
        ack_on: str = "",
        delivery: str = "",
    ) -> str:
        """The fleet's config, with some settings changed by a reload."""
        subscriptions = ", ".join(
            f"{method}: {{accept_from: [alpha], concurrency: {concurrency or self.concurrency},"
            f" ack: {{on: {ack_on or self.ack_on}}}"
            f"{', allow_commands: any' if method == 'REQCliCommand' else ''}}}"
            for method in METHODS
        )
        return f"""
version: 1
broker: {{servers: ["nats://127.0.0.1:4222"]}}
defaults: {{window: {window or self.window}, delivery: {delivery or self.delivery}}}
nodes:
  alpha: {{subscribe: {{REQToFileAppend: {{accept_from: [beta]}}, REQErrorLog: {{accept_from: any}}}}}}
  beta: {{subscribe: {{{subscriptions}}}}}
"""


@dataclass(slots=True)
class Verdict:
    """What came of a seed. `violations` is empty where all is well; `faults` are what was done, in words."""

    plan: Plan
    violations: list[str]
    faults: list[str]
    runs: int = 0
    virtual_s: float = 0.0
    trace: list[tuple[str, float]] = field(default_factory=list)
    """Texts in the order of their runs, with the times: equal for equal seeds."""

    def __str__(self) -> str:
        lines = [f"seed {self.plan.seed}: {self.plan}", *self.violations, "after:", *self.faults]
        return "\n  ".join(lines)


def make_plan(seed: int, delivery: str = "core") -> Plan:
    """The plan of a seed."""
    rng = random.Random(seed)
    return Plan(
        seed=seed,
        ack_on=rng.choice(("received", "done")),
        window=rng.choice((1, 4, 256)),
        concurrency=rng.choice((1, 4, 16)),
        has_second=rng.random() < 0.3,
        messages=rng.randint(3, 13),
        lose=rng.choice((0.0, 0.05, 0.3)),
        double=rng.choice((0.0, 0.1)),
        late_s=rng.choice((0.001, 0.02, 3.0)),
        delivery=delivery,
    )


class Chaos:
    """Carries a plan out."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.plan = plan
        self.world = world
        self.rng = random.Random(plan.seed ^ 0x5EED)
        self._jobs: list[asyncio.Task[None]] = []
        self._has_reloaded = False

    async def run(self) -> list[str]:
        """Everything from the making of the daemons to the checks."""
        plan, world = self.plan, self.world
        world.has_prompt_handlers = plan.seed % 2 == 0
        alpha = await world.add_daemon("alpha", plan.config(), ["alpha"], start=False)
        await world.add_daemon("beta", plan.config(), ["beta"], start=False)
        if plan.has_second:
            await world.add_daemon("gamma", plan.config(), ["beta"], start=False)
        for daemon in world.daemons.values():
            # they have met before: who was never heard of is resent to with restraint, and that has tests of its own
            daemon.disk.facts[PEERS] = dict.fromkeys(("alpha", "beta", "errorCentral"), "1")
            daemon.disk.commit_s = lambda: self.rng.choice((0.0005, 0.002, 0.01))
            await daemon.start()
        self._start(self._submit(alpha))
        for _ in range(self.rng.randint(0, 6)):
            self._start(self._fault())
        await asyncio.wait(self._jobs)
        for job in self._jobs:
            job.result()
        await self._heal()
        await world.settle(REST_S, until=world.is_quiet)
        return find_violations(world) + self._find_overtaken()

    def _start(self, work: Awaitable[None]) -> None:
        async def later() -> None:
            await asyncio.sleep(self.rng.uniform(0, STORM_S))
            await work

        self._jobs.append(asyncio.get_running_loop().create_task(later()))

    async def _submit(self, alpha: Daemon) -> None:
        number = 0
        while number < self.plan.messages:
            count = min(self.plan.messages - number, self.rng.choice((1, 1, 5)))
            texts = [f"m{number + at}" for at in range(count)]
            number += count
            method = self.rng.choice(METHODS)
            for text in texts:
                self.world.behaviour[text] = self._behaviour()
            if alpha.is_dead:
                await asyncio.sleep(1)
                continue
            try:
                await alpha.submit(texts, method=method)
            except (asyncio.CancelledError, StoreError):
                self.world.note(f"{', '.join(texts)} not accepted by alpha")
            await asyncio.sleep(self.rng.choice((0.0, 0.1, 8.0)))

    def _behaviour(self) -> Behaviour:
        work_s = self.rng.choice((0.0, 0.0, 0.0, 0.05, 2.0, 8.0))
        if self.rng.random() < 0.1:
            return Behaviour(work_s, (self.rng.choice(tuple(End)),))
        return Behaviour(work_s)

    async def _fault(self) -> None:
        rng, world = self.rng, self.world
        daemon = rng.choice(list(world.daemons.values()))
        seconds = rng.choice((0.01, 0.5, 5.0, 40.0))
        name, act = rng.choice(self._acts(daemon, seconds))
        if daemon.is_dead:
            return  # it is down already by another fault
        world.note(f"{daemon.name}: {name}, {seconds:g} s")
        await act()

    def _acts(
        self, daemon: Daemon, seconds: float
    ) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        world = self.world
        return [
            ("kill -9", lambda: world.kill_for(daemon, seconds)),
            ("crash at a commit", lambda: self._crash(daemon, seconds)),
            ("disconnected", lambda: world.disconnect(daemon, seconds)),
            ("dark line", lambda: world.go_dark(daemon, seconds * 3)),
            ("broker restarted", lambda: world.restart_broker(seconds)),
            ("disk full", lambda: self._fill(daemon, seconds)),
            ("slow disk", lambda: self._slow(daemon, seconds)),
            ("wall clock set", lambda: self._set_clock(seconds)),
            ("reloaded", lambda: self._reload(daemon, seconds)),
            ("a worker stopped and started", lambda: self._stop_worker(daemon, seconds)),
            ("denied", lambda: self._deny(daemon, seconds)),
            ("dead letters retried", lambda: self._retry(daemon)),
        ]

    async def _crash(self, daemon: Daemon, seconds: float) -> None:
        point = CrashPoint(daemon.disk.commits + self.rng.randint(1, 6), self.rng.random() < 0.5)
        life = daemon.life
        daemon.disk.crash_at = point
        for _ in range(40):
            await asyncio.sleep(1)
            if daemon.is_dead or daemon.life != life:
                break
        daemon.disk.crash_at = None
        if daemon.is_dead:
            self.world.note(f"{daemon.name} crashed at {point}")
            await asyncio.sleep(seconds)
            if daemon.is_dead:
                await daemon.start()

    async def _fill(self, daemon: Daemon, seconds: float) -> None:
        daemon.disk.is_full = True
        await asyncio.sleep(seconds)
        daemon.disk.is_full = False

    async def _slow(self, daemon: Daemon, seconds: float) -> None:
        usual, daemon.disk.commit_s = daemon.disk.commit_s, lambda: 2.0
        await asyncio.sleep(seconds)
        daemon.disk.commit_s = usual

    async def _set_clock(self, seconds: float) -> None:
        self.world.clocks.jump_wall(
            self.rng.choice((-1, 1)) * self.rng.choice((1.0, 3_600.0, 40 * 86_400.0))
        )

    async def _reload(self, daemon: Daemon, seconds: float) -> None:
        self._has_reloaded = True
        nodes = daemon.desired.run_nodes
        other = self.plan.config(
            window=self.rng.choice((1, 2, 64)),
            concurrency=self.rng.choice((1, 2, 8)),
            ack_on=self.rng.choice(("received", "done")),
            delivery=self.rng.choice(("core", "jetstream")) if self.plan.delivery != "core" else "",
        )
        daemon.reload(desired_of(other, nodes))
        await asyncio.sleep(seconds)
        daemon.reload(desired_of(self.plan.config(), nodes))

    async def _stop_worker(self, daemon: Daemon, seconds: float) -> None:
        usual = daemon.desired
        daemon.reload(World.without(usual, self.rng.choice(METHODS)))
        await asyncio.sleep(seconds)
        daemon.reload(usual)

    async def _deny(self, daemon: Daemon, seconds: float) -> None:
        """The broker takes rights away: with the next connection, which comes at once."""
        what = self.rng.choice(("beta.*.*", "beta.*.*.reply.>"))
        denied = (
            Permissions(publish_deny=[what])
            if self.rng.random() < 0.5
            else Permissions(subscribe_deny=[what])
        )
        for permissions, wait_s in ((denied, seconds), (Permissions(), 0.0)):
            self.world.permissions[daemon.name] = permissions
            if not daemon.is_dead:
                daemon.line.bus.permissions = permissions
                daemon.line.stay_away(0.05)
            await asyncio.sleep(wait_s)

    async def _retry(self, daemon: Daemon) -> None:
        if daemon.is_up:
            with contextlib.suppress(asyncio.CancelledError, StoreError):
                await daemon.run(daemon.store.retry_dead())

    def _find_overtaken(self) -> list[str]:
        """I5: with a window of one and one handler at a time each method's messages are begun in order."""
        plan, log = self.plan, self.world.log
        if plan.window > 1 or plan.concurrency > 1 or plan.has_second or self._has_reloaded:
            return []
        found = []
        for method in METHODS:
            firsts = [
                run
                for run in log.runs
                if run.method == method and run.answers is None and log.of(run.text)[0] is run
            ]
            numbers = [run.message_id for run in firsts]
            if numbers != sorted(numbers):
                found.append(f"I5 {method} out of order: {[run.text for run in firsts]}")
        return found

    async def _heal(self) -> None:
        """Whatever was broken is whole again, once and for all."""
        for daemon in self.world.daemons.values():
            daemon.disk.is_full = False
            daemon.disk.crash_at = None
            daemon.reload(desired_of(self.plan.config(), daemon.desired.run_nodes))
            if daemon.is_dead:
                await daemon.start()


async def _run(plan: Plan, line_class: type[Line], store_class: type[MemoryStore]) -> Verdict:
    async with World(plan.seed) as world:
        world.line_class, world.store_class = line_class, store_class
        rng = random.Random(plan.seed ^ 0xB0B)

        def policy(_: Passage) -> Iterable[float]:
            if rng.random() < plan.lose:
                return ()
            copies = 2 if rng.random() < plan.double else 1
            return [rng.uniform(0, plan.late_s) for _ in range(copies)]

        world.policy = policy
        violations = await Chaos(plan, world).run()
        return Verdict(
            plan,
            violations,
            world.faults,
            len(world.log.runs),
            world.clocks.steady(),
            [(run.text, run.began_at) for run in world.log.runs],
        )


def run_seed(
    seed: int,
    *,
    line_class: type[Line] = Line,
    store_class: type[MemoryStore] = MemoryStore,
    delivery: str = "core",
) -> Verdict:
    """Carry out what a seed means. What leaves tasks behind or never comes to rest raises, see `run_virtual`."""
    plan = make_plan(seed, delivery)
    with quiet_logs():
        return run_virtual(_run(plan, line_class, store_class), seed=seed)
