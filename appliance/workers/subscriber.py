"""A subscriber: takes messages of one subject, hands them to a handler, acknowledges. Here is its life.

The way of messages: `TakingIn` (decode, admit, one durable commit for a batch) -> `Executor` (handler loops, then one commit
for a batch: verdicts, replies, bodies dropped) -> acknowledgement where `ack.on` is `done`.

Between the handler's effect and the finish commit lies the one window in which a crash repeats a message: methods
that tolerate that run again, commands do not and are reported as interrupted.

A swap replaces handler and mode for the messages taken from then on; subscription, queues and the concurrency
bound stay, so nothing is lost, doubled or overtaken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from appliance.bus.base import Denial
from appliance.core.method import OnCrash
from appliance.core.specs import SubscriberSpec, WorkerSpec
from appliance.delivery.base import Kept
from appliance.errors import BusError
from appliance.methods.base import Method
from appliance.telemetry.stats import DrainReport, WorkerStats
from appliance.workers.backlog import Backlog
from appliance.workers.executor import Executor
from appliance.workers.first_answers import FirstAnswers
from appliance.workers.inbox_owners import scope_of
from appliance.workers.incoming import Entrance
from appliance.workers.known_senders import KnownSenders
from appliance.workers.leftovers import Leftovers
from appliance.workers.services import WorkerServices
from appliance.workers.taking_in import TakingIn


class Subscriber:
    """Owns one subscription. See the module for the idea."""

    def __init__(self, spec: SubscriberSpec, method: Method, services: WorkerServices) -> None:
        self._spec = spec
        self.stats = WorkerStats()
        self._services = services
        must_not_repeat = method.info.on_crash is OnCrash.INTERRUPT and not spec.rerun
        self._intake = services.delivery.make_intake(
            spec, self._on_answers_denied, begins_once=must_not_repeat or method.info.journals
        )
        self._executor = Executor(
            spec,
            method,
            services,
            intake=self._intake,
            scope=scope_of(spec.subject),
            stats=self.stats,
            on_progress=lambda: self._taking.note_progress(),
        )
        self._senders = KnownSenders(spec.subject, services.store)
        answers = FirstAnswers(
            spec,
            services,
            intake=self._intake,
            executor=self._executor,
            senders=self._senders,
            stats=self.stats,
        )
        self._entrance = Entrance(
            spec,
            method,
            desired=services.desired,
            dialect=services.dialect,
            verifier=services.verifier,
        )
        self._taking = TakingIn(
            spec,
            services,
            intake=self._intake,
            entrance=self._entrance,
            backlog=Backlog(
                spec,
                executor=self._executor,
                answers=answers,
                dialect=services.dialect,
                telemetry=services.telemetry,
                stats=self.stats,
            ),
            answers=answers,
            executor=self._executor,
        )
        self._leftovers = Leftovers(
            self._executor,
            services,
            intake=self._intake,
            entrance=self._entrance,
            answers=answers,
        )
        self._answers_denied: str | None = None
        self._endings: list[Callable[[], None]] = []

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Pick up what an earlier run or worker left unfinished, then subscribe. Raises BusError when that is denied."""
        # before the claim: rows that a worker leaves from here on are told to us
        self._leftovers.watch()
        # before subscribing: what was left is older than everything that will come
        await self._leftovers.claim()
        await self._intake.start(self._taking.on_messages, self._on_denied)
        self._taking.open()
        # not earlier: those who have waited send as soon as they hear it
        self._say_here()
        self._endings.append(self._services.bus.on_connected(self._on_connected))
        self._taking.raise_failure()

    async def run(self) -> None:
        """Take in, handle and finish until drained."""
        async with asyncio.TaskGroup() as group:
            handling = group.create_task(
                self._executor.run(), name=f"handling {self._spec.key.name}"
            )
            await self._taking.run(group)
            handling.cancel()

    def update(self, spec: WorkerSpec) -> None:
        """Timeouts, limits and allow lists hold for the next message."""
        assert isinstance(spec, SubscriberSpec)
        self._spec = spec
        self._executor.use(spec)
        self._intake.update(spec)
        self._entrance.use(spec)
        self._taking.use(spec)

    async def swap(self, spec: WorkerSpec) -> None:
        """Put a new handler and mode behind the subscription; what was taken before finishes as it began."""
        assert isinstance(spec, SubscriberSpec)
        method = self._executor.method.value
        # made before anything is assigned: what it raises leaves the old handler at work
        method = method.renew(spec) if method.renew is not None else method
        self._entrance.put(method)
        self._executor.method.put(method)
        self.update(spec)

    async def drain(self, deadline_mono: float) -> DrainReport:
        """Stop intake, then empty every queue of ours until the deadline."""
        before = self.stats.handled + self.stats.failed
        self._executor.drain.begin(deadline_mono)
        try:
            async with asyncio.timeout_at(deadline_mono):
                await self._stop_intake()
                await self._taking.drain()
        except TimeoutError:
            self._taking.give_up()
        left = self._executor.unfinished()
        abandoned = sum(1 for work in left if work.row_id is None and not work.reply_tos)
        return DrainReport(
            worker=self._spec.key.name,
            finished=self.stats.handled + self.stats.failed - before,
            handed_back=len(left) - abandoned,
            abandoned=abandoned + (0 if self._spec.wants_ack else self._taking.waiting),
        )

    async def close(self) -> None:
        """Unsubscribe if a drain did not; what is left on disk goes to whoever takes over."""
        for ending in self._endings:
            ending()
        self._endings.clear()
        self._leftovers.stop()
        self._senders.close()
        await self._stop_intake()
        # before the scope is given up, which lets a successor claim them
        self._executor.finishing.let_go_of_rows()
        self._leftovers.unwatch()

    async def _stop_intake(self) -> None:
        if self._taking.close():
            await self._intake.stop()

    # -- what others ask --------------------------------------------------------------------------

    @property
    def unfinished(self) -> int:
        """Messages that arrived and whose handling has not ended."""
        return self._taking.unfinished

    @property
    def trouble(self) -> str | None:
        """What keeps this worker from doing all of its work while it runs; None where nothing does."""
        return self._intake.trouble or (
            None if self._intake.answers_get_out else self._answers_denied
        )

    @property
    def kept(self) -> Kept | None:
        """What a stream keeps for the subscription; None where none does."""
        return self._intake.kept

    # -- news -------------------------------------------------------------------------------------

    def _on_denied(self, denial: Denial) -> None:
        """The broker denies our subject: fail with its words; the pool backs off and tries again."""
        self._taking.fail(BusError(denial.text))

    def _on_answers_denied(self, denial: Denial) -> None:
        """Messages arrive and are done, and their senders never hear of it: somebody has to mend the permissions."""
        if self._answers_denied is None or self._intake.answers_get_out:
            self._services.telemetry.answers_denied(self._spec.key, denial.text)
        self._answers_denied = f"the broker denies its acknowledgements: {denial.text}"

    def _on_connected(self) -> None:
        """Tell those who may be waiting for this node that it is back."""
        self._answers_denied = None  # found out anew with the next answer
        if self._services.bus.connection_epoch:
            self._say_here()

    def _say_here(self) -> None:
        """Where somebody else takes part in our subject (a stream that records it), nothing tells senders that nobody was
        there, nor that somebody is.
        """
        self._intake.say_here(self._senders.reply_subjects)
