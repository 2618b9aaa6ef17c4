"""The console that tables are printed on."""

from __future__ import annotations

import sys

from rich.console import Console

PIPE_COLUMNS = 240
"""Where no terminal says how wide it is; a table read by a program must not be folded at 80."""


def make_console() -> Console:
    """On stdout; colours and cursor only on a terminal, and never against NO_COLOR."""
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def clip_lines(text: str) -> str:
    """Without the blanks that fill a table's lines up."""
    return "\n".join(line.rstrip() for line in text.splitlines())
