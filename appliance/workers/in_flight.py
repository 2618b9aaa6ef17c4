"""The records that a publisher has in hand, by id and, where order matters, by the stream they belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from appliance.delivery.base import Flight, FlightPhase
from appliance.outbox.records import OutboxRecord
from appliance.telemetry.stats import WorkerStats

NEVER = float("inf")


class InFlight:
    """All flights of one publisher, in the order in which they were taken, and when they are to be looked at next."""

    def __init__(self, stats: WorkerStats, epoch: int) -> None:
        self._by_id: dict[int, Flight] = {}
        self._streams: dict[str, deque[Flight]] = {}
        self._stats = stats
        self.epoch = epoch
        """Of the connection by which those went out that are not idle."""
        self.awaiting = 0
        """Flights in the phase of that name."""
        self.due_mono = 0.0
        """None of them is due before this."""
        self.has_blocked = False
        """Whether something that is due has to wait for room."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._by_id.values())

    def find(self, record_id: int) -> Flight | None:
        """The flight of a record in hand."""
        return self._by_id.get(record_id)

    def add(self, records: Sequence[OutboxRecord]) -> list[Flight]:
        """Take records in; those of them that may be sent now, which are all but later ones of a stream."""
        may_go: list[Flight] = []
        for record in records:
            flight = self._by_id[record.id] = Flight(record)
            if flight.stream:
                waiting = self._streams.setdefault(flight.stream, deque())
                waiting.append(flight)
                if waiting[0] is not flight:
                    continue
            may_go.append(flight)
        self._stats.in_flight = len(self._by_id)
        return may_go

    def has_to_wait(self, flight: Flight) -> bool:
        """Whether an earlier message of its stream is not settled yet."""
        return bool(flight.stream) and self._streams[flight.stream][0] is not flight

    def to_idle(self, flight: Flight) -> None:
        """It waits for no answer any more, but for its next send."""
        if flight.phase is FlightPhase.AWAITING:
            self.awaiting -= 1
        if flight.phase is not FlightPhase.SETTLED:
            flight.phase = FlightPhase.IDLE

    def put_off(self, flight: Flight, due_mono: float) -> None:
        """It is to be looked at then."""
        flight.due_mono = due_mono
        self.due_mono = min(self.due_mono, due_mono)

    def plan(self, now: float, opens_mono: float) -> None:
        """Time alone makes only those due that are not due yet; the others wait for room, or for the lane to open."""
        due_mono = NEVER
        self.has_blocked = False
        for flight in self._by_id.values():
            if flight.due_mono > now:
                due_mono = min(due_mono, flight.due_mono)
            elif flight.phase is FlightPhase.IDLE and not self.has_to_wait(flight):
                self.has_blocked = True
        if self.has_blocked and not self.awaiting:
            due_mono = min(due_mono, opens_mono)
        self.due_mono = due_mono

    def remove(self, flights: Sequence[Flight]) -> None:
        """Their records are settled or given back: others may go in their place, the next ones of their streams, too."""
        pop, settled = self._by_id.pop, FlightPhase.SETTLED
        for flight in flights:
            if flight.phase is not settled:
                self.to_idle(flight)
                flight.phase = settled
            known = pop(flight.record.id, None)
            if known is not None and flight.stream and self._leave(flight):
                self.due_mono = 0.0
        self._stats.in_flight = len(self._by_id)

    def _leave(self, flight: Flight) -> bool:
        waiting = self._streams[flight.stream]
        was_first = waiting[0] is flight
        waiting.remove(flight)
        if not waiting:
            del self._streams[flight.stream]
        return was_first and bool(waiting)
