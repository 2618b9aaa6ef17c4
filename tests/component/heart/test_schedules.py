"""Schedulers on virtual time: beats and cron times over restarts, corrections of the clock, and a store that is full."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from appliance.core.message import Message
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import CatchUp, DesiredState, PublisherSpec, Schedule
from appliance.errors import RequestInvalid, StoreFull
from appliance.telemetry.events import EventHub
from appliance.telemetry.report import Telemetry
from appliance.workers.schedule import (
    FACT_KIND,
    ID_PLACEHOLDER,
    MAX_WAIT_S,
    Facts,
    Scheduler,
    fact_key,
    stale_facts,
)
from tests.support.virtual_time import Clocks, run_virtual

HOUR_S = 3_600.0
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2027, 6, 1, 12, 0, tzinfo=BERLIN).timestamp()


class Store:
    """What a scheduler needs of the message store; what `remember` and `submit` were given is on its disk."""

    def __init__(self, clocks: Clocks) -> None:
        self.now = clocks.steady
        self.disk: dict[str, str] = {}
        self.pending: set[int] = set()
        self.is_full = False
        self.refuses = False
        self.last_id = 0
        self.sent: list[tuple[float, Message, str]] = []
        self.on_sent: Callable[[], object] = lambda: None

    def is_pending(self, record_id: int) -> bool:
        return record_id in self.pending

    def facts(self, kind: str) -> Mapping[str, str]:
        assert kind == FACT_KIND
        return dict(self.disk)

    async def remember(self, kind: str, changes: Mapping[str, str | None]) -> None:
        if self.is_full:
            raise StoreFull("no room")
        for key, value in changes.items():
            if value is None:
                self.disk.pop(key, None)
            else:
                self.disk[key] = value

    async def submit(self, message: Message, origin: str, facts: Facts) -> int | None:
        """The publisher's part of the contract."""
        await asyncio.sleep(0.001)
        if self.is_full:
            raise StoreFull("no room")
        if self.refuses:
            raise RequestInvalid("cannot be sent")
        self.last_id += 1
        self.sent.append((self.now(), message, origin))
        self.pending.add(self.last_id)
        self.on_sent()
        for (kind, key), value in facts.items():
            assert kind == FACT_KIND
            assert value is not None
            self.disk[key] = value.replace(ID_PLACEHOLDER, str(self.last_id))
        return self.last_id


class Bench:
    """One schedule, its store and its clocks; `running` is one life of the daemon."""

    def __init__(
        self, schedule: Schedule, method: str = "REQCliCommand", wall: float = NOON
    ) -> None:
        self.clocks = Clocks(wall)
        self.store = Store(self.clocks)
        self.spec = PublisherSpec(
            node=NodeName("hub"),
            subject=Subject(f"far.{method}.CommandACK"),
            to_node=NodeName("far"),
            method=MethodName(method),
            wants_ack=True,
            schedule=schedule,
            entry="nightly",
        )
        self.events = EventHub(wall=self.clocks.wall)
        self.start_s = self.clocks.steady()
        self.scheduler: Scheduler

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Scheduler]:
        self.scheduler = Scheduler(
            self.spec,
            self.store.submit,
            Telemetry(self.events, wall=self.clocks.wall, mono=self.clocks.steady),
            store=self.store,
            wall=self.clocks.wall,
            mono=self.clocks.steady,
        )
        task = asyncio.create_task(self.scheduler.run())
        try:
            yield self.scheduler
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def live(self, seconds: float) -> None:
        """One life of the daemon."""
        async with self.running():
            await asyncio.sleep(seconds)

    def settle(self) -> None:
        self.store.pending.clear()

    @property
    def times(self) -> list[float]:
        """When messages were made, in seconds since the beginning."""
        return [round(at - self.start_s, 1) for at, _, _ in self.store.sent]

    def told(self, kind: str) -> list[dict[str, object]]:
        return [event for event in self.events.recent() if event["event"] == kind]


def every(seconds: float, **more: object) -> Schedule:
    return Schedule(every_s=seconds, **more)  # type: ignore[arg-type]


