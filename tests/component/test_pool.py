"""The pool: one worker's trouble is its own; stop, join, then forget."""

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar, cast
from unittest.mock import Mock

import pytest

from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.plan import make_plan
from appliance.core.specs import AckOn, Delivery, Phase, SubscriberSpec
from appliance.errors import BusUnavailable
from appliance.reconcile import pool as pool_module
from appliance.reconcile.pool import WorkerPool
from appliance.telemetry.stats import DrainReport, WorkerStats
from tests.support.virtual_time import run_virtual
from tests.support.waiting import until_async


def spec(name, **changes):
    return SubscriberSpec(
        node=NodeName(name),
        subject=Subject(f"{name}.REQPing.EventACK"),
        method=MethodName("REQPing"),
        wants_ack=True,
        **changes,
    )


@dataclass
class Recorder:
    facts: list = field(default_factory=list)

    def __getattr__(self, name):
        return lambda *args, **named: self.facts.append((name, *args, *named.values()))

    def names(self):
        return [fact[0] for fact in self.facts]


class ToyWorker:
    """Runs until drained, or does what its node's name says."""

    alive: ClassVar[set] = set()
    refuses: ClassVar[set] = set()
    """Methods whose workers do not start."""

    def __init__(self, spec):
        self.spec = spec
        self.stats = WorkerStats()
        self.stop = asyncio.Event()
        self.updates = []
        self.closed = False

    async def start(self):
        if self.spec.node == "unstartable" or self.spec.method in ToyWorker.refuses:
            raise OSError("no such thing")
        assert self.spec.key not in ToyWorker.alive
        ToyWorker.alive.add(self.spec.key)

    async def run(self):
        if self.spec.node == "crasher":
            raise ValueError("boom")
        if self.spec.node == "stubborn":
            while not self.stop.is_set():
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    break
        await self.stop.wait()

    def update(self, spec):
        if spec.node == "unwilling":
            raise OSError("not that")
        self.updates.append(("update", spec))

    async def swap(self, spec):
        if spec.node == "unwilling":
            raise OSError("not that")
        self.updates.append(("swap", spec))

    async def drain(self, deadline_mono):
        self.stop.set()
        return DrainReport(worker=self.spec.key.name, finished=1)

    async def close(self):
        self.closed = True
        ToyWorker.alive.discard(self.spec.key)


@pytest.fixture
async def world():
    ToyWorker.alive = set()
    telemetry = Recorder()
    built = []
    ended = asyncio.Event()

    def build(wanted):
        built.append(ToyWorker(wanted))
        return built[-1]

    pool = WorkerPool(build, telemetry, wall=lambda: 0.0, on_ended=ended.set)

    async def converge(*specs):
        desired = {one.key: one for one in specs}
        plan = make_plan(desired, pool.observe(), asyncio.get_running_loop().time())
        return await pool.apply(plan, 5.0)

    yield pool, converge, telemetry, built, ended
    await pool.stop_all(asyncio.get_running_loop().time() + 1, ["subscriber", "publisher"])
    assert not ToyWorker.alive


async def test_workers_are_spawned_updated_swapped_and_cancelled_without_touching_the_others(world):
    pool, converge, telemetry, built, _ = world
    await converge(spec("a"), spec("b"))
    first_a, first_b = built
    await converge(spec("a", concurrency=2), spec("b"))
    await converge(spec("a", concurrency=2, ack_on=AckOn.DONE), spec("b"))
    report = await converge(spec("b"))
    assert [kind for kind, _ in first_a.updates] == ["update", "swap"]
    assert first_b.updates == []
    assert first_a.closed
    assert not first_b.closed
    assert [drain.worker for drain in report.drains] == ["a.REQPing.EventACK_subscriber"]
    assert set(pool.handles) == {spec("b").key}
    assert telemetry.names().count("worker_stopped") == 1


OTHER_MODE = cast(Delivery, "other")


