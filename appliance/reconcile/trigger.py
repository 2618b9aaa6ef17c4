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

    def answer(self, verdict: ReloadResult) -> None:
        """Tell who waits, if he still does."""
        if not self.future.done():
            self.future.set_result(verdict)

    def fail(self, error: Exception) -> None:
        """Likewise, that there is no verdict."""
        if not self.future.done():
            self.future.set_exception(error)


class Requests:
    """Who waits for a verdict: of the next look, or of a way back, one after the other."""

    def __init__(self) -> None:
        self.rollbacks: list[Request] = []
        self._looks: list[Request] = []
        self._in_hand: list[Request] = []

    def add(self, request: Request) -> asyncio.Future[ReloadResult]:
        """Somebody asks; the verdict is in what is returned."""
        (self._looks if request.to is None else self.rollbacks).append(request)
        return request.future

    def take_looks(self) -> list[Request]:
        """All that one look answers."""
        self._in_hand, self._looks = self._looks, []
        return self._in_hand

    def take_rollback(self) -> Request:
        """The next way back."""
        self._in_hand = [self.rollbacks.pop(0)]
        return self._in_hand[0]

    def turn_away(self, error: Exception) -> None:
        """Nobody gets a verdict any more; a look that was cut off has left those who wait for it in hand."""
        for request in (*self._in_hand, *self._looks, *self.rollbacks):
            request.fail(error)
        self._looks.clear()
        self.rollbacks.clear()


RETRY_FIRST_S, RETRY_MAX_S = 2.0, 30.0
RETRY_SHARE = 20.0
"""Trying again takes at most this part of the time."""


class Retry:
    """When a set is tried again that something outside of the files refused: it stays desired, at growing intervals."""

    def __init__(self) -> None:
        self.due_mono: float | None = None
        self._wait_s = RETRY_FIRST_S

    def plan(self, verdict: ReloadResult, now_mono: float) -> None:
        """After a verdict."""
        # another set, or another look at it by hand: patience begins anew
        if not verdict.may_pass_later or verdict.trigger != "retry":
            self._wait_s = RETRY_FIRST_S
        if not verdict.may_pass_later:
            self.due_mono = None
            return
        self.due_mono = now_mono + max(self._wait_s, RETRY_SHARE * verdict.duration_s)
        self._wait_s = min(RETRY_MAX_S, self._wait_s * 2)
