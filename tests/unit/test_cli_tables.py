"""Tables fit the terminal, and nothing of them is cut off."""

from collections import Counter

import pytest
from rich.console import Console

from appliance.cli import terminal

HEADER = ("NUMBER", "AT", "RESULT", "DIGEST", "GIT", "TRIGGER", "WHAT")
ROWS = [
    ("2", "2026-11-29 15:36:15", "applied", "145abe7a942f", "eadb938708-dirty", "watch", "2 spawned, 36 kept"),
    ("1", "2026-11-29 15:33:51", "refused", "d4b58ca72a01", "", "request by anna (uid 1001)", "E305 " + "word " * 30),
]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160, 240])
def test_a_table_shows_every_letter_of_every_cell_at_any_width(monkeypatch, capsys, width):
    monkeypatch.setattr(terminal, "make_console", lambda: Console(width=width, highlight=False))
    terminal.print_table(HEADER, ROWS)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    letters = Counter("".join((*HEADER[:-1], *ROWS[0], *ROWS[1]))) - Counter(" ")
    assert letters <= Counter(shown)
    assert "…" not in shown


def test_at_80_columns_what_came_of_a_set_is_read_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "make_console", lambda: Console(width=80, highlight=False))
    terminal.print_table(HEADER, ROWS)
    shown = capsys.readouterr().out
    assert "2026-11-29 15:36:15  applied" in shown
    assert "    2 spawned, 36 kept\n" in shown


def test_where_all_fits_a_row_is_a_line(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "make_console", lambda: Console(width=160, highlight=False))
    terminal.print_table(HEADER, ROWS[:1])
    assert len(capsys.readouterr().out.splitlines()) == 2
