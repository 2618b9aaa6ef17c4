"""What one worker counts about itself, and what belongs to none: plain integers and light histograms.

Owned by the worker, written on the event loop and only read by others, so there are no locks. A
restarted worker begins a new set; what the old one counted is kept by `telemetry.metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Protocol

BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds in seconds: from a fast disk to a slow command."""


SUBSCRIBER_COUNTERS = ("handled", "failed", "refused", "repeats", "dropped", "turned_away")
PUBLISHER_COUNTERS = ("sent", "acked", "missed", "dead", "foreign")


class LightHistogram:
    """A histogram over fixed bounds; an observation is one bisection and three additions."""

    __slots__ = ("_counts", "count", "sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.sum = 0.0
        self.count = 0

    def observe(self, seconds: float) -> None:
        """Count one duration. A negative one (a clock that was set back) counts as zero."""
        if seconds < 0.0:
            seconds = 0.0
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum += seconds
        self.count += 1

    def buckets(self) -> list[tuple[str, int]]:
        """Upper bound as text and cumulative count, ``+Inf`` last."""
        cumulated = 0
        buckets = []
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self._counts, strict=True):
            cumulated += count
            buckets.append((bound, cumulated))
        return buckets

    def as_json(self) -> dict[str, object]:
        """The same for programs: upper bound (None beyond the last one) and cumulative count."""
        bounds: tuple[float | None, ...] = (*BOUNDS_S, None)
        counts = [count for _, count in self.buckets()]
        return {
            "count": self.count,
            "sum": self.sum,
            "buckets": list(zip(bounds, counts, strict=True)),
        }

    def add(self, other: LightHistogram) -> None:
        """Add everything that `other` observed."""
        if not other.count:
            return
        self._counts = [
            mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)
        ]
        self.sum += other.sum
        self.count += other.count


class WorkerStats:
    """Counters of one worker. A subscriber uses the first group, a publisher the second."""

    __slots__ = (
        "acked", "dead", "delivery", "dropped", "failed", "foreign", "handled", "handler", "in_flight",
        "missed", "refused", "repeats", "restarts", "sent", "turned_away",
    )  # fmt: skip

    def __init__(self) -> None:
        self.handled = 0
        self.failed = 0
        self.refused = 0
        self.repeats = 0
        self.dropped = 0
        self.turned_away = 0
        """Messages for which there was no room, and whose senders were told when to ask again."""
        self.handler = LightHistogram()
        self.sent = 0
        self.acked = 0
        self.missed = 0
        """Attempts that got no acknowledgement."""
        self.dead = 0
        self.foreign = 0
        """Answers on its reply subjects that the node asked did not give."""
        self.delivery = LightHistogram()
        self.in_flight = 0
        self.restarts = 0

    def add(self, other: WorkerStats) -> None:
        """Add everything that `other` has counted; what it has in flight is no count."""
        for name in (*SUBSCRIBER_COUNTERS, *PUBLISHER_COUNTERS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.delivery.add(other.delivery)
        self.handler.add(other.handler)


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
