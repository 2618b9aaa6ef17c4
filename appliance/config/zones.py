"""The time zones that this machine knows, from its own database or from the package `tzdata`."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache

from croniter import CroniterError, croniter

from appliance.config.compiler.local_checks import ZoneTable
from appliance.core.schedule import SPELLED_OUT, spell_out


def has_zone(name: str) -> bool:
    """Whether `name` is a time zone; names that are no names at all, such as paths, are none."""
    try:
        zoneinfo.ZoneInfo(name)
    except (
        KeyError,
        ValueError,
        OSError,
    ):  # NB: a directory of the database, or a text too long for a path
        return False
    return True


@cache
def list_zones() -> tuple[str, ...]:
    """Every name, in order."""
    return tuple(sorted(zoneinfo.available_timezones()))


ZONES = ZoneTable(has_zone, list_zones)


# Whether a text is a cron expression; the library answers, and nothing of it leaves this file.

_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_FIELDS = 5


def find_cron_error(text: str) -> str | None:
    """Why `text` is no cron expression that ever comes due; None if it is one."""
    written = spell_out(text)
    parts = written.split()
    if written.startswith("@"):
        return f"none of {', '.join(sorted(SPELLED_OUT))}"
    if len(parts) != _FIELDS:
        return f"{len(parts)} fields instead of {_FIELDS}"
    if any(part[0] in "hHrR" for part in parts):  # the library would throw dice, anew for each look
        return "times by chance are not supported"
    if _comes_due(parts):
        return None
    for index, (name, bounds) in enumerate(_FIELD_WORDS):
        alone = ["*"] * _FIELDS
        alone[index] = parts[index]
        if not _comes_due(alone):
            return f"its {name} ({bounds}) is wrong"  # the text itself may be a secret
    return "it never comes due"  # each field is one, and there is no such day


_FIELD_WORDS = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12, jan to dec"),
    ("day of the week", "0 to 7, sun to sat"),
)


def _comes_due(parts: Sequence[str]) -> bool:
    try:
        croniter(" ".join(parts), _SOME_DAY).get_next(float)
    except (CroniterError, ValueError, KeyError, AttributeError, IndexError):
        return False
    return True
