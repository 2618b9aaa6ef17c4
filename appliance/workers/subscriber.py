"""A subscriber: takes messages of one subject, hands them to a handler, acknowledges.

The way of messages, in lists throughout: `_on_messages` (on the bus's callback, only queues) -> `_admit_batch` (decode,
admission, duplicates) -> `_take_in` (one durable commit for the whole batch, while the next batch is being decoded; one
after the other, so that order is kept) -> acknowledgement where `ack.on` is `received`
-> `Executor` (handler loops, then one commit for a batch: verdicts, replies, bodies dropped) -> acknowledgement where
`ack.on` is `done`.

Between the handler's effect and the finish commit lies the one window in which a crash repeats a message: methods
that tolerate that run again, commands do not and are reported as interrupted.

Senders that are appliances hear what becomes of their messages: that there is no room and when to ask again, that a
message is taken and worked on, that it failed. A resend is answered with what is remembered of the message.

A swap replaces handler and mode for the messages taken from then on; subscription, queues and the concurrency
bound stay, so nothing is lost, doubled or overtaken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from appliance.bus.base import BusMessage, Denial
from appliance.core.admission import is_reply_subject_safe
from appliance.core.method import OnCrash
from appliance.core.names import NodeName, WorkerKey, parse_subject
from appliance.core.signatures import PASSING, Fault
from appliance.core.specs import AckOn, SignaturePolicy, SubscriberSpec, WorkerSpec
from appliance.delivery.base import Confirmation, Kept
from appliance.dialect.base import Answer, AnswerKind
from appliance.dialect.headers import HELLO_HEADER, LENT_PREFIX
from appliance.errors import BusError, StoreError
from appliance.methods.base import Method
from appliance.outbox.records import DONE_VERDICT, InboxRow, TakeIn, TakeInResult, Taken
from appliance.telemetry.stats import DrainReport, WorkerStats
from appliance.workers.executor import Executor
from appliance.workers.finishing import may_be_done_at_once, verdict_answer
from appliance.workers.inbox_owners import scope_of
from appliance.workers.incoming import Admission, Incoming, KeptBack, Refusal
from appliance.workers.known_senders import KnownSenders
from appliance.workers.leftovers import STORE_RETRY_S, Leftovers
from appliance.workers.schedule import HELLO_METHOD
from appliance.workers.services import WorkerServices

MAX_BATCH = 256
WORTH_OVERLAPPING = 16
"""A batch smaller than this is decoded sooner than a task is made that commits it meanwhile."""
MAX_BACKLOG_BYTES = 64 * 1024 * 1024
"""Memory that waiting messages may hold, beside the count that `backlog` sets."""
MAX_DECODED_BYTES = 8 * 1024 * 1024
"""Of it for decoded messages; those that come on top are kept as the bytes they came in until their turn."""
MAX_SENDER_SHARE = 0.75
"""Of either bound for any one sender."""
ASKED_SHARE = 0.5
"""Of either bound for what is asked for: below every other share, so that nothing of it is turned away."""
RESUMED_SHARE = 0.5
"""A sender that was kept waiting goes on when it holds less than this: what is kept back is decoded anew."""
MAX_ADMIT_S = 0.005
"""How long decoding may go on before everybody else gets a turn."""
MAX_REPLY_TOS = 16
"""Senders of copies of one message that are answered together."""
MIN_BUSY_MS, MAX_BUSY_MS = 100, 5_000
AHEAD_AGAIN_MS = 60_000
"""After this a stream brings a message again that was signed in the future: by then a clock may have been set."""

_TAKEN = Answer(AnswerKind.TAKEN)


class Subscriber:
    """Owns one subscription. See the module for the idea."""

    def __init__(self, spec: SubscriberSpec, method: Method, services: WorkerServices) -> None:
        self.spec: WorkerSpec = spec
        self._spec = spec
        self.key: WorkerKey = spec.key
        self.stats = WorkerStats()
        self._method = method
        self._services = services
        self._store = services.store
        self._telemetry = services.telemetry
        self._subject_node = parse_subject(spec.subject).node
        self._scope = scope_of(spec.subject)
        self._handler = method.make()
        self._orders = {name: make() for name, make in method.orders.items()}
        """Words about what the method has started, which come on its subject."""
        self._admission = self._new_admission()
        self._intake = services.delivery.make_intake(
            spec,
            self._on_answers_denied,
            begins_once=self._must_not_run_twice or method.info.journals,
        )
        self._executor = Executor(
            spec,
            method,
            services,
            intake=self._intake,
            scope=self._scope,
            stats=self.stats,
            on_progress=self._note_progress,
        )
        self._incoming: deque[BusMessage] = deque()
        self._kept_back = KeptBack()
        self._incoming_bytes = 0
        """Of `_incoming` and `_kept_back` together."""
        self._admitted: list[Incoming] = []
        """What was to be done at once and has to be taken in first; they count as being decoded."""
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self._decoding = 0
        """Messages that are being decoded and admitted."""
        self._committing = 0
        """Messages that are being taken in; those handed on are none of them."""
        self._intake_stopped = False
        self._is_subscribed = False
        self._denied: str | None = None
        self._bug: Exception | None = None
        self._answers_denied: str | None = None
        self._senders = KnownSenders(spec.subject, services.store)
        self._leftovers = Leftovers(
            self._executor,
            services,
            self._intake,
            self._scope,
            admit=self._admit_row,
            refuse=self._refuse_row,
        )
        self._endings: list[Callable[[], None]] = []

    def _new_admission(self) -> Admission:
        return Admission(
            self._spec,
            self._subject_node,
            self._services.desired.value,
            self._services.dialect,
            self._services.verifier,
            self._orders,
        )

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Pick up what an earlier run or worker left unfinished, then subscribe. Raises BusError when that is denied."""
        # before the claim: rows that a worker leaves from here on are told to us
        self._leftovers.watch()
        # before subscribing: what was left is older than everything that will come
        await self._leftovers.claim()
        await self._intake.start(self._on_messages, self._on_denied)
        self._is_subscribed = True
        self._ask_for_more()
        # not earlier: those who have waited send as soon as they hear it
        self._say_here()
        self._endings.append(self._services.bus.on_connected(self._on_connected))
        self._raise_if_denied()

    async def run(self) -> None:
        """Take in, handle and finish until drained."""
        async with asyncio.TaskGroup() as group:
            handling = group.create_task(self._executor.run(), name=f"handling {self.key.name}")
            await self._take_until_drained(group)
            handling.cancel()

    def update(self, spec: WorkerSpec) -> None:
        """Timeouts, limits and allow lists hold for the next message."""
        assert isinstance(spec, SubscriberSpec)
        self.spec = self._spec = spec
        self._executor.use(spec)
        # more backlog holds for what waits
        self._intake.update(spec)
        self._arrived.set()

    async def swap(self, spec: WorkerSpec) -> None:
        """Put a new handler and mode behind the subscription; what was taken before finishes as it began."""
        assert isinstance(spec, SubscriberSpec)
        # made before anything is assigned: what it raises leaves the old handler at work
        method = self._method.renew(spec) if self._method.renew is not None else self._method
        handler = method.make()
        self._method = method
        self._executor.method.put(method)
        self._handler = handler
        self.update(spec)

    async def drain(self, deadline_mono: float) -> DrainReport:
        """Stop intake, then empty every queue of ours until the deadline."""
        before = self.stats.handled + self.stats.failed
        self._executor.leaves_by_mono = deadline_mono
        self._executor.leaving.set()
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
        left = self._executor.unfinished()
        abandoned = sum(1 for work in left if work.row_id is None and not work.reply_tos)
        return DrainReport(
            worker=self.key.name,
            finished=self.stats.handled + self.stats.failed - before,
            handed_back=len(left) - abandoned,
            abandoned=abandoned
            + (0 if self._spec.wants_ack else len(self._incoming) + len(self._kept_back)),
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
        self._executor.let_go_of_rows()
        self._leftovers.unwatch()

    async def _stop_intake(self) -> None:
        if self._is_subscribed:
            self._is_subscribed = False
            await self._intake.stop()

    def _ask_for_more(self) -> None:
        """Tell a way that can be asked for messages how many there is room for: never so many that one is turned away."""
        held_bytes = self._incoming_bytes + self._executor.waiting.size_bytes
        room = int(self._spec.backlog * ASKED_SHARE) - self.unfinished
        has_room = self._is_subscribed and held_bytes < MAX_BACKLOG_BYTES * ASKED_SHARE
        self._intake.want(max(room, 0) if has_room else 0)

    def _note_progress(self) -> None:
        if self._intake.is_asked:
            self._ask_for_more()
        if not self._decoding and self._can_take():
            self._arrived.set()  # there is room again
        self._note_drained()

    def _note_drained(self) -> None:
        if (
            self._intake_stopped
            and not self._incoming
            and not self._kept_back
            and not self._decoding
            and not self._committing
            and self._executor.is_empty
        ):
            self._drained.set()
            self._arrived.set()

    @property
    def unfinished(self) -> int:
        """Messages that arrived and whose handling has not ended."""
        untaken = len(self._incoming) + len(self._kept_back)
        return untaken + self._decoding + self._committing + self._executor.count

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

    # -- intake -----------------------------------------------------------------------------------

    def _on_messages(self, messages: list[BusMessage]) -> None:
        executor = self._executor
        if self._services.stall.may_be_stale and self._must_not_run_twice:
            messages = self._ask_again(messages)
        if self._is_free_for(messages):
            try:
                self._do_at_once(messages)
            except Exception as bug:  # noqa: BLE001 - the boundary: it ends this worker, as one in its loop would
                self._bug = bug
                self._arrived.set()
            return
        # mostly all fit, and one look is enough; only else each is looked at
        size_bytes = sum([len(message.payload) for message in messages])
        if (
            len(self._incoming) + len(self._kept_back) + len(messages) + executor.held_count
            <= self._spec.backlog
            and self._incoming_bytes + size_bytes + executor.waiting.size_bytes <= MAX_BACKLOG_BYTES
        ):
            self._incoming.extend(messages)
            self._incoming_bytes += size_bytes
        else:
            self._take_what_fits(messages)
        self._arrived.set()

    def _is_free_for(self, messages: list[BusMessage]) -> bool:
        """Whether nothing is before these, so that they can be done in this very turn of the event loop."""
        executor = self._executor
        return (
            self._method.info.is_prompt
            and not (self._orders or self._intake.is_asked)
            and executor.is_free
            and not (self._incoming or self._kept_back or self._decoding or self._committing)
            and not (self._intake_stopped or self._denied)
            and executor.held_count + len(messages) <= min(MAX_BATCH, self._spec.backlog)
        )

    def _do_at_once(self, messages: list[BusMessage]) -> None:
        admit, handler = self._current_admission().admit, self._handler
        works: list[Incoming] = []
        said: list[Confirmation] = []
        for delivery in messages:
            work = admit(delivery, handler)
            if work.__class__ is Refusal:
                self._refuse(work, delivery.reply_to, said, delivery.block)
                continue
            assert isinstance(work, Incoming)
            if self._is_in_hand(work, said):
                works.append(work)
        if said:
            self._intake.confirm(said)
        if self._are_done_at_once(works):
            self._senders.note(works)
            self._executor.handle_now(works)
        elif works:
            for work in works:
                self._account_for(work)
            self._admitted = works
            self._decoding = len(works)
            self._arrived.set()

    @property
    def _remembers_all(self) -> bool:
        """Whether ids of messages are remembered: what is signed may be brought again by whoever has a copy, also where
        nothing is acknowledged.
        """
        return self._spec.wants_ack or self._spec.signatures is not SignaturePolicy.OFF

    @property
    def _must_not_run_twice(self) -> bool:
        return self._method.info.on_crash is OnCrash.INTERRUPT and not self._spec.rerun

    def _ask_again(self, messages: list[BusMessage]) -> list[BusMessage]:
        """These may have lain here while the process stood still, and be done by another daemon; those that cannot be
        asked for again remain.
        """
        hears = self._services.dialect.hears
        stale = [one for one in messages if one.reply_to and hears(one.block)]
        self._say_busy([message.reply_to for message in stale])
        return [one for one in messages if not (one.reply_to and hears(one.block))]

    def _take_what_fits(self, messages: list[BusMessage]) -> None:
        """No room for all: appliances are told when to ask again, others wait as bytes until that is too much, too."""
        executor, backlog = self._executor, self._spec.backlog
        hears = self._services.dialect.hears
        turned_away: list[BusMessage] = []
        for message in messages:
            untaken = len(self._incoming) + len(self._kept_back)
            waiting = untaken + executor.held_count
            held_bytes = self._incoming_bytes + executor.waiting.size_bytes
            has_room = waiting < backlog and held_bytes < MAX_BACKLOG_BYTES
            if not has_room and (hears(message.block) or message.origin is not None):
                turned_away.append(message)
            elif untaken < backlog and held_bytes < MAX_BACKLOG_BYTES:
                self._incoming.append(message)
                self._incoming_bytes += len(message.payload)
            else:
                self.stats.dropped += 1
                self._telemetry.message_dropped(self.key)
        if turned_away:
            self._say_busy([message.reply_to for message in turned_away])

    def _say_busy(self, reply_tos: list[str]) -> None:
        """No try of theirs is spent, and their lanes slow down.

        NB: no number of a message is named: others may hear it, and find out by it the id under which it will come again.
        """
        self.stats.turned_away += len(reply_tos)
        answer = Answer(AnswerKind.BUSY, wait_ms=self._executor.busy_ms(MIN_BUSY_MS, MAX_BUSY_MS))
        self._intake.confirm(
            [
                Confirmation(reply_to, 0, answer, True)
                for reply_to in reply_tos
                if reply_to and is_reply_subject_safe(reply_to, self._spec.subject)
            ]
        )

    def _on_denied(self, denial: Denial) -> None:
        """The broker denies our subject: fail with its words; the pool backs off and tries again."""
        self._denied = denial.text
        self._arrived.set()

    def _on_answers_denied(self, denial: Denial) -> None:
        """Messages arrive and are done, and their senders never hear of it: somebody has to mend the permissions."""
        if self._answers_denied is None or self._intake.answers_get_out:
            self._telemetry.answers_denied(self.key, denial.text)
        self._answers_denied = f"the broker denies its acknowledgements: {denial.text}"

    def _raise_if_denied(self) -> None:
        if self._bug is not None:
            raise self._bug
        if self._denied is not None:
            raise BusError(self._denied)

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

    async def _take_until_drained(self, group: asyncio.TaskGroup) -> None:
        committing: asyncio.Task[None] | None = None
        while not self._drained.is_set():
            await self._arrived.wait()
            # before the queues are looked at: what arrives meanwhile is for the next round
            self._arrived.clear()
            self._raise_if_denied()
            self._take_up_kept_back()
            # a backlog that is full stops the intake: what is not taken yet is still the sender's
            while (
                self._admitted or (self._incoming and self._has_queue_room())
            ) and not self._drained.is_set():
                try:
                    fresh = self._admitted or await self._admit_batch(self._next_batch())
                    self._admitted = []
                    # one commit at a time, so that messages are taken in as they came
                    if committing is not None and not committing.done():
                        await asyncio.wait({committing})  # its error, if it has one, is the group's
                    if not self._remembers_all:
                        # nothing is promised for these: what a crash loses is lost as it is with core NATS
                        self._executor.enqueue(fresh)
                    elif fresh and self._are_done_at_once(fresh):
                        self._senders.note(fresh)
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
                                taking, name=f"taking in {self.key.name}"
                            )
                finally:
                    self._decoding = 0
                self._take_up_kept_back()
            if self._intake.is_asked:
                self._ask_for_more()
            # what the full backlog left goes on when the executor has made room: asked for here, it would never wait
            self._note_drained()
        if committing is not None:
            await asyncio.wait({committing})

    def _are_done_at_once(self, works: list[Incoming]) -> bool:
        """Whether one commit is enough for these, see `may_be_done_at_once`."""
        return (
            not self._intake.is_asked
            and self._executor.end_soon(len(works))
            and may_be_done_at_once(works, self._method.info, self._scope, self._store)
        )

    def _has_queue_room(self) -> bool:
        return self._executor.held_count < self._spec.backlog or self._intake_stopped

    def _can_take(self) -> bool:
        """Whether something waits to be taken, and may be. Without the second the loop would never get to anything else."""
        if self._kept_back and any(map(self._may_resume, self._kept_back.senders())):
            return True
        return bool(self._incoming) and self._has_queue_room()

    def _next_batch(self) -> list[BusMessage]:
        count = self._decoding = min(len(self._incoming), MAX_BATCH)
        batch = [self._incoming.popleft() for _ in range(count)]
        self._incoming_bytes -= sum([len(message.payload) for message in batch])
        return batch

    def _current_admission(self) -> Admission:
        admission = self._admission
        # a sender who was let in under the old config is looked at anew under the next
        if admission.spec is not self._spec or admission.fleet is not self._services.desired.value:
            admission = self._admission = self._new_admission()
        return admission

    def _is_in_hand(self, work: Incoming, said: list[Confirmation]) -> bool:
        """Whether it is a message of ours from now on; another copy of one that is, or another daemon's, is answered."""
        key = work.key
        if key is None or not (self._spec.dedupe and self._remembers_all):
            return True
        active = self._executor.active
        first = active.get(key)
        if first is not None:
            self._repeat_of_active(first, work, said)
            return False
        if work.identity.taker and self._is_left_to_its_taker(work):
            said.append(self._answer(work, self._working_at(work.identity.taker)))
            return False
        # before its commit: a resend may come in the same read, and must not be taken for a new message
        active[key] = work
        return True

    def _account_for(self, work: Incoming) -> None:
        """It waits for its turn, decoded if that leaves room."""
        executor = self._executor
        if executor.waiting.decoded_bytes + work.measure() > MAX_DECODED_BYTES:
            work.put_aside()
        executor.waiting.add(work)

    async def _admit_batch(self, batch: list[BusMessage]) -> list[Incoming]:
        """Those of them that are new and may enter; the others are answered."""
        spec, handler, executor = self._spec, self._handler, self._executor
        admit = self._current_admission().admit
        fresh: list[Incoming] = []
        said: list[Confirmation] = []
        decoded_bytes = executor.waiting.decoded_bytes
        share = MAX_SENDER_SHARE
        has_plenty = len(executor.queue) + self._committing + len(batch) < share * spec.backlog
        plenty_bytes = share * MAX_BACKLOG_BYTES
        loop = asyncio.get_running_loop()
        yield_at = loop.time() + MAX_ADMIT_S
        for delivery in batch:
            if loop.time() > yield_at:
                await asyncio.sleep(0)  # frames that are dear to decode must not keep the loop
                yield_at = loop.time() + MAX_ADMIT_S
            work = admit(delivery, handler)
            if work.__class__ is Refusal:
                self._refuse(work, delivery.reply_to, said, delivery.block)
                continue
            assert isinstance(work, Incoming)
            decoded_bytes += work.measure()
            if decoded_bytes > MAX_DECODED_BYTES:
                decoded_bytes -= work.held_bytes
                work.put_aside()
            if not self._is_in_hand(work, said):
                continue
            # NB: where all of them together leave room, nobody needs to be looked at alone
            is_within = has_plenty and executor.waiting.size_bytes < plenty_bytes
            if (self._kept_back and work.sender in self._kept_back) or not (
                is_within or self._has_share(work.sender, share)
            ):
                executor.forget(work)
                self._turn_away(work, delivery)
                continue
            executor.waiting.add(work)
            fresh.append(work)
        if said:
            self._intake.confirm(said)
        return fresh

    async def _take_in(self, works: list[Incoming]) -> None:
        results = await self._commit_taken(self._take_in_items(works))
        self._senders.note(works)
        accepted: list[Incoming] = []
        rows: list[int] = []
        said: list[Confirmation] = []
        held_rows, own_rows = self._services.inbox.held, self._executor.rows
        received, fresh = AckOn.RECEIVED, TakeInResult.FRESH
        new = tuple.__new__  # NB: Confirmation(...) costs twice as much
        for work, taken in zip(works, results, strict=True):
            work.is_taken = True
            identity = work.identity
            to_appliance = identity.hears
            result, row_id, _ = taken
            if result is not fresh:
                self._answer_repeat(work, taken, said)
                continue
            if row_id is not None:
                work.row_id = row_id
                rows.append(row_id)
            accepted.append(work)
            if work.ack_on is received:
                is_unwanted = work.is_reply and self._is_unwanted(work)
                answer = Answer(AnswerKind.TAKEN, is_unwanted=True) if is_unwanted else _TAKEN
                for reply_to in work.reply_tos:
                    about = (reply_to, work.message_id, answer, to_appliance, work.signer)
                    said.append(new(Confirmation, about))
                work.reply_tos.clear()
            elif to_appliance:
                self._executor.will_tell(work, said)
        # before they are acknowledged: a row that nobody holds may be claimed by another worker
        held_rows.update(rows)
        own_rows.update(rows)
        if said:
            # before they are handled: with `on: received` the promise is kept already, whatever handlers do
            self._intake.confirm(said)
        self._committing = 0
        if self._orders and self._admission.has_orders:
            self._executor.obey([work for work in accepted if work.is_order])
            accepted = [work for work in accepted if not work.is_order]
        self._executor.enqueue(accepted)
        self._note_progress()

    async def _commit_taken(self, items: list[TakeIn]) -> list[Taken]:
        """Commit the batch. While the store cannot (disk full), nothing is acknowledged and intake waits."""
        while True:
            try:
                return list(await self._store.take_in(items))
            except StoreError as error:
                if not error.retryable:
                    raise
                self._telemetry.worker_troubled(self.key, f"cannot take messages in: {error}")
                await asyncio.sleep(STORE_RETRY_S)

    def _take_in_items(self, works: list[Incoming]) -> list[TakeIn]:
        spec, info, scope = self._spec, self._method.info, self._scope
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

    def _is_unwanted(self, work: Incoming) -> bool:
        message = work.message
        return message is not None and self._services.abandoned.is_unwanted(work, message)

    # -- answers ----------------------------------------------------------------------------------

    def _answer(self, work: Incoming, answer: Answer) -> Confirmation:
        reply_to = work.reply_tos[0] if work.reply_tos else ""
        return Confirmation(reply_to, work.message_id, answer, work.identity.hears, work.signer)

    def _working_at(self, instance: str) -> Answer:
        return Answer(AnswerKind.WORKING, detail=instance)

    def _is_left_to_its_taker(self, work: Incoming) -> bool:
        """Whether another daemon of this node began it: only what may run twice is done here as well."""
        return work.identity.taker != self._store.instance and self._must_not_run_twice

    def _has_share(self, sender: str, share: float) -> bool:
        return self._executor.waiting.leaves_room(
            sender, self._spec.backlog, share, MAX_BACKLOG_BYTES
        )

    def _may_resume(self, sender: str) -> bool:
        return self._has_share(sender, RESUMED_SHARE)

    def _take_up_kept_back(self) -> None:
        """Senders that have room again go on where they were, before what came of them since."""
        if self._kept_back:
            found = self._kept_back.take(self._may_resume)
            self._incoming.extendleft(reversed(found))

    def _turn_away(self, work: Incoming, delivery: BusMessage) -> None:
        """One sender has more here than any one may have."""
        if (work.identity.hears or delivery.origin is not None) and work.reply_tos:
            self._say_busy([work.reply_tos[0]])
        elif (
            len(self._kept_back) < self._spec.backlog * MAX_SENDER_SHARE
            and self._incoming_bytes < MAX_BACKLOG_BYTES * MAX_SENDER_SHARE
        ):
            self._kept_back.keep(work.sender, delivery)
            self._incoming_bytes += len(delivery.payload)
        else:
            self.stats.dropped += 1
            self._telemetry.message_dropped(self.key)

    def _repeat_of_active(
        self, first: Incoming, repeat: Incoming, said: list[Confirmation]
    ) -> None:
        """A resend while the first copy is still in hand: confirm it as soon as, and only if, the first is."""
        self.stats.repeats += 1
        if first.ack_on is AckOn.RECEIVED:
            if first.is_taken:
                said.append(self._answer(repeat, _TAKEN))
            elif len(first.reply_tos) < MAX_REPLY_TOS:
                first.reply_tos.extend(repeat.reply_tos)
            return
        if len(first.reply_tos) >= MAX_REPLY_TOS:
            del first.reply_tos[0]  # the newest is the one that is listened to
        first.reply_tos.extend(repeat.reply_tos)
        if first.is_taken and repeat.identity.hears:
            said.append(self._answer(repeat, self._working_at(self._store.instance)))

    def _answer_repeat(self, work: Incoming, taken: Taken, said: list[Confirmation]) -> None:
        """The store knows this message: its sender hears the verdict, however the first answer got lost."""
        self._executor.forget(work)
        self._executor.waiting.remove(work)
        self.stats.repeats += 1
        if not work.reply_tos:
            return
        if work.ack_on is AckOn.RECEIVED:
            # what was promised with this acknowledgement is that it is durably taken, and it was
            said.append(self._answer(work, _TAKEN))
        elif taken.result is TakeInResult.REPEAT_UNFINISHED:
            if work.identity.hears:
                said.append(self._answer(work, self._working_at(self._store.instance)))
        else:
            answer = verdict_answer(taken.verdict or DONE_VERDICT)
            if answer.kind is AnswerKind.DONE or work.identity.hears or work.identity.instance:
                said.append(self._answer(work, answer))

    def _refuse(
        self, refusal: Refusal, reply_to: str, said: list[Confirmation], block: bytes = b""
    ) -> None:
        self.stats.refused += 1
        # once, for everybody who hears of it
        refusal.reason = self._services.hiding.text(refusal.reason)
        if refusal.is_undeclared and self._spec.method == HELLO_METHOD:
            # a node that was removed says it every half minute: it shows in the fleet, and is told of once
            headers = self._services.dialect.read_headers(block) if block else {}
            report = headers.get(HELLO_HEADER)
            self._services.for_handlers.hellos.saw_hello(NodeName(refusal.sender), report)
        else:
            self._telemetry.message_refused(self.key, refusal.sender, refusal.reason)
            self._services.error_reports.report(
                self._spec.node,
                f"{self._spec.subject}: message refused: {refusal.reason}",
                method=self._spec.method,
                is_refusal=True,
            )
        if refusal.identity.instance is not None and reply_to.startswith(
            f"{self._spec.subject}.reply."
        ):
            answer = self._refusal_answer(refusal)
            if answer is not None:
                number = refusal.message_id
                said.append(Confirmation(reply_to, number, answer, True, refusal.signer))

    def _refusal_answer(self, refusal: Refusal) -> Answer | None:
        """What the sender hears; nothing where his next try may go better, unless it is a stream's to make."""
        if refusal.fault in PASSING:
            if not self._intake.is_asked:
                return None
            if refusal.fault is Fault.AHEAD:
                return Answer(AnswerKind.BUSY, wait_ms=AHEAD_AGAIN_MS)
        return Answer(
            AnswerKind.REFUSED, detail=refusal.reason, is_undeclared=refusal.is_undeclared
        )

    # -- what an earlier run or worker left ---------------------------------------------------------

    def _admit_row(self, row: InboxRow) -> Incoming | Refusal:
        # NB: without its reply subject, which may stand below a subject of another kind and was admitted with that
        delivery = BusMessage(self._spec.subject, row.payload, row.block)
        if row.instance is not None and row.instance.startswith(LENT_PREFIX):
            delivery.origin = (row.instance, row.message_id)
        return self._new_admission().admit(delivery, self._handler, is_known=True)

    def _refuse_row(self, refusal: Refusal) -> None:
        self._refuse(refusal, "", [])
