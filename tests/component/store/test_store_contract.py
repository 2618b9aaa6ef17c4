"""The same sentences about the real store and about its double, on which the heart is tested in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from appliance.core.names import NodeName, Subject
from appliance.core.specs import StateSettings
from appliance.errors import StoreFull, StoreUnusable
from appliance.outbox.records import (
    CALLED_OFF_NOTE,
    CALLED_OFF_VERDICT,
    CalledOff,
    HealthState,
    TakeInResult,
)
from appliance.outbox.store import MessageStore
from tests.component.store.test_store_model import StoreAndModel
from tests.support.memory_store import CrashPoint, MemoryDisk, MemoryStore
from tests.support.store_bench import (
    INSTANCE,
    KEY,
    START_AT,
    HandClock,
    make_finish,
    make_item,
    make_record,
    make_run,
    open_store,
    take,
    take_all,
)
from tests.support.virtual_time import VirtualLoop, run_virtual

OpenStore = Callable[..., AbstractAsyncContextManager[MessageStore]]
FRESH, REPEAT_DONE, REPEAT_UNFINISHED = (
    TakeInResult.FRESH,
    TakeInResult.REPEAT_DONE,
    TakeInResult.REPEAT_UNFINISHED,
)


@pytest.fixture
def clock() -> HandClock:
    """The clocks of the stores of one test."""
    return HandClock()


@pytest.fixture(params=["real", "double"])
def open_it(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> OpenStore:
    """Opens a store on one and the same disk, as often as wanted."""
    disk = MemoryDisk(instance="0" * 16, commit_s=lambda: 0.0)

    @asynccontextmanager
    async def open_real(**changes: Any) -> AsyncIterator[MessageStore]:
        async with open_store(tmp_path, clock, **changes) as store:
            yield store

    @asynccontextmanager
    async def open_double(**changes: Any) -> AsyncIterator[MemoryStore]:
        store = await MemoryStore.open(
            disk, StateSettings(**changes), wall=clock.wall, mono=clock.mono
        )
        try:
            yield store
        finally:
            await store.close()

    return open_real if request.param == "real" else open_double  # type: ignore[return-value]


# Dead letters.


async def test_dead_letters_are_found_by_where_they_were_for_and_how_their_reason_begins(
    open_it: OpenStore,
):
    async with open_it() as store:
        reasons = ["no answer_ after 3", "no answerX after 3", "refused: no answer_ after 3"]
        found = []
        for reason in reasons:
            for node in ("ship", "ship.two"):
                subject = Subject(f"{node}.REQPing.EventACK")
                record = make_record(store, subject=subject)
                await store.put([record])
                (taken,) = store.lane(record.lane_key).take(1)
                await store.settle_dead(taken, reason)
                if (node, reason) == ("ship", reasons[0]):
                    found.append(record.id)
        assert await store.find_dead("ship", "no answer_ after") == found
        assert await store.find_dead("elsewhere", "no answer_") == []


# Sending.


async def test_accepted_is_in_its_lane_when_put_returns_and_after_a_restart(open_it: OpenStore):
    async with open_it() as store:
        record = make_record(store, headers={"appl-id": "x"}, expires_at=START_AT + 9, retries=2)
        await store.put([record])
        assert store.is_pending(record.id)
        assert store.lanes_with_records() == {KEY}
        assert store.lane(KEY).depth == 1
    async with open_it() as store:
        assert store.is_pending(record.id)
        assert await take_all(store.lane(KEY)) == [record]


async def test_settled_is_gone_and_no_longer_pending(open_it: OpenStore):
    async with open_it() as store:
        records = [make_record(store) for _ in range(3)]
        await store.put(records)
        store.settle_done(store.lane(KEY).take(2))
        assert [store.is_pending(record.id) for record in records] == [False, False, True]
        assert store.counts().pending == 1
    async with open_it() as store:
        assert await take_all(store.lane(KEY)) == records[2:]


async def test_what_was_tried_survives_a_restart_and_what_only_memory_knew_does_not(
    open_it: OpenStore,
):
    async with open_it() as store:
        await store.put([make_record(store)])
        (record,) = store.lane(KEY).take(1)
        record.attempts, record.sends, record.taker, record.last_error = 3, 2, INSTANCE, "silence"
        record.payload = b"encoded anew"
        store.settle_retry([record])
        record.attempts = 99
    async with open_it() as store:
        again = await take(store.lane(KEY))
        assert again is not None
        assert (again.attempts, again.sends, again.taker, again.last_error, again.payload) == (
            *(3, 2, INSTANCE, "silence"),
            b"hello",
        )


async def test_dead_letter_tried_again_is_a_new_attempt_with_fresh_tries(open_it: OpenStore):
    async with open_it() as store:
        await store.put([make_record(store, expires_at=START_AT + 60)])
        (record,) = store.lane(KEY).take(1)
        record.attempts, record.sends, record.taker = 3, 3, INSTANCE
        await store.settle_dead(record, "failed: tested")
        assert not store.is_pending(record.id)
        (dead,) = await store.list_dead()
        assert (dead.reason, dead.record.id) == ("failed: tested", record.id)
        assert await store.retry_dead([record.id]) == 1
        assert store.is_pending(record.id)
        again = await take(store.lane(KEY))
        assert again is not None
        assert (again.attempt, again.attempts, again.sends, again.taker) == (1, 0, 0, "")
        assert again.expires_at == START_AT + 60
        assert store.counts().dead == 0


async def test_each_retry_of_a_dead_letter_gives_it_the_lifetime_that_it_had_and_no_more(
    open_it: OpenStore, clock: HandClock
):
    async with open_it() as store:
        await store.put([make_record(store, expires_at=START_AT + 60)])
        for _ in range(3):
            taken = await take(store.lane(KEY))
            assert taken is not None
            assert taken.expires_at is not None
            assert abs(taken.expires_at - store.now() - 60) < 1
            clock.now += 1_000.0
            await store.settle_dead(taken, "expired: no acknowledgement within 60 s")
            assert await store.retry_dead([taken.id]) == 1


async def test_dropped_records_leave_their_lane_and_its_owner_is_told(open_it: OpenStore):
    async with open_it() as store:
        records = [make_record(store) for _ in range(3)]
        await store.put(records)
        told: list[set[int]] = []
        store.lane(KEY).on_removed = told.append
        store.lane(KEY).take(1)
        assert await store.drop([records[0].id, records[1].id]) == 0  # they are no dead letters
        assert await store.drop([records[0].id, records[1].id], dead_only=False) == 2
        assert {number for numbers in told for number in numbers} == {r.id for r in records[:2]}
        assert store.counts().pending == 1
    async with open_it() as store:
        assert await take_all(store.lane(KEY)) == records[2:]


async def test_waiting_and_held_records_follow_a_lane_that_is_renamed(open_it: OpenStore):
    new = (NodeName("alpha"), Subject("beta.REQToConsole.EventNACK"))
    async with open_it() as store:
        records = [make_record(store) for _ in range(3)]
        await store.put(records)
        (held,) = store.lane(KEY).take(1)
        told: list[object] = []
        store.lane(KEY).on_renamed = told.append
        announced: list[object] = []
        store.on_new_lane.append(announced.append)
        assert await store.rename_lane(KEY, new) == 3
        assert (told, announced) == ([new], [new])
        assert store.lane(KEY).depth == store.lane(KEY).held == 0
        assert store.lane(new).held == 1
        store.settle_done([held])
        assert [record.id for record in await take_all(store.lane(new))] == [
            record.id for record in records[1:]
        ]
    async with open_it() as store:
        assert store.lanes_with_records() == {new}


async def test_limit_counts_what_waits_and_not_dead_letters(open_it: OpenStore):
    async with open_it(max_messages=2) as store:
        await store.put([make_record(store), make_record(store)])
        with pytest.raises(StoreFull):
            await store.put([make_record(store)])
        (record,) = store.lane(KEY).take(1)
        await store.settle_dead(record, "failed: tested")
        await store.put([make_record(store)])


async def test_lane_without_an_owner_is_announced_and_one_with_an_owner_wakes_it(
    open_it: OpenStore,
):
    async with open_it() as store:
        announced: list[object] = []
        store.on_new_lane.append(announced.append)
        await store.put([make_record(store)])
        assert announced == [KEY]
        woken = asyncio.Event()
        store.lane(KEY).on_wake = woken.set
        await store.put([make_record(store)])
        assert woken.is_set()
        assert announced == [KEY]


# Receiving.


async def test_verdict_is_what_a_repeat_hears(open_it: OpenStore):
    async with open_it() as store:
        done, failed = make_item(1), make_item(2)
        await store.finish([make_finish(done), make_finish(failed, verdict="failed: tested")], [])
    async with open_it() as store:
        assert await store.take_in([done, failed, make_item(3)]) == [
            (REPEAT_DONE, None, "done"),
            (REPEAT_DONE, None, "failed: tested"),
            (FRESH, None, None),
        ]


async def test_only_what_was_never_seen_is_surely_new(open_it: OpenStore):
    async with open_it() as store:
        await store.finish([make_finish(make_item(5))], [])
        await store.take_in([make_item(7, keep_body=True)])

        def is_new(*ids: int, sender: str = "alpha", scope: str = "beta.REQToConsole") -> bool:
            return store.are_surely_new(scope, [(sender, INSTANCE, number) for number in ids])

        assert is_new(8, 9)
        assert not any(is_new(number) for number in (4, 5, 7))
        assert not is_new(8, 5)
        assert is_new(5, sender="gamma")
        assert is_new(5, scope="beta.REQPing")
        assert store.are_surely_new("beta.REQToConsole", [None])
    async with open_it() as store:
        assert is_new(8)
        assert not is_new(5)
        assert not is_new(7)


async def test_new_attempt_is_fresh_unless_it_was_done(open_it: OpenStore):
    async with open_it() as store:
        done, failed = make_item(1), make_item(2)
        await store.finish([make_finish(done), make_finish(failed, verdict="failed: tested")], [])
        again = [item._replace(attempt=1) for item in (done, failed)]
        assert await store.take_in(again) == [(REPEAT_DONE, None, "done"), (FRESH, None, None)]
        await store.finish([make_finish(again[1], verdict="refused: tested")], [])
        assert await store.take_in([again[1]]) == [(REPEAT_DONE, None, "refused: tested")]
        ((result, _, _),) = await store.take_in([again[1]._replace(attempt=2)])
        assert result is FRESH


async def test_messages_noted_together_as_done_are_known_as_done_and_no_others_are(
    open_it: OpenStore,
):
    kept = [make_item(number, keep_body=True) for number in range(1, 8)]
    bare = [make_item(number, sender="gamma") for number in (1, 2)]
    nameless = [make_item(0, keep_body=True, instance=None) for _ in range(2)]
    async with open_it() as store:
        taken = await store.take_in([*kept, *bare, *nameless])
        rows = [row_id for _, row_id, _ in taken]
        reply = make_record(store)
        failed = make_finish(kept[5], rows[5], "failed: tested")
        done = [
            make_run(kept[1:5], rows[1:5]),
            make_run(bare, [None, None]),
            make_run(nameless[:1], rows[9:10]),
        ]
        await store.finish([failed], [reply], done=done)
        assert store.counts().inbox == 3
    async with open_it() as store:
        left = await store.claim_inbox("beta", "REQToConsole")
        assert [row.row_id for row in left] == [rows[0], rows[6], rows[10]]
        assert [record.id for record in await take_all(store.lane(KEY))] == [reply.id]
        again = await store.take_in(kept)
        assert [result for result, _, _ in again] == [
            REPEAT_UNFINISHED,
            *[REPEAT_DONE] * 5,
            REPEAT_UNFINISHED,
        ]
        assert [verdict for _, _, verdict in again[1:6]] == [*["done"] * 4, "failed: tested"]
        again = await store.take_in([make_item(n, sender="gamma") for n in (1, 2, 3)])
        assert [result for result, _, _ in again] == [REPEAT_DONE, REPEAT_DONE, FRESH]


async def test_rows_that_are_gone_do_not_keep_a_run_from_being_noted(open_it: OpenStore):
    items = [make_item(number, keep_body=True) for number in (1, 2, 3)]
    async with open_it() as store:
        rows = [row_id for _, row_id, _ in await store.take_in(items)]
        assert await store.drop_inbox([rows[1]]) == 1
        run = make_run(items, rows)
        await store.finish([], [], done=[run])
        await store.finish([], [], done=[run])
        assert store.counts().inbox == 0
    async with open_it() as store:
        again = await store.take_in(items)
        assert [verdict for _, _, verdict in again] == ["done"] * 3


async def test_message_with_a_body_is_unfinished_until_it_is_finished(open_it: OpenStore):
    item = make_item(7, keep_body=True, attempt=1)
    async with open_it() as store:
        ((result, row_id, _),) = await store.take_in([item])
        assert result is FRESH
        assert row_id is not None
        assert await store.take_in([item]) == [(REPEAT_UNFINISHED, row_id, None)]
        await store.mark_started([row_id])
        await store.note(row_id, "here")
    async with open_it() as store:
        assert store.counts().inbox == 1
        (row,) = await store.claim_inbox("beta", "REQToConsole")
        assert (row.row_id, row.message_id, row.attempt, row.scope) == (row_id, 7, 1, item.scope)
        assert (row.payload, row.block, row.reply_to) == (item.payload, item.block, item.reply_to)
        assert (row.started, row.note) == (True, "here")
        assert await store.claim_inbox("beta", "REQPing") == []
        await store.finish([make_finish(item, row_id)], [])
        assert await store.take_in([item]) == [(REPEAT_DONE, None, "done")]
        assert store.counts().inbox == 0


async def test_replies_are_accepted_with_the_verdict(open_it: OpenStore):
    async with open_it() as store:
        reply = make_record(store)
        await store.finish([make_finish(make_item(7))], [reply])
        assert await take_all(store.lane(KEY)) == [reply]


async def test_rows_are_found_by_id_without_their_bodies_and_read_by_id(open_it: OpenStore):
    async with open_it() as store:
        items = [make_item(number, keep_body=True) for number in (1, 2, 3)]
        rows = [taken.row_id for taken in await store.take_in(items)]
        scope = items[0].scope
        assert await store.inbox_ids() == [(row_id, scope) for row_id in rows]
        found = await store.read_inbox([rows[2], 10**9, rows[0]])  # type: ignore[list-item]
        assert [row.message_id for row in found] == [3, 1]
        await store.finish([make_finish(items[0], rows[0])], [])
        assert await store.inbox_ids() == [(row_id, scope) for row_id in rows[1:]]


async def test_dropped_row_never_runs_and_a_resend_is_told_that_it_was_refused(open_it: OpenStore):
    async with open_it() as store:
        items = [make_item(number, keep_body=True) for number in (1, 2)]
        rows = [taken.row_id for taken in await store.take_in(items)]
        assert [row.row_id for row in await store.list_inbox(10)] == rows
        assert await store.drop_inbox([rows[0]]) == 1  # type: ignore[list-item]
        assert [row.row_id for row in await store.list_inbox(10)] == rows[1:]
        ((result, _, verdict),) = await store.take_in(items[:1])
        assert result is REPEAT_DONE
        assert verdict is not None
        assert verdict.startswith("refused: ")


async def test_sender_without_an_instance_is_never_a_repeat(open_it: OpenStore):
    async with open_it() as store:
        item = make_item(0, instance=None)
        await store.finish([make_finish(item)], [])
        assert await store.take_in([item, item]) == [(FRESH, None, None)] * 2


async def test_scope_sender_and_instance_tell_messages_of_one_id_apart(open_it: OpenStore):
    async with open_it() as store:
        await store.finish([make_finish(make_item(7))], [])
        others = [
            make_item(7, sender="gamma"),
            make_item(7, instance="f" * 16),
            make_item(7, scope="beta.REQPing"),
        ]
        assert [taken.result for taken in await store.take_in(others)] == [FRESH] * 3
        (taken,) = await store.take_in([make_item(7, subject="beta.REQToConsole.EventNACK")])
        assert taken.result is REPEAT_DONE


# Facts, time and the end.


async def test_facts_survive_a_restart_and_change_with_the_records_they_came_with(
    open_it: OpenStore,
):
    async with open_it() as store:
        await store.remember("peer", {"beta": "1", "gamma": "1"})
        await store.put([make_record(store)], facts={("schedule", "tick"): "42"})
        await store.remember("peer", {"gamma": None})
        assert dict(store.facts("peer")) == {"beta": "1"}
    async with open_it() as store:
        assert dict(store.facts("peer")) == {"beta": "1"}
        assert dict(store.facts("schedule")) == {"tick": "42"}
        assert dict(store.facts("nothing")) == {}


async def test_ids_grow_over_restarts(open_it: OpenStore):
    async with open_it() as store:
        last = store.next_id()
        await store.put([make_record(store)])
    async with open_it() as store:
        assert store.next_id() > last


async def test_healthy_store_says_so(open_it: OpenStore):
    async with open_it() as store:
        assert store.health().state is HealthState.OK


async def test_closed_store_takes_nothing(open_it: OpenStore):
    async with open_it() as store:
        pass
    with pytest.raises(StoreUnusable):
        await store.put([make_record(1)])


# Any sequence of operations: the model of the real store holds for the double.


class DoubleAndModel(StoreAndModel):
    """The double beside the model."""

    disk: MemoryDisk | None = None

    async def open(self) -> MemoryStore:  # type: ignore[override]
        """On a disk in memory."""
        self.disk = self.disk or MemoryDisk(instance="0" * 16)
        return await MemoryStore.open(
            self.disk, StateSettings(), wall=self.clock.wall, mono=self.clock.mono
        )

    def run(self, awaitable: Any) -> Any:
        """In virtual time."""
        if not isinstance(self.loop, VirtualLoop):
            self.loop.close()
            self.loop = VirtualLoop()
        return self.loop.run_until_complete(awaitable)


TestDoubleAndModel = DoubleAndModel.TestCase
TestDoubleAndModel.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# What only the double can do.


def _double(disk: MemoryDisk) -> Any:
    clock = HandClock()
    return MemoryStore.open(disk, StateSettings(), wall=clock.wall, mono=clock.mono)


def test_crash_loses_what_is_not_committed_and_nothing_else():
    disk = MemoryDisk(instance=INSTANCE)

    async def scenario() -> None:
        store = await _double(disk)
        kept, lost = make_record(store), make_record(store)
        await store.put([kept])
        losing = asyncio.get_running_loop().create_task(store.put([lost]))
        await asyncio.sleep(0)
        store.crash()
        await asyncio.sleep(10)
        assert not losing.done(), "nobody is answered by a dead process"
        losing.cancel()
        again = await _double(disk)
        assert await take_all(again.lane(KEY)) == [kept]
        await again.close()

    run_virtual(scenario())


@pytest.mark.parametrize("is_durable", [False, True])
def test_crash_happens_at_the_commit_that_was_chosen(is_durable: bool):
    crashes: list[int] = []
    disk = MemoryDisk(instance=INSTANCE, crash_at=CrashPoint(2, is_durable))
    disk.on_crash = lambda: crashes.append(disk.commits)

    async def scenario() -> None:
        store = await _double(disk)
        await store.put([make_record(store)])
        dying = asyncio.get_running_loop().create_task(store.put([make_record(store)]))
        await asyncio.sleep(1)
        assert crashes == [2 if is_durable else 1]
        assert len(disk.records) == (2 if is_durable else 1)
        dying.cancel()

    run_virtual(scenario())


def test_full_disk_refuses_what_needs_room_and_keeps_what_was_concluded():
    disk = MemoryDisk(instance=INSTANCE)

    async def scenario() -> None:
        store = await _double(disk)
        await store.put([make_record(store), make_record(store)])
        (held,) = store.lane(KEY).take(1)
        disk.is_full = True
        store.settle_done([held])
        with pytest.raises(StoreFull):
            await store.put([make_record(store)])
        with pytest.raises(StoreFull):
            await store.take_in([make_item(1, keep_body=True)])
        assert store.health().state is HealthState.FULL
        await asyncio.sleep(5)
        assert len(disk.records) == 2
        disk.is_full = False
        await asyncio.sleep(1)
        assert len(disk.records) == 1
        await store.close()

    run_virtual(scenario())


def test_commits_gather_company_and_keep_their_order():
    disk = MemoryDisk(instance=INSTANCE, commit_s=lambda: 1.0)

    async def scenario() -> None:
        store = await _double(disk)
        order: list[int] = []

        async def put(number: int) -> None:
            await store.put([make_record(store)])
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(put(number))
            await asyncio.sleep(0.5)
            group.create_task(put(5))
        assert order == list(range(6))
        assert disk.commits == 2
        await store.close()

    run_virtual(scenario())


async def test_message_that_is_called_off_before_it_comes_is_remembered_as_failed(
    open_it: OpenStore,
):
    key = ("beta.REQToConsole", "alpha", INSTANCE)
    async with open_it() as store:
        assert await store.call_off(key, 7) is CalledOff.NEVER_CAME
    async with open_it() as store:
        for attempt in (0, 3):
            item = make_item(7, keep_body=True, attempt=attempt)
            assert await store.take_in([item]) == [(REPEAT_DONE, None, CALLED_OFF_VERDICT)]
        assert (await store.take_in([make_item(8, keep_body=True)]))[0].result is FRESH


@pytest.mark.parametrize("knows_ids", [True, False])
async def test_message_that_is_called_off_while_it_waits_is_marked(
    open_it: OpenStore, knows_ids: bool
):
    key = ("beta.REQToConsole", "alpha", INSTANCE) if knows_ids else None
    item = make_item(7, keep_body=True, attempt=1, instance=INSTANCE if knows_ids else None)
    async with open_it() as store:
        ((_, row_id, _),) = await store.take_in([item])
        found = await store.call_off(key, 7, None if knows_ids else row_id)
        assert found is CalledOff.WAITS
    async with open_it() as store:
        (row,) = await store.claim_inbox("beta", "REQToConsole")
        assert (row.row_id, row.note) == (row_id, CALLED_OFF_NOTE)


async def test_message_that_has_ended_cannot_be_called_off(open_it: OpenStore):
    key = ("beta.REQToConsole", "alpha", INSTANCE)
    item = make_item(7, keep_body=True)
    async with open_it() as store:
        ((_, row_id, _),) = await store.take_in([item])
        await store.finish([make_finish(item, row_id)], [])
        assert await store.call_off(key, 7) is CalledOff.HAS_ENDED
        assert await store.call_off(None, 7) is CalledOff.HAS_ENDED
    async with open_it() as store:
        assert await store.take_in([item]) == [(REPEAT_DONE, None, "done")]


async def test_what_an_operator_dropped_in_a_later_attempt_does_not_come_back(open_it: OpenStore):
    item = make_item(7, keep_body=True, attempt=2)
    async with open_it() as store:
        await store.take_in([item])
        assert await store.drop_inbox() == 1
    async with open_it() as store:
        ((result, _, verdict),) = await store.take_in([item])
        assert (result, verdict) == (REPEAT_DONE, "refused: dropped by an operator")
