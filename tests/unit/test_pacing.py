"""How fast one lane goes, and why it stands still."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.delivery import WaitReason
from appliance.core.pacing import LanePace


def test_a_lane_with_nothing_wrong_may_fill_its_window() -> None:
    pace = LanePace(256)
    assert pace.room(0, 1.0) == 256
    assert pace.room(200, 1.0) == 56
    assert pace.reason(1.0) is None


def test_an_unanswered_send_silences_the_lane_only_when_nothing_was_answered_since() -> None:
    pace = LanePace(256)
    pace.answered(10.0, 1)
    assert not pace.unanswered(12.0, sent_mono=9.0)
    assert pace.reason(12.0) is None
    assert pace.unanswered(16.0, sent_mono=11.0)
    assert pace.reason(16.0) is WaitReason.SILENT
    assert pace.room(0, 16.0) == 0


def test_a_silent_lane_sends_one_probe_at_a_time() -> None:
    pace = LanePace(256)
    pace.unanswered(16.0, sent_mono=11.0)
    assert pace.may_probe(0, 16.0)
    assert not pace.may_probe(1, 16.0)


def test_that_a_lane_has_fallen_silent_is_news_once() -> None:
    pace = LanePace(256)
    assert pace.unanswered(16.0, sent_mono=11.0)
    assert not pace.unanswered(26.0, sent_mono=16.0)


def test_a_burst_that_is_not_answered_is_one_silence_and_each_lost_probe_another() -> None:
    pace = LanePace(256)
    for number in range(256):
        pace.unanswered(16.0 + number / 100, sent_mono=11.0 + number / 100)
    assert pace.silences == 1
    pace.unanswered(29.0, sent_mono=19.0)
    assert pace.silences == 2


def test_of_words_of_a_node_that_come_one_upon_the_other_the_first_wakes_the_lane() -> None:
    pace = LanePace(256)
    pace.unanswered(16.0, sent_mono=11.0)
    assert pace.here(20.0)
    assert pace.reason(20.0) is None
    assert not pace.here(20.9)
    assert pace.here(21.0)


def test_an_answer_wakes_a_silent_lane_and_so_does_a_sign_of_the_node() -> None:
    for wake in (lambda pace: pace.answered(20.0, 1), lambda pace: pace.wake(20.0)):
        pace = LanePace(256)
        pace.unanswered(16.0, sent_mono=11.0)
        wake(pace)
        assert pace.reason(20.0) is None
        assert pace.room(0, 20.0) == 256


def test_an_absent_node_is_probed_with_growing_delay_and_a_burst_of_answers_is_one_absence() -> (
    None
):
    pace = LanePace(256)
    assert pace.nobody(1.0, jitter=0.0)
    first = pace.held_until_mono
    for _ in range(200):
        assert not pace.nobody(1.0, jitter=0.0)
    assert pace.held_until_mono == first
    delays = []
    for _ in range(12):
        at = pace.held_until_mono
        pace.nobody(at, jitter=0.999)
        delays.append(round(pace.held_until_mono - at, 6))
    assert delays == sorted(delays)
    assert delays[-1] <= 5.0
    assert pace.reason(99.0) is WaitReason.NOBODY


def absent_for(seconds: float, *, kept_by: str = "") -> LanePace:
    """A pace whose probes nobody took for so long."""
    pace = LanePace(256)
    pace.nobody(1.0, jitter=0.0, kept_by=kept_by)
    while pace.held_until_mono < 1.0 + seconds:
        pace.nobody(pace.held_until_mono, jitter=0.999, kept_by=kept_by)
    return pace


@pytest.mark.parametrize(
    ("absent_s", "kept_by", "longest_s"),
    [
        (290.0, "", 5.0),
        (420.0, "", 7.5),
        (3_600.0, "", 30.0),
        (86_400.0, "", 30.0),
        (86_400.0, "no stream takes it", 5.0),
    ],
)
def test_the_longer_a_node_is_away_the_further_are_its_probes_apart_and_those_of_a_stream_are_not(
    absent_s: float, kept_by: str, longest_s: float
) -> None:
    """Thousands may be away for days. A node says when it is back, a stream says nothing."""
    pace = absent_for(absent_s, kept_by=kept_by)
    at = pace.held_until_mono
    pace.nobody(at, jitter=0.999, kept_by=kept_by)
    assert 0.8 * longest_s <= pace.held_until_mono - at <= longest_s
    pace.wake(at)
    pace.nobody(at, jitter=0.999)
    assert pace.held_until_mono - at < 1.0


def test_busy_halves_the_lane_once_for_a_burst_and_answers_let_it_grow_again() -> None:
    pace = LanePace(256)
    for _ in range(50):
        pace.busy(1.0, wait_s=0.5)
    assert pace.reason(1.2) is WaitReason.BUSY
    assert pace.room(0, 1.2) == 0
    assert pace.room(0, 1.6) == 128
    for round_number in range(40):
        pace.busy(2.0 + round_number, wait_s=0.5)
    assert pace.room(0, 99.0) == 1
    for _ in range(400):
        pace.answered(100.0, 1)
    assert 20 < pace.room(0, 100.0) < 40
    for _ in range(40_000):
        pace.answered(101.0, 1)
    assert pace.room(0, 101.0) == 256


def test_a_smaller_window_counts_at_once_and_a_larger_one_too() -> None:
    pace = LanePace(256)
    pace.set_window(4)
    assert pace.room(0, 1.0) == 4
    pace.set_window(1_000)
    assert pace.room(0, 1.0) == 1_000


@given(
    st.lists(st.sampled_from(["answered", "nobody", "unanswered", "busy", "wake"]), max_size=60),
    st.integers(1, 1_000),
)
def test_whatever_happens_the_allowance_stays_between_one_and_the_window(
    events: list[str], window: int
) -> None:
    pace = LanePace(window)
    now = 0.0
    for event in events:
        now += 1.0
        if event == "answered":
            pace.answered(now, 7)
        elif event == "nobody":
            pace.nobody(now, jitter=0.5)
        elif event == "unanswered":
            pace.unanswered(now, now - 0.5)
        elif event == "busy":
            pace.busy(now, 0.2)
        else:
            pace.wake(now)
        assert 1.0 <= pace.allowance <= window
        # and never for ever: by then it may send or probe
        assert pace.room(0, now + 400.0) > 0 or pace.may_probe(0, now + 400.0)
