"""The second half of a subscriber: runs handlers in order of arrival, at most `concurrency` at once, and commits.

Finished messages are committed in batches by one loop of their own, so a slow disk delays acknowledgements and not
handlers.
"""

from __future__ import annotations

import asyncio
import errno
import json
import time
from collections import deque
from collections.abc import Callable

from appliance.core.method import OnCrash
from appliance.core.specs import AckOn, SubscriberSpec
from appliance.errors import AnswerUnwanted, ApplianceError, BusError, StoreError
from appliance.methods.base import FilePosition, HandlerContext, Method, Result
from appliance.outbox.records import FinishItem, OutboxRecord
from appliance.telemetry.stats import WorkerStats
from appliance.workers.answering import Answering
from appliance.workers.bounded import within
from appliance.workers.identity import DONE_HEADER, UNWANTED_HEADER
from appliance.workers.outcomes import Outcomes
from appliance.workers.outlet import HandlerOutlet
from appliance.workers.parts import WorkerParts
from appliance.workers.replies import is_for_caller_only
from appliance.workers.turns import Turns
from appliance.workers.work import Work, WorkKey

MAX_FINISH_BATCH = 256
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
YIELD_EVERY = 32
MAX_REPLY_WAITS = 50
"""Tries to find room for replies (about ten seconds) before the messages are finished without them."""
_DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS})


