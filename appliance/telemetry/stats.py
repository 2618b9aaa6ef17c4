"""What one worker counts about itself, and what belongs to none: plain integers and light histograms.

Owned by the worker, written on the event loop and only read by others, so there are no locks. A
restarted worker begins a new set; what the old one counted is kept by `telemetry.metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

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

    def observe(self, seconds: float, count: int = 1) -> None:
        """Count one duration, or as many equal ones. A negative one (a clock that was set back) counts as zero."""
        if seconds < 0.0:
            seconds = 0.0
        self._counts[bisect_left(BOUNDS_S, seconds)] += count
        self.sum += seconds * count
        self.count += count

    def mean(self, default: float) -> float:
        """Seconds of one; `default` while there was none."""
        return self.sum / self.count if self.count else default

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


def _count(total: str = "", words: str = "") -> Any:
    """A count; one with a `total` is shown as the metric of that name, of the whole daemon, with these words.

    NB: it makes a field and no number; compiled, a function that says `int` has to return one.
    """
    return field(default=0, metadata={"total": (total, words)})


@dataclass(slots=True, eq=False)
class WorkerStats:
    """Counters of one worker. A subscriber uses the first group, a publisher the second."""

    handled: int = _count()
    failed: int = _count()
    refused: int = _count()
    repeats: int = _count()
    dropped: int = _count("messages_dropped", "Incoming messages dropped because too many waited.")
    turned_away: int = _count()
    """Messages for which there was no room, and whose senders were told when to ask again."""
    handler: LightHistogram = field(default_factory=LightHistogram)
    sent: int = _count()
    acked: int = _count()
    missed: int = _count("acks_missed", "Attempts that got no acknowledgement.")
    dead: int = _count("acks_failed", "Messages that became dead letters.")
    foreign: int = _count()
    """Answers on its reply subjects that the node asked did not give."""
    delivery: LightHistogram = field(default_factory=LightHistogram)
    in_flight: int = 0
    """No count, and so in no sum."""
    restarts: int = 0

    def add(self, other: WorkerStats) -> None:
        """Add everything that `other` has counted; what it has in flight is no count."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.delivery.add(other.delivery)
        self.handler.add(other.handler)


_SUMMED = tuple(item.name for item in fields(WorkerStats) if "total" in item.metadata)


ENDS = ("refused", "failed", "expired")
"""How a message ends that was not delivered."""
RELOAD_RESULTS = ("applied", "unchanged", "refused", "reverted")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What a stop did with the work in hand.

    `finished` ended within the deadline; `handed_back` is safe on disk (here or at the sender) and will be done
    later; `abandoned` was cut off and nobody will do it again.
    """

    worker: str
    finished: int = 0
    handed_back: int = 0
    abandoned: int = 0


@dataclass(slots=True)
class TelemetryCounts:
    """Counts that belong to no worker. Read by the metrics."""

    reloads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RELOAD_RESULTS, 0))
    reload_duration: LightHistogram = field(default_factory=LightHistogram)
    last_reload_successful: bool = True
    last_reload_success_at: float = 0.0
    last_attempt_at: float = 0.0
    messages_accepted: int = _count("messages_accepted", "Messages taken from callers onto disk.")
    dead_letters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    """By how they ended."""
    drain_abandoned: int = _count(
        "drain_abandoned", "Messages cut off for good when a worker stopped."
    )
    error_reports_suppressed: int = _count(
        "error_reports_suppressed", "Reports to errorCentral held back by the rate limit."
    )
    error_reports_lost: int = _count(
        "error_reports_lost",
        "Reports to errorCentral that could not be stored, or that nobody took in time.",
    )
    clock_jumps: int = _count("clock_jumps", "Times that the wall clock was set.")
    lines_suppressed: int = _count("log_lines_suppressed", "Log lines held back in a storm.")


def totals_of(counts: WorkerStats | TelemetryCounts) -> Iterator[tuple[str, str, int]]:
    """Each count that is a metric of the whole daemon: its name, its words and how many."""
    for item in fields(counts):
        name, words = item.metadata.get("total", ("", ""))
        if name:
            yield name, words, getattr(counts, item.name)
