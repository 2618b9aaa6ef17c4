"""Counts that belong to no worker, and what a drain counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from appliance.telemetry.stats import LightHistogram

ENDS = ("refused", "failed", "expired")
"""How a message ends that was not delivered."""
RELOAD_RESULTS = ("applied", "unchanged", "refused", "reverted")


class DrainCounts(Protocol):
    """What a worker's stop did with the work in hand."""

    @property
    def worker(self) -> str: ...

    @property
    def finished(self) -> int: ...

    @property
    def handed_back(self) -> int: ...

    @property
    def abandoned(self) -> int: ...


@dataclass(slots=True)
class TelemetryCounts:
    """Counts that belong to no worker. Read by the metrics."""

    reloads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RELOAD_RESULTS, 0))
    reload_duration: LightHistogram = field(default_factory=LightHistogram)
    last_reload_successful: bool = True
    last_reload_success_at: float = 0.0
    last_attempt_at: float = 0.0
    messages_accepted: int = 0
    dead_letters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    """By how they ended."""
    drain_abandoned: int = 0
    error_reports_suppressed: int = 0
    error_reports_lost: int = 0
    clock_jumps: int = 0
    lines_suppressed: int = 0
