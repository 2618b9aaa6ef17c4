"""What becomes of a record after an attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.retry import DONE, DeadLetter, Outcome, RetryIn, backoff_s, decide_delivery
from appliance.core.specs import AckSettings

ACK = AckSettings(timeout_s=5, retries=3, expires_s=100)


def decide(outcome, *, attempts=0, failures=1, ack=ACK, age_s=0.0, detail=""):
    return decide_delivery(
        outcome,
        attempts=attempts,
        failures=failures,
        ack=ack,
        age_s=age_s,
        jitter=0.5,
        detail=detail,
    )


@pytest.mark.parametrize("outcome", [Outcome.ACKED, Outcome.SENT])
def test_an_acknowledged_or_sent_record_leaves(outcome):
    assert decide(outcome, age_s=1e9) == DONE


def test_retries_count_the_resends_after_the_first_send():
    assert isinstance(decide(Outcome.ACK_TIMEOUT, attempts=3), RetryIn)
    assert decide(Outcome.ACK_TIMEOUT, attempts=4) == DeadLetter(
        "no acknowledgement after 4 tries of 5 s"
    )
    assert isinstance(
        decide(Outcome.ACK_TIMEOUT, attempts=1, ack=AckSettings(retries=0)), DeadLetter
    )


@pytest.mark.parametrize("outcome", [Outcome.NO_RESPONDER, Outcome.BUS_DOWN])
def test_absence_spends_no_try_and_ends_only_by_expiry(outcome):
    decision = decide(outcome, attempts=99, failures=50, age_s=99.0)
    assert isinstance(decision, RetryIn)
    assert not decision.spends_try
    assert decision.delay_s <= 5.0
    assert isinstance(decide(outcome, age_s=100.0), DeadLetter)


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (Outcome.NO_RESPONDER, ": nobody there takes it"),
        (Outcome.BUS_DOWN, ": there is no connection to the broker"),
        (Outcome.ACK_TIMEOUT, ""),
    ],
)
def test_the_reason_of_an_expired_message_is_said_in_words(outcome, why):
    assert decide(outcome, age_s=100.0) == DeadLetter(
        f"expired after 100 s without acknowledgement{why}"
    )


def test_a_refusal_is_final_and_keeps_its_words():
    assert decide(Outcome.REFUSED, detail="not allowed") == DeadLetter(
        "refused by the receiver: not allowed"
    )


def test_the_configured_wait_is_the_least():
    ack = AckSettings(retries=3, retry_wait_s=7.0)
    decision = decide(Outcome.ACK_TIMEOUT, attempts=1, ack=ack)
    assert isinstance(decision, RetryIn)
    assert decision.delay_s == 7.0


@given(failures=st.integers(0, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded_and_never_zero(failures, jitter):
    assert 0.1 <= backoff_s(failures, cap_s=30.0, jitter=jitter) <= 30.0
