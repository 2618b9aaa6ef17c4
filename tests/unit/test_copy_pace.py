"""How pieces grow on a good line and shrink on a thin one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.methods.copies.sender import (
    FIRST_PIECE_BYTES,
    MARK_EVERY_BYTES,
    MARK_EVERY_S,
    MAX_ACK_TIMEOUT_S,
    MIN_PIECE_BYTES,
    Pace,
    Reached,
    whole_timeout_s,
)

MOST = 256 * 1024


def run(line_bytes_per_s, *, pieces=30, window=4):
    """The pace on a line that carries so much, and how many acknowledgements came after their time."""
    pace = Pace(MOST)
    in_flight, late = [], 0
    for number in range(pieces):
        in_flight = [*in_flight, pace.length][-(window if number else 1) :]
        seconds = sum(in_flight) * 4 / 3 / line_bytes_per_s
        late += seconds > pace.ack_timeout_s
        pace.note(seconds)
    return pace, late


def test_on_a_good_line_pieces_are_soon_as_large_as_they_can_be():
    pace, late = run(50e6, pieces=3)
    assert (pace.length, late) == (MOST, 0)


@pytest.mark.parametrize("line_bytes_per_s", [8_000, 25_000, 60_000, 250_000, 1e6, 1e8])
def test_on_no_line_much_is_sent_again_or_waited_for(line_bytes_per_s):
    pace, late = run(line_bytes_per_s)
    assert late <= 2
    assert 4 * pace.length * 4 / 3 / line_bytes_per_s <= 8


def test_pieces_shrink_only_so_far_and_grow_again():
    pace = Pace(MOST)
    for _ in range(50):
        pace.note(60.0)
    assert (pace.length, pace.ack_timeout_s) == (MIN_PIECE_BYTES, MAX_ACK_TIMEOUT_S)
    for _ in range(50):
        pace.note(0.01)
    assert (pace.length, pace.ack_timeout_s) == (MOST, 5)


@given(st.integers(1, MOST), st.lists(st.floats(0, 1e4), max_size=60))
def test_a_piece_always_has_a_size_that_can_be_sent(most, seconds):
    pace = Pace(most)
    assert pace.length == min(FIRST_PIECE_BYTES, most)
    for took in seconds:
        pace.note(took)
        assert 1 <= pace.length <= most
        assert 5 <= pace.ack_timeout_s <= MAX_ACK_TIMEOUT_S


def test_a_large_message_gets_the_time_that_it_needs_on_a_thin_line():
    assert (whole_timeout_s(0), whole_timeout_s(1_000_000)) == (5, 55)


def test_a_mark_is_where_nothing_is_missing_before_it_and_worth_its_write():
    now = [0.0]
    reached = Reached(100, lambda: now[0])
    reached.add(200, 50)
    assert (reached.done_to, reached.done_bytes, reached.is_mark_due()) == (100, 150, False)
    reached.add(100, 100)
    assert (reached.done_to, reached.is_mark_due()) == (250, False)
    now[0] += MARK_EVERY_S
    assert [reached.is_mark_due(), reached.is_mark_due()] == [True, False], "once for what is new"
    reached.add(250, MARK_EVERY_BYTES)
    assert reached.is_mark_due(), "soon where it is much"
