"""The runner's allow list: its text, and whether it covers a command, as pure questions.

Stricter than `allow_commands` in one point, since whoever asks may have been taken over: a wildcard for one argument
never stands for an option. ``systemctl status *`` must not come to mean ``systemctl status --host=elsewhere``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase

from appliance.core.allow import ANY_REST

WILDCARDS = frozenset("*?[")


def parse_allow_list(text: str) -> tuple[tuple[str, ...], ...]:
    """One command a line, in words as a shell reads them; ``#`` begins a comment. Nothing is expanded.

    Raises:
        ValueError: a line cannot be read, or would allow any program; the text names the line.
    """
    patterns = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ValueError(f"line {number}: {str(error).lower()}") from None
        if not words:
            continue
        if not words[0] or WILDCARDS & set(words[0]):
            raise ValueError(f"line {number}: the program must be written out, without wildcards")
        patterns.append(tuple(words))
    return tuple(patterns)


def is_allowed(argv: Sequence[str], patterns: Sequence[Sequence[str]]) -> bool:
    """Whether one of `patterns` covers `argv`; a last ``**`` covers any rest, options included."""
    return any(_matches(argv, pattern) for pattern in patterns)


def _matches(argv: Sequence[str], pattern: Sequence[str]) -> bool:
    if not argv or not pattern or argv[0] != pattern[0]:
        return False
    wanted, given = pattern[1:], argv[1:]
    if wanted and wanted[-1] == ANY_REST:
        wanted = wanted[:-1]
        given = given[: len(wanted)]
    return len(given) == len(wanted) and all(map(_covers, given, wanted))


def _covers(given: str, wanted: str) -> bool:
    is_surprise = given.startswith("-") and wanted[:1] in WILDCARDS
    return not is_surprise and fnmatchcase(given, wanted)
