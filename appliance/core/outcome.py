"""What became of one message and of its answer: the one model that the job, the API's lines and every command read.

Facts go in (`stand`, `reject`, `answer`), words come out. Whoever follows a message, while it happens or from disk long
after, folds the same facts into the same value, so that no two views of it can disagree. Pure.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, fields
from enum import StrEnum

from appliance.core.delivery import DELIVERED, DeliveryState, Standing, WaitReason

REJECTED = "rejected"
"""The word for a message that was not accepted at all: it never became one."""

STATUS_UNKNOWN = (
    "the exit status is unknown: the node tells none, as Go nodes do"
    " (--accept-unknown takes that for 0)"
)
NOT_UNDERSTOOD = (
    "the node tells no exit status, as Go nodes do, which know of a command no input, user, directory or variables:"
    " it was not done"
)
UNHEARD = (
    "no answer came while it could run; the node is no appliance, as far as is known, and tells errorCentral alone of what"
    " it could not begin or stopped"
)
INTERRUPTED = "interrupted: "
ENDED_EARLY = "ended early: "
"""How the words begin of an answer that the end of its node's daemon, or of a worker there, has cut off."""
_ENDS = frozenset({DeliveryState.REFUSED, DeliveryState.FAILED, DeliveryState.EXPIRED})
_ORDER = (
    DeliveryState.SENT,
    DeliveryState.STORED,
    DeliveryState.TAKEN,
    DeliveryState.WORKING,
    DeliveryState.DONE,
)
_MAX_STATUS_DIGITS = 9


def say_signal(number: int) -> str:
    """``ended by signal 9 (SIGKILL)``: an exit status of 137 may as well be the program's own."""
    try:
        name = f" ({signal.Signals(number).name})"
    except ValueError:
        name = ""
    return f"ended by signal {number}{name}"


def was_cut_off(status: str | None) -> bool:
    """Whether an answer tells that its node ended it, and not what was asked for."""
    why = (status or "").removeprefix("failed: ")
    return why.startswith((INTERRUPTED, ENDED_EARLY))


