"""The source line beside a problem, with anything that could be a secret blotted out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from appliance.core.escape import escape_line
from appliance.core.problems import Problem

MAX_EXCERPT = 2_000
"""A line that is longer holds something else than a config; the command line crops further."""
_SECRET_PATHS = ("broker.auth", "admin.token", "inputs.tcp.token", "inputs.http.token")
_SECRET_WORDS = re.compile(
    r"(pass(?:word|wd)?|secret|token|seed|credentials|nkey)[\"']?\s*[:=]\s*"
    r"(?!\{\s*(?:file|env|credential)\s*:\s*[\"']?[\w./~-]+[\"']?\s*\})"
    r"(?P<value>\S.*)",
    re.IGNORECASE,
)
"""A word for a secret, and what follows it unless that is a well-formed reference."""
_URL_USER = re.compile(r"(?<=://)[^@/\s\"']+(?=@)")
_BLOT = "********"


def add_excerpts(problems: Sequence[Problem], files: Mapping[str, str]) -> list[Problem]:
    """Give each problem the line it points at."""
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
    if problem.code == "E109" or problem.path.startswith(_SECRET_PATHS):
        start = problem.column - 1
        # A key is harmless and helps; what follows it is not shown.
        end = start + problem.length
        is_key = re.match(r"\s*:", line[end:]) is not None
        line = line[: end if is_key else start] + (": " if is_key else "") + _BLOT
    line = _SECRET_WORDS.sub(lambda match: match[0].replace(match["value"], _BLOT), line)
    line = _URL_USER.sub(lambda match: "*" * len(match[0]), line)
    return escape_line(line.replace("\t", " "))[:MAX_EXCERPT].rstrip()
