"""The memory of ids: exact, bounded, and cheap to end, whatever instances peers invent."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from appliance.errors import StoreFull
from appliance.outbox import dedupe, queries
from appliance.outbox.records import TakeInResult
from tests.support.store_bench import (
    INSTANCE,
    HandClock,
    count_ids,
    flush,
    forget,
    make_finish,
    make_item,
    open_store,
)

DONE, FRESH = TakeInResult.REPEAT_DONE, TakeInResult.FRESH


def item_of(number, *, sender="alpha", message_id=7):
    return make_item(message_id, sender=sender, instance=f"{number:016x}")


async def results_of(store, items):
    return [taken.result for taken in await store.take_in(items)]


async def test_memory_of_many_senders_ends_in_a_few_commits(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock, dedupe_window_s=100.0) as store:
        items = [make_item(7, sender=f"node{number}") for number in range(1_000)]
        await store.finish([make_finish(item) for item in items], [])
        await flush(store)
        clock.now += 200
        before = store._database.commits
        while store._database.dedupe.senders:
            await forget(store)
        assert store._database.commits - before <= 1_000 // dedupe.FORGET_SLICE + 2
        assert await results_of(store, items[:3]) == [FRESH] * 3
    async with open_store(tmp_path, clock, dedupe_window_s=100.0) as store:
        assert store._database.dedupe.senders == {}


async def test_invented_instances_shorten_the_memory_of_their_own_name_only(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(dedupe, "MAX_INSTANCES", 5)
    async with open_store(tmp_path) as store:
        await store.finish([make_finish(item_of(0, sender="quiet"))], [])
        await store.finish([make_finish(item_of(number)) for number in range(50)], [])
        await store.finish([make_finish(item_of(3, message_id=8))], [])  # heard again
        await flush(store)
        await forget(store)
        assert len(store._database.dedupe.senders) == 6
        known = [item_of(0, sender="quiet"), item_of(49), item_of(46), item_of(3)]
        assert await results_of(store, known) == [DONE] * 4
        assert await results_of(store, [item_of(4), item_of(45)]) == [FRESH] * 2
        assert "more than 5 instances" in store.health().text
    async with open_store(tmp_path) as store:
        assert len(store._database.dedupe.senders) == 6
        assert await results_of(store, [item_of(49)]) == [DONE]


async def test_what_is_unfinished_is_not_forgotten(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dedupe, "MAX_INSTANCES", 2)
    async with open_store(tmp_path) as store:
        kept = make_item(7, instance=f"{0:016x}", keep_body=True)
        await store.take_in([kept])
        await store.finish([make_finish(item_of(number)) for number in range(1, 9)], [])
        await flush(store)
        for _ in range(3):
            await forget(store)
        assert await results_of(store, [kept]) == [TakeInResult.REPEAT_UNFINISHED]


async def test_a_flush_that_finds_no_room_changes_nothing(tmp_path: Path, monkeypatch):
    async with open_store(tmp_path) as store:
        await store.finish([make_finish(make_item(7)), make_finish(make_item(8))], [])
        database = store._database

        def fail(*_):
            raise StoreFull("no room")

        with monkeypatch.context() as patch:
            patch.setattr(database, "commit", fail)
            with pytest.raises(StoreFull):
                await flush(store)
        assert count_ids(database.dedupe.senders.values()) == 2
        assert database.dedupe.recent_count == 2
        assert await results_of(store, [make_item(7)]) == [DONE]
        await flush(store)
        assert database.dedupe.recent_count == 0
        assert await results_of(store, [make_item(7), make_item(9)]) == [DONE, FRESH]


@pytest.mark.parametrize("seed", range(6))
async def test_every_answer_is_that_of_a_set_whatever_is_in_memory(
    tmp_path: Path, monkeypatch, seed: int
):
    """Ids in any order, over flushes, merges and restarts, with almost no memory for blocks."""
    monkeypatch.setattr(dedupe, "MAX_IN_MEMORY", 40)
    monkeypatch.setattr(dedupe, "BLOCK_IDS", 32)
    chance = random.Random(seed)
    known: dict[tuple[str, int], str] = {}
    for _ in range(3):
        async with open_store(tmp_path) as store:
            for _ in range(12):
                sender = chance.choice(["a", "b"])
                items = [
                    make_item(number, sender=sender)
                    for number in chance.sample(range(1, 600), chance.randint(1, 20))
                ]
                fresh = [item for item in items if (sender, item.message_id) not in known]
                verdict = chance.choice(["done", "done", "failed: no room"])
                await store.finish([make_finish(item, verdict=verdict) for item in fresh], [])
                known.update({(sender, item.message_id): verdict for item in fresh})
                if chance.random() < 0.6:
                    await flush(store)
            for sender in ("a", "b"):
                for first in range(1, 640, 37):
                    items = [make_item(n, sender=sender) for n in range(first, first + 37)]
                    expected = [known.get((sender, item.message_id)) for item in items]
                    taken = await store.take_in(items)
                    assert [one.verdict for one in taken] == expected
            assert store._database.dedupe._cached_ids <= 40 + 32


async def test_a_new_id_is_known_to_be_new_without_the_disk(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.finish([make_finish(make_item(n)) for n in range(1, 100)], [])
        await flush(store)
        read = []
        store._database.dedupe._read_block = read.append  # type: ignore[method-assign]
        assert await results_of(store, [make_item(100), make_item(101)]) == [FRESH] * 2
        assert read == []


async def test_failures_and_refusals_are_remembered_with_their_words_and_a_new_attempt_runs(
    tmp_path: Path,
):
    words = {1: "done", 2: "failed: " + "é" * 400, 3: "refused: no such command"}
    for round_number in range(3):
        async with open_store(tmp_path) as store:
            if round_number == 0:
                finished = [
                    make_finish(make_item(n), verdict=verdict) for n, verdict in words.items()
                ]
                await store.finish(finished, [])
            if round_number == 1:
                await flush(store)
            taken = await store.take_in([make_item(n) for n in words])
            assert [one.verdict for one in taken] == [text[:300] for text in words.values()]
            again = await store.take_in([make_item(n, attempt=1) for n in words])
            assert [one.result for one in again] == [DONE, FRESH, FRESH]
    async with open_store(tmp_path) as store:
        retry = make_item(2, attempt=1, keep_body=True)
        ((result, row_id, _),) = await store.take_in([retry])
        assert result is FRESH
        assert await results_of(store, [retry]) == [TakeInResult.REPEAT_UNFINISHED]
    async with open_store(tmp_path) as store:
        assert await results_of(store, [retry]) == [TakeInResult.REPEAT_UNFINISHED]
        await store.finish([make_finish(retry, row_id)], [])
        await flush(store)
        taken = await store.take_in([make_item(2), make_item(2, attempt=5)])
        assert [one.verdict for one in taken] == ["done", "done"]


async def test_many_small_blocks_become_few(tmp_path: Path):
    async with open_store(tmp_path) as store:
        for number in range(1, 101):
            await store.finish([make_finish(make_item(number))], [])
            await flush(store)
        (sender,) = store._database.dedupe.senders.values()
        assert len(sender.blocks) < 2 * dedupe.MERGE_COUNT
        assert await results_of(store, [make_item(n) for n in range(1, 101)]) == [DONE] * 100


async def test_row_that_an_operator_dropped_is_told_as_refused(tmp_path: Path):
    async with open_store(tmp_path) as store:
        items = [make_item(n, keep_body=True) for n in (1, 2, 3)]
        rows = [taken.row_id for taken in await store.take_in(items)]
        assert [row.message_id for row in await store.list_inbox(2)] == [1, 2]
        assert await store.drop_inbox([rows[1], 99]) == 1
        assert store.counts().inbox == 2
        ((result, _, verdict),) = await store.take_in([items[1]])
        assert (result, verdict) == (DONE, queries.DROPPED_VERDICT)
        assert await store.drop_inbox() == 2
    async with open_store(tmp_path) as store:
        assert await store.list_inbox() == []
        assert await results_of(store, items) == [DONE] * 3


async def test_rows_follow_the_worker_whatever_the_kind_of_their_subject(tmp_path: Path):
    async with open_store(tmp_path) as store:
        kinds = ["EventACK", "EventNACK"]
        items = [
            make_item(n, subject=f"beta.REQToConsole.{kind}", keep_body=True)
            for n, kind in enumerate(kinds, 1)
        ]
        await store.take_in(items)
        rows = await store.claim_inbox("beta", "REQToConsole")
        assert [row.subject for row in rows] == [item.subject for item in items]
        assert rows[0].instance == INSTANCE