async def test_another_mode_of_delivery_takes_another_worker_after_the_first_has_drained(world):
    pool, converge, telemetry, built, _ = world
    await converge(spec("a"), spec("b"))
    first, neighbour = built
    # `ToyWorker.start` holds that no two of one key are there at once
    report = await converge(spec("a", delivery=OTHER_MODE), spec("b"))
    assert first.closed
    assert first.updates == neighbour.updates == []
    assert [worker.spec.delivery for worker in built] == ["core", "core", "other"]
    assert [drain.worker for drain in report.drains] == ["a.REQPing.EventACK_subscriber"]
    assert telemetry.names()[-2:] == ["worker_stopped", "worker_started"]
    assert pool.handles[spec("a").key].phase is Phase.RUNNING
    assert (await converge(spec("a", delivery=OTHER_MODE), spec("b"))).drains == []


async def test_one_that_cannot_start_with_another_mode_backs_off_with_its_reason(world):
    pool, converge, *_ = world
    await converge(spec("a"))
    ToyWorker.refuses = {"REQPing"}
    try:
        report = await converge(spec("a", delivery=OTHER_MODE))
    finally:
        ToyWorker.refuses = set()
    assert report.failed == {"a.REQPing.EventACK_subscriber": "OSError: no such thing"}
    assert pool.handles[spec("a").key].phase is Phase.BACKING_OFF
    assert pool.handles[spec("a").key].spec.delivery == OTHER_MODE


async def test_a_failure_is_news_when_its_words_are_new_and_the_broker_is_there():
    telemetry = Recorder()
    errors = [
        OSError("a"),
        OSError("a"),
        OSError("b"),
        BusUnavailable("not connected"),
        OSError("b"),
    ]
    errors += [ExceptionGroup("g", [BusUnavailable("not connected")])]

    class Failing(ToyWorker):
        async def run(self):
            raise errors.pop(0)

    pool = WorkerPool(Failing, telemetry, wall=lambda: 0.0, on_ended=lambda: None)
    loop = asyncio.get_running_loop()
    for count in range(1, 7):
        plan = make_plan({spec("a").key: spec("a")}, pool.observe(), loop.time())
        await pool.apply(plan, 5.0)
        await until_async(lambda count=count: telemetry.names().count("worker_failed") == count)
        pool.retry_now()
    told = [fact[-1] for fact in telemetry.facts if fact[0] == "worker_failed"]
    assert told == [True, False, True, False, True, False]
    await pool.stop_all(loop.time() + 1, ["subscriber"])


@pytest.mark.parametrize("changes", [{"concurrency": 2}, {"ack_on": AckOn.DONE}])
async def test_what_a_worker_does_not_take_is_its_own_failure_and_tried_again(world, changes):
    pool, converge, telemetry, built, _ = world
    await converge(spec("unwilling"), spec("b"))
    report = await converge(spec("unwilling", **changes), spec("b", **changes))
    assert report.failed == {"unwilling.REQPing.EventACK_subscriber": "OSError: not that"}
    (taker,) = (worker for worker in built if worker.spec.node == "b")
    assert len(taker.updates) == 1
    assert pool.observe()[spec("unwilling").key].spec == spec("unwilling")
    assert "worker_failed" in telemetry.names()


async def test_a_change_that_is_taken_ends_the_trouble_of_one_that_was_not(world, monkeypatch):
    pool, converge, _, built, _ = world
    await converge(spec("b"))
    with monkeypatch.context() as changed:
        changed.setattr(built[0], "update", Mock(side_effect=OSError("not now")))
        await converge(spec("b", concurrency=2))
    assert pool.handles[spec("b").key].last_error == "OSError: not now"
    await converge(spec("b", concurrency=2))
    assert pool.handles[spec("b").key].last_error is None


async def test_a_worker_that_failed_is_down_while_it_is_tried_again(world, monkeypatch):
    pool, converge, _, _, _ = world
    await converge(spec("unstartable"))
    handle = pool.handles[spec("unstartable").key]
    assert handle.is_down
    handle.retry_at_mono = 0.0
    seen = []

    async def hang(worker):
        seen.append(pool.handles[worker.spec.key])
        await asyncio.Event().wait()

    monkeypatch.setattr(ToyWorker, "start", hang)
    monkeypatch.setattr(pool_module, "START_TIMEOUT_S", 0.1)
    trying = asyncio.create_task(converge(spec("unstartable"), spec("new")))
    await until_async(lambda: len(seen) == 2)
    is_down = {one.spec.node: (one.phase, one.is_down) for one in seen}
    assert is_down == {
        "unstartable": (Phase.STARTING, True),
        "new": (Phase.STARTING, False),  # nothing speaks against it yet
    }
    await trying


