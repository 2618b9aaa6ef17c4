"""The runner's allow list: its text, and whether it covers a command, as pure questions.

Stricter than `allow_commands`, since whoever asks may have been taken over: a wildcard at the beginning of an argument
never stands for an option, and one that is a part of an argument stays within one name of a path. ``systemctl status *``
must not come to mean ``systemctl status --host=elsewhere``, nor ``rm /var/log/app/*`` what is at ``/var/log/app/../..``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase

from appliance.core.allow import ANY_REST

ANY_ONE = "*"
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
    """Whether one of `patterns` covers `argv`.

    ``*`` alone covers one argument, whatever paths it holds; within an argument the wildcards cover a part of one
    name, and neither nothing nor ``.`` nor ``..`` for a whole one. A last ``**`` covers any rest, options included.
    """
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
    if given.startswith("-") and wanted[:1] in WILDCARDS:
        return False
    if wanted == ANY_ONE:
        return True
    given_names, wanted_names = given.split("/"), wanted.split("/")
    return len(given_names) == len(wanted_names) and all(
        map(_covers_name, given_names, wanted_names)
    )


def _covers_name(given: str, wanted: str) -> bool:
    leads_elsewhere = given in ("", ".", "..")
    return given == wanted or (not leads_elsewhere and fnmatchcase(given, wanted))
