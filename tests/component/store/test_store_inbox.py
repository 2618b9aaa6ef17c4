"""Receiving: what is remembered, what is kept, and what a crash leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.core.specs import StateSettings
from appliance.errors import StoreFull
from appliance.outbox import dedupe, maintenance
from appliance.outbox.database import PAGE_BYTES
from appliance.outbox.records import TakeInResult
from tests.support.store_bench import (
    INSTANCE,
    KEY,
    START_AT,
    HandClock,
    count_ids,
    forget,
    make_finish,
    make_item,
    make_record,
    open_store,
    take_all,
)

FRESH, DONE, UNFINISHED = (
    TakeInResult.FRESH,
    TakeInResult.REPEAT_DONE,
    TakeInResult.REPEAT_UNFINISHED,
)


async def test_message_is_fresh_until_it_is_finished_and_a_repeat_after(tmp_path: Path):
    async with open_store(tmp_path) as store:
        item = make_item(7)
        assert await store.take_in([item]) == [(FRESH, None, None)]
        assert await store.take_in([item]) == [(FRESH, None, None)]
        await store.finish([make_finish(item)], [])
        assert await store.take_in([item, make_item(8)]) == [
            (DONE, None, "done"),
            (FRESH, None, None),
        ]
    async with open_store(tmp_path) as store:
        assert await store.take_in([item]) == [(DONE, None, "done")]


async def test_sender_instance_and_scope_tell_messages_with_one_id_apart(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.finish([make_finish(make_item(7))], [])
        others = [
            make_item(7, sender="gamma"),
            make_item(7, instance="ffffffffffffffff"),
            make_item(7, scope="beta.REQPing"),
        ]
        assert await store.take_in(others) == [(FRESH, None, None)] * 3
        assert await store.take_in([make_item(7)]) == [(DONE, None, "done")]


async def test_sender_without_an_instance_is_never_a_repeat(tmp_path: Path):
    async with open_store(tmp_path) as store:
        item = make_item(0, instance=None)
        await store.finish([make_finish(item)], [])
        assert await store.take_in([item, item]) == [(FRESH, None, None)] * 2


async def test_take_in_without_bodies_writes_nothing(tmp_path: Path):
    async with open_store(tmp_path) as store:
        before = store._database.commits
        await store.take_in([make_item(number) for number in range(100)])
        assert store._database.commits == before


async def test_kept_body_is_there_after_a_crash_with_all_that_came_with_it(tmp_path: Path):
    async with open_store(tmp_path) as store:
        item = make_item(
            7, keep_body=True, payload=bytes(range(256)), block=b"NATS/1.0\r\nx: \xff\r\n\r\n"
        )
        ((result, row_id, _),) = await store.take_in([item])
        assert result is FRESH
        assert await store.take_in([item]) == [(UNFINISHED, row_id, None)]
    async with open_store(tmp_path) as store:
        (row,) = await store.claim_inbox("beta", "REQToConsole")
        assert (row.row_id, row.sender, row.instance, row.message_id) == (
            row_id,
            "alpha",
            INSTANCE,
            7,
        )
        assert (row.payload, row.block, row.reply_to) == (
            item.payload,
            item.block,
            item.reply_to,
        )
        assert (row.started, row.note, row.taken_at) == (False, "", START_AT)
        assert await store.claim_inbox("beta", "REQOther") == []
        assert await store.claim_inbox("gamma", "REQToConsole") == []
        await store.finish([make_finish(item, row.row_id)], [])
        assert await store.take_in([item]) == [(DONE, None, "done")]
        assert await store.claim_inbox("beta", "REQToConsole") == []


async def test_unfinished_messages_come_oldest_first(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.take_in([make_item(number, keep_body=True) for number in (9, 3, 5)])
        await store.take_in([make_item(1, keep_body=True)])
    async with open_store(tmp_path) as store:
        rows = await store.claim_inbox("beta", "REQToConsole")
        assert [row.message_id for row in rows] == [9, 3, 5, 1]


async def test_start_mark_and_last_note_survive_a_crash(tmp_path: Path):
    async with open_store(tmp_path) as store:
        items = [make_item(number, keep_body=True) for number in (1, 2, 3)]
        rows = [row_id for _, row_id, _ in await store.take_in(items)]
        assert rows[0] is not None
        assert rows[2] is not None
        await store.mark_started([rows[0], rows[2]])
        await store.note(rows[0], json.dumps(["a", 1, 2]))
        await store.note(rows[0], json.dumps(["a/é\udcff", 10, 20]))
    async with open_store(tmp_path) as store:
        found = await store.claim_inbox("beta", "REQToConsole")
        assert [row.started for row in found] == [True, False, True]
        assert json.loads(found[0].note) == ["a/é\udcff", 10, 20]
        assert found[1].note == ""


async def test_finish_and_its_replies_are_one_commit(tmp_path: Path):
    async with open_store(tmp_path) as store:
        item = make_item(7, keep_body=True)
        ((_, row_id, _),) = await store.take_in([item])
        before = store._database.commits
        reply = make_record(store)
        await store.finish([make_finish(item, row_id)], [reply])
        assert store._database.commits == before + 1
        assert await take_all(store.lane(KEY)) == [reply]
    async with open_store(tmp_path) as store:
        assert await take_all(store.lane(KEY)) == [reply]
        assert await store.take_in([item]) == [(DONE, None, "done")]


async def test_two_copies_in_one_take_in_are_one_message(tmp_path: Path):
    async with open_store(tmp_path) as store:
        results = await store.take_in([make_item(7), make_item(7)])
        assert [result for result, _, _ in results] == [FRESH, UNFINISHED]
        results = await store.take_in([make_item(8, keep_body=True)] * 2)
        assert [result for result, _, _ in results] == [FRESH, UNFINISHED]
        assert len(await store.claim_inbox("beta", "REQToConsole")) == 1


async def test_memory_of_ids_ends_with_the_window(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock, dedupe_window_s=100.0) as store:
        await store.finish([make_finish(make_item(number)) for number in range(10)], [])
        kept = make_item(50, keep_body=True)
        await store.take_in([kept])
        clock.now += 60
        await forget(store)
        await store.finish([make_finish(make_item(100))], [])
        clock.now += 60
        await forget(store)
        results = await store.take_in([make_item(0), make_item(9), make_item(100), kept])
        assert [result for result, _, _ in results] == [FRESH, FRESH, DONE, UNFINISHED]
        clock.now += 60
        await forget(store)
        assert await store.take_in([make_item(100)]) == [(FRESH, None, None)]
        assert count_ids(store._database.dedupe.senders.values()) == 0
        assert [result for result, _, _ in await store.take_in([kept])] == [UNFINISHED]


async def test_bounds_of_a_reload_hold_in_the_running_store(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock, dedupe_window_s=1000.0, max_messages=1) as store:
        await store.finish([make_finish(make_item(1))], [])
        store.update(StateSettings(dedupe_window_s=10.0, max_messages=2, max_bytes=50_000_000))
        await store.put([make_record(store), make_record(store)])
        with pytest.raises(StoreFull):
            await store.put([make_record(store)])
        clock.now += 20
        await forget(store)
        assert await store.take_in([make_item(1)]) == [(FRESH, None, None)]
        (pages,) = await store._call(
            lambda database: database.connection.execute("PRAGMA max_page_count").fetchone()
        )
        assert pages == 50_000_000 // PAGE_BYTES


async def test_forgetting_goes_in_slices(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dedupe, "FORGET_SLICE", 10)
    monkeypatch.setattr(dedupe, "BLOCK_IDS", 4)
    clock = HandClock()
    async with open_store(tmp_path, clock, dedupe_window_s=100.0) as store:
        await store.finish([make_finish(make_item(number)) for number in range(1, 101)], [])
        await store._call(lambda _: store._writer._maintenance.flush())
        clock.now += 200
        left = []
        for _ in range(3):
            await forget(store)
            left.append(count_ids(store._database.dedupe.senders.values()))
        assert left == [60, 20, 0]


async def test_flood_of_one_sender_shortens_its_own_memory_only_and_says_so(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(dedupe, "BLOCK_IDS", 16)
    monkeypatch.setattr(maintenance, "ID_SHARE", 1_000_000)
    async with open_store(tmp_path, max_bytes=400_000_000) as store:
        await store.finish([make_finish(make_item(1, sender="quiet"))], [])
        await store.finish([make_finish(make_item(number)) for number in range(1, 65)], [])
        await store._call(lambda _: store._writer._maintenance.flush())
        assert store.health().text == ""
        await forget(store)
        results = await store.take_in([make_item(1, sender="quiet"), make_item(1), make_item(64)])
        assert [result for result, _, _ in results] == [DONE, FRESH, DONE]
        assert "ids of alpha at beta.REQToConsole are forgotten early" in store.health().text


async def test_sender_whose_memory_ended_is_remembered_anew(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock, dedupe_window_s=10.0) as store:
        await store.finish([make_finish(make_item(1))], [])
        clock.now += 20
        await forget(store)
        await store.finish([make_finish(make_item(2))], [])
        assert await store.take_in([make_item(2)]) == [(DONE, None, "done")]
    async with open_store(tmp_path, clock) as store:
        assert await store.take_in([make_item(2)]) == [(DONE, None, "done")]
