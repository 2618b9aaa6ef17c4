"""Operations as the loop hands them over, and the batch that one commit makes of many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from appliance.outbox.facts import FactChanges
from appliance.outbox.memory import SenderKey
from appliance.outbox.records import (
    DONE_VERDICT,
    MAX_VERDICT_CHARS,
    FinishItem,
    OutboxRecord,
    TakeIn,
    TakeInResult,
    Taken,
)
from appliance.outbox.rows import (
    inbox_crc,
    inbox_head,
    outbox_crc,
    outbox_head,
    pack,
    plain_text,
    seal,
    tries_of,
)

if TYPE_CHECKING:
    from appliance.outbox.database import Database


@dataclass(slots=True)
class Put:
    """Accept records for sending."""

    records: Sequence[OutboxRecord]
    future: asyncio.Future[None]
    facts: FactChanges = field(default_factory=dict)


@dataclass(slots=True)
class Settle:
    """What publishers concluded since the last hand-over. Never given up: kept until it is
    committed.
    """

    done: list[int] = field(default_factory=list)
    tries: dict[int, str | None] = field(default_factory=dict)


@dataclass(slots=True)
class Bury:
    """Move a record to the dead letters. Never given up, like `Settle`."""

    record_id: int
    reason: str
    died_at: float
    tries: str | None
    future: asyncio.Future[None]


@dataclass(slots=True)
class Take:
    """Messages that arrived."""

    items: Sequence[TakeIn]
    future: asyncio.Future[None]
    results: list[Taken] = field(default_factory=list)


@dataclass(slots=True)
class Finish:
    """Messages whose handling ended, with the replies they caused."""

    items: Sequence[FinishItem]
    replies: Sequence[OutboxRecord]
    future: asyncio.Future[None]
    is_urgent: bool = True
    """Whether somebody waits for the commit; else it may gather company for a moment."""


@dataclass(slots=True)
class Annotate:
    """A start mark, or with `note` a handler's journal entry, for a message in the inbox."""

    row_ids: Sequence[int]
    note: str | None
    future: asyncio.Future[None]


@dataclass(slots=True)
class Call:
    """Anything rare: runs alone, between batches."""

    function: Callable[[Database], Any]
    future: asyncio.Future[Any]
    note: Callable[[Any], None] | None = None
    """Told of the result in its turn among the commits, also when nobody waits for the future any more."""


@dataclass(slots=True)
class Stop:
    """The last operation."""

    future: asyncio.Future[None]


Operation = Put | Settle | Bury | Take | Finish | Annotate

SeenKey = tuple[int, int]
Known = tuple[int | None, int, str]


