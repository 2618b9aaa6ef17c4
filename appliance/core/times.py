"""Times: as the API, the log, the files and the messages write them, and as people say them."""

from __future__ import annotations

import datetime

LAST_SHOWN_AT = 253_402_300_799.0
"""The end of the year 9999: what lies beyond (an expiry of a thousand years) is shown as that."""

EXPIRES_SOON_S = 14 * 86_400.0
"""How long before its end a certificate or login is told of: two weeks, in which somebody is at work."""


def rfc3339(at: float) -> str:
    """Wall-clock seconds in UTC, to the millisecond, with zone."""
    at = min(max(at, 0.0), LAST_SHOWN_AT)
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds")


def rfc3339_utc(at: float) -> str:
    """As `rfc3339`, to the second and with a ``Z``: lines of different nodes sort by their beginnings."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def log_stamp(at: float) -> str:
    """As `rfc3339_utc`, to the millisecond."""
    whole = datetime.datetime.fromtimestamp(int(at), datetime.UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{int(at * 1000) % 1000:03d}Z"


def clock_time(at: float) -> str:
    """The time of the day in this machine's zone, for a sentence."""
    return datetime.datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")


def read_time(text: object) -> float | None:
    """Wall-clock seconds of an RFC 3339 time (or of a plain number); None when it is none."""
    if isinstance(text, int | float):
        return float(text) or None
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def read_utc(text: str) -> float | None:
    """As `read_time`; a time without a zone is one of UTC, and means the same on every machine."""
    try:
        at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=datetime.UTC)).timestamp()


def say_span(seconds: float) -> str:
    """``3 s``, ``5 min``, ``2 h``, ``4 d``: two figures are enough to judge."""
    for limit, size, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def say_short(seconds: float) -> str:
    """A duration that may be far below a second."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else say_span(seconds)


def say_ago(text: object, now: float) -> str:
    """How long a time is past; a dash when there was none."""
    at = read_time(text)
    return "–" if at is None else f"{say_span(now - at)} ago"


def say_moment(text: object) -> str:
    """A time for a list, in the reader's zone."""
    at = read_time(text)
    if at is None:
        return "–"
    return datetime.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def say_again(seconds: object) -> str:
    """When the next try is; "" where no time says it, but what becomes of others."""
    if not isinstance(seconds, int | float) or seconds <= 0:
        return ""
    return f", again in {say_short(float(seconds))}"
