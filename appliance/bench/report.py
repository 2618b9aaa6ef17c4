"""What a benchmark is asked for and what comes of it, as values."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.bench.sides import BenchOrder

MAX_LATENCIES = 1_000_000
"""Of more the last ones count."""
DEFAULT_RATE = 1_000.0
BEHIND_SHARE = 0.97
"""Below this share of the asked rate the load was not what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """The command line. None means: as the config says."""

    paths: tuple[str, ...]
    node: str | None = None
    state_dir: str | None = None
    default_state_dir: str = ""
    duration_s: float = 2.0
    count: int | None = None
    """Messages of a round, instead of a time."""
    rounds: int = 3
    size_bytes: int = 256
    rate: float | None = None
    """Of the latency, which is all that is measured then; None: everything, it at `DEFAULT_RATE`."""
    sends: dict[str, object] = field(default_factory=dict)
    """Instead of the config's: `window`, `serialization`, `compression`."""


@dataclass(slots=True, kw_only=True)
class Summary:
    """One thing to measure, and its rounds. Without `asked` as fast as `window` allows, else messages come due at it."""

    name: str
    """A word of the JSON output: `window`, `single` (a window of one) or `paced`."""
    window: int
    asked: float | None = None
    rates: list[float] = field(default_factory=list)
    """Messages per second of each round."""
    messages: int = 0
    """In all rounds, without the warm-ups."""
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_LATENCIES))
    """At an asked rate: from when a message was due to its acknowledgement."""

    def __str__(self) -> str:
        return f"window {self.window}" if self.asked is None else f"{self.asked:,g} messages/s"

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rates)

    @property
    def noise(self) -> float:
        """Distance of the extremes as a share of the median: what the machine alone may have made of a difference."""
        return (max(self.rates) - min(self.rates)) / self.rate if self.rate else 0.0

    @property
    def is_behind(self) -> bool:
        """The asked rate was not reached: latencies are those of an overload."""
        return self.asked is not None and self.rate < self.asked * BEHIND_SHARE

    def latency_s(self, share: float) -> float:
        """What so many of all did not exceed; there must be some."""
        ordered = sorted(self.latencies_s)
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """Everything a benchmark found out; `payload_bytes` are those of a message, without its headers."""

    options: BenchOptions
    order: BenchOrder
    server: str
    state_dir: str
    payload_bytes: int
    summaries: list[Summary] = field(default_factory=list)
