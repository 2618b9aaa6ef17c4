"""Which commands a subscriber may run, and which files it may touch, as pure questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

ANY_ONE = "*"
ANY_REST = "**"
WILDCARDS = frozenset("*?[")
_FIRST_OR_LAST = re.compile(r"^([^*?[]*).*?([^*?\]]*)$", re.DOTALL)


def is_command_allowed(argv: Sequence[str], patterns: Sequence[Sequence[str]] | None) -> bool:
    """Whether one of `patterns` covers `argv`; None covers everything.

    The program (first element) must be written exactly as in the pattern: a wildcard there would be "any command" in
    disguise, which has to be said as such. Every further element stands for one argument and may hold the shell's
    wildcards (``*``, ``?``, ``[…]``). One at the beginning of an argument never stands for an option: ``systemctl
    status *`` does not mean ``systemctl status --host=elsewhere``. ``*`` alone covers one argument, whatever paths it
    holds; as a part of an argument a wildcard covers a part of one name, and never ``..``: ``rm /var/log/app/*`` does
    not mean what is at ``/var/log/app/../..``. A last ``**`` covers any rest, none and options included.
    """
    if patterns is None:
        return True
    return any(_matches(argv, pattern) for pattern in patterns)


def _matches(argv: Sequence[str], pattern: Sequence[str]) -> bool:
    if not argv or not pattern or argv[0] != pattern[0]:
        return False
    wanted, given = pattern[1:], argv[1:]
    if wanted and wanted[-1] == ANY_REST:
        wanted = wanted[:-1]
        given = given[: len(wanted)]
    return len(given) == len(wanted) and all(map(_covers_argument, given, wanted))


def _covers_argument(given: str, wanted: str) -> bool:
    if given == wanted:
        return True
    if given.startswith("-") and wanted[:1] in WILDCARDS:
        return False
    if wanted == ANY_ONE:
        return True
    given_names, wanted_names = given.split("/"), wanted.split("/")
    return len(given_names) == len(wanted_names) and all(
        map(_covers_name, given_names, wanted_names)
    )


def _covers_name(given: str, wanted: str) -> bool:
    if given == wanted:
        return True
    return (
        given not in ("", ".", "..") and fnmatchcase(given, wanted) and not _leads_up(given, wanted)
    )


def _leads_up(given: str, wanted: str) -> bool:
    """Whether the wildcards stand for ``.`` or ``..`` behind something like ``--directory=``."""
    found = _FIRST_OR_LAST.fullmatch(wanted)
    assert found is not None
    before, behind = found.groups()
    if given[len(before) : len(given) - len(behind)] in (".", ".."):
        return True
    # nor may dots of the pattern become such a name by a wildcard that stands for nothing
    return any(name in (".", "..") for name in given.split("=")[1:])


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
