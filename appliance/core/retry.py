"""How long a record is waited for, when it is sent again, and what ends it. Pure: times and jitter come in as numbers.

The rules behind it:

- A record waits until it expires. Tries end it only where somebody set a number.
- A send that nobody can have heard (the broker is away, nobody subscribes) counts for nothing.
- Unanswered sends back off: `ack.timeout`, doubling, to five minutes.
- A peer that never said that it is an appliance may run a resend again, so it gets few sends, spread widely.
- A refusal by the receiver, and its word that the handler failed, are final: the same bytes would end the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from appliance.core.delivery import DeliveryState, end_reason
from appliance.core.specs import AckSettings

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 30.0
MAX_ABSENT_BACKOFF_S = 5.0
"""An absent node is probed with one message at most this far apart; the broker answers it without waking anyone."""
MAX_LONG_ABSENT_BACKOFF_S = 30.0
"""And one that has been away for half an hour: thousands may be away for days, and each probe costs a millisecond."""
ABSENT_SHARE = 60
"""A probe is not further from the one before than this part of the time the node has been away by then."""
MAX_WAIT_S = 300.0
"""Longest wait between sends of a record that is not answered."""

MAX_SENDS_TO_STRANGER = 4
"""Sends of one record that a peer which remembers no ids may have heard."""
STRANGER_GAPS_S = (5.0, 7.0, 588.0)
"""Least time between those sends: together ten minutes, the first ones soon, for a slip or a node that just starts."""
STRANGER_LAST_WAIT_S = 30.0


class Missed(StrEnum):
    """How an attempt ended without an acknowledgement; the words of the events that tell of it."""

    ACK_TIMEOUT = "ack_timeout"
    NO_RESPONDER = "no_responder"
    BUSY = "busy"


NOBODY_THERE = "nobody there takes it"
"""How the reason of a dead letter ends that no subscriber was ever there for."""
NO_BROKER = "there is no connection to the broker"


@dataclass(frozen=True, slots=True)
class SendAgain:
    """The record stays; it is due again in `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The record is parked for a human; `reason` is that of a dead letter."""

    reason: str


Decision = SendAgain | GiveUp


def backoff_s(failures: int, *, cap_s: float, jitter: float) -> float:
    """Delay after the `failures`-th failure in a row (from 1): doubling, capped, spread over its upper half.

    `jitter` is in [0, 1).
    """
    raw = min(cap_s, FIRST_BACKOFF_S * 2.0 ** min(max(failures - 1, 0), 20))
    return raw * (0.5 + jitter / 2)


def absent_backoff_cap_s(absent_s: float) -> float:
    """How far apart the probes of a node are at most that has been away for so long."""
    return min(max(absent_s / ABSENT_SHARE, MAX_ABSENT_BACKOFF_S), MAX_LONG_ABSENT_BACKOFF_S)


def settings_of(ack: AckSettings, timeout_s: float | None, retries: int | None) -> AckSettings:
    """The settings of a worker with what a message itself asks for on top; None where it asks for nothing."""
    if timeout_s is None and retries is None:
        return ack
    return replace(
        ack,
        timeout_s=ack.timeout_s if timeout_s is None else timeout_s,
        retries=ack.retries if retries is None else retries,
    )


def ack_wait_s(timeout_s: float, unanswered: int) -> float:
    """How long the send after `unanswered` ones without an answer is waited for."""
    return min(timeout_s * 2.0 ** min(unanswered, 20), max(timeout_s, MAX_WAIT_S))


def stranger_gap_s(sends: int) -> float:
    """Least time after the `sends`-th send (from 1) of a record to a peer that never said it is an appliance."""
    return STRANGER_GAPS_S[sends - 1] if sends <= len(STRANGER_GAPS_S) else STRANGER_LAST_WAIT_S


def send_wait_s(ack: AckSettings, *, sends: int, unanswered: int, may_repeat: bool) -> float:
    """How long the `sends`-th send of a record is waited for, after `unanswered` in a row.

    `may_repeat` says that whoever gets it knows a message that he had before.
    """
    if ack.retries is not None or not unanswered:
        return ack.timeout_s
    if may_repeat:
        return ack_wait_s(ack.timeout_s, unanswered)
    gap_s = stranger_gap_s(sends)
    return gap_s if sends >= MAX_SENDS_TO_STRANGER else max(ack.timeout_s, gap_s)


def decide_unanswered(
    ack: AckSettings, *, tries: int, sends: int, since_s: float, may_repeat: bool, jitter: float
) -> Decision:
    """After `tries` unanswered sends of a record, the last one `since_s` ago; `sends` may have been heard."""
    if ack.retries is not None:
        return decide_counted(tries, ack, jitter=jitter)
    return SendAgain(0.0) if may_repeat else decide_stranger(sends, since_s)


def decide_counted(tries: int, ack: AckSettings, *, jitter: float) -> Decision:
    """After `tries` unanswered sends of a record whose tries somebody has counted: exactly so many, `retry_wait` apart.

    `ack.retries` must be set.
    """
    assert ack.retries is not None
    if tries > ack.retries:
        why = f"no acknowledgement after {tries} tries of {ack.timeout_s:g} s"
        return GiveUp(end_reason(DeliveryState.EXPIRED, why))
    return SendAgain(max(ack.retry_wait_s, backoff_s(tries, cap_s=MAX_BACKOFF_S, jitter=jitter)))


def decide_stranger(sends: int, since_last_send_s: float) -> Decision:
    """After `sends` unanswered ones to a peer that never said it is an appliance."""
    left_s = max(0.0, stranger_gap_s(max(sends, 1)) - since_last_send_s)
    if left_s or sends < MAX_SENDS_TO_STRANGER:
        return SendAgain(left_s)
    why = f"no acknowledgement after {sends} sends, and a node that is no appliance might run it again"
    return GiveUp(end_reason(DeliveryState.EXPIRED, why))


def reason_of_expiry(lifetime_s: float, why: str) -> str:
    """The reason of a record whose time is over; `why` says what kept it, "" where nothing is known."""
    text = f"no acknowledgement within {lifetime_s:g} s"
    return end_reason(DeliveryState.EXPIRED, f"{text}: {why}" if why else text)
