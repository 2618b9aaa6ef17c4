"""A publisher: the life of one lane of the outbox, from its start to the hand-over of what is left.

What is sent when is `workers.lane_sender`'s, what an answer means `workers.lane_answers`', how a record ends
`workers.lane_ends`'; this is the worker around them, which has the timers, follows the spec and produces the messages of a
schedule.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from appliance.bus.base import Denial
from appliance.core.delivery import Standing
from appliance.core.message import Message
from appliance.core.pacing import LanePace
from appliance.core.specs import PublisherSpec, WorkerSpec
from appliance.delivery.base import Flight
from appliance.dialect.headers import HELLO_HEADER
from appliance.errors import BusUnavailable
from appliance.telemetry.stats import DrainReport, WorkerStats
from appliance.workers.in_flight import InFlight
from appliance.workers.lane_answers import LaneAnswers
from appliance.workers.lane_ends import LaneEnds, delivered_as
from appliance.workers.lane_sender import LaneSender
from appliance.workers.lane_standing import LaneStanding
from appliance.workers.router import lane_key
from appliance.workers.schedule import HELLO_METHOD, Facts, Scheduler, fill_facts
from appliance.workers.services import WorkerServices

IDLE_RETIRE_S = 60.0
"""A publisher made on demand is no longer desired after this long without a record."""


class Publisher:
    """Owns one lane. See the module for the idea."""

    def __init__(self, spec: PublisherSpec, services: WorkerServices) -> None:
        self._spec = spec
        self.stats = WorkerStats()
        self._services = services
        self._wake = asyncio.Event()
        self._lane = services.store.lane(lane_key(spec))
        self._carrier = services.delivery.make_carrier(spec)
        flights = InFlight(self.stats, services.bus.connection_epoch)
        pace = LanePace(spec.window)
        self._standing = LaneStanding(
            spec,
            flights=flights,
            pace=pace,
            bus=services.bus,
            store=services.store,
            telemetry=services.telemetry,
            mono=services.mono,
        )
        self._ends = LaneEnds(
            spec,
            lane=self._lane,
            flights=flights,
            carrier=self._carrier,
            standing=self._standing,
            store=services.store,
            telemetry=services.telemetry,
            stats=self.stats,
            hiding=services.hiding,
            on_concluded=self._on_concluded,
        )
        answers = LaneAnswers(
            spec,
            lane=self._lane,
            flights=flights,
            pace=pace,
            carrier=self._carrier,
            ends=self._ends,
            standing=self._standing,
            store=services.store,
            peers=services.peers,
            telemetry=services.telemetry,
            stats=self.stats,
        )
        self._sender = LaneSender(
            spec,
            lane=self._lane,
            flights=flights,
            pace=pace,
            carrier=self._carrier,
            answers=answers,
            ends=self._ends,
            bus=services.bus,
            store=services.store,
            mono=services.mono,
        )
        self._scheduler = Scheduler(
            spec,
            self._submit_scheduled,
            services.telemetry,
            store=services.store,
            wall=services.wall,
            mono=services.mono,
        )
        self._idle = asyncio.Event()
        self._endings: list[Callable[[], None]] = []
        self._denied: str | None = None
        self._last_used_mono = services.mono()

    @property
    def is_idle(self) -> bool:
        """Whether an on-demand publisher has had nothing to do for a while."""
        return self._sender.is_idle and self._services.mono() - self._last_used_mono > IDLE_RETIRE_S

    @property
    def trouble(self) -> str | None:
        """That nothing of ours is taken there; all else shows in what waits."""
        if not self._standing.is_undeclared:
            return None
        node, to_node = self._spec.node, self._spec.to_node
        return f"{to_node} refuses what {node} sends: its config does not declare {node} (any more)"

    def standing(self, record_id: int) -> Standing | None:
        """Where a record of this lane stands; None for one that only waits behind others."""
        return self._standing.of(record_id)

    def lane_reason(self) -> str:
        """Why the lane stands still, in words; "" while it does not."""
        return f"denied: {self._denied}" if self._denied else self._standing.reason()

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Be ready for answers. Raises BusUnavailable when the broker is away or denies it; the pool tries again."""
        try:
            await self._carrier.start(
                self._sender.take_answers, self._on_denied, self._ends.take_verdict
            )
        except BusUnavailable:
            self._sender.sweep()  # times end without a broker, too
            raise
        self._raise_if_denied()
        self._endings.append(self._services.bus.on_connected(self._on_connected))
        # last: as long as nobody owns the lane, its new records ask for a pass, which starts a publisher
        self._lane.on_wake = self._wake.set
        self._lane.on_removed = self._on_removed

    async def run(self) -> None:
        """Send until drained."""
        async with asyncio.TaskGroup() as group:
            producer = group.create_task(
                self._scheduler.run(), name=f"schedule {self._spec.key.name}"
            )
            await self._send_until_drained()
            producer.cancel()

    async def _send_until_drained(self) -> None:
        sender, bus = self._sender, self._services.bus
        while not (sender.is_draining and not len(sender)):
            # before the turn: news that comes during it is for the next one
            self._wake.clear()
            self._raise_if_denied()
            if self._spec.method == HELLO_METHOD and bus.is_connected:
                # before the first one: whoever was removed from the fleet learns it by that
                with contextlib.suppress(BusUnavailable):
                    await self._carrier.hear_refusals()
            if not sender.is_idle:
                self._last_used_mono = self._services.mono()
            delay_s = sender.turn()
            self._standing.tell()
            if sender.needs_answers:
                # the first record that must be answered, on a lane that otherwise hears nothing
                await self._carrier.listen()
                continue
            if bus.is_congested:
                with contextlib.suppress(BusUnavailable):
                    # the socket says itself when it takes more; a timer could only guess
                    await bus.wait_until_writable()
                continue
            await self._sleep(delay_s)
        self._idle.set()

    async def _sleep(self, delay_s: float | None) -> None:
        """Wait for news, or until something is due."""
        if self._wake.is_set():
            # NB: without this a lane that always has news would never let anybody else have the loop
            await asyncio.sleep(0)
            return
        if delay_s is None:
            await self._wake.wait()
            return
        handle = asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            handle.cancel()

    def update(self, spec: WorkerSpec) -> None:
        """Timeouts, retries and the window hold from the next decision on."""
        assert isinstance(spec, PublisherSpec)
        self._carrier.update(spec)
        self._spec = spec
        self._sender.use(spec)
        self._wake.set()

    async def swap(self, spec: WorkerSpec) -> None:
        """The next record goes out in the new encoding; records already encoded are rewritten when sent."""
        assert isinstance(spec, PublisherSpec)
        self.update(spec)  # NB: first, since it raises before anything has changed
        self._scheduler.use(spec)

    async def drain(self, deadline_mono: float) -> DrainReport:
        """Send nothing new, wait for answers until the deadline; what is left stays in the outbox."""
        before = self.stats.acked + self.stats.dead
        self._sender.is_draining = True
        # makes everything due: what only waits is given back at once, not when its time comes
        self._sender.use(self._spec)
        self._wake.set()
        try:
            async with asyncio.timeout_at(deadline_mono):
                await self._idle.wait()
        except TimeoutError:
            pass
        finished = self.stats.acked + self.stats.dead - before
        return DrainReport(
            worker=self._spec.key.name, finished=finished, handed_back=len(self._sender)
        )

    async def close(self) -> None:
        """Give unanswered records back to the lane and stop listening."""
        for ending in self._endings:
            ending()
        self._endings.clear()
        # before giving back: from here on new records ask for another publisher
        self._lane.on_wake = self._lane.on_removed = None
        self._sender.give_back()
        await self._carrier.close()

    # -- news ------------------------------------------------------------------------------------------

    def node_seen(self, node: str) -> None:
        """The destination said hello: try at once instead of waiting out a delay."""
        if node == self._spec.to_node:
            self._sender.node_said_hello()

    def say_hello_again(self) -> None:
        """Something is new that a hello tells: do not wait for the next one's time."""
        if self._spec.method == HELLO_METHOD:
            self._scheduler.hurry()

    def clock_jumped(self) -> None:
        """The wall clock was set: a `cron` schedule has to look at it anew."""
        self._scheduler.clock_jumped()

    def _on_connected(self) -> None:
        self._sender.try_now()
        if self._services.bus.connection_epoch:
            # after a break whoever waits for this node learns at once that it is there again
            self.say_hello_again()

    def _on_denied(self, denial: Denial) -> None:
        """The broker denies our subject: fail with its words; the pool backs off and tries again."""
        self._denied = denial.text
        self._wake.set()

    def _raise_if_denied(self) -> None:
        if self._denied is not None:
            raise BusUnavailable(self._denied)

    def _on_removed(self, ids: set[int]) -> None:
        self._sender.forget_dropped(ids)
        for id_ in ids:
            self._services.waiters.tell(id_, "dropped by an operator")

    def _on_concluded(self, flights: Sequence[Flight], reason: str | None) -> None:
        waiters = self._services.waiters
        if waiters.has_waiters:
            for flight in flights:
                waiters.tell(
                    flight.record.id,
                    reason,
                    is_done=flight.is_done,
                    is_unwanted=flight.is_unwanted,
                    by_seed=flight.by_seed,
                )
        jobs = self._services.jobs
        if jobs.is_watching:
            for flight in flights:
                state = delivered_as(flight, wants_ack=self._spec.wants_ack)
                jobs.concluded(flight.record.id, reason, state=state, by_seed=flight.by_seed)
        if reason is not None:
            for flight in flights:
                self._services.report_given_up(flight.record, reason)

    # -- schedules -------------------------------------------------------------------------------------

    async def _submit_scheduled(self, message: Message, origin: str, facts: Facts) -> int | None:
        """Accept a scheduled message like any other; what the schedule remembers is in the same commit."""
        # not lost: whoever takes over goes on with the beat that is on disk
        if self._sender.is_draining:
            return None
        report = self._services.hello_report() if message.method == HELLO_METHOD else None
        headers = {HELLO_HEADER: report} if report else None
        record = self._services.router.make_record(message, headers=headers)
        record.origin = origin
        await self._services.store.put([record], facts=fill_facts(facts, record.id))
        return record.id