class Handling:
    """Queue of admitted messages, handler loops, finish loop."""

    def __init__(
        self,
        spec: SubscriberSpec,
        method: Method,
        parts: WorkerParts,
        *,
        stats: WorkerStats,
        on_progress: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.method = method
        self._bus = parts.bus
        self._store = parts.store
        self._router = parts.router
        self._telemetry = parts.telemetry
        self._answers = parts.answers
        self._answering = Answering(parts.router, lambda: self.spec)
        self.outcomes = Outcomes(parts, self._answering, lambda: self.spec, lambda: self.method)
        self._turns = Turns(self.outcomes.tell_reply)
        self._parts = parts
        self._tools = parts.tools
        self._stats = stats
        self._wall = parts.wall
        self._on_progress = on_progress
        self.active: dict[WorkKey, Work] = {}
        self.queue: deque[Work] = deque()
        self.queue_bytes = 0
        self._running: set[Work] = set()
        self._finished: deque[tuple[Work, tuple[OutboxRecord, ...]]] = deque()
        self._committing = 0
        self._has_finished = asyncio.Event()
        self.leaving = asyncio.Event()
        """Set by the subscriber that begins to drain."""
        self._group: asyncio.TaskGroup | None = None
        self._loops = 0
        self._name = spec.key.name

    # -- state ------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether nothing is queued, running or waiting for its commit."""
        return not self.count

    @property
    def count(self) -> int:
        """Messages in hand, those whose commit is under way included."""
        return len(self.queue) + len(self._running) + len(self._finished) + self._committing

    def unfinished(self) -> list[Work]:
        """Everything that a stop now would cut off."""
        return [*self.queue, *self._running, *(work for work, _ in self._finished)]

    def enqueue(self, works: list[Work]) -> None:
        """Hand messages over, in order."""
        self.queue.extend(works)
        for work in works:
            self._turns.enter(work)
        self.queue_bytes += sum(work.size_bytes for work in works)
        self.spawn_loops()

    def forget(self, work: Work) -> None:
        """`work` is no longer being handled here."""
        key = work.key
        if key is not None and self.active.get(key) is work:
            del self.active[key]

    # -- loops ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit finished messages until cancelled; handler loops come and go inside."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.spawn_loops()
            try:
                await self._finish_loop()
            finally:
                self._group = None

    def spawn_loops(self) -> None:
        """Have as many handler loops as there is work for, up to the bound in force now."""
        while self._group is not None and self._loops < min(
            self.spec.concurrency, len(self.queue) + len(self._running)
        ):
            self._loops += 1
            self._group.create_task(self._handle_loop(), name=f"handle {self._name}")

    async def _handle_loop(self) -> None:
        handled = 0
        try:
            while self.queue and self._loops <= self.spec.concurrency:
                work = self.queue.popleft()
                self.queue_bytes -= work.size_bytes
                self._running.add(work)
                self._stats.in_flight = len(self._running)
                try:
                    if is_for_caller_only(work):
                        self._turns.say(work)
                        self._finish(work, self.outcomes.forwarded(work))
                    else:
                        await self._handle(work)
                finally:
                    self._turns.leave(work)
                    self._running.discard(work)
                    self._stats.in_flight = len(self._running)
                handled += 1
                if handled % YIELD_EVERY == 0:
                    await asyncio.sleep(
                        0
                    )  # a handler that never waits must not keep the loop from the sockets
        finally:
            self._loops -= 1
        if self.queue:
            self.spawn_loops()
        self._on_progress()

    async def _handle(self, work: Work) -> None:
        if not await self._mark_started(work):
            return
        delay_s = RETRY_FIRST_S
        started = time.perf_counter()  # NB: the loop's own clock knows whole milliseconds only
        outlet = HandlerOutlet(
            work.message,
            self.spec.node,
            self._parts,
            self._answering,
            asker_is_appliance=work.identity.instance is not None,
        )
        while True:
            try:
                result = await self._call(work, outlet)
                break
            except Exception as error:  # noqa: BLE001 - the boundary around a handler: every failure becomes a value
                if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
                    self._telemetry.worker_troubled(
                        self.spec.key, f"waiting to handle {work.message.id}: {error}"
                    )
                    await asyncio.sleep(delay_s)
                    delay_s = min(delay_s * 2, RETRY_MAX_S)
                    continue
                if isinstance(error, AnswerUnwanted):
                    work.is_unwanted = True
                    self._stats.handled += 1
                    self._finish(work, ())
                    return
                self._fail(work, error, outlet)
                return
            finally:
                outlet.close()
        self._stats.handled += 1
        self._stats.handler.observe(time.perf_counter() - started)
        self._turns.say(work)
        self._finish(work, self.outcomes.of_result(work, result, outlet))

    async def _mark_started(self, work: Work) -> bool:
        """Note durably that a message which must not run twice is about to run."""
        if (
            work.row_id is None
            or self.method.info.on_crash is not OnCrash.INTERRUPT
            or self.spec.rerun
        ):
            return True
        while True:
            try:
                await self._store.mark_started([work.row_id])
            except StoreError as error:
                if not error.retryable:
                    raise
                self._telemetry.worker_troubled(
                    self.spec.key, f"cannot start {work.message.id}: {error}"
                )
                await asyncio.sleep(RETRY_FIRST_S)
            else:
                return True

    async def _call(self, work: Work, outlet: HandlerOutlet) -> Result:
        message = work.message
        filled = work.identity.timeout_filled
        timeout_s = (
            float(message.method_timeout_s)
            if message.method_timeout_s > 0 and not filled
            else self.spec.method_timeout_s
        )
        row_id = work.row_id

        async def intend(position: FilePosition) -> None:
            if row_id is not None:
                await self._store.note(
                    row_id, json.dumps([position.path, position.offset, position.length])
                )

        context = HandlerContext(
            node=self.spec.node,
            spec=self.spec,
            timeout_s=timeout_s,
            now=self._wall(),
            files=self._tools.files,
            console=self._tools.console,
            hellos=self._tools.hellos,
            list_workers=lambda: self._tools.list_workers(self.spec.node),
            switch=self._tools.switch,
            intend=intend,
            outlet=outlet,
            headers=work.headers,
            asker_is_appliance=work.identity.instance is not None,
            files_taker=self._tools.files_taker,
            max_payload_bytes=self._bus.max_payload,
            leaving=self.leaving,
            resume=work.resume,
            hidden_environment=self._tools.hidden_environment(),
        )
        # a handler that minds the time itself gets a moment to say what it did before it is cut off
        limit_s = None if self.method.info.keeps_time else timeout_s + 5.0
        return await within(work.handler.handle(message, context), limit_s)

    # -- outcomes ---------------------------------------------------------------------------------

    def _fail(self, work: Work, error: Exception, outlet: HandlerOutlet) -> None:
        """A handler refused or broke. Nothing of it counts as done, so `done` is not acknowledged."""
        self._stats.failed += 1
        message = work.message
        text = (
            str(error)
            if isinstance(error, ApplianceError)
            else f"internal error: {type(error).__name__}: {error}"
        )
        if isinstance(error, TimeoutError):
            text = "the handler did not end in time"
        self._telemetry.handler_failed(self.spec.key, message.from_node, message.id, text)
        self._answers.report(
            self.spec.node, f"{message.method} {message.id} failed: {text}", method=message.method
        )
        if work.ack_on is AckOn.DONE:
            if work.identity.instance is not None:
                for reply_to in work.reply_tos:
                    self._answers.refuse(reply_to, self.spec.node, message.id, text)
            work.reply_tos.clear()
            if work.row_id is None:
                self.forget(work)
                self._on_progress()
                return
        self._finish(work, self.outcomes.of_failure(work, text, outlet))

    def _finish(self, work: Work, replies: tuple[OutboxRecord, ...]) -> None:
        self._finished.append((work, replies))
        self._has_finished.set()

    async def _finish_loop(self) -> None:
        while True:
            await self._has_finished.wait()
            self._has_finished.clear()
            while self._finished:
                count = min(len(self._finished), MAX_FINISH_BATCH)
                batch = [self._finished.popleft() for _ in range(count)]
                self._committing = count
                await self._commit(batch)
                self._committing = 0
            self._on_progress()

    async def _commit(self, batch: list[tuple[Work, tuple[OutboxRecord, ...]]]) -> None:
        items = [
            FinishItem(
                row_id=work.row_id,
                scope=f"{self.spec.node}.{self.spec.method}",
                sender=work.message.from_node,
                instance=work.identity.instance,
                message_id=work.identity.message_id,
            )
            for work, _ in batch
            if self.spec.wants_ack
            and (work.row_id is not None or work.identity.instance is not None)
        ]
        replies = [record for _, records in batch for record in records]
        # where the acknowledgement is out already, nobody waits for this commit
        is_urgent = bool(replies) or any(work.ack_on is AckOn.DONE for work, _ in batch)
        full_count = 0
        while items or replies:
            try:
                await self._store.finish(items, replies, is_urgent=is_urgent)
            except StoreError as error:
                if not error.retryable:
                    raise
                self._telemetry.worker_troubled(
                    self.spec.key, f"cannot commit handled messages: {error}"
                )
                full_count += 1
                kept = [record for record in replies if record.id in self.outcomes.must_send]
                if len(kept) < len(replies) and full_count > MAX_REPLY_WAITS:
                    self._answers.report(
                        self.spec.node,
                        f"{self.spec.subject}: {len(replies) - len(kept)} replies dropped: {error}",
                        method=self.spec.method,
                    )
                    # what was handled stays handled; its sender must not stall everybody behind
                    replies = kept
                await asyncio.sleep(RETRY_FIRST_S)
            else:
                break
        self.outcomes.must_send.difference_update(record.id for record in replies)
        for work, _ in batch:
            self.forget(work)
            if work.ack_on is AckOn.DONE:
                await self.acknowledge(work)

    async def acknowledge(self, work: Work) -> None:
        """Confirm to everyone who sent this message; without a connection the sender asks again."""
        if not work.reply_tos:
            return
        payload = f"confirmed from: {self.spec.node}: {work.message.id}".encode()
        headers = {DONE_HEADER: "1"} if work.ack_on is AckOn.DONE else {}
        if work.is_unwanted or self._parts.leavers.is_unwanted(work):
            headers[UNWANTED_HEADER] = "1"
        for reply_to in work.reply_tos:
            try:
                await self._bus.publish(reply_to, payload, headers=headers or None)
            except BusError:
                return
        work.reply_tos.clear()
