"""What came of messages, committed in batches, and what their senders hear: a slow disk delays acknowledgements and not
handlers.

One commit at a time; what ends meanwhile is the next batch. Nothing here waits but where the store has no room: a batch is
handed over as soon as it is there, and concluded within the turn of the event loop in which its commit is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from appliance.core.method import MethodInfo
from appliance.core.specs import AckOn, SubscriberSpec
from appliance.delivery.base import Confirmation, Intake
from appliance.dialect.base import Answer, AnswerKind
from appliance.errors import StoreError
from appliance.outbox.records import DONE_VERDICT, DoneRun, FinishItem, HealthState, OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.workers.incoming import DedupeKey, Incoming
from appliance.workers.services import WorkerServices

MAX_FINISH_BATCH = 256
RETRY_S = 0.2
MAX_REPLY_WAITS = 50
"""Tries to find room for replies (about ten seconds) before the messages are finished without them."""

_TAKEN = Answer(AnswerKind.TAKEN)
_DONE = Answer(AnswerKind.DONE)
_RECEIVED = AckOn.RECEIVED

Finished = tuple[Incoming, tuple[OutboxRecord, ...], str]
"""What came of one message, until it is committed: the message, what goes out because of it, and its verdict.

NB: a plain tuple, which costs a tenth of an object.
"""


class Batch:
    """What one commit is to say."""

    __slots__ = ("done", "finished", "is_urgent", "items", "replies")

    def __init__(
        self, finished: list[Finished], scope: str, *, remembers: bool, remembers_all: bool
    ) -> None:
        self.finished = finished
        self.done, self.items = sort_out(
            finished, scope, remembers=remembers, remembers_all=remembers_all
        )
        self.replies = [record for _, records, _ in finished for record in records]
        # where the acknowledgement is out already, nobody waits for this commit
        self.is_urgent = bool(self.replies) or any(work.reply_tos for work, _, _ in finished)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be written."""
        return not (self.done or self.items or self.replies)


TELL_AFTER_S = 0.25
"""What is done sooner needs no word that it is being worked on."""
TELL_LOOK_S = 0.25
TELL_EVERY_MIN_S, TELL_EVERY_MAX_S = 0.3, 10.0


class Telling:
    """Of one subscriber; only appliances are told."""

    def __init__(self, intake: Intake, instance: str, mono: Callable[[], float]) -> None:
        self._intake = intake
        self._answer = Answer(AnswerKind.WORKING, detail=instance)
        self._mono = mono
        self._works: dict[Incoming, None] = {}
        self._has_some = asyncio.Event()

    def add(self, work: Incoming, said: list[Confirmation] | None = None) -> None:
        """From now on, until it is removed; with `said` a first word goes there at once."""
        if not work.identity.hears:
            return
        message = work.message
        asked_s = float(message.ack_timeout_s) if message is not None else 1.0
        work.tell_every_s = min(TELL_EVERY_MAX_S, max(TELL_EVERY_MIN_S, asked_s / 3))
        delay_s = min(TELL_AFTER_S, work.tell_every_s)
        if said is not None:
            said += self._words(work)
            delay_s = work.tell_every_s
        work.tell_due_mono = self._mono() + delay_s
        self._works[work] = None
        self._has_some.set()

    def add_unacknowledged(self, works: Iterable[Incoming]) -> None:
        """Their commit takes its time: who has no acknowledgement yet hears that somebody is there."""
        for work in works:
            if work.reply_tos and work not in self._works:
                self.add(work)

    def remove(self, concluded: Iterable[tuple[Incoming, object, object]]) -> None:
        """These have come to their end."""
        if self._works:
            for work, _, _ in concluded:
                self._works.pop(work, None)

    async def run(self) -> None:
        """Tell, again and again, until cancelled."""
        while True:
            await self._has_some.wait()
            await asyncio.sleep(TELL_LOOK_S)
            now = self._mono()
            said: list[Confirmation] = []
            for work in self._works:
                if now >= work.tell_due_mono:
                    work.tell_due_mono = now + work.tell_every_s
                    said += self._words(work)
            if said:
                self._intake.confirm(said)
            if not self._works:
                self._has_some.clear()

    def _words(self, work: Incoming) -> list[Confirmation]:
        # the newest reply subject is the one that is listened to
        return [
            Confirmation(reply_to, work.message_id, self._answer, True, work.signer)
            for reply_to in work.reply_tos[-1:]
        ]