async def test_a_worker_that_cannot_start_backs_off_and_the_others_run(world):
    pool, converge, _, _, _ = world
    report = await converge(spec("unstartable"), spec("b"))
    observed = pool.observe()
    assert observed[spec("unstartable").key].phase is Phase.BACKING_OFF
    assert "no such thing" in observed[spec("unstartable").key].last_error
    assert observed[spec("b").key].phase is Phase.RUNNING
    assert list(report.failed) == ["unstartable.REQPing.EventACK_subscriber"]


async def test_a_crashed_worker_is_observed_and_spawned_again_by_the_same_plan(world):
    pool, converge, _, built, ended = world
    await converge(spec("crasher"), spec("b"))
    await ended.wait()
    handle = pool.handles[spec("crasher").key]
    assert handle.phase is Phase.BACKING_OFF
    assert "boom" in handle.last_error
    handle.retry_at_mono = 0.0
    await converge(spec("crasher"), spec("b"))
    assert [worker.spec.node for worker in built] == ["b", "crasher", "crasher"]
    assert pool.handles[spec("crasher").key].restarts == 1


async def test_what_a_worker_counted_stays_when_it_is_cancelled_or_followed_by_another(world):
    pool, converge, _, built, ended = world
    await converge(spec("crasher"), spec("b"))
    await ended.wait()
    for worker in built:
        worker.stats.handled = 3
        worker.stats.handler.observe(0.5)
    assert pool.gone.handled == 0  # both are still there to be asked
    pool.handles[spec("crasher").key].retry_at_mono = 0.0
    await converge(spec("crasher"))
    assert pool.gone.handled == 6
    assert pool.gone.handler.count == 2


async def test_a_failed_worker_waits_longer_each_time(world):
    pool, converge, _, _, _ = world
    delays = []
    for _ in range(6):
        await converge(spec("unstartable"))
        handle = pool.handles[spec("unstartable").key]
        delays.append(handle.retry_at_mono - asyncio.get_running_loop().time())
        handle.retry_at_mono = 0.0
    assert delays[-1] > delays[0] * 4


def test_a_worker_that_starts_and_fails_again_is_not_told_of_as_recovered():
    """So does one whose subject the broker denies: it starts well, and fails with the first message."""

    async def scenario():
        telemetry = Recorder()
        built = []

        class Relapsing(ToyWorker):
            async def run(self):
                async with asyncio.timeout(1.0 if len(built) < 4 else None):
                    await self.stop.wait()

        def build(wanted):
            built.append(Relapsing(wanted))
            return built[-1]

        pool = WorkerPool(build, telemetry, wall=lambda: 0.0, on_ended=lambda: None)
        loop = asyncio.get_running_loop()
        for _ in range(4):
            plan = make_plan({spec("a").key: spec("a")}, pool.observe(), loop.time())
            await pool.apply(plan, 5.0)
            await asyncio.sleep(2.0)
            pool.retry_now()
        assert telemetry.names().count("worker_failed") == 3
        assert "worker_recovered" not in telemetry.names()
        assert pool.handles[spec("a").key].last_error is not None
        await asyncio.sleep(60.0)
        assert telemetry.names().count("worker_recovered") == 1
        assert pool.handles[spec("a").key].last_error is None
        await pool.stop_all(loop.time() + 1, ["subscriber"])

    ToyWorker.alive = set()
    run_virtual(scenario())


async def test_a_backing_off_worker_that_is_no_longer_wanted_just_goes(world):
    pool, converge, _, _, _ = world
    await converge(spec("unstartable"))
    await converge()
    assert pool.handles == {}


async def test_stopping_all_joins_every_worker(world):
    pool, converge, _, built, _ = world
    await converge(*(spec(f"n{number}") for number in range(20)))
    drains = await pool.stop_all(asyncio.get_running_loop().time() + 5, ["subscriber"])
    assert len(drains) == 20
    assert all(worker.closed for worker in built)
    assert pool.handles == {}
