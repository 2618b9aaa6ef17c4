"""Values that go into the store and come out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import NamedTuple

from appliance.core.names import NodeName, Subject

LaneKey = tuple[NodeName, Subject]
"""Sending node and subject: what one publisher empties."""

DONE_VERDICT = "done"
MAX_VERDICT_CHARS = 300


AWAITED_ORIGIN = "awaited"
"""The origin of what is sent for somebody who waits for it and says what became of it: given up, it is no dead letter."""


@dataclass(slots=True)
class OutboxRecord:
    """One message to send. Mutable: its publisher counts attempts and may rewrite the payload's
    encoding.

    `ack_timeout_s` and `retries` override the publisher's; `headers` go out beside those of the
    encoding. Times are steady seconds (`MessageStore.now`). `sends` counts what may have been heard,
    `taker` is the daemon that said it took the message, `attempt` counts an operator's retries,
    `origin` says who made it (``schedule:<entry>``). `place` is the store's own.
    """

    id: int
    node: str
    subject: str
    to_node: str
    method: str
    payload: bytes
    encoding: str
    wants_ack: bool
    created_at: float
    expires_at: float | None = None
    ack_timeout_s: float | None = None
    retries: int | None = None
    headers: dict[str, str] | None = None
    attempts: int = 0
    next_at: float = 0.0
    last_error: str = ""
    sends: int = 0
    taker: str = ""
    attempt: int = 0
    origin: str = ""
    place: int = field(default=0, compare=False, repr=False)

    @property
    def lane_key(self) -> LaneKey:
        """The lane it waits in."""
        return (NodeName(self.node), Subject(self.subject))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record parked for a human, with the reason. `died_at` in steady seconds."""

    record: OutboxRecord
    reason: str
    died_at: float


class TakeInResult(StrEnum):
    """What the store knew of a message that arrived."""

    FRESH = "fresh"
    REPEAT_DONE = "repeat_done"
    REPEAT_UNFINISHED = "repeat_unfinished"


class TakeIn(NamedTuple):
    """One message that arrived.

    Ids are remembered per `scope` (``<node>.<method>``), sender and `instance`, the sending store's
    name; None when the sender gives no usable id: then nothing is remembered. `block` is the raw
    header block. With `keep_body` the message is durable when `take_in` returns. `attempt` counts
    the retries that an operator of the sending side asked for.
    """

    scope: str
    node: str
    method: str
    subject: str
    sender: str
    instance: str | None
    message_id: int
    attempt: int
    payload: bytes
    block: bytes
    reply_to: str
    keep_body: bool


class Taken(NamedTuple):
    """What became of a `TakeIn`. `row_id` names the stored body, `verdict` is that of a repeat:
    ``done``, ``failed: …``, ``refused: …``.
    """

    result: TakeInResult
    row_id: int | None
    verdict: str | None


class FinishItem(NamedTuple):
    """One message whose handling has ended. `row_id` names its stored body, None where none was
    kept.
    """

    row_id: int | None
    scope: str
    sender: str
    instance: str | None
    message_id: int
    attempt: int = 0
    verdict: str = DONE_VERDICT


class CalledOff(Enum):
    """Where a message was when its sender called it off."""

    NEVER_CAME = "never came"
    """It is remembered as failed, whenever it comes."""
    WAITS = "waits"
    """It is in the inbox, begun or not, and marked there."""
    HAS_ENDED = "has ended"


CALLED_OFF_NOTE = "called off"
"""What is noted with a message in the inbox that was called off."""
CALLED_OFF_VERDICT = "failed: cancelled before it began"


@dataclass(slots=True)
class DoneRun:
    """Messages of one sender that were handled as they should be, in the attempt they came with first: what became of
    most. Noted together, since there is nothing to be said of any one of them.

    `row_ids` name their stored bodies where they had some, `message_ids` are to be remembered; empty without `instance`.
    """

    scope: str
    sender: str
    instance: str | None
    row_ids: list[int] = field(default_factory=list)
    message_ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class InboxRow:
    """A message taken in and not finished. `note` is what `MessageStore.note` stored last; `taken_at`
    in steady seconds.
    """

    row_id: int
    node: str
    method: str
    subject: str
    sender: str
    instance: str | None
    message_id: int
    attempt: int
    payload: bytes
    block: bytes
    reply_to: str
    taken_at: float
    started: bool
    note: str

    @property
    def scope(self) -> str:
        """Where its id is remembered."""
        return f"{self.node}.{self.method}"


@dataclass(frozen=True, slots=True)
class Counts:
    """What the store holds now. `pending` includes what publishers have in hand, which they count (`WorkerStats.in_flight`);
    `inbox` are messages taken in and not finished, `bytes` what all of it takes on disk.
    """

    pending: int
    dead: int
    oldest_created_at: float | None
    inbox: int = 0
    bytes: int = 0


class HealthState(StrEnum):
    """How the store is. All but `OK` and `BROKEN` end by themselves or by an operator's hand."""

    OK = "ok"
    FULL = "full"
    READ_ONLY = "read_only"
    DAMAGED = "damaged"
    BEHIND = "behind"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """The store's own state, in words; `since` in steady seconds. A text beside `OK` is a warning."""

    state: HealthState
    text: str = ""
    since: float = 0.0
