"""The data directory: batches, order, crashes at chosen points, cancellation, confinement."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import multiprocessing
import os
import shutil
import threading
import time
import zlib

import pytest

from appliance.errors import FileFailed, PathForbidden, StoreFull
from appliance.methods.base import FilePosition
from appliance.methods.files import append as _append
from appliance.methods.files import data_dir as _files
from appliance.methods.files.data_dir import DataFiles
from tests.support.waiting import turns

PARTS = ("logs", "ship1", "a.log")
PATH = "logs/ship1/a.log"


async def forget(position: FilePosition) -> None:
    """An `Intend` that stores nothing."""


async def append(files, data, resume=None, intend=forget, **options):
    await files.append(PARTS, data, resume=resume, intend=intend, **options)


def content_of(root):
    return (root / PATH).read_bytes()


async def test_appends_that_wait_together_are_written_and_synced_together(bench, monkeypatch):
    batches = []
    write_batch = _append.AppendFiles.write_batch

    def record(self, slot, target, data):
        batches.append(data)
        write_batch(self, slot, target, data)

    monkeypatch.setattr(_append.AppendFiles, "write_batch", record)
    lines = [b"line %d\n" % number for number in range(100)]
    async with asyncio.TaskGroup() as group:
        for line in lines:
            group.create_task(append(bench.files, line, intend=bench.intend))
    assert content_of(bench.root) == b"".join(lines)
    assert len(batches) < 5
    offsets = [position.offset for position in bench.positions]
    assert offsets == [sum(map(len, lines[:number])) for number in range(100)]


async def test_nothing_is_written_before_every_position_is_stored(bench):
    asked, stored = asyncio.Event(), asyncio.Event()

    async def intend(position):
        asked.set()
        await stored.wait()

    task = asyncio.create_task(append(bench.files, b"x", intend=intend))
    await asked.wait()
    assert content_of(bench.root) == b""
    stored.set()
    await task
    assert content_of(bench.root) == b"x"


async def test_message_whose_position_cannot_be_stored_is_left_out_and_the_others_move_up(bench):
    async def refuse(position):
        raise StoreFull("no room")

    outcomes = await asyncio.gather(
        append(bench.files, b"one\n", intend=bench.intend),
        append(bench.files, b"two\n", intend=refuse),
        append(bench.files, b"three\n", intend=bench.intend),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], StoreFull)
    assert outcomes[::2] == [None, None]
    assert content_of(bench.root) == b"one\nthree\n"
    last = bench.positions[-1]
    assert (last.offset, last.length) == (4, 6)


async def test_full_disk_leaves_the_file_as_it_was_and_passes_as_the_system_says(
    bench, monkeypatch
):
    await append(bench.files, b"before\n")
    whole = _append.write_all

    def half(file_fd, data):
        whole(file_fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_append, "write_all", half)
    outcomes = await asyncio.gather(
        *(append(bench.files, b"more\n") for _ in range(3)), return_exceptions=True
    )
    assert [getattr(outcome, "errno", None) for outcome in outcomes] == [errno.ENOSPC] * 3
    assert content_of(bench.root) == b"before\n"
    monkeypatch.setattr(_append, "write_all", whole)
    await append(bench.files, b"after\n")
    assert content_of(bench.root) == b"before\nafter\n"


async def test_other_errors_of_the_system_become_an_error_of_ours(bench, monkeypatch):
    def fail(file_fd, data):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(_append, "write_all", fail)
    with pytest.raises(FileFailed, match=r"'logs/ship1/a.log'.*Input/output error"):
        await append(bench.files, b"x")


async def test_data_directory_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileFailed, match=r"file/data"):
        await DataFiles(tmp_path / "file" / "data").start()


@pytest.mark.parametrize("kept_bytes", range(0, 11))
async def test_batch_torn_anywhere_is_undone_and_its_messages_come_again_once(tmp_path, kept_bytes):
    positions = []

    async def intend(position):
        positions.append(position)

    async with DataFiles(tmp_path) as files:
        await append(files, b"old\n")
        await asyncio.gather(
            *(append(files, line, intend=intend) for line in (b"same\n", b"same\n"))
        )
    tear(tmp_path, begin=4, length=10, kept_bytes=kept_bytes)

    # a new message that looks alike comes first, then the two, the last one first
    async with DataFiles(tmp_path) as files:
        await append(files, b"same\n")
        await append(files, b"same\n", resume=positions[1])
        await append(files, b"same\n", resume=positions[0])
    assert content_of(tmp_path) == b"old\n" + b"same\n" * 3


def tear(root, *, begin, length, kept_bytes):
    """Leave the file and our note of the batch as a kill in the middle of the write does."""
    os.truncate(root / PATH, begin + kept_bytes)
    note = json.dumps([PATH, os.stat(root / PATH).st_ino, begin, length]).encode()
    slot = zlib.crc32(note).to_bytes(4, "big") + len(note).to_bytes(4, "big") + note
    (root / ".appliance-appending" / "3").write_bytes(slot)


async def test_torn_bytes_without_a_note_are_replaced_when_their_message_comes_again(tmp_path):
    position = FilePosition(PATH, 4, 6)
    async with DataFiles(tmp_path) as files:
        await append(files, b"old\nhel")
    async with DataFiles(tmp_path) as files:
        await append(files, b"hello\n", resume=position)
    assert content_of(tmp_path) == b"old\nhello\n"


async def test_note_of_another_file_or_a_damaged_note_changes_nothing(tmp_path):
    async with DataFiles(tmp_path) as files:
        await append(files, b"0123456789")
    tear(tmp_path, begin=2, length=20, kept_bytes=5)
    slot = tmp_path / ".appliance-appending" / "3"
    damaged = bytearray(slot.read_bytes())
    damaged[12] ^= 1
    slot.write_bytes(damaged)
    (tmp_path / ".appliance-appending" / "4").write_bytes(b"\xff" * 9)
    async with DataFiles(tmp_path):
        pass
    assert content_of(tmp_path) == b"0123456"

    tear(tmp_path, begin=2, length=20, kept_bytes=5)
    (tmp_path / PATH).rename(tmp_path / "moved")
    (tmp_path / PATH).write_bytes(b"another")
    async with DataFiles(tmp_path):
        pass
    assert content_of(tmp_path) == b"another"


async def test_repeat_whose_file_was_moved_aside_is_found_there(tmp_path):
    positions = []

    async def intend(position):
        positions.append(position)

    async with DataFiles(tmp_path) as files:
        await append(files, b"1" * 10, intend=intend, rotate_at_bytes=15)
        await append(files, b"2" * 10, rotate_at_bytes=15)
    async with DataFiles(tmp_path) as files:
        await append(files, b"1" * 10, resume=positions[0], rotate_at_bytes=15)
    assert content_of(tmp_path) == b"2" * 10
    assert (tmp_path / f"{PATH}.1").read_bytes() == b"1" * 10


async def left_unwritten(files, monkeypatch, data, **options):
    """Where `data` was to stand, as a kill between the note and the first byte leaves it: nothing is written."""
    positions = []

    async def intend(position):
        positions.append(position)

    def fail(file_fd, data):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(_append, "write_all", fail)
        with pytest.raises(FileFailed):
            await append(files, data, intend=intend, **options)
    (position,) = positions
    return position


async def test_a_repeat_is_not_taken_for_what_looks_alike_at_its_place_in_a_file_moved_aside(
    tmp_path, monkeypatch
):
    async with DataFiles(tmp_path) as files:
        await append(files, b"a message\n", rotate_at_bytes=15)
        position = await left_unwritten(files, monkeypatch, b"a message\n", rotate_at_bytes=15)
    assert (tmp_path / f"{PATH}.1").read_bytes() == b"a message\n"
    assert position.offset == 0
    async with DataFiles(tmp_path) as files:
        await append(files, b"a message\n", resume=FilePosition.from_note(position.to_note()))
    assert content_of(tmp_path) == b"a message\n"


async def test_what_others_wrote_is_not_cut_off_as_the_torn_bytes_of_another_file(
    tmp_path, monkeypatch
):
    async with DataFiles(tmp_path) as files:
        await append(files, b"old\n")
        position = await left_unwritten(files, monkeypatch, b"hello\n")
        await append(files, b"old\nhel", rotate_at_bytes=4)
    async with DataFiles(tmp_path) as files:
        await append(files, b"hello\n", resume=position)
    assert content_of(tmp_path) == b"old\nhelhello\n"


@pytest.mark.parametrize("rotate_at_bytes", [0, 15])
async def test_in_a_directory_that_was_copied_a_repeat_is_found_by_its_bytes(
    tmp_path, rotate_at_bytes
):
    positions = []

    async def intend(position):
        positions.append(position)

    async with DataFiles(tmp_path / "data") as files:
        await append(files, b"1" * 10, intend=intend, rotate_at_bytes=rotate_at_bytes)
        await append(files, b"2" * 10, rotate_at_bytes=rotate_at_bytes)
    # each file has another number there
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    numbers = {path.stat().st_ino for path in tmp_path.rglob("a.log*")}
    assert len(numbers) == (4 if rotate_at_bytes else 2)
    async with DataFiles(tmp_path / "copy") as files:
        await append(files, b"1" * 10, resume=positions[0], rotate_at_bytes=rotate_at_bytes)
    content = b"".join(path.read_bytes() for path in (tmp_path / "copy").rglob("a.log*"))
    assert sorted(content) == sorted(b"1" * 10 + b"2" * 10)


@pytest.mark.parametrize("inode", [0, 17])
def test_a_position_is_noted_with_three_values_as_ever(inode):
    position = FilePosition("logs/a%3Fb", 4, 6, inode)
    assert FilePosition.from_note(position.to_note()) == position
    assert FilePosition.from_note('["logs/a%3Fb", 4, 6]') == FilePosition("logs/a%3Fb", 4, 6)
    assert len(json.loads(position.to_note())) == 3


async def test_caller_cancelled_while_waiting_has_appended_nothing(bench):
    asked, stored = asyncio.Event(), asyncio.Event()

    async def intend(position):
        asked.set()
        await stored.wait()

    first = asyncio.create_task(append(bench.files, b"first\n", intend=intend))
    await asked.wait()
    second = asyncio.create_task(append(bench.files, b"second\n"))
    await turns()
    second.cancel()
    stored.set()
    await asyncio.wait({first, second})
    assert second.cancelled()
    assert content_of(bench.root) == b"first\n"


async def test_caller_cancelled_too_late_may_come_again_without_a_second_copy(bench):
    asked, stored = asyncio.Event(), asyncio.Event()
    positions = []

    async def intend(position):
        positions.append(position)
        asked.set()
        await stored.wait()

    task = asyncio.create_task(append(bench.files, b"line\n", intend=intend))
    await asked.wait()
    task.cancel()
    await asyncio.wait({task})
    stored.set()
    await append(bench.files, b"line\n", resume=positions[0])
    await append(bench.files, b"line\n")
    assert content_of(bench.root) == b"line\n" * 2


async def test_writes_and_appends_to_one_file_keep_their_order(bench):
    async with asyncio.TaskGroup() as group:
        group.create_task(append(bench.files, b"lost\n"))
        group.create_task(bench.files.write(PARTS, b"new\n"))
        group.create_task(append(bench.files, b"1\n"))
        group.create_task(append(bench.files, b"2\n"))
    assert content_of(bench.root) == b"new\n1\n2\n"


async def test_write_that_fails_or_was_killed_leaves_the_old_content_and_no_litter(
    bench, monkeypatch
):
    await bench.files.write(PARTS, b"old")
    folder = bench.root / "logs/ship1"
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "rename", lambda *_args, **_options: (_ for _ in ()).throw(OSError(5, "x"))
        )
        with pytest.raises(FileFailed):
            await bench.files.write(PARTS, b"new")
    assert os.listdir(folder) == ["a.log"]
    with monkeypatch.context() as patch:
        # a kill between writing and renaming: the temporary file stays
        patch.setattr(os, "rename", lambda *_args, **_options: None)
        await bench.files.write(PARTS, b"newer")
    assert (len(os.listdir(folder)), content_of(bench.root)) == (2, b"old")
    await bench.files.write(PARTS, b"newest")
    assert os.listdir(folder) == ["a.log"]
    assert content_of(bench.root) == b"newest"


async def test_many_files_at_once_share_the_slots(bench):
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            name = f"{number}"
            for _ in range(3):
                group.create_task(
                    bench.files.append(("many", name), b"x\n", resume=None, intend=forget)
                )
    assert {path.read_bytes() for path in (bench.root / "many").iterdir()} == {b"x\n" * 3}
    assert bench.files._lanes == {}


async def test_close_waits_for_what_was_begun(tmp_path):
    files = DataFiles(tmp_path)
    await files.start()
    tasks = [asyncio.create_task(append(files, b"x")) for _ in range(9)]
    await turns()
    await files.close()
    assert content_of(tmp_path) == b"x" * 9
    await asyncio.gather(*tasks)


async def test_loop_goes_on_while_the_disk_is_slow(bench, monkeypatch):
    sync = os.fsync
    disk_is_done = threading.Event()
    waits = []

    def slow(file_fd):
        waits.append(disk_is_done.wait(10))  # only the loop, if it goes on, ends this wait
        sync(file_fd)

    monkeypatch.setattr(os, "fsync", slow)
    task = asyncio.create_task(append(bench.files, b"x"))
    while not waits and not disk_is_done.is_set():
        await turns()
        disk_is_done.set()
    await task
    assert waits
    assert all(waits)


async def test_bytes_of_unusual_names_survive_in_a_position_that_is_plain_text(bench):
    name = os.fsdecode(b"\xff\xfe %\n")
    await bench.files.append(("d", name), b"x", resume=None, intend=bench.intend)
    assert bench.positions[0].path.isascii()
    assert (bench.root / "d" / name).read_bytes() == b"x"


@pytest.mark.parametrize(
    "parts", [(), ("..", "x"), ("a/b",), ("",), (".",), ("a", "\0"), (".appliance-x",)]
)
async def test_parts_are_checked_here_too(bench, parts):
    with pytest.raises(PathForbidden):
        await bench.files.append(parts, b"x", resume=None, intend=forget)
    with pytest.raises(PathForbidden):
        await bench.files.write(parts, b"x")


def flip_forever(base):
    """Exchange ``base/s``, a directory, with a link that leads outside, as fast as possible."""
    exchange, here = 2, -100  # RENAME_EXCHANGE, AT_FDCWD
    rename = ctypes.CDLL(None, use_errno=True).renameat2
    one, other = f"{base}/s".encode(), f"{base}/link".encode()
    while rename(here, one, here, other, exchange) == 0:
        pass


async def test_nothing_lands_outside_while_somebody_swaps_a_directory_for_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    base = tmp_path / "data"
    (base / "s").mkdir(parents=True)
    (base / "link").symlink_to(outside)
    flipper = multiprocessing.get_context("spawn").Process(
        target=flip_forever, args=(str(base),), daemon=True
    )
    flipper.start()
    try:
        async with DataFiles(base) as files:
            give_up_at = time.monotonic() + 30
            number = 0
            outcomes = []
            # long enough to meet the race, and until both of its sides were seen
            while number < 500 or {type(one) for one in outcomes} != {type(None), PathForbidden}:
                assert time.monotonic() < give_up_at, "the race was never met"
                number += 1
                work = (
                    files.write(("s", f"w{number % 50}"), b"x"),
                    files.append(("s", f"a{number % 50}"), b"x", resume=None, intend=forget),
                )
                outcomes += await asyncio.gather(*work, return_exceptions=True)
        assert flipper.is_alive()
    finally:
        flipper.kill()
        flipper.join()
    assert os.listdir(outside) == []


async def test_remembered_files_and_orphans_are_bounded(bench, monkeypatch):
    monkeypatch.setattr(_append, "_REMEMBERED_FILES", 5)
    monkeypatch.setattr(_files, "_REMEMBERED_ORPHANS", 5)
    for number in range(20):
        await bench.files.append(("d", f"{number}"), b"x", resume=None, intend=forget)
        bench.files._remember_orphan(FilePosition("d", number, 1))
    assert len(bench.files._files._first_sizes) <= 6
    assert len(bench.files._orphans) == 5
