"""Which commands a subscriber may run, as a pure question."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

ANY_REST = "**"


def is_command_allowed(argv: Sequence[str], patterns: Sequence[Sequence[str]] | None) -> bool:
    """Whether one of `patterns` covers `argv`; None covers everything.

    The program (first element) must be written exactly as in the pattern: a wildcard there would be
    "any command" in disguise, which has to be said as such. Every further element stands for one
    argument and may hold the shell's wildcards (``*``, ``?``, ``[…]``); a last ``**`` stands for
    any rest, none included.
    """
    if patterns is None:
        return True
    return any(_matches(argv, pattern) for pattern in patterns)


def _matches(argv: Sequence[str], pattern: Sequence[str]) -> bool:
    if not argv or not pattern or argv[0] != pattern[0]:
        return False
    wanted = pattern[1:]
    given = argv[1:]
    if wanted and wanted[-1] == ANY_REST:
        wanted = wanted[:-1]
        given = given[: len(wanted)]
    return len(given) == len(wanted) and all(map(fnmatchcase, given, wanted))