class Batch:
    """Rows for one commit. Numbers of new lanes and senders count only once the batch is committed."""

    def __init__(self, database: Database, now: float, found: Mapping[SeenKey, Known]) -> None:
        self._database = database
        self._now = now
        self._found = found
        self._taken: set[SeenKey] = set()
        self._blob: list[bytes] = []
        self._offset = 1
        self.lanes: dict[tuple[str, str], int] = {}
        self.senders: dict[SenderKey, int] = {}
        self._puts: list[tuple[Any, ...]] = []
        self._tries: dict[int, str | None] = {}
        self._dead: list[tuple[int, str, float, str | None]] = []
        self._gone: list[int] = []
        self._inbox: list[tuple[Any, ...]] = []
        self._started: list[int] = []
        self._notes: list[tuple[int, str]] = []
        self.seen: dict[SeenKey, Known] = {}
        self._facts: list[tuple[str, str, str | None]] = []
        self.remembered: list[int] = []
        self._dropped: list[int] = []
        self.inbox_rows = 0

    @property
    def dead_count(self) -> int:
        """Records that become dead letters."""
        return len(self._dead)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self._puts
            or self._gone
            or self.seen
            or self._inbox
            or self._tries
            or self._dropped
            or self._started
            or self._notes
            or self._facts
        )

    def add(self, operation: Operation) -> None:
        """Add an operation's rows; a `Take` must have been looked up before (`Database.find_seen`)."""
        if isinstance(operation, Settle):
            self._gone += operation.done
            self._tries.update(operation.tries)
        elif isinstance(operation, Put):
            for record in operation.records:
                self._put(record)
            self._facts += [(*key, value) for key, value in operation.facts.items()]
        elif isinstance(operation, Finish):
            for item in operation.items:
                self._finish(item)
            for record in operation.replies:
                self._put(record)
        elif isinstance(operation, Take):
            operation.results = [self._take(item) for item in operation.items]
        elif isinstance(operation, Annotate):
            if operation.note is None:
                self._started += operation.row_ids
            else:
                self._notes.append((operation.row_ids[0], seal(operation.note)))
        else:
            reason = plain_text(operation.reason)
            self._dead.append((operation.record_id, reason, operation.died_at, operation.tries))
            self._gone.append(operation.record_id)

    def parameters(self, commits: int, last_id: int) -> tuple[Any, ...]:
        """The values of the one statement, in the order of `schema.BATCH_COLUMNS`."""
        return (
            b"".join(self._blob),
            _rows([(no, *key) for key, no in self.lanes.items()]),
            _rows([(no, *key) for key, no in self.senders.items()]),
            _rows(self._puts),
            _rows(list(self._tries.items())),
            _rows(self._dead),
            _rows(self._gone),
            _rows(self._inbox),
            _rows(self._started),
            _rows(self._notes),
            _rows([(*key, int(self._now), *known) for key, known in self.seen.items()]),
            _rows(self._dropped),
            _rows(self._facts),
            commits,
            last_id,
        )

    def _cut(self, part: bytes) -> tuple[int, int]:
        """Lay bytes into the blob; where they start and how many they are."""
        start, size = self._offset, len(part)
        self._blob.append(part)
        self._offset += size
        return start, size

    def _put(self, record: OutboxRecord) -> None:
        node, subject = key = (record.node, record.subject)
        lane = self._database.lanes.get(key) or self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = self._database.next_lane + len(self.lanes)
        head = outbox_head(record)
        payload = record.payload
        crc = outbox_crc(record.id, node, subject, head, payload)
        row = (record.id, lane, *self._cut(head), *self._cut(payload), crc, tries_of(record))
        self._puts.append(row)
        record.place = record.id

    def _sender(self, subject: str, sender: str, instance: str) -> int:
        key = (subject, sender, instance)
        number = self._database.senders.numbers.get(key) or self.senders.get(key)
        if number is None:
            "\0".join(key).encode()  # what is no UTF-8 must not enter the table
            number = self.senders[key] = self._database.senders.next_number + len(self.senders)
        return number

    def _finish(self, item: FinishItem) -> None:
        if item.instance is not None:
            sender = self._sender(item.scope, item.sender, item.instance)
            verdict = item.verdict
            if verdict != DONE_VERDICT:
                verdict = plain_text(verdict)[:MAX_VERDICT_CHARS]
            self.seen[sender, item.message_id] = (None, item.attempt, verdict)
            if item.row_id is None:
                self.remembered.append(sender)
        if item.row_id is not None:
            self._dropped.append(item.row_id)

    def _take(self, item: TakeIn) -> Taken:
        key: SeenKey | None = None
        if item.instance is not None:
            sender = self._sender(item.scope, item.sender, item.instance)
            key = (sender, item.message_id)
            if key in self.seen:  # finished, or taken in, by an operation of this very batch
                known: Known | None = self.seen[key]
            else:
                known = self._found.get(key)
            if known is not None:
                row_id, attempt, verdict = known
                if row_id is not None:
                    return Taken(TakeInResult.REPEAT_UNFINISHED, row_id, None)
                if verdict == DONE_VERDICT or item.attempt <= attempt:
                    return Taken(TakeInResult.REPEAT_DONE, None, verdict)
            if key in self._taken:
                return Taken(TakeInResult.REPEAT_UNFINISHED, None, None)
            self._taken.add(key)
        if not item.keep_body:
            return Taken(TakeInResult.FRESH, None, None)
        row_id = self._database.next_row_id + self.inbox_rows
        self.inbox_rows += 1
        head = inbox_head(item, self._now)
        crc = inbox_crc(row_id, head, item.payload)
        parts = (*self._cut(head), *self._cut(item.payload))
        self._inbox.append((row_id, item.node, item.method, *parts, crc, 0))
        if key is not None:
            self.seen[key] = (row_id, item.attempt, "")
            self.remembered.append(key[0])
        return Taken(TakeInResult.FRESH, row_id, None)


def _rows(rows: Sequence[Any]) -> str | None:
    return pack(rows).decode() if rows else None
