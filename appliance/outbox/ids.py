"""Message ids: milliseconds since 2020 above a counter, so that their order is the order of time.

The counter begins anywhere in each millisecond. Whoever may say that he is another, where nothing is signed, could else
use up the ids that this one is about to give: its messages would count as repeats of his, and be done by nobody.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

EPOCH_MS = 1_577_836_800_000
"""2020-01-01 UTC."""
COUNTER_BITS = 20
BEGIN_BITS = COUNTER_BITS - 1


def begin_anywhere() -> int:
    """Where the counter begins in a millisecond, such that room is left above."""
    return secrets.randbits(BEGIN_BITS)


def id_time(message_id: int) -> float:
    """When an id was made, in wall-clock seconds."""
    return ((message_id >> COUNTER_BITS) + EPOCH_MS) / 1000


class IdSource:
    """Gives ids larger than every one before, over restarts and when the clock steps back.

    `last` is the largest ever given; the store keeps it with every commit. `begin` says where the counter begins in each
    new millisecond.
    """

    def __init__(
        self, last: int, clock: Callable[[], float], begin: Callable[[], int] = int
    ) -> None:
        self.last = last
        self._clock = clock
        self._begin = begin

    def next(self) -> int:
        """One id."""
        now = (int(self._clock() * 1000) - EPOCH_MS) << COUNTER_BITS
        # a clock that stands still or goes back only makes the counter run
        last = self.last + 1
        if now > last:
            last = now + self._begin()
        self.last = last
        return last

    def next_block(self) -> int:
        """The first of a million ids in a row."""
        first = self.next()
        self.last += 1 << COUNTER_BITS
        return first
