"""The memory of ids stays bounded and cheap to end, whatever instances peers invent."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from appliance.outbox import memory, pruning
from appliance.outbox.records import TakeInResult
from tests.support.store_bench import HandClock, make_finish, make_item, open_store

DONE, FRESH = TakeInResult.REPEAT_DONE, TakeInResult.FRESH


def item_of(number, *, sender="alpha"):
    return make_item(7, sender=sender, instance=f"{number:016x}")


async def prune(store, now):
    return await store._call(lambda database: pruning.prune(database, now))


async def test_memory_of_many_senders_ends_in_a_few_commits(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock, dedupe_window_s=100.0) as store:
        items = [make_item(7, sender=f"node{number}") for number in range(1_000)]
        await store.finish([make_finish(item) for item in items], [])
        clock.now += 200
        database, alone = store._database, []

        def note(statement):
            if statement.startswith("DELETE") and not database.connection.in_transaction:
                alone.append(statement)

        await store._call(lambda database: database.connection.set_trace_callback(note))
        slices = 0
        while database.senders.numbers:
            await prune(store, clock.now)
            slices += 1
        assert slices <= 3
        assert alone == []
        assert await store.take_in(items[:3]) == [(FRESH, None, None)] * 3


async def test_all_senders_have_their_turn(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pruning, "SENDERS_AT_ONCE", 3)
    monkeypatch.setattr(pruning, "PRUNE_SLICE", 2)
    clock = HandClock()
    async with open_store(tmp_path, clock, dedupe_window_s=100.0) as store:
        items = [make_item(7, sender=f"node{number}") for number in range(10)]
        await store.finish([make_finish(item) for item in items], [])
        clock.now += 200
        left = []
        for _ in range(10):
            assert await prune(store, clock.now)
            left.append(len(store._database.senders.numbers))
        assert left == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


async def test_invented_instances_shorten_the_memory_of_their_own_name_only(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(memory, "MAX_INSTANCES", 5)
    async with open_store(tmp_path) as store:
        await store.finish([make_finish(item_of(0, sender="quiet"))], [])
        await store.finish([make_finish(item_of(number)) for number in range(50)], [])
        await store.finish([make_finish(make_item(8, instance=f"{3:016x}"))], [])  # heard again
        await prune(store, HandClock().now)
        assert len(store._database.senders.numbers) == 6
        known = [item_of(0, sender="quiet"), item_of(49), item_of(46), item_of(3)]
        assert [result for result, _, _ in await store.take_in(known)] == [DONE] * 4
        assert await store.take_in([item_of(4), item_of(45)]) == [(FRESH, None, None)] * 2
    async with open_store(tmp_path) as store:
        assert len(store._database.senders.numbers) <= 8
        assert await store.take_in([item_of(49)]) == [(DONE, None, "done")]


async def test_what_is_unfinished_is_not_forgotten(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(memory, "MAX_INSTANCES", 2)
    async with open_store(tmp_path) as store:
        kept = make_item(7, instance=f"{0:016x}", keep_body=True)
        await store.take_in([kept])
        await store.finish([make_finish(item_of(number)) for number in range(1, 9)], [])
        for _ in range(3):
            await prune(store, HandClock().now)
        ((result, _, _),) = await store.take_in([kept])
        assert result is TakeInResult.REPEAT_UNFINISHED


async def test_a_slice_that_fails_changes_nothing(tmp_path: Path, monkeypatch):
    clock = HandClock()
    async with open_store(tmp_path, clock, dedupe_window_s=100.0) as store:
        await store.finish([make_finish(make_item(7)), make_finish(make_item(8))], [])
        clock.now += 200

        def fail(*_):
            raise sqlite3.OperationalError("disk I/O error")

        def try_to_prune(database):
            with pytest.raises(sqlite3.OperationalError):
                pruning.prune(database, clock.now)

        with monkeypatch.context() as patch:
            patch.setattr(pruning, "_forget_dead", fail)
            await store._call(try_to_prune)
        assert store._database.senders.counts == {1: 2}
        assert [result for result, _, _ in await store.take_in([make_item(7)])] == [DONE]
        await prune(store, clock.now)
        assert store._database.senders.numbers == {}
