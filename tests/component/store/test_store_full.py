"""No room: new messages are refused, nothing stored is lost, and the store recovers by itself."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.errors import StoreFull
from appliance.outbox import files
from appliance.outbox.files import BALLAST_NAME, Ballast
from appliance.outbox.records import TakeInResult
from tests.support.store_bench import (
    KEY,
    make_finish,
    make_item,
    make_record,
    open_store,
    take,
    take_all,
)
from tests.support.waiting import until_taken


async def fill_up(store) -> list[int]:
    """Put until it is full; the ids accepted."""
    accepted: list[int] = []
    while True:
        record = make_record(store, payload=os.urandom(5_000))
        try:
            await store.put([record])
        except StoreFull:
            return accepted
        accepted.append(record.id)


async def test_quota_refuses_new_messages_and_settling_makes_room_again(tmp_path: Path):
    async with open_store(tmp_path, max_bytes=1_000_000) as store:
        accepted = await fill_up(store)
        assert len(accepted) > 50
        with pytest.raises(StoreFull):
            await store.take_in([make_item(1, keep_body=True, payload=bytes(9_000))])
        with pytest.raises(StoreFull):
            await store.put([make_record(store, payload=bytes(9_000))])
        lane = store.lane(KEY)
        for _ in range(20):
            record = await take(lane)
            assert record is not None
            store.settle_done([record])
        await store.put([make_record(store, payload=bytes(9_000))])
        assert (await store.take_in([make_item(1, keep_body=True)]))[0][0] is TakeInResult.FRESH
    async with open_store(tmp_path, max_bytes=1_000_000) as store:
        ids = [record.id for record in await take_all(store.lane(KEY))]
        assert ids[:-1] == accepted[20:]
        assert len(ids) == len(accepted) - 20 + 1


async def test_full_store_refuses_a_put_whole(tmp_path: Path):
    async with open_store(tmp_path, max_bytes=1_000_000) as store:
        with pytest.raises(StoreFull):
            await store.put([make_record(store, payload=os.urandom(50_000)) for _ in range(40)])
        assert store.counts().pending == 0
        assert await store.list_pending(10) == []


async def test_small_put_beside_one_too_large_can_be_repeated(tmp_path: Path):
    async with open_store(tmp_path, max_bytes=1_000_000) as store:
        small = make_record(store)
        large = [make_record(store, payload=os.urandom(50_000)) for _ in range(40)]
        results = await asyncio.gather(store.put(large), store.put([small]), return_exceptions=True)
        assert isinstance(results[0], StoreFull)
        if isinstance(results[1], StoreFull):
            await store.put([small])
        assert [record.id for record in await take_all(store.lane(KEY))] == [small.id]


async def test_disk_that_refuses_writes_keeps_conclusions_until_it_takes_them(tmp_path: Path):
    """A limit on file sizes stands for the disk: then even a DELETE cannot be written."""
    async with open_store(tmp_path) as store:
        records = [make_record(store, payload=bytes(1_000)) for _ in range(50)]
        await store.put(records)
        lane = store.lane(KEY)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            with pytest.raises(StoreFull):
                await store.put([make_record(store)])
            with pytest.raises(StoreFull):
                await store.finish([make_finish(make_item(1))], [])
            for _ in range(10):
                (record,) = lane.take(1)
                assert record is not None
                store.settle_done([record])
            (buried,) = lane.take(1)
            assert buried is not None
            burial = asyncio.ensure_future(store.settle_dead(buried, "gone"))
            with pytest.raises(StoreFull):
                await store.put([make_record(store)])
            assert not burial.done()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        async with asyncio.timeout(60):
            await burial
            await store.finish([make_finish(make_item(1))], [])
            assert store.counts().pending == 39
            await put_when_there_is_room(store)
    async with open_store(tmp_path) as store:
        left = [record.id for record in await take_all(store.lane(KEY))]
        assert left[:-1] == [record.id for record in records[11:]]
        assert store.counts().dead == 1


async def put_when_there_is_room(store) -> None:
    """The ballast comes back first; a moment later messages are taken again."""
    await until_taken(lambda: store.put([make_record(store)]), StoreFull)


async def test_a_full_quota_lets_all_become_dead_letters_and_takes_them_up_again(tmp_path: Path):
    """Large commits, of which one message after the other dies: the letters need room before the commit goes."""
    async with open_store(tmp_path, max_bytes=12_000_000) as store:
        count = 0
        while True:
            records = [make_record(store, payload=os.urandom(10_000)) for _ in range(300)]
            try:
                await store.put(records)
            except StoreFull:
                break
            count += len(records)
        assert count >= 600
        burials = [store.settle_dead(one, "expired") for one in await take_all(store.lane(KEY))]
        async with asyncio.timeout(60):
            await asyncio.gather(*burials)
        assert store.counts().dead == count
        assert await store.drop() == count
        await store.put([make_record(store, payload=bytes(10_000))])


FULL_DISK = """
import asyncio, os, sys
from pathlib import Path
from appliance.errors import StoreFull
from tests.support.store_bench import KEY, make_record, open_store, take
from tests.support.waiting import until_taken