class Kind(StrEnum):
    """How a message counts where several are summed up."""

    DONE = "done"
    FAILED = "failed"
    SILENT = "silent"
    """Something is still to come, as far as anybody can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFacts:
    """An answer, or a piece of one, without its data. `exit_status` is what the node said: a number, or why not."""

    exit_status: str | None = None
    has_more: bool = False
    tells_stream: bool = False
    is_cut: bool = False
    is_truncated: bool = False
    is_stderr_cut: bool = False
    is_held: bool = False
    stopped_after_s: float | None = None
    signal: int | None = None
    not_filed: str = ""


@dataclass(slots=True)
class Outcome:
    """Of one message. `state` is None for one that was not accepted."""

    state: DeliveryState | None = DeliveryState.ACCEPTED
    why: str = ""
    is_settled: bool = False
    """Whether nothing more depends on this side; the other may still be at work."""
    wants_answer: bool = False
    """Whether its method answers."""
    streams: bool = False
    """Whether its answer may come in pieces of which a Go node does not tell the last."""
    for_appliances: bool = False
    """Whether no other node understands it: one that answers as a Go node does has not done it."""
    is_answered: bool = False
    """Whether its answer is complete."""
    has_spoken: bool = False
    has_more: bool = False
    """Whether the node tells when more is to come, which a Go node does not: there only time tells that no more is."""
    is_appliance: bool = False
    exit_status: int | None = None
    is_cut: bool = False
    """Too long to be shown or kept here as a whole."""
    is_truncated: bool = False
    """Thrown away in part where it was made."""
    is_stderr_cut: bool = False
    """Only the end of its error output came."""
    is_held: bool = False
    stopped_after_s: float | None = None
    signal: int | None = None
    not_filed: str = ""
    """Why its answer, which was to be filed here, is not."""

    # -- facts ------------------------------------------------------------------------------------

    def stand(self, standing: Standing, *, settles: bool = False) -> bool:
        """Where it stands now; whether that is another place than before, or for another reason."""
        if self.has_failed:
            return False
        is_end = standing.state in _ENDS
        # an answer tells more than an acknowledgement that comes later, or never
        is_known = (self.is_answered and is_end) or (
            self.is_settled and not is_end and not self._is_before(standing.state)
        )
        self.is_settled |= settles
        if is_known or (self.state, self.why) == (standing.state, standing.why):
            return False
        self.state, self.why = standing.state, standing.why
        return True

    def reject(self, why: str) -> None:
        """It was not accepted."""
        self.state, self.why, self.is_settled = None, why, True

    def answer(self, facts: AnswerFacts) -> bool:
        """Its answer, or a piece of it, is here; whether it is complete by that."""
        status = facts.exit_status
        self.is_appliance |= facts.tells_stream or status is not None
        self.has_spoken = True
        self.has_more |= facts.has_more
        self.is_cut |= facts.is_cut
        self.is_truncated |= facts.is_truncated
        self.is_stderr_cut |= facts.is_stderr_cut
        self.is_held |= facts.is_held
        self.stopped_after_s = facts.stopped_after_s or self.stopped_after_s
        self.signal = facts.signal or self.signal
        self.not_filed = facts.not_filed or self.not_filed
        if self.for_appliances and not (self.is_appliance or self.has_more):
            self.is_answered = self.is_settled = True
            self.state, self.why = DeliveryState.FAILED, NOT_UNDERSTOOD
            return True
        # of a Go node nothing tells whether more is to come, and its answers in pieces have no end
        is_endless = self.streams and not self.has_more and status is None
        if facts.has_more or is_endless:
            return False
        self.is_answered = self.is_settled = True
        self.exit_status = _read_status(status)
        if status is None or self.exit_status is not None:
            self.state, self.why = DeliveryState.DONE, ""
        else:
            self.state, self.why = DeliveryState.FAILED, status.removeprefix("failed: ")
        return True

    def end_unheard(self) -> None:
        """Nothing more is to come of a node that tells no end: its time is over."""
        if self.is_over:
            return
        self.is_answered = self.is_settled = True
        if self.has_spoken:
            self.state, self.why = DeliveryState.DONE, ""
        else:
            self.state, self.why = DeliveryState.EXPIRED, UNHEARD

    def begin_again(self) -> None:
        """An operator has it tried anew: nothing of before counts."""
        fresh = Outcome(
            wants_answer=self.wants_answer,
            streams=self.streams,
            for_appliances=self.for_appliances,
        )
        for item in fields(Outcome):
            setattr(self, item.name, getattr(fresh, item.name))

    # -- words ------------------------------------------------------------------------------------

    @property
    def has_failed(self) -> bool:
        """Whether it ended without having been done, or was never accepted."""
        return self.state is None or self.state in _ENDS

    @property
    def is_refused(self) -> bool:
        """Whether the other side, or this one, has said that it is not done: no answer will come."""
        return self.state in (None, DeliveryState.REFUSED, DeliveryState.FAILED)

    @property
    def is_expired(self) -> bool:
        """Whether its time was over before anybody took it: nobody has said no to it."""
        return self.state is DeliveryState.EXPIRED

    @property
    def is_delivered(self) -> bool:
        """Whether the other side has it, or whoever asks for no acknowledgement has sent it."""
        return self.state in DELIVERED or (self.is_settled and not self.has_failed)

    @property
    def is_absent(self) -> bool:
        """Whether nobody takes it at its destination."""
        return self.state is DeliveryState.WAITING and self.why == WaitReason.NOBODY

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come of it."""
        return self.has_failed or self.is_answered or (self.is_settled and not self.wants_answer)

    @property
    def is_status_unknown(self) -> bool:
        """Whether it was answered and not told how its program ended: unknown is not 0."""
        is_heard = self.has_spoken and (self.is_answered or not self.has_more)
        return is_heard and self.exit_status is None and not self.has_failed

    @property
    def is_incomplete(self) -> bool:
        """Whether a part of what it says was lost."""
        return self.is_cut or self.is_truncated

    @property
    def is_silent(self) -> bool:
        """Whether its answer, or where none is due its acknowledgement, is still to come, as far as anybody can tell."""
        return not self.is_over and (self.has_more or not self.has_spoken)

    def judge(self, *, wants_status: bool = False) -> Kind:
        """How it counts. With `wants_status` an unknown exit status is a failure."""
        is_unknown = wants_status and self.is_status_unknown
        is_bad = self.exit_status or self.is_incomplete or self.not_filed
        if self.has_failed or is_bad or is_unknown:
            return Kind.FAILED
        return Kind.SILENT if self.is_silent else Kind.DONE

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

    def describe_ending(self) -> str | None:
        """Words for how the program ended where that was not by itself and as a whole."""
        if self.stopped_after_s is not None:
            return f"stopped after {self.stopped_after_s:g} s"
        if self.signal is not None:
            return say_signal(self.signal)
        return "what it left behind held its output and was ended" if self.is_held else None

    def _is_before(self, state: DeliveryState) -> bool:
        """Whether `state` tells more than is known."""
        known = _ORDER.index(self.state) if self.state in _ORDER else -1
        return state in _ORDER and _ORDER.index(state) > known


def _read_status(status: str | None) -> int | None:
    if status is None or not (status.isascii() and status.isdecimal()):
        return None
    return int(status) if len(status) <= _MAX_STATUS_DIGITS else None
