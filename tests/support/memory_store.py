"""A double of `MessageStore`: in memory, on the event loop, on a disk that outlives it.

It keeps what the real store keeps (accepted records, dead letters, what was taken in, the verdicts of what was handled,
small facts) in plain dictionaries, uses the real `Lane`, and gives its answers in the same order: operations are
gathered over a turn of the loop, one commit at a time takes a while, and whatever waits for it goes on after it. The
contract tests of the store run against both.

What only a double can do: `crash()` loses everything that is not committed and leaves a store of which nothing is heard
any more; `MemoryDisk.crash_at` makes it happen at a commit chosen beforehand, before it became durable or right after;
`MemoryDisk.is_full` refuses what needs room; `commit_s` says how long a commit takes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from appliance.core.specs import StateSettings
from appliance.errors import StoreError, StoreFull, StoreUnusable
from appliance.outbox.ids import IdSource
from appliance.outbox.lane import MAX_BYTES, Lane
from appliance.outbox.newness import IdKey
from appliance.outbox.queries import ANY_ATTEMPT
from appliance.outbox.records import (
    CALLED_OFF_NOTE,
    CALLED_OFF_VERDICT,
    CalledOff,
    Counts,
    DeadLetter,
    DoneRun,
    FinishItem,
    HealthState,
    InboxRow,
    LaneKey,
    OutboxRecord,
    StoreHealth,
    TakeIn,
    TakeInResult,
    Taken,
)
from appliance.outbox.store import CROWDED_SHARE

FULL_RETRY_S = 0.2
DEFAULT_COMMIT_S = 0.002


class SeenKey(NamedTuple):
    """What is remembered of a message."""

    scope: str
    sender: str
    instance: str
    message_id: int


@dataclass(slots=True)
class Remembered:
    """A finished message: the operator's attempt that it was, what became of it, and when (steady seconds)."""

    attempt: int
    verdict: str
    at: float


@dataclass(slots=True)
class CrashPoint:
    """Crash at the `commit`-th commit from the making of the disk (from 1), before it is durable or right after."""

    commit: int
    is_durable: bool


class Evidence(NamedTuple):
    """One durable fact, for checkers: `what` is put, taken, started, finished, settled, dead, revived or dropped."""

    at: float
    what: str
    message_id: int
    scope: str = ""
    text: str = ""


@dataclass(slots=True)
class MemoryDisk:
    """What outlives a store. The second half is for tests: faults to meet, and what happened."""

    instance: str
    last_id: int = 0
    steady_offset_s: float | None = None
    records: dict[int, OutboxRecord] = field(default_factory=dict)
    dead: dict[int, DeadLetter] = field(default_factory=dict)
    seen: dict[SeenKey, Remembered] = field(default_factory=dict)
    inbox: dict[int, InboxRow] = field(default_factory=dict)
    row_of: dict[SeenKey, int] = field(default_factory=dict)
    last_row_id: int = 0
    facts: dict[str, dict[str, str]] = field(default_factory=dict)

    commit_s: Callable[[], float] = lambda: DEFAULT_COMMIT_S
    is_full: bool = False
    crash_at: CrashPoint | None = None
    crash_at_verdict: bool | None = None
    """Crash at the next commit that remembers a verdict: right after it (True) or before it is durable (False)."""
    on_crash: Callable[[], None] | None = None
    """Called when `crash_at` is reached, after the store has crashed: whoever owns it goes down, too."""
    commits: int = 0
    evidence: list[Evidence] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Operation:
    """One step of a commit. `apply` changes the disk; `note` tells the loop's side; `needs_room` may be refused."""

    apply: Callable[[], Any]
    future: asyncio.Future[Any]
    note: Callable[[Any], None] | None = None
    needs_room: bool = False
    writes: bool = True
    is_verdict: bool = False


