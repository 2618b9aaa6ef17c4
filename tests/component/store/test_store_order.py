"""Answers of several commits that reach the event loop in one turn count in the order of the commits.

The loop is held up on purpose until the writer is through, so that all answers wait for it together.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

from appliance.outbox.lane import MAX_RECORDS
from appliance.outbox.operations import Call
from appliance.outbox.store import MessageStore
from tests.support.store_bench import KEY, make_record, open_store, take_all


async def begin(awaitable) -> asyncio.Task:
    """Let a call go as far as handing its operation to the writer."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0)
    return task


def hold_the_loop_until_written(store: MessageStore) -> None:
    """Return when the writer has done all that was handed over; its answers wait for the loop."""
    done = threading.Event()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    store._writer.submit(Call(lambda _: done.set(), future))
    assert done.wait(60)


async def test_a_record_accepted_while_a_lane_is_read_is_sent_without_a_restart(tmp_path: Path):
    async with open_store(tmp_path) as store:
        records = [make_record(store) for _ in range(MAX_RECORDS)]
        await store.put(records)
    async with open_store(tmp_path) as store:
        lane = store.lane(KEY)
        taken = lane.take(MAX_RECORDS)
        assert lane.take(1) == []
        assert lane.is_reading  # the rest is read from the disk first
        second = make_record(store)
        accepted = await begin(store.put([second]))
        hold_the_loop_until_written(store)
        await accepted
        ids = [record.id for record in [*taken, *await take_all(lane)]]
        assert ids == [record.id for record in [*records, second]]


async def test_a_record_delivered_while_a_lane_is_read_is_not_sent_again(tmp_path: Path):
    async with open_store(tmp_path) as store:
        records = [make_record(store) for _ in range(MAX_RECORDS + 2)]
        await store.put(records)
        lane = store.lane(KEY)
        held, *_ = lane.take(MAX_RECORDS)
        assert lane.take(1) == []
        assert lane.is_reading
        store.settle_done([held])
        hold_the_loop_until_written(store)
        assert held.id not in {record.id for record in await take_all(lane)}


async def test_a_record_delivered_while_it_is_dropped_counts_once(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.put([make_record(store)])
        lane = store.lane(KEY)
        (held,) = lane.take(1)
        assert held is not None
        dropping = await begin(store.drop([held.id], dead_only=False))
        store.settle_done([held])
        hold_the_loop_until_written(store)
        assert await dropping == 1
        assert store.counts().pending == 0


async def test_dead_letters_are_sent_again_although_who_asked_has_left(tmp_path: Path):
    async with open_store(tmp_path) as store:
        record = make_record(store)
        await store.put([record])
        lane = store.lane(KEY)
        (held,) = lane.take(1)
        assert held is not None
        await store.settle_dead(held, "tested")
        asking = await begin(store.retry_dead())
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        hold_the_loop_until_written(store)
        await store.list_pending()  # a turn for every answer
        assert store.counts().pending == 1
        assert [one.id for one in await take_all(lane)] == [record.id]


async def test_waiting_messages_are_dropped_although_who_asked_has_left(tmp_path: Path):
    async with open_store(tmp_path) as store:
        record = make_record(store)
        await store.put([record])
        dropping = await begin(store.drop([record.id], dead_only=False))
        dropping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await dropping
        hold_the_loop_until_written(store)
        await store.list_pending()
        assert store.counts().pending == 0
        assert store.lane(KEY).depth == 0


async def test_a_lane_whose_records_are_on_disk_only_is_due_until_they_are_asked_for(
    tmp_path: Path,
):
    async with open_store(tmp_path) as store:
        records = [make_record(store) for _ in range(MAX_RECORDS + 1)]
        await store.put(records)
        lane = store.lane(KEY)
        lane.take(MAX_RECORDS)
        assert lane.next_due_at() == 0.0  # else a publisher that waits for an absent node sleeps on
        assert lane.take(1) == []
        assert lane.next_due_at() is None
        assert [one.id for one in await take_all(lane)] == [records[-1].id]
