"""Empties one lane of the outbox: what is sent when, what answers mean, and what ends a record.

Everything here works on lists and within one turn of the event loop: answers of one read settle their records and the
room they leave is filled at once. Nothing is awaited; the publisher's loop calls `turn` when a timer is due or there is
news, and waits while the socket takes no more.

A record leaves the outbox on an acknowledgement, a refusal, its handler's failure or the end of its time; whatever else
happens it stays, and a crash between an answer and its commit means one resend, which the receiver's memory of ids makes
harmless. Messages of one stream (`TURN_HEADER`: the lines of one command, say) go one after the other, so that a resend
cannot put an earlier line behind a later one; everything else overtakes them freely.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from appliance.bus.base import Bus
from appliance.core.delivery import DeliveryState, Standing, WaitReason, end_reason
from appliance.core.hidden import Hiding
from appliance.core.names import WorkerKey
from appliance.core.pacing import LanePace
from appliance.core.retry import (
    NO_BROKER,
    NOBODY_THERE,
    STRANGER_GAPS_S,
    STRANGER_LAST_WAIT_S,
    GiveUp,
    Outcome,
    SendAgain,
    ack_wait_s,
    decide_counted,
    decide_stranger,
    reason_of_expiry,
)
from appliance.core.specs import AckSettings, PublisherSpec
from appliance.core.times import clock_time
from appliance.delivery.base import Answered, Flight, FlightPhase, LaneCarrier
from appliance.dialect.base import Answer, AnswerKind
from appliance.errors import BusUnavailable
from appliance.outbox.lane import Lane
from appliance.outbox.records import OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import WorkerStats
from appliance.workers.error_reports import REPORT_ORIGIN
from appliance.workers.in_flight import InFlight
from appliance.workers.peers import PeerBook

EXPIRY_SWEEP_S = 1.0
WORKING_WAIT_S = 5.0
"""Least time that a receiver which said it works is left alone."""
MIN_BUSY_WAIT_S = 0.1
"""However soon a receiver without room asks to be asked again."""
HERE_EVERY_S = 1.0
"""A node that says more often that it is back is not heard."""
SENDS_THAT_CLEAR = 3
"""So many hellos that are not refused mean that the node is declared again."""
MANY_SHARE = 4
"""Of the window a quarter, where a carrier likes many at once."""
_NEVER = float("inf")

OnConcluded = Callable[[Sequence[Flight], str | None], None]
"""Told of records that left the outbox: None for delivered ones, else the reason of their end."""


class LaneSender:
    """Owned by one publisher, which gives it its parts by name."""

    def __init__(
        self,
        spec: PublisherSpec,
        *,
        lane: Lane,
        carrier: LaneCarrier,
        bus: Bus,
        store: MessageStore,
        peers: PeerBook,
        telemetry: Telemetry,
        stats: WorkerStats,
        mono: Callable[[], float],
        wake: Callable[[], None],
        on_concluded: OnConcluded,
        hiding: Hiding | None = None,
    ) -> None:
        self._spec = spec
        self._key: WorkerKey = spec.key
        self._lane = lane
        self._carrier = carrier
        self._bus = bus
        self._store = store
        self._peers = peers
        self._telemetry = telemetry
        self._stats = stats
        self._mono = mono
        self._wake = wake
        self._on_concluded = on_concluded
        self._hiding = hiding or Hiding()
        self._flights = InFlight()
        self._pace = LanePace(spec.window)
        self._awaiting = 0
        """Flights in the phase of that name."""
        self._due_mono = 0.0
        """Nothing in hand is due before this."""
        self._has_blocked = False
        """Whether something that is due has to wait for room."""
        self._planned_mono = 0.0
        """When the publisher's loop means to call `turn` next."""
        self._sweep_due_mono = 0.0
        self._epoch = bus.connection_epoch
        self._told_reason = ""
        self._held_reason = ""
        """Why no stream takes anything, while the lane stands still for that."""
        self._silent_since_at = 0.0
        self._here_mono = -_NEVER
        self._sends_since_undeclared: int | None = None
        """What was sent since the node that is asked said that no config there declares ours; None where it did not."""
        self.is_draining = False
        self.needs_answers = False
        """Whether something cannot be sent before the carrier hears answers."""
        self.last_used_mono = mono()

    # -- what the publisher and others ask -------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send and nothing in hand."""
        return not self._flights and not self._lane.depth

    @property
    def is_undeclared(self) -> bool:
        """Whether the node that is asked refuses everything of ours, as no config there declares it."""
        return self._sends_since_undeclared is not None

    def use(self, spec: PublisherSpec) -> None:
        """Timeouts, retries and the window hold from the next decision on."""
        self._spec = spec
        self._pace.set_window(spec.window)
        self._due_mono = 0.0

    def lane_reason(self) -> str:
        """Why the lane stands still, in words; "" while it does not."""
        if not self._bus.is_connected:
            return str(WaitReason.BROKER_AWAY)
        reason = self._pace.reason(self._mono())
        if reason is WaitReason.SILENT:
            return f"silent since {clock_time(self._silent_since_at)}"
        if reason is WaitReason.NOBODY and self._held_reason:
            return self._held_reason
        return "" if reason is None else str(reason)

    def standing(self, record_id: int) -> Standing | None:
        """Where a record of this lane stands; None for one that is not in hand."""
        flight = self._flights.find(record_id)
        reason = self.lane_reason()
        if flight is None:
            return Standing(DeliveryState.WAITING, reason) if reason else None
        if flight.phase is FlightPhase.WORKING:
            return Standing(DeliveryState.WORKING)
        if flight.phase is FlightPhase.AWAITING:
            return Standing(DeliveryState.SENT)
        if not reason and flight.unanswered:
            reason = f"not answered, sent {flight.record.sends} times"
        return Standing(DeliveryState.WAITING, reason or str(WaitReason.BEHIND))

    def node_said_hello(self) -> None:
        """As `try_now`; of hellos that come one upon the other the first counts."""
        now = self._mono()
        if now - self._here_mono >= HERE_EVERY_S:
            self._here_mono = now
            self.try_now()

    def try_now(self) -> None:
        """There is a sign that the node may be there: everything that waits is tried at once."""
        self._pace.wake(self._mono())
        self._make_due()
        self._wake()

    def sweep(self) -> None:
        """End what is expired though nothing can be sent; what is on disk only is read for the next time."""
        self._lane.take(0)
        self._end_expired(self._mono())

    def forget_dropped(self, ids: set[int]) -> None:
        """An operator dropped these: nothing of them is sent again."""
        for flight in [flight for flight in self._flights if flight.record.id in ids]:
            self._let_go(flight)
        self._wake()

    def give_back(self) -> None:
        """Return everything in hand to the lane."""
        flights = list(self._flights)
        for flight in flights:
            self._let_go(flight)
        self._lane.put_back([flight.record for flight in flights])

    # -- one turn --------------------------------------------------------------------------------------

    def turn(self) -> float | None:
        """Look at what is due and send what may go; seconds until the next look, None to wait for news."""
        now = self._mono()
        epoch = self._bus.connection_epoch
        # first: what the lost connection carried takes no room any more when room is counted
        if epoch != self._epoch:
            self._note_lost_connection(epoch, now)
        if now >= self._sweep_due_mono:
            # before sending, so that nothing goes out whose time is over
            self._end_expired(now)
        if self._flights and now >= self._due_mono:
            # before fresh ones: what was taken from the lane earlier goes first
            self._look_at_flights(now)
        self._send_fresh(now)
        self._tell_reason()
        delay_s = self._next_look_s()
        # an answer that makes something due earlier than this has to wake the loop
        self._planned_mono = _NEVER if delay_s is None else now + delay_s
        return delay_s

    def _next_look_s(self) -> float | None:
        if not self._flights and not self._lane.depth:
            return None
        now = self._mono()
        due_mono = self._sweep_due_mono
        if self._bus.is_connected:
            due_mono = min(due_mono, self._due_mono if self._flights else _NEVER)
            due_mono = min(due_mono, self._fresh_due_mono(now))
        return max(0.0, due_mono - now)

    def _fresh_due_mono(self, now: float) -> float:
        """When records of the lane may be taken next, if it is time that keeps them."""
        if self.is_draining or not self._lane.depth:
            return _NEVER
        if self._pace.is_probing:
            due_at = None if self._flights else self._lane.next_due_at()
            if due_at is None:
                return _NEVER
            due_mono = now + max(0.0, due_at - self._store.now())
            return max(due_mono, self._pace.held_until_mono, self._pace.busy_until_mono)
        if now < self._pace.busy_until_mono:
            return self._pace.busy_until_mono
        if len(self._flights) >= self._spec.window or not self._pace.room(self._awaiting, now):
            return _NEVER  # an answer makes room
        due_at = self._lane.next_due_at()
        return _NEVER if due_at is None else now + max(0.0, due_at - self._store.now())

    def _note_lost_connection(self, epoch: int, now: float) -> None:
        """What was on its way with the old connection may never have arrived: it is due again."""
        self._epoch = epoch
        for flight in self._flights:
            if flight.phase is not FlightPhase.IDLE and flight.epoch != epoch:
                self._to_idle(flight)
                flight.due_mono = self._not_before(flight, now)
        self._due_mono = 0.0
        # silence on the old connection says nothing of the new one
        self._pace.wake(now)

    def _look_at_flights(self, now: float) -> None:
        late: list[Flight] = []
        due: list[Flight] = []
        for flight in self._flights:
            if flight.due_mono > now:
                continue
            if flight.phase is not FlightPhase.IDLE:
                late.append(flight)
            elif self.is_draining or not self._flights.has_to_wait(flight):
                due.append(flight)
        if late:
            due += self._on_unanswered(late, now)
        if self.is_draining:
            # what only waits is sent by whoever comes next
            waiting = [
                flight for flight in self._flights if flight.phase is not FlightPhase.AWAITING
            ]
            for flight in waiting:
                self._let_go(flight)
            self._lane.put_back([flight.record for flight in waiting])
        else:
            self._send(self._choose(due, now), now)
        self._plan_next_look(now)

    def _plan_next_look(self, now: float) -> None:
        """Time alone makes only those due that are not due yet; the others wait for room, or for the lane to move."""
        due_mono = _NEVER
        self._has_blocked = False
        for flight in self._flights:
            if flight.due_mono > now:
                due_mono = min(due_mono, flight.due_mono)
            elif flight.phase is FlightPhase.IDLE and not self._flights.has_to_wait(flight):
                self._has_blocked = True
        pace = self._pace
        if self._has_blocked and not self._awaiting:
            due_mono = min(due_mono, max(pace.held_until_mono, pace.busy_until_mono))
        self._due_mono = due_mono

    def _choose(self, due: list[Flight], now: float) -> list[Flight]:
        """Which of the due ones go: all whose tries are counted, one probe of a lane that stands still, else as many as
        the pace allows.
        """
        if not due or not self._bus.is_connected:
            return []
        counted = [flight for flight in due if self._ack_of(flight.record).retries is not None]
        others = [flight for flight in due if self._ack_of(flight.record).retries is None]
        if self._pace.absences:
            # that nobody is there costs no try, so the counted ones need not be asked about one by one
            counted, others = [], due
        if self._pace.is_probing:
            probe = others[:1] if self._pace.may_probe(self._awaiting, now) else []
            return counted + probe
        return counted + others[: self._pace.room(self._awaiting, now)]

    def _send_fresh(self, now: float) -> None:
        """Take records from the lane while there is room."""
        # again and again: what has expired or cannot be sent leaves its room to the next
        while (
            not self.is_draining
            and self._bus.is_connected
            and not self._bus.is_congested
            and len(self._flights) < self._spec.window
        ):
            if self._pace.is_probing:
                if self._flights or not self._pace.may_probe(self._awaiting, now):
                    # what is in hand is the probe already, or will be
                    return
                limit = 1
            else:
                room = self._pace.room(self._awaiting, now)
                limit = min(room, self._spec.window - len(self._flights))
            if limit <= 0 or self._is_worth_a_wait(limit):
                return
            # a window of one promises order: nothing may overtake a record that waits for its next try
            records = self._lane.take(limit, strict=self._spec.window == 1)
            if not records:
                return
            self.last_used_mono = now
            self._send(self._without_delayed(self._flights.add(records), now), now)
            self._stats.in_flight = len(self._flights)

    def _is_worth_a_wait(self, limit: int) -> bool:
        """Whether more can go at once in a moment, which is cheaper: while the answers to others are on their way."""
        return (
            self._carrier.likes_many
            and self._awaiting > 0
            and limit < self._spec.window // MANY_SHARE
            and self._lane.depth > limit
        )

    def _without_delayed(self, flights: list[Flight], now: float) -> list[Flight]:
        """Pieces of streams whose next try is not due hold up what follows them, over restarts, too."""
        steady = self._store.now()
        delayed = [flight for flight in flights if flight.record.next_at > steady]
        if not delayed:
            return flights
        for flight in delayed:
            flight.due_mono = now + flight.record.next_at - steady
            self._due_mono = min(self._due_mono, flight.due_mono)
        return [flight for flight in flights if flight.record.next_at <= steady]

    def _send(self, flights: list[Flight], now: float) -> None:
        if not flights:
            return
        if not self._spec.wants_ack and not self._carrier.hears:
            flights = self._without_promised(flights, now)
        steady = self._store.now()
        # it may have waited for room since the last sweep
        expired = [f for f in flights if (at := f.record.expires_at) is not None and at <= steady]
        if expired:
            self._expire(expired)
            flights = [flight for flight in flights if flight not in expired]
        try:
            unsendable = self._carrier.send(flights)
        except BusUnavailable:
            for flight in flights:
                flight.due_mono = now
            self._due_mono = now
            return
        if unsendable:
            gone = {id(flight) for flight, _ in unsendable}
            flights = [flight for flight in flights if id(flight) not in gone]
            for flight, why in unsendable:
                # it cannot be encoded or is too large: no later try would go better
                self._give_up(flight, end_reason(DeliveryState.FAILED, why))
        self._stats.sent += len(flights)
        if not self._spec.wants_ack:
            self._note_unacknowledged(flights, now)
            flights = [flight for flight in flights if flight.record.wants_ack]
        epoch, earliest = self._epoch, self._due_mono
        ack, awaiting = self._spec.ack, FlightPhase.AWAITING
        usual_mono, is_counted = now + ack.timeout_s, ack.retries is not None
        is_silent = self._pace.silences > 0
        for flight in flights:
            record = flight.record
            flight.phase = awaiting
            flight.sent_mono = now
            flight.epoch = epoch
            # counted as heard; taken back where the broker or the receiver says that it was not
            record.sends += 1
            if (
                record.ack_timeout_s is None
                and record.retries is None
                and (is_counted or not (is_silent or flight.unanswered))
            ):
                due_mono = usual_mono  # NB: as `_wait_s` has it for nearly all
            else:
                due_mono = now + self._wait_s(flight)
            flight.due_mono = due_mono
            if due_mono < earliest:
                earliest = due_mono
        self._due_mono = earliest
        self._awaiting += len(flights)

    def _note_unacknowledged(self, flights: list[Flight], now: float) -> None:
        """What was accepted for a destination that acknowledges nothing is over once it is sent."""
        over = [flight for flight in flights if not flight.record.wants_ack]
        for flight in over:
            flight.sent_mono = now
        if over:
            self._settle_delivered(over, now)
        if self._sends_since_undeclared is not None:
            # it answers nothing but that, so silence is what tells that it is over
            self._sends_since_undeclared += len(over)
            if self._sends_since_undeclared > SENDS_THAT_CLEAR:
                self._note_declared()

    def _without_promised(self, flights: list[Flight], now: float) -> list[Flight]:
        """Leave out what was accepted when its destination still acknowledged: it waits until somebody is there.

        That nobody is the broker says, where there is an ear for it.
        """
        promised = [flight for flight in flights if flight.record.wants_ack]
        for flight in promised:
            flight.due_mono = now
        if promised:
            self.needs_answers = True
            self._due_mono = now
            self._wake()
        return [flight for flight in flights if not flight.record.wants_ack]

    # -- how long ----------------------------------------------------------------------------------------

    def _ack_of(self, record: OutboxRecord) -> AckSettings:
        """The worker's settings with what the message itself asked for on top."""
        ack = self._spec.ack
        if record.ack_timeout_s is None and record.retries is None:
            return ack
        return replace(
            ack,
            timeout_s=ack.timeout_s if record.ack_timeout_s is None else record.ack_timeout_s,
            retries=ack.retries if record.retries is None else record.retries,
        )

    @property
    def _may_repeat(self) -> bool:
        """Whether a message that is sent again is known again; what does not know it may run it twice."""
        return self._carrier.may_repeat or self._peers.is_appliance(self._spec.to_node)

    def _wait_s(self, flight: Flight) -> float:
        """How long the send that is made now is waited for."""
        ack = self._ack_of(flight.record)
        if ack.retries is not None:
            return ack.timeout_s
        if not flight.unanswered and not self._pace.silences:
            return ack.timeout_s
        if self._may_repeat:
            return ack_wait_s(ack.timeout_s, max(flight.unanswered, self._pace.silences))
        sends = flight.record.sends
        if sends > len(STRANGER_GAPS_S):
            return STRANGER_LAST_WAIT_S
        return max(ack.timeout_s, STRANGER_GAPS_S[sends - 1])

    def _not_before(self, flight: Flight, now: float) -> float:
        """When a record may be sent again though its send may have been heard: strangers are spared."""
        sends = flight.record.sends
        if not sends or self._may_repeat:
            return now
        if self._ack_of(flight.record).retries is not None:
            return now
        wait_s = (
            STRANGER_GAPS_S[sends - 1] if sends <= len(STRANGER_GAPS_S) else STRANGER_LAST_WAIT_S
        )
        return max(now, flight.sent_mono + wait_s)

    def _on_unanswered(self, flights: list[Flight], now: float) -> list[Flight]:
        """Their time without an answer is over; those of them that are due again at once."""
        if not self._spec.wants_ack:
            # no answer was to be expected, and the broker has not said that nobody is there
            for flight in flights:
                self._to_idle(flight)
            self._settle_delivered(flights, now)
            if self._pace.answered(now, len(flights)):
                self._make_due()
            return []
        due: list[Flight] = []
        noted: list[OutboxRecord] = []
        may_repeat = self._may_repeat
        has_fallen_silent = False
        for flight in flights:
            record = flight.record
            ack = self._ack_of(record)
            self._to_idle(flight)
            flight.unanswered += 1
            record.attempts += 1
            record.last_error = str(Outcome.ACK_TIMEOUT)
            self._stats.missed += 1
            decision: SendAgain | GiveUp = SendAgain(0.0)
            if ack.retries is not None:
                decision = decide_counted(record.attempts, ack, jitter=random.random())
            elif not may_repeat:
                decision = decide_stranger(record.sends, now - flight.sent_mono)
            # also for one that is given up: it was a sign of silence like any other
            if self._pace.unanswered(now, flight.sent_mono):
                has_fallen_silent = True
            if isinstance(decision, GiveUp):
                self._give_up(flight, decision.reason)
                continue
            flight.due_mono = now + decision.delay_s
            # on disk too: a restart must not make the next try come sooner
            record.next_at = self._store.now() + decision.delay_s if decision.delay_s else 0.0
            noted.append(record)
            if decision.delay_s <= 0.0:
                due.append(flight)
            self._report_missed(flight, Outcome.ACK_TIMEOUT, decision.delay_s)
        if has_fallen_silent:
            self._silent_since_at = self._store.wall_of(self._store.now())
        if noted:
            self._store.settle_retry(noted)
        return due

    def _end_expired(self, now: float) -> None:
        """Records whose time is over become dead letters, with or without a broker, sent or not."""
        self._sweep_due_mono = now + EXPIRY_SWEEP_S
        steady = self._store.now()
        self._expire(
            [f for f in self._flights if (at := f.record.expires_at) is not None and at <= steady]
        )
        records = self._lane.take_expired(steady)
        if records:
            # by the same end as those in hand, which tells whoever waits for them
            self._flights.add(records)
            self._expire([flight for r in records if (flight := self._flights.find(r.id))])
        if not self._bus.is_connected:
            # nothing is sent, so nothing else has what is on disk only read: its time ends, too
            self._lane.take(0, strict=self._spec.window == 1)

    def _expire(self, flights: list[Flight]) -> None:
        for flight in flights:
            record = flight.record
            lifetime_s = (record.expires_at or 0.0) - record.created_at
            if not self._bus.is_connected:
                why = NO_BROKER
            elif flight.was_absent or (self._pace.absences and not self._held_reason):
                why = NOBODY_THERE
            elif flight.phase is FlightPhase.WORKING or record.taker:
                why = "the node has taken it, and nothing was heard of its end"
            else:
                why = self.lane_reason()
            self._give_up(flight, reason_of_expiry(round(lifetime_s, 1), why))

    # -- answers -----------------------------------------------------------------------------------------

    def take_answers(self, answers: list[Answered]) -> None:
        """All answers of one read."""
        now = self._mono()
        delivered: list[Flight] = []
        heard = confirmed = 0
        is_ours = False
        # NB: what is for none of ours says nothing of the lane: anybody may send it, and as often as he likes
        for flight, answer in answers:
            kind = answer.kind
            if kind is AnswerKind.TAKEN or kind is AnswerKind.DONE or kind is AnswerKind.STORED:
                if flight is not None:
                    heard += 1
                    confirmed += 1
                is_ours = is_ours or answer.from_appliance
                if flight is None or flight.phase is FlightPhase.SETTLED:
                    continue  # an answer to a record that is settled already
                if flight.phase is FlightPhase.AWAITING:
                    self._awaiting -= 1
                flight.phase = FlightPhase.SETTLED
                flight.is_done = kind is AnswerKind.DONE
                flight.by_seed = kind is AnswerKind.TAKEN and not answer.from_appliance
                if kind is AnswerKind.STORED:
                    flight.stored_as = answer.detail
                flight.is_unwanted = answer.is_unwanted
                delivered.append(flight)
                continue
            if kind is AnswerKind.NOBODY or kind is AnswerKind.HELD or kind is AnswerKind.FOREIGN:
                self._take_no_answer(flight, answer, now)
                continue
            if flight is not None and kind is not AnswerKind.HERE:
                heard += 1
            is_ours = is_ours or answer.from_appliance
            self._take_word(flight, answer, now)
        if confirmed and self._sends_since_undeclared is not None:
            self._note_declared()
        if is_ours:
            # before records end: that the node remembers ids decides how the rest is sent again
            self._peers.learn(self._spec.to_node)
        if delivered:
            self._release(delivered)
        # NB: only what is confirmed makes room for more; "working" and "busy" say that somebody is there
        if heard and self._pace.answered(now, confirmed):
            self._make_due()
        if self._flights and (self._has_blocked or self._due_mono <= now):
            self._look_at_flights(now)
        self._send_fresh(now)
        if delivered:
            # after what goes out in their place: nobody waits for this
            self._note_delivered(delivered, now)
        # all is done here already: waking the loop for nothing would cost every batch a switch of tasks
        if (
            self.is_draining
            or self._told_reason
            or self._bus.is_congested
            or self._due_mono < self._planned_mono
        ):
            self._wake()

    def _take_no_answer(self, flight: Flight | None, answer: Answer, now: float) -> None:
        if answer.kind is AnswerKind.FOREIGN:
            self._stats.foreign += 1
            self._telemetry.foreign_answer(self._key, answer.detail)
            return
        if flight is None or flight.phase is not FlightPhase.AWAITING:
            return
        self._stats.missed += 1
        self._to_idle(flight)
        flight.was_absent = answer.kind is AnswerKind.NOBODY
        self._held_reason = answer.detail
        # nobody can have heard it, so it is none of the few sends that a stranger gets
        flight.record.sends -= 1
        is_news = self._pace.nobody(now, jitter=random.random())
        flight.due_mono = self._pace.held_until_mono
        self._due_mono = min(self._due_mono, flight.due_mono)
        self._report_missed(
            flight, Outcome.NO_RESPONDER, flight.due_mono - now, is_known=not is_news
        )
        self._wake()

    def _take_word(self, flight: Flight | None, answer: Answer, now: float) -> None:
        """What an appliance says beside an acknowledgement, and a Go node's empty answer."""
        kind = answer.kind
        if kind is AnswerKind.HERE:
            if answer.from_appliance:
                self._peers.learn(self._spec.to_node)  # before it is decided what may be sent again
            if now - self._here_mono < HERE_EVERY_S:
                return  # said in two places, and by whoever wants to: it makes no flood of sends
            self._here_mono = now
            self._pace.wake(now)
            self._make_due()
            return
        if answer.is_undeclared:
            if self._sends_since_undeclared is None:
                self._telemetry.node_not_declared(self._key, self._spec.to_node)
            self._sends_since_undeclared = 0
        if flight is None or flight.phase is FlightPhase.SETTLED:
            return
        record = flight.record
        if kind is AnswerKind.WORKING:
            self._to_idle(flight)
            # it takes no room any more: others may be on their way while it runs
            flight.phase = FlightPhase.WORKING
            flight.unanswered = 0
            wait_s = max(WORKING_WAIT_S, 2 * self._ack_of(record).timeout_s)
            flight.due_mono = now + wait_s
            self._due_mono = min(self._due_mono, flight.due_mono)
            if record.taker != answer.detail:
                # noted on disk, since a resend after a restart must name the daemon that has begun it, too
                record.taker = answer.detail
                self._store.settle_retry([record])
            self._telemetry.message_working(record.node, record.id, record.to_node, record.taker)
        elif kind is AnswerKind.BUSY:
            # spread out: many senders are told the same number, and would come back as one burst
            wait_s = max(MIN_BUSY_WAIT_S, answer.wait_ms / 1000) * (1.0 + random.random() / 4)
            if flight.phase is FlightPhase.AWAITING:
                record.sends -= 1  # once for each send, however often it is said
            self._to_idle(flight)
            flight.unanswered = 0
            self._pace.busy(now, wait_s)
            flight.due_mono = now + wait_s
            self._due_mono = min(self._due_mono, flight.due_mono)
            self._report_missed(flight, Outcome.BUSY, wait_s, is_known=True)
            self._wake()
        elif kind is AnswerKind.REFUSED:
            self._give_up(flight, end_reason(DeliveryState.REFUSED, answer.detail))
        else:
            self._give_up(flight, end_reason(DeliveryState.FAILED, answer.detail))

    # -- ends --------------------------------------------------------------------------------------------

    def _settle_delivered(self, flights: list[Flight], now: float) -> None:
        self._release(flights)
        self._note_delivered(flights, now)

    def _release(self, flights: list[Flight]) -> None:
        """These are delivered: others may go in their place."""
        awaiting = FlightPhase.AWAITING
        self._awaiting -= sum([flight.phase is awaiting for flight in flights])
        if self._flights.remove(flights):
            self._due_mono = 0.0
        # their tokens go: an answer that comes later finds nobody
        self._carrier.forget(flights)

    def _note_delivered(self, flights: list[Flight], now: float) -> None:
        stats = self._stats
        sent_mono, alike = flights[0].sent_mono, 0
        for flight in flights:
            if flight.sent_mono != sent_mono:
                stats.delivery.observe(now - sent_mono, alike)
                sent_mono, alike = flight.sent_mono, 0
            alike += 1
        stats.delivery.observe(now - sent_mono, alike)
        stats.acked += len(flights)
        stats.in_flight = len(self._flights)
        self._store.settle_done([flight.record for flight in flights])
        self._on_concluded(flights, None)
        if self._telemetry.follows_messages:
            self._tell_delivered(flights, now)
        self.last_used_mono = now

    def _tell_delivered(self, flights: list[Flight], now: float) -> None:
        for flight in flights:
            record = flight.record
            self._telemetry.message_delivered(
                record.node,
                record.id,
                record.to_node,
                record.method,
                now - flight.sent_mono,
                delivered_as(flight, wants_ack=self._spec.wants_ack),
            )

    def _give_up(self, flight: Flight, reason: str) -> None:
        """The record's end as a dead letter; a report that nobody could take is only counted."""
        record = flight.record
        # the other side may quote what a set of ours took from the environment
        reason = self._hiding.text(reason)
        self._let_go(flight)
        flight.phase = FlightPhase.SETTLED
        if record.origin == REPORT_ORIGIN:
            self._store.settle_done([record])
            self._telemetry.error_report_expired(record.node, reason)
        else:
            self._stats.dead += 1
            self._store.settle_dead(record, reason)
            self._telemetry.message_dead(
                self._key, record.id, record.to_node, record.method, reason
            )
        self._on_concluded([flight], reason)

    def _note_declared(self) -> None:
        """The node that is asked takes what is sent again."""
        self._sends_since_undeclared = None
        self._telemetry.node_declared_again(self._key, self._spec.to_node)

    def take_verdict(self, message_id: int, answer: Answer) -> None:
        """What a stream had taken over is refused or has failed at the node: told as a dead letter, which is not kept."""
        spec = self._spec
        state = DeliveryState.FAILED
        if answer.kind is AnswerKind.REFUSED:
            state = DeliveryState.REFUSED
        reason = self._hiding.text(end_reason(state, answer.detail))
        now = self._store.now()
        record = OutboxRecord(
            id=message_id,
            node=spec.node,
            subject=spec.subject,
            to_node=spec.to_node,
            method=spec.method,
            payload=b"",
            encoding="",
            wants_ack=True,
            created_at=now,
            expires_at=now,
        )
        self._stats.dead += 1
        self._telemetry.message_dead(self._key, message_id, spec.to_node, spec.method, reason)
        self._on_concluded([Flight(record)], reason)

    def _let_go(self, flight: Flight) -> None:
        self._to_idle(flight)
        if self._flights.remove([flight]):
            self._due_mono = 0.0
            self._wake()
        self._carrier.forget([flight])
        self._stats.in_flight = len(self._flights)

    def _to_idle(self, flight: Flight) -> None:
        if flight.phase is FlightPhase.AWAITING:
            self._awaiting -= 1
        if flight.phase is not FlightPhase.SETTLED:
            flight.phase = FlightPhase.IDLE

    def _make_due(self) -> None:
        """Everything that waits for its next send may be sent now, and is no longer taken for unanswered."""
        now = self._mono()
        for flight in self._flights:
            if flight.phase is FlightPhase.AWAITING and self._is_overdue(flight, now):
                self._to_idle(flight)
            if flight.phase is FlightPhase.IDLE:
                flight.unanswered = 0
                flight.due_mono = self._not_before(flight, now)
        self._due_mono = 0.0

    def _is_overdue(self, flight: Flight, now: float) -> bool:
        """Whether this send is waited for only because nobody seemed to be there: a probe's wait may be minutes."""
        ack = self._ack_of(flight.record)
        return ack.retries is None and now - flight.sent_mono >= ack.timeout_s

    # -- telling -----------------------------------------------------------------------------------------

    def _tell_reason(self) -> None:
        reason = self.lane_reason()
        if reason == self._told_reason:
            return
        self._told_reason = reason
        if reason and self._telemetry.follows_messages:
            for flight in self._flights:
                if flight.phase is FlightPhase.IDLE:
                    record = flight.record
                    self._telemetry.message_waits(record.node, record.id, record.to_node, reason)

    def _report_missed(
        self, flight: Flight, outcome: Outcome, delay_s: float, *, is_known: bool = False
    ) -> None:
        record = flight.record
        self._telemetry.attempt_missed(
            self._key,
            record.id,
            str(outcome),
            attempt=record.attempts,
            next_in_s=delay_s,
            is_known=is_known,
        )


def delivered_as(flight: Flight, *, wants_ack: bool) -> DeliveryState:
    """Where a message stands that has left the outbox without a failure."""
    if flight.is_done:
        return DeliveryState.DONE
    if flight.stored_as:
        return DeliveryState.STORED
    return DeliveryState.TAKEN if wants_ack else DeliveryState.SENT
