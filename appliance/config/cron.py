"""Whether a text is a cron expression; the library answers, and nothing of it leaves this file."""

from __future__ import annotations

from datetime import UTC, datetime

from croniter import CroniterError, croniter

_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_FIELDS = 5


def find_cron_error(text: str) -> str | None:
    """Why `text` is no cron expression that ever comes due; None if it is one."""
    count = len(text.split())
    if count != _FIELDS:
        return f"{count} fields instead of {_FIELDS}"
    try:
        croniter(text, _SOME_DAY).get_next(float)
    except (CroniterError, ValueError, KeyError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else "not understood"
        return reason.replace(text, "it")
    return None
