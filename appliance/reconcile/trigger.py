"""A wake-up that merges: many causes, one look."""

from __future__ import annotations

import asyncio


class Trigger:
    """Holds the reasons given since the last look. Setting is safe from callbacks of the loop."""

    def __init__(self) -> None:
        self._reasons: dict[str, int] = {}
        self._event = asyncio.Event()

    def set(self, reason: str) -> None:
        """Ask for a look."""
        self._reasons[reason] = self._reasons.get(reason, 0) + 1
        self._event.set()

    @property
    def pending(self) -> int:
        """How often a look was asked for since the last `take`."""
        return sum(self._reasons.values())

    async def wait(self, timeout_s: float | None) -> None:
        """Wait until somebody asks, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            pass

    def take(self) -> frozenset[str]:
        """The reasons so far; forgets them."""
        reasons = frozenset(self._reasons)
        self._reasons.clear()
        self._event.clear()
        return reasons
