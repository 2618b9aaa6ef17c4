"""What is kept of a job, as the file holds it. Keys are read by later versions: extend them, do not rename them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from appliance.core.delivery import DeliveryState, Standing
from appliance.core.message import body_number
from appliance.core.outcome import Kind, Outcome
from appliance.core.relay import is_answer_of


class JobFacts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was asked, by whom."""

    command: str
    """The command that asked: `exec`, `send`, `cp`."""
    by: str = ""
    """The operator, in the words of the audit."""
    node: str = ""
    """The own node that asks."""
    method: str = ""
    args: list[str] = []
    """Without the values that nobody may see."""
    data_bytes: int = 0
    for_caller: bool = False
    """The answers are for whoever asked, and filed nowhere but here."""
    wants_status: bool = False
    """An answer that tells no exit status is a failure."""
    is_now: bool = False
    """Only nodes that are there: for the others nothing waits."""
    instance: str = ""
    """The store whose outbox the messages wait in."""
    batches: int = 1
    """In how many batches it is to be asked; those after one in which too many failed are not."""
    files: int = 0
    """How many files a copy of several is of: each becomes a message when its turn comes."""
    cancelled_by: str = ""
    cancelled_at: float = 0.0


class TargetFacts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of a job: where it goes."""

    to: str
    node: str = ""
    subject: str = ""
    via: str = ""
    filed: str = ""
    """Where its answer lies, below the state directory, where a file method files it."""
    batch: int = 1
    """Which of the batches of its job it was asked in."""
    file: str = ""
    """Of a copy of several files the one that it is about."""
    time_s: float = 0.0
    """How long a node may work at it that is no appliance, and tells no end of it."""


class Ending(StrEnum):
    """How far an operator's wish to end a message has come."""

    NOT_ASKED = ""
    ASKED = "asked"
    TAKING_BACK = "taking back"
    """It is about to leave the outbox, and nobody has heard it; one that is not there any more has left it so."""
    LETTING_GO = "letting go"
    """Likewise, of one that may have been heard."""


LEAVES_OUTBOX = (Ending.TAKING_BACK, Ending.LETTING_GO)


def taken_back(ending: Ending, by: str) -> Standing:
    """The end of a message that an operator has taken out of the outbox."""
    why = f"cancelled by {by or 'an operator'}"
    if ending is Ending.LETTING_GO:
        return Standing(DeliveryState.EXPIRED, f"{why}; it may have been heard")
    return Standing(DeliveryState.FAILED, why)


class TargetState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What became of it so far."""

    outcome: Outcome = msgspec.field(default_factory=Outcome)
    forgotten_bytes: int = 0
    """Of the beginning of its output."""
    stopped: str = ""
    """What came of stopping it, in words."""
    is_stop_in_vain: bool = False
    over_at: float = 0.0
    """From when on nothing is waited for any more, in steady seconds: a Go node has it. 0 for never."""
    ending: Ending = Ending.NOT_ASKED
    """How far an operator's wish to end it has come: a daemon that ends meanwhile goes on with it."""


@dataclass(slots=True, eq=False)
class KeptJob:
    """What is known in memory of every job that is kept. `at` in steady seconds."""

    key: int
    id: str
    at: float
    size_bytes: int = 0
    is_cancelled: bool = False
    """Nothing more is asked for it."""
    open: dict[Target, None] = field(default_factory=dict)
    """Messages of which something may still come."""


@dataclass(slots=True, eq=False)
class Target:
    """A message of a job of which something may still come; `message` is None for one that was not accepted."""

    key: int
    job: KeptJob
    message: int | None
    facts: TargetFacts
    state: TargetState
    wants_status: bool = False
    is_now: bool = False
    kept_bytes: int = 0

    @property
    def outcome(self) -> Outcome:
        """What became of it so far."""
        return self.state.outcome

    @property
    def number(self) -> int:
        """The number in its body, which answers repeat."""
        return body_number(self.message or 0)

    @property
    def answerer(self) -> str:
        """The node whose answer counts."""
        return self.facts.via or self.facts.to

    def is_answered_by(self, from_node: str, asked: str, relayed_by: str = "") -> bool:
        """Whether an answer of `from_node` counts that says that `asked` was asked, and came by way of a Go node, if any."""
        facts = self.facts
        return is_answer_of(from_node, asked, to=facts.to, via=facts.via, relayed_by=relayed_by)

    @property
    def kind(self) -> Kind:
        """How it counts."""
        return self.outcome.judge(wants_status=self.wants_status)

    @property
    def is_open(self) -> bool:
        """Whether anything may still come: also an answer to what was given up because nobody acknowledged it."""
        outcome = self.outcome
        if not outcome.is_settled:
            return True
        return outcome.wants_answer and not outcome.is_answered and not outcome.is_refused
