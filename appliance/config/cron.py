"""Whether a text is a cron expression; the library answers, and nothing of it leaves this file."""

from __future__ import annotations

from datetime import UTC, datetime

from croniter import CroniterError, croniter

from appliance.core.schedule import SPELLED_OUT, spell_out

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
    try:
        croniter(written, _SOME_DAY).get_next(float)
    except (CroniterError, ValueError, KeyError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else "not understood"
        return reason.replace(text, "it")
    return None
