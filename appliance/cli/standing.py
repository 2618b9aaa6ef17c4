"""Where one message stands, read off the lines that the API tells of it: the model behind `send`, `exec`, `tail` and `cp`.

Pure. The words are those of `core.delivery`; a message that was not accepted at all never became one, and is
`REJECTED`.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.api.model import Line
from appliance.core.delivery import (
    DELIVERED,
    DeliveryState,
    Standing,
    WaitReason,
    state_of_reason,
    why_of_missed,
    why_of_reason,
)

REJECTED = "rejected"

_STATES = {str(state): state for state in DeliveryState}
_ENDS = frozenset({DeliveryState.REFUSED, DeliveryState.FAILED, DeliveryState.EXPIRED})
_SETTLED_BY = frozenset({"delivered", "refused", "dead"})
_ORDER = (
    DeliveryState.SENT,
    DeliveryState.STORED,
    DeliveryState.TAKEN,
    DeliveryState.WORKING,
    DeliveryState.DONE,
)


@dataclass(slots=True)
class Progress:
    """Of one message. `take` follows a line; `state` is None for one that was not accepted."""

    state: DeliveryState | None = DeliveryState.ACCEPTED
    why: str = ""
    is_settled: bool = False
    """Whether nothing more depends on this side; the other may still be at work."""

    def take(self, line: Line) -> bool:
        """Note a line of this message; whether it stands elsewhere now, or for another reason."""
        found = _read_standing(line)
        if found is None or self.has_failed:
            return False
        is_known = self.is_settled and found.state not in _ENDS and not self._is_before(found.state)
        self.is_settled |= line.event in _SETTLED_BY
        if is_known or (self.state, self.why) == (found.state, found.why):
            return False
        self.state, self.why = found.state, found.why
        return True

    def reject(self, why: str) -> None:
        """It was not accepted."""
        self.state, self.why, self.is_settled = None, why, True

    def answer(self, failure: str | None) -> None:
        """Its answer is complete; with `failure` it says that the work was not done."""
        self.state = DeliveryState.DONE if failure is None else DeliveryState.FAILED
        self.why, self.is_settled = failure or "", True

    @property
    def has_failed(self) -> bool:
        """Whether it ended without having been done, or was never accepted."""
        return self.state is None or self.state in _ENDS

    @property
    def is_delivered(self) -> bool:
        """Whether the other side has it, or whoever asks for no acknowledgement has sent it."""
        return self.state in DELIVERED or (self.is_settled and not self.has_failed)

    @property
    def is_absent(self) -> bool:
        """Whether nobody takes it at its destination."""
        return self.state is DeliveryState.WAITING and self.why == WaitReason.NOBODY

    @property
    def word(self) -> str:
        """The state as a word."""
        return REJECTED if self.state is None else str(self.state)

    def describe(self) -> str:
        """``waiting: nobody there``, ``failed: disk full``, ``taken``."""
        return f"{self.word}: {self.why}" if self.why else self.word

    def describe_silence(self) -> str:
        """The same where the acknowledgement has not come; that it was accepted, or sent, is no news then."""
        is_told = self.state not in (DeliveryState.ACCEPTED, DeliveryState.SENT)
        return self.describe() if is_told else "not acknowledged yet"

    def _is_before(self, state: DeliveryState) -> bool:
        """Whether `state` tells more than is known."""
        known = _ORDER.index(self.state) if self.state in _ORDER else -1
        return state in _ORDER and _ORDER.index(state) > known


def _read_standing(line: Line) -> Standing | None:
    """The state of a line; of a daemon of an earlier version, which tells none, what its event means."""
    state = _STATES.get(line.state or "")
    if state is not None:
        return Standing(state, line.why or "")
    reason = line.reason or ""
    match line.event:
        case "delivered":
            return Standing(DeliveryState.TAKEN)
        case "missed":
            return Standing(DeliveryState.WAITING, why_of_missed(line.outcome or ""))
        case "refused":
            return Standing(DeliveryState.REFUSED, reason)
        case "dead":
            return Standing(state_of_reason(reason), why_of_reason(reason))
    return None
