"""Plots of characters: bars that lie, and columns over time. Pure; plain ASCII where the terminal has no blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

_LYING = " ▏▎▍▌▋▊▉█"
_STANDING = " ▁▂▃▄▅▆▇█"
EIGHTHS = 8


def draw_bar(share: float, width: int, *, has_blocks: bool = True) -> str:
    """A bar over `share` of `width` characters; what is more than nothing shows."""
    share = min(max(share, 0.0), 1.0)
    if not has_blocks:
        return "#" * max(math.ceil(share * width - 0.5), 1 if share > 0 else 0)
    eighths = max(round(share * width * EIGHTHS), 1 if share > 0 else 0)
    return "█" * (eighths // EIGHTHS) + _LYING[eighths % EIGHTHS].strip()


def draw_columns(
    series: Sequence[Sequence[float]], width: int, height: int, *, has_blocks: bool = True
) -> list[str]:
    """Lines of equal width, the highest first; the series stand side by side with a blank between them.

    Each value is as many columns as there is room for, or a share of one. The scale begins at zero and
    ends at the largest value drawn.
    """
    room = (width - len(series) + 1) // max(len(series), 1)
    longest = max(map(len, series), default=0)
    wide = max(1, room // max(longest, 1))
    drawn = [[value for value in squeeze(values, room) for _ in range(wide)] for values in series]
    top = max((value for values in drawn for value in values), default=0.0) or 1.0
    lines = []
    for row in reversed(range(height)):
        parts = [
            "".join(_cell(value / top * height - row, has_blocks=has_blocks) for value in values)
            for values in drawn
        ]
        lines.append(" ".join(parts))
    return lines


def _cell(above: float, *, has_blocks: bool) -> str:
    """One character of a column that reaches `above` this row's foot."""
    above = min(max(above, 0.0), 1.0)
    return _STANDING[round(above * EIGHTHS)] if has_blocks else ("#" if above >= 0.5 else " ")


def squeeze(values: Sequence[float], most: int) -> list[float]:
    """At most `most` values that stand for all: means of neighbours."""
    if most <= 0:
        return []
    if len(values) <= most:
        return list(values)
    edges = [at * len(values) // most for at in range(most + 1)]
    return [sum(values[first:last]) / (last - first) for first, last in pairwise(edges)]
