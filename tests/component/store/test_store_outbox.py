"""Sending: what is accepted is durable, comes back in order, and leaves only when concluded."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from appliance.errors import StoreFull, StoreUnusable
from appliance.outbox.ids import id_time
from appliance.outbox.lane import MAX_RECORDS
from tests.support.store_bench import (
    KEY,
    START_AT,
    SUBJECT,
    HandClock,
    make_record,
    open_store,
    take,
    take_all,
)


async def test_accepted_record_is_there_after_a_restart_with_all_it_said(tmp_path: Path):
    async with open_store(tmp_path) as store:
        sent = make_record(
            store,
            payload=bytes(range(256)),
            expires_at=START_AT + 60,
            ack_timeout_s=1.5,
            retries=7,
            headers={"appl-id": "x-1", "odd": "\udcff\x00é"},
        )
        await store.put([sent])
    async with open_store(tmp_path) as store:
        assert store.lanes_with_records() == {KEY}
        assert await take_all(store.lane(KEY)) == [sent]


async def test_settled_record_is_gone_after_a_restart_and_the_others_stay(tmp_path: Path):
    async with open_store(tmp_path) as store:
        records = [make_record(store) for _ in range(5)]
        await store.put(records)
        lane = store.lane(KEY)
        assert lane.take(3) == records[:3]
        store.settle_done(records[:2])
        assert store.counts().pending == 3
        assert lane.held == 1
    async with open_store(tmp_path) as store:
        assert await take_all(store.lane(KEY)) == records[2:]


async def test_attempts_are_remembered_over_a_restart(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        await store.put([make_record(store), make_record(store)])
        (record,) = store.lane(KEY).take(1)
        assert record is not None
        record.attempts, record.next_at, record.last_error = 2, START_AT + 30, "ack_timeout é\udcff"
        record.payload, record.encoding = b"rewritten in memory only", "cbor+zstd"
        store.settle_retry([record])
    async with open_store(tmp_path, clock) as store:
        lane = store.lane(KEY)
        second = await take(lane)
        assert second is not None
        assert second.attempts == 0
        assert await take(lane) is None
        assert lane.next_due_at() == START_AT + 30
        clock.now += 30
        again = await take(lane)
        assert again is not None
        assert (again.id, again.attempts, again.payload) == (record.id, 2, b"hello")
        assert again.last_error == "ack_timeout é\\udcff"


async def test_dead_letter_keeps_record_reason_and_time(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        await store.put([make_record(store)])
        (record,) = store.lane(KEY).take(1)
        assert record is not None
        record.attempts = 4
        clock.now += 9
        await store.settle_dead(record, "no acknowledgement after 4 tries \udcff")
        counts = store.counts()
        assert (counts.pending, counts.dead, counts.oldest_created_at) == (0, 1, None)
    async with open_store(tmp_path, clock) as store:
        assert store.counts().dead == 1
        assert store.lanes_with_records() == set()
        (letter,) = await store.list_dead(10)
        assert letter.record == record
        assert letter.reason == "no acknowledgement after 4 tries \\udcff"
        assert letter.died_at == START_AT + 9


async def test_dead_letter_tried_again_gets_fresh_tries_and_a_fresh_lifetime(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        await store.put([make_record(store, expires_at=START_AT + 60) for _ in range(3)])
        lane = store.lane(KEY)
        records = await take_all(lane)
        for record in records:
            record.attempts = 9
            await store.settle_dead(record, "gone")
        clock.now += 1_000
        woken: list[object] = []
        store.on_new_lane.append(woken.append)
        assert await store.retry_dead([records[1].id]) == 1
        assert woken == [KEY]
        again = await take(lane)
        assert again is not None
        assert (again.id, again.attempts, again.expires_at) == (
            records[1].id,
            0,
            START_AT + 1_060,
        )
        assert await store.retry_dead(None) == 2
        assert [record.id for record in await take_all(lane)] == [records[0].id, records[2].id]
        assert store.counts().dead == 0
        assert store.counts().pending == 3


async def test_dead_letters_can_be_dropped_and_waiting_records_only_when_asked(tmp_path: Path):
    async with open_store(tmp_path) as store:
        records = [make_record(store) for _ in range(4)]
        await store.put(records)
        lane = store.lane(KEY)
        (first,) = lane.take(1)
        assert first is not None
        await store.settle_dead(first, "gone")
        assert await store.drop([records[1].id]) == 0
        assert await store.drop(None) == 1
        assert await store.drop([records[2].id], dead_only=False) == 1
        assert await take_all(lane) == [records[1], records[3]]
        assert store.counts().pending == 2
        store.settle_done([records[2]])
        assert store.counts().pending == 2
    async with open_store(tmp_path) as store:
        assert await take_all(store.lane(KEY)) == [records[1], records[3]]


async def test_record_dropped_while_in_flight_settles_without_effect(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.put([make_record(store)])
        (record,) = store.lane(KEY).take(1)
        assert record is not None
        assert await store.drop([record.id], dead_only=False) == 1
        store.settle_done([record])
        await store.settle_dead(record, "late")
        assert (store.counts().pending, store.counts().dead) == (0, 0)
        assert await store.list_dead(10) == []


async def test_new_lane_is_announced_only_while_nobody_holds_it(tmp_path: Path):
    async with open_store(tmp_path) as store:
        announced: list[object] = []
        store.on_new_lane.append(announced.append)
        await store.put([make_record(store), make_record(store)])
        assert announced == [KEY]
        woken: list[bool] = []
        store.lane(KEY).on_wake = lambda: woken.append(True)
        await store.put([make_record(store)])
        assert announced == [KEY]
        assert woken == [True]


async def test_concurrent_puts_share_commits(tmp_path: Path):
    async with open_store(tmp_path) as store:
        before = store._database.commits
        async with asyncio.TaskGroup() as group:
            for _ in range(500):
                group.create_task(store.put([make_record(store)]))
        assert store.counts().pending == 500
        assert store._database.commits - before < 50
        ids = [record.id for record in await take_all(store.lane(KEY))]
        assert ids == sorted(ids)
        assert len(ids) == 500


async def test_window_of_a_lane_in_memory_is_bounded_and_order_is_kept(tmp_path: Path):
    count = 20_000
    async with open_store(tmp_path) as store:
        lane = store.lane(KEY)
        for _ in range(0, count, 1_000):
            await store.put([make_record(store) for _ in range(1_000)])
            assert lane.in_memory <= MAX_RECORDS
        assert lane.depth == count
        ids = []
        while (record := await take(lane)) is not None:
            ids.append(record.id)
            assert lane.in_memory - lane.held <= MAX_RECORDS
            store.settle_done([record])
        assert ids == sorted(ids)
        assert len(ids) == count
        assert store.counts().pending == 0
    async with open_store(tmp_path) as store:
        assert store.lanes_with_records() == set()


async def test_hundred_thousand_stored_records_are_not_loaded_at_once(tmp_path: Path):
    async with open_store(tmp_path) as store:
        for _ in range(20):
            await store.put([make_record(store, payload=b"x") for _ in range(5_000)])
    async with open_store(tmp_path) as store:
        lane = store.lane(KEY)
        assert lane.depth == 100_000
        assert lane.in_memory <= MAX_RECORDS // 2
        first = await take(lane)
        assert first is not None
        assert lane.in_memory <= MAX_RECORDS
        assert store.counts().pending == 100_000


async def test_large_payloads_bound_the_window_by_bytes(tmp_path: Path):
    async with open_store(tmp_path) as store:
        lane = store.lane(KEY)
        records = [make_record(store, payload=os.urandom(1_000_000)) for _ in range(40)]
        for first in range(0, 40, 10):
            await store.put(records[first : first + 10])
        assert lane.in_memory <= 34
        ids = []
        while (record := await take(lane)) is not None:
            assert record.payload == records[len(ids)].payload
            ids.append(record.id)
            store.settle_done([record])
        assert ids == [record.id for record in records]


async def test_limit_of_messages_refuses_and_leaves_what_was_there(tmp_path: Path):
    async with open_store(tmp_path, max_messages=5) as store:
        await store.put([make_record(store) for _ in range(4)])
        with pytest.raises(StoreFull, match="its limit is 5"):
            await store.put([make_record(store), make_record(store)])
        await store.put([make_record(store)])
        (record,) = store.lane(KEY).take(1)
        assert record is not None
        with pytest.raises(StoreFull):
            await store.put([make_record(store)])
        store.settle_done([record])
        await store.put([make_record(store)])
        assert store.counts().pending == 5


async def test_record_that_cannot_be_stored_fails_alone(tmp_path: Path):
    async with open_store(tmp_path) as store:
        bad = make_record(store, subject="caf\udcff")
        results = await asyncio.gather(
            store.put([make_record(store)]),
            store.put([make_record(store), bad]),
            store.put([make_record(store)]),
            return_exceptions=True,
        )
        assert results[0] is None
        assert results[2] is None
        assert isinstance(results[1], StoreUnusable)
        assert store.counts().pending == 2
        assert len(await store.list_pending(10)) == 2


async def test_cancelled_put_is_whole_or_absent(tmp_path: Path):
    async with open_store(tmp_path) as store:
        task = asyncio.create_task(store.put([make_record(store), make_record(store)]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await store.put([make_record(store)])
        assert store.counts().pending in (1, 3)
        assert len(await take_all(store.lane(KEY))) == store.counts().pending


async def test_put_back_record_is_due_again_at_its_time(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        records = [make_record(store) for _ in range(3)]
        await store.put(records)
        lane = store.lane(KEY)
        first, second = lane.take(2)
        assert first is records[0]
        assert second is records[1]
        lane.put_back([second])
        records[0].next_at = START_AT + 5
        lane.put_back([records[0]])
        assert lane.take(1) == [records[1]]
        assert lane.take(1) == [records[2]]
        assert lane.take(1) == []
        assert lane.next_due_at() == START_AT + 5
        clock.now += 5
        assert lane.take(1) == [records[0]]
        assert lane.next_due_at() is None


async def test_strict_lane_waits_for_its_head(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        records = [make_record(store) for _ in range(3)]
        await store.put(records)
        lane = store.lane(KEY)
        (head,) = lane.take(1, strict=True)
        assert head is records[0]
        head.next_at = START_AT + 5
        lane.put_back([head])
        assert lane.take(1, strict=True) == []
        assert lane.next_due_at() == START_AT + 5
        clock.now += 5
        assert [lane.take(1, strict=True) for _ in range(3)] == [[record] for record in records]


async def test_strict_order_holds_after_a_restart_with_a_delayed_head(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        records = [make_record(store) for _ in range(3)]
        await store.put(records)
        (head,) = store.lane(KEY).take(1, strict=True)
        assert head is not None
        head.attempts, head.next_at = 1, START_AT + 5
        store.settle_retry([head])
    async with open_store(tmp_path, clock) as store:
        lane = store.lane(KEY)
        assert await take(lane, strict=True) is None
        assert lane.next_due_at() == START_AT + 5
        clock.now += 6
        assert await take(lane, strict=True) == head


async def test_ids_are_unique_and_grow_over_restarts_and_a_clock_that_steps_back(tmp_path: Path):
    ids: list[int] = []
    clock = HandClock()
    for step in (0.0, -3_600.0, 0.001, -86_400.0, 10.0):
        clock.now += step
        async with open_store(tmp_path, clock) as store:
            ids += [store.next_id() for _ in range(1_000)]
            record = make_record(store)
            await store.put([record])
            ids.append(record.id)
    assert ids == sorted(set(ids))
    assert ids[-1] < 2**63


async def test_id_tells_when_it_was_made(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        assert id_time(store.next_id()) == START_AT


async def test_id_of_a_settled_record_is_never_given_again(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        await store.put([make_record(store)])
        (record,) = store.lane(KEY).take(1)
        assert record is not None
        store.settle_done([record])
    clock.now -= 1_000_000
    async with open_store(tmp_path, clock) as store:
        assert store.next_id() > record.id


async def test_oldest_waiting_message_is_known_before_its_lane_is_read(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.put([make_record(store)])
        assert store.counts().oldest_created_at == START_AT
    async with open_store(tmp_path, HandClock(START_AT + 50)) as store:
        assert store.counts().oldest_created_at == START_AT


async def test_closed_store_says_so(tmp_path: Path):
    async with open_store(tmp_path) as store:
        record = make_record(store)
    with pytest.raises(StoreUnusable, match="closed"):
        await store.put([record])
    await store.close()


async def test_old_dead_letters_are_forgotten(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock, dead_letter_keep_s=100.0) as store:
        await store.put([make_record(store) for _ in range(2)])
        for record in await take_all(store.lane(KEY)):
            await store.settle_dead(record, "gone")
            clock.now += 60
        assert store.counts().dead == 2
    clock.now += 1
    async with open_store(tmp_path, clock, dead_letter_keep_s=100.0) as store:
        await store.put([make_record(store, subject=SUBJECT)])
        await store.list_dead(10)  # housekeeping follows an operation
        assert len(await store.list_dead(10)) == 1
        assert store.counts().dead == 1
