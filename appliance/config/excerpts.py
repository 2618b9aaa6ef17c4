"""The source line beside a problem."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from appliance.config.secrets import BLOT
from appliance.core.escape import escape_line
from appliance.core.problems import Problem

MAX_EXCERPT = 2_000
"""A line that is longer holds something else than a config; the command line crops further."""


def add_excerpts(problems: Sequence[Problem], files: Mapping[str, str]) -> list[Problem]:
    """Give each problem the line it points at; the files are those that may be shown (`secrets`)."""
    lines: dict[str, list[str]] = {}
    shown = []
    for problem in problems:
        if problem.line < 1 or problem.file not in files:
            shown.append(problem)
            continue
        if problem.file not in lines:
            # NB: not splitlines(): YAML and editors do not count form feeds and the like as line
            # ends.
            lines[problem.file] = re.split(
                r"\r\n|\r|\n", files[problem.file].removeprefix("\ufeff")
            )
        all_lines = lines[problem.file]
        line = all_lines[problem.line - 1] if problem.line <= len(all_lines) else ""
        shown.append(replace(problem, excerpt=_make_excerpt(problem, line)))
    return shown


def _make_excerpt(problem: Problem, line: str) -> str:
    if problem.code == "E109":
        start = problem.column - 1
        # A key is harmless and helps; what follows it is not shown.
        end = start + problem.length
        is_key = re.match(r"\s*:", line[end:]) is not None
        line = line[: end if is_key else start] + (": " if is_key else "") + BLOT
    return escape_line(line.replace("\t", " "))[:MAX_EXCERPT].rstrip()
