"""Latencies counted in buckets of equal ratio: any number of them in little memory, read back to within 2 %."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

GROWTH = 1.02
"""Ratio of a bucket's bounds, and so the bound on the error of a quantile."""
SMALLEST_S = 1e-6
"""Anything shorter counts as this: no clock here tells it apart."""

_LOG_GROWTH = math.log(GROWTH)


class Band(NamedTuple):
    """A part of a histogram for showing: so many from `lower_s` up to `upper_s`."""

    lower_s: float
    upper_s: float
    amount: int


class LatencyHistogram:
    """Grows by one small integer for each bucket in use; ten decades are 1,200 of them."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.sum_s = 0.0
        self.smallest_s = math.inf
        self.largest_s = 0.0
        for value in values:
            self.add(value)

    def add(self, seconds: float) -> None:
        """Count one latency."""
        seconds = max(seconds, SMALLEST_S)
        bucket = math.ceil(math.log(seconds / SMALLEST_S) / _LOG_GROWTH)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1
        self.sum_s += seconds
        self.smallest_s = min(self.smallest_s, seconds)
        self.largest_s = max(self.largest_s, seconds)

    def merge(self, other: LatencyHistogram) -> None:
        """Count everything that `other` counted."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += other.count
        self.sum_s += other.sum_s
        self.smallest_s = min(self.smallest_s, other.smallest_s)
        self.largest_s = max(self.largest_s, other.largest_s)

    def quantile(self, share: float) -> float:
        """The latency that `share` of all did not exceed, at most 2 % too high and never too low; NaN when empty."""
        if not self.count:
            return math.nan
        rank = min(max(math.ceil(share * self.count), 1), self.count)
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return min(max(_upper_s(bucket), self.smallest_s), self.largest_s)
        raise AssertionError("the buckets hold fewer than were counted")

    @property
    def mean_s(self) -> float:
        """NaN when empty."""
        return self.sum_s / self.count if self.count else math.nan

    def bands(self, most: int) -> list[Band]:
        """At most `most` neighbouring bands of equal ratio that hold everything; none when empty."""
        if not self._counts:
            return []
        first, last = min(self._counts), max(self._counts)
        step = math.ceil((last - first + 1) / most)
        counts = [0] * math.ceil((last - first + 1) / step)
        for bucket, count in self._counts.items():
            counts[(bucket - first) // step] += count
        return [
            Band(_upper_s(first + at * step - 1), _upper_s(first + (at + 1) * step - 1), count)
            for at, count in enumerate(counts)
        ]


def _upper_s(bucket: int) -> float:
    """NB: a value right on a bound may fall into the bucket above it; a bound is then 2 % too high, as promised."""
    return SMALLEST_S * GROWTH**bucket
