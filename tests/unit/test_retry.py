"""When a record is sent again, and what ends it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.delivery import DeliveryState, state_of_reason
from appliance.core.retry import (
    MAX_SENDS_TO_STRANGER,
    MAX_WAIT_S,
    STRANGER_GAPS_S,
    GiveUp,
    SendAgain,
    ack_wait_s,
    backoff_s,
    decide_counted,
    decide_stranger,
    reason_of_expiry,
    send_wait_s,
    settings_of,
)
from appliance.core.specs import AckSettings


def test_an_unanswered_send_is_waited_for_twice_as_long_each_time_up_to_five_minutes() -> None:
    assert [ack_wait_s(5.0, count) for count in range(8)] == [5, 10, 20, 40, 80, 160, 300, 300]


def test_a_timeout_above_five_minutes_is_obeyed() -> None:
    assert ack_wait_s(900.0, 0) == ack_wait_s(900.0, 5) == 900.0


@given(st.floats(0.01, 86_400), st.integers(0, 10_000))
def test_the_wait_never_falls_below_the_timeout_nor_grows_without_end(
    timeout_s: float, unanswered: int
) -> None:
    assert timeout_s <= ack_wait_s(timeout_s, unanswered) <= max(timeout_s, MAX_WAIT_S)


def test_a_number_of_retries_that_somebody_set_is_obeyed_as_it_is() -> None:
    ack = AckSettings(timeout_s=2.0, retries=3)
    ends = [decide_counted(tries, ack, jitter=0.0) for tries in (1, 2, 3, 4)]
    assert [type(end) for end in ends] == [SendAgain, SendAgain, SendAgain, GiveUp]
    assert isinstance(ends[3], GiveUp)
    assert ends[3].reason == "expired: no acknowledgement after 4 tries of 2 s"


def test_a_retry_waits_at_least_as_long_as_the_config_says() -> None:
    decision = decide_counted(1, AckSettings(retries=9, retry_wait_s=7.0), jitter=0.0)
    assert decision == SendAgain(7.0)


def test_a_peer_that_may_run_a_resend_again_gets_few_sends_over_at_least_ten_minutes() -> None:
    assert len(STRANGER_GAPS_S) == MAX_SENDS_TO_STRANGER - 1
    assert sum(STRANGER_GAPS_S) >= 600
    for sends, gap_s in enumerate(STRANGER_GAPS_S, start=1):
        assert decide_stranger(sends, gap_s - 1.0) == SendAgain(1.0)
        assert decide_stranger(sends, gap_s) == SendAgain(0.0)
    assert isinstance(decide_stranger(MAX_SENDS_TO_STRANGER, 1.0), SendAgain)
    end = decide_stranger(MAX_SENDS_TO_STRANGER, 3_600.0)
    assert isinstance(end, GiveUp)
    assert state_of_reason(end.reason) is DeliveryState.EXPIRED


def test_only_a_peer_that_knows_a_resend_is_waited_for_ever_longer_and_counted_tries_are_not() -> (
    None
):
    ack = AckSettings(timeout_s=2.0)
    waits = [send_wait_s(ack, sends=n, unanswered=n - 1, may_repeat=True) for n in (1, 2, 3)]
    assert waits == [2, 4, 8]
    waits = [send_wait_s(ack, sends=n, unanswered=n - 1, may_repeat=False) for n in (1, 2, 3, 4)]
    assert waits == [2, *STRANGER_GAPS_S[1:], 30]
    counted = AckSettings(timeout_s=2.0, retries=3)
    assert send_wait_s(counted, sends=4, unanswered=3, may_repeat=True) == 2


def test_what_a_message_asks_for_itself_goes_before_the_settings_of_its_worker() -> None:
    ack = AckSettings(timeout_s=2.0, retries=3, retry_wait_s=1.0)
    assert settings_of(ack, None, None) is ack
    assert settings_of(ack, 7.0, None) == AckSettings(timeout_s=7.0, retries=3, retry_wait_s=1.0)
    assert settings_of(ack, None, 0) == AckSettings(timeout_s=2.0, retries=0, retry_wait_s=1.0)


def test_the_reason_of_an_expiry_says_what_kept_the_message() -> None:
    assert reason_of_expiry(3.0, "") == "expired: no acknowledgement within 3 s"
    assert reason_of_expiry(86_400.0, "silent since 14:02:11").endswith(
        "within 86400 s: silent since 14:02:11"
    )


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_backoff_doubles_and_is_capped(jitter: float) -> None:
    delays = [backoff_s(failures, cap_s=5.0, jitter=jitter) for failures in range(1, 12)]
    assert delays == sorted(delays)
    assert 0.1 <= delays[0] <= 0.2
    assert 2.5 <= delays[-1] <= 5.0
