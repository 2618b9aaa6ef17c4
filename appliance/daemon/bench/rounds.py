"""The sending side: what is measured, round after round, and what may end it early."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import statistics
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from appliance.bus.base import Denial
from appliance.bus.events import BusEvents
from appliance.bus.nats import NatsBus
from appliance.core.bench import (
    PACED_SHARE,
    Accounts,
    BenchOptions,
    Cost,
    Progress,
    Round,
    Scenario,
    ScenarioName,
    full_speed_scenarios,
    make_extent,
    paced_scenarios,
)
from appliance.core.message import Message
from appliance.core.meter import Extent
from appliance.daemon.bench.loads import (
    BareLoad,
    BareReplies,
    BenchTelemetry,
    DurableLoad,
    make_texts,
)
from appliance.daemon.bench.order import METHOD, BenchOrder, Facts
from appliance.daemon.bench.parts import find_cause, open_parts
from appliance.daemon.bench.peer import BenchPeer
from appliance.errors import ApplianceError, BenchDenied, BenchFailed, BenchUnsuited, BusUnavailable
from appliance.workers.parts import WorkerParts
from appliance.workers.publisher import Publisher

STALL_S = 30.0
"""Beyond its own time a round may take this long to have everything answered."""
MAX_COUNTED_S = 600.0
"""A round of a number of messages may take this long."""
TELL_EVERY_S = 0.2
LAST_HANDLED_S = 10.0
"""What is acknowledged when received may be handled a little later."""
HEADERS_BYTES = 512
"""More than the headers of a message take."""


OnProgress = Callable[[Progress], None]


class Rounds:
    """Life: `open` -> `measure` -> the stack closes."""

    def __init__(self, order: BenchOrder, options: BenchOptions, tell: OnProgress) -> None:
        self._order = order
        self._options = options
        self._tell = tell
        self._extent = make_extent(options.duration_s, options.count)
        self._trouble: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._telemetry = BenchTelemetry(
            lambda reason: self._on_trouble(BenchFailed(f"a message was given up: {reason}"))
        )
        self._peer = BenchPeer(self._on_trouble, order.pattern)
        self._parts: WorkerParts
        self._bus: NatsBus
        self._publisher: Publisher
        self._replies: BareReplies
        self._facts = Facts()
        self._texts = make_texts(options.size_bytes)
        self.accounts = Accounts()
        self.payload_bytes = 0

    @property
    def server(self) -> str:
        """The broker in use."""
        return self._bus.server

    async def open(self, stack: contextlib.AsyncExitStack, state_dir: Path) -> None:
        """Connect both sides and see that the broker lets them.

        Raises:
            BusUnavailable, BusUnauthorized: no broker takes us.
            BenchDenied: it takes us and not our subjects.
            BenchUnsuited: the messages are larger than something on their way allows.
        """
        stack.callback(self._trouble.cancel)
        self._parts, self._bus = await open_parts(
            stack,
            self._order,
            side="sender",
            state_dir=state_dir / "sender",
            telemetry=self._telemetry,
            events=BusEvents(on_disconnected=self._on_disconnected),
        )
        self._check_size()
        stack.push_async_callback(self._peer.close)
        await self._peer.start(self._order, state_dir / "receiver")
        self._publisher = Publisher(self._order.publisher(self._order.window), self._parts)
        self._replies = BareReplies(self._bus, self._order)
        stack.push_async_callback(self._publisher.close)
        stack.callback(self._bus.on_publish_denied(self._order.bare_subject, self._on_denied))
        await self._guarded(self._replies.start(self._on_denied), STALL_S)
        await self._start_publisher()
        working = asyncio.create_task(self._publisher.run(), name="publisher")
        working.add_done_callback(self._publisher_ended)
        stack.push_async_callback(_end, working)
        for name in (ScenarioName.BROKER, ScenarioName.WINDOW):  # what is denied is denied here
            await self._guarded(self._try(Scenario(name, 1)), STALL_S)
        await self._guarded(self._until_handled(), STALL_S)  # what starting cost is no round's

    async def _start_publisher(self) -> None:
        try:
            await self._guarded(self._publisher.start(), STALL_S)
        except BusUnavailable as error:
            if not self._bus.is_connected:
                raise
            raise BenchDenied(self._order.pattern, str(error)) from error

    async def measure(self) -> list[Round]:
        """Every scenario in every round, so that a slow moment of the machine hits all of them alike."""
        done: list[Round] = []
        rate = self._options.rate
        paced: float | None = None
        for number in range(1, self._options.rounds + 1):
            if rate is not None:
                scenarios = paced_scenarios(self._order.window, rate)
            else:
                scenarios = full_speed_scenarios(self._order.window)
            done += [await self._measure(number, scenario) for scenario in scenarios]
            if rate is None:
                if paced is None:
                    paced = _half_rate(done)
                scenario = Scenario(ScenarioName.PACED, self._order.window, paced)
                done.append(await self._measure(number, scenario))
        return done

    async def _try(self, scenario: Scenario) -> None:
        """One message there and back."""
        load = self._make_load(scenario, Extent(measure_count=1))
        await load.run()
        self._count(load, scenario)

    # -- one round ----------------------------------------------------------------------------------

    async def _measure(self, number: int, scenario: Scenario) -> Round:
        before = self._facts
        own_before = _own_cpu()
        load = self._make_load(scenario, self._extent)
        telling = asyncio.create_task(self._tell_on(number, load, scenario), name="progress")
        limit_s = self._options.duration_s if self._options.count is None else MAX_COUNTED_S
        try:
            await self._guarded(load.run(), limit_s + STALL_S)
        finally:
            telling.cancel()
            await asyncio.wait({telling})
        own_after = _own_cpu()
        self._count(load, scenario)
        await self._guarded(self._until_handled(), STALL_S)
        self._tell(self._progress(number, load, scenario, is_done=True))
        return Round(
            scenario=scenario,
            meter=load.meter,
            sender=_cost(load.sent, own_before, own_after),
            receiver=_cost(
                load.sent,
                (before.cpu_s, before.loop_cpu_s),
                (self._facts.cpu_s, self._facts.loop_cpu_s),
            ),
            lateness=load.lateness if scenario.rate is not None else None,
            is_overrun=load.is_overrun,
        )

    def _make_load(self, scenario: Scenario, extent: Extent) -> BareLoad | DurableLoad:
        if scenario.is_bare:
            payload = os.urandom(self.payload_bytes)
            return BareLoad(self._order, self._bus, self._replies, scenario, extent, payload)
        return DurableLoad(
            self._order,
            self._parts,
            self._publisher,
            self._telemetry,
            scenario,
            extent,
            self._texts,
        )

    def _count(self, load: BareLoad | DurableLoad, scenario: Scenario) -> None:
        if not scenario.is_bare:
            self.accounts.handed_over += load.sent
        self.accounts.acknowledged = self._publisher.stats.acked
        self.accounts.dead = self._publisher.stats.dead
        self.accounts.missed = self._telemetry.missed

    async def _until_handled(self) -> None:
        """Ask the receiving side until it has handled everything, or time is up: then it is lost."""
        until_mono = time.monotonic() + LAST_HANDLED_S
        while True:
            facts = self._facts = await self._peer.ask()
            handled = facts.handled + facts.failed
            if handled >= self.accounts.handed_over or time.monotonic() > until_mono:
                break
            await asyncio.sleep(TELL_EVERY_S / 10)
        self.accounts.handled = handled
        self.accounts.repeats = facts.repeats
        self.accounts.refused = facts.refused

    async def _tell_on(self, number: int, load: BareLoad | DurableLoad, scenario: Scenario) -> None:
        while True:
            self._tell(self._progress(number, load, scenario))
            await asyncio.sleep(TELL_EVERY_S)

    def _progress(
        self,
        number: int,
        load: BareLoad | DurableLoad,
        scenario: Scenario,
        *,
        is_done: bool = False,
    ) -> Progress:
        return Progress(
            number=number,
            rounds=self._options.rounds,
            scenario=scenario,
            share=1.0 if is_done else load.meter.share(time.monotonic()),
            rate=load.meter.rate,
            is_done=is_done,
        )

    # -- what may go wrong ----------------------------------------------------------------------------

    def _check_size(self) -> None:
        record = self._parts.router.make_record(
            Message(
                to_node=self._order.receiver,
                from_node=self._order.sender,
                method=METHOD,
                data=(self._texts[0],),
            )
        )
        self.payload_bytes = len(record.payload)
        limits = self._order.limits
        for what, size, most in (
            ("the broker takes", self.payload_bytes + HEADERS_BYTES, self._bus.max_payload),
            ("limits.max_message_bytes allows", self.payload_bytes, limits.max_message_bytes),
            (
                "limits.max_decompressed_bytes allows",
                self._options.size_bytes + HEADERS_BYTES,
                limits.max_decompressed_bytes,
            ),
        ):
            if size > most:
                raise BenchUnsuited(
                    f"--size {self._options.size_bytes}: a message of {size} bytes is more than {what}, {most}"
                )

    async def _guarded(self, work: Coroutine[None, None, None], limit_s: float) -> None:
        """Do it, unless there is trouble or it takes too long."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait(
                {task, self._trouble}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            if self._trouble.done():
                self._trouble.result()
            if not task.done():
                raise BenchFailed(f"no answers for {STALL_S:g} s")
            task.result()
        finally:
            await _end(task)

    def _on_trouble(self, error: ApplianceError) -> None:
        if not self._trouble.done():
            self._trouble.set_exception(error)
            self._trouble.exception()  # seen, should nobody be waiting now

    def _on_denied(self, denial: Denial) -> None:
        self._on_trouble(BenchDenied(self._order.pattern, denial.text))

    def _on_disconnected(self) -> None:
        self._on_trouble(BusUnavailable("the connection to the broker was lost on the way"))

    def _publisher_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else find_cause(task)
        if isinstance(error, BusUnavailable):
            # what ends it is a denial, and nothing else
            self._on_trouble(BenchDenied(self._order.pattern, str(error)))
        elif error is not None:
            self._on_trouble(BenchFailed(f"the publisher ended: {error}"))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _half_rate(rounds: list[Round]) -> float:
    """A load well below the most, in two digits: it is read by people and asked for again."""
    measured = [item.meter.rate for item in rounds if item.scenario.name is ScenarioName.WINDOW]
    return max(1.0, float(f"{statistics.median(measured) * PACED_SHARE:.2g}"))


def _own_cpu() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime, time.thread_time())


def _cost(messages: int, before: tuple[float, float], after: tuple[float, float]) -> Cost:
    return Cost(messages=messages, total_s=after[0] - before[0], loop_s=after[1] - before[1])
