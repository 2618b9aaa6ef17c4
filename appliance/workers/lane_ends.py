"""How a record leaves the outbox: delivered, sent where that is all, given up, or its time is over.

Each end is settled in the store, counted and told; a crash between an answer and its commit means one resend, which the
receiver's memory of ids makes harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.core.delivery import DeliveryState, end_reason
from appliance.core.hidden import Hiding
from appliance.core.retry import reason_of_expiry
from appliance.core.specs import PublisherSpec
from appliance.delivery.base import Flight, FlightPhase, LaneCarrier
from appliance.dialect.base import Answer, AnswerKind
from appliance.outbox.lane import Lane
from appliance.outbox.records import AWAITED_ORIGIN, OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import WorkerStats
from appliance.workers.error_reports import REPORT_ORIGIN
from appliance.workers.in_flight import InFlight
from appliance.workers.lane_standing import LaneStanding

EXPIRY_SWEEP_S = 1.0
"""How long after news times are looked at again, and no sooner."""
QUIET_SWEEP_S = 30.0
"""And how long at most: thousands of lanes may stand still for days, and each look at one costs a tenth of a millisecond."""

OnConcluded = Callable[[Sequence[Flight], str | None], None]
"""Told of records that left the outbox: None for delivered ones, else the reason of their end."""


class LaneEnds:
    """Of one publisher. Of the spec it uses only what stays."""

    def __init__(
        self,
        spec: PublisherSpec,
        *,
        lane: Lane,
        flights: InFlight,
        carrier: LaneCarrier,
        standing: LaneStanding,
        store: MessageStore,
        telemetry: Telemetry,
        stats: WorkerStats,
        hiding: Hiding,
        on_concluded: OnConcluded,
    ) -> None:
        self._spec = spec
        self._lane = lane
        self._flights = flights
        self._carrier = carrier
        self._standing = standing
        self._store = store
        self._telemetry = telemetry
        self._stats = stats
        self._hiding = hiding
        self._on_concluded = on_concluded
        self.sweep_due_mono = 0.0
        """When times are to be looked at again."""

    def release(self, flights: list[Flight]) -> None:
        """These are in hand no more: others may go in their place."""
        self._flights.remove(flights)
        # their tokens go: an answer that comes later finds nobody
        self._carrier.forget(flights)

    def hand_back(self, flights: list[Flight]) -> None:
        """Their records are the lane's again, for whoever comes next."""
        self.release(flights)
        self._lane.put_back([flight.record for flight in flights])

    def note_sent(self, flights: list[Flight], now: float) -> list[Flight]:
        """These went out; those of them that an answer is to come to. The others are over with that."""
        self._stats.sent += len(flights)
        if self._spec.wants_ack:
            return flights
        over = [flight for flight in flights if not flight.record.wants_ack]
        for flight in over:
            flight.sent_mono = now
        if over:
            self.release(over)
            self.note_delivered(over, now)
        self._standing.note_unheard(len(over))
        return [flight for flight in flights if flight.record.wants_ack]

    def note_delivered(self, flights: list[Flight], now: float) -> None:
        """These, which were released, have arrived."""
        stats = self._stats
        sent_mono, alike = flights[0].sent_mono, 0
        for flight in flights:
            if flight.sent_mono != sent_mono:
                stats.delivery.observe(now - sent_mono, alike)
                sent_mono, alike = flight.sent_mono, 0
            alike += 1
        stats.delivery.observe(now - sent_mono, alike)
        stats.acked += len(flights)
        self._store.settle_done([flight.record for flight in flights])
        self._on_concluded(flights, None)
        if self._telemetry.follows_messages:
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

    def give_up(self, flight: Flight, reason: str) -> None:
        """The record's end as a dead letter; a report that nobody could take is only counted."""
        record = flight.record
        # the other side may quote what a set of ours took from the environment
        reason = self._hiding.text(reason)
        self.release([flight])
        if record.origin == REPORT_ORIGIN:
            self._store.settle_done([record])
            self._telemetry.error_report_expired(record.node, reason)
            self._on_concluded([flight], reason)
        elif record.origin == AWAITED_ORIGIN:
            self._store.settle_done([record])
            self._on_concluded([flight], reason)
        else:
            self._store.settle_dead(record, reason)
            self._tell_dead(flight, reason)

    def take_verdict(self, message_id: int, answer: Answer) -> None:
        """What a stream had taken over is refused or has failed at the node: told as a dead letter, which is not kept."""
        spec, now = self._spec, self._store.now()
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
        self._tell_dead(Flight(record), self._hiding.text(reason_of_answer(answer)))

    def _tell_dead(self, flight: Flight, reason: str) -> None:
        record = flight.record
        self._stats.dead += 1
        self._telemetry.message_dead(
            self._spec.key, record.id, record.to_node, record.method, reason
        )
        self._on_concluded([flight], reason)

    # -- times that are over ---------------------------------------------------------------------------

    def sweep(self, now: float, *, strict: bool) -> None:
        """End the records whose time is over, with or without a broker, sent or not. `strict` as the lane is used."""
        # while nothing is sent, nothing else has what is on disk only read: its time ends, too
        self._lane.take(0, strict=strict)
        # by the same end as those in hand, which tells whoever waits for them
        self._flights.add(self._lane.take_expired(self._store.now()))
        flights = list(self._flights)
        left = self.without_expired(flights)
        # what has ended made room for more that is on disk only
        quiet_s = self._quiet_s(left) if len(left) == len(flights) else EXPIRY_SWEEP_S
        self.sweep_due_mono = now + quiet_s

    def note_news(self, now: float) -> None:
        """Something is otherwise than when times were looked at last."""
        self.sweep_due_mono = min(self.sweep_due_mono, now + EXPIRY_SWEEP_S)

    def _quiet_s(self, flights: list[Flight]) -> float:
        """For how long no time ends, as long as there are no news."""
        if self._telemetry.follows_messages:
            # somebody looks on, and is to learn soon that the broker is away
            return EXPIRY_SWEEP_S
        ends = [at for flight in flights if (at := flight.record.expires_at) is not None]
        ends.append(self._lane.next_expiry_at())
        return min(max(min(ends) - self._store.now(), EXPIRY_SWEEP_S), QUIET_SWEEP_S)

    def without_expired(self, flights: list[Flight]) -> list[Flight]:
        """Those whose time is not over; the others end."""
        steady = self._store.now()
        expired = [f for f in flights if (at := f.record.expires_at) is not None and at <= steady]
        if not expired:
            return flights
        for flight in expired:
            record = flight.record
            lifetime_s = (record.expires_at or 0.0) - record.created_at
            why = self._standing.why_expired(flight)
            self.give_up(flight, reason_of_expiry(round(lifetime_s, 1), why))
        return [flight for flight in flights if flight.phase is not FlightPhase.SETTLED]


def reason_of_answer(answer: Answer) -> str:
    """The reason of a dead letter that the node's own word makes."""
    is_refused = answer.kind is AnswerKind.REFUSED
    return end_reason(DeliveryState.REFUSED if is_refused else DeliveryState.FAILED, answer.detail)


def delivered_as(flight: Flight, *, wants_ack: bool) -> DeliveryState:
    """Where a message stands that has left the outbox without a failure."""
    if flight.is_done:
        return DeliveryState.DONE
    if flight.stored_as:
        return DeliveryState.STORED
    return DeliveryState.TAKEN if wants_ack else DeliveryState.SENT
