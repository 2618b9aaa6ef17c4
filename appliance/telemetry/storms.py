"""Holds back log lines that a storm would repeat, and tells afterwards how many there were."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

BURST = 5
WINDOW_S = 30.0
MAX_NAMES = 1_000
"""Storms followed at once. Beyond it the oldest is forgotten, after its count was told."""


@dataclass(slots=True)
class _Window:
    started_mono: float
    told: int = 0
    suppressed: int = 0


class StormGuard:
    """Lets `burst` lines per name and window through.

    The count of the others is told when the window ends, by a timer if an event loop runs, else
    with the next line of that name.
    """

    def __init__(
        self,
        tell: Callable[[str, int], None],
        *,
        mono: Callable[[], float] = time.monotonic,
        burst: int = BURST,
        window_s: float = WINDOW_S,
    ) -> None:
        self._tell = tell
        self._mono = mono
        self._burst = burst
        self._window_s = window_s
        self._windows: dict[str, _Window] = {}
        self._timer: asyncio.TimerHandle | None = None

    def allows(self, name: str, burst: int | None = None) -> bool:
        """Whether a line of this name may be written now; `burst` where the usual number does not fit."""
        now_mono = self._mono()
        window = self._windows.get(name)
        if window is not None and now_mono - window.started_mono >= self._window_s:
            self._end(name)
            window = None
        if window is None:
            if len(self._windows) >= MAX_NAMES:
                self._end(next(iter(self._windows)))
            window = self._windows[name] = _Window(now_mono)
        if window.told < (self._burst if burst is None else burst):
            window.told += 1
            return True
        window.suppressed += 1
        if self._timer is None:
            self._schedule()
        return False

    def flush(self) -> None:
        """Tell the counts of every window that is over."""
        self._timer = None
        now_mono = self._mono()
        for name, window in list(self._windows.items()):
            if now_mono - window.started_mono >= self._window_s:
                self._end(name)
        if any(window.suppressed for window in self._windows.values()):
            self._schedule()

    def _end(self, name: str) -> None:
        suppressed = self._windows.pop(name).suppressed
        if suppressed:
            self._tell(name, suppressed)

    def _schedule(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._timer = loop.call_later(self._window_s, self.flush)
