"""The text of the runner's allow list. What its patterns cover is told in `core.allow`."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from appliance.config.characters import split_reviewed
from appliance.core.allow import WILDCARDS

_MARKS = ("@user", "@directory", "@variable")


class RunnerRules(NamedTuple):
    """What a runner runs, and what it lets a command be given beside its arguments."""

    commands: tuple[tuple[str, ...], ...]
    users: frozenset[str] = frozenset()
    directories: tuple[str, ...] = ()
    variables: frozenset[str] = frozenset()


def parse_rules(text: str) -> RunnerRules:
    """One command a line, in words as a shell reads them; ``#`` begins a comment. Nothing is expanded.

    Lines that begin with ``@user``, ``@directory`` or ``@variable`` list, in the words that follow, what a command may be
    run with: users, patterns of directories as in `allow_paths`, names of variables.

    Raises:
        ValueError: a line cannot be read, looks other than it is read, or would allow any program; the text names the line.
    """
    patterns = []
    given: dict[str, list[str]] = {mark: [] for mark in _MARKS}
    for number, line in enumerate(split_reviewed(text), start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ValueError(f"line {number}: {str(error).lower()}") from None
        if not words:
            continue
        if words[0].startswith("@"):
            if words[0] not in given or len(words) < 2:
                raise ValueError(f"line {number}: {', '.join(_MARKS)} and what is allowed")
            given[words[0]] += words[1:]
            continue
        if not words[0] or WILDCARDS & set(words[0]):
            raise ValueError(f"line {number}: the program must be written out, without wildcards")
        patterns.append(tuple(words))
    for directory in given["@directory"]:
        if not directory.startswith("/") or ".." in directory.split("/"):
            raise ValueError(f"@directory {directory}: no absolute path without `..`")
    return RunnerRules(
        tuple(patterns),
        frozenset(given["@user"]),
        tuple(given["@directory"]),
        frozenset(given["@variable"]),
    )
