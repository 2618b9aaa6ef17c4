"""The store as the event loop sees it: durable when a call returns, one callback per commit.

Owned by the daemon; publishers hold lanes of it, subscribers call `take_in` and `finish`. Threads
outlive tasks: a cancelled call may still happen, which is harmless, because everything is keyed by
message id.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from appliance.core.specs import StateSettings
from appliance.errors import StoreError, StoreFull, StoreUnusable
from appliance.outbox import queries
from appliance.outbox.blobs import SeenKey
from appliance.outbox.database import Database
from appliance.outbox.facts import FactChanges, Facts
from appliance.outbox.ids import IdSource, RandomBits, id_time
from appliance.outbox.lane import MAX_BYTES, Lane
from appliance.outbox.newness import IdKey, Newness
from appliance.outbox.operations import Annotate, Call, Finish, Moved, Put, Settle, Stop, Take
from appliance.outbox.patience import Settling, retrieve
from appliance.outbox.records import (
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
from appliance.outbox.steady import SteadyClock
from appliance.outbox.writer import Ended, Writer

PAGE_RETRY_S = 0.5
BEHIND_S = 5.0
"""How long an operation may wait for its commit before the store counts as behind."""
SLICE = 500
"""Records that an operator's command moves in one commit."""
CROWDED_SHARE = 0.8
"""From here on the room that is left is for callers: answers and reports have to wait for better times."""

_FRESH = Taken(TakeInResult.FRESH, None, None)

OnNewLane = Callable[[LaneKey], None]
T = TypeVar("T")


class Room:
    """What the outbox may hold, and does: records that wait, and others whose commit is under way."""

    def __init__(self, settings: StateSettings, lanes: Mapping[LaneKey, Lane]) -> None:
        self.settings = settings
        self._lanes = lanes
        self.pending = 0
        self.accepting = 0

    @property
    def is_crowded(self) -> bool:
        """Whether what answers and reports may use of it is used up."""
        return self.pending >= self.settings.max_messages * CROWDED_SHARE

    def check(self, count: int) -> None:
        """Raises StoreFull where so many more do not fit."""
        held = self.pending + self.accepting
        limit = self.settings.max_messages
        if held + count <= limit:
            return
        more = f", {count} more do not fit" if count > 1 else ""
        raise StoreFull(
            f"the outbox holds {held} waiting messages, its limit is {limit}{more}{self._most_wait()}"
        )

    def _most_wait(self) -> str:
        """Who holds it, in words."""
        waiting: Counter[str] = Counter()
        for (_, subject), lane in self._lanes.items():
            waiting[subject.partition(".")[0]] += lane.depth + lane.held
        if not waiting:
            return ""
        node, count = waiting.most_common(1)[0]
        return f"; most wait for {node} ({count})" if count else ""


