"""How what is said becomes pieces: whole lines, in order, bounded, nothing lost."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.methods.programs import chunks as _talk
from appliance.methods.programs.chunks import HELD_BYTES, PIECE_BYTES, Chunker, run_talk
from tests.support.waiting import turns


def drain(talk):
    pieces = []
    while (piece := talk.peek()) is not None:
        talk.take(piece)
        pieces.append(piece)
    return pieces


def make_talk():
    return Chunker(clock=lambda: 0.0)


async def test_whole_lines_that_are_there_go_out_in_one_piece_and_the_begun_one_waits():
    talk = make_talk()
    talk.add("stdout", b"one\ntw")
    talk.add("stdout", b"o\nthr")
    assert drain(talk) == [("stdout", b"one\ntwo\n")]
    talk.end()
    assert drain(talk) == [("stdout", b"thr")]
    assert talk.is_over


async def test_two_streams_keep_the_order_in_which_they_were_heard():
    talk = make_talk()
    for stream, data in [("stdout", b"1\n"), ("stderr", b"2\n3\n"), ("stdout", b"4\n5")]:
        talk.add(stream, data)
    talk.add("stderr", b"6\n")
    talk.add("stdout", b"7\n")
    assert drain(talk) == [
        ("stdout", b"1\n"),
        ("stderr", b"2\n3\n"),
        ("stdout", b"4\n"),
        ("stderr", b"6\n"),
        ("stdout", b"57\n"),
    ]


async def test_a_long_line_is_cut_and_never_within_a_character():
    talk = make_talk()
    line = b"x" + "ü".encode() * PIECE_BYTES
    for begin in range(0, len(line), 10_000):
        talk.add("stdout", line[begin : begin + 10_000])
    talk.end()
    pieces = [piece.data for piece in drain(talk)]
    assert b"".join(pieces) == line
    assert max(map(len, pieces)) <= PIECE_BYTES
    # cut where it was heard in the middle of one, too: only what the reader saw counts
    assert sum(1 for piece in pieces if piece[0] & 0xC0 == 0x80) <= len(line) // PIECE_BYTES


async def test_bytes_that_are_no_text_are_cut_somewhere():
    talk = make_talk()
    talk.add("stdout", b"\x80" * (PIECE_BYTES + 10))
    assert [len(piece.data) for piece in drain(talk)] == [PIECE_BYTES, 10]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stdout", "stderr"]),
            st.builds(
                lambda text, count: text * count,
                st.binary(max_size=6) | st.sampled_from([b"\n", b"a\n", b"line"]),
                st.integers(1, 9_000),
            ),
        ),
        max_size=12,
    ),
    st.lists(st.booleans(), max_size=12),
)
def test_nothing_is_lost_doubled_or_turned_round_and_every_piece_is_bounded(words, drains):
    talk = make_talk()
    pieces = []
    for index, (stream, data) in enumerate(words):
        talk.add(stream, data)
        if index < len(drains) and drains[index]:
            pieces += drain(talk)
    talk.end()
    pieces += drain(talk)
    for stream in ("stdout", "stderr"):
        said = b"".join(data for name, data in words if name == stream)
        assert b"".join(piece.data for piece in pieces if piece.stream == stream) == said
    assert all(0 < len(piece.data) <= PIECE_BYTES for piece in pieces)
    assert talk.is_over
    assert talk.room == HELD_BYTES


async def test_a_line_without_an_end_goes_out_after_a_silence(monkeypatch):
    monkeypatch.setattr(_talk, "SILENCE_S", 0.05)
    talk = Chunker()
    talk.add("stdout", b"password: ")
    assert talk.peek() is None
    begun = time.monotonic()
    await talk.wait()
    assert time.monotonic() - begun >= 0.05
    assert talk.peek() == ("stdout", b"password: ")


async def test_a_full_talk_has_no_room_until_somebody_listens():
    talk = make_talk()
    talk.add("stdout", b"x" * HELD_BYTES)
    assert talk.room == 0
    told = []
    talk.on_room.append(lambda: told.append(talk.room))
    waiting = asyncio.create_task(talk.wait_room())
    await turns()
    assert not waiting.done()
    talk.take(talk.peek())
    await waiting
    assert told == [PIECE_BYTES]


async def test_run_ends_with_the_speaker_and_all_is_said():
    talk, heard = Chunker(), []

    async def speaker():
        talk.add("stdout", b"one\n")
        await turns()
        talk.add("stderr", b"two")

    async def say(data, stream):
        heard.append((stream, data))

    assert not await run_talk(talk, speaker(), say, timeout_s=5)
    assert heard == [("stdout", b"one\n"), ("stderr", b"two")]


async def test_what_cannot_be_said_in_the_time_and_a_moment_after_stays_in_the_talk(monkeypatch):
    monkeypatch.setattr(_talk, "LAST_WORDS_S", 0.05)
    talk = Chunker()

    async def speaker():
        talk.add("stdout", b"one\n")
        talk.add("stderr", b"two\n")
        await asyncio.Event().wait()

    async def say(data, stream):
        await asyncio.Event().wait()

    assert await run_talk(talk, speaker(), say, timeout_s=0.05)
    assert talk.rest() == {"stdout": b"one\n", "stderr": b"two\n"}


@pytest.mark.parametrize("who", ["speaker", "listener"])
async def test_what_either_side_raises_ends_both(who):
    talk, ended = Chunker(), []

    async def speaker():
        talk.add("stdout", b"one\n")
        if who == "speaker":
            raise OSError("broken")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("speaker")

    async def say(data, stream):
        if who == "listener":
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await run_talk(talk, speaker(), say, timeout_s=5)
    assert ended == ([] if who == "speaker" else ["speaker"])


async def test_cancellation_ends_both():
    talk, ended = Chunker(), []
    begun = asyncio.Semaphore(0)

    async def forever(*_):
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    talk.add("stdout", b"x\n")
    running = asyncio.create_task(run_talk(talk, forever(), forever, timeout_s=5))
    for _ in ("speaker", "listener"):
        await begun.acquire()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == [1, 1]
