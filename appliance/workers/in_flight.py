"""The records that a publisher has in hand, by id and, where order matters, by the stream they belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from appliance.delivery.base import Flight
from appliance.outbox.records import OutboxRecord


class InFlight:
    """All flights of one publisher, in the order in which they were taken."""

    def __init__(self) -> None:
        self._by_id: dict[int, Flight] = {}
        self._streams: dict[str, deque[Flight]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._by_id.values())

    def __contains__(self, flight: Flight) -> bool:
        return self._by_id.get(flight.record.id) is flight

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
        return may_go

    def has_to_wait(self, flight: Flight) -> bool:
        """Whether an earlier message of its stream is not settled yet."""
        return bool(flight.stream) and self._streams[flight.stream][0] is not flight

    def remove(self, flights: Sequence[Flight]) -> bool:
        """Their records are settled or given back; whether that lets another one of a stream go."""
        pop = self._by_id.pop
        lets_go = False
        for flight in flights:
            known = pop(flight.record.id, None)
            if known is not None and flight.stream and self._leave(flight):
                lets_go = True
        return lets_go

    def _leave(self, flight: Flight) -> bool:
        waiting = self._streams[flight.stream]
        was_first = waiting[0] is flight
        waiting.remove(flight)
        if not waiting:
            del self._streams[flight.stream]
        return was_first and bool(waiting)
