"""The store as the event loop sees it: durable when a call returns, one callback per commit.

Owned by the daemon; publishers hold lanes of it, subscribers call `take_in` and `finish`. Threads
outlive tasks: a cancelled call may still happen, which is harmless, because everything is keyed by
message id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from appliance.core.specs import StateSettings
from appliance.errors import StoreError, StoreFull, StoreUnusable
from appliance.outbox import queries
from appliance.outbox.batch import (
    Annotate,
    Bury,
    Call,
    Finish,
    Put,
    Settle,
    Stop,
    Take,
    Taken,
)
from appliance.outbox.database import Database
from appliance.outbox.ids import IdSource, id_time
from appliance.outbox.lane import MAX_BYTES, MAX_RECORDS, Lane
from appliance.outbox.records import (
    Counts,
    DeadLetter,
    FinishItem,
    InboxRow,
    LaneKey,
    OutboxRecord,
    TakeIn,
)
from appliance.outbox.settling import Settling
from appliance.outbox.writer import Outcome, Writer

PAGE_RETRY_S = 0.5

OnNewLane = Callable[[LaneKey], None]
T = TypeVar("T")


CROWDED_SHARE = 0.8
"""From here on the room that is left is for callers: answers and reports have to wait for better times."""


class MessageStore:
    """Outbox and inbox of one state directory. Made by `open`, ended by `close`."""

    def __init__(
        self, database: Database, settings: StateSettings, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._ids = IdSource(database.last_id, clock)
        self.next_id: Callable[[], int] = self._ids.next  # see `ids`
        self.instance = database.instance
        self.on_new_lane: list[OnNewLane] = []
        self._lanes: dict[LaneKey, Lane] = {}
        self._lowest_ids: dict[LaneKey, int] = {}
        self._pending = 0
        self._accepting = 0
        self._is_closed = False
        self._writer = Writer(
            database,
            loop=self._loop,
            wall=clock,
            last_id=lambda: self._ids.last,
            on_outcomes=self._on_outcomes,
        )
        self._settling = Settling(self._loop, self._writer.submit)

    @classmethod
    async def open(
        cls, state_dir: Path, settings: StateSettings, *, clock: Callable[[], float]
    ) -> MessageStore:
        """Open or make the store.

        Raises:
            StoreLocked: another process has it open.
            StoreUnusable: damaged, emptied, of an unknown version; the text says what to do.
        """
        database = await asyncio.to_thread(Database.open, state_dir, settings)
        store = cls(database, settings, clock)
        store._writer.start()
        try:
            for key, (count, lowest) in (await store._call(queries.count_lanes)).items():
                store.lane(key).expect_on_disk(count)
                store._lowest_ids[key] = lowest
                store._pending += count
        except StoreError:
            await store.close()
            raise
        return store

    def update(self, settings: StateSettings) -> None:
        """Bounds of a reloaded config, in force with the next commit; the directory stays what it is."""
        self._settings = settings
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(lambda done: done.exception())  # a broken store tells by itself
        self._writer.submit(Call(lambda database: database.use_settings(settings), future, None))

    async def close(self) -> None:
        """Commit what was concluded, then close."""
        if self._is_closed:
            return
        self._is_closed = True
        self._settling.hand_over()
        future: asyncio.Future[None] = self._loop.create_future()
        self._writer.submit(Stop(future))
        await future
        self._writer.join()
        await asyncio.to_thread(self._database.close)

    # Sending.

    async def put(self, records: Sequence[OutboxRecord]) -> None:
        """Accept records: when this returns they are durable and in their lanes.

        Raises:
            StoreFull: no room; none of them was taken.
            StoreUnusable: the database failed; none of them was taken.

        Cancellation: they may be taken all the same.
        """
        if not records:
            return
        self._check_open()
        self._check_room(len(records))
        self._accepting += len(records)
        try:
            await self._submit(Put(records, self._loop.create_future()))
        finally:
            self._accepting -= len(records)

    def _check_room(self, count: int) -> None:
        held = self._pending + self._accepting + self._database.dead_count
        limit = self._settings.max_messages
        if held + count > limit:
            raise StoreFull(
                f"the outbox holds {held} messages, {count} more exceed its limit of {limit}"
            )

    def lane(self, key: LaneKey) -> Lane:
        """The lane of a node and subject; always the same object."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, self._clock, self._request_page)
        return lane

    def lanes_with_records(self) -> set[LaneKey]:
        """Lanes with anything unsettled, held records included."""
        return {key for key, lane in self._lanes.items() if lane.depth or lane.held}

    def settle_done(self, record: OutboxRecord) -> None:
        """The record was delivered. A crash before the commit means one resend."""
        if self._forget_held(record):
            self._settling.done(record.id)

    def settle_many_done(self, records: Sequence[OutboxRecord]) -> None:
        """`settle_done` for each."""
        for record in records:
            self.settle_done(record)

    def settle_retry(self, record: OutboxRecord) -> None:
        """Remember the record's attempts, next time and last error; it stays where it is."""
        self._settling.retry(record)

    def settle_dead(self, record: OutboxRecord, reason: str) -> Awaitable[None]:
        """The record becomes a dead letter. The result need not be awaited."""
        if not self._forget_held(record):
            return self._settling.resolved()
        return self._settling.bury(record, reason, self._clock())

    def _forget_held(self, record: OutboxRecord) -> bool:
        lane = self._lanes.get(record.lane_key)
        if lane is None or not lane.forget(record.id):
            return False
        self._pending -= 1
        return True

    # Receiving.

    async def take_in(self, items: Sequence[TakeIn]) -> list[Taken]:
        """Look up each message and store the bodies that must be kept, in one commit.

        Nothing is written where no body is to be kept.

        Raises:
            StoreFull: no room; nothing was taken.
        """
        self._check_open()
        operation = Take(items, self._loop.create_future())
        return await self._submit(operation)

    async def mark_started(self, row_id: int) -> None:
        """The handler is about to begin: after a crash the row says so."""
        self._check_open()
        await self._submit(Annotate(row_id, None, self._loop.create_future()))

    async def note(self, row_id: int, text: str) -> None:
        """Keep a handler's journal entry with the message; replaces the one before."""
        self._check_open()
        await self._submit(Annotate(row_id, text, self._loop.create_future()))

    async def finish(
        self,
        items: Sequence[FinishItem],
        replies: Sequence[OutboxRecord],
        *,
        is_urgent: bool = True,
    ) -> None:
        """Remember messages as handled, drop their bodies and accept the replies, in one commit.

        Raises:
            StoreFull: no room; nothing of it happened.
        """
        self._check_open()
        if replies:
            self._check_room(len(replies))
        if not items and not replies:
            return
        self._accepting += len(replies)
        try:
            await self._submit(Finish(items, replies, self._loop.create_future(), is_urgent))
        finally:
            self._accepting -= len(replies)

    async def unfinished(self, node: str, subject: str) -> list[InboxRow]:
        """Messages taken in for this subscriber and not finished, oldest first."""
        first_id = self._ids.next_block()  # damaged rows need ids as dead letters
        return await self._call(
            lambda database: queries.read_unfinished(database, node, subject, first_id)
        )

    # Operators.

    @property
    def is_crowded(self) -> bool:
        """Whether what answers and reports may use of the room is used up."""
        held = self._pending + self._database.dead_count
        return held >= self._settings.max_messages * CROWDED_SHARE

    def counts(self) -> Counts:
        """What the outbox holds; cheap."""
        oldest: list[float] = []
        in_flight = 0
        for key, lane in self._lanes.items():
            in_flight += lane.held
            if not lane.depth and not lane.held:
                continue
            at = lane.oldest_created_at()
            if at is None and key in self._lowest_ids:
                at = id_time(self._lowest_ids[key])
            if at is not None:
                oldest.append(at)
        return Counts(
            pending=self._pending,
            in_flight=in_flight,
            dead=self._database.dead_count,
            oldest_created_at=min(oldest, default=None),
        )

    async def list_pending(self, limit: int = 1_000) -> list[OutboxRecord]:
        """The oldest records that wait."""
        return await self._call(lambda database: queries.list_pending(database, limit))

    async def list_dead(self, limit: int = 1_000) -> list[DeadLetter]:
        """The oldest dead letters."""
        return await self._call(lambda database: queries.list_dead(database, limit))

    async def retry_dead(self, ids: Sequence[int] | None = None) -> int:
        """Put dead letters back into their lanes, with fresh tries; how many."""
        now = self._clock()
        moved = await self._call(
            lambda database: queries.retry_dead(database, ids, now), note=self._note_revived
        )
        return sum(map(len, moved.values()))

    def _note_revived(self, moved: dict[LaneKey, list[int]]) -> None:
        for key, numbers in moved.items():
            self._pending += len(numbers)
            self.lane(key).add_on_disk(numbers)
            self._lowest_ids[key] = min(numbers)
            self._announce(key)

    async def drop(self, ids: Sequence[int] | None = None, *, dead_only: bool = True) -> int:
        """Forget dead letters; with `dead_only` off records that wait as well; how many."""
        count, _ = await self._call(
            lambda database: queries.drop(database, ids, dead_only=dead_only),
            note=self._note_dropped,
        )
        return count

    def _note_dropped(self, result: tuple[int, dict[LaneKey, list[int]]]) -> None:
        _, dropped = result
        for key, numbers in dropped.items():
            # what was concluded meanwhile is counted as gone already
            left = [number for number in numbers if number not in self._settling]
            self.lane(key).remove(left)
            self._pending -= len(left)

    # Between loop and thread.

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnusable("the store is closed")

    async def _submit(self, operation: Put | Take | Finish | Annotate) -> list[Taken]:
        self._settling.hand_over()
        self._writer.submit(operation)
        return await operation.future or []

    async def _call(
        self, function: Callable[[Database], T], note: Callable[[T], None] | None = None
    ) -> T:
        self._check_open()
        self._settling.hand_over()
        future: asyncio.Future[T] = self._loop.create_future()
        self._writer.submit(Call(function, future, note))
        return await future

    def _on_outcomes(self, outcomes: list[Outcome]) -> None:
        """One call per commit: fill lanes first, then let the waiting go on, then wake publishers.

        NB: whatever lanes and counts learn they learn here, in the order of the commits. Whoever awaits a future
        goes on a turn later, when the next commit may have been counted already.
        """
        touched: set[LaneKey] = set()
        for operation, error, result in outcomes:
            if isinstance(operation, Settle | Bury):
                self._settling.committed(operation)
                if isinstance(operation, Settle):
                    continue
            elif error is None and isinstance(operation, Put):
                self._add(operation.records, touched)
            elif error is None and isinstance(operation, Finish):
                self._add(operation.replies, touched)
            elif error is None and isinstance(operation, Call) and operation.note is not None:
                operation.note(result)
            future = operation.future
            if future.done():
                continue  # its caller was cancelled
            if error is not None:
                future.set_exception(error)
            elif isinstance(operation, Take):
                operation.future.set_result(operation.results)
            else:
                future.set_result(result)
        for key in touched:
            self._announce(key)

    def _add(self, records: Sequence[OutboxRecord], touched: set[LaneKey]) -> None:
        for record in records:
            key = record.lane_key
            self.lane(key).add(record)
            touched.add(key)
        self._pending += len(records)

    def _announce(self, key: LaneKey) -> None:
        lane = self._lanes[key]
        if lane.on_wake is not None:
            lane.wake()
            return
        for callback in self.on_new_lane:
            callback(key)

    def _request_page(self, lane: Lane, after_id: int) -> None:
        self._settling.hand_over()
        future: asyncio.Future[queries.LanePage] = self._loop.create_future()

        def add(page: queries.LanePage) -> None:
            self._pending -= page.damaged
            lane.add_page(
                [record for record in page.records if record.id not in self._settling],
                after_id=after_id,
                damaged=page.damaged,
                last_id=page.last_id,
                is_end=page.is_end,
            )

        def notice_failure(answered: asyncio.Future[queries.LanePage]) -> None:
            if answered.exception() is not None:
                lane.page_failed()
                self._loop.call_later(PAGE_RETRY_S, lane.wake)

        future.add_done_callback(notice_failure)
        self._writer.submit(
            Call(
                lambda database: queries.read_lane(
                    database, lane.key, after_id, MAX_RECORDS // 2, MAX_BYTES // 2
                ),
                future,
                add,
            )
        )
