"""How long an answer is waited for, what it means, and what it means that none came.

Answers of one read are taken together. None of them sends anything: what they make due, `LaneSender` sends in the same
turn of the event loop.
"""

from __future__ import annotations

import random

from appliance.core.pacing import LanePace
from appliance.core.retry import (
    GiveUp,
    Missed,
    decide_unanswered,
    send_wait_s,
    settings_of,
    stranger_gap_s,
)
from appliance.core.specs import AckSettings, PublisherSpec
from appliance.delivery.base import Answered, Flight, FlightPhase, LaneCarrier
from appliance.dialect.base import Answer, AnswerKind
from appliance.outbox.lane import Lane
from appliance.outbox.records import OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import WorkerStats
from appliance.workers.in_flight import InFlight
from appliance.workers.lane_ends import LaneEnds, reason_of_answer
from appliance.workers.lane_standing import LaneStanding
from appliance.workers.peers import PeerBook

WORKING_WAIT_S = 5.0
"""Least time that a receiver which said it works is left alone."""
MIN_BUSY_WAIT_S = 0.1
"""However soon a receiver without room asks to be asked again."""


class LaneAnswers:
    """Of one publisher."""

    def __init__(
        self,
        spec: PublisherSpec,
        *,
        lane: Lane,
        flights: InFlight,
        pace: LanePace,
        carrier: LaneCarrier,
        ends: LaneEnds,
        standing: LaneStanding,
        store: MessageStore,
        peers: PeerBook,
        telemetry: Telemetry,
        stats: WorkerStats,
    ) -> None:
        self._spec = spec
        self._lane = lane
        self._flights = flights
        self._pace = pace
        self._carrier = carrier
        self._ends = ends
        self._standing = standing
        self._store = store
        self._peers = peers
        self._telemetry = telemetry
        self._stats = stats

    def use(self, spec: PublisherSpec) -> None:
        """Timeouts and retries hold from the next decision on."""
        self._spec = spec

    # -- how long ----------------------------------------------------------------------------------------

    @property
    def _may_repeat(self) -> bool:
        """Whether a message that is sent again is known again; what does not know it may run it twice."""
        return self._carrier.may_repeat or self._peers.is_appliance(self._spec.to_node)

    def _ack_of(self, record: OutboxRecord) -> AckSettings:
        return settings_of(self._spec.ack, record.ack_timeout_s, record.retries)

    def wait_s(self, flight: Flight) -> float:
        """How long the send that is made now is waited for."""
        return send_wait_s(
            self._ack_of(flight.record),
            sends=flight.record.sends,
            unanswered=max(flight.unanswered, self._pace.silences),
            may_repeat=self._may_repeat,
        )

    def resend_mono(self, flight: Flight, now: float) -> float:
        """When a record may be sent again though its send may have been heard: strangers are spared."""
        sends = flight.record.sends
        if not sends or self._may_repeat or self._ack_of(flight.record).retries is not None:
            return now
        return max(now, flight.sent_mono + stranger_gap_s(sends))

    def make_due(self, now: float) -> None:
        """Everything that waits for its next send may be sent now, and is no longer taken for unanswered."""
        for flight in self._flights:
            if flight.phase is FlightPhase.AWAITING:
                # a send may be waited for only because nobody seemed to be there: a probe's wait may be minutes
                ack = self._ack_of(flight.record)
                if ack.retries is None and now - flight.sent_mono >= ack.timeout_s:
                    self._flights.to_idle(flight)
            if flight.phase is FlightPhase.IDLE:
                flight.unanswered = 0
                flight.due_mono = self.resend_mono(flight, now)
        self._flights.due_mono = 0.0

    # -- answers -----------------------------------------------------------------------------------------

    def take(self, answers: list[Answered], now: float) -> list[Flight]:
        """All answers of one read; the flights that have arrived by them, which are released and not concluded yet."""
        flights = self._flights
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
                    flights.awaiting -= 1
                flight.phase = FlightPhase.SETTLED
                flight.is_done = kind is AnswerKind.DONE
                flight.by_seed = kind is AnswerKind.TAKEN and not answer.from_appliance
                if kind is AnswerKind.STORED:
                    flight.stored_as = answer.detail
                flight.is_unwanted = answer.is_unwanted
                delivered.append(flight)
            elif kind is AnswerKind.FOREIGN:
                self._stats.foreign += 1
                self._telemetry.foreign_answer(self._spec.key, answer.detail)
            elif kind is AnswerKind.NOBODY or kind is AnswerKind.HELD:
                if flight is not None and flight.phase is FlightPhase.AWAITING:
                    self._take_absence(flight, answer, now)
            elif kind is AnswerKind.HERE:
                if answer.from_appliance:
                    # before it is decided what may be sent again
                    self._peers.learn(self._spec.to_node)
                if self._pace.here(now):
                    self.make_due(now)
            else:
                if flight is not None:
                    heard += 1
                is_ours = is_ours or answer.from_appliance
                if answer.is_undeclared:
                    self._standing.note_undeclared()
                if flight is not None and flight.phase is not FlightPhase.SETTLED:
                    self._take_word(flight, answer, now)
        if confirmed and self._standing.is_undeclared:
            self._standing.note_declared()
        if is_ours:
            # before records end: that the node remembers ids decides how the rest is sent again
            self._peers.learn(self._spec.to_node)
        if delivered:
            self._ends.release(delivered)
        # NB: only what is confirmed makes room for more; "working" and "busy" say that somebody is there
        if heard and self._pace.answered(now, confirmed):
            self.make_due(now)
        if self._standing.told:
            self._lane.wake()  # that it is over is told as well
        return delivered

    def _take_absence(self, flight: Flight, answer: Answer, now: float) -> None:
        self._stats.missed += 1
        self._flights.to_idle(flight)
        flight.was_absent = answer.kind is AnswerKind.NOBODY
        # nobody can have heard it, so it is none of the few sends that a stranger gets
        flight.record.sends -= 1
        is_news = self._pace.nobody(now, jitter=random.random(), kept_by=answer.detail)
        self._flights.put_off(flight, self._pace.held_until_mono)
        self._report_missed(
            flight, Missed.NO_RESPONDER, flight.due_mono - now, is_known=not is_news
        )
        self._lane.wake()

    def _take_word(self, flight: Flight, answer: Answer, now: float) -> None:
        """What an appliance says beside an acknowledgement, and a Go node's empty answer."""
        record, flights = flight.record, self._flights
        if answer.kind is AnswerKind.WORKING:
            flights.to_idle(flight)
            # it takes no room any more: others may be on their way while it runs
            flight.phase = FlightPhase.WORKING
            flight.unanswered = 0
            wait_s = max(WORKING_WAIT_S, 2 * self._ack_of(record).timeout_s)
            flights.put_off(flight, now + wait_s)
            if record.taker != answer.detail:
                # noted on disk, since a resend after a restart must name the daemon that has begun it, too
                record.taker = answer.detail
                self._store.settle_retry([record])
            self._telemetry.message_working(record.node, record.id, record.to_node, record.taker)
        elif answer.kind is AnswerKind.BUSY:
            # spread out: many senders are told the same number, and would come back as one burst
            wait_s = max(MIN_BUSY_WAIT_S, answer.wait_ms / 1000) * (1.0 + random.random() / 4)
            if flight.phase is FlightPhase.AWAITING:
                record.sends -= 1  # once for each send, however often it is said
            flights.to_idle(flight)
            flight.unanswered = 0
            self._pace.busy(now, wait_s)
            flights.put_off(flight, now + wait_s)
            self._report_missed(flight, Missed.BUSY, wait_s, is_known=True)
            self._lane.wake()
        else:
            self._ends.give_up(flight, reason_of_answer(answer))

    # -- none came ---------------------------------------------------------------------------------------

    def take_silence(self, flights: list[Flight], now: float) -> list[Flight]:
        """Their time without an answer is over; those of them that are due again at once."""
        if not self._spec.wants_ack:
            # no answer was to be expected, and the broker has not said that nobody is there
            self._ends.release(flights)
            self._ends.note_delivered(flights, now)
            if self._pace.answered(now, len(flights)):
                self.make_due(now)
            return []
        due: list[Flight] = []
        noted: list[OutboxRecord] = []
        may_repeat = self._may_repeat
        for flight in flights:
            record = flight.record
            self._flights.to_idle(flight)
            flight.unanswered += 1
            record.attempts += 1
            record.last_error = str(Missed.ACK_TIMEOUT)
            self._stats.missed += 1
            decision = decide_unanswered(
                self._ack_of(record),
                tries=record.attempts,
                sends=record.sends,
                since_s=now - flight.sent_mono,
                may_repeat=may_repeat,
                jitter=random.random(),
            )
            # also for one that is given up: it was a sign of silence like any other
            if self._pace.unanswered(now, flight.sent_mono):
                self._standing.note_silence()
            if isinstance(decision, GiveUp):
                self._ends.give_up(flight, decision.reason)
                continue
            flight.due_mono = now + decision.delay_s
            # on disk too: a restart must not make the next try come sooner
            record.next_at = self._store.now() + decision.delay_s if decision.delay_s else 0.0
            noted.append(record)
            if decision.delay_s <= 0.0:
                due.append(flight)
            self._report_missed(flight, Missed.ACK_TIMEOUT, decision.delay_s)
        if noted:
            self._store.settle_retry(noted)
        return due

    def _report_missed(
        self, flight: Flight, missed: Missed, delay_s: float, *, is_known: bool = False
    ) -> None:
        record = flight.record
        self._telemetry.attempt_missed(
            self._spec.key,
            record.id,
            str(missed),
            attempt=record.attempts,
            next_in_s=delay_s,
            is_known=is_known,
        )
