"""The verdict on messages of a `cron` of every minute, of which the runs with jumping clocks make use."""

import pytest

from tests.lab.clock_jumps import (
    CRON_LATE_S,
    HOUR_S,
    MOST_AT_ONCE,
    judge_minutes,
    minutes_due,
)

START = [(0.0, 0.0)]
DUE = [(60.0, True), (120.0, True), (180.0, True)]


def test_minutes_are_due_by_the_clock_as_it_is_at_that_moment():
    assert minutes_due([(10.0, 100.0, 0.0), (100.0, 200.0, 2 * HOUR_S + 30.0)]) == [
        (60.0, True),
        (150.0, True),
    ]


def test_minutes_that_a_clock_shows_again_are_not_new_until_it_is_further_than_it_was():
    assert minutes_due([(0.5, 61.0, 0.0), (61.0, 250.0, -120.0)]) == [
        (60.0, True),
        (120.0, False),
        (180.0, False),
        (240.0, True),
    ]


def test_a_clock_that_is_set_back_far_begins_anew():
    assert minutes_due([(0.5, 61.0, 0.0), (61.0, 130.0, -4 * HOUR_S)]) == [
        (60.0, True),
        (120.0, True),
    ]


def test_one_message_soon_after_each_minute_is_right():
    assert judge_minutes([60.1, 120.0, 180.0 + CRON_LATE_S], DUE, START) == (3, [])


@pytest.mark.parametrize(
    ("at", "fault"),
    [
        ([60.1, 180.1], "0 messages of a minute, not 1"),
        ([60.1, 120.1, 120.2, 180.1], "2 messages of a minute, not 1"),
        ([60.1, 120.1, 150.0, 180.1], "one 150.0 s after the start, at no minute"),
    ],
    ids=["none", "two", "stray"],
)
def test_a_minute_without_its_message_or_with_two_and_a_message_without_a_minute_are_faults(
    at, fault
):
    assert judge_minutes(at, DUE, START) == (3, [fault])


def test_a_message_of_a_minute_that_was_before_is_a_fault():
    due = [(60.0, True), (120.0, False)]
    assert judge_minutes([60.1, 120.1], due, START) == (
        1,
        ["1 messages of a minute, not 0"],
    )


def test_around_a_jump_a_message_may_come_at_any_second_but_not_many():
    disturbed = [*START, (117.0, 119.0)]
    assert judge_minutes([60.1, 118.0, 120.1, 180.1], DUE, disturbed) == (2, [])
    many = [118.0 + number / 100 for number in range(MOST_AT_ONCE + 1)]
    assert judge_minutes([60.1, *many, 180.1], DUE, disturbed) == (
        2,
        [f"{len(many)} messages around one jump or standstill"],
    )
