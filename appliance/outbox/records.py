"""Values that go into the store and come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from appliance.core.names import NodeName, Subject

LaneKey = tuple[NodeName, Subject]
"""Sending node and subject: what one publisher empties."""


@dataclass(slots=True)
class OutboxRecord:
    """One message to send. Mutable: its publisher counts attempts and may rewrite the payload's
    encoding.

    `ack_timeout_s` and `retries` override the publisher's; `headers` go out beside those of the
    encoding. Times are wall-clock seconds.
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

    @property
    def lane_key(self) -> LaneKey:
        """The lane it waits in."""
        return (NodeName(self.node), Subject(self.subject))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record parked for a human, with the reason."""

    record: OutboxRecord
    reason: str
    died_at: float


class TakeInResult(StrEnum):
    """What the store knew of a message that arrived."""

    FRESH = "fresh"
    REPEAT_DONE = "repeat_done"
    REPEAT_UNFINISHED = "repeat_unfinished"


@dataclass(slots=True)
class TakeIn:
    """One message that arrived.

    `instance` is the sending store's name, None when the sender gives no usable id: then nothing is
    remembered. With `keep_body` the message is durable when `take_in` returns; `started` marks it
    as given to its handler at once.
    """

    node: str
    subject: str
    sender: str
    instance: str | None
    message_id: int
    payload: bytes
    headers: Mapping[str, str]
    reply_to: str
    keep_body: bool
    started: bool = False


@dataclass(slots=True)
class FinishItem:
    """One message whose handling has ended. `row_id` names its stored body, None where none was
    kept.
    """

    row_id: int | None
    subject: str
    sender: str
    instance: str | None
    message_id: int


@dataclass(slots=True)
class InboxRow:
    """A message taken in and not finished. `note` is what `MessageStore.note` stored last."""

    row_id: int
    node: str
    subject: str
    sender: str
    instance: str | None
    message_id: int
    payload: bytes
    headers: dict[str, str]
    reply_to: str
    taken_at: float
    started: bool
    note: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What the outbox holds now. `pending` includes `in_flight`, what publishers have in hand."""

    pending: int
    in_flight: int
    dead: int
    oldest_created_at: float | None
