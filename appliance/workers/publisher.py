"""A publisher: empties one lane of the outbox onto one subject.

Up to `window` records are in flight at once; each attempt carries its own reply token below ``<subject>.reply.``, and
one wildcard subscription hears all answers. Timers cost no task per message: while anything is in flight, one scan
every 50 ms finds what is due. A record leaves the outbox on an acknowledgement, a refusal or the end of its tries;
whatever else happens it stays, and a crash between the answer and its commit means one resend, which the receiver's
memory of ids makes harmless.

Messages of one stream (`TURN_HEADER`: the lines of one command, say) go one after the other, so that a resend cannot
put an earlier line behind a later one; everything else overtakes them freely.

When the broker says that nobody subscribes, the whole lane waits and one record at a time probes with growing delay:
absence is a property of the subject, not of a message.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from appliance.bus.base import BusMessage, Denial, Subscription
from appliance.core.message import Message
from appliance.core.names import REPLY_TOKEN, WorkerKey
from appliance.core.retry import (
    DONE,
    MAX_ABSENT_BACKOFF_S,
    DeadLetter,
    Decision,
    Done,
    Outcome,
    backoff_s,
    decide_delivery,
)
from appliance.core.specs import AckSettings, PublisherSpec, WorkerSpec
from appliance.errors import (
    BusUnavailable,
    DecodeError,
    EncodeError,
    PayloadTooLarge,
    SubjectInvalid,
)
from appliance.outbox.records import OutboxRecord
from appliance.telemetry.stats import WorkerStats
from appliance.wire.frame import encoding_name, frame_headers, split_encoding, transcode
from appliance.workers.base import DrainReport
from appliance.workers.identity import DONE_HEADER, HELLO_HEADER, REFUSED_HEADER, UNWANTED_HEADER
from appliance.workers.parts import WorkerParts
from appliance.workers.router import lane_key
from appliance.workers.schedule import Facts, Scheduler, fill_facts
from appliance.workers.window import InFlight, Window

HELLO_METHOD = "REQHello"
SCAN_INTERVAL_S = 0.05
EXPIRY_SWEEP_S = 1.0
IDLE_RETIRE_S = 60.0
"""A publisher made on demand is no longer desired after this long without a record."""


class Publisher:
    """Owns one lane. See the module for the idea."""

    def __init__(
        self,
        spec: PublisherSpec,
        parts: WorkerParts,
    ) -> None:
        self.spec: WorkerSpec = spec
        self._spec = spec
        self.key: WorkerKey = spec.key
        self.stats = WorkerStats()
        self._bus = parts.bus
        self._store = parts.store
        self._telemetry = parts.telemetry
        self._wall = parts.store.now
        # NB: the same clock as the loop's own, which under uvloop knows whole milliseconds only
        self._mono = time.monotonic
        self._lane = parts.store.lane(lane_key(spec))
        self._wake = asyncio.Event()
        self._prefix = f"{spec.subject}.{REPLY_TOKEN}.{secrets.token_hex(6)}."
        self._window = Window()
        self._draining = False
        self._idle = asyncio.Event()
        self._absent_failures = 0
        self._absent_until_mono = 0.0
        self._scan_due_mono = 0.0
        self._expiry_due_mono = 0.0
        self._scanned_epoch = -1
        self._replies: Subscription | None = None
        self._endings: list[Callable[[], None]] = []
        self._router = parts.router
        self._scheduler = Scheduler(
            spec,
            self._submit_scheduled,
            parts.telemetry,
            store=parts.store,
            wall=parts.wall,
            mono=time.monotonic,
        )
        self._denied: str | None = None
        self._settlements = parts.settlements
        self._hello_report = parts.hello_report
        self.last_used_mono = self._mono()

    @property
    def is_idle(self) -> bool:
        """Whether an on-demand publisher has had nothing to do for a while."""
        has_work = bool(self._window) or self._lane.depth > 0
        return not has_work and self._mono() - self.last_used_mono > IDLE_RETIRE_S

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Subscribe to the answers. Raises BusUnavailable when the broker is away or denies it; the pool tries again."""
        if self._spec.wants_ack:
            self._replies = await self._bus.subscribe(
                f"{self._prefix}*", self._on_replies, on_denied=self._on_denied
            )
            self._raise_if_denied()
        self._endings.append(self._bus.on_connected(self._wake.set))
        self._endings.append(self._bus.on_publish_denied(self._spec.subject, self._on_denied))
        self._lane.on_wake = self._wake.set
        self._lane.on_removed = self._on_removed

    async def run(self) -> None:
        """Send until drained."""
        async with asyncio.TaskGroup() as group:
            producer = group.create_task(self._scheduler.run(), name=f"schedule {self.key.name}")
            await self._send_until_drained()
            producer.cancel()

    async def _send_until_drained(self) -> None:
        while not (self._draining and not self._window):
            self._wake.clear()
            self._raise_if_denied()
            await self._scan()
            await self._pump()
            await self._sleep()
        self._idle.set()

    async def _sleep(self) -> None:
        """Wait for something to do: an answer that frees the window, a new record, a due timer."""
        if self._window:
            delay_s: float | None = self._until_next_scan_s()
        else:
            next_due_at = self._lane.next_due_at()
            delay_s = None if next_due_at is None else max(0.0, next_due_at - self._wall())
        if self._absent_until_mono and not self._window and delay_s is not None:
            delay_s = max(delay_s, self._absent_until_mono - self._mono())
        if not self._bus.is_connected:
            delay_s = EXPIRY_SWEEP_S if self._window else None
        if delay_s is None:
            await self._wake.wait()
            return
        handle = asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            handle.cancel()

    def _until_next_scan_s(self) -> float:
        """Soon while an answer may come or time out; later while all that is in flight waits for its next try."""
        if self._draining or any(flight.awaiting_ack for flight in self._window):
            return SCAN_INTERVAL_S
        next_due_mono = min(flight.due_mono for flight in self._window)
        return min(EXPIRY_SWEEP_S, max(SCAN_INTERVAL_S, next_due_mono - self._mono()))

    def update(self, spec: WorkerSpec) -> None:
        """Timeouts, retries and the window hold from the next decision on."""
        assert isinstance(spec, PublisherSpec)
        self.spec = self._spec = spec
        self._wake.set()

    async def swap(self, spec: WorkerSpec) -> None:
        """The next record goes out in the new encoding; records already encoded are rewritten when sent."""
        assert isinstance(spec, PublisherSpec)
        frame_headers(spec.serialization, spec.compression)  # raises before anything changed
        self._scheduler.follow(spec)
        self.update(spec)

    async def drain(self, deadline_mono: float) -> DrainReport:
        """Send nothing new, wait for answers until the deadline; what is left stays in the outbox."""
        before = self.stats.acked + self.stats.dead
        self._draining = True
        self._scan_due_mono = 0.0
        self._wake.set()
        try:
            async with asyncio.timeout_at(deadline_mono):
                await self._idle.wait()
        except TimeoutError:
            pass
        left = len(self._window)
        finished = self.stats.acked + self.stats.dead - before
        return DrainReport(worker=self.key.name, finished=finished, handed_back=left)

    async def close(self) -> None:
        """Give unanswered records back to the lane and stop listening."""
        for ending in self._endings:
            ending()
        self._endings.clear()
        self._lane.on_wake = self._lane.on_removed = None
        for flight in list(self._window):
            self._give_back(flight)
        if self._replies is not None:
            replies, self._replies = self._replies, None
            await replies.stop_intake()

    def node_seen(self, node: str) -> None:
        """The destination said hello: try at once instead of waiting out the delay."""
        if node == self._spec.to_node and self._absent_until_mono:
            self._absent_until_mono = self._mono()
            for flight in self._window:
                if not flight.awaiting_ack:
                    flight.due_mono = min(flight.due_mono, self._absent_until_mono)
            self._scan_due_mono = 0.0
            self._wake.set()

    def say_hello_again(self) -> None:
        """Something is new that a hello tells: do not wait for the next one's time."""
        if self._spec.method == HELLO_METHOD:
            self._scheduler.hurry()

    def clock_jumped(self) -> None:
        """The wall clock was set: a `cron` schedule has to look at it anew."""
        self._scheduler.clock_jumped()

    async def _submit_scheduled(self, message: Message, origin: str, facts: Facts) -> int:
        """Accept a scheduled message like any other; what the schedule remembers is in the same commit."""
        report = self._hello_report() if message.method == HELLO_METHOD else None
        headers = {HELLO_HEADER: report} if report else None
        record = self._router.make_record(message, headers=headers)
        record.origin = origin
        await self._store.put([record], facts=fill_facts(facts, record.id))
        return record.id

    # -- sending ----------------------------------------------------------------------------------

    async def _pump(self) -> None:
        """Send records from the lane while the window has room."""
        spec = self._spec
        strict = spec.window == 1
        while (
            not self._draining and self._bus.is_connected and len(self._window) < self._spec.window
        ):
            if self._absent_until_mono and (self._window or self._mono() < self._absent_until_mono):
                return
            taken = self._lane.take(1, strict=strict)
            if not taken:
                return
            (record,) = taken
            self.last_used_mono = self._mono()
            flight = self._window.add(record)
            self.stats.in_flight = len(self._window)
            if not self._window.has_to_wait(flight):
                await self._send(flight)

    async def _send(self, flight: InFlight) -> None:
        record = flight.record
        spec = self._spec
        if self._is_expired(flight):
            self._settle(flight, self._outcome_so_far(flight))
            return
        try:
            wanted = encoding_name(spec.serialization, spec.compression)
            if record.encoding != wanted:
                record.payload, record.encoding = transcode(record.payload, record.encoding, wanted)
            headers = dict(frame_headers(*split_encoding(record.encoding)))
            if record.headers:
                headers.update(record.headers)
            reply_to = ""
            if spec.wants_ack:
                reply_to = self._prefix + self._window.issue_token(flight)
            flight.sent_mono = self._mono()
            flight.due_mono = flight.sent_mono + self._ack_of(record).timeout_s
            flight.awaiting_ack = True
            flight.epoch = self._bus.connection_epoch
            await self._bus.publish(
                record.subject, record.payload, headers=headers, reply_to=reply_to
            )
        except BusUnavailable:
            flight.awaiting_ack = False
            flight.due_mono = self._mono()
            return
        except (PayloadTooLarge, SubjectInvalid, EncodeError, DecodeError) as error:
            self._settle(flight, Outcome.UNSENDABLE, str(error))
            return
        self.stats.sent += 1
        if not spec.wants_ack:
            self._settle(flight, Outcome.SENT)

    def _ack_of(self, record: OutboxRecord) -> AckSettings:
        """The worker's settings with what the message itself asked for on top."""
        ack = self._spec.ack
        if record.ack_timeout_s is None and record.retries is None:
            return ack
        return AckSettings(
            timeout_s=record.ack_timeout_s if record.ack_timeout_s is not None else ack.timeout_s,
            retries=record.retries if record.retries is not None else ack.retries,
            retry_wait_s=ack.retry_wait_s,
            expires_s=ack.expires_s,
        )

    # -- answers ----------------------------------------------------------------------------------

    def _on_replies(self, messages: list[BusMessage]) -> None:
        for message in messages:
            self._on_reply(message)

    def _on_reply(self, delivery: BusMessage) -> None:
        flight = self._window.find(delivery.subject[len(self._prefix) :])
        if flight is None:
            return  # an answer to a record that is settled already
        headers = delivery.headers
        if headers:
            if headers.get("Status") == "503":
                self._on_no_responder(flight)
                return
            refused = headers.get(REFUSED_HEADER)
            if refused is not None:
                self._settle(flight, Outcome.REFUSED, refused)
                return
            flight.is_done = DONE_HEADER in headers
            flight.is_unwanted = UNWANTED_HEADER in headers
        if self._absent_failures:
            self._end_absence()
        self._settle(flight, Outcome.ACKED)

    def _end_absence(self) -> None:
        """Somebody answers: everything that waited is due now."""
        self._absent_failures = 0
        self._absent_until_mono = 0.0
        for flight in self._window:
            if not flight.awaiting_ack and flight.failures:
                flight.due_mono = 0.0
        self._scan_due_mono = 0.0

    def _on_no_responder(self, flight: InFlight) -> None:
        if not flight.awaiting_ack:
            return
        self.stats.missed += 1
        flight.awaiting_ack = False
        flight.failures += 1
        now = self._mono()
        if now >= self._absent_until_mono:
            self._absent_failures += 1
            delay_s = backoff_s(
                self._absent_failures, cap_s=MAX_ABSENT_BACKOFF_S, jitter=random.random()
            )
            self._absent_until_mono = now + delay_s
        flight.due_mono = self._absent_until_mono
        self._report_missed(flight, Outcome.NO_RESPONDER, self._absent_until_mono - now)

    def _on_denied(self, denial: Denial) -> None:
        """The broker denies our subject: fail with its words; the pool backs off and tries again."""
        if denial.is_publish and denial.subject != self._spec.subject:
            return  # an answer to somebody else's message of this subject
        self._denied = denial.text
        self._wake.set()

    def _raise_if_denied(self) -> None:
        if self._denied is not None:
            raise BusUnavailable(self._denied)

    def _on_removed(self, ids: set[int]) -> None:
        """An operator dropped these: what is in flight is forgotten, and nothing is sent again."""
        for flight in [flight for flight in self._window if flight.record.id in ids]:
            self._forget(flight)
        for id_ in ids:
            self._settlements.tell(id_, "dropped by an operator")

    # -- timers -----------------------------------------------------------------------------------

    async def _scan(self) -> None:
        """Look at everything in flight once: expired deadlines, due retries, attempts lost with a connection."""
        now = self._mono()
        epoch = self._bus.connection_epoch
        if not self._window or (now < self._scan_due_mono and epoch == self._scanned_epoch):
            return
        self._scan_due_mono = now + SCAN_INTERVAL_S
        self._end_expired(now)
        self._scanned_epoch = epoch
        connected = self._bus.is_connected
        probing = False
        for flight in list(self._window):
            if flight.awaiting_ack:
                if flight.epoch != epoch:
                    flight.awaiting_ack = False
                    flight.due_mono = now
                elif now >= flight.due_mono or self._is_expired(flight):
                    self._on_ack_timeout(flight, now)
            if flight.awaiting_ack or flight not in self._window:
                continue
            if self._draining:
                self._give_back(flight)  # it only waits: whoever comes next sends it
                continue
            if now < flight.due_mono or not connected or self._window.has_to_wait(flight):
                continue
            if self._absent_until_mono:
                if probing or now < self._absent_until_mono:
                    continue
                probing = True
            await self._send(flight)

    def _end_expired(self, now: float) -> None:
        """Records that waited behind others until their time was over become dead letters, too.

        NB: also those in the window. While nobody answers only the first of them is tried, so the others get no turn.
        """
        if now < self._expiry_due_mono:
            return
        self._expiry_due_mono = now + EXPIRY_SWEEP_S
        for flight in list(self._window):
            if not flight.awaiting_ack and self._is_expired(flight):
                self._settle(flight, self._outcome_so_far(flight))
        for record in self._lane.take_expired(self._wall()):
            flight = self._window.add(record)
            self._settle(flight, self._outcome_so_far(flight))

    def _on_ack_timeout(self, flight: InFlight, now: float) -> None:
        record = flight.record
        record.attempts += 1
        self.stats.missed += 1
        flight.awaiting_ack = False
        decision = self._decide(flight, Outcome.ACK_TIMEOUT)
        if isinstance(decision, DeadLetter):
            self._conclude(flight, decision)
            return
        delay_s = 0.0 if isinstance(decision, Done) else decision.delay_s
        flight.due_mono = now + delay_s
        record.next_at = self._wall() + delay_s
        record.last_error = str(Outcome.ACK_TIMEOUT)
        self._store.settle_retry([record])
        self._report_missed(flight, Outcome.ACK_TIMEOUT, delay_s)

    def _report_missed(self, flight: InFlight, outcome: Outcome, delay_s: float) -> None:
        record = flight.record
        self._telemetry.attempt_missed(
            self.key,
            record.id,
            str(outcome),
            attempt=record.attempts,
            next_in_s=delay_s,
            is_known=outcome is Outcome.NO_RESPONDER and self._absent_failures > 1,
        )

    def _give_back(self, flight: InFlight) -> None:
        self._forget(flight)
        self._lane.put_back([flight.record])

    # -- settling ---------------------------------------------------------------------------------

    def _is_expired(self, flight: InFlight) -> bool:
        expires_at = flight.record.expires_at
        return expires_at is not None and self._wall() >= expires_at

    def _decide(self, flight: InFlight, outcome: Outcome, detail: str = "") -> Decision:
        record = flight.record
        ack = self._ack_of(record)
        expired = self._is_expired(flight)
        if record.expires_at is not None:
            ack = replace(ack, expires_s=record.expires_at - record.created_at)
        return decide_delivery(
            outcome,
            attempts=record.attempts,
            failures=max(flight.failures, 1),
            ack=ack,
            age_s=ack.expires_s if expired else 0.0,
            jitter=random.random(),
            detail=detail,
        )

    def _settle(self, flight: InFlight, outcome: Outcome, detail: str = "") -> None:
        if outcome is Outcome.ACKED:
            self._conclude(flight, DONE)
            return
        self._conclude(flight, self._decide(flight, outcome, detail))

    def _conclude(self, flight: InFlight, decision: Decision) -> None:
        record = flight.record
        self._forget(flight)
        if isinstance(decision, Done):
            seconds = self._mono() - flight.sent_mono
            self.stats.acked += 1
            self.stats.delivery.observe(seconds)
            self._store.settle_done([record])
            self._settlements.tell(
                record.id, None, is_done=flight.is_done, is_unwanted=flight.is_unwanted
            )
            self._telemetry.message_delivered(
                record.node, record.id, record.to_node, record.method, seconds
            )
        elif isinstance(decision, DeadLetter):
            self.stats.dead += 1
            self._store.settle_dead(record, decision.reason)
            self._settlements.tell(record.id, decision.reason)
            self._telemetry.message_dead(
                self.key, record.id, record.to_node, record.method, decision.reason
            )
        else:
            self._lane.put_back([record])

    def _forget(self, flight: InFlight) -> None:
        if self._window.forget(flight):
            self._scan_due_mono = 0.0
            self._wake.set()
        self.stats.in_flight = len(self._window)
        if self._draining or self._lane.depth:
            self._wake.set()

    def _outcome_so_far(self, flight: InFlight) -> Outcome:
        """Why a record is still here when its time is over."""
        if not self._bus.is_connected:
            return Outcome.BUS_DOWN
        is_absent = flight.failures or self._absent_failures
        return Outcome.NO_RESPONDER if is_absent else Outcome.ACK_TIMEOUT
