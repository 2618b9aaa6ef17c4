"""Empties one lane of the outbox: what is sent when.

Everything here works on lists and within one turn of the event loop: answers of one read settle their records and the
room they leave is filled at once. Nothing is awaited; the publisher's loop calls `turn` when a timer is due or there is
news, and waits while the socket takes no more.

A record leaves the outbox on an acknowledgement, a refusal, its handler's failure or the end of its time (`LaneAnswers`,
`LaneEnds`); whatever else happens it stays. Messages of one stream (`TURN_HEADER`: the lines of one command, say) go one
after the other, so that a resend cannot put an earlier line behind a later one; everything else overtakes them freely.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.bus.base import Bus
from appliance.core.delivery import DeliveryState, end_reason
from appliance.core.pacing import LanePace
from appliance.core.specs import PublisherSpec
from appliance.delivery.base import Answered, Flight, FlightPhase, LaneCarrier
from appliance.errors import BusUnavailable
from appliance.outbox.lane import Lane
from appliance.outbox.store import MessageStore
from appliance.workers.in_flight import NEVER, InFlight
from appliance.workers.lane_answers import LaneAnswers
from appliance.workers.lane_ends import LaneEnds

MANY_SHARE = 4
"""Of the window a quarter, where a carrier likes many at once."""


class LaneSender:
    """Of one publisher, which gives it its parts by name."""

    def __init__(
        self,
        spec: PublisherSpec,
        *,
        lane: Lane,
        flights: InFlight,
        pace: LanePace,
        carrier: LaneCarrier,
        answers: LaneAnswers,
        ends: LaneEnds,
        bus: Bus,
        store: MessageStore,
        mono: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._lane = lane
        self._flights = flights
        self._pace = pace
        self._carrier = carrier
        self._answers = answers
        self._ends = ends
        self._bus = bus
        self._store = store
        self._mono = mono
        self._planned_mono = 0.0
        """When the publisher's loop means to call `turn` next."""
        self.is_draining = False

    # -- what the publisher asks -----------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send and nothing in hand."""
        return not self._flights and not self._lane.depth

    @property
    def needs_answers(self) -> bool:
        """Whether something is in hand that cannot be sent before the carrier hears answers."""
        return (
            not (self._spec.wants_ack or self._carrier.hears)
            and self._bus.is_connected
            and any(flight.record.wants_ack for flight in self._flights)
        )

    def use(self, spec: PublisherSpec) -> None:
        """Timeouts, retries and the window hold from the next decision on."""
        self._spec = spec
        self._answers.use(spec)
        self._pace.set_window(spec.window)
        self._flights.due_mono = 0.0

    def node_said_hello(self) -> None:
        """As `try_now`; of hellos that come one upon the other the first counts."""
        now = self._mono()
        if self._pace.here(now):
            self._try_all(now)

    def try_now(self) -> None:
        """There is a sign that the node may be there: everything that waits is tried at once."""
        now = self._mono()
        self._pace.wake(now)
        self._try_all(now)

    def _try_all(self, now: float) -> None:
        self._answers.make_due(now)
        self._lane.wake()

    def sweep(self) -> None:
        """End what is expired though nothing can be sent; what is on disk only is read for the next time."""
        self._ends.sweep(self._mono(), strict=self._spec.window == 1)

    def forget_dropped(self, ids: set[int]) -> None:
        """An operator dropped these: nothing of them is sent again."""
        self._ends.release([flight for flight in self._flights if flight.record.id in ids])
        self._lane.wake()

    def give_back(self) -> None:
        """Return everything in hand to the lane."""
        self._ends.hand_back(list(self._flights))

    # -- one turn --------------------------------------------------------------------------------------

    def turn(self) -> float | None:
        """Look at what is due and send what may go; seconds until the next look, None to wait for news."""
        now = self._mono()
        # first: what the lost connection carried takes no room any more when room is counted
        if self._bus.connection_epoch != self._flights.epoch:
            self._note_lost_connection(now)
        if now >= self._ends.sweep_due_mono:
            # before sending, so that nothing goes out whose time is over
            self._ends.sweep(now, strict=self._spec.window == 1)
        else:
            self._ends.note_news(now)
        if self._flights and now >= self._flights.due_mono:
            # before fresh ones: what was taken from the lane earlier goes first
            self._look_at_flights(now)
        self._send_fresh(now)
        delay_s = self._next_look_s()
        # an answer that makes something due earlier than this has to wake the loop
        self._planned_mono = NEVER if delay_s is None else now + delay_s
        return delay_s

    def _next_look_s(self) -> float | None:
        if self.is_idle:
            return None
        now = self._mono()
        due_mono = self._ends.sweep_due_mono
        if self._bus.is_connected:
            if self._flights:
                due_mono = min(due_mono, self._flights.due_mono)
            due_mono = min(due_mono, self._fresh_due_mono(now))
        return max(0.0, due_mono - now)

    def _fresh_due_mono(self, now: float) -> float:
        """When records of the lane may be taken next, if it is time that keeps them."""
        pace, in_hand = self._pace, len(self._flights)
        # what is in hand of a lane that stands still is its probe
        if self.is_draining or in_hand >= (1 if pace.is_probing else self._spec.window):
            return NEVER
        opens_mono = pace.opens_mono
        is_open = not pace.is_probing and now >= opens_mono
        if is_open and not pace.room(self._flights.awaiting, now):
            return NEVER  # an answer makes room
        due_at = self._lane.next_due_at()
        return NEVER if due_at is None else max(opens_mono, now + due_at - self._store.now())

    def _note_lost_connection(self, now: float) -> None:
        """What was on its way with the old connection may never have arrived: it is due again."""
        self._flights.epoch = self._bus.connection_epoch
        for flight in self._flights:
            if flight.phase is not FlightPhase.IDLE:
                self._flights.to_idle(flight)
                flight.due_mono = self._answers.resend_mono(flight, now)
        self._flights.due_mono = 0.0
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
            due += self._answers.take_silence(late, now)
        if self.is_draining:
            # what only waits is sent by whoever comes next
            awaiting = FlightPhase.AWAITING
            self._ends.hand_back([one for one in self._flights if one.phase is not awaiting])
            self._lane.wake()
        else:
            self._send(self._choose(due, now), now)
        self._flights.plan(now, self._pace.opens_mono)

    def _choose(self, due: list[Flight], now: float) -> list[Flight]:
        """Which of the due ones go: all whose tries are counted, one probe of a lane that stands still, else as many as
        the pace allows.
        """
        if not due or not self._bus.is_connected:
            return []
        counted: list[Flight] = []
        others = due
        # that nobody is there costs no try, so then the counted ones need not be asked about one by one
        if not self._pace.absences:
            counts_all = self._spec.ack.retries is not None
            counted = [one for one in due if counts_all or one.record.retries is not None]
            others = [one for one in due if not (counts_all or one.record.retries is not None)]
        if self._pace.is_probing:
            probe = others[:1] if self._pace.may_probe(self._flights.awaiting, now) else []
            return counted + probe
        return counted + others[: self._pace.room(self._flights.awaiting, now)]

    def _send_fresh(self, now: float) -> None:
        """Take records from the lane while there is room."""
        flights, pace = self._flights, self._pace
        # again and again: what has expired or cannot be sent leaves its room to the next
        while (
            not self.is_draining
            and self._bus.is_connected
            and not self._bus.is_congested
            and len(flights) < self._spec.window
        ):
            if pace.is_probing:
                if flights or not pace.may_probe(flights.awaiting, now):
                    # what is in hand is the probe already, or will be
                    return
                limit = 1
            else:
                room = pace.room(flights.awaiting, now)
                limit = min(room, self._spec.window - len(flights))
            if limit <= 0 or self._is_worth_a_wait(limit):
                return
            # a window of one promises order: nothing may overtake a record that waits for its next try
            records = self._lane.take(limit, strict=self._spec.window == 1)
            if not records:
                return
            self._send(self._without_delayed(flights.add(records), now), now)

    def _is_worth_a_wait(self, limit: int) -> bool:
        """Whether more can go at once in a moment, which is cheaper: while the answers to others are on their way."""
        return (
            self._carrier.likes_many
            and self._flights.awaiting > 0
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
            self._flights.put_off(flight, now + flight.record.next_at - steady)
        return [flight for flight in flights if flight.record.next_at <= steady]

    def _send(self, flights: list[Flight], now: float) -> None:
        if flights and not (self._spec.wants_ack or self._carrier.hears):
            # what was accepted when its destination still acknowledged waits until somebody is there: that nobody is the
            # broker says, where there is an ear for it
            for flight in flights:
                if flight.record.wants_ack:
                    self._flights.put_off(flight, now)
            flights = [flight for flight in flights if not flight.record.wants_ack]
        # it may have waited for room since the last sweep
        flights = self._ends.without_expired(flights)
        if not flights:
            return
        try:
            unsendable = self._carrier.send(flights)
        except BusUnavailable:
            for flight in flights:
                self._flights.put_off(flight, now)
            return
        if unsendable:
            gone = {id(flight) for flight, _ in unsendable}
            flights = [flight for flight in flights if id(flight) not in gone]
            for flight, why in unsendable:
                # it cannot be encoded or is too large: no later try would go better
                self._ends.give_up(flight, end_reason(DeliveryState.FAILED, why))
        flights = self._ends.note_sent(flights, now)
        ack, awaiting, earliest = self._spec.ack, FlightPhase.AWAITING, self._flights.due_mono
        usual_mono, is_counted = now + ack.timeout_s, ack.retries is not None
        is_silent = self._pace.silences > 0
        for flight in flights:
            record = flight.record
            flight.phase = awaiting
            flight.sent_mono = now
            # counted as heard; taken back where the broker or the receiver says that it was not
            record.sends += 1
            if (
                record.ack_timeout_s is None
                and record.retries is None
                and (is_counted or not (is_silent or flight.unanswered))
            ):
                due_mono = usual_mono  # NB: as `LaneAnswers.wait_s` has it for nearly all
            else:
                due_mono = now + self._answers.wait_s(flight)
            flight.due_mono = due_mono
            if due_mono < earliest:
                earliest = due_mono
        self._flights.due_mono = earliest
        self._flights.awaiting += len(flights)

    def take_answers(self, answers: list[Answered]) -> None:
        """All answers of one read: what they make due, and what they leave room for, goes out at once."""
        now = self._mono()
        flights = self._flights
        delivered = self._answers.take(answers, now)
        if flights and (flights.has_blocked or flights.due_mono <= now):
            self._look_at_flights(now)
        self._send_fresh(now)
        if delivered:
            # after what goes out in their place: nobody waits for this
            self._ends.note_delivered(delivered, now)
        # all is done here already: waking the loop for nothing would cost every batch a switch of tasks
        if self.is_draining or self._bus.is_congested or flights.due_mono < self._planned_mono:
            self._lane.wake()
