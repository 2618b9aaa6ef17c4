"""Tables that fit: what is given up first, and what never."""

import pytest

from appliance.cli.record_table import GAP_COLUMNS, MIN_WHY_COLUMNS, fit_names, share_columns
from appliance.cli.terminal import shorten_middle


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("ship1", 5, "ship1"),
        ("ship-one", 5, "sh…ne"),
        ("ship-one", 4, "sh…e"),
        ("ship-one", 1, "…"),
    ],
)
def test_a_long_name_keeps_its_beginning_and_its_end(text, columns, shown):
    assert shorten_middle(text, columns) == shown
    assert len(shown) <= columns


def test_the_widest_column_gives_way_first_and_none_below_the_least():
    assert share_columns([30, 10], 30, 8) == [20, 10]
    assert share_columns([30, 10], 100, 8) == [30, 10]
    assert share_columns([30, 10], 3, 8) == [8, 8]
    assert share_columns([4, 30], 3, 8) == [4, 8]


@pytest.mark.parametrize("width", [80, 100, 119])
def test_the_last_column_keeps_its_room_whatever_names_there_are(width):
    rows = [["1" * 19, "n" * length, "M" * 60, "120 min", "why"] for length in (3, 40, 200)]
    for row in fit_names(rows, width, names=(1, 2)):
        taken = sum(map(len, row[:-1])) + GAP_COLUMNS * (len(row) - 1)
        assert width - taken >= MIN_WHY_COLUMNS
        assert row[0] == "1" * 19
