"""Plans, verdicts and problems as text: what `plan`, `reload` and `history show` have in common."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

import typer

from appliance.api.model import Action, Config, Fields, HistoryRecord
from appliance.cli.problem_text import render_summary, render_text
from appliance.core.durations import format_duration
from appliance.core.escape import escape_line
from appliance.core.plan import ACTION_SIGNS, ActionKind
from appliance.core.problems import Problem, Severity

_SIGNS: Mapping[str, str] = {kind.value: sign for kind, sign in ACTION_SIGNS.items()}
_COLOURS = {
    ActionKind.SPAWN.value: typer.colors.GREEN,
    ActionKind.CANCEL.value: typer.colors.RED,
    ActionKind.UPDATE.value: typer.colors.YELLOW,
    ActionKind.SWAP.value: typer.colors.YELLOW,
}
_DONE = {"spawn": "spawned", "update": "updated", "swap": "swapped", "cancel": "cancelled"}
MAX_VALUE_CHARACTERS = 60


def uses_colour(stream: TextIO) -> bool:
    """Colour is for terminals, and for those who want it."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def split_problems(problems: Sequence[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Errors and warnings, each in the order given."""
    errors = [item for item in problems if item.severity is Severity.ERROR]
    return errors, [item for item in problems if item.severity is not Severity.ERROR]


def print_problems(problems: Sequence[Problem], stream: TextIO, exit_code: int | None = 78) -> None:
    """Every problem as `check` shows it, and the count; with the exit code, where one follows."""
    print(render_text(problems, colour=uses_colour(stream)), file=stream)
    if any(problem.severity is Severity.ERROR for problem in problems):
        files = len({problem.file for problem in problems if problem.file})
        print(render_summary(problems, files, exit_code), file=stream)


def show_actions(actions: Sequence[Action], *, has_many_nodes: bool = False) -> list[str]:
    """One line per worker, and below it what changes. The node is named where there are several:
    workers of two nodes may share a name.
    """
    colour = uses_colour(sys.stdout)
    lines = []
    several = has_many_nodes or len({action.node for action in actions}) > 1
    for action in actions:
        kind = action.action
        line = f"{_SIGNS.get(kind, '?')} {kind:6s} {escape_line(action.worker)}"
        if several:
            line += f"  on {escape_line(action.node)}"
        lines.append(typer.style(line, fg=_COLOURS.get(kind)) if colour else line)
        for name, (old, new) in action.fields.items():
            lines.append(f"           {_say_change(name, old, new)}")
    return lines


def show_settings(settings: Fields) -> list[str]:
    """One line per setting beside the workers that changes."""
    return [
        f"~ settings {_say_change(escape_line(name), old, new)}"
        for name, (old, new) in settings.items()
    ]


def count_actions(actions: Sequence[Action], *, done: bool = False) -> str:
    """``2 spawn, 1 cancel``, or with `done` ``2 spawned, 1 cancelled``."""
    kinds = [action.action for action in actions]
    named = [(kind, kinds.count(kind)) for kind in _SIGNS]
    return ", ".join(f"{count} {_DONE[kind] if done else kind}" for kind, count in named if count)


def say_commit(facts: Config | HistoryRecord, *, length: int = 10) -> str:
    """``git 63f047e946 (main, files differ from it)``, of a config or a record that has a revision."""
    more = [facts.branch] if facts.branch else []
    more += ["files differ from it"] if facts.dirty else []
    commit = (facts.revision or "")[:length]
    return f"git {commit} ({', '.join(more)})" if more else f"git {commit}"


def _say_change(name: str, old: object, new: object) -> str:
    """``every: 30s → 5s``: a field and its values as the config writes them."""
    # the settings of a schedule stand beside the others of their entry
    written = name.removeprefix("schedule.")
    show = _show_time if name.endswith("_s") else _show_value
    return f"{written.removesuffix('_s')}: {show(old)} → {show(new)}"


def _show_time(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format_duration(float(value))
    return _show_value(value)


def _show_value(value: object) -> str:
    text = escape_line(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[: MAX_VALUE_CHARACTERS - 1]}…"
