"""Copies that were broken off: senders and receivers that were stopped, parts and acknowledgements that were lost."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.copying import (
    BEGIN_AGAIN,
    COPY_CHUNK,
    PIECE_BYTES,
    PIECE_HEADER,
    read_piece,
    unpack_piece,
)
from appliance.core.message import Message
from appliance.errors import AnswerUnwanted, CopyFailed, HandlerError
from appliance.methods.base import FilePosition, WriteRights
from appliance.methods.copies import sender as _copy_pace
from appliance.methods.copies import sender as _copy_sender
from appliance.methods.copies.receiver import CopyTaker
from appliance.methods.copies.source import SourceFile
from tests.component.methods.copy_pair import write_random
from tests.support.waiting import turns


@pytest.fixture
def notes_often(monkeypatch):
    monkeypatch.setattr(_copy_sender, "MARK_EVERY_BYTES", 2 * PIECE_BYTES)


async def test_a_sender_that_was_stopped_goes_on_where_it_was(pair, notes_often):
    data = write_random(pair.here / "source", 20 * PIECE_BYTES + 5)
    mark = await pair.break_off(pair.here / "source", 10 * PIECE_BYTES)
    assert 6 * PIECE_BYTES <= mark.offset <= 10 * PIECE_BYTES
    assert mark.length == len(data)
    copied = await pair.copy(pair.here / "source", resume=mark)
    assert min(pair.offsets) == mark.offset
    assert (pair.there / "copied").read_bytes() == data
    assert copied.sha256 == hashlib.sha256(data).hexdigest()


async def test_a_receiver_that_was_killed_goes_on_with_what_it_has(pair, tmp_path, notes_often):
    data = write_random(pair.here / "source", 20 * PIECE_BYTES + 5)
    mark = await pair.break_off(pair.here / "source", 10 * PIECE_BYTES)
    fresh = CopyTaker(tmp_path / "notes", now=time.time)  # what was in memory is gone
    pair.receiver.files_taker = fresh
    try:
        await pair.copy(pair.here / "source", resume=mark)
    finally:
        await fresh.close()
    assert (pair.there / "copied").read_bytes() == data
    assert len(pair.sender.delivered) <= 15
    assert pair.parts == []


async def test_a_receiver_that_lost_its_part_gets_all_of_it_again(pair, notes_often):
    data = write_random(pair.here / "source", 20 * PIECE_BYTES + 5)
    mark = await pair.break_off(pair.here / "source", 10 * PIECE_BYTES)
    (part,) = pair.parts
    part.unlink()
    await pair.copy(pair.here / "source", resume=mark)
    assert (pair.there / "copied").read_bytes() == data


async def test_a_receiver_that_loses_everything_again_and_again_is_given_up(pair):
    write_random(pair.here / "source", 20 * PIECE_BYTES)

    async def lose(_method, offset):
        if offset and offset > 5 * PIECE_BYTES:
            raise HandlerError(BEGIN_AGAIN)

    pair.before = lose
    with pytest.raises(HandlerError, match="central loses what it has taken"):
        await pair.copy(pair.here / "source")
    assert [item for item in pair.taken if item[1] == 0] == [(COPY_CHUNK, 0)] * 3


async def test_gone_on_with_a_log_that_grew_it_is_still_the_copy_that_was_begun(pair, notes_often):
    source = pair.here / "log"
    data = write_random(source, 20 * PIECE_BYTES + 5)
    mark = await pair.break_off(source, 10 * PIECE_BYTES)
    with source.open("ab") as file:
        file.write(b"another line\n")
    copied = await pair.copy(source, resume=mark)
    assert copied.size == len(data)
    assert (pair.there / "copied").read_bytes() == data


@pytest.mark.parametrize("change", ["other", "shorter", "small"])
async def test_a_file_that_is_another_one_by_then_is_not_gone_on_with(pair, notes_often, change):
    source = pair.here / "source"
    write_random(source, 20 * PIECE_BYTES)
    mark = await pair.break_off(source, 10 * PIECE_BYTES)
    write_random(source, {"other": 20, "shorter": 19, "small": 1}[change] * PIECE_BYTES, seed=2)
    with pytest.raises(CopyFailed, match="it changed while it was copied"):
        await pair.copy(source, resume=mark)
    assert not (pair.there / "copied").exists()


async def test_a_mark_of_something_else_is_not_believed(pair):
    write_random(pair.here / "source", 20 * PIECE_BYTES)
    with pytest.raises(CopyFailed, match="it changed"):
        await pair.copy(
            pair.here / "source",
            resume=FilePosition("ab" * 16, PIECE_BYTES, 20 * PIECE_BYTES),
        )


async def test_a_mark_at_the_very_end_is_begun_again(pair, notes_often):
    data = write_random(pair.here / "source", 20 * PIECE_BYTES)
    mark = await pair.break_off(pair.here / "source", 10 * PIECE_BYTES)
    await pair.copy(pair.here / "source", resume=FilePosition(mark.path, mark.length, mark.length))
    assert (pair.there / "copied").read_bytes() == data


async def test_lost_acknowledgements_of_every_piece_change_nothing(pair):
    data = write_random(pair.here / "source", 9 * PIECE_BYTES + 3)

    async def twice(outgoing):
        await pair.deliver(outgoing)
        return await pair.deliver(outgoing)

    pair.sender.on_deliver = twice
    await pair.copy(pair.here / "source")
    assert (pair.there / "copied").read_bytes() == data
    assert pair.parts == []


async def test_two_copies_to_one_target_leave_one_of_them_whole(pair):
    one, two = (
        write_random(pair.here / "one", 9 * PIECE_BYTES, 1),
        write_random(pair.here / "two", 9 * PIECE_BYTES, 2),
    )
    await asyncio.gather(pair.copy(pair.here / "one"), pair.copy(pair.here / "two"))
    assert (pair.there / "copied").read_bytes() in (one, two)
    assert pair.parts == []


async def test_a_sender_that_fails_in_the_middle_leaves_no_part_behind(pair):
    source = pair.here / "source"
    write_random(source, 20 * PIECE_BYTES)

    async def shrink(_method, offset):
        if offset == 5 * PIECE_BYTES:
            os.truncate(source, PIECE_BYTES)

    pair.before = shrink
    with pytest.raises(CopyFailed, match="it changed while it was copied"):
        await pair.copy(source)
    assert pair.parts == []


async def test_a_sender_that_hears_that_nobody_waits_any_more_ends_quietly(pair):
    write_random(pair.here / "source", 20 * PIECE_BYTES)
    sent = []

    async def deliver(outgoing):
        sent.append(outgoing)
        if len(sent) > 5:
            raise AnswerUnwanted
        return await pair.deliver(outgoing)

    pair.sender.on_deliver = deliver
    with pytest.raises(AnswerUnwanted):
        await pair.copy(pair.here / "source")
    assert len(sent) <= 5 + _copy_sender.WINDOW


@settings(max_examples=20)
@given(
    size=st.integers(1, 5_000),
    step=st.integers(1, 1_500),
    first=st.integers(1, 200),
    window=st.integers(1, 7),
    seed=st.integers(0, 2**32),
)
def test_any_file_is_cut_into_pieces_that_make_it_again(
    tmp_path_factory, size, step, first, window, seed
):
    asyncio.run(_cut_and_join(tmp_path_factory.mktemp("cut"), size, step, first, window, seed))


async def _cut_and_join(directory, size, step, first, window, seed):
    """Through the sender and the taker, the pieces delayed at random, some sent twice."""
    rng = random.Random(seed)
    source_path, target = directory / "source", directory / "target"
    data = write_random(source_path, size, seed)
    taker = CopyTaker(directory / "notes", now=time.time)
    rights = WriteRights(allow_paths=None, max_bytes=10_000)
    spans = []

    class Line:
        async def deliver(self, outgoing):
            piece = read_piece(outgoing.headers[PIECE_HEADER])
            content = unpack_piece(outgoing.message.data)
            spans.append((piece.offset, len(content)))
            for _ in range(rng.choice((1, 1, 2))):
                for _ in range(rng.randrange(4)):
                    await turns()
                await taker.take_piece(str(target), content, piece, "ship1", rights)
            return True

        async def progress(self, done_bytes, total_bytes):
            assert 0 <= done_bytes <= total_bytes == size

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_copy_sender, "MAX_WHOLE_BYTES", 0)
        patch.setattr(_copy_sender, "PIECE_BYTES", step)
        patch.setattr(_copy_sender, "WINDOW", window)
        patch.setattr(_copy_pace, "FIRST_PIECE_BYTES", first)
        source = await SourceFile.open(str(source_path), None, None)
        try:
            await _copy_sender.CopySender(
                source,
                Message(),
                node="ship1",
                to_node="central",
                path=str(target),
                line=Line(),
                max_payload_bytes=1_000_000,
                wait_s=5,
            ).send()
        finally:
            source.close()
            await taker.close()
    assert target.read_bytes() == data
    at = 0
    for offset, length in sorted(spans):
        assert offset == at
        at += length
    assert at == size


class Unanswered:
    """A line whose first piece arrives, and whose acknowledgement is still on its way."""

    def __init__(self, failure=None):
        self.failure = failure
        self.said = []
        self.has_left = asyncio.Event()

    async def deliver(self, outgoing):
        self.said.append(outgoing.message.data)
        self.has_left.set()
        if self.failure is not None:
            raise self.failure
        if len(self.said) == 1:
            await asyncio.Event().wait()
        return True

    async def progress(self, _done_bytes, _total_bytes):
        pass


def sender_over(line, source):
    base = Message()
    return _copy_sender.CopySender(
        source, base, node="central", to_node="ship1", path="/x", line=line,
        max_payload_bytes=1_000_000, wait_s=5,
    )  # fmt: skip


async def test_what_may_have_arrived_before_a_copy_was_cancelled_is_taken_back(tmp_path):
    write_random(tmp_path / "source", 20 * PIECE_BYTES)
    source = await SourceFile.open(str(tmp_path / "source"), None, None)
    line = Unanswered()
    sender = sender_over(line, source)
    copying = asyncio.create_task(sender.send())
    await line.has_left.wait()
    copying.cancel()
    await asyncio.gather(copying, return_exceptions=True)
    await sender.take_back()
    source.close()
    assert line.said[1:] == [("",)]


async def test_what_was_not_taken_is_not_taken_back(tmp_path):
    write_random(tmp_path / "source", 20 * PIECE_BYTES)
    source = await SourceFile.open(str(tmp_path / "source"), None, None)
    line = Unanswered(HandlerError("refused: no"))
    sender = sender_over(line, source)
    with pytest.raises(HandlerError, match="refused"):
        await sender.send()
    source.close()
    assert len(line.said) == 1
