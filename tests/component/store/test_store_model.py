"""Any sequence of operations leaves the store as a dictionary would be left, over restarts too.

The window of a lane is made tiny, so that records move between memory and database all the time.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.core.specs import StateSettings
from appliance.outbox import lane as lane_module
from appliance.outbox.records import OutboxRecord, TakeInResult
from appliance.outbox.store import MessageStore
from tests.support.store_bench import (
    KEY,
    HandClock,
    make_finish,
    make_item,
    make_record,
    make_run,
    take,
)

WINDOW = 6
RETRY_S = 5.0


class StoreAndModel(RuleBasedStateMachine):
    """The store beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="store-model-"))
        self.patches = [
            mock.patch.object(lane_module, "MAX_RECORDS", WINDOW),
        ]
        for patch in self.patches:
            patch.start()
        self.loop = asyncio.new_event_loop()
        self.clock = HandClock()
        self.store = self.run(self.open())
        self.waiting: dict[int, bytes] = {}
        self.due_at: dict[int, float] = {}
        self.attempts: dict[int, int] = {}
        self.held: dict[int, OutboxRecord] = {}
        self.dead: dict[int, bytes] = {}
        self.seen: set[int] = set()
        self.inbox: dict[int, int] = {}
        self.next_message = 0

    async def open(self) -> MessageStore:
        return await MessageStore.open(
            self.directory,
            StateSettings(),
            wall=self.clock.wall,
            mono=self.clock.mono,
            boot_id="boot",
        )

    def run(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        for patch in self.patches:
            patch.stop()
        shutil.rmtree(self.directory)

    # Sending.

    @rule(count=st.integers(1, 9), late=st.booleans())
    def put(self, count: int, late: bool) -> None:
        records = [make_record(self.store, payload=b"%d" % number) for number in range(count)]
        parts = [records[1::2], records[::2]] if late else [records]
        for part in parts:  # ids need not be committed in order
            self.run(self.store.put(part))
        self.waiting |= {record.id: record.payload for record in records}

    def due(self) -> list[int]:
        return sorted(n for n in self.waiting if self.due_at.get(n, 0.0) <= self.store.now())

    @rule(strict=st.booleans())
    def take(self, strict: bool) -> None:
        record = self.run(take(self.store.lane(KEY), strict=strict))
        due = self.due()
        if strict and self.waiting and min(self.waiting) not in due:
            assert record is None
            return
        if record is None:
            assert not due
            return
        assert record.payload == self.waiting.pop(record.id)
        assert record.attempts == self.attempts.get(record.id, 0)
        assert record.id == due[0]
        self.held[record.id] = record

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle_done(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.held)))
        self.store.settle_done([self.held.pop(number)])
        self.due_at.pop(number, None)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle_dead(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.held)))
        record = self.held.pop(number)
        self.run(self.store.settle_dead(record, "tested"))
        self.dead[number] = record.payload
        self.due_at.pop(number, None)
        self.attempts.pop(number, None)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delayed=st.booleans())
    def retry(self, data: st.DataObject, delayed: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.held)))
        record = self.held.pop(number)
        record.attempts += 1
        record.next_at = self.store.now() + RETRY_S if delayed else 0.0
        self.store.settle_retry([record])
        self.store.lane(KEY).put_back([record])
        self.waiting[number] = record.payload
        self.attempts[number] = record.attempts
        self.due_at[number] = record.next_at

    @rule(seconds=st.floats(0.1, 6.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(data=st.data(), everything=st.booleans())
    def retry_dead(self, data: st.DataObject, everything: bool) -> None:
        ids = None
        if not everything:
            ids = data.draw(st.lists(st.sampled_from([*sorted(self.dead), 1]), max_size=3))
        chosen = set(self.dead) if ids is None else set(ids) & set(self.dead)
        assert self.run(self.store.retry_dead(ids)) == len(chosen)
        for number in chosen:
            self.waiting[number] = self.dead.pop(number)

    @rule(data=st.data(), dead_only=st.booleans())
    def drop(self, data: st.DataObject, dead_only: bool) -> None:
        known = [*sorted(self.dead), *sorted(self.waiting), *sorted(self.held), 1]
        ids = data.draw(st.lists(st.sampled_from(known), max_size=3, unique=True))
        gone = [n for n in ids if n in self.dead or (not dead_only and n in known and n != 1)]
        assert self.run(self.store.drop(ids, dead_only=dead_only)) == len(gone)
        for number in gone:
            for place in (self.dead, self.waiting, self.held, self.due_at, self.attempts):
                place.pop(number, None)  # type: ignore[attr-defined]

    # Receiving.

    @rule(keep=st.booleans(), repeat=st.booleans())
    def take_in(self, keep: bool, repeat: bool) -> None:
        if repeat and (self.seen or self.inbox):
            number = max(self.seen | set(self.inbox))
            ((result, _, _),) = self.run(self.store.take_in([make_item(number, keep_body=keep)]))
            expected = (
                TakeInResult.REPEAT_UNFINISHED if number in self.inbox else TakeInResult.REPEAT_DONE
            )
            assert result is expected
            return
        self.next_message += 1
        item = make_item(self.next_message, keep_body=keep)
        ((result, row_id, _),) = self.run(self.store.take_in([item]))
        assert result is TakeInResult.FRESH
        if row_id is not None:
            self.inbox[self.next_message] = row_id

    @precondition(lambda self: self.inbox)
    @rule(data=st.data(), answers=st.booleans())
    def finish(self, data: st.DataObject, answers: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.inbox)))
        replies = [make_record(self.store)] if answers else []
        finished = make_finish(make_item(number), self.inbox.pop(number))
        self.run(self.store.finish([finished], replies))
        self.seen.add(number)
        self.waiting |= {record.id: record.payload for record in replies}

    @rule(count=st.integers(1, 6))
    def take_in_many(self, count: int) -> None:
        first = self.next_message + 1
        self.next_message += count
        items = [make_item(n, keep_body=True) for n in range(first, first + count)]
        for item, taken in zip(items, self.run(self.store.take_in(items)), strict=True):
            assert taken.result is TakeInResult.FRESH
            self.inbox[item.message_id] = taken.row_id

    @precondition(lambda self: self.inbox)
    @rule(data=st.data())
    def finish_many(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.inbox)), min_size=1, unique=True))
        if data.draw(st.booleans()):
            chosen.sort()
        items = [make_item(number) for number in chosen]
        run = make_run(items, [self.inbox.pop(number) for number in chosen])
        self.run(self.store.finish([], [], done=[run]))
        self.seen |= set(chosen)

    # All of it.

    @rule()
    def reopen(self) -> None:
        last = self.store.next_id()
        self.run(self.store.close())
        self.clock.jump_wall(-1.0)
        self.store = self.run(self.open())
        assert self.store.next_id() > last
        for number, record in self.held.items():
            self.waiting[number] = record.payload
        self.held.clear()
        rows = self.run(self.store.claim_inbox("beta", "REQToConsole"))
        assert {row.message_id: row.row_id for row in rows} == self.inbox

    @invariant()
    def counts_agree(self) -> None:
        counts = self.store.counts()
        assert counts.pending == len(self.waiting) + len(self.held)
        assert counts.dead == len(self.dead)
        lane = self.store.lane(KEY)
        assert lane.depth == len(self.waiting)
        assert lane.held == len(self.held)
        assert lane.in_memory - lane.held - len(lane._delayed) <= WINDOW + 1

    @invariant()
    def database_agrees(self) -> None:
        stored = {record.id for record in self.run(self.store.list_pending(10_000))}
        assert stored == set(self.waiting) | set(self.held)


TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
