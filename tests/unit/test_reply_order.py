"""Pieces of one answer are told in their order, whichever of them is handled first."""

import pytest

from appliance.core.message import Message
from appliance.core.specs import AckOn
from appliance.dialect.headers import NOBODY, TURN_HEADER
from appliance.dialect.spoken import make_dialect
from appliance.wire.headers import encode_headers
from appliance.workers.incoming import Incoming
from appliance.workers.reply_writer import ReplyOrder


def make_work(turn, sender="ship1", is_reply=True):
    headers = {TURN_HEADER: turn} if turn else {}
    message = Message(from_node=sender, is_reply=is_reply)
    block = encode_headers(headers) if headers else b""
    return Incoming(message, NOBODY, AckOn.RECEIVED, None, b"", block, "", make_dialect())


@pytest.fixture
def told():
    return []


@pytest.fixture
def turns(told):
    return ReplyOrder(told.append)


def take(turns, *works):
    for work in works:
        turns.enter(work)


def finish(turns, work, *, is_told=True):
    if is_told:
        turns.say(work)
    turns.leave(work)


def test_a_later_piece_waits_for_an_earlier_one(turns, told):
    first, second, last = works = [make_work(f"s.{number}") for number in (1, 2, 3)]
    take(turns, *works)
    finish(turns, last)
    finish(turns, first)
    assert told == [first]
    finish(turns, second)
    assert told == works


def test_a_piece_that_failed_holds_up_nobody(turns, told):
    first, second = make_work("s.1"), make_work("s.2")
    take(turns, first, second)
    finish(turns, second)
    finish(turns, first, is_told=False)
    assert told == [second]


@pytest.mark.parametrize(
    "other",
    [make_work("t.1"), make_work("s.1", sender="ship2"), make_work(""), make_work("s.9", is_reply=False)],
    ids=["another answer", "another sender", "no piece", "no reply"],
)  # fmt: skip
def test_what_is_no_piece_of_the_same_answer_waits_for_nothing(turns, told, other):
    take(turns, make_work("s.1"), other)
    finish(turns, other)
    assert told == [other]


def test_nothing_is_remembered_when_all_has_ended(turns):
    works = [make_work(f"s.{number}") for number in range(5)]
    take(turns, *works)
    for work in reversed(works):
        finish(turns, work)
    assert not any((turns._streams, turns._said, turns._ended))
