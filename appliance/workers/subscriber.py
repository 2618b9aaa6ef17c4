"""A subscriber: takes messages of one subject, hands them to a handler, acknowledges.

The way of a message: `_on_messages` (on the bus's callback, only queues) -> `_take_batch` (decode, admission,
duplicates, durable take-in: one commit for the whole batch) -> acknowledgement where `ack.on` is `received` ->
`Handling` (handler loops, then one commit for a batch: seen, replies, body dropped) -> acknowledgement where
`ack.on` is `done`.

Between the handler's effect and the finish commit lies the one window in which a crash repeats a message: methods
that tolerate that run again, commands do not and are reported as interrupted.

A swap replaces handler and mode for the messages taken from then on; subscription, queues and the concurrency
bound stay, so nothing is lost, doubled or overtaken.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque

from appliance.bus.base import BusMessage, Denial, Subscription
from appliance.core.message import make_reply
from appliance.core.method import OnCrash
from appliance.core.names import WorkerKey, parse_subject
from appliance.core.specs import AckOn, SubscriberSpec, WorkerSpec
from appliance.errors import BusError, StoreError
from appliance.methods.base import FilePosition, Method
from appliance.outbox.records import FinishItem, InboxRow, OutboxRecord, TakeIn, TakeInResult, Taken
from appliance.telemetry.stats import WorkerStats
from appliance.wire.headers import encode_headers
from appliance.workers.base import DrainReport
from appliance.workers.handling import Handling
from appliance.workers.identity import EXIT_HEADER
from appliance.workers.parts import WorkerParts
from appliance.workers.work import Refusal, Work, admit, wire_limits

MAX_BATCH = 256
MAX_BACKLOG_BYTES = 64 * 1024 * 1024
"""Bytes on the wire of messages that may wait in memory, beside the count that `backlog` sets."""
STORE_RETRY_S = 0.2
MAX_ADMIT_S = 0.005
"""How long decoding may go on before everybody else gets a turn."""


class Subscriber:
    """Owns one subscription. See the module for the idea."""

    def __init__(
        self,
        spec: SubscriberSpec,
        method: Method,
        parts: WorkerParts,
    ) -> None:
        self.spec: WorkerSpec = spec
        self._spec = spec
        self.key: WorkerKey = spec.key
        self.stats = WorkerStats()
        self._method = method
        self._bus = parts.bus
        self._store = parts.store
        self._telemetry = parts.telemetry
        self._answers = parts.answers
        self._fleet = parts.fleet
        self._subject_node = parse_subject(spec.subject).node
        self._handler = method.make()
        self._handling = Handling(
            spec,
            method,
            parts,
            stats=self.stats,
            on_progress=self._note_progress,
        )
        self._subscription: Subscription | None = None
        self._incoming: deque[BusMessage] = deque()
        self._incoming_bytes = 0
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self._taking = 0
        """Messages that are being decoded and taken in; those handed on are none of them."""
        self._intake_stopped = False
        self._denied: str | None = None

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Pick up what an earlier run left unfinished, then subscribe. Raises BusError when the broker denies that."""
        for row in await self._store.claim_inbox(self._spec.node, self._spec.method):
            await self._resume(row)
        self._subscription = await self._bus.subscribe(
            self._spec.subject,
            self._on_messages,
            queue=self._spec.subject,
            limit_messages=self._spec.backlog,
            on_denied=self._on_denied,
        )
        self._raise_if_denied()

    async def run(self) -> None:
        """Take in, handle and finish until drained."""
        async with asyncio.TaskGroup() as group:
            handling = group.create_task(self._handling.run(), name=f"handling {self.key.name}")
            await self._take_until_drained()
            handling.cancel()

    def update(self, spec: WorkerSpec) -> None:
        """Timeouts, limits and allow lists hold for the next message."""
        assert isinstance(spec, SubscriberSpec)
        self.spec = self._spec = self._handling.spec = spec
        if self._subscription is not None:
            self._subscription.set_limit(spec.backlog)
        self._handling.spawn_loops()

    async def swap(self, spec: WorkerSpec) -> None:
        """Put a new handler and mode behind the subscription; what was taken before finishes as it began."""
        assert isinstance(spec, SubscriberSpec)
        method = self._method.renew(spec) if self._method.renew is not None else self._method
        handler = method.make()
        self._method = self._handling.method = method
        self._handler = handler
        self.update(spec)

    async def drain(self, deadline_mono: float) -> DrainReport:
        """Stop intake, then empty every queue of ours until the deadline."""
        before = self.stats.handled + self.stats.failed
        self._handling.leaving.set()
        try:
            async with asyncio.timeout_at(deadline_mono):
                await self._stop_intake()
                self._intake_stopped = True
                self._note_progress()
                self._arrived.set()
                await self._drained.wait()
        except TimeoutError:
            self._drained.set()
            self._arrived.set()
        left = self._handling.unfinished()
        abandoned = sum(1 for work in left if work.row_id is None and not work.reply_tos)
        return DrainReport(
            worker=self.key.name,
            finished=self.stats.handled + self.stats.failed - before,
            handed_back=len(left) - abandoned,
            abandoned=abandoned + (0 if self._spec.wants_ack else len(self._incoming)),
        )

    async def close(self) -> None:
        """Unsubscribe if a drain did not."""
        await self._stop_intake()

    async def _stop_intake(self) -> None:
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.stop_intake()

    def _note_progress(self) -> None:
        if (
            self._intake_stopped
            and not self._incoming
            and not self._taking
            and self._handling.is_empty
        ):
            self._drained.set()
            self._arrived.set()

    @property
    def unfinished(self) -> int:
        """Messages that arrived and whose handling has not ended."""
        return len(self._incoming) + self._taking + self._handling.count

    # -- intake -----------------------------------------------------------------------------------

    def _on_messages(self, messages: list[BusMessage]) -> None:
        for message in messages:
            self._enter(message)

    def _enter(self, delivery: BusMessage) -> None:
        handling = self._handling
        if (
            len(self._incoming) + len(handling.queue) >= self._spec.backlog
            or self._incoming_bytes + handling.queue_bytes >= MAX_BACKLOG_BYTES
        ):
            self.stats.dropped += 1
            self._telemetry.message_dropped(self.key)
            return
        self._incoming.append(delivery)
        self._incoming_bytes += len(delivery.payload)
        self._arrived.set()

    def _on_denied(self, denial: Denial) -> None:
        """The broker denies our subject: fail with its words; the pool backs off and tries again."""
        self._denied = denial.text
        self._arrived.set()

    def _raise_if_denied(self) -> None:
        if self._denied is not None:
            raise BusError(self._denied)

    async def _take_until_drained(self) -> None:
        while not self._drained.is_set():
            await self._arrived.wait()
            self._arrived.clear()
            self._raise_if_denied()
            while self._incoming and not self._drained.is_set():
                count = self._taking = min(len(self._incoming), MAX_BATCH)
                batch = [self._incoming.popleft() for _ in range(count)]
                self._incoming_bytes -= sum(len(delivery.payload) for delivery in batch)
                try:
                    await self._take_batch(batch)
                finally:
                    self._taking = 0
            self._note_progress()

    async def _take_batch(self, batch: list[BusMessage]) -> None:
        fresh: list[Work] = []
        spec = self._spec
        fleet = self._fleet()
        limits = wire_limits(fleet)
        loop = asyncio.get_running_loop()
        yield_at = loop.time() + MAX_ADMIT_S
        for delivery in batch:
            if loop.time() > yield_at:
                await asyncio.sleep(0)  # frames that are dear to decode must not keep the loop
                yield_at = loop.time() + MAX_ADMIT_S
            work = admit(delivery, spec, self._subject_node, self._handler, fleet, limits)
            if isinstance(work, Refusal):
                self._refuse(work, delivery.reply_to)
                continue
            key = work.key if spec.dedupe and spec.wants_ack else None
            if key is not None:
                active = self._handling.active.get(key)
                if active is not None:
                    await self._repeat_of_active(active, work)
                    continue
                self._handling.active[key] = work
            fresh.append(work)
        if not spec.wants_ack:
            self._hand_on(fresh)
        elif fresh:
            await self._take_in(fresh)

    async def _take_in(self, works: list[Work]) -> None:
        results = await self._commit_taken([self._take_in_item(work) for work in works])
        accepted: list[Work] = []
        for work, (result, row_id, _verdict) in zip(works, results, strict=True):
            work.payload = b""
            work.is_taken = True
            if result is TakeInResult.FRESH:
                work.row_id = row_id
                accepted.append(work)
                if work.ack_on is AckOn.RECEIVED:
                    await self._handling.acknowledge(work)
                continue
            self._handling.forget(work)
            self.stats.repeats += 1
            if result is TakeInResult.REPEAT_DONE or work.ack_on is AckOn.RECEIVED:
                await self._handling.acknowledge(work)
        self._hand_on(accepted)

    def _hand_on(self, works: list[Work]) -> None:
        """The end of a batch's intake."""
        self._taking = 0
        self._handling.enqueue(works)

    async def _commit_taken(self, items: list[TakeIn]) -> list[Taken]:
        """Commit the batch. While the store cannot (disk full), nothing is acknowledged and intake waits."""
        while True:
            try:
                return await self._store.take_in(items)
            except StoreError as error:
                if not error.retryable:
                    raise
                self._telemetry.worker_troubled(self.key, f"cannot take messages in: {error}")
                await asyncio.sleep(STORE_RETRY_S)

    def _take_in_item(self, work: Work) -> TakeIn:
        info = self._method.info
        must_keep = info.on_crash is OnCrash.INTERRUPT or info.journals
        return TakeIn(
            scope=f"{self._spec.node}.{self._spec.method}",
            node=self._spec.node,
            method=self._spec.method,
            subject=self._spec.subject,
            sender=work.message.from_node,
            instance=work.identity.instance if self._spec.dedupe else None,
            message_id=work.identity.message_id,
            payload=work.payload,
            attempt=0,
            block=encode_headers(dict(work.headers)) if work.headers else b"",
            reply_to=work.reply_tos[0] if work.reply_tos else "",
            keep_body=work.ack_on is AckOn.RECEIVED or must_keep,
        )

    def _refuse(self, refusal: Refusal, reply_to: str) -> None:
        self.stats.refused += 1
        self._telemetry.message_refused(self.key, refusal.sender, refusal.reason)
        node, identity = self._spec.node, refusal.identity
        self._answers.report(
            node,
            f"{self._spec.subject}: message refused: {refusal.reason}",
            method=self._spec.method,
            is_refusal=True,
        )
        if identity.instance is not None and reply_to.startswith(f"{self._spec.subject}.reply."):
            self._answers.refuse(reply_to, node, identity.message_id, refusal.reason)

    async def _repeat_of_active(self, active: Work, repeat: Work) -> None:
        """A resend while the first copy is still in hand: confirm it as soon as, and only if, the first is."""
        self.stats.repeats += 1
        if active.ack_on is AckOn.RECEIVED and active.is_taken:
            await self._handling.acknowledge(repeat)
        elif len(active.reply_tos) < 16:
            active.reply_tos.extend(repeat.reply_tos)

    # -- what an earlier run left -------------------------------------------------------------------

    async def _resume(self, row: InboxRow) -> None:
        spec = self._spec
        fleet = self._fleet()
        delivery = BusMessage(spec.subject, row.payload, row.block, row.reply_to)
        work = admit(delivery, spec, self._subject_node, self._handler, fleet, wire_limits(fleet))
        if isinstance(work, Refusal):
            self._refuse(work, "")
            await self._drop(row)
            return
        work.row_id = row.row_id
        work.is_taken = True
        if row.note:
            path, offset, length = json.loads(row.note)
            work.resume = FilePosition(path, offset, length)
        if row.started and self._method.info.on_crash is OnCrash.INTERRUPT and not spec.rerun:
            await self._interrupt(row, work)
            return
        key = work.key
        if key is not None and spec.dedupe:
            self._handling.active[key] = work
        self._handling.enqueue([work])

    async def _interrupt(self, row: InboxRow, work: Work) -> None:
        """The daemon died while this ran: say so, to errorCentral and to the requester, and do not run it again."""
        message = work.message
        self._telemetry.message_interrupted(self.key, message.from_node, message.id)
        text = "interrupted: the appliance stopped while it ran; it was not run again"
        self._answers.report(
            self._spec.node, f"{message.method} {message.id} {text}", method=message.method
        )
        replies: tuple[OutboxRecord, ...] = ()
        if self._method.info.replies and not message.is_reply:
            reply = make_reply(message, self._spec.node, "")
            replies = self._handling.outcomes.reply_records(reply, {EXIT_HEADER: f"failed: {text}"})
        await self._store.finish([self._finish_item(row)], replies)

    async def _drop(self, row: InboxRow) -> None:
        await self._store.finish([self._finish_item(row)], ())

    def _finish_item(self, row: InboxRow) -> FinishItem:
        return FinishItem(
            row_id=row.row_id,
            scope=row.scope,
            sender=row.sender,
            instance=row.instance,
            message_id=row.message_id,
        )