class MemoryStore:
    """See the module; the surface is `MessageStore`'s. Made by `open`, ended by `close` or `crash`."""

    def __init__(
        self,
        disk: MemoryDisk,
        settings: StateSettings,
        *,
        wall: Callable[[], float],
        mono: Callable[[], float],
    ) -> None:
        self.disk = disk
        self._settings = settings
        self._wall = wall
        self._mono = mono
        if disk.steady_offset_s is None:
            disk.steady_offset_s = wall() - mono()
        self._offset_s = disk.steady_offset_s
        self._loop = asyncio.get_running_loop()
        self._ids = IdSource(disk.last_id, self.now)
        self.instance = disk.instance
        self.on_new_lane: list[Callable[[LaneKey], None]] = []
        self._lanes: dict[LaneKey, Lane] = {}
        self._pending: dict[int, float] = {}
        """Accepted and not settled: id to when it was accepted."""
        self._settling: set[int] = set()
        self._accepting = 0
        self._facts: dict[str, dict[str, str]] = {
            kind: dict(facts) for kind, facts in disk.facts.items()
        }
        self._queue: list[_Operation] = []
        self._timer: asyncio.Handle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._is_closed = False
        self.is_crashed = False

    @classmethod
    async def open(
        cls,
        disk: MemoryDisk,
        settings: StateSettings | None = None,
        *,
        wall: Callable[[], float],
        mono: Callable[[], float],
    ) -> MemoryStore:
        """Go on with what is on the disk."""
        store = cls(disk, settings or StateSettings(), wall=wall, mono=mono)
        waiting: dict[LaneKey, list[int]] = {}
        for number in sorted(disk.records):
            record = disk.records[number]
            waiting.setdefault(record.lane_key, []).append(number)
            store._pending[number] = record.created_at
        for key, numbers in waiting.items():
            store.lane(key).add_on_disk(numbers, numbers)
        return store

    async def close(self) -> None:
        """Commit what was concluded, then close."""
        if self._is_closed or self.is_crashed:
            return
        self._is_closed = True
        self.disk.is_full = False
        while self._queue or self._timer is not None:
            self._idle = self._loop.create_future()
            await self._idle
        self.disk.last_id = max(self.disk.last_id, self._ids.last)

    def crash(self) -> None:
        """`kill -9`: what is not committed is gone, and whoever waits here is never answered."""
        self.is_crashed = True
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Time.

    def now(self) -> float:
        """The steady clock: epoch seconds that never jump."""
        return self._mono() + self._offset_s

    def wall_of(self, steady: float) -> float:
        """The wall clock's seconds of a steady time."""
        return steady + self._wall() - self.now()

    # Sending.

    def next_id(self) -> int:
        """One id."""
        return self._ids.next()

    async def put(
        self,
        records: Sequence[OutboxRecord],
        *,
        facts: Mapping[tuple[str, str], str | None] | None = None,
    ) -> None:
        """Accept records: when this returns they are durable and in their lanes. Raises StoreFull, StoreUnusable."""
        if not records and not facts:
            return
        self._check_open()
        self._check_room(len(records))
        changes = dict(facts or {})
        kept = [_copy(record) for record in records]

        def apply() -> None:
            self._put_on_disk(kept)
            self._write_facts(self.disk.facts, changes)

        def note(_: None) -> None:
            self._add(records)
            self._write_facts(self._facts, changes)

        self._accepting += len(records)
        try:
            await self._submit(apply, note, needs_room=True)
        finally:
            self._accepting -= len(records)

    def lane(self, key: LaneKey) -> Lane:
        """The lane of a node and subject; always the same object."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, self.now, self._request_page, self._lane_of)
        return lane

    def _lane_of(self, record: OutboxRecord) -> Lane:
        return self.lane(record.lane_key)

    def lanes_with_records(self) -> set[LaneKey]:
        """Lanes with anything unsettled, held records included."""
        return {key for key, lane in self._lanes.items() if lane.depth or lane.held}

    def is_pending(self, record_id: int) -> bool:
        """Whether it is accepted and not settled."""
        return record_id in self._pending

    def settle_done(self, records: Sequence[OutboxRecord]) -> None:
        """They were delivered. A crash before the commit means one resend."""
        for record in records:
            if self._forget_held(record):
                number = record.id

                def apply(number: int = number) -> None:
                    if self.disk.records.pop(number, None) is not None:
                        self._witness("settled", number)

                self._settle(number, apply)

    def settle_retry(self, records: Sequence[OutboxRecord]) -> None:
        """Remember what was tried; the records stay where they are."""
        for record in records:
            tried = _tries(record)

            def apply(number: int = record.id, tried: dict[str, Any] = tried) -> None:
                kept = self.disk.records.get(number)
                if kept is not None:
                    self.disk.records[number] = replace(kept, **tried)

            self._enqueue(_Operation(apply, self._unawaited()))

    def settle_dead(self, record: OutboxRecord, reason: str) -> Awaitable[None]:
        """The record becomes a dead letter. The result need not be awaited."""
        if not self._forget_held(record):
            done: asyncio.Future[None] = self._loop.create_future()
            done.set_result(None)
            return done
        tried, died_at = _tries(record), self.now()

        def apply() -> None:
            kept = self.disk.records.pop(record.id, None)
            if kept is not None:
                self.disk.dead[record.id] = DeadLetter(replace(kept, **tried), reason, died_at)
                self._witness("dead", record.id, text=reason)

        return self._settle(record.id, apply)

    def _settle(self, number: int, apply: Callable[[], None]) -> asyncio.Future[None]:
        self._settling.add(number)
        future = self._unawaited()
        self._enqueue(_Operation(apply, future, lambda _: self._settling.discard(number)))
        return future

    def _forget_held(self, record: OutboxRecord) -> bool:
        lane = self._lanes.get(record.lane_key)
        if lane is None or lane.forget(record.id) is None:
            return False
        self._pending.pop(record.id, None)
        return True

    async def rename_lane(self, old: LaneKey, new: LaneKey) -> int:
        """Waiting records follow their destination; how many."""
        if old == new or old not in self._lanes:
            return 0
        source, target = self.lane(old), self.lane(new)
        node, subject = new
        count = 0

        def apply() -> list[int]:
            moved = [
                number for number, record in self.disk.records.items() if record.lane_key == old
            ]
            for number in moved:
                kept = self.disk.records[number]
                self.disk.records[number] = replace(kept, node=node, subject=subject)
            return moved

        def note(moved: list[int]) -> None:
            nonlocal count
            left = {number: number for number in moved if number in self._pending}
            count = source.hand_over(left, target)
            if source.on_renamed is not None:
                source.on_renamed(new)
            if count:
                self._announce({new})

        await self._submit(apply, note)
        return count

    # Receiving.

    async def take_in(self, items: Sequence[TakeIn]) -> list[Taken]:
        """Look up each message and store the bodies that must be kept, in one commit. Raises StoreFull."""
        self._check_open()
        taken_now: set[SeenKey] = set()

        def apply() -> list[Taken]:
            return [self._take(item, taken_now) for item in items]

        keeps = any(item.keep_body for item in items)
        return list(await self._submit(apply, needs_room=keeps, writes=keeps))

    def _take(self, item: TakeIn, taken_now: set[SeenKey]) -> Taken:
        disk = self.disk
        key = _seen_key(item)
        if key is not None:
            row_id = disk.row_of.get(key)
            if row_id is not None:
                return Taken(TakeInResult.REPEAT_UNFINISHED, row_id, None)
            known = disk.seen.get(key)
            if known is not None and (known.verdict == "done" or item.attempt <= known.attempt):
                return Taken(TakeInResult.REPEAT_DONE, None, known.verdict)
            if key in taken_now:
                return Taken(TakeInResult.REPEAT_UNFINISHED, None, None)
            taken_now.add(key)
        if not item.keep_body:
            return Taken(TakeInResult.FRESH, None, None)
        disk.last_row_id = row_id = disk.last_row_id + 1
        disk.inbox[row_id] = InboxRow(
            row_id=row_id,
            node=item.node,
            method=item.method,
            subject=item.subject,
            sender=item.sender,
            instance=item.instance,
            message_id=item.message_id,
            attempt=item.attempt,
            payload=item.payload,
            block=item.block,
            reply_to=item.reply_to,
            taken_at=self.now(),
            started=False,
            note="",
        )
        if key is not None:
            disk.row_of[key] = row_id
        self._witness("taken", item.message_id, item.scope)
        return Taken(TakeInResult.FRESH, row_id, None)

    def are_surely_new(self, scope: str, ids: Iterable[IdKey | None]) -> bool:
        """Whether each id is above all of its sender, finished or not."""
        highest: dict[tuple[str, str], int] = {}
        for seen in [*self.disk.seen, *self.disk.row_of]:
            if seen.scope == scope:
                whose = (seen.sender, seen.instance)
                highest[whose] = max(highest.get(whose, -1), seen.message_id)
        return all(key is None or key[2] > highest.get(key[:2], -1) for key in ids)

    async def mark_started(self, row_ids: Sequence[int]) -> None:
        """The handlers are about to begin: after a crash the rows say so."""
        self._check_open()
        await self._change_rows(row_ids, {"started": True}, "started")

    async def note(self, row_id: int, text: str) -> None:
        """Keep a handler's journal entry with the message; replaces the one before."""
        self._check_open()
        await self._change_rows([row_id], {"note": text}, "noted")

    async def _change_rows(self, row_ids: Sequence[int], change: dict[str, Any], what: str) -> None:
        def apply() -> None:
            for row_id in row_ids:
                row = self.disk.inbox.get(row_id)
                if row is not None:
                    self.disk.inbox[row_id] = replace(row, **change)
                    self._witness(what, row.message_id, row.scope)

        await self._submit(apply, needs_room=True)

    async def finish(
        self,
        items: Sequence[FinishItem],
        replies: Sequence[OutboxRecord],
        *,
        done: Sequence[DoneRun] = (),
        is_urgent: bool = True,
    ) -> None:
        """Remember verdicts, drop bodies and accept the replies, in one commit. Raises StoreFull."""
        self._check_open()
        if items or replies or done:
            future: asyncio.Future[Any] = self._loop.create_future()
            self.finish_soon(
                items,
                replies,
                lambda error: _answer(future, error=error),
                done=done,
                is_urgent=is_urgent,
            )
            await future

    def finish_soon(
        self,
        items: Sequence[FinishItem],
        replies: Sequence[OutboxRecord],
        then: Callable[[StoreError | None], None],
        *,
        done: Sequence[DoneRun] = (),
        is_urgent: bool = True,
    ) -> None:
        """As `finish`; `then` is told why it failed, or None. Raises StoreFull."""
        self._check_open()
        if replies:
            self._check_room(len(replies))
        kept = [_copy(record) for record in replies]
        items = [*self._items_of(done), *items]

        def apply() -> None:
            for item in items:
                self._finish(item)
            self._put_on_disk(kept)

        def note(_: Any) -> None:
            self._accepting -= len(replies)
            self._add(replies)

        def tell(told: asyncio.Future[Any]) -> None:
            error = told.exception()
            if error is not None:
                self._accepting -= len(replies)
            if not self.is_crashed:
                then(error if isinstance(error, StoreError) else None)

        self._accepting += len(replies)
        future: asyncio.Future[Any] = self._loop.create_future()
        future.add_done_callback(tell)
        self._enqueue(_Operation(apply, future, note, needs_room=True, is_verdict=bool(items)))

    def _items_of(self, runs: Sequence[DoneRun]) -> list[FinishItem]:
        """The same, one by one: rows with the ids they carry, then the ids of those that had no row."""
        items: list[FinishItem] = []
        for run in runs:
            whose = (run.scope, run.sender, run.instance)
            left = dict.fromkeys(run.message_ids)
            for row_id in run.row_ids:
                row = self.disk.inbox.get(row_id)
                message_id = row.message_id if row is not None else 0
                is_known = message_id in left
                left.pop(message_id, None)
                known_as = run.instance if is_known else None
                items.append(FinishItem(row_id, run.scope, run.sender, known_as, message_id))
            items += [FinishItem(None, *whose, message_id) for message_id in left]
        return items

    def _finish(self, item: FinishItem) -> None:
        key = _seen_key(item)
        if item.row_id is not None:
            self._drop_row(item.row_id)
        if key is not None:
            self.disk.seen.pop(key, None)  # NB: so that the order is that of finishing
            self.disk.seen[key] = Remembered(item.attempt, item.verdict, self.now())
        self._witness("finished", item.message_id, item.scope, item.verdict)

    def _drop_row(self, row_id: int) -> bool:
        row = self.disk.inbox.pop(row_id, None)
        if row is None:
            return False
        if row.instance is not None:
            self.disk.row_of.pop(SeenKey(row.scope, row.sender, row.instance, row.message_id), None)
        return True

    async def claim_inbox(self, node: str, method: str) -> list[InboxRow]:
        """Unfinished rows of a node's method, oldest first."""
        return await self._read(
            lambda: [
                replace(row)
                for row in self.disk.inbox.values()
                if (row.node, row.method) == (node, method)
            ]
        )

    async def list_inbox(self, limit: int = 1_000) -> list[InboxRow]:
        """The oldest unfinished rows."""
        return await self._read(lambda: [replace(row) for row in self.disk.inbox.values()][:limit])

    async def inbox_ids(self) -> list[tuple[int, str]]:
        """Id and scope of every unfinished row, oldest first."""
        return await self._read(
            lambda: sorted((row.row_id, row.scope) for row in self.disk.inbox.values())
        )

    async def read_inbox(self, row_ids: Sequence[int]) -> list[InboxRow]:
        """These rows, as far as they are there."""
        return await self._read(
            lambda: [
                replace(self.disk.inbox[row_id]) for row_id in row_ids if row_id in self.disk.inbox
            ]
        )

    async def drop_inbox(self, row_ids: Sequence[int] | None = None) -> int:
        """Forget unfinished rows; how many."""

        def apply() -> int:
            wanted = list(self.disk.inbox) if row_ids is None else row_ids
            return sum([self._forget_row(row_id) for row_id in wanted])

        return int(await self._submit(apply))

    def _forget_row(self, row_id: int) -> bool:
        row = self.disk.inbox.get(row_id)
        if row is not None and row.instance is not None:
            key = SeenKey(row.scope, row.sender, row.instance, row.message_id)
            verdict = "refused: dropped by an operator"
            self.disk.seen[key] = Remembered(row.attempt, verdict, self.now())
        return self._drop_row(row_id)

    async def call_off(
        self, key: tuple[str, str, str] | None, message_id: int, row_id: int | None = None
    ) -> CalledOff:
        """As the real one."""

        def apply() -> CalledOff:
            seen = None if key is None else SeenKey(*key, message_id)
            row = None if seen is None else self.disk.row_of.get(seen)
            row = row_id if row is None else row
            if row in self.disk.inbox:
                self.disk.inbox[row].note = CALLED_OFF_NOTE
                return CalledOff.WAITS
            if seen is None or seen in self.disk.seen:
                return CalledOff.HAS_ENDED
            self.disk.seen[seen] = Remembered(ANY_ATTEMPT, CALLED_OFF_VERDICT, self.now())
            return CalledOff.NEVER_CAME

        return CalledOff(await self._submit(apply))

    # Facts.

    def facts(self, kind: str) -> Mapping[str, str]:
        """What was remembered of a kind."""
        return self._facts.get(kind, {})

    async def remember(self, kind: str, changes: Mapping[str, str | None]) -> None:
        """Change small durable facts; None forgets one."""
        self._check_open()
        keyed = {(kind, key): value for key, value in changes.items()}
        await self._submit(
            lambda: self._write_facts(self.disk.facts, keyed),
            lambda _: self._write_facts(self._facts, keyed),
            needs_room=True,
        )

    @staticmethod
    def _write_facts(
        facts: dict[str, dict[str, str]], changes: Mapping[tuple[str, str], str | None]
    ) -> None:
        for (kind, key), value in changes.items():
            if value is None:
                facts.get(kind, {}).pop(key, None)
            else:
                facts.setdefault(kind, {})[key] = value

    # Operators.

    @property
    def is_crowded(self) -> bool:
        """Whether what answers and reports may use of the room is used up."""
        return len(self._pending) >= self._settings.max_messages * CROWDED_SHARE

    def health(self) -> StoreHealth:
        """How the store is."""
        if self.disk.is_full:
            return StoreHealth(HealthState.FULL, "no room on the disk", self.now())
        return StoreHealth(HealthState.OK, "", self.now())

    def inbox_scopes(self) -> dict[str, int]:
        """How many rows each scope has."""
        return dict(Counter(row.scope for row in self.disk.inbox.values()))

    def counts(self) -> Counts:
        """What the store holds."""
        return Counts(
            pending=len(self._pending),
            dead=len(self.disk.dead),
            oldest_created_at=min(self._pending.values(), default=None),
            inbox=len(self.disk.inbox),
            bytes=sum(len(record.payload) for record in self.disk.records.values()),
        )

    async def list_pending(self, limit: int = 1_000) -> list[OutboxRecord]:
        """The oldest records that wait."""
        return await self._read(
            lambda: [_copy(self.disk.records[number]) for number in sorted(self.disk.records)][
                :limit
            ]
        )

    async def list_dead(self, limit: int = 1_000) -> list[DeadLetter]:
        """The oldest dead letters."""
        return await self._read(
            lambda: sorted(self.disk.dead.values(), key=lambda dead: dead.died_at)[:limit]
        )

    async def find_dead(self, to_node: str, reason_begins: str) -> list[int]:
        """Ids of the dead letters to a node whose reason begins so, oldest first."""
        return await self._read(
            lambda: sorted(
                number
                for number, dead in self.disk.dead.items()
                if dead.reason.startswith(reason_begins)
                and dead.record.subject.rsplit(".", 2)[0] == to_node
            )
        )

    async def retry_dead(self, ids: Sequence[int] | None = None) -> int:
        """Put dead letters back into their lanes with fresh tries, as a new attempt; how many."""

        def apply() -> list[OutboxRecord]:
            revived = []
            for number in _wanted(self.disk.dead, ids):
                record = self._revive(self.disk.dead.pop(number).record)
                self.disk.records[number] = record
                revived.append(_copy(record))
                self._witness("revived", number)
            return revived

        return len(await self._submit(apply, self._add))

    def _revive(self, record: OutboxRecord) -> OutboxRecord:
        expires_at = record.expires_at
        if expires_at is not None:
            expires_at = self.now() + max(0.0, expires_at - record.created_at)
        return replace(
            record,
            created_at=self.now(),
            expires_at=expires_at,
            attempts=0,
            sends=0,
            taker="",
            next_at=0.0,
            last_error="",
            attempt=record.attempt + 1,
        )

    async def drop(self, ids: Sequence[int] | None = None, *, dead_only: bool = True) -> int:
        """Forget dead letters; with `dead_only` off records that wait as well; how many."""

        count = 0
        if not dead_only:
            for lane in self._lanes.values():
                chosen = {number for number, _ in lane.entries()}
                if ids is not None:
                    chosen.intersection_update(ids)
                for number in lane.remove(chosen):
                    count += 1
                    self._pending.pop(number, None)
                    self._settle(number, lambda number=number: self._drop_record(number))  # type: ignore[misc]

        def apply() -> int:
            dead = _wanted(self.disk.dead, ids)
            for number in dead:
                del self.disk.dead[number]
                self._witness("dropped", number)
            return len(dead)

        return count + int(await self._submit(apply))

    def _drop_record(self, number: int) -> None:
        if self.disk.records.pop(number, None) is not None:
            self._witness("dropped", number)

    # Commits.

    def _check_open(self) -> None:
        if self._is_closed or self.is_crashed:
            raise StoreUnusable("the store is closed")

    def _check_room(self, count: int) -> None:
        held = len(self._pending) + self._accepting
        limit = self._settings.max_messages
        if held + count > limit:
            raise StoreFull(
                f"the outbox holds {held} messages, {count} more exceed its limit of {limit}"
            )

    def _unawaited(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return future

    async def _read(self, function: Callable[[], Any]) -> Any:
        self._check_open()
        return await self._submit(function, writes=False)

    async def _submit(
        self,
        apply: Callable[[], Any],
        note: Callable[[Any], None] | None = None,
        *,
        needs_room: bool = False,
        writes: bool = True,
        is_verdict: bool = False,
    ) -> Any:
        self._check_open()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._enqueue(_Operation(apply, future, note, needs_room, writes, is_verdict))
        return await future

    def _enqueue(self, operation: _Operation) -> None:
        if self.is_crashed:
            return
        self._queue.append(operation)
        if self._timer is None:
            self._timer = self._loop.call_soon(self._begin_commit)

    def _begin_commit(self) -> None:
        operations, self._queue = self._queue, []
        self._timer = self._loop.call_later(
            max(0.0, self.disk.commit_s()), self._end_commit, operations
        )

    def _end_commit(self, operations: list[_Operation]) -> None:
        """The commit is through: in one step on the disk, then told in order."""
        self._timer = None
        kept: list[_Operation] = []
        if self.disk.is_full:
            error = StoreFull("no room on the disk: waiting for space before taking more")
            refused = [one for one in operations if one.needs_room]
            kept = [one for one in operations if one.writes and not one.needs_room]
            operations = [one for one in operations if not one.writes and not one.needs_room]
            for operation in refused:
                _answer(operation.future, error=error)
        if not self._is_crash_due(operations, is_durable=False):
            results = [(operation, operation.apply()) for operation in operations]
            if any(operation.writes for operation in operations):
                self.disk.commits += 1
                self.disk.last_id = max(self.disk.last_id, self._ids.last)
                self._forget_old()
            if not self._is_crash_due(operations, is_durable=True):
                for operation, result in results:
                    if operation.note is not None:
                        operation.note(result)
                    _answer(operation.future, result)
        if self.is_crashed:
            return
        self._go_on(kept)

    def _go_on(self, kept: list[_Operation]) -> None:
        self._queue[:0] = kept
        if self._queue:
            delay_s = FULL_RETRY_S if kept else 0.0
            self._timer = self._loop.call_later(delay_s, self._begin_commit)
        elif self._idle is not None:
            _answer(self._idle, None)

    def _is_crash_due(self, operations: Sequence[_Operation], *, is_durable: bool) -> bool:
        if not any(operation.writes for operation in operations):
            return False
        disk, point = self.disk, self.disk.crash_at
        # NB: `commits` counts this one already when it is durable
        is_point = (
            point is not None
            and point.is_durable is is_durable
            and disk.commits == (point.commit if is_durable else point.commit - 1)
        )
        is_verdict = disk.crash_at_verdict is is_durable and any(
            operation.is_verdict for operation in operations
        )
        if not is_point and not is_verdict:
            return False
        disk.crash_at = disk.crash_at_verdict = None
        self.crash()
        if self.disk.on_crash is not None:
            self.disk.on_crash()
        return True

    def _forget_old(self) -> None:
        """Ids are remembered for `dedupe_window_s`; the oldest stand first."""
        limit = self.now() - self._settings.dedupe_window_s
        seen = self.disk.seen
        while seen and seen[oldest := next(iter(seen))].at <= limit:
            del seen[oldest]

    def _put_on_disk(self, records: Iterable[OutboxRecord]) -> None:
        for record in records:
            self.disk.records[record.id] = record
            self._witness("put", record.id)

    def _add(self, records: Sequence[OutboxRecord]) -> None:
        touched: dict[LaneKey, list[OutboxRecord]] = {}
        for record in records:
            record.place = record.id
            self._pending[record.id] = record.created_at
            touched.setdefault(record.lane_key, []).append(record)
        for key, added in touched.items():
            self.lane(key).add(added)
        self._announce(touched)

    def _announce(self, keys: Iterable[LaneKey]) -> None:
        for key in keys:
            lane = self._lanes[key]
            if lane.on_wake is not None:
                lane.wake()
            else:
                for callback in self.on_new_lane:
                    callback(key)

    def _request_page(self, lane: Lane, asked: list[tuple[int, int]]) -> None:
        def read() -> tuple[list[OutboxRecord], int]:
            found: list[OutboxRecord] = []
            size_bytes = 0
            for looked_at, (number, _) in enumerate(asked):
                record = self.disk.records.get(number)
                if record is None:
                    continue  # settled, and that was committed meanwhile
                if size_bytes >= MAX_BYTES // 2:
                    return found, looked_at
                found.append(replace(_copy(record), place=number))
                size_bytes += len(record.payload)
            return found, len(asked)

        def add(page: tuple[list[OutboxRecord], int]) -> None:
            records, looked_at = page
            numbers = [number for number, _ in asked]
            lane.page_failed(numbers[looked_at:])
            lane.add_page(records, numbers[:looked_at])

        self._enqueue(_Operation(read, self._unawaited(), add, writes=False))

    def _witness(self, what: str, message_id: int, scope: str = "", text: str = "") -> None:
        self.disk.evidence.append(Evidence(self._mono(), what, message_id, scope, text))


def _copy(record: OutboxRecord) -> OutboxRecord:
    """What is on the disk must not change with the publisher's object, nor the other way round."""
    return replace(record, headers=dict(record.headers) if record.headers is not None else None)


def _tries(record: OutboxRecord) -> dict[str, Any]:
    return {
        name: getattr(record, name)
        for name in ("attempts", "sends", "next_at", "last_error", "taker")
    }


def _seen_key(item: TakeIn | FinishItem) -> SeenKey | None:
    if item.instance is None:
        return None
    return SeenKey(item.scope, item.sender, item.instance, item.message_id)


def _wanted(known: Mapping[int, Any], ids: Sequence[int] | None) -> list[int]:
    return sorted(known) if ids is None else sorted(set(ids) & known.keys())


def _answer(
    future: asyncio.Future[Any], result: Any = None, *, error: StoreError | None = None
) -> None:
    if future.done():
        return  # its caller was cancelled
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
