"""Which commands a subscriber may run, and which files it may touch, as pure questions."""

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


def is_path_allowed(path: str, patterns: Sequence[str] | None) -> bool:
    """Whether one of `patterns` covers the absolute `path`; None covers everything.

    ``*`` and ``?`` stand for anything within one name, a last ``**`` for everything below. The path
    must be one without ``.``, ``..`` and links: whoever asks has resolved it before.
    """
    if patterns is None:
        return True
    names = path.split("/")
    return any(_covers(pattern.split("/"), names) for pattern in patterns)


def _covers(pattern: Sequence[str], names: Sequence[str]) -> bool:
    if pattern[-1] == ANY_REST:
        pattern = pattern[:-1]
        if len(names) <= len(pattern):
            return False
        names = names[: len(pattern)]
    return len(names) == len(pattern) and all(
        fnmatchcase(name, part.replace("[", "[[]"))
        for name, part in zip(names, pattern, strict=True)
    )
