"""Tables of messages that are readable at 80 columns: ids and states whole, names shortened in their middle."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from appliance.cli.terminal import shorten_middle
from appliance.core.escape import escape_line
from appliance.core.times import say_ago, say_span

WIDE_COLUMNS = 120
"""From here on a table has room for everything."""
MIN_NAME_COLUMNS = 8
MIN_WHY_COLUMNS = 24
GAP_COLUMNS = 2


def say_age(age_s: float | UnsetType, since: str | None) -> str:
    """How old it is by the daemon's own clock; else by the time it was noted, which a clock set back may make wrong."""
    if age_s is not UNSET:
        return say_span(age_s)
    return say_ago(since, time.time()).removesuffix(" ago")


def fit_names(
    rows: Sequence[Sequence[str]], width: int, *, names: tuple[int, int]
) -> list[list[str]]:
    """Rows for a terminal of `width` columns: `names` tells which two columns are shortened in their middle so that
    the last one, which folds, keeps `MIN_WHY_COLUMNS`.
    """
    escaped = [[escape_line(cell) for cell in row] for row in rows]
    others = [
        max((len(row[index]) for row in escaped), default=0)
        for index in range(len(escaped[0]) - 1)
        if index not in names
    ]
    gaps = GAP_COLUMNS * (len(escaped[0]) - 1)
    left = width - sum(others) - gaps - MIN_WHY_COLUMNS
    wanted = [max(len(row[index]) for row in escaped) for index in names]
    widths = dict(zip(names, share_columns(wanted, left, MIN_NAME_COLUMNS), strict=True))
    return [
        [
            shorten_middle(cell, widths[index]) if index in widths else cell
            for index, cell in enumerate(row)
        ]
        for row in escaped
    ]


def share_columns(wanted: Sequence[int], columns: int, least: int) -> list[int]:
    """Widths for columns that want more together than there is: the widest give way first, none below `least`."""
    widths = list(wanted)
    while sum(widths) > columns and max(widths) > least:
        widths[widths.index(max(widths))] -= 1
    return widths
