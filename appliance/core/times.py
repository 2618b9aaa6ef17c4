"""Times as the API, the log and the messages write them."""

from __future__ import annotations

import datetime

LAST_SHOWN_AT = 253_402_300_799.0
"""The end of the year 9999: what lies beyond (an expiry of a thousand years) is shown as that."""


def rfc3339(at: float) -> str:
    """Wall-clock seconds in UTC, to the millisecond, with zone."""
    at = min(max(at, 0.0), LAST_SHOWN_AT)
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds")
