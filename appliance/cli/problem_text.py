"""Problems of a config as text for people, as JSON, and as annotations of a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.cells import cell_len

from appliance.config.error_codes import name_of
from appliance.core.escape import escape_line
from appliance.core.problems import Problem, Severity

EXCERPT_COLUMNS = 96
_BEFORE = 48
"""Of a line that is cropped, so much stands before the place that is meant."""

_COLOURS = {Severity.ERROR: typer.colors.RED, Severity.WARNING: typer.colors.YELLOW}
_WORDS = {Severity.ERROR: "error", Severity.WARNING: "warn "}


def render_text(problems: Sequence[Problem], *, colour: bool) -> str:
    """Every problem with its place, its line and a caret."""
    return "\n".join(_render_one(problem, colour=colour) for problem in problems)


def render_summary(problems: Sequence[Problem], file_count: int, exit_code: int | None) -> str:
    """The last line: what was counted, and the exit code that follows from it, if one does."""
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    warnings = len(problems) - errors
    counts = f"{say_count(errors, 'error')}, {say_count(warnings, 'warning')}"
    shown = f"{counts} in {say_count(file_count, 'file')}" if file_count else counts
    return shown if exit_code is None else f"{shown}    exit {exit_code}"


def say_count(number: int, word: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _render_one(problem: Problem, *, colour: bool) -> str:
    def paint(text: str, **style: Any) -> str:
        return typer.style(text, **style) if colour else text

    severity_colour = _COLOURS[problem.severity]
    head = "  ".join(
        part
        for part in (
            paint(_show_place(problem), bold=True),
            paint(_WORDS[problem.severity], fg=severity_colour, bold=True),
            f"{paint(problem.code, fg=severity_colour)} {name_of(problem.code)}".rstrip(),
        )
        if part
    )
    path = f"{escape_line(problem.path)}: " if problem.path else ""
    lines = [head, f"    {path}{escape_line(problem.message)}"]
    if problem.line > 0 and problem.excerpt:
        number = str(problem.line).rjust(4)
        excerpt, offset, length = crop(problem)
        marks = " " * offset + paint("^" + "~" * (length - 1), fg=severity_colour, bold=True)
        lines.append(f"    {number} | {excerpt}")
        lines.append(f"    {' ' * len(number)} | {marks}")
    if problem.hint:
        lines.append(f"    {paint('hint:', fg=typer.colors.CYAN)} {escape_line(problem.hint)}")
    return "\n".join(lines)


def _show_place(problem: Problem) -> str:
    if not problem.file:
        return "config"
    place = escape_line(problem.file)
    return f"{place}:{problem.line}:{problem.column}" if problem.line > 0 else place


def crop(problem: Problem) -> tuple[str, int, int]:
    """The excerpt cut to what fits; offset and length of the caret in columns of the terminal."""
    line = problem.excerpt
    index = min(max(problem.column - 1, 0), len(line))
    start = 0
    if len(line) > EXCERPT_COLUMNS and index > _BEFORE:
        start = min(index - _BEFORE, max(0, len(line) - EXCERPT_COLUMNS))
    shown = line[start : start + EXCERPT_COLUMNS]
    lead = "…" if start else ""
    tail = "…" if start + EXCERPT_COLUMNS < len(line) else ""
    marked = line[index : index + problem.length]
    offset = cell_len(lead) + cell_len(line[start:index])
    room = max(1, cell_len(shown) + cell_len(lead) - offset)
    return lead + shown + tail, offset, min(max(1, cell_len(marked)), room)


def problem_facts(problem: Problem) -> dict[str, Any]:
    """One problem for JSON."""
    return {
        "code": problem.code,
        "name": name_of(problem.code),
        "severity": str(problem.severity),
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "message": problem.message,
        "hint": problem.hint,
    }


def render_github(problems: Iterable[Problem]) -> str:
    """Workflow commands: GitHub shows them at the lines of a pull request."""
    return "\n".join(_annotate(problem) for problem in problems)


def _annotate(problem: Problem) -> str:
    title = f"{problem.code} {name_of(problem.code)}".rstrip()
    facts = {"file": problem.file}
    if problem.line > 0:
        facts |= {
            "line": str(problem.line),
            "col": str(problem.column),
            "endColumn": str(problem.column + problem.length),
        }
    facts["title"] = title
    pairs = ",".join(f"{key}={_escape_property(value)}" for key, value in facts.items() if value)
    path = f"{problem.path}: " if problem.path else ""
    hint = f"\n{problem.hint}" if problem.hint else ""
    return f"::{problem.severity} {pairs}::{_escape_data(path + problem.message + hint)}"


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")
