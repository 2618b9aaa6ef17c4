"""A problem of the configuration as a value: stable code, place, words. Formatting lives in the command line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Errors refuse a config; warnings are shown and change nothing."""

    ERROR = "error"
    WARNING = "warning"

    @classmethod
    def _missing_(cls, _value: object) -> Severity:
        """A word of a later version: what is not known to be harmless is not."""
        return cls.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding.

    `code` is stable (``E…`` errors, ``W…`` warnings; `appliance explain CODE` tells its story). `line` and
    `column` count from 1; 0 where a problem has no place. `path` is the dotted key path. `excerpt` is the
    source line the place names (secrets never stand in it: they are references), `length` the number of
    columns to underline.
    """

    code: str
    severity: Severity = Severity.ERROR
    file: str = ""
    line: int = 0
    column: int = 0
    length: int = 1
    path: str = ""
    message: str
    hint: str = ""
    excerpt: str = ""


def say_more_places(times: int) -> str:
    """``, here and in 2 more places``: of one mistake that stands in so many."""
    return f", here and in {times - 1} more place{'s' if times > 2 else ''}" if times > 1 else ""
