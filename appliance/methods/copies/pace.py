"""How large the next piece of a file is, and how long its acknowledgement may take: as earlier ones went. Pure.

A window of pieces is in flight, so what one takes is mostly the time that those before it take on the line. On a thin
one pieces become small: then the first acknowledgement comes soon, progress is seen, a break costs little, and
nothing is sent again only because it is not there yet.
"""

from __future__ import annotations

import math

FIRST_PIECE_BYTES = 32 * 1024
MIN_PIECE_BYTES = 4 * 1024
QUICK_S = 0.5
SLOW_S = 4.0
MIN_ACK_TIMEOUT_S = 5
MAX_ACK_TIMEOUT_S = 120
_WHOLE_BYTES_PER_S = 20_000
"""What a line is expected to do for a file that goes in one message, of which nothing is known beforehand."""


class Pace:
    """Of one copy; pieces have at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slowest_s = 0.0
        self.length = min(FIRST_PIECE_BYTES, most)
        """Of the next piece."""

    def note(self, seconds: float) -> None:
        """An acknowledgement came after that long."""
        self._slowest_s = max(seconds, self._slowest_s * 0.7)
        if seconds < QUICK_S:
            self.length = min(self.length * 2, self._most)
        elif seconds > SLOW_S:
            self.length = max(self.length // 2, min(MIN_PIECE_BYTES, self._most))

    @property
    def ack_timeout_s(self) -> int:
        """How long to wait for the next one before the piece is sent again."""
        return max(MIN_ACK_TIMEOUT_S, min(MAX_ACK_TIMEOUT_S, math.ceil(4 * self._slowest_s)))


def whole_timeout_s(size: int) -> int:
    """How long the acknowledgement of a file in one message may take."""
    return MIN_ACK_TIMEOUT_S + size // _WHOLE_BYTES_PER_S