def cron(text: str, catch_up: CatchUp = CatchUp.NONE) -> Schedule:
    return Schedule(cron=text, timezone="Europe/Berlin", catch_up=catch_up)


@contextlib.asynccontextmanager
async def served(bench: Bench) -> AsyncIterator[None]:
    """Every message is settled a second after it was made."""
    loop = asyncio.get_running_loop()
    bench.store.on_sent = lambda: loop.call_later(1, bench.settle)
    try:
        yield
    finally:
        bench.store.on_sent = lambda: None


def test_a_new_beat_begins_at_once_and_is_kept_exactly():
    async def scenario() -> None:
        bench = Bench(every(60, data=("x",)))
        async with served(bench):
            await bench.live(301)
        assert bench.times == [0, 60, 120, 180, 240, 300]
        _, message, origin = bench.store.sent[0]
        assert (message.to_node, message.from_node, message.data) == ("far", "hub", ("x",))
        assert origin == "schedule:nightly"

    run_virtual(scenario())


def test_a_beat_is_kept_over_restarts():
    async def scenario() -> None:
        bench = Bench(every(HOUR_S))
        async with served(bench):
            for _ in range(4):
                await bench.live(10)
                await asyncio.sleep(5)
            assert bench.times == [0]
            await bench.live(HOUR_S)
            assert bench.times == [0, HOUR_S]
            await asyncio.sleep(
                2.5 * HOUR_S
            )  # down: the beat is late and comes at once, then counts anew
            down_until = bench.clocks.steady() - bench.start_s
            await bench.live(HOUR_S + 1)
            assert bench.times[2:] == [round(down_until, 1), round(down_until + HOUR_S, 1)]

    run_virtual(scenario())


def test_one_message_waits_whatever_restarts_and_reloads_come():
    async def scenario() -> None:
        bench = Bench(every(HOUR_S))
        for _ in range(3):
            await bench.live(1.5 * HOUR_S)
            bench.spec = PublisherSpec(
                **{
                    **{name: getattr(bench.spec, name) for name in bench.spec.__slots__},
                    "schedule": every(HOUR_S, data=(str(bench.clocks.steady()),)),
                }
            )
        assert bench.times == [0]
        bench.settle()
        await bench.live(HOUR_S)
        assert len(bench.times) == 2

    run_virtual(scenario())


def test_a_hello_goes_out_with_every_start_and_when_asked_for():
    async def scenario() -> None:
        bench = Bench(every(HOUR_S), method="REQHello")
        async with served(bench):
            await bench.live(10)
            async with bench.running() as scheduler:
                await asyncio.sleep(20)
                assert bench.times == [0, 10]
                scheduler.hurry()
                await asyncio.sleep(HOUR_S + 1)
        assert bench.times == [0, 10, 30, 30 + HOUR_S]

    run_virtual(scenario())


def test_hurry_makes_no_second_message_and_means_nothing_to_cron():
    async def scenario() -> None:
        for schedule in (every(HOUR_S), cron("0 6 * * *")):
            bench = Bench(schedule)
            async with bench.running() as scheduler:
                for _ in range(5):
                    await asyncio.sleep(1)
                    scheduler.hurry()
            assert len(bench.times) == (1 if schedule.every_s else 0)

    run_virtual(scenario())


def test_a_changed_schedule_begins_anew_and_an_equal_one_does_not():
    async def scenario() -> None:
        bench = Bench(every(HOUR_S))
        async with served(bench), bench.running() as scheduler:
            await asyncio.sleep(100)
            scheduler.use(bench.spec)
            await asyncio.sleep(100)
            assert bench.times == [0]
            scheduler.use(Bench(every(500)).spec)
            await asyncio.sleep(600)
            assert bench.times == [0, 200, 700]
            scheduler.use(Bench(cron("0 13 * * *")).spec)
            await asyncio.sleep(HOUR_S)
            assert bench.times == [0, 200, 700, HOUR_S]

    run_virtual(scenario())


