"""Where one message stands, read off the lines that the API tells of it: what `send`, `exec`, `tail` and `cp` know of it.

Pure. It is the model of the daemon's own view of a job, fed with lines.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import UNSET

from appliance.api.model import Line
from appliance.core.delivery import (
    DeliveryState,
    Standing,
    state_of_reason,
    why_of_missed,
    why_of_reason,
)
from appliance.core.outcome import AnswerFacts, Outcome

_STATES = {str(state): state for state in DeliveryState}
_SETTLED_BY = frozenset({"delivered", "refused", "dead"})


@dataclass(slots=True)
class Progress(Outcome):
    """`core.outcome` fed with lines of the API."""

    def take(self, line: Line) -> bool:
        """Note a line of this message; whether it stands elsewhere now, or for another reason."""
        found = _read_standing(line)
        return found is not None and self.stand(found, settles=line.event in _SETTLED_BY)

    def hear(self, line: Line, *, is_filed: bool = False) -> bool:
        """Note an answer, or a piece of one; whether it is complete by that. One that is filed is whole there."""
        return self.answer(
            AnswerFacts(
                exit_status=line.exit_status or None,
                has_more=bool(line.has_more),
                tells_stream=line.stream is not UNSET,
                is_cut=bool(line.is_cut) and not is_filed,
                is_truncated=bool(line.truncated),
                is_stderr_cut=bool(line.is_stderr_cut),
                is_held=bool(line.is_held),
                stopped_after_s=line.stopped_after_seconds or None,
                signal=line.signal or None,
                not_filed=line.not_filed or "",
            )
        )


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
