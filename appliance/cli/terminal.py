"""The console that tables are printed on. Its library is loaded where a table is printed: most commands print none."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from appliance.core.escape import escape_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PIPE_COLUMNS = 240
"""Where no terminal says how wide it is; a table read by a program must not be folded at 80."""


def make_console() -> Console:
    """On stdout; colours and cursor only on a terminal, and never against NO_COLOR."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def shorten_middle(text: str, columns: int) -> str:
    """The text in at most so many columns; of a longer one its beginning and its end, which tell most."""
    if len(text) <= columns:
        return text
    tail = (columns - 1) // 2
    return f"{text[: columns - 1 - tail]}…{text[len(text) - tail :]}" if columns > 1 else "…"


def clip_lines(text: str) -> str:
    """Without the blanks that fill a table's lines up."""
    return "\n".join(line.rstrip() for line in text.splitlines())


def print_table(header: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Columns below their names; texts are escaped here. The last column takes what room is left."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in header[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(header[-1], overflow="fold")
    for row in rows:
        table.add_row(*(Text(escape_line(cell)) if isinstance(cell, str) else cell for cell in row))
    console = make_console()
    with console.capture() as captured:
        console.print(table)
    typer.echo(clip_lines(captured.get()))