def test_every_does_not_follow_the_wall_clock():
    async def scenario() -> None:
        bench = Bench(every(600))
        async with served(bench), bench.running() as scheduler:
            for by_s in (86_400.0 * 400, -86_400.0 * 800, 100.0):
                await asyncio.sleep(50)
                bench.clocks.jump_wall(by_s)
                scheduler.clock_jumped()
            await asyncio.sleep(1_100)
        assert bench.times == [0, 600, 1200]

    run_virtual(scenario())


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("by_h", [-2.0, 2.0, 5.9, -30.0])
def test_cron_comes_at_its_time_on_the_wall_after_a_correction(by_h: float, is_told: bool):
    async def scenario() -> None:
        bench = Bench(cron("0 18 * * *"))
        async with served(bench), bench.running() as scheduler:
            await asyncio.sleep(100)
            bench.clocks.jump_wall(by_h * HOUR_S)
            if is_told:
                scheduler.clock_jumped()
            for _ in range(48):
                await asyncio.sleep(HOUR_S)
                if bench.store.sent:
                    break
            await asyncio.sleep(3 * HOUR_S)  # and not once more
        walls = [bench.clocks.wall() - bench.clocks.steady() + at for at, _, _ in bench.store.sent]
        shown = [datetime.fromtimestamp(at, BERLIN) for at in walls]
        assert [f"{item:%H:%M:%S}" for item in shown] == ["18:00:00"]
        assert bench.told("schedule_missed") == []

    run_virtual(scenario())


@pytest.mark.parametrize(("catch_up", "messages"), [(CatchUp.NONE, 0), (CatchUp.ONCE, 1)])
def test_a_jump_over_times_is_told_once_and_made_up_as_catch_up_says(
    catch_up: CatchUp, messages: int
):
    async def scenario() -> None:
        bench = Bench(cron("0 18 * * *", catch_up))
        async with served(bench), bench.running() as scheduler:
            await asyncio.sleep(100)
            bench.clocks.jump_wall(60 * HOUR_S)
            scheduler.clock_jumped()
            await asyncio.sleep(HOUR_S)
        assert len(bench.times) == messages
        (event,) = bench.told("schedule_missed")
        assert (event["made_up"], event["node"]) == (catch_up is CatchUp.ONCE, "hub")
        assert event["at"] == "2027-06-01T16:00:00.000Z"
        await bench.live(60)  # a restart does not tell it again
        assert len(bench.told("schedule_missed")) == 1
        assert len(bench.times) == messages

    run_virtual(scenario())


def test_a_minute_that_is_due_after_others_were_missed_makes_none_of_them_up():
    async def scenario():
        bench = Bench(cron("* * * * *", CatchUp.NONE))
        async with served(bench):
            await bench.live(90)
            await asyncio.sleep(10 * 60)
            await bench.live(90)
        (event,) = bench.told("schedule_missed")
        assert event["made_up"] is False
        assert len(bench.times) == len(set(bench.times))

    run_virtual(scenario())


@pytest.mark.parametrize(("catch_up", "messages"), [(CatchUp.NONE, 0), (CatchUp.ONCE, 1)])
def test_times_of_cron_that_passed_while_the_daemon_was_down(catch_up: CatchUp, messages: int):
    async def scenario() -> None:
        bench = Bench(cron("0 18 * * *", catch_up))
        async with served(bench):
            await bench.live(60)
            await asyncio.sleep(50 * HOUR_S)
            await bench.live(60)
        assert len(bench.times) == messages
        assert len(bench.told("schedule_missed")) == 1

    run_virtual(scenario())


def test_a_time_of_cron_does_not_come_again_after_a_restart_and_a_clock_set_back():
    async def scenario() -> None:
        bench = Bench(cron("0 18 * * *"))
        async with served(bench):
            await bench.live(6 * HOUR_S + 1)
            assert len(bench.times) == 1
            bench.clocks.jump_wall(-HOUR_S)
            await bench.live(2 * HOUR_S)
        assert len(bench.times) == 1
        assert bench.told("schedule_missed") == []

    run_virtual(scenario())


