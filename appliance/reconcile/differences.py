"""What changed between the files of two config sets, as a unified diff. Pure, and bounded in time and size."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

MAX_LINES = 2_000
MAX_CHARACTERS = 256 * 1024
MAX_COMPARED_LINES = 20_000
"""Of one file: comparing takes time that grows with the square of it, where lines repeat."""


def find_differences(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The files that differ, in order of their names; cut off with an ellipsis where it gets long."""
    lines: list[str] = []
    characters = 0
    for line in _differing_lines(before, after):
        characters += len(line) + 1
        if len(lines) >= MAX_LINES or characters > MAX_CHARACTERS:
            lines.append("…")
            break
        lines.append(line)
    return "\n".join(lines) + "\n" if lines else ""


def _differing_lines(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        # as git writes them; a file that is not there is /dev/null
        shown = name.lstrip("/")
        old_name = f"a/{shown}" if old is not None else "/dev/null"
        new_name = f"b/{shown}" if new is not None else "/dev/null"
        old_lines, new_lines = (old or "").splitlines(), (new or "").splitlines()
        if max(len(old_lines), len(new_lines)) > MAX_COMPARED_LINES:
            yield from (f"--- {old_name}", f"+++ {new_name}", "… too long to compare")
        else:
            yield from difflib.unified_diff(old_lines, new_lines, old_name, new_name, lineterm="")
