"""Durations as Go writes them (``250ms``, ``1m30s``, ``1.5h``), or a plain number of seconds."""

from __future__ import annotations

import math
import re

UNIT_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
DURATION_PATTERN = r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|μs|ms|s|m|h))+"
"""The text form; the JSON Schema repeats it. Days are missing on purpose, as in Go: a day has no
fixed length.
"""

_DURATION = re.compile(DURATION_PATTERN)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|μs|ms|s|m|h)")
MAX_DURATION_TEXT = 64


def parse_duration(value: str | float) -> float:
    """Seconds.

    Raises:
        ValueError: not a duration, negative, or not finite; the text says which.
    """
    if isinstance(value, bool):
        raise ValueError("a truth value is no duration")
    if isinstance(value, str):
        if len(value) > MAX_DURATION_TEXT or _DURATION.fullmatch(value) is None:
            raise ValueError(
                "a duration is written like 250ms, 5s or 1m30s, or as a number of seconds"
            )
        seconds = sum(float(number) * UNIT_SECONDS[unit] for number, unit in _PART.findall(value))
    else:
        seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError("a duration must be finite")
    if seconds < 0:
        raise ValueError("a duration must not be negative")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back to the same number of seconds, as far as
    it is short.
    """
    if seconds == 0:
        return "0s"
    if seconds >= 60 and seconds == int(seconds):
        hours, rest = divmod(int(seconds), 3600)
        minutes, left = divmod(rest, 60)
        parts = ((hours, "h"), (minutes, "m"), (left, "s"))
        return "".join(f"{number}{unit}" for number, unit in parts if number)
    for unit in ("s", "ms", "us"):
        text = f"{seconds / UNIT_SECONDS[unit]:.6g}"
        if "e" not in text and float(text) * UNIT_SECONDS[unit] >= UNIT_SECONDS[unit] * 0.999:
            return f"{text}{unit}"
    return f"{seconds / 1e-9:.6f}".rstrip("0").rstrip(".") + "ns"
