"""A meter for one round of a measurement: leaves the warm-up out, then counts for a time or up to a number."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.core.latency import LatencyHistogram

BIN_S = 0.1
"""Resolution of the rate over time."""
MAX_BINS = 36_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured: a time, or a number of messages. Exactly one of `measure_s` and `measure_count` is set."""

    warm_s: float = 0.0
    warm_count: int = 0
    measure_s: float | None = None
    measure_count: int | None = None


class Meter:
    """Fed with completions in the order of their time."""

    def __init__(self, extent: Extent, begun_at: float) -> None:
        self._extent = extent
        self._warm_left = extent.warm_count
        self._begun_at = begun_at
        self._last_at = begun_at
        by_time = extent.measure_s is not None
        self._from_at: float | None = begun_at + extent.warm_s if by_time else None
        self._until_at = begun_at + extent.warm_s + (extent.measure_s or 0.0) if by_time else None
        if not by_time and not extent.warm_count:
            self._from_at = begun_at
        self.latency = LatencyHistogram()
        self.count = 0
        self.bins: list[int] = []

    def add(self, at: float, latency_s: float, *, due_at: float | None = None) -> None:
        """One message was completed at `at`, after `latency_s`.

        With `due_at` its latency belongs to the time at which it was due: one that was due in the measured time and
        came back long after it must not be forgotten.
        """
        if self._until_at is not None:
            if self._is_within(at if due_at is None else due_at):
                self.latency.add(latency_s)
            if self._is_within(at):
                self._count(at)
        elif self._warm_left:
            self._warm_left -= 1
            if not self._warm_left:
                self._from_at = at
        elif self.count != self._extent.measure_count:
            self.latency.add(latency_s)
            self._count(at)

    def _is_within(self, at: float) -> bool:
        assert self._from_at is not None
        assert self._until_at is not None
        return self._from_at < at <= self._until_at

    def _count(self, at: float) -> None:
        assert self._from_at is not None
        self.count += 1
        self._last_at = at
        place = min(int((at - self._from_at) / BIN_S), MAX_BINS - 1)
        if place >= len(self.bins):
            self.bins.extend([0] * (place + 1 - len(self.bins)))
        self.bins[place] += 1

    def is_full(self, now: float) -> bool:
        """Whether nothing that comes is counted any more."""
        if self._until_at is not None:
            return now > self._until_at
        return self.count == self._extent.measure_count

    def share(self, now: float) -> float:
        """How much of the round is over, warm-up included."""
        extent = self._extent
        if self._until_at is not None:
            return min(1.0, (now - self._begun_at) / (self._until_at - self._begun_at))
        done = extent.warm_count - self._warm_left + self.count
        return done / (extent.warm_count + (extent.measure_count or 0))

    @property
    def elapsed_s(self) -> float:
        """What the count is divided by. In a round of a number that came all at once it begins with the round itself."""
        if self._until_at is not None:
            return self._extent.measure_s or 0.0
        since = self._last_at - (self._from_at if self._from_at is not None else self._last_at)
        return since if since > 0 else self._last_at - self._begun_at

    @property
    def rate(self) -> float:
        """Messages per second; 0 when none was counted."""
        return self.count / self.elapsed_s if self.count and self.elapsed_s > 0 else 0.0

    @property
    def rates(self) -> list[float]:
        """The rate over time, a value for each whole `BIN_S`."""
        whole = int(self.elapsed_s / BIN_S + 1e-9)
        counts = self.bins[:whole] + [0] * (whole - len(self.bins))
        return [count / BIN_S for count in counts]
