"""A state directory of schema version 1 is taken over whole, or stays as it was.

`state_v1` was written by the version before, which was then killed: its write-ahead log is not folded in.
"""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import tarfile
from pathlib import Path

import pytest

from appliance.errors import StoreError, StoreFull
from appliance.outbox import takeover
from appliance.outbox.files import DATABASE_NAME, MARK_NAME
from appliance.outbox.records import TakeInResult
from tests.support.store_bench import KEY, HandClock, make_item, open_store, take_all

HERE = Path(__file__).parent / "state_v1"
EXPECTED = json.loads((HERE / "expected.json").read_text())


@pytest.fixture
def old_state(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    with tarfile.open(HERE / "state.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory


def open_old(directory: Path, **settings):
    return open_store(directory, HandClock(EXPECTED["now"] + 5), **settings)


async def check(store, *, dead: int = 2) -> None:
    """Everything that the old version held is there."""
    assert store.instance == EXPECTED["instance"]
    assert store.next_id() > EXPECTED["last"]
    pending = await store.list_pending()
    found = [[one.id, one.payload.decode(), one.subject] for one in pending]
    assert found == sorted(EXPECTED["waiting"])
    (delayed,) = [record for record in pending if record.attempts]
    assert [delayed.id, delayed.attempts, delayed.next_at, delayed.last_error] == EXPECTED[
        "delayed"
    ]
    letters = await store.list_dead()
    assert [[one.record.id, one.reason] for one in letters] == EXPECTED["dead"]
    rows = await store.list_inbox()
    assert [[row.row_id, row.message_id] for row in rows] == EXPECTED["inbox"]
    assert [row.started for row in rows] == [True, False, False, False, False]
    assert json.loads(rows[1].note) == ["a/é", 1, 2]
    assert b"serial: cbor\r\n" in rows[0].block
    assert len(await store.claim_inbox("beta", "REQToConsole")) == 5  # of both kinds
    items = [make_item(number) for number in (1, 9, 49, 50, 89, 90)]
    others = [
        make_item(5_009, scope="gamma.REQPing", sender="delta", instance="ffff000011112222"),
        make_item(777, scope="folder inbox", sender="", instance=store.instance),
    ]
    results = [taken.result for taken in await store.take_in([*items, *others])]
    done, fresh, unfinished = (
        TakeInResult.REPEAT_DONE,
        TakeInResult.FRESH,
        TakeInResult.REPEAT_UNFINISHED,
    )
    assert results == [unfinished, unfinished, fresh, done, done, fresh, done, done]
    counts = store.counts()
    assert (counts.pending, counts.dead, counts.inbox) == (12, dead, 5)


async def test_all_that_was_there_is_there_again_and_after_a_restart(old_state: Path):
    for _ in range(2):
        async with open_old(old_state) as store:
            await check(store)
            assert store.health().state == "ok"
    async with open_old(old_state) as store:
        letters = await store.retry_dead()
        assert letters == 2
        sent = await take_all(store.lane(KEY))
        assert [record.attempt for record in sent if record.id == EXPECTED["dead"][0][0]] == [1]
        assert sent[0].headers is not None


async def test_a_quota_that_is_too_small_for_both_does_not_hinder(old_state: Path):
    async with open_old(old_state, max_bytes=64 * 4096) as store:
        await check(store)


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_kill_in_the_middle_leaves_the_old_state(
    old_state: Path, tmp_path: Path, monkeypatch, step: int
):
    """The files as they are at some statement of the takeover are those of a process killed there."""
    killed = tmp_path / "killed"
    real_write, real_take_over, count = takeover._Takeover._write, takeover.take_over, 0

    def write(self, content):
        nonlocal count
        real_write(self, content)
        count += 1
        if count == step:
            shutil.copytree(old_state, killed)

    def take_over(connection, anchor):
        connection.execute("PRAGMA cache_size=1")  # what is not committed yet reaches the file too
        real_take_over(connection, anchor)

    monkeypatch.setattr(takeover._Takeover, "_write", write)
    monkeypatch.setattr(takeover, "take_over", take_over)
    async with open_old(old_state) as store:
        await check(store)
    monkeypatch.undo()
    assert sqlite3.connect(killed / DATABASE_NAME).execute("PRAGMA user_version").fetchone() == (1,)
    async with open_old(killed) as store:
        await check(store)


async def test_a_disk_that_is_full_in_the_middle_leaves_the_old_state(old_state: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for limit in (0, 20_000, 50_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(StoreFull):
                async with open_old(old_state):
                    pass
            refused += 1
        except StoreError:
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused == 3
    async with open_old(old_state) as store:
        await check(store)


async def test_damaged_rows_become_dead_letters_and_the_others_are_taken_over(old_state: Path):
    async with open_old(old_state, max_bytes=10_000_000):
        pass  # only to know that it works; then the same with damage
    shutil.rmtree(old_state)
    with tarfile.open(HERE / "state.tar.xz") as archive:
        archive.extractall(old_state, filter="data")
    connection = sqlite3.connect(old_state / DATABASE_NAME)
    connection.execute(
        "UPDATE outbox SET payload = x'00' WHERE id = ?", (EXPECTED["waiting"][3][0],)
    )
    connection.execute("UPDATE inbox SET payload = x'00' WHERE row_id = 3")
    connection.commit()
    connection.close()
    async with open_old(old_state) as store:
        counts = store.counts()
        assert (counts.pending, counts.dead, counts.inbox) == (11, 4, 4)
        damaged = [one for one in await store.list_dead() if "damaged" in one.reason]
        assert len(damaged) == 2


async def test_the_mark_of_the_old_version_still_guards(old_state: Path):
    mark = old_state / MARK_NAME
    mark.write_bytes(mark.read_bytes().replace(b"0008", b"0009"))
    with pytest.raises(StoreError, match="the last 1 commits"):
        async with open_old(old_state):
            pass
