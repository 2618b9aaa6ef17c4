"""Reports to errorCentral: what was given up is told there, at a rate of its own, by a clock that nobody sets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import SimpleNamespace

from appliance.core.current import Current
from appliance.core.names import ERROR_CENTRAL
from appliance.core.specs import DesiredState, LimitSettings
from appliance.methods.registry import METHOD_TABLE
from appliance.outbox.records import AWAITED_ORIGIN, OutboxRecord
from appliance.telemetry.events import EventHub
from appliance.telemetry.report import Telemetry
from appliance.wire.frame import decode_frame, frame_headers, split_encoding
from appliance.workers.error_reports import REPORT_ORIGIN, ErrorReports
from appliance.workers.given_up import FACT_KIND, GivenUp
from appliance.workers.router import Router
from tests.support.virtual_time import Clocks, run_virtual

PER_MINUTE = 3
DESIRED = DesiredState(
    run_nodes=(),
    declared_nodes=frozenset(),
    workers={},
    publisher_defaults={},
    limits=LimitSettings(error_reports_per_minute=PER_MINUTE),
)


class Store:
    """Takes records; nobody empties its lanes."""

    is_crowded = False

    def __init__(self) -> None:
        self.records: list[OutboxRecord] = []
        self.kept: dict[str, str] = {}

    def facts(self, kind: str) -> Mapping[str, str]:
        assert kind == FACT_KIND
        return self.kept

    async def remember(self, kind: str, changes: Mapping[str, str | None]) -> None:
        assert kind == FACT_KIND
        kept = {**self.kept, **changes}
        self.kept = {key: value for key, value in kept.items() if value is not None}

    def lane(self, _key: object) -> SimpleNamespace:
        return SimpleNamespace(depth=len(self.records))

    async def put(self, records: Sequence[OutboxRecord]) -> None:
        self.records += records


class Link:
    """A connection to the broker that comes and goes."""

    def __init__(self) -> None:
        self.is_connected = True
        self.callbacks: list[Callable[[], None]] = []

    def on_connected(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def come_back(self) -> None:
        self.is_connected = True
        for callback in self.callbacks:
            callback()


class Bench:
    def __init__(self) -> None:
        self.clocks = Clocks()
        self.store = Store()
        router = Router(
            METHOD_TABLE,
            instance="00112233aabbccdd",
            next_id=itertools.count(1).__next__,
            wall=self.clocks.steady,
        )
        self.telemetry = Telemetry(EventHub(), mono=self.clocks.steady)
        self.answers = ErrorReports(
            store=self.store,  # type: ignore[arg-type]
            router=router,
            telemetry=self.telemetry,
            desired=Current(DESIRED),
            wall=self.clocks.wall,
            mono=self.clocks.steady,
        )
        self.bus = Link()
        self.restart()

    def restart(self) -> None:
        self.given_up = GivenUp(
            self.answers,
            self.store,  # type: ignore[arg-type]
            self.bus,  # type: ignore[arg-type]
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.answers.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def texts(self) -> list[str]:
        found = []
        for item in self.store.records:
            headers = frame_headers(*split_encoding(item.encoding))
            found.append("".join(decode_frame(item.payload, headers).data or ()))
        return found


def record(id_: int = 7, method: str = "REQCliCommand", origin: str = "") -> OutboxRecord:
    return OutboxRecord(
        id=id_,
        node="hub",
        subject=f"far.{method}.CommandACK",
        to_node="far",
        method=method,
        payload=b"",
        encoding="cbor",
        wants_ack=True,
        created_at=0.0,
        origin=origin,
    )


def test_what_was_given_up_is_told_with_its_reason_and_subject():
    async def scenario() -> None:
        bench = Bench()
        async with bench.running():
            bench.given_up.report_given_up(record(), "expired: nobody there\n2027 forged\x1b[31m")
            await asyncio.sleep(1)
        (text,) = bench.texts
        assert (
            "node: hub, gave up message 7, REQCliCommand to far on far.REQCliCommand.CommandACK: "
            in text
        )
        assert text.endswith("expired: nobody there\\n2027 forged\\x1b[31m\n")
        assert text.count("\n") == 1
        (report,) = bench.store.records
        assert (report.to_node, report.method, report.node) == (ERROR_CENTRAL, "REQErrorLog", "hub")
        assert report.origin == REPORT_ORIGIN

    run_virtual(scenario())


def test_what_is_given_up_without_a_connection_is_told_by_number_when_there_is_one():
    """And makes no reports that wait among messages, however long the link is down."""

    async def scenario() -> None:
        bench = Bench()
        bench.bus.is_connected = False
        async with bench.running():
            for number in range(5_000):
                bench.given_up.report_given_up(record(number), "expired: no connection")
            await asyncio.sleep(3_600)
            assert bench.texts == []
            bench.bus.come_back()
            await asyncio.sleep(1)
            (text,) = bench.texts
            assert "gave up 5000 messages" in text
            assert "the last: gave up message 4999, REQCliCommand to far" in text
            bench.bus.come_back()
            await asyncio.sleep(1)
            assert len(bench.texts) == 1
            assert bench.store.kept == {}

    run_virtual(scenario())


def test_a_restart_without_a_connection_forgets_nothing_that_was_given_up():
    async def scenario() -> None:
        bench = Bench()
        bench.bus.is_connected = False
        async with bench.running():
            bench.given_up.report_given_up(record(1), "expired: no connection")
            await bench.given_up.close()
            bench.restart()
            bench.given_up.report_given_up(record(2), "expired: no connection")
            await bench.given_up.close()
            bench.bus.is_connected = True
            bench.restart()
            await asyncio.sleep(1)
            (text,) = bench.texts
            assert "gave up 2 messages" in text
            await bench.given_up.close()
            assert bench.store.kept == {}

    run_virtual(scenario())


def test_neither_reports_nor_what_somebody_waits_for_are_reported_when_they_end():
    async def scenario() -> None:
        bench = Bench()
        async with bench.running():
            bench.given_up.report_given_up(record(origin=AWAITED_ORIGIN), "failed: begin again")
            bench.given_up.report_given_up(record(method="REQErrorLog"), "expired: nobody there")
            bench.given_up.report_given_up(record(origin=REPORT_ORIGIN), "expired: nobody there")
            await asyncio.sleep(1)
        assert bench.texts == []

    run_virtual(scenario())


def test_dead_letters_in_plenty_are_told_by_number_and_silence_no_failures():
    async def scenario() -> None:
        bench = Bench()
        async with bench.running():
            for number in range(1_000):
                bench.given_up.report_given_up(record(number), "expired: silent since noon")
            bench.answers.report("hub", "a handler failed", method="REQCliCommand")
            bench.answers.report("hub", "refused", method="REQCliCommand", is_refusal=True)
            await asyncio.sleep(61)
            assert len(bench.texts) == PER_MINUTE + 2
            assert any("a handler failed" in text for text in bench.texts)
            bench.given_up.report_given_up(record(1_000), "expired: silent since noon")
            await asyncio.sleep(1)
        assert f"({1_000 - PER_MINUTE} earlier reports suppressed)" in bench.texts[-1]

    run_virtual(scenario())


def test_the_rate_does_not_follow_the_wall_clock():
    async def scenario() -> None:
        bench = Bench()
        async with bench.running():
            for by_s in (0.0, 3_600.0, -86_400.0, 1e9):
                bench.clocks.jump_wall(by_s)
                for _ in range(5):
                    bench.answers.report("hub", "a handler failed", method="REQCliCommand")
                await asyncio.sleep(1)
            assert len(bench.texts) == PER_MINUTE
            await asyncio.sleep(60)
            bench.answers.report("hub", "a handler failed", method="REQCliCommand")
            await asyncio.sleep(1)
        assert len(bench.texts) == PER_MINUTE + 1

    run_virtual(scenario())
