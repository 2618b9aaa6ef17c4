"""What became of a message: the words that store, API, command line, page and metrics share. Pure.

A message is `accepted` when it is on disk here, then waits, is sent, taken by the other side, worked on and done; or it
ends as refused, failed or expired, with a reason. Where a stream carries it, it is `stored` there, which is the sender's
end of it. "Delivered" is `stored` or better.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DeliveryState(StrEnum):
    """Where a message stands. The last three are ends that need a human's eye: dead letters."""

    ACCEPTED = "accepted"
    WAITING = "waiting"
    SENT = "sent"
    STORED = "stored"
    TAKEN = "taken"
    WORKING = "working"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"


DELIVERED = frozenset(
    {DeliveryState.STORED, DeliveryState.TAKEN, DeliveryState.WORKING, DeliveryState.DONE}
)
"""The receiver has it, or a stream for him; nothing more depends on the sender."""


class WaitReason(StrEnum):
    """Why a message waits. `SILENT` is shown with the time since, `DENIED` and `STREAM` with the broker's words."""

    NOBODY = "nobody there"
    STREAM = "stream"
    SILENT = "silent"
    BROKER_AWAY = "broker away"
    DENIED = "denied"
    BUSY = "busy"
    BEHIND = "behind others"


@dataclass(frozen=True, slots=True)
class Standing:
    """A message's state and, in words, why it is there; `why` is "" where the state says all."""

    state: DeliveryState
    why: str = ""

    def __str__(self) -> str:
        return f"{self.state} ({self.why})" if self.why else str(self.state)


_ENDS = (DeliveryState.REFUSED, DeliveryState.FAILED, DeliveryState.EXPIRED)
UNANSWERED_BEFORE = "no acknowledgement after"
"""How earlier versions began the reason of what a few tries were all for."""
_REFUSED_BEFORE = "refused by the receiver"
"""How earlier versions began the reason of a refusal."""


def end_reason(state: DeliveryState, why: str) -> str:
    """The reason of a dead letter as it is stored: ``failed: disk full``."""
    return f"{state}: {why}" if why else str(state)


def state_of_reason(reason: str) -> DeliveryState:
    """Which end a dead letter's reason tells of; the texts of earlier versions are known by how they begin."""
    for state in _ENDS:
        if reason.startswith(state):
            return state
    return DeliveryState.FAILED


def why_of_reason(reason: str) -> str:
    """A dead letter's reason without the word for its state."""
    for word in (_REFUSED_BEFORE, *_ENDS):
        if reason.startswith(word):
            return reason[len(word) :].lstrip(": ")
    return reason


def describe_end(reason: str) -> str:
    """A dead letter's reason so that it begins with the word for its state, whichever version wrote it."""
    state = state_of_reason(reason)
    if reason.startswith(state) and not reason.startswith(_REFUSED_BEFORE):
        return reason
    return end_reason(state, why_of_reason(reason))


_WHY_MISSED = {
    "no_responder": str(WaitReason.NOBODY),
    "ack_timeout": "no acknowledgement",
    "bus_down": str(WaitReason.BROKER_AWAY),
}


def why_of_missed(outcome: str) -> str:
    """What an attempt without an acknowledgement says of why the message waits."""
    return _WHY_MISSED.get(outcome, outcome.replace("_", " "))


def kind_of_wait(why: str) -> WaitReason | None:
    """Which of the reasons the words begin with; None for words of another kind."""
    for reason in WaitReason:
        if why == reason or why.startswith((f"{reason} ", f"{reason}:")):
            return reason
    return None
