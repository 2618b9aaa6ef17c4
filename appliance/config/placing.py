"""Problems with their place, and key paths as they are shown."""

from __future__ import annotations

from appliance.config.characters import show_invisible
from appliance.config.positions import KeyPath, Place
from appliance.core.problems import Problem, Severity


def make_problem(
    code: str,
    place: Place | None,
    message: str,
    *,
    hint: str = "",
    path: KeyPath = (),
) -> Problem:
    """A problem at a place; the excerpt is added when all are together."""
    return Problem(
        code=code,
        message=show_invisible(message),
        severity=Severity.WARNING if code.startswith("W") else Severity.ERROR,
        file=place.file if place else "",
        line=place.line if place else 0,
        column=place.column if place else 0,
        length=place.length if place else 1,
        path=show_invisible(show_path(path)),
        hint=show_invisible(hint),
    )


def show_path(path: KeyPath) -> str:
    """The dotted form: ``nodes.ship1.publish.hello.to[0]``."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += f".{part}" if shown else part
    return shown
