"""What becomes of an outbox record after an attempt. Pure: time and jitter come in as numbers.

Four rules stand behind the table:

- A try is spent only when the message may have been heard (sent, no acknowledgement in time). A broker that is
  down, or a node that nobody answers for ("no responders"), costs no try: the message waits, up to its expiry.
- Without a number of retries a message is tried until it expires.
- Delays grow from 0.2 s by doubling; what the config asks for as `retry_wait` is the least.
- A refusal by the receiving appliance is final: sending the same bytes again would be refused again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from appliance.core.specs import AckSettings

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 30.0
MAX_ABSENT_BACKOFF_S = 5.0
"""An absent node is probed with one message at most this far apart; the broker answers it without waking anyone."""


class Outcome(StrEnum):
    """How an attempt ended."""

    ACKED = "acked"
    SENT = "sent"
    REFUSED = "refused"
    ACK_TIMEOUT = "ack_timeout"
    NO_RESPONDER = "no_responder"
    BUS_DOWN = "bus_down"
    UNSENDABLE = "unsendable"


NOBODY_THERE = "nobody there takes it"
"""How the reason of a dead letter ends that no subscriber was ever there for."""
NO_BROKER = "there is no connection to the broker"

_WHY_EXPIRED = {
    Outcome.NO_RESPONDER: f": {NOBODY_THERE}",
    Outcome.BUS_DOWN: f": {NO_BROKER}",
}


@dataclass(frozen=True, slots=True)
class Done:
    """The record leaves the outbox."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """The record stays; the next attempt is due in `delay_s`. `spends_try` tells whether a retry is used up."""

    delay_s: float
    spends_try: bool


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The record is parked for a human."""

    reason: str


Decision = Done | RetryIn | DeadLetter

DONE = Done()


def backoff_s(failures: int, *, cap_s: float, jitter: float) -> float:
    """Delay after the `failures`-th failure in a row (from 1): doubling, capped, spread over its upper half.

    `jitter` is in [0, 1).
    """
    raw = min(cap_s, FIRST_BACKOFF_S * 2.0 ** min(max(failures - 1, 0), 20))
    return raw * (0.5 + jitter / 2)


def decide_delivery(
    outcome: Outcome,
    *,
    attempts: int,
    failures: int,
    ack: AckSettings,
    age_s: float,
    jitter: float,
    detail: str = "",
) -> Decision:
    """Decide what happens to a record.

    Args:
        outcome: how the attempt that just ended went.
        attempts: tries spent, this one included if it spends one.
        failures: failures in a row that spent no try, for the delay.
        ack: the limits in force for this message.
        age_s: seconds since the message was accepted.
        jitter: a random number in [0, 1).
        detail: words for a refusal.
    """
    if outcome is Outcome.ACKED or outcome is Outcome.SENT:
        return DONE
    if outcome is Outcome.REFUSED:
        return DeadLetter(
            f"refused by the receiver: {detail}" if detail else "refused by the receiver"
        )
    if outcome is Outcome.UNSENDABLE:
        return DeadLetter(detail or "cannot be sent")
    if age_s >= ack.expires_s:
        why = _WHY_EXPIRED.get(outcome, "")
        return DeadLetter(f"expired after {ack.expires_s:g} s without acknowledgement{why}")
    if outcome is Outcome.ACK_TIMEOUT:
        if ack.retries is not None and attempts > ack.retries:
            return DeadLetter(f"no acknowledgement after {attempts} tries of {ack.timeout_s:g} s")
        delay_s = max(ack.retry_wait_s, backoff_s(attempts, cap_s=MAX_BACKOFF_S, jitter=jitter))
        return RetryIn(delay_s, spends_try=True)
    if outcome is Outcome.NO_RESPONDER:
        delay_s = backoff_s(failures, cap_s=MAX_ABSENT_BACKOFF_S, jitter=jitter)
        return RetryIn(delay_s, spends_try=False)
    return RetryIn(0.0, spends_try=False)
