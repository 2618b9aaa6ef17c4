"""The console that tables are printed on. Its library is loaded where a table is printed: most commands print none."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from appliance.cli.options import is_utf8
from appliance.core.escape import escape_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
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


LAST_COLUMN = 20
"""What the last column of a table gets at least; where a terminal leaves it less, it stands below its row."""


def print_table(header: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Columns below their names; texts are escaped here. The last column takes what room is left.

    On a narrow terminal it stands in a line of its own below the others, and what is too wide even then is folded:
    nothing is cut off.
    """
    from rich.text import Text

    console = make_console()
    cells = [
        [Text(_in_locale(escape_line(cell))) if isinstance(cell, str) else cell for cell in row]
        for row in rows
    ]
    widths = [
        max(len(name), *(row[at].cell_len for row in cells), 0) for at, name in enumerate(header)
    ]
    left = console.width - sum(widths[:-1]) - GAP * (len(header) - 1)
    with console.capture() as captured:
        if left >= min(widths[-1], LAST_COLUMN):
            console.print(make_columns(header, [*widths[:-1], min(widths[-1], left)], cells))
        else:
            _print_stacked(console, header, widths, cells)
    typer.echo(clip_lines(captured.get()))


def _in_locale(text: str) -> str:
    """What was cut off is told in letters that a terminal of any locale shows."""
    return text if is_utf8() else text.replace("…", "...")


GAP = 2
_LEAST = 10
"""What a column is folded to where a terminal is too narrow."""
_BELOW = 4
"""Blanks before what stands below its row."""


def make_columns(
    header: Sequence[str], widths: Sequence[int], rows: Iterable[Sequence[Text]]
) -> Table:
    """A table of columns as wide as said; what is wider is folded. Without names where `header` is empty."""
    from rich.table import Table

    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, GAP, 0, 0),
        header_style="dim",
        show_header=bool(header),
    )
    for at, width in enumerate(widths):
        table.add_column(header[at] if header else "", width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _print_stacked(
    console: Console, header: Sequence[str], widths: Sequence[int], rows: Sequence[Sequence[Text]]
) -> None:
    from rich.padding import Padding

    fitted = list(widths[:-1])
    too_many = sum(fitted) + GAP * (len(fitted) - 1) - console.width
    for at in reversed(range(len(fitted))):
        # from the right: what names a row, and when it was, stands left
        taken = max(0, min(too_many, fitted[at] - _LEAST))
        fitted[at] -= taken
        too_many -= taken
    console.print(make_columns(header[:-1], fitted, ()))
    for row in rows:
        console.print(make_columns((), fitted, [row[:-1]]))
        if row[-1].plain:
            console.print(Padding(row[-1], (0, 0, 0, _BELOW)))
