"""Files on their way to or from somebody at the API: a word for one file, from one node, for an hour."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time

import pytest

from appliance.core.copying import SPOOL_WORD, Piece, TargetPlace
from appliance.errors import (
    AnswerUnwanted,
    CopyFailed,
    HandlerError,
    PathForbidden,
    RequestInvalid,
)
from appliance.methods.base import WriteRights
from appliance.methods.copies import spool as _copy_spool
from appliance.methods.copies.receiver import CopyTaker
from appliance.methods.copies.spool import CopySpool
from tests.support.waiting import until_async

DATA = b"\xff\0content" * 100
SIZE = len(DATA)
SHA256 = hashlib.sha256(DATA).hexdigest()
RIGHTS = WriteRights(allow_paths=(), max_bytes=10_000)


class Spooling:
    def __init__(self, root):
        self.directory = root / "spool"
        self.root = root
        self.now = 1_700_000_000.0
        self.taker = CopyTaker(root / "notes", now=time.time)
        self.spool = CopySpool(self.directory, self.taker, mono=lambda: self.now)

    async def file(self, word, *, sender="ship1", data=DATA):
        await self.spool.take_file(word, data, SHA256 if data is DATA else None, sender, RIGHTS)

    async def piece(self, word, begin, end, *, sender="ship1", size=SIZE):
        piece = Piece(id="ab" * 16, offset=begin, size=size, sha256=SHA256)
        await self.spool.take_piece(word, DATA[begin:end], piece, sender, RIGHTS)

    @property
    def files(self):
        return sorted(os.listdir(self.directory))

    @property
    def notes(self):
        directory = self.root / "notes"
        return os.listdir(directory) if directory.exists() else []


@pytest.fixture
async def spooling(tmp_path):
    found = Spooling(tmp_path)
    await found.spool.open()
    yield found
    await found.spool.close()
    await found.taker.close()


async def test_the_node_that_was_asked_may_bring_the_file_whatever_allow_paths_says(spooling):
    for bring in ("whole", "pieces"):
        entry = spooling.spool.add("central", "ship1")
        assert not entry.arrived.is_set()
        if bring == "whole":
            await spooling.file(entry.word)
        else:
            await spooling.piece(entry.word, 0, 400)
            assert not entry.arrived.is_set()
            await spooling.piece(entry.word, 400, SIZE)
        assert entry.arrived.is_set()
        assert (entry.path.read_bytes(), entry.sha256) == (DATA, SHA256)
        assert entry.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "word", ["0" * 32, "", "../spool", "../../etc/passwd", "/etc/passwd", "{token}/x", "{token} "]
)
async def test_a_word_that_was_not_given_opens_nothing(spooling, word):
    entry = spooling.spool.add("central", "ship1")
    word = SPOOL_WORD + word.format(token=entry.token)
    for bring in (spooling.file(word), spooling.piece(word, 0, SIZE)):
        with pytest.raises(PathForbidden, match="no such copy is expected here"):
            await bring
    assert spooling.files == []


async def test_a_node_that_was_not_asked_brings_nothing_though_it_knows_the_word(spooling):
    entry = spooling.spool.add("central", "ship1")
    for bring in (
        spooling.file(entry.word, sender="ship2"),
        spooling.piece(entry.word, 0, 400, sender="ship2"),
        spooling.piece(entry.word, 0, 400, sender="central"),
    ):
        with pytest.raises(PathForbidden, match="no such copy is expected here"):
            await bring
    assert not entry.arrived.is_set()
    assert spooling.files == []


async def test_a_go_node_sends_its_file_in_the_name_of_who_asked(spooling):
    entry = spooling.spool.add("central", "ship1")
    await spooling.spool.take_file(entry.word, DATA, None, "central", RIGHTS)
    assert entry.arrived.is_set()


async def test_what_goes_out_is_not_overwritten_from_outside(spooling):
    entry = spooling.spool.add("central", "ship1", target=TargetPlace("/srv/x"), name="x")
    entry.path.write_bytes(b"to be sent")
    for bring in (spooling.file(entry.word), spooling.piece(entry.word, 0, SIZE)):
        with pytest.raises(PathForbidden):
            await bring
    assert entry.path.read_bytes() == b"to be sent"


async def test_a_file_over_the_limit_is_refused(spooling):
    entry = spooling.spool.add("central", "ship1")
    with pytest.raises(CopyFailed, match="exceed max_file_bytes"):
        await spooling.file(entry.word, data=b"x" * 10_001)
    with pytest.raises(CopyFailed, match="exceed max_file_bytes"):
        await spooling.piece(entry.word, 0, 400, size=10_001)
    assert spooling.files == []


async def test_a_forgotten_word_leaves_nothing_and_takes_nothing(spooling):
    whole, begun = spooling.spool.add("central", "ship1"), spooling.spool.add("central", "ship1")
    await spooling.file(whole.word)
    await spooling.piece(begun.word, 0, 400)
    assert len(spooling.files) == 2
    assert spooling.spool.remove(whole.token)
    assert spooling.spool.remove(begun.token)
    assert not spooling.spool.remove(begun.token)
    assert (spooling.files, spooling.notes) == ([], [])
    for bring in (spooling.piece(begun.word, 400, SIZE), spooling.file(whole.word)):
        with pytest.raises(AnswerUnwanted):
            await bring
    with pytest.raises(PathForbidden):
        await spooling.piece(begun.word, 400, SIZE, sender="ship2")
    assert spooling.files == []


async def test_words_of_late_are_remembered_and_not_for_ever(spooling, monkeypatch):
    monkeypatch.setattr(_copy_spool, "MAX_GONE", 2)
    entries = [spooling.spool.add("central", "ship1") for _ in range(4)]
    for entry in entries:
        spooling.spool.remove(entry.token)
    errors = []
    for entry in entries:
        with pytest.raises(HandlerError) as caught:
            await spooling.file(entry.word)
        errors.append(type(caught.value))
    assert errors == [PathForbidden, PathForbidden, AnswerUnwanted, AnswerUnwanted]


async def test_a_sender_that_gives_up_takes_its_part_away(spooling):
    entry = spooling.spool.add("central", "ship1")
    await spooling.piece(entry.word, 0, 400)
    piece = Piece(id="ab" * 16, offset=0, size=SIZE, sha256=SHA256)
    with pytest.raises(PathForbidden):
        await spooling.spool.forget(entry.word, piece, "ship2", RIGHTS)
    assert len(spooling.files) == 1
    await spooling.spool.forget(entry.word, piece, "ship1", RIGHTS)
    assert (spooling.files, spooling.notes) == ([], [])


async def test_a_word_that_is_forgotten_while_its_file_is_written_leaves_nothing(
    spooling, monkeypatch
):
    reached, go_on = asyncio.Event(), asyncio.Event()
    real_file, real_piece = spooling.taker.take_file, spooling.taker.take_piece

    async def take_file(*args):
        reached.set()
        await go_on.wait()
        await real_file(*args)

    async def take_piece(*args):
        reached.set()
        await go_on.wait()
        await real_piece(*args)

    monkeypatch.setattr(spooling.taker, "take_file", take_file)
    monkeypatch.setattr(spooling.taker, "take_piece", take_piece)
    for bring in ("file", "piece"):
        reached.clear()
        go_on.clear()
        entry = spooling.spool.add("central", "ship1")
        work = spooling.file(entry.word) if bring == "file" else spooling.piece(entry.word, 0, 400)
        task = asyncio.create_task(work)
        await reached.wait()
        spooling.spool.remove(entry.token)
        go_on.set()
        await asyncio.gather(task, return_exceptions=True)
        assert spooling.files == []


async def test_so_many_copies_may_be_on_their_way_and_no_more(spooling, monkeypatch):
    monkeypatch.setattr(_copy_spool, "MAX_ENTRIES", 3)
    entries = [spooling.spool.add("central", "ship1") for _ in range(3)]
    with pytest.raises(RequestInvalid, match="3 copies are on their way already"):
        spooling.spool.add("central", "ship1")
    spooling.spool.remove(entries[0].token)
    spooling.spool.add("central", "ship1")


async def test_what_nobody_fetches_is_removed_after_an_hour_of_quiet(spooling, monkeypatch):
    monkeypatch.setattr(_copy_spool, "TIDY_EVERY_S", 0.01)
    await spooling.spool.close()
    await spooling.spool.open()
    idle, read, asked = [spooling.spool.add("central", "ship1") for _ in range(3)]
    for entry in (idle, read, asked):
        await spooling.file(entry.word)
    read.users += 1
    spooling.now += 3_000
    spooling.spool.find(asked.token)
    spooling.now += 601
    await until_async(lambda: len(spooling.files) <= 2)
    assert spooling.files == sorted([read.token, asked.token])


async def test_what_an_earlier_run_left_is_removed_at_the_start(spooling, tmp_path):
    entry = spooling.spool.add("central", "ship1")
    await spooling.file(entry.word)
    await spooling.piece(spooling.spool.add("central", "ship1").word, 0, 400)
    later = CopySpool(spooling.directory, spooling.taker)
    await later.open()
    await later.close()
    assert spooling.files == []
    with pytest.raises(PathForbidden, match="no such copy is expected here"):
        await later.take_file(entry.word, DATA, None, "ship1", RIGHTS)