class MessageStore:
    """Outbox and inbox of one state directory. Made by `open`, ended by `close`."""

    def __init__(
        self,
        database: Database,
        settings: StateSettings,
        clock: SteadyClock,
        mono: Callable[[], float],
    ) -> None:
        self._database = database
        self._mono = mono
        self._loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = clock.now
        """Steady seconds since the epoch: all ages, expiries and due times."""
        self.wall_of: Callable[[float], float] = clock.wall_of
        """Wall-clock seconds of a steady time, for showing it."""
        self._ids = IdSource(database.last_id, clock.now, RandomBits().draw)
        self.next_id: Callable[[], int] = self._ids.next  # see `ids`
        self.instance = database.instance
        self.on_new_lane: list[OnNewLane] = []
        self._lanes: dict[LaneKey, Lane] = {}
        self._room = Room(settings, self._lanes)
        self._is_closed = False
        self._facts = Facts(database.found.facts)
        self._health = StoreHealth(HealthState.OK, "", clock.now())
        self._writer = Writer(
            database,
            loop=self._loop,
            mono=mono,
            ids=self._ids,
            on_outcomes=self._on_outcomes,
        )
        self._settling = Settling(self._loop, self._writer.submit)
        self._newness = Newness(database.dedupe, database.inbox)
        self.are_surely_new: Callable[[str, Iterable[IdKey | None]], bool] = (
            self._newness.are_surely_new
        )
        """See there."""

    @classmethod
    async def open(
        cls,
        state_dir: Path,
        settings: StateSettings,
        *,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
        boot_id: str | None = None,
    ) -> MessageStore:
        """Open or make the store. `boot_id` tells boots of the machine apart; None asks the system.

        Raises:
            StoreLocked: another process has it open.
            StoreUnusable: damaged, emptied, of an unknown version; the text says what to do.
        """
        clock = SteadyClock(wall, mono, boot_id)
        database = await asyncio.to_thread(Database.open, state_dir, settings, clock)
        store = cls(database, settings, clock, mono)
        store._writer.start()
        try:
            for key, waiting in (await store._call(queries.take_waiting)).items():
                lane = store.lane(key)
                lane.add_on_disk(waiting.ids, waiting.places)
                lane.add_loaded(waiting.loaded)
                store._room.pending += len(waiting.ids) + len(waiting.loaded)
            # reading may have made dead letters of damaged records, with ids of their own
            store._ids.last = max(store._ids.last, database.last_id)
        except StoreError:
            await store.close()
            raise
        return store

    def update(self, settings: StateSettings) -> None:
        """Bounds of a reloaded config, in force with the next commit; the directory stays what it is."""
        if settings != self._room.settings:
            self._room.settings = settings
            self._order(lambda database: database.use_settings(settings))

    async def close(self) -> None:
        """Commit what was concluded, then close."""
        if self._is_closed:
            return
        self._is_closed = True
        future: asyncio.Future[None] = self._loop.create_future()
        self._writer.submit(Stop(future))
        await future
        self._writer.join()
        await asyncio.to_thread(self._database.close)

    # Sending.

    async def put(
        self,
        records: Sequence[OutboxRecord],
        *,
        facts: FactChanges = {},  # noqa: B006 - never changed
    ) -> None:
        """Accept records: when this returns they are durable and in their lanes, and the facts changed.

        Raises:
            StoreFull: no room; none of them was taken.
            StoreUnusable: the database failed; none of them was taken.

        Cancellation: they may be taken all the same.
        """
        if not records and not facts:
            return
        self._check_open()
        self._facts.check(facts)
        self._room.check(len(records))
        # counts from now on: others that ask while this is being written must not overfill it
        self._room.accepting += len(records)
        try:
            await self._submit(Put(records, self._loop.create_future(), self._facts.bound(facts)))
        finally:
            self._room.accepting -= len(records)

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
        """Whether a record was accepted and is not settled."""
        return any(lane.knows(record_id) for lane in self._lanes.values())

    def settle_done(self, records: Sequence[OutboxRecord]) -> None:
        """The records were delivered. A crash before the commit means one resend."""
        done: list[int] = []
        for key, some in _by_lane(records):
            lane = self._lanes.get(key)
            if lane is not None:
                done += lane.forget_many(some)
        self._room.pending -= len(done)
        self._settling.done(done)

    def settle_retry(self, records: Sequence[OutboxRecord]) -> None:
        """Remember attempts, sends, next time, last error and taker; the records stay where they are."""
        self._settling.retry(records)

    def settle_dead(self, record: OutboxRecord, reason: str) -> Awaitable[None]:
        """The record becomes a dead letter. The result need not be awaited."""
        lane = self._lanes.get(record.lane_key)
        if lane is None or lane.forget(record.id) is None:
            return self._settling.resolved()
        self._room.pending -= 1
        return self._settling.bury(record, reason, self.now())

    async def rename_lane(self, old: LaneKey, new: LaneKey) -> int:
        """Waiting records follow their destination: those of `old` belong to `new`; how many.

        Records in a publisher's hands change with the others: whatever it does with them happens in `new`.
        Cancellation or a failure leaves some in `old`; call again.
        """
        if old == new or old not in self._lanes:
            return 0
        source, target = self.lane(old), self.lane(new)
        numbers = sorted(number for number, _ in source.entries())
        count = 0
        for first in range(0, len(numbers), SLICE):
            # NB: where they are may change between two slices
            part = source.find_entries(numbers[first : first + SLICE])
            count += await self._rename_slice(part, source, target)
        if source.on_renamed is not None:
            source.on_renamed(new)
        if count:
            self._announce(new)
        return count

    async def _rename_slice(
        self, entries: list[tuple[int, int]], source: Lane, target: Lane
    ) -> int:
        moved_count = 0

        def note(renamed: queries.Compacted) -> None:
            nonlocal moved_count
            moved_count = source.hand_over(renamed.by_lane[target.key], target)
            self._forget_forwards(renamed.old_places)

        await self._call(lambda database: queries.rename(database, entries, target.key), note=note)
        return moved_count

    # Receiving.

    async def take_in(self, items: Sequence[TakeIn]) -> list[Taken]:
        """Look up each message and store the bodies that must be kept, in one commit.

        Nothing is written where no body is to be kept.

        Raises:
            StoreFull: no room; nothing was taken.
        """
        self._check_open()
        if not items:
            return []
        # spares a round through the writer's thread where a crash could lose nothing that was promised
        if self._newness.needs_no_commit(items):
            return [_FRESH] * len(items)
        operation = Take(items, self._loop.create_future())
        await self._submit(operation)
        return operation.results

    async def mark_started(self, row_ids: Sequence[int]) -> None:
        """The handlers are about to begin: after a crash the rows say so."""
        self._check_open()
        if row_ids:
            await self._submit(Annotate(row_ids, None, self._loop.create_future()))

    async def note(self, row_id: int, text: str) -> None:
        """Keep a handler's journal entry with the message; replaces the one before."""
        self._check_open()
        await self._submit(Annotate([row_id], text, self._loop.create_future()))

    async def finish(
        self,
        items: Sequence[FinishItem],
        replies: Sequence[OutboxRecord],
        *,
        done: Sequence[DoneRun] = (),
        is_urgent: bool = True,
    ) -> None:
        """Remember messages with their verdicts, drop their bodies and accept the replies, in one commit.

        `done` are those of which nothing is to be said but that.

        Raises:
            StoreFull: no room; nothing of it happened.
        """
        if not items and not replies and not done:
            self._check_open()
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self.finish_soon(items, replies, partial(_tell, future), done=done, is_urgent=is_urgent)
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
        """`finish` without waiting: `then` is told why it failed, or None; it must not raise.

        Raises:
            StoreFull: no room; `then` is not told.
        """
        self._check_open()
        # asked before anything is written: what does not fit fails whole
        if replies:
            self._room.check(len(replies))
        self._room.accepting += len(replies)
        self._writer.submit(Finish(items, done, replies, then, is_urgent))

    async def claim_inbox(self, node: str, method: str) -> list[InboxRow]:
        """Messages of a node and method taken in and not finished, whatever their kind, oldest first."""
        first_id = self._ids.next_block()  # damaged rows need ids as dead letters
        return await self._call(
            lambda database: queries.claim_inbox(database, node, method, first_id)
        )

    async def list_inbox(self, limit: int = 1_000) -> list[InboxRow]:
        """The oldest messages taken in and not finished, of all workers and of none."""
        return await self._call(lambda database: queries.list_inbox(database, limit))

    async def inbox_ids(self) -> list[tuple[int, str]]:
        """Id and scope of every message taken in and not finished, oldest first; cheap, whatever their size."""
        return await self._call(queries.inbox_ids)

    async def read_inbox(self, row_ids: Sequence[int]) -> list[InboxRow]:
        """These messages, without those that are finished by now or damaged."""
        return await self._call(lambda database: queries.read_inbox(database, row_ids))

    async def drop_inbox(self, row_ids: Sequence[int] | None = None) -> int:
        """Forget messages taken in (all: None): they never run; a resend is told that it was refused."""
        return await self._call(lambda database: queries.drop_inbox(database, row_ids))

    async def call_off(
        self, key: SeenKey | None, message_id: int, row_id: int | None = None
    ) -> CalledOff:
        """Have a message not begin any more, here or after a restart, whether or not it has come yet.

        `key` is what its id is remembered by, None where ids are not; `row_id` its row, where that is known.
        """
        return await self._call(
            lambda database: queries.call_off(database, key, message_id, row_id)
        )

    # Facts.

    def facts(self, kind: str) -> Mapping[str, str]:
        """What is remembered of a kind."""
        return self._facts.of(kind)

    async def remember(self, kind: str, changes: Mapping[str, str | None]) -> None:
        """Change small durable facts; None forgets one. The oldest go when there are too many of a kind."""
        await self.put([], facts={(kind, key): value for key, value in changes.items()})

    # Operators.

    @property
    def is_crowded(self) -> bool:
        """Whether what answers and reports may use of the room is used up."""
        return self._room.is_crowded

    def inbox_scopes(self) -> Mapping[str, int]:
        """Messages taken in and not finished, by ``<node>.<method>``; cheap."""
        return self._database.inbox.scopes()

    def counts(self) -> Counts:
        """What the store holds; cheap."""
        oldest: list[float] = []
        for lane in self._lanes.values():
            if not lane.depth and not lane.held:
                continue
            at = lane.oldest_created_at()
            unread = lane.first_unread()
            if at is None and unread is not None:
                at = id_time(unread)
            if at is not None:
                oldest.append(at)
        return Counts(
            pending=self._room.pending,
            dead=self._database.letters.count,
            oldest_created_at=min(oldest, default=None),
            inbox=self._database.inbox_count,
            bytes=self._database.size_bytes,
        )

    def health(self) -> StoreHealth:
        """How the store is; cheap."""
        state, text = self._writer.trouble()
        waiting_since = self._writer.waiting_since_mono
        if state is HealthState.OK and waiting_since is not None:
            waited_s = self._mono() - waiting_since
            if waited_s > BEHIND_S:
                state = HealthState.BEHIND
                text = "the disk has not confirmed what was handed to it"
        if (state, text) != (self._health.state, self._health.text):
            since = self.now() if state is not self._health.state else self._health.since
            self._health = StoreHealth(state, text, since)
        return self._health

    async def list_pending(self, limit: int = 1_000) -> list[OutboxRecord]:
        """The oldest records that wait."""
        entries = sorted(entry for lane in self._lanes.values() for entry in lane.entries())
        return await self._call(
            lambda database: queries.read_records(database, entries[:limit], None).records
        )

    async def list_dead(self, limit: int = 1_000) -> list[DeadLetter]:
        """The oldest dead letters."""
        return await self._call(lambda database: queries.list_dead(database, limit))

    async def find_dead(self, to_node: str, reason_begins: str) -> list[int]:
        """Ids of the dead letters to a node whose reason begins so, oldest first."""
        return await self._call(
            lambda database: queries.find_dead(database, to_node, reason_begins)
        )

    async def dead_reasons(self, ids: Sequence[int]) -> dict[int, str]:
        """Why records became dead letters, of those that are some."""
        return await self._call(lambda database: queries.dead_reasons(database, ids))

    async def retry_dead(self, ids: Sequence[int] | None = None) -> int:
        """Put dead letters back into their lanes as a new attempt, with fresh tries; how many."""
        now, after_id, count = self.now(), -1, 0
        while True:
            revived = await self._call(
                partial(queries.retry_dead, ids=ids, after_id=after_id, limit=SLICE, now=now),
                note=self._note_revived,
            )
            count += len(revived.records)
            if revived.last_id is None:
                return count
            after_id = revived.last_id

    def _note_revived(self, revived: queries.Revived) -> None:
        touched: set[LaneKey] = set()
        self._add(revived.records, touched)
        for key in touched:
            self._announce(key)

    async def drop(self, ids: Sequence[int] | None = None, *, dead_only: bool = True) -> int:
        """Forget dead letters; with `dead_only` off records that wait as well; how many."""
        count = 0
        if not dead_only:
            places: list[int] = []
            for lane in self._lanes.values():
                chosen = {number for number, _ in lane.entries()}
                if ids is not None:
                    chosen.intersection_update(ids)
                places += lane.remove(chosen)
            self._room.pending -= len(places)
            self._settling.done(places)
            count = len(places)
        return count + await self._call(lambda database: queries.drop_dead(database, ids))

    # Between loop and thread.

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnusable("the store is closed")

    async def _submit(self, operation: Put | Take | Annotate) -> None:
        self._writer.submit(operation)
        await operation.future

    async def _call(
        self, function: Callable[[Database], T], note: Callable[[T], None] | None = None
    ) -> T:
        self._check_open()
        future: asyncio.Future[T] = self._loop.create_future()
        self._writer.submit(Call(function, future, note))
        return await future

    def _on_outcomes(self, outcomes: list[Ended]) -> None:
        """One call per commit: fill lanes first, then let the waiting go on, then wake publishers.

        NB: whatever lanes and counts learn they learn here, in the order of the commits. Whoever awaits a future
        goes on in a later turn of the loop, when answers of later commits may have been noted already.
        """
        touched: set[LaneKey] = set()
        finished: list[tuple[Finish, StoreError | None]] = []
        for operation, error, result in outcomes:
            if isinstance(operation, Finish):
                self._room.accepting -= len(operation.replies)
                if error is None and operation.replies:
                    self._add(operation.replies, touched)
                finished.append((operation, error))
                continue
            if error is None and isinstance(operation, Put):
                self._add(operation.records, touched)
                if operation.facts:
                    self._facts.learn(operation.facts)
            elif error is None and isinstance(operation, Call) and operation.note is not None:
                operation.note(result)
            if isinstance(operation, Settle):
                continue
            if isinstance(operation, Moved):
                self._note_moved(operation)
                continue
            _tell(operation.future, error, result)
        for key in touched:
            self._announce(key)
        # last: they go on in this very turn
        for finish, error in finished:
            finish.then(error)

    def _note_moved(self, operation: Moved) -> None:
        """Records are elsewhere on disk; whatever was handed over with the old places is found by the writer."""
        for key, moved in operation.by_lane.items():
            self.lane(key).move(moved)
        self._forget_forwards(operation.old_places)

    def _forget_forwards(self, old_places: list[int]) -> None:
        if not self._is_closed:
            self._order(partial(queries.forget_forwards, old_places=old_places))

    def _order(self, function: Callable[[Database], None]) -> None:
        """Have the writer do what nobody waits for; a broken store tells by itself."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(retrieve)
        self._writer.submit(Call(function, future))

    def _add(self, records: Sequence[OutboxRecord], touched: set[LaneKey]) -> None:
        for key, some in _by_lane(records):
            self.lane(key).add(some)
            touched.add(key)
        self._room.pending += len(records)

    def _announce(self, key: LaneKey) -> None:
        lane = self._lanes[key]
        if lane.on_wake is not None:
            lane.wake()
            return
        # nobody sends this lane: a pass is asked to start a publisher for it
        for callback in self.on_new_lane:
            callback(key)

    def _request_page(self, lane: Lane, asked: list[tuple[int, int]]) -> None:
        future: asyncio.Future[queries.Page] = self._loop.create_future()

        def add(page: queries.Page) -> None:
            # damaged ones have become dead letters while they were read
            self._room.pending -= page.damaged
            numbers = [number for number, _ in asked]
            # what did not fit into the page waits on disk again, before the rest wakes the owner
            lane.page_failed(numbers[page.looked_at :])
            lane.add_page(page.records, numbers[: page.looked_at])

        def notice_failure(answered: asyncio.Future[queries.Page]) -> None:
            if answered.exception() is not None:
                lane.page_failed([number for number, _ in asked])
                self._loop.call_later(PAGE_RETRY_S, lane.wake)

        future.add_done_callback(notice_failure)
        self._writer.submit(
            Call(
                lambda database: queries.read_records(database, asked, lane.key, MAX_BYTES // 2),
                future,
                add,
            )
        )


def _by_lane(records: Sequence[OutboxRecord]) -> list[tuple[LaneKey, Sequence[OutboxRecord]]]:
    """In their order; mostly all are of one lane."""
    found: list[tuple[LaneKey, Sequence[OutboxRecord]]] = []
    at = 0
    while at < len(records):
        node, subject = records[at].node, records[at].subject
        end = at + 1
        while end < len(records) and (
            records[end].subject == subject and records[end].node == node
        ):
            end += 1
        found.append((records[at].lane_key, records[at:end]))
        at = end
    return found


def _tell(future: asyncio.Future[T], error: StoreError | None, result: Any = None) -> None:
    if future.done():
        return  # its caller was cancelled
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
