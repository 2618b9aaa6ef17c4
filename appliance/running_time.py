"""A bound on time in which this process ran.

A process that was stopped, or whose machine slept, finds every timer due when it goes on, before it has seen what came
meanwhile: handlers that were done, programs that had ended. That time is nobody's, so it is not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

LOOK_S = 1.0
"""How often the clock is looked at; what passes between two looks beyond that and `LATE_S` was a standstill."""
LATE_S = 1.0
"""How late a busy loop may be."""
_SHORTEST_S = 0.001
"""A rest that no clock tells from nothing: it must not be waited for again and again."""


@contextlib.asynccontextmanager
async def running_timeout(limit_s: float | None) -> AsyncIterator[None]:
    """As `asyncio.timeout`, without the time in which the process stood still. None is no limit.

    Raises:
        TimeoutError: the body took longer, and was cancelled.
    """
    if limit_s is None:
        yield
        return
    loop = asyncio.get_running_loop()
    left_s = limit_s
    seen = loop.time()

    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal left_s, seen, timer
        now = loop.time()
        left_s -= min(now - seen, LOOK_S + LATE_S)
        seen = now
        if left_s < _SHORTEST_S:
            bound.reschedule(now)
        else:
            timer = loop.call_later(min(left_s, LOOK_S), look)

    async with asyncio.timeout(None) as bound:
        timer = loop.call_later(min(left_s, LOOK_S), look)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
