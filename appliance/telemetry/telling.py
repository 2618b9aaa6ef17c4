"""How a fact is told: one log line, held back in a storm, and one event."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from appliance.core.names import WorkerKey
from appliance.telemetry.counts import TelemetryCounts
from appliance.telemetry.events import EventHub
from appliance.telemetry.logs import ROOT
from appliance.telemetry.storms import StormGuard

MAX_LIFE_LINES = 200
"""Starts (stops, updates, swaps) of workers told one by one within half a minute; the rest is a number."""

QUIET_KINDS = frozenset({"worker_started", "worker_updated", "worker_swapped", "worker_stopped"})
"""Facts whose lines are for those who debug; so is the number of those held back."""


class Teller:
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
        self._storms = StormGuard(self._suppressed_told, mono=mono)

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
