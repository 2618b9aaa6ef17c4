"""How a fact is told: one log line, held back in a storm, and one event."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from appliance.core.names import WorkerKey
from appliance.telemetry.events import EventHub
from appliance.telemetry.logs import ROOT
from appliance.telemetry.stats import TelemetryCounts

# Holds back log lines that a storm would repeat, and tells afterwards how many there were.

BURST = 5
WINDOW_S = 30.0
MAX_NAMES = 1_000
"""Storms followed at once. Beyond it the oldest is forgotten, after its count was told."""


@dataclass(slots=True)
class _Window:
    started_mono: float
    told: int = 0
    suppressed: int = 0


class LogRateLimit:
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


MAX_LIFE_LINES = 200
"""Starts (stops, updates, swaps) of workers told one by one within half a minute; the rest is a number."""

QUIET_KINDS = frozenset({"worker_started", "worker_updated", "worker_swapped", "worker_stopped"})
"""Facts whose lines are for those who debug; so is the number of those held back."""


class EventLog:
    """Owns the ways out. Used on the event loop only."""

    def __init__(
        self,
        events: EventHub,
        logger: logging.Logger | None = None,
        *,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._logger = logger or logging.getLogger(ROOT)
        self._wall = wall
        self.counts = TelemetryCounts()
        self._storms = LogRateLimit(self._suppressed_told, mono=mono)

    def _log(self, level: int, sentence: str, fields: Mapping[str, object]) -> None:
        self._logger.log(level, sentence, extra={"fields": fields})

    def _worker(
        self,
        level: int,
        sentence: str,
        kind: str,
        key: WorkerKey,
        fields: Mapping[str, object] | None = None,
        *,
        storm: str | None = None,
    ) -> None:
        """Log and emit a fact of one worker; with `storm` the line is held back when repeated."""
        told = dict(fields or {})
        emit = self._events.emit
        if storm is not None:
            self._held_back(storm, level, sentence, key, told)
        elif level > logging.INFO or self._storms.allows(f"{kind} *", MAX_LIFE_LINES):
            self._log(level, sentence, {"worker": key.name, "node": key.node, **told})
        else:
            # thousands of starts would push all else out of the ring
            emit = self._events.emit_frequent
        emit(kind, node=key.node, worker=key.name, **told)

    def _held_back(
        self,
        storm: str,
        level: int,
        sentence: str,
        key: WorkerKey,
        fields: Mapping[str, object],
        burst: int | None = None,
    ) -> None:
        name = key.name
        if self._storms.allows(f"{storm} {name}", burst):
            self._log(level, sentence, {"worker": name, "node": key.node, **fields})

    def _suppressed_told(self, name: str, count: int) -> None:
        self.counts.lines_suppressed += count
        kind, _, worker = name.partition(" ")
        fields = {"worker": worker, "kind": kind, "count": count}
        level = logging.DEBUG if kind in QUIET_KINDS else logging.WARNING
        self._log(level, "similar lines suppressed", fields)
