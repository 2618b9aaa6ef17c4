"""The first half of a subscriber: what arrives is decoded, admitted, looked up, made durable and handed to the executor.

In lists throughout: `on_messages` (on the bus's callback, only queues) -> `_admit_batch` (decode, admission, duplicates) ->
`_take_in` (one durable commit for the whole batch, while the next batch is being decoded; one after the other, so that
order is kept) -> acknowledgement where `ack.on` is `received` -> `Executor`. Where nothing is before them and one commit is
enough (`may_be_done_at_once`), messages are handled in the very turn of the event loop in which they arrive.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from appliance.bus.base import BusMessage
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.specs import AckOn, SubscriberSpec
from appliance.delivery.base import Confirmation, Intake
from appliance.dialect.base import Answer, AnswerKind
from appliance.errors import StoreError
from appliance.outbox.records import TakeIn, TakeInResult, Taken
from appliance.workers.backlog import (
    MAX_BACKLOG_BYTES,
    MAX_BATCH,
    MAX_SENDER_SHARE,
    Backlog,
)
from appliance.workers.executor import Executor
from appliance.workers.finishing import may_be_done_at_once
from appliance.workers.first_answers import TAKEN, FirstAnswers
from appliance.workers.incoming import Entrance, Incoming, Refusal
from appliance.workers.services import STORE_RETRY_S, WorkerServices

WORTH_OVERLAPPING = 16
"""A batch smaller than this is decoded sooner than a task is made that commits it meanwhile."""
MAX_DECODED_BYTES = 8 * 1024 * 1024
"""What decoded messages may hold; those that come on top are kept as the bytes they came in until their turn."""
MAX_ADMIT_S = 0.005
"""How long decoding may go on before everybody else gets a turn."""


class Stage(Enum):
    """How far it is with what arrives."""

    CLOSED = "closed"
    """Not subscribed yet, or not any more."""
    OPEN = "open"
    LAST = "last"
    """Nothing arrives any more: what is here is all that is to be done."""


class TakingIn:
    """Of one subscriber."""

    def __init__(
        self,
        spec: SubscriberSpec,
        services: WorkerServices,
        *,
        intake: Intake,
        entrance: Entrance,
        backlog: Backlog,
        answers: FirstAnswers,
        executor: Executor,
    ) -> None:
        self._spec = spec
        self._services = services
        self._intake = intake
        self._entrance = entrance
        self._backlog = backlog
        self._answers = answers
        self._executor = executor
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self._admitted: list[Incoming] = []
        """What was to be done at once and has to be taken in first; they count as being decoded."""
        self._decoding = 0
        """Messages that are being decoded and admitted."""
        self._committing = 0
        """Messages that are being taken in; those handed on are none of them."""
        self._stage = Stage.CLOSED
        self._failure: Exception | None = None

    def use(self, spec: SubscriberSpec) -> None:
        """Limits hold for the next message."""
        self._spec = spec
        self._backlog.use(spec)
        # more backlog holds for what waits
        self._arrived.set()

    @property
    def waiting(self) -> int:
        """Messages that are not decoded yet."""
        return len(self._backlog)

    @property
    def unfinished(self) -> int:
        """Messages that arrived and whose handling has not ended."""
        return len(self._backlog) + self._decoding + self._committing + self._executor.count

    # -- its end -----------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """End the worker with this; the pool backs off and tries again."""
        self._failure = self._failure or error
        self._arrived.set()

    def raise_failure(self) -> None:
        """Raise what the worker has failed with, if it has."""
        if self._failure is not None:
            raise self._failure

    def open(self) -> None:
        """The broker has the subscription."""
        self._stage = Stage.OPEN
        self._ask_for_more()

    def close(self) -> bool:
        """Ask for nothing more; whether anything was asked for so far."""
        was_open = self._stage is Stage.OPEN
        if was_open:
            self._stage = Stage.CLOSED
        return was_open

    async def drain(self) -> None:
        """Nothing arrives any more: wait until all that is here is done."""
        self._stage = Stage.LAST
        self.note_progress()
        self._arrived.set()
        await self._drained.wait()

    def give_up(self) -> None:
        """Take nothing more of what is here."""
        self._drained.set()
        self._arrived.set()

    def note_progress(self) -> None:
        """Something is done: there may be room again."""
        self._ask_for_more()
        if not self._decoding and self._can_take():
            self._arrived.set()
        self._note_drained()

    def _note_drained(self) -> None:
        if self._stage is Stage.LAST and not self.unfinished:
            self.give_up()

    def _ask_for_more(self) -> None:
        """Tell a way that can be asked for messages how many there is room for."""
        if self._intake.is_asked:
            is_open = self._stage is Stage.OPEN
            self._intake.want(self._backlog.room_to_ask_for(self.unfinished) if is_open else 0)

    def _can_take(self) -> bool:
        """Whether something waits to be taken, and may be. Without the second the loop would never get to anything else."""
        return self._backlog.may_resume or (self._backlog.has_next and self._has_queue_room())

    def _has_queue_room(self) -> bool:
        # a backlog that is full stops the intake: what is not taken yet is still the sender's
        return self._executor.held_count < self._spec.backlog or self._stage is Stage.LAST

    # -- on arrival --------------------------------------------------------------------------------------

    def on_messages(self, messages: list[BusMessage]) -> None:
        """All messages of one read."""
        if self._services.stall.may_be_stale and self._executor.runs_once:
            messages = self._answers.ask_again(messages)
        if not self._is_free_for(messages):
            self._backlog.put(messages)
            self._arrived.set()
            return
        try:
            self._do_at_once(messages)
        except Exception as bug:  # noqa: BLE001 - the boundary: it ends this worker, as one in its loop would
            self.fail(bug)

    def _is_free_for(self, messages: list[BusMessage]) -> bool:
        """Whether nothing is before these, so that they can be done in this very turn of the event loop."""
        executor, entrance = self._executor, self._entrance
        return (
            entrance.method.info.is_prompt
            and not (entrance.orders or self._intake.is_asked)
            and executor.is_free
            and not (self._backlog or self._decoding or self._committing)
            and not (self._stage is Stage.LAST or self._failure)
            and executor.held_count + len(messages) <= min(MAX_BATCH, self._spec.backlog)
        )

    def _do_at_once(self, messages: list[BusMessage]) -> None:
        admit, handler = self._entrance.current().admit, self._entrance.handler
        works: list[Incoming] = []
        said: list[Confirmation] = []
        for delivery in messages:
            work = admit(delivery, handler)
            if work.__class__ is Refusal:
                self._answers.refuse(work, delivery.reply_to, said, delivery.block)
                continue
            assert isinstance(work, Incoming)
            if self._is_in_hand(work, said):
                works.append(work)
        if said:
            self._intake.confirm(said)
        if self._are_done_at_once(works):
            self._answers.senders.note(works)
            self._executor.handle_now(works)
        elif works:
            waiting = self._executor.waiting
            for work in works:
                if waiting.decoded_bytes + work.measure() > MAX_DECODED_BYTES:
                    work.put_aside()
                waiting.add(work)
            self._admitted = works
            self._decoding = len(works)
            self._arrived.set()

    def _are_done_at_once(self, works: list[Incoming]) -> bool:
        """Whether one commit is enough for these, see `may_be_done_at_once`."""
        executor = self._executor
        return (
            not self._intake.is_asked
            and executor.end_soon(len(works))
            and may_be_done_at_once(
                works, self._entrance.method.info, executor.scope, self._services.store
            )
        )

    def _is_in_hand(self, work: Incoming, said: list[Confirmation]) -> bool:
        """Whether it is a message of ours from now on; another copy of one that is, or another daemon's, is answered."""
        key = work.key
        if key is None or not (self._spec.dedupe and self._spec.remembers):
            return True
        active = self._executor.finishing.active
        first = active.get(key)
        if first is not None:
            self._answers.note_in_hand(first, work, said)
            return False
        if work.identity.taker and self._answers.is_left_to_its_taker(work, said):
            return False
        # before its commit: a resend may come in the same read, and must not be taken for a new message
        active[key] = work
        return True

    # -- in the loop -------------------------------------------------------------------------------------

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Take in what has arrived until drained."""
        committing: asyncio.Task[None] | None = None
        while not self._drained.is_set():
            await self._arrived.wait()
            # before the queues are looked at: what arrives meanwhile is for the next round
            self._arrived.clear()
            self.raise_failure()
            self._backlog.resume()
            while (
                self._admitted or (self._backlog.has_next and self._has_queue_room())
            ) and not self._drained.is_set():
                try:
                    fresh = self._admitted or await self._admit_batch()
                    self._admitted = []
                    # one commit at a time, so that messages are taken in as they came
                    if committing is not None and not committing.done():
                        await asyncio.wait({committing})  # its error, if it has one, is the group's
                    if not self._spec.remembers:
                        # nothing is promised for these: what a crash loses is lost as it is with core NATS
                        self._executor.enqueue(fresh)
                    elif fresh and self._are_done_at_once(fresh):
                        self._answers.senders.note(fresh)
                        self._executor.enqueue(fresh)
                    elif fresh:
                        self._committing = len(fresh)
                        taking = self._take_in(fresh)
                        if len(fresh) < WORTH_OVERLAPPING:
                            # for so few a task costs more than the wait
                            self._decoding = 0
                            await taking
                        else:
                            committing = group.create_task(
                                taking, name=f"taking in {self._spec.key.name}"
                            )
                finally:
                    self._decoding = 0
                self._backlog.resume()
            self._ask_for_more()
            # what the full backlog left goes on when the executor has made room: asked for here, it would never wait
            self._note_drained()
        if committing is not None:
            await asyncio.wait({committing})

    async def _admit_batch(self) -> list[Incoming]:
        """Those of the next ones that are new and may enter; the others are answered."""
        backlog, executor = self._backlog, self._executor
        batch = backlog.next_batch()
        self._decoding = len(batch)
        admit, handler = self._entrance.current().admit, self._entrance.handler
        fresh: list[Incoming] = []
        said: list[Confirmation] = []
        waiting, kept_back = executor.waiting, backlog.kept_back
        decoded_bytes = waiting.decoded_bytes
        coming = len(executor.queue) + self._committing + len(batch)
        has_plenty = coming < MAX_SENDER_SHARE * self._spec.backlog
        plenty_bytes = MAX_SENDER_SHARE * MAX_BACKLOG_BYTES
        loop = asyncio.get_running_loop()
        yield_at = loop.time() + MAX_ADMIT_S
        for delivery in batch:
            if loop.time() > yield_at:
                await asyncio.sleep(0)  # frames that are dear to decode must not keep the loop
                yield_at = loop.time() + MAX_ADMIT_S
            work = admit(delivery, handler)
            if work.__class__ is Refusal:
                self._answers.refuse(work, delivery.reply_to, said, delivery.block)
                continue
            assert isinstance(work, Incoming)
            decoded_bytes += work.measure()
            if decoded_bytes > MAX_DECODED_BYTES:
                decoded_bytes -= work.held_bytes
                work.put_aside()
            if not self._is_in_hand(work, said):
                continue
            # NB: where all of them together leave room, nobody needs to be looked at alone
            is_within = has_plenty and waiting.size_bytes < plenty_bytes and not kept_back
            if not (is_within or backlog.has_share_left(work.sender)):
                executor.finishing.forget(work)
                backlog.turn_away(work, delivery)
                continue
            waiting.add(work)
            fresh.append(work)
        if said:
            self._intake.confirm(said)
        return fresh

    async def _take_in(self, works: list[Incoming]) -> None:
        executor = self._executor
        items = take_in_items(works, self._spec, self._entrance.method.info, executor.scope)
        results = await self._commit_taken(items)
        self._answers.senders.note(works)
        accepted: list[Incoming] = []
        rows: list[int] = []
        said: list[Confirmation] = []
        received, fresh = AckOn.RECEIVED, TakeInResult.FRESH
        new = tuple.__new__  # NB: Confirmation(...) costs twice as much
        for work, taken in zip(works, results, strict=True):
            work.is_taken = True
            result, row_id, _ = taken
            if result is not fresh:
                executor.finishing.forget(work)
                executor.waiting.remove(work)
                self._answers.note_known(work, taken, said)
                continue
            if row_id is not None:
                work.row_id = row_id
                rows.append(row_id)
            accepted.append(work)
            hears = work.identity.hears
            if work.ack_on is received:
                is_unwanted = work.is_reply and self._is_unwanted(work)
                answer = Answer(AnswerKind.TAKEN, is_unwanted=True) if is_unwanted else TAKEN
                for reply_to in work.reply_tos:
                    about = (reply_to, work.message_id, answer, hears, work.signer)
                    said.append(new(Confirmation, about))
                work.reply_tos.clear()
            elif hears:
                executor.will_tell(work, said)
        # before they are acknowledged: a row that nobody holds may be claimed by another worker
        self._services.inbox.held.update(rows)
        executor.finishing.rows.update(rows)
        if said:
            # before they are handled: with `on: received` the promise is kept already, whatever handlers do
            self._intake.confirm(said)
        self._committing = 0
        if self._entrance.orders:
            executor.obey([work for work in accepted if work.is_order])
            accepted = [work for work in accepted if not work.is_order]
        executor.enqueue(accepted)
        self.note_progress()

    def _is_unwanted(self, work: Incoming) -> bool:
        message = work.message
        return message is not None and self._services.abandoned.is_unwanted(work, message)

    async def _commit_taken(self, items: list[TakeIn]) -> list[Taken]:
        """Commit the batch. While the store cannot (disk full), nothing is acknowledged and intake waits."""
        while True:
            try:
                return list(await self._services.store.take_in(items))
            except StoreError as error:
                if not error.retryable:
                    raise
                self._services.telemetry.worker_troubled(
                    self._spec.key, f"cannot take messages in: {error}"
                )
                await asyncio.sleep(STORE_RETRY_S)


def take_in_items(
    works: list[Incoming], spec: SubscriberSpec, info: MethodInfo, scope: str
) -> list[TakeIn]:
    """What the store is to note of these."""
    must_keep = info.on_crash is OnCrash.INTERRUPT or info.journals
    remembers, received, promises = spec.dedupe, AckOn.RECEIVED, spec.wants_ack
    node, method, subject = spec.node, spec.method, spec.subject
    new = tuple.__new__  # NB: TakeIn(...) costs twice as much
    items: list[TakeIn] = []
    for work in works:
        identity = work.identity
        item = (
            scope,
            node,
            method,
            subject,
            work.sender,
            identity.instance if remembers else None,
            identity.message_id,
            identity.attempt,
            work.payload,
            work.block,
            work.reply_tos[0] if work.reply_tos else "",
            must_keep or (work.ack_on is received and promises),
        )
        items.append(new(TakeIn, item))
    return items
