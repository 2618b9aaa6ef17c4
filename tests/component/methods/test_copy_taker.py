"""The receiving end of copies: peers that send nonsense, too much, or other things than they said; disks in trouble."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random

import pytest

from appliance.core.copying import BEGIN_AGAIN, MAX_PIECE_BYTES, Piece
from appliance.errors import ArgumentsInvalid, CopyFailed, HandlerError, PathForbidden
from appliance.methods.base import WriteRights
from appliance.methods.copies import receiver as _copy_notes
from appliance.methods.copies import receiver as _copy_taker
from appliance.methods.copies.receiver import CopyTaker
from tests.support.waiting import turns

STEP = 1_000
DATA = random.Random(3).randbytes(10 * STEP)
SHA256 = hashlib.sha256(DATA).hexdigest()
DAY_S = 86_400


class Taking:
    """A taker with the clock in our hands, and the pieces of `DATA` for it."""

    def __init__(self, root):
        self.root = root
        self.target = root / "files" / "target"
        self.now = 1_700_000_000.0
        self.rights = WriteRights(allow_paths=(f"{root}/files/**",), max_bytes=2**31)
        self.taker = self.make()

    def make(self):
        return CopyTaker(self.root / "notes", now=lambda: self.now)

    async def restart(self):
        """What a kill -9 leaves: the files, and nothing of the memory."""
        await self.taker.close()
        self.taker = self.make()

    async def piece(self, number, data=None, *, sender="ship1", target=None, **changes):
        piece = Piece(id="ab" * 16, offset=number * STEP, size=len(DATA), sha256=SHA256)
        data = DATA[number * STEP : (number + 1) * STEP] if data is None else data
        await self.taker.take_piece(
            str(target or self.target), data, piece._replace(**changes), sender, self.rights
        )

    async def forget(self, sender):
        piece = Piece(id="ab" * 16, offset=0, size=len(DATA), sha256=SHA256)
        await self.taker.forget(str(self.target), piece, sender, self.rights)

    async def pieces(self, *numbers, **changes):
        for number in numbers:
            await self.piece(number, **changes)

    @property
    def files(self):
        """Names below the allowed directory; parts are shown as such."""
        found = [
            path for path in (self.root / "files").rglob("*") if path.is_file() or path.is_symlink()
        ]
        return sorted("part" if ".appl-part-" in path.name else path.name for path in found)

    @property
    def part(self):
        (found,) = [path for path in (self.root / "files").iterdir() if ".appl-part-" in path.name]
        return found

    @property
    def notes(self):
        return sorted(os.listdir(self.root / "notes")) if (self.root / "notes").exists() else []


@pytest.fixture
async def taking(tmp_path):
    (tmp_path / "files").mkdir()
    found = Taking(tmp_path)
    yield found
    await found.taker.close()


async def test_pieces_in_any_order_make_the_file(taking):
    await taking.pieces(0, 5, 3, 8, 2, 1, 4, 7, 6, 9)
    assert taking.target.read_bytes() == DATA
    assert (taking.files, taking.notes) == (["target"], [])


async def test_while_it_is_unfinished_the_target_is_as_it_was(taking):
    taking.target.write_text("old")
    await taking.pieces(*range(9))
    assert taking.target.read_text() == "old"
    assert taking.files == ["part", "target"]
    assert taking.part.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("first", [3, 9])
async def test_what_begins_in_the_middle_is_asked_to_begin_again(taking, first):
    with pytest.raises(HandlerError, match=BEGIN_AGAIN):
        await taking.piece(first)
    assert (taking.files, taking.notes) == ([], [])


async def test_the_last_piece_before_the_others_replaces_nothing(taking):
    taking.target.write_text("old")
    await taking.pieces(0, 1, 2)
    with pytest.raises(CopyFailed, match="sha256 differs"):
        await taking.piece(9)
    assert taking.target.read_text() == "old"
    assert (taking.files, taking.notes) == (["target"], [])


@pytest.mark.parametrize("number", [0, 4, 9])
async def test_content_that_is_not_what_the_hash_says_replaces_nothing(taking, number):
    taking.target.write_text("old")
    contents = [b"x" * STEP if step == number else None for step in range(10)]
    for step in range(9):
        await taking.piece(step, contents[step])
    with pytest.raises(CopyFailed, match="what arrived is not what was sent"):
        await taking.piece(9, contents[9])
    assert taking.target.read_text() == "old"
    assert (taking.files, taking.notes) == (["target"], [])


async def test_a_hash_that_belongs_to_something_else_replaces_nothing(taking):
    with pytest.raises(CopyFailed, match="sha256 differs"):
        await taking.pieces(*range(10), sha256="0" * 64)
    assert taking.files == []


async def test_a_piece_that_comes_again_with_other_bytes_is_found_out_by_the_hash(taking):
    await taking.pieces(0, 1, 2, 3)
    await taking.piece(1, b"x" * STEP)  # all of it was there: it is not even written
    await taking.pieces(5)
    await taking.piece(5, b"y" * STEP)
    with pytest.raises(CopyFailed, match="sha256 differs"):
        await taking.pieces(4, 6, 7, 8, 9)
    assert taking.files == []


async def test_pieces_of_another_size_than_before_are_put_where_they_belong(taking):
    await taking.pieces(0, 1, 2)
    await taking.piece(1, DATA[1_500:4_500], offset=1_500)
    await taking.piece(4, DATA[4_500:], offset=4_500)
    assert taking.target.read_bytes() == DATA


@pytest.mark.parametrize(
    ("number", "data", "changes"),
    [
        (0, b"", {}),
        (0, b"x" * (MAX_PIECE_BYTES + 1), {"size": 2**40}),
        (9, b"x" * (STEP + 1), {}),
        (0, None, {"offset": 2**49}),
    ],
)
async def test_pieces_that_cannot_be_are_refused_before_anything_is_touched(
    taking, number, data, changes
):
    with pytest.raises(ArgumentsInvalid):
        await taking.piece(number, data, **changes)
    assert taking.files == []


async def test_a_size_over_the_limit_is_refused_with_the_first_piece(taking):
    taking.rights = WriteRights(allow_paths=None, max_bytes=len(DATA) - 1)
    with pytest.raises(CopyFailed, match="10000 bytes exceed max_file_bytes of 9999 there"):
        await taking.piece(0)
    assert taking.files == []


async def test_a_part_cannot_be_blown_up_by_a_piece_far_behind_its_end(taking):
    await taking.piece(0, size=2**30, sha256="0" * 64)
    with pytest.raises(HandlerError, match=BEGIN_AGAIN):
        await taking.piece(0, offset=2**29, size=2**30, sha256="0" * 64)
    assert taking.part.stat().st_size == STEP


async def test_pieces_without_an_end_take_no_memory(taking):
    await taking.piece(0, b"x", size=2**20)
    for offset in range(2, 2 * _copy_taker.MAX_AHEAD + 40, 2):
        await taking.piece(0, b"x", offset=offset, size=2**20)
    (transfer,) = taking.taker._transfers.values()
    assert len(transfer.ahead) == _copy_taker.MAX_AHEAD


async def test_nobody_writes_into_the_part_of_somebody_else(taking):
    await taking.pieces(0, 1, 2)
    with pytest.raises(HandlerError, match=BEGIN_AGAIN):
        await taking.piece(3, b"x" * STEP, sender="ship2")
    await taking.piece(0, b"x" * STEP, sender="ship2")
    assert taking.files == ["part", "part"]
    await taking.pieces(*range(3, 10))
    assert taking.target.read_bytes() == DATA


async def test_one_sender_leaves_so_many_parts_and_the_oldest_go_first(taking):
    await taking.piece(0, sender="ship2", target=taking.root / "files" / "of-ship2")
    for number in range(_copy_notes.MAX_PARTS + 5):
        target = taking.root / "files" / f"t{number:03d}"
        await taking.piece(0, target=target)
        (part,) = (taking.root / "files").glob(f".{target.name}.appl-part-*")
        assert part.exists()
        taking.now += 1
    names = sorted(os.listdir(taking.root / "files"))
    assert len(names) == _copy_notes.MAX_PARTS + 1
    assert any(name.startswith(".of-ship2.") for name in names)
    assert not any(name.startswith((".t000.", ".t004.")) for name in names)
    assert any(name.startswith(".t005.") for name in names)
    assert len(taking.notes) == len(names)


async def test_what_is_known_of_transfers_is_bounded_and_what_is_forgotten_is_read_again(
    taking, monkeypatch
):
    monkeypatch.setattr(_copy_taker, "MAX_TRANSFERS", 4)
    await taking.pieces(0, 1, 2)
    for number in range(20):
        await taking.piece(0, target=taking.root / "files" / f"t{number}")
    assert len(taking.taker._transfers) == 4
    await taking.pieces(*range(3, 10))
    assert taking.target.read_bytes() == DATA


async def test_a_sender_that_gives_up_takes_its_part_away_and_no_other(taking):
    await taking.pieces(0, 1, 2)
    await taking.piece(0, sender="ship2")
    await taking.forget("ship1")
    assert taking.files == ["part"]
    assert len(taking.notes) == 1
    await taking.forget("ship1")  # the word of it may come twice
    await taking.forget("ship3")
    with pytest.raises(HandlerError, match=BEGIN_AGAIN):
        await taking.piece(3)
    await taking.pieces(*range(10))
    assert taking.target.read_bytes() == DATA
    await taking.forget("ship1")
    assert taking.target.read_bytes() == DATA


# -- restarts -------------------------------------------------------------------------------------


async def test_after_a_restart_it_goes_on_with_what_was_acknowledged(taking):
    await taking.pieces(0, 1, 2, 5)
    await taking.restart()
    await taking.pieces(3, 4, 6, 7, 8, 9)
    assert taking.target.read_bytes() == DATA
    assert (taking.files, taking.notes) == (["target"], [])


async def test_after_a_restart_a_part_that_was_damaged_meanwhile_is_found_out(taking):
    await taking.pieces(0, 1, 2)
    await taking.restart()
    with taking.part.open("r+b") as file:
        file.write(b"damaged")
    with pytest.raises(CopyFailed, match="sha256 differs"):
        await taking.pieces(*range(3, 10))
    assert taking.files == []


@pytest.mark.parametrize("loss", ["removed", "cut short"])
async def test_a_part_that_somebody_took_away_is_not_taken_for_the_one_that_comes_after_it(
    taking, loss
):
    await taking.pieces(0, 1, 2)
    if loss == "removed":
        taking.part.unlink()  # the next one gets the very same inode number, on many file systems
    else:
        os.truncate(taking.part, 0)
    await taking.pieces(*range(10))
    assert taking.target.read_bytes() == DATA


async def test_the_last_piece_again_is_acknowledged_though_nobody_remembers(taking):
    await taking.pieces(*range(10))
    await taking.pieces(9, 4)
    await taking.restart()
    await taking.pieces(9, 4)
    assert taking.target.read_bytes() == DATA
    assert taking.files == ["target"]


async def test_the_last_piece_again_is_not_acknowledged_for_another_file(taking):
    await taking.pieces(*range(10))
    taking.target.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(HandlerError, match=BEGIN_AGAIN):
        await taking.piece(9)
    await taking.pieces(*range(10))
    assert taking.target.read_bytes() == DATA


async def test_parts_that_nobody_touches_for_a_day_are_removed_by_whoever_runs_then(taking):
    await taking.piece(0)
    await taking.piece(0, target=taking.root / "files" / "young")
    await taking.restart()
    taking.now += DAY_S - 60
    await taking.piece(1, target=taking.root / "files" / "young")
    taking.now += 61
    await taking.taker.sweep()
    (left,) = (taking.root / "files").iterdir()
    assert left.name.startswith(".young.")
    assert len(taking.notes) == 1
    taking.now += 3_600
    await taking.taker.sweep()
    assert len(taking.notes) == 1
    taking.now += DAY_S - 3_600 - 62
    await taking.taker.sweep()
    assert len(taking.notes) == 1
    taking.now += 3_600
    await taking.taker.sweep()
    assert (taking.files, taking.notes) == ([], [])


async def test_a_note_of_a_part_that_is_gone_goes_soon(taking):
    await taking.piece(0)
    taking.part.unlink()
    (note,) = (taking.root / "notes").iterdir()
    for age_s, left in ((30, 1), (90, 0)):
        os.utime(note, (taking.now - age_s,) * 2)
        await taking.taker.sweep()
        assert len(taking.notes) == left
        await taking.restart()


async def test_a_note_that_names_something_else_removes_only_itself(taking):
    precious = taking.root / "files" / "precious"
    precious.write_text("precious")
    (taking.root / "notes").mkdir()
    for name, content in (("a", bytes(precious)), ("b", b"\0"), ("c", b""), ("d", b"x" * 9_999)):
        note = taking.root / "notes" / name
        note.write_bytes(content)
        os.utime(note, (taking.now - 2 * DAY_S,) * 2)
    os.utime(precious, (taking.now - 2 * DAY_S,) * 2)
    await taking.taker.sweep()
    assert precious.read_text() == "precious"
    assert taking.notes == []


# -- the system -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "hard link", "directory", "pipe"])
async def test_something_else_at_the_place_of_a_part_is_not_written_to(taking, kind):
    await taking.piece(0)
    part, elsewhere = taking.part, taking.root / "elsewhere"
    elsewhere.write_text("precious")
    part.unlink()
    {
        "link": lambda: part.symlink_to(elsewhere),
        "hard link": lambda: os.link(elsewhere, part),
        "directory": part.mkdir,
        "pipe": lambda: os.mkfifo(part),
    }[kind]()
    async with asyncio.timeout(60):
        with pytest.raises((CopyFailed, PathForbidden)):
            await taking.piece(1)
    assert elsewhere.read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "directory"])
async def test_something_else_that_comes_to_stand_at_the_target_is_not_replaced(taking, kind):
    await taking.pieces(*range(9))
    if kind == "link":
        taking.target.symlink_to("/etc/passwd")
    else:
        taking.target.mkdir()
    with pytest.raises(PathForbidden):
        await taking.piece(9)
    assert not taking.target.is_file() or taking.target.is_symlink()


async def test_rights_that_are_taken_away_hold_from_the_next_piece_on(taking):
    await taking.pieces(0, 1)
    taking.rights = WriteRights(allow_paths=(), max_bytes=1_000_000)
    with pytest.raises(PathForbidden, match="not in allow_paths"):
        await taking.piece(2)


async def test_a_file_without_room_is_refused_before_it_begins(taking, monkeypatch):
    monkeypatch.setattr(_copy_taker, "measure_room", lambda _: (20, 19))
    with pytest.raises(CopyFailed, match=r"no room for 10000 bytes: .* are free"):
        await taking.piece(0)
    with pytest.raises(CopyFailed, match="no room for 10 bytes"):
        await taking.taker.take_file(str(taking.target), b"x" * 10, None, "ship1", taking.rights)
    assert (taking.files, taking.notes) == ([], [])


def test_of_a_small_file_system_copies_leave_a_twentieth_to_others_and_of_a_large_one_64_mib():
    def disk(blocks, free):
        return os.statvfs_result((4096, 4096, blocks, free, free, 0, 0, 0, 0, 255))

    assert _copy_taker.measure_room(disk(256, 256)) == (1_048_576, 52_428)
    assert _copy_taker.measure_room(disk(2**30, 1)) == (4_096, 64 * 1024 * 1024)


async def test_a_disk_that_is_full_in_the_middle_gets_its_room_back(taking, monkeypatch):
    taking.target.write_text("old")
    await taking.pieces(0, 1)

    def pwrite(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(CopyFailed, match="no space left on device"):
            await taking.piece(2)
    assert (taking.files, taking.notes) == (["target"], [])
    with pytest.raises(HandlerError, match=BEGIN_AGAIN):
        await taking.piece(3)
    await taking.pieces(*range(10))
    assert taking.target.read_bytes() == DATA


async def test_an_input_output_error_keeps_what_is_there(taking, monkeypatch):
    await taking.pieces(0, 1)

    def fdatasync(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(CopyFailed, match="input/output error"):
            await taking.piece(2)
    await taking.pieces(*range(2, 10))
    assert taking.target.read_bytes() == DATA


async def test_a_piece_is_on_disk_before_it_is_acknowledged_and_a_file_before_it_has_its_name(
    taking, monkeypatch
):
    calls = []
    for name in ("pwrite", "fdatasync", "fsync", "rename"):
        real = getattr(os, name)

        def call(*args, _real=real, _name=name, **named):
            calls.append(_name)
            return _real(*args, **named)

        monkeypatch.setattr(os, name, call)
    await taking.piece(0)
    assert calls[-2:] == ["pwrite", "fdatasync"]
    await taking.pieces(*range(1, 9))
    calls.clear()
    await taking.piece(9)
    assert calls[:4] == ["pwrite", "fdatasync", "fsync", "rename"]
    assert calls[4:] == ["fsync"]


async def test_who_stops_waiting_leaves_no_lock_behind(taking):
    await taking.piece(0)
    tasks = [asyncio.create_task(taking.piece(number)) for number in range(1, 9)]
    await turns()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await taking.pieces(*range(1, 10))
    assert taking.target.read_bytes() == DATA


# -- whole files ----------------------------------------------------------------------------------


async def test_a_whole_file_is_checked_by_its_hash_where_it_has_one(taking):
    taking.target.write_text("old")
    with pytest.raises(CopyFailed, match="its content is not what was sent"):
        await taking.taker.take_file(
            str(taking.target), DATA + b"x", SHA256, "ship1", taking.rights
        )
    assert taking.target.read_text() == "old"
    await taking.taker.take_file(str(taking.target), DATA, SHA256, "ship1", taking.rights)
    assert taking.target.read_bytes() == DATA
    await taking.taker.take_file(
        str(taking.target), b"from a Go node", None, "ship1", taking.rights
    )
    assert taking.target.read_bytes() == b"from a Go node"
    assert taking.files == ["target"]


async def test_a_whole_file_over_the_limit_is_refused(taking):
    taking.rights = WriteRights(allow_paths=None, max_bytes=9)
    with pytest.raises(CopyFailed, match="10 bytes exceed max_file_bytes of 9"):
        await taking.taker.take_file(str(taking.target), b"x" * 10, None, "ship1", taking.rights)
    assert taking.files == []


async def test_a_name_as_long_as_a_name_can_be_is_taken(taking):
    target = taking.root / "files" / ("n" * 255)
    await taking.pieces(*range(10), target=target)
    assert target.read_bytes() == DATA
    with pytest.raises(CopyFailed, match="name too long"):
        await taking.taker.take_file(f"{target}x", DATA, None, "ship1", taking.rights)
    assert taking.files == ["n" * 255]