async def main(directory):
    async with open_store(directory) as store:
        assert (directory / "store.ballast").exists()
        accepted = []
        try:
            while True:
                record = make_record(store, payload=os.urandom(5_000))
                await store.put([record])
                accepted.append(record.id)
        except StoreFull:
            pass
        lane = store.lane(KEY)
        for _ in range(len(accepted)):
            record = await take(lane)
            store.settle_done([record])
        pending = (await store.list_pending(10_000))
        assert pending == [], len(pending)
        await until_taken(lambda: store.put([make_record(store)]), StoreFull)
        print("recovered", len(accepted), (directory / "store.ballast").exists())

asyncio.run(main(Path(sys.argv[1])))
"""


START_ON_FULL_DISK = """
import asyncio, os, sys
from pathlib import Path
from tests.support.store_bench import make_record, open_store
from tests.support.waiting import until_taken
from appliance.errors import StoreFull

async def main(directory):
    async with open_store(directory) as store:
        kept = [make_record(store) for _ in range(3)]
        await store.put(kept)
    # ended in order: what SQLite needs beside its file is gone
    assert not (directory / "store.db-wal").exists()
    stranger = directory / "stranger"
    with open(stranger, "wb", buffering=0) as file:
        try:
            while file.write(os.urandom(4096)):
                pass
        except OSError:
            pass
    async with open_store(directory) as store:
        assert {one.id for one in await store.list_pending(10)} == {one.id for one in kept}
        stranger.unlink()
        await until_taken(lambda: store.put([make_record(store)]), StoreFull)
        print("started", len(await store.list_pending(10)))

asyncio.run(main(Path(sys.argv[1])))
"""


def run_on_small_disk(script: str, tmp_path: Path) -> list[str]:
    """What a script said that ran on a small file system of its own, where the kernel lets us make one."""
    mount = f"mount -t tmpfs -o size=12m tmpfs {tmp_path}"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("no file system can be mounted here")
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" "$@"', sys.executable, "-c",
         script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_full_disk_gives_up_the_ballast_and_recovers_when_the_outbox_empties(tmp_path: Path):
    word, count, _ = run_on_small_disk(FULL_DISK, tmp_path)
    assert word == "recovered"
    assert int(count) > 500


def test_a_store_that_was_closed_is_opened_on_a_disk_that_others_have_filled(tmp_path: Path):
    assert run_on_small_disk(START_ON_FULL_DISK, tmp_path) == ["started", "4"]


def test_ballast_is_given_up_once_and_restored_when_there_is_room(tmp_path: Path, monkeypatch):
    ballast = Ballast(tmp_path / BALLAST_NAME)
    assert not ballast.is_held
    assert not ballast.release()
    ballast.restore()
    assert (tmp_path / BALLAST_NAME).stat().st_size == files.BALLAST_BYTES
    assert Ballast(tmp_path / BALLAST_NAME).is_held
    assert ballast.release()
    assert not (tmp_path / BALLAST_NAME).exists()
    assert not ballast.release()
    monkeypatch.setattr(files, "_SPARE_BYTES", 1 << 62)
    ballast.restore()
    assert not ballast.is_held
