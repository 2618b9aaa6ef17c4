"""Facts, renamed lanes, room and what the store says of itself."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from appliance.core.names import NodeName, Subject
from appliance.errors import StoreFull, StoreUnusable
from appliance.outbox import facts as facts_module
from appliance.outbox import lane as lane_module
from appliance.outbox import maintenance
from appliance.outbox.records import HealthState
from tests.support.store_bench import (
    KEY,
    START_AT,
    HandClock,
    forget,
    make_item,
    make_record,
    open_store,
    take,
    take_all,
)

NEW = (NodeName("alpha"), Subject("beta.REQToConsole.EventNACK"))


async def test_facts_are_there_after_a_restart_and_can_be_forgotten(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.remember("peer", {"beta": "2", "gamma": "1"})
        await store.remember("other", {"beta": "é"})
        assert store.facts("peer") == {"beta": "2", "gamma": "1"}
        await store.remember("peer", {"gamma": None, "delta": "3", "never": None})
    async with open_store(tmp_path) as store:
        assert store.facts("peer") == {"beta": "2", "delta": "3"}
        assert store.facts("other") == {"beta": "é"}
        assert store.facts("none") == {}


async def test_facts_and_records_are_one_commit(tmp_path: Path):
    async with open_store(tmp_path, max_messages=1) as store:
        before = store._database.commits
        await store.put([make_record(store)], facts={("tick", "a"): "1"})
        assert store._database.commits == before + 1
        with pytest.raises(StoreFull):
            await store.put([make_record(store)], facts={("tick", "a"): "2"})
        assert store.facts("tick") == {"a": "1"}
    async with open_store(tmp_path) as store:
        assert store.facts("tick") == {"a": "1"}
        assert store.counts().pending == 1


async def test_facts_are_bounded(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(facts_module, "MAX_PER_KIND", 3)
    async with open_store(tmp_path) as store:
        for number in range(5):
            await store.remember("peer", {str(number): "x", "0": "again"})
        assert set(store.facts("peer")) == {"0", "3", "4"}
        with pytest.raises(StoreUnusable, match="longer than"):
            await store.remember("peer", {"k" * 2_000: "x"})
        with pytest.raises(StoreUnusable, match="cannot be stored"):
            await store.remember("peer", {"\udcff": "x"})
    async with open_store(tmp_path) as store:
        assert set(store.facts("peer")) == {"0", "3", "4"}


async def test_a_record_is_pending_from_its_acceptance_to_its_end(tmp_path: Path):
    async with open_store(tmp_path) as store:
        record, other = make_record(store), make_record(store)
        assert not store.is_pending(record.id)
        await store.put([record, other])
        assert store.is_pending(record.id)
        (held,) = store.lane(KEY).take(1)
        assert store.is_pending(record.id)
        store.settle_done([held])
        assert not store.is_pending(record.id)
        assert store.is_pending(other.id)
    async with open_store(tmp_path) as store:
        assert store.is_pending(other.id)
        assert not store.is_pending(record.id)


async def test_sends_taker_attempt_and_origin_survive(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.put([make_record(store, origin="schedule:hourly")])
        (record,) = store.lane(KEY).take(1)
        record.sends, record.taker = 3, "ffff000011112222"
        store.settle_retry([record])
    async with open_store(tmp_path) as store:
        (again,) = store.lane(KEY).take(1)
        assert (again.sends, again.taker, again.attempt, again.origin) == (
            3,
            "ffff000011112222",
            0,
            "schedule:hourly",
        )
        await store.settle_dead(again, "failed: no room")
        await store.retry_dead()
    async with open_store(tmp_path) as store:
        (again,) = store.lane(KEY).take(1)
        assert (again.sends, again.taker, again.attempt, again.origin) == (
            0,
            "",
            1,
            "schedule:hourly",
        )


@pytest.mark.parametrize("is_reopened", [False, True])
async def test_records_of_a_renamed_lane_follow_in_order_of_their_ids(
    tmp_path: Path, monkeypatch, is_reopened: bool
):
    monkeypatch.setattr(lane_module, "MAX_RECORDS", 64)
    numbers = list(range(600))
    async with open_store(tmp_path) as store:
        records = [make_record(store, payload=b"%d" % n) for n in numbers]
        for record in records[1::3]:
            record.node, record.subject = NEW
        for first in range(0, 600, 100):
            await store.put(records[first : first + 100])
        held, delayed = store.lane(KEY).take(2)
        delayed.next_at = store.now() + 50
        delayed.attempts = 1
        store.settle_retry([delayed])
        store.lane(KEY).put_back([delayed])
        renamed: list[object] = []
        store.lane(KEY).on_renamed = renamed.append
        announced: list[object] = []
        store.on_new_lane.append(announced.append)
        moved = store.rename_lane(KEY, NEW)
        assert await moved == 400
        assert renamed == [NEW]
        assert announced == [NEW]
        assert store.lane(KEY).depth == store.lane(KEY).held == 0
        assert await store.rename_lane(KEY, NEW) == 0
        await store.list_pending(1)
        assert store._database.segments.forwards == {}
        assert store.counts().pending == 600
        store.lane(KEY).put_back([held])  # its publisher knows the old lane only
        if not is_reopened:
            await check_merged(store, records, delayed.id)
    if is_reopened:
        async with open_store(tmp_path) as store:
            assert store.lanes_with_records() == {NEW}
            await check_merged(store, records, delayed.id)


async def check_merged(store, records, delayed_id: int) -> None:
    sent = await take_all(store.lane(NEW))
    assert [one.payload for one in sent] == [one.payload for one in records if one.id != delayed_id]
    assert {one.subject for one in sent} == {NEW[1]}
    store.settle_done(sent)
    assert store.counts().pending == 1
    assert store.is_pending(delayed_id)


async def test_a_record_in_hand_while_its_lane_is_renamed_settles_there(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.put([make_record(store), make_record(store)])
        first, second = store.lane(KEY).take(2)
        renaming = asyncio.ensure_future(store.rename_lane(KEY, NEW))
        store.settle_done([first])
        assert await renaming <= 2
        await store.settle_dead(second, "failed: tested")
        assert store.counts().pending == 0
        (letter,) = await store.list_dead()
        assert letter.record.subject == NEW[1]
    async with open_store(tmp_path) as store:
        assert store.lanes_with_records() == set()


async def test_dead_letters_have_a_room_of_their_own(tmp_path: Path):
    async with open_store(tmp_path, max_messages=5) as store:
        for _ in range(2):
            await store.put([make_record(store) for _ in range(5)])
            for record in store.lane(KEY).take(5):
                await store.settle_dead(record, "failed: tested")
        ids = [letter.record.id for letter in await store.list_dead()][-5:]
        await store.put([make_record(store) for _ in range(5)])
        assert not [record for record in await store.list_pending() if record.id in ids]
        await forget(store)
        assert [letter.record.id for letter in await store.list_dead()] == ids
        assert store.counts().dead == 5
        assert "5 dead letters were dropped" in store.health().text


async def test_a_full_outbox_says_what_holds_the_room(tmp_path: Path):
    async with open_store(tmp_path, max_messages=10) as store:
        await store.put([make_record(store, subject="ship.REQPing.EventACK") for _ in range(9)])
        await store.put([make_record(store)])
        with pytest.raises(StoreFull) as caught:
            await store.put([make_record(store)])
        assert str(caught.value) == (
            "the outbox holds 10 waiting messages, its limit is 10; most wait for ship (9)"
        )


async def test_a_store_that_waits_for_its_disk_is_behind(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        assert store.health().state is HealthState.OK
        entered, released = asyncio.Event(), threading.Event()
        real, loop = store._database.commit, asyncio.get_running_loop()

        def slow(plan, last_id):
            loop.call_soon_threadsafe(entered.set)
            assert released.wait(60)
            return real(plan, last_id)

        store._database.commit = slow  # type: ignore[method-assign]
        putting = asyncio.ensure_future(store.put([make_record(store)]))
        try:
            await entered.wait()
            assert store.health().state is HealthState.OK
            clock.now += 6
            health = store.health()
            assert health.state is HealthState.BEHIND
            assert health.since == START_AT + 6
        finally:
            released.set()
        await putting
        assert store.health().state is HealthState.OK


async def fill(store) -> None:
    """Put until there is no room."""
    while True:
        try:
            await store.put([make_record(store, payload=bytes(20_000))])
        except StoreFull:
            return


async def test_a_full_quota_shows_and_passes_by_itself(tmp_path: Path):
    async with open_store(tmp_path, max_bytes=1_000_000) as store:
        await fill(store)
        assert store.health().state is HealthState.FULL
        assert "no room" in store.health().text
        for record in await take_all(store.lane(KEY)):
            store.settle_done([record])
        await store.put([make_record(store)])
        assert store.health().state is HealthState.OK


async def test_a_read_only_disk_shows_and_passes_by_itself(tmp_path: Path, monkeypatch):
    async with open_store(tmp_path) as store:
        real = store._database.commit
        is_read_only = True

        def commit(plan, last_id):
            if is_read_only:
                error = sqlite3.OperationalError("attempt to write a readonly database")
                error.sqlite_errorname = "SQLITE_READONLY"
                raise error
            return real(plan, last_id)

        monkeypatch.setattr(store._database, "commit", commit)
        with pytest.raises(StoreFull, match="cannot be written now"):
            await store.put([make_record(store)])
        assert store.health().state is HealthState.READ_ONLY
        is_read_only = False
        await store.put([make_record(store)])
        assert store.health().state is HealthState.OK


async def test_a_disk_that_the_kernel_has_closed_is_read_only_and_not_full(
    tmp_path: Path, monkeypatch
):
    async with open_store(tmp_path) as store:
        real, is_closed = store._database.commit, True

        def commit(plan, last_id):
            if is_closed:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorname = "SQLITE_IOERR_WRITE"
                raise error
            return real(plan, last_id)

        monkeypatch.setattr(store._database, "commit", commit)
        monkeypatch.setattr(maintenance, "takes_no_writes", lambda _directory: is_closed)
        with pytest.raises(StoreFull):
            await store.put([make_record(store)])
        assert store.health().state is HealthState.READ_ONLY
        is_closed = False
        await store.put([make_record(store)])
        assert store.health().state is HealthState.OK


async def test_a_database_that_fails_for_good_is_broken(tmp_path: Path, monkeypatch):
    async with open_store(tmp_path) as store:

        def commit(plan, last_id):
            raise sqlite3.DatabaseError("database disk image is malformed")

        monkeypatch.setattr(store._database, "commit", commit)
        with pytest.raises(StoreUnusable):
            await store.put([make_record(store)])
        assert store.health().state is HealthState.BROKEN
        assert "malformed" in store.health().text
        with pytest.raises(StoreUnusable):
            await store.take_in([make_item(1, keep_body=True)])


async def test_counts_know_the_inbox_and_the_bytes(tmp_path: Path):
    async with open_store(tmp_path) as store:
        await store.take_in([make_item(n, keep_body=True, payload=bytes(1_000)) for n in (1, 2)])
        await store.put([make_record(store, payload=bytes(5_000))])
        assert store.counts().inbox == 2
        assert 7_000 < store.counts().bytes < 9_000
        assert await take(store.lane(KEY)) is not None
