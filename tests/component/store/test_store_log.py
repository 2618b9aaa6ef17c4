"""The log of commits: it stays small, gives back what is settled, and says truly what a kill leaves."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from appliance.core.names import NodeName, Subject
from appliance.errors import StoreUnusable
from appliance.outbox import blobs, segments
from appliance.outbox.blobs import Content, Damaged, Ledger, decode_head, encode_body, encode_head
from appliance.outbox.files import DATABASE_NAME, MARK_NAME
from appliance.outbox.records import HealthState, TakeInResult
from tests.support.store_bench import (
    KEY,
    SUBJECT,
    HandClock,
    make_finish,
    make_item,
    make_record,
    open_store,
    take_all,
)

OLD = (NodeName("alpha"), Subject("ship.REQToConsole.EventACK"))


async def keep_house(store) -> None:
    """What the writer does between batches, once."""
    await store._call(lambda _: store._writer._keep_house())
    await store.list_pending(1)  # a turn for what it told the loop


def log_bytes(store) -> int:
    return store._database.segments.log_bytes


async def test_commits_of_settled_messages_go(tmp_path: Path):
    async with open_store(tmp_path) as store:
        for _ in range(200):
            await store.put([make_record(store, payload=bytes(1_000)) for _ in range(10)])
            store.settle_done(store.lane(KEY).take(10))
        await keep_house(store)
        await keep_house(store)
        assert len(store._database.segments) < 10
        assert log_bytes(store) < 20_000
    async with open_store(tmp_path) as store:
        assert store.counts().pending == 0


async def test_what_goes_is_not_written_to_the_disk_once_more(tmp_path: Path):
    async with open_store(tmp_path) as store:
        ((mode,),) = await store._call(
            lambda database: list(database.connection.execute("PRAGMA secure_delete"))
        )
        assert mode == 2  # zeros only where no page more is written for them


async def test_received_messages_leave_ids_and_nothing_else(tmp_path: Path):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        for first in range(1, 1_000, 10):
            items = [make_item(n, keep_body=True) for n in range(first, first + 10)]
            taken = await store.take_in(items)
            finished = [make_finish(i, t.row_id) for i, t in zip(items, taken, strict=True)]
            await store.finish(finished, [])
        clock.now += 100
        for _ in range(3):
            await keep_house(store)
        assert len(store._database.segments) < 10
        assert store.counts().bytes < 20_000
    async with open_store(tmp_path, clock) as store:
        taken = await store.take_in([make_item(n) for n in (1, 500, 1_000, 1_001)])
        done, fresh = TakeInResult.REPEAT_DONE, TakeInResult.FRESH
        assert [one.result for one in taken] == [done, done, done, fresh]


async def test_an_old_message_in_each_commit_holds_no_more_than_itself(tmp_path: Path, monkeypatch):
    """A node is away for long while everybody else is served: what waits for it is moved together."""
    monkeypatch.setattr(segments, "SLACK_BYTES", 100_000)
    clock = HandClock()
    sizes = []
    async with open_store(tmp_path, clock) as store:
        kept, inbox = [], []
        for number in range(150):
            away = make_record(store, subject=OLD[1], payload=b"away %d" % number)
            others = [make_record(store, payload=bytes(2_000)) for _ in range(20)]
            await store.put([away, *others])
            kept.append(away.id)
            store.settle_done(store.lane(KEY).take(20))
            (taken,) = await store.take_in([make_item(number + 1, keep_body=True)])
            inbox.append(taken.row_id)
            if number == 75:
                (held,) = store.lane(OLD).take(1)
                held.attempts = 2
                store.settle_retry([held])
                await store.mark_started([inbox[3]])
                await store.note(inbox[4], "so far")
            await keep_house(store)
            sizes.append(log_bytes(store))
        live = store._database.segments.live_bytes
        assert max(sizes) < 100_000 + segments.GROWTH * live + 60_000
        assert len(store._database.segments.forwards) == 0
        store.lane(OLD).put_back([held])
        sent = await take_all(store.lane(OLD))
        assert [record.id for record in sent] == kept
        store.settle_done(sent[::2])
    async with open_store(tmp_path, clock) as store:
        sent = await take_all(store.lane(OLD))
        assert [record.id for record in sent] == kept[1::2]
        rows = await store.claim_inbox("beta", "REQToConsole")
        assert [row.row_id for row in rows] == inbox
        assert [row.row_id for row in rows if row.started] == [inbox[3]]
        assert [row.note for row in rows if row.note] == ["so far"]


async def test_what_was_settled_while_it_was_moved_stays_settled(tmp_path: Path, monkeypatch):
    """The loop still names the old place when the writer has moved the message already."""
    monkeypatch.setattr(segments, "SLACK_BYTES", 0)
    async with open_store(tmp_path) as store:
        records = [make_record(store, payload=bytes(500)) for _ in range(40)]
        await store.put(records)
        taken = store.lane(KEY).take(40)
        store.settle_done(taken[2:])
        await store.list_pending(1)
        old_place = taken[0].place
        moving = store._call(lambda _: store._writer._move_stragglers())
        store.settle_retry([taken[1]])  # handed over with places from before
        store.settle_done([taken[0]])
        await moving
        await store.list_pending(1)
        assert taken[1].place != old_place
        store.lane(KEY).put_back([taken[1]])
        assert [record.id for record in await store.list_pending()] == [records[1].id]
    async with open_store(tmp_path) as store:
        assert [record.id for record in await take_all(store.lane(KEY))] == [records[1].id]


@pytest.mark.parametrize("seed", range(8))
async def test_the_files_of_any_moment_open_to_what_was_confirmed(tmp_path: Path, seed: int):
    """Copies of the files at random moments are what a kill at those moments leaves."""
    chance = random.Random(seed)
    copies: list[tuple[Path, set[int], set[int], set[int]]] = []
    waiting: dict[int, bytes] = {}
    unfinished: dict[int, int] = {}
    done: set[int] = set()
    async with open_store(tmp_path / "live") as store:
        for step in range(60):
            action = chance.choice(["put", "settle", "dead", "take", "finish", "house", "retry"])
            lane = store.lane(KEY)
            if action == "put":
                records = [make_record(store, payload=chance.randbytes(50)) for _ in range(5)]
                chance.shuffle(records)
                await store.put(records)
                waiting |= {record.id: record.payload for record in records}
            elif action == "settle":
                taken = lane.take(chance.randint(1, 8))
                store.settle_done(taken[1:])
                lane.put_back(taken[:1])
                for record in taken[1:]:
                    del waiting[record.id]
            elif action == "dead":
                for record in lane.take(1):
                    await store.settle_dead(record, "failed: tested")
                    del waiting[record.id]
            elif action == "take":
                items = [make_item(store.next_id(), keep_body=True) for _ in range(4)]
                for item, one in zip(items, await store.take_in(items), strict=True):
                    assert one.row_id is not None
                    unfinished[item.message_id] = one.row_id
            elif action == "finish":
                for number in chance.sample(sorted(unfinished), len(unfinished) // 2):
                    item = make_item(number)
                    await store.finish([make_finish(item, unfinished.pop(number))], [])
                    done.add(number)
            elif action == "retry":
                await store.retry_dead()
                waiting |= {record.id: record.payload for record in await store.list_pending()}
            else:
                await keep_house(store)
            await store.list_pending(1)
            if chance.random() < 0.3:
                copy = tmp_path / f"copy{step}"
                shutil.copytree(tmp_path / "live", copy)
                copies.append((copy, set(waiting), set(unfinished), set(done)))
    assert copies
    for copy, expected, rows, finished in copies:
        async with open_store(copy) as store:
            assert store.health().state is HealthState.OK, store.health()
            assert {record.id for record in await take_all(store.lane(KEY))} == expected
            found = await store.claim_inbox("beta", "REQToConsole")
            assert {row.message_id for row in found} == rows
            taken = await store.take_in([make_item(number) for number in sorted(finished)])
            assert {one.verdict for one in taken} <= {"done"}


async def test_a_thousand_lanes_read_the_same_commits_without_reading_them_a_thousand_times(
    tmp_path: Path,
):
    keys = [(NodeName("alpha"), Subject(f"node{n}.REQPing.EventACK")) for n in range(1_000)]
    async with open_store(tmp_path) as store:
        for _ in range(30):
            await store.put([make_record(store, subject=subject) for _, subject in keys])
    async with open_store(tmp_path) as store:
        statements: list[str] = []
        await store._call(
            lambda database: database.connection.set_trace_callback(statements.append)
        )
        for key in keys:
            assert len(await take_all(store.lane(key))) == 30
        assert sum(statement.startswith("SELECT head, body") for statement in statements) < 500


def encode(content: Content) -> tuple[bytes, bytes]:
    from appliance.core.ages import Anchor

    parts, columns, shapes, misc = encode_body(content, 5.0)
    ledger = Ledger(7, 99, 3, 4, 12, Anchor("ab" * 16, 1.0, 2.0, 3.0))
    return encode_head(columns, shapes, misc, ledger), b"".join(parts)


def make_content() -> Content:
    content = Content(
        records=[make_record(n, payload=b"%d" % n, expires_at=9.5) for n in range(1, 20)],
        rows=[make_item(n, keep_body=True) for n in range(1, 6)],
        row_ids=range(10, 15),
        settled=[1 << 20, 2 << 20 | 5],
        seen={("beta.REQPing", "alpha", "00ff"): {4: None, 2: (1, "failed: no room")}},
    )
    content.misc.tries.append((1 << 20 | 3, (1, 2.5, "late", 3, "taker")))
    return content


def test_a_head_says_what_was_encoded():
    raw, _ = encode(make_content())
    head = decode_head(raw)
    assert list(head.ids) == list(range(1, 20))
    assert list(head.row_ids) == list(range(10, 15))
    assert list(head.settled) == [1 << 20, 2 << 20 | 5]
    assert head.misc.tries == [(1 << 20 | 3, (1, 2.5, "late", 3, "taker"))]
    assert (head.ledger.seq, head.ledger.anchor.boot_id) == (7, "ab" * 16)
    assert not head.was_mended


def test_any_flipped_bit_of_a_head_is_put_right():
    raw, _ = encode(make_content())
    expected = decode_head(raw)
    chance = random.Random(1)
    for _ in range(150):
        bit = chance.randrange(len(raw) * 8)
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << (bit % 8)
        head = decode_head(bytes(damaged))
        assert head.was_mended
        head.was_mended = False
        assert head == expected


def test_more_damage_to_a_head_is_noticed():
    raw, _ = encode(make_content())
    chance = random.Random(2)
    for _ in range(150):
        damaged = bytearray(raw)
        at = chance.randrange(len(raw) - 8)
        damaged[at : at + 8] = chance.randbytes(8)
        if bytes(damaged) == raw:
            continue
        with pytest.raises(Damaged):
            decode_head(bytes(damaged))
    with pytest.raises(Damaged):
        decode_head(raw[:40])


def test_any_flipped_bit_of_a_body_costs_one_message():
    content = make_content()
    raw, body = encode(content)
    head = decode_head(raw)
    chance = random.Random(3)
    for _ in range(100):
        bit = chance.randrange(len(body) * 8)
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << (bit % 8)
        lost = 0
        for slot, record in enumerate(content.records):
            try:
                assert blobs.decode_record(head, bytes(damaged), slot, 0, None) == record
            except Damaged:
                lost += 1
        for at, item in enumerate(content.rows):
            try:
                row = blobs.decode_row(head, bytes(damaged), len(content.records) + at)
                assert (row.payload, row.message_id) == (item.payload, item.message_id)
            except Damaged:
                lost += 1
        assert lost == 1


def change(path: Path, statement: str, *values) -> None:
    connection = sqlite3.connect(path / DATABASE_NAME)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


async def test_a_commit_that_cannot_be_read_is_a_visible_loss_and_the_others_are_there(
    tmp_path: Path,
):
    async with open_store(tmp_path) as store:
        for number in range(3):
            await store.put([make_record(store, payload=b"text %d" % number)])
    change(tmp_path, "UPDATE log SET head = zeroblob(length(head)) WHERE seq = 2")
    async with open_store(tmp_path) as store:
        sent = await take_all(store.lane(KEY))
        assert [record.payload for record in sent] == [b"text 0", b"text 2"]
        (letter,) = await store.list_dead()
        assert "commit 2 cannot be read" in letter.reason
        assert b"text 1" in letter.record.payload
        assert store.health().state is HealthState.DAMAGED
        assert await store.retry_dead() == 0


async def test_a_commit_that_vanished_is_not_taken_for_health(tmp_path: Path):
    async with open_store(tmp_path) as store:
        for _ in range(3):
            await store.put([make_record(store)])
    change(tmp_path, "DELETE FROM log WHERE seq = 2")
    async with open_store(tmp_path) as store:
        assert store.health().state is HealthState.DAMAGED
        assert "should hold" in store.health().text
        assert len(await take_all(store.lane(KEY))) == 2


async def test_damage_found_while_running_costs_the_messages_it_hit(tmp_path: Path, monkeypatch):
    async with open_store(tmp_path) as store:
        for _ in range(3):
            await store.put([make_record(store, payload=bytes(100)) for _ in range(1_000)])
        database = store._database
        hit = database.commits  # the window ends in it
        database.connection.execute("UPDATE log SET body = zeroblob(10) WHERE seq = ?", (hit,))
        sent = await take_all(store.lane(KEY))
        counts = store.counts()
        assert 0 < counts.dead <= 1_000
        assert len(sent) + counts.dead == 3_000
        assert counts.pending == len(sent)
        letters = await store.list_dead(5)
        assert {letter.reason for letter in letters} == {"damaged: checksum mismatch"}
        assert letters[0].record.subject == SUBJECT
        assert store.health().state is HealthState.DAMAGED


async def test_flips_anywhere_in_database_and_log_give_nothing_wrong(tmp_path: Path):
    source = tmp_path / "source"
    payloads: dict[int, bytes] = {}
    settled: set[int] = set()
    async with open_store(source) as store:
        for _ in range(6):
            records = [
                make_record(store, payload=random.Random(1).randbytes(300)) for _ in range(6)
            ]
            await store.put(records)
            payloads |= {record.id: record.payload for record in records}
            done = store.lane(KEY).take(3)
            store.settle_done(done)
            settled |= {record.id for record in done}
        await store.list_pending(1)
        shutil.copytree(source, tmp_path / "killed")
    chance = random.Random(4)
    for base in (source, tmp_path / "killed"):
        for round_number in range(40):
            target = tmp_path / f"{base.name}{round_number}"
            shutil.copytree(base, target)
            names = [DATABASE_NAME, f"{DATABASE_NAME}-wal"]
            path = chance.choice([target / name for name in names if (target / name).exists()])
            raw = bytearray(path.read_bytes())
            bit = chance.randrange(len(raw) * 8)
            raw[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(raw)
            try:
                async with open_store(target) as store:
                    sent = await take_all(store.lane(KEY))
                    dead, health = store.counts().dead, store.health()
            except StoreUnusable:
                continue
            assert all(payloads[record.id] == record.payload for record in sent)
            assert (
                not {record.id for record in sent} & settled or health.state is HealthState.DAMAGED
            )
            missing = len(payloads) - len(settled) - len(sent)
            assert missing <= dead or health.state is HealthState.DAMAGED
            shutil.rmtree(target)
    assert (source / MARK_NAME).exists()