def test_cron_makes_no_message_while_one_waits_and_forgets_the_time():
    async def scenario() -> None:
        bench = Bench(cron("0 * * * *", CatchUp.ONCE))
        await bench.live(5.5 * HOUR_S)
        assert len(bench.times) == 1
        bench.settle()
        await bench.live(60)
        assert len(bench.times) == 1
        await bench.live(HOUR_S)
        assert len(bench.times) == 2

    run_virtual(scenario())


@pytest.mark.parametrize("schedule", [every(HOUR_S), cron("0 13 * * *", CatchUp.ONCE)])
def test_a_full_store_is_asked_again_and_told_once(schedule: Schedule):
    async def scenario() -> None:
        bench = Bench(schedule)
        async with bench.running() as scheduler:
            await asyncio.sleep(HOUR_S - 60)
            sent_before = len(bench.times)
            bench.settle()
            bench.store.is_full = True
            for _ in range(60):
                await asyncio.sleep(5)
                scheduler.clock_jumped()  # not even that makes it hammer
            assert len(bench.times) == sent_before
            assert len(bench.told("worker_troubled")) == 1
            bench.store.is_full = False
            await asyncio.sleep(MAX_WAIT_S)
        assert len(bench.times) == sent_before + 1

    run_virtual(scenario())


def test_what_cannot_be_sent_is_told_and_waits_for_the_next_time():
    async def scenario() -> None:
        bench = Bench(every(100))
        bench.store.refuses = True
        async with bench.running():
            await asyncio.sleep(250)
            bench.store.refuses = False
            await asyncio.sleep(100)
        assert bench.times == [300]
        assert len(bench.told("worker_troubled")) == 1

    run_virtual(scenario())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a b c",
        "a nan 1",
        "a inf -",
        f"a 1 {'9' * 5_000}",
        "a 1e999 1",
        "\0 \0 \0",
        "a 1 1 1",
    ],
)
@pytest.mark.parametrize("schedule", [every(HOUR_S), cron("0 13 * * *")])
def test_a_damaged_fact_is_none(text: str, schedule: Schedule):
    async def scenario() -> None:
        bench = Bench(schedule)
        bench.store.disk[fact_key(bench.spec)] = text
        async with served(bench):
            await bench.live(HOUR_S + 1)
        assert bench.times == ([0, HOUR_S] if schedule.every_s else [HOUR_S])

    run_virtual(scenario())


def test_a_beat_from_the_future_is_none():
    async def scenario() -> None:
        bench = Bench(every(HOUR_S))
        await bench.live(1)
        key = fact_key(bench.spec)
        fingerprint, _, record_id = bench.store.disk[key].split(" ")
        bench.store.disk[key] = f"{fingerprint} 9e15 {record_id}"
        bench.settle()
        await bench.live(HOUR_S + 1)
        assert bench.times == [0, HOUR_S + 1]

    run_virtual(scenario())


def test_a_zone_that_went_away_is_told_once_and_looked_for_again():
    async def scenario() -> None:
        bench = Bench(Schedule(cron="* * * * *", timezone="Nowhere/Atall"))
        await bench.live(600)
        assert bench.times == []
        assert len(bench.told("worker_troubled")) == 1

    run_virtual(scenario())


def test_what_no_entry_has_any_more_is_forgotten_unless_its_message_waits():
    async def scenario() -> None:
        bench = Bench(every(HOUR_S))
        await bench.live(1)
        key = fact_key(bench.spec)
        facts = {
            **bench.store.disk,
            "hub/gone/far": "x 1.0 7",
            "hub/waits/far": "x 1.0 8",
            "?": "?",
        }

        def is_pending(record_id: int) -> bool:
            return record_id == 8

        desired = DesiredState(
            run_nodes=(NodeName("hub"),),
            declared_nodes=frozenset(),
            workers={bench.spec.key: bench.spec},
            publisher_defaults={},
        )
        assert key in facts
        assert stale_facts(facts, desired, is_pending) == ["hub/gone/far", "?"]

    run_virtual(scenario())
