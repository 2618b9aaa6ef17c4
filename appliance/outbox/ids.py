"""Message ids: milliseconds since 2020 above a counter, so that their order is the order of time."""

from __future__ import annotations

from collections.abc import Callable

EPOCH_MS = 1_577_836_800_000
"""2020-01-01 UTC."""
COUNTER_BITS = 20


def id_time(message_id: int) -> float:
    """When an id was made, in wall-clock seconds."""
    return ((message_id >> COUNTER_BITS) + EPOCH_MS) / 1000


class IdSource:
    """Gives ids larger than every one before, over restarts and when the clock steps back.

    `last` is the largest ever given; the store keeps it with every commit.
    """

    def __init__(self, last: int, clock: Callable[[], float]) -> None:
        self.last = last
        self._clock = clock

    def next(self) -> int:
        """One id."""
        now = (int(self._clock() * 1000) - EPOCH_MS) << COUNTER_BITS
        # a clock that stands still or goes back only makes the counter run
        last = self.last + 1
        if now > last:
            last = now
        self.last = last
        return last

    def next_block(self) -> int:
        """The first of a million ids in a row."""
        first = self.next()
        self.last += 1 << COUNTER_BITS
        return first
