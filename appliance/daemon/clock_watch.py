"""Notices when the wall clock is set: by NTP, by hand, by a machine that starts in 1970 and learns better.

Ages and expiries do not depend on it (the store's steady clock, the loop's monotonic one). What does is whatever means a
time of day, which has to look anew, and whoever reads the log and wonders at its stamps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LOOK_EVERY_S = 1.0
MIN_JUMP_S = 2.0
"""Less is what a disciplined clock does by itself."""
MAX_READING_S = 0.25
"""Two clocks cannot be read at once. Where reading took longer (the process was stopped meanwhile), it is done again."""
MAX_READINGS = 5


def passed_s() -> float:
    """Seconds that really passed, also while the machine slept; from an arbitrary beginning."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockWatch:
    """Compares the wall clock with what really passed. `run` belongs to the daemon's root group.

    Args:
        wall: wall-clock seconds since the epoch.
        passed: seconds that go on while the machine sleeps and that nobody can set.
    """

    def __init__(
        self, *, wall: Callable[[], float] = time.time, passed: Callable[[], float] = passed_s
    ) -> None:
        self.on_jump: list[Callable[[float], None]] = []
        """Told by how many seconds the clock was set forward (or back, below 0), once for each jump."""
        self._wall = wall
        self._passed = passed
        self._ahead_s = self._read() or 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Compare with the look before. Being stopped, or asleep, in between is no jump."""
        ahead_s = self._read()
        if ahead_s is None:
            return
        by_s, self._ahead_s = ahead_s - self._ahead_s, ahead_s
        if abs(by_s) > MIN_JUMP_S:
            for callback in self.on_jump:
                callback(by_s)

    def _read(self) -> float | None:
        """How far the wall clock is ahead; None where the two clocks could not be read at one moment."""
        for _ in range(MAX_READINGS):
            before = self._passed()
            wall = self._wall()
            after = self._passed()
            if after - before <= MAX_READING_S:
                return wall - after
        return None
