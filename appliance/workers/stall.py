"""Notices that this process stood still: stopped by a signal, a debugger, a machine that was suspended or is far too busy.

What lay in its socket meanwhile may long be done by another daemon of the node. Methods that must not run twice ask for
it again instead of beginning it: a sender that still waits sends it once more, any other one does not.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

TICK_S = 0.25
STALL_S = 1.0
"""Standing still for longer than this is a stall: a sender may have given up waiting for this daemon."""
AFTER_S = 1.0
"""How long after a stall what is read may have been sent before or during it."""


class StallWatch:
    """One for a daemon; `run` belongs to its root group. Without it nothing is ever a stall.

    Args:
        clock: seconds that go on while the process is stopped and while the machine sleeps.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ticked_at = math.inf
        self._stale_until = -math.inf

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        """The loop goes round."""
        now = self._clock()
        if now - self._ticked_at > STALL_S:
            self._stale_until = now + AFTER_S
        self._ticked_at = now

    @property
    def may_be_stale(self) -> bool:
        """Whether what is read now may have lain there while this process stood still."""
        now = self._clock()
        # the second for what is read before the loop comes to its first tick after the stall
        return now < self._stale_until or now - self._ticked_at > STALL_S
