"""What happens to the files from outside: second opener, emptied, damaged, swapped, foreign."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.errors import StoreLocked, StoreUnusable
from appliance.outbox import schema
from appliance.outbox.files import BALLAST_NAME, DATABASE_NAME, MARK_NAME
from tests.support.store_bench import (
    KEY,
    make_finish,
    make_item,
    make_record,
    open_store,
    take_all,
)

MARKER = b"payload-marker-"


async def fill(directory: Path, count: int = 20) -> list[int]:
    """A store with records of recognisable payloads, closed again; their ids."""
    async with open_store(directory) as store:
        records = [
            make_record(store, payload=MARKER + b"%04d" % number + b"p" * 400)
            for number in range(count)
        ]
        await store.put(records)
        return [record.id for record in records]


def flip(path: Path, at: int, bit: int = 1) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= bit
    path.write_bytes(raw)


async def test_second_opener_is_told_at_once_who_holds_it(tmp_path: Path):
    async with open_store(tmp_path):
        with pytest.raises(StoreLocked, match=str(os.getpid())):
            async with open_store(tmp_path):
                pass
    async with open_store(tmp_path):
        pass


async def test_lock_of_another_process_holds_and_ends_with_it(tmp_path: Path):
    code = (
        "import asyncio, sys, time; from pathlib import Path\n"
        "from appliance.core.specs import StateSettings\n"
        "from appliance.outbox.store import MessageStore\n"
        "async def main():\n"
        "    await MessageStore.open(Path(sys.argv[1]), StateSettings())\n"
        "    print('open', flush=True); sys.stdin.read()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(StoreLocked, match=str(child.pid)):
            async with open_store(tmp_path):
                pass
        child.kill()
        child.wait()
    async with open_store(tmp_path):
        pass


async def test_files_are_private_to_their_owner(tmp_path: Path):
    directory = tmp_path / "state" / "appliance"
    async with open_store(directory) as store:
        await store.put([make_record(store)])
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        names = {path.name for path in directory.iterdir()}
        assert {DATABASE_NAME, f"{DATABASE_NAME}-wal", MARK_NAME, BALLAST_NAME} <= names
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_instance_is_made_with_the_database_and_stays(tmp_path: Path):
    async with open_store(tmp_path / "a") as store:
        first = store.instance
    async with open_store(tmp_path / "a") as store:
        assert store.instance == first
    async with open_store(tmp_path / "b") as store:
        assert store.instance != first
    assert len(first) == 16
    assert int(first, 16) >= 0


@pytest.mark.parametrize("harm", ["emptied", "removed"])
async def test_emptied_or_missing_database_is_not_taken_for_a_new_one(tmp_path: Path, harm: str):
    await fill(tmp_path)
    path = tmp_path / DATABASE_NAME
    path.write_bytes(b"") if harm == "emptied" else path.unlink()
    with pytest.raises(StoreUnusable, match="missing or empty"):
        async with open_store(tmp_path):
            pass
    (tmp_path / MARK_NAME).unlink()
    async with open_store(tmp_path) as store:
        assert store.counts().pending == 0


async def test_database_of_another_place_is_not_taken_for_ours(tmp_path: Path):
    await fill(tmp_path / "a")
    await fill(tmp_path / "b")
    shutil.copy(tmp_path / "b" / DATABASE_NAME, tmp_path / "a" / DATABASE_NAME)
    with pytest.raises(StoreUnusable, match="not the database that was here"):
        async with open_store(tmp_path / "a"):
            pass


@pytest.mark.parametrize("name", ["store.lock", DATABASE_NAME])
async def test_what_cannot_be_written_is_named_with_the_systems_words_and_no_number(
    tmp_path: Path, name: str
):
    (tmp_path / name).mkdir()
    with pytest.raises(StoreUnusable) as caught:
        async with open_store(tmp_path):
            pass
    assert "Errno" not in str(caught.value)
    assert str(caught.value).endswith(f"{tmp_path / name}: is a directory")


async def test_older_copy_of_the_database_is_noticed(tmp_path: Path):
    await fill(tmp_path)
    shutil.copy(tmp_path / DATABASE_NAME, tmp_path / "old")
    await fill(tmp_path)
    shutil.copy(tmp_path / "old", tmp_path / DATABASE_NAME)
    with pytest.raises(StoreUnusable, match=r"the last \d+ commits .* are missing"):
        async with open_store(tmp_path):
            pass


async def test_a_young_database_that_was_copied_without_its_log_is_told_as_that(tmp_path: Path):
    live, copy = tmp_path / "live", tmp_path / "copy"
    copy.mkdir()
    async with open_store(live) as store:
        await store.put([make_record(store)])
        # all of it is in the log as yet
        for name in (DATABASE_NAME, MARK_NAME):
            shutil.copy(live / name, copy / name)
    with pytest.raises(StoreUnusable, match=f"holds nothing without {DATABASE_NAME}-wal"):
        async with open_store(copy):
            pass
    (copy / MARK_NAME).unlink()
    async with open_store(copy) as store:
        assert store.counts().pending == 0


async def test_damaged_log_is_noticed_and_kept(tmp_path: Path):
    live, copy = tmp_path / "live", tmp_path / "copy"
    copy.mkdir()
    async with open_store(live) as store:
        for _ in range(50):
            await store.put([make_record(store, payload=os.urandom(500))])
        for name in (DATABASE_NAME, f"{DATABASE_NAME}-wal", MARK_NAME):
            shutil.copy(live / name, copy / name)
    log = copy / f"{DATABASE_NAME}-wal"
    flip(log, log.stat().st_size // 2)
    damaged = log.read_bytes()
    with pytest.raises(StoreUnusable, match="write-ahead log is damaged"):
        async with open_store(copy):
            pass
    assert (copy / f"{DATABASE_NAME}-wal.damaged").read_bytes() == damaged
    (copy / MARK_NAME).unlink()
    async with open_store(copy) as store:
        assert 0 < store.counts().pending < 50


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes):
    path = tmp_path / DATABASE_NAME
    path.write_bytes(content)
    with pytest.raises(StoreUnusable):
        async with open_store(tmp_path):
            pass
    assert path.read_bytes() == content


async def test_database_of_another_program_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / DATABASE_NAME
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine(x)")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(StoreUnusable, match="no store of an appliance"):
        async with open_store(tmp_path):
            pass
    assert path.read_bytes() == content


async def test_database_of_an_unknown_version_is_refused(tmp_path: Path):
    await fill(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE_NAME) as connection:
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreUnusable, match=r"schema version \d+, this appliance knows"):
        async with open_store(tmp_path):
            pass


async def test_damaged_payload_becomes_a_dead_letter_and_the_others_are_sent(tmp_path: Path):
    ids = await fill(tmp_path)
    path = tmp_path / DATABASE_NAME
    flip(path, path.read_bytes().index(MARKER + b"0007") + 50)
    async with open_store(tmp_path) as store:
        sent = await take_all(store.lane(KEY))
        assert [record.id for record in sent] == ids[:7] + ids[8:]
        (letter,) = await store.list_dead(10)
        assert letter.record.id == ids[7]
        assert letter.reason == "damaged: checksum mismatch"
        counts = store.counts()
        assert (counts.pending, counts.dead) == (19, 1)
        assert await store.retry_dead(None) == 0
        assert store.counts().dead == 1
        assert await store.drop(None) == 1


async def test_damaged_body_in_the_inbox_becomes_a_dead_letter(tmp_path: Path):
    async with open_store(tmp_path) as store:
        items = [make_item(n, keep_body=True, payload=MARKER + b"%d" % n) for n in (1, 2, 3)]
        await store.take_in(items)
    path = tmp_path / DATABASE_NAME
    flip(path, path.read_bytes().index(MARKER + b"2"))
    async with open_store(tmp_path) as store:
        rows = await store.claim_inbox("beta", "REQToConsole")
        assert [row.message_id for row in rows] == [1, 3]
        (letter,) = await store.list_dead(10)
        assert "damaged" in letter.reason
        assert letter.record.node == "beta"
        await store.finish(
            [make_finish(items[0], rows[0].row_id), make_finish(items[2], rows[1].row_id)], []
        )
        assert await store.claim_inbox("beta", "REQToConsole") == []


async def test_any_flipped_bit_is_noticed_or_harmless(tmp_path: Path):
    """Whatever a store gives out after a flip is something that was put in, unchanged."""
    source = tmp_path / "source"
    await fill(source, 8)
    expected = {MARKER + b"%04d" % number + b"p" * 400 for number in range(8)}
    size = (source / DATABASE_NAME).stat().st_size
    for round_number in range(60):
        target = tmp_path / f"t{round_number}"
        target.mkdir()
        for name in (DATABASE_NAME, MARK_NAME):
            shutil.copy(source / name, target / name)
        flip(target / DATABASE_NAME, (round_number * 7919) % size, 1 << (round_number % 8))
        try:
            async with open_store(target) as store:
                records = await take_all(store.lane(KEY))
                assert {record.payload for record in records} <= expected
                assert len(records) + store.counts().dead <= 8
        except StoreUnusable:
            continue
