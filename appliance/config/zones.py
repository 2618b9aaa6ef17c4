"""The time zones that this machine knows, from its own database or from the package `tzdata`."""

from __future__ import annotations

import zoneinfo
from functools import cache

from appliance.core.fragments import ZoneTable


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