class Finishing:
    """Of one subscriber; also knows which messages are in hand, until they are concluded."""

    def __init__(
        self,
        spec: SubscriberSpec,
        services: WorkerServices,
        *,
        intake: Intake,
        scope: str,
        must_send: set[int],
        on_progress: Callable[[], None],
    ) -> None:
        """`must_send` are ids of replies that are not given up for want of room."""
        self.spec = spec
        self.active: dict[DedupeKey, Incoming] = {}
        self.rows: set[int] = set()
        """Rows of the inbox that this worker has in hand."""
        self._services = services
        self._intake = intake
        self._scope = scope
        self.telling = Telling(intake, services.store.instance, services.mono)
        self._must_send = must_send
        self._on_progress = on_progress
        self._waiting: deque[Finished] = deque()
        self._committing = 0
        """Counted until it is on disk: an executor that looks empty ends a drain."""
        self._is_flush_due = False
        self._group: asyncio.TaskGroup | None = None
        self._ending: asyncio.Future[None] | None = None
        """While it runs; what ends it is set there."""

    def __len__(self) -> int:
        return len(self._waiting) + self._committing

    @property
    def works(self) -> list[Incoming]:
        """Those that are in no commit yet."""
        return [work for work, _, _ in self._waiting]

    def forget(self, work: Incoming) -> None:
        """It is no longer in hand, and nothing has come of it."""
        key = work.key
        if key is not None and self.active.get(key) is work:
            del self.active[key]

    def let_go_of_rows(self) -> None:
        """What is left on disk may be taken by another worker."""
        # NB: all of them, also those of handlers that were cut off just now
        self._services.inbox.held.difference_update(self.rows)
        self.rows.clear()

    async def run(self) -> None:
        """Commit what is added until cancelled. Raises StoreError when the store is of no use any more."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._ending = asyncio.get_running_loop().create_future()
            try:
                self.flush()
                await self._ending
            finally:
                self._group = self._ending = None

    def add(self, finished: Finished) -> None:
        """A message has been handled; committed with what else this turn of the event loop ends, or `flush` asks for."""
        self._waiting.append(finished)
        if not self._is_flush_due and not self._committing and self._ending is not None:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def gather(self) -> None:
        """What is added from here on waits for the next `flush`, which its caller sees to."""
        self._is_flush_due = True

    def flush(self) -> None:
        """Hand over what waits, unless a commit is under way."""
        self._is_flush_due = False
        while self._waiting and not self._committing and self._ending is not None:
            count = self._committing = min(len(self._waiting), MAX_FINISH_BATCH)
            spec = self.spec
            batch = Batch(
                [self._waiting.popleft() for _ in range(count)],
                self._scope,
                remembers=spec.dedupe,
                remembers_all=spec.remembers,
            )
            if self._services.jobs.holds_answers:
                self._start(self._commit_after_jobs(batch))
            elif batch.is_empty:
                self._conclude(batch)
                self._on_progress()
            else:
                self._hand_over(batch)

    def _hand_over(self, batch: Batch) -> None:
        def then(error: StoreError | None) -> None:
            if self._ending is None:
                return  # the worker has ended: whoever takes over knows what is on disk
            if error is not None:
                self._refused(batch, error)
                return
            try:
                self._conclude(batch)
                self.flush()
                self._on_progress()
            except Exception as bug:  # noqa: BLE001 - the boundary: it ends this worker, and nobody else's
                self._end(bug)

        try:
            self._services.store.finish_soon(
                batch.items, batch.replies, then, done=batch.done, is_urgent=batch.is_urgent
            )
        except StoreError as error:
            self._refused(batch, error)

    async def _commit_after_jobs(self, batch: Batch) -> None:
        # an answer is on disk with its job before anybody is told that it is here
        await self._services.jobs.written()
        if not batch.is_empty:
            self._hand_over(batch)
            return
        self._conclude(batch)
        self.flush()
        self._on_progress()

    def _refused(self, batch: Batch, error: StoreError) -> None:
        if error.retryable:
            self._start(self._try_again(batch, error))
        else:
            self._end(error)

    def _end(self, error: Exception) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_exception(error)

    async def _try_again(self, batch: Batch, error: StoreError) -> None:
        """While the store has no room; the replies are given up in the end, what was handled stays handled."""
        spec, count = self.spec, 0
        while not batch.is_empty:
            self._services.telemetry.worker_troubled(
                spec.key, f"cannot commit handled messages: {error}"
            )
            count += 1
            self.telling.add_unacknowledged([work for work, _, _ in batch.finished])
            kept = [record for record in batch.replies if record.id in self._must_send]
            if len(kept) < len(batch.replies) and count > MAX_REPLY_WAITS:
                self._services.error_reports.report(
                    spec.node,
                    f"{spec.subject}: {len(batch.replies) - len(kept)} replies dropped: {error}",
                    method=spec.method,
                )
                # the sender of one message must not stall everybody behind it
                batch.replies = kept
            await asyncio.sleep(RETRY_S)
            try:
                await self._services.store.finish(
                    batch.items, batch.replies, done=batch.done, is_urgent=batch.is_urgent
                )
            except StoreError as again:
                if not again.retryable:
                    raise
                error = again
            else:
                break
        self._conclude(batch)
        self.flush()
        self._on_progress()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        self._group.create_task(work, name=f"commit what came of {self.spec.key.name}")

    def _conclude(self, batch: Batch) -> None:
        """The commit is through: nothing of these is in hand any more, and their senders may know."""
        if batch.replies:
            self._must_send.difference_update([record.id for record in batch.replies])
        active = self.active
        said: list[Confirmation] = []
        rows: list[int] = []
        for finished in batch.finished:
            work = finished[0]
            key = work.key
            if key is not None and active.get(key) is work:
                del active[key]
            if work.row_id is not None:
                rows.append(work.row_id)
            if work.reply_tos:
                say_last(finished, said)
        self.telling.remove(batch.finished)
        if rows:
            # not before the commit: until then they are still rows of ours
            self._services.inbox.held.difference_update(rows)
            self.rows.difference_update(rows)
        self._committing = 0
        if said:
            # last: an acknowledgement says that a resend is known from now on
            self._intake.confirm(said)


def sort_out(
    finished: Sequence[Finished], scope: str, *, remembers: bool, remembers_all: bool
) -> tuple[list[DoneRun], list[FinishItem]]:
    """What the store has to note: by sender what was plainly done, and each of the others."""
    runs: list[DoneRun] = []
    items: list[FinishItem] = []
    sender = known_as = None
    row_ids: list[int] = []
    message_ids: list[int] = []
    for work, _, verdict in finished:
        instance, message_id, _, _, _, attempt = work.identity
        row_id = work.row_id
        if row_id is None and not (remembers_all and instance is not None):
            continue
        if not remembers:
            instance = None
        if attempt or verdict != DONE_VERDICT:
            whose = (scope, work.sender, instance)
            items.append(FinishItem(row_id, *whose, message_id, attempt, verdict))
            continue
        if work.sender != sender or instance != known_as:  # mostly all of a batch are of one
            sender, known_as = work.sender, instance
            row_ids, message_ids = [], []
            runs.append(DoneRun(scope, sender, known_as, row_ids, message_ids))
        if row_id is not None:
            row_ids.append(row_id)
        if instance is not None:
            message_ids.append(message_id)
    return runs, items


def say_last(finished: Finished, said: list[Confirmation]) -> None:
    """Add the acknowledgements of a message, one for each copy that came."""
    work, _, verdict = finished
    identity = work.identity
    to_appliance = identity.instance is not None
    if work.ack_on is _RECEIVED:
        # whatever came of it: it is remembered, and no more was promised
        answer, to_appliance = _TAKEN, identity.hears
    elif verdict == DONE_VERDICT:
        answer = Answer(AnswerKind.DONE, is_unwanted=True) if work.is_unwanted else _DONE
    elif not to_appliance:
        return  # a Go node hears nothing of a failure, and asks again
    else:
        answer = verdict_answer(verdict)
    new = tuple.__new__  # NB: Confirmation(...) costs twice as much
    for reply_to in work.reply_tos:
        said.append(  # noqa: PERF401 - it is one nearly always, and a generator costs more than that
            new(Confirmation, (reply_to, work.message_id, answer, to_appliance, work.signer))
        )


def verdict_answer(verdict: str) -> Answer:
    """The answer that tells a verdict of the store."""
    word, _, why = verdict.partition(": ")
    if word == "failed":
        return Answer(AnswerKind.FAILED, detail=why)
    if word == "refused":
        return Answer(AnswerKind.REFUSED, detail=why)
    return _DONE


# Which messages are taken in and done in one commit instead of two.
#
# Two commits are the rule: the first makes a message durable in the inbox, is acknowledged (`ack.on: received`) and lets the
# handler begin; the second remembers the verdict and lets go of the body. Between them a message is on disk because its
# sender has forgotten it and its handler has not ended. Where the handler ends before anybody could be told of the first
# commit, there is nothing to be kept between: the second one alone says all that both say, and the acknowledgement follows
# it. What that rests on, and what each condition is for:
#
# - *It may be done twice* (`MethodInfo.is_prompt` says so; never commands and whatever journals). A crash between the effect
#   and the commit leaves no trace of the message here. It was not acknowledged, so it is sent again and done again, where
#   with two commits its row would have been run again: once more in either case, and only after a crash. Messages that the
#   handler sends are in the commit itself, and so go out exactly once.
# - *Its handler never waits* (`is_prompt`, too). What waits has to be durable first, or its acknowledgement would come when
#   it is done and not when it was received: a sender that knows nothing of us would send it again meanwhile.
# - *Its turn comes soon*: no handler is waiting for anything, and those that are before it take a moment. There is one queue
#   for all, so none overtakes another; but whoever waits there for long has to be durable, and its sender to know.
# - *It is surely new*: above all ids that are remembered of its sender, and none that is in hand, which were sorted out
#   before. What may be a repeat is looked up by the writer, before the handler begins.
# - *The store can commit, and has room for answers.* Else a handler would run whose end cannot be written down, again after
#   each restart, and its sender would take the node for silent.
# - *No stream keeps it* (`Intake.is_asked`). Which of two daemons has such a message is settled when it is taken in.
# - *It is no answer.* Those have an order among themselves, and their acknowledgement may say that nobody wants more.
#
# With `ack.on: done` the same messages have always had one commit, with the same conditions of a crash; what is journaled or
# must not run twice keeps its two commits there as well.


def may_be_done_at_once(
    works: Sequence[Incoming], info: MethodInfo, scope: str, store: MessageStore
) -> bool:
    """Whether the handlers of these messages may run before anything of them is on disk, if they run soon.

    All of them or none: what is in one batch keeps its order.
    """
    if not info.is_prompt or store.is_crowded or store.health().state is not HealthState.OK:
        return False
    received = AckOn.RECEIVED
    for work in works:
        if work.is_reply or work.message is None or work.ack_on is not received:
            return False
    return store.are_surely_new(scope, [work.key for work in works])
