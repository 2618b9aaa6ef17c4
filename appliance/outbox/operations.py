"""What the event loop hands to the writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from appliance.errors import StoreError
from appliance.outbox.blobs import Tries
from appliance.outbox.facts import FactChanges
from appliance.outbox.letters import LetterRow
from appliance.outbox.records import DoneRun, FinishItem, LaneKey, OutboxRecord, TakeIn, Taken

if TYPE_CHECKING:
    from appliance.outbox.database import Database


@dataclass(slots=True)
class Put:
    """Accept records for sending, and change facts with them."""

    records: Sequence[OutboxRecord]
    future: asyncio.Future[None]
    facts: FactChanges = field(default_factory=dict)
    since_mono: float = 0.0


@dataclass(slots=True)
class Settle:
    """What publishers concluded since the last hand-over, by place. Never given up: kept until it is
    committed.
    """

    done: list[int] = field(default_factory=list)
    tries: dict[int, Tries] = field(default_factory=dict)
    since_mono: float = 0.0


@dataclass(slots=True)
class Bury:
    """Make dead letters of the records at some places. Never given up, like `Settle`."""

    places: list[int]
    letters: list[LetterRow]
    future: asyncio.Future[None]
    since_mono: float = 0.0


@dataclass(slots=True)
class Take:
    """Messages that arrived."""

    items: Sequence[TakeIn]
    future: asyncio.Future[None]
    results: list[Taken] = field(default_factory=list)
    since_mono: float = 0.0


@dataclass(slots=True)
class Finish:
    """Messages whose handling ended, with the replies they caused."""

    items: Sequence[FinishItem]
    done: Sequence[DoneRun]
    replies: Sequence[OutboxRecord]
    then: Callable[[StoreError | None], None]
    """Told in the end, why it failed or None."""
    is_urgent: bool = True
    """Whether somebody waits for the commit; else it may gather company for a moment."""
    since_mono: float = 0.0


@dataclass(slots=True)
class Annotate:
    """Start marks, or with `note` a handler's journal entry, for messages in the inbox."""

    row_ids: Sequence[int]
    note: str | None
    future: asyncio.Future[None]
    since_mono: float = 0.0


@dataclass(slots=True)
class Call:
    """Anything rare: runs alone, between batches."""

    function: Callable[[Database], Any]
    future: asyncio.Future[Any]
    note: Callable[[Any], None] | None = None
    """Told of the result in its turn among the commits, also when nobody waits for the future any more."""
    since_mono: float = 0.0


@dataclass(slots=True)
class Stop:
    """The last operation."""

    future: asyncio.Future[None]
    since_mono: float = 0.0


@dataclass(slots=True)
class Moved:
    """From the writer: records are at other places now, by lane and id."""

    by_lane: dict[LaneKey, dict[int, int]]
    old_places: list[int]


Operation = Put | Settle | Bury | Take | Finish | Annotate


def measure(operation: Operation) -> tuple[int, int]:
    """Rows and bytes that an operation adds to a batch, roughly."""
    if isinstance(operation, Put):
        return len(operation.records), sum([len(record.payload) for record in operation.records])
    if isinstance(operation, Take):
        return len(operation.items), sum(
            [len(item.payload) for item in operation.items if item.keep_body]
        )
    if isinstance(operation, Finish):
        replies = operation.replies
        count = len(operation.items) + len(replies)
        count += sum([max(len(run.row_ids), len(run.message_ids)) for run in operation.done])
        return count, sum([len(reply.payload) for reply in replies])
    if isinstance(operation, Settle):
        return len(operation.done) + len(operation.tries), 0
    if isinstance(operation, Annotate):
        return len(operation.row_ids), 0
    if isinstance(operation, Bury):
        return len(operation.letters), sum(len(letter[3]) for letter in operation.letters)
    raise AssertionError(operation)
