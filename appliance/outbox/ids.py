"""Message ids: milliseconds since 2020 above a counter, so that their order is the order of time.

The counter begins anywhere in each millisecond, and goes on in steps of any width. Whoever may say that he is another,
where nothing is signed, could else use up the ids that this one is about to give: its messages would count as repeats of
his, and be done by nobody. Of a message to several nodes each has an id of its own: one of them does not know the others'.
"""

from __future__ import annotations

import os
from collections.abc import Callable

EPOCH_MS = 1_577_836_800_000
"""2020-01-01 UTC."""
COUNTER_BITS = 20
BEGIN_BITS = COUNTER_BITS - 1
STEP_BITS = 18
"""Of a step while ids are ahead of the clock by less than `NEAR_MS`."""
FAST_STEP_BITS = 16
"""Beyond it: 32 messages a millisecond come no further ahead."""
FAR_STEP_BITS = 10
"""Where they are ahead by more than `FAR_MS`, as when the clock was set back: the clock comes after them."""
NEAR_MS, FAR_MS = 1_000, 60_000
_POOL_BYTES = 6_144
_DRAW_BYTES = 3

Chance = Callable[[int], int]
"""A number of so many random bits."""


class RandomBits:
    """Random numbers from the system, many at once: an id is given for every message."""

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def draw(self, bits: int) -> int:
        """A number of at most 24 bits."""
        at = self._at
        if at >= len(self._pool):
            self._pool, at = os.urandom(_POOL_BYTES), 0
        self._at = at + _DRAW_BYTES
        return int.from_bytes(self._pool[at : at + _DRAW_BYTES], "little") >> (24 - bits)


def no_chance(_bits: int) -> int:
    """Ids in a row, where nobody could make use of it."""
    return 0


def id_time(message_id: int) -> float:
    """When an id was made, in wall-clock seconds."""
    return ((message_id >> COUNTER_BITS) + EPOCH_MS) / 1000


class IdSource:
    """Gives ids larger than every one before, over restarts and when the clock steps back.

    `last` is the largest ever given; the store keeps it with every commit. `chance` says where the counter goes on.
    """

    def __init__(self, last: int, clock: Callable[[], float], chance: Chance = no_chance) -> None:
        self.last = last
        self._clock = clock
        self._chance = chance

    def next(self) -> int:
        """One id."""
        now = (int(self._clock() * 1000) - EPOCH_MS) << COUNTER_BITS
        # a clock that stands still or goes back only makes the counter run
        last = self.last + 1
        if now > last:
            last = now + self._chance(BEGIN_BITS)
        else:
            ahead_ms = (last - now) >> COUNTER_BITS
            bits = STEP_BITS if ahead_ms < NEAR_MS else FAST_STEP_BITS
            last += self._chance(bits if ahead_ms < FAR_MS else FAR_STEP_BITS)
        self.last = last
        return last

    def next_block(self) -> int:
        """The first of a million ids in a row."""
        first = self.next()
        self.last += 1 << COUNTER_BITS
        return first
