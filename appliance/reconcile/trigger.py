"""A wake-up that merges: many causes, one look."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from appliance.reconcile.reload_result import ReloadResult


class Trigger:
    """Holds the reasons given since the last look. Setting is safe from callbacks of the loop."""

    def __init__(self) -> None:
        self._reasons: dict[str, int] = {}
        self._event = asyncio.Event()
        self._woke_mono: float | None = None

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
        self._woke_mono = None
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            pass
        self._woke_mono = asyncio.get_running_loop().time()

    @property
    def busy_s(self) -> float:
        """How long whoever waits here has been at work since it was woken; 0 while it waits."""
        if self._woke_mono is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._woke_mono

    def take(self) -> frozenset[str]:
        """The reasons so far; forgets them."""
        reasons = frozenset(self._reasons)
        self._reasons.clear()
        self._event.clear()
        return reasons


@dataclass(slots=True)
class Request:
    """Somebody waits for a verdict. `to` is None for a look, else the set to go back to (\"\": the one before)."""

    force: bool
    trigger: str
    by: str
    future: asyncio.Future[ReloadResult]
    to: str | None = None
