"""Due times at a steady rate, kept by a thread: the event loop's own timers know whole milliseconds only."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable

MIN_SLEEP_S = 0.0005
"""Messages due closer together than this are released together; each keeps its own due time."""


class Pacer:
    """Calls `release(first, count)` on the loop whenever messages have come due, until stopped.

    Message number n is due at `begun_at + n / rate`, whatever became of those before it: a load that waits for
    its answers would leave out just the latencies that matter (coordinated omission).
    """

    def __init__(
        self, rate: float, release: Callable[[int, int], None], *, total: int | None = None
    ) -> None:
        self._rate = rate
        self._release = release
        self._total = math.inf if total is None else total
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bench pacer", daemon=True)
        self.begun_at = 0.0

    def due_at(self, number: int) -> float:
        """When a message is due, on the clock of `time.monotonic`."""
        return self.begun_at + number / self._rate

    def start(self) -> None:
        """Begin; the first message is due at once."""
        self.begun_at = time.monotonic()
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; nothing is released after the return."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # what the thread had handed to the loop has run then

    def _run(self) -> None:
        released = 0
        while released < self._total:
            delay_s = self.due_at(released) - time.monotonic()
            if self._stop.wait(max(delay_s, MIN_SLEEP_S)):
                return
            due = int((time.monotonic() - self.begun_at) * self._rate) + 1
            count = int(min(due, self._total)) - released
            if count > 0:
                self._loop.call_soon_threadsafe(self._release, released, count)
                released += count
