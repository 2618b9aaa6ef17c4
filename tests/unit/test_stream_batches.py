"""Which lists of messages go to a stream as a batch, and what its answers say."""

import json

import pytest

from appliance.bus.base import BusMessage
from appliance.bus.batches import (
    ALONE_FIRST,
    FORGOTTEN_S,
    LEAST,
    MOST_BYTES,
    UNDER_WAY,
    Batches,
)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def frames(name, count=LEAST):
    return [("a.b", f"{name}.{at}", b"NATS/1.0\r\nx: 1\r\n\r\n", b"") for at in range(count)]


MAX_PAYLOAD = 10_000


def prepare(batches, some):
    return batches.prepare(some, MAX_PAYLOAD)


def is_batch(sent):
    return b"Nats-Batch-Id: " in sent[0][2]


def puback(reply_to, **fields):
    return BusMessage(reply_to, json.dumps({"stream": "S", "seq": 100, **fields}).encode())


def go(batches, clock, name, *, alone_s, together_s):
    """One list, answered after a time that depends on how it went."""
    sent = prepare(batches, frames(name))
    last = f"{name}.{LEAST - 1}"
    clock.now += together_s if is_batch(sent) else alone_s
    batches.open(puback(last, count=LEAST) if is_batch(sent) else puback(last))
    return is_batch(sent)


@pytest.mark.parametrize(("alone_s", "together_s"), [(1.0, 0.1), (0.1, 1.0)])
def test_both_ways_are_tried_and_the_faster_one_is_taken(clock, alone_s, together_s):
    batches = Batches(clock)
    went = [
        go(batches, clock, str(number), alone_s=alone_s, together_s=together_s)
        for number in range(20)
    ]
    assert set(went[:2]) == {False, True}
    assert set(went[2:]) == {together_s < alone_s}


def test_few_go_alone_and_the_stream_answers_a_batch_once_for_all_of_it(clock):
    batches = Batches(clock)
    assert prepare(batches, few := frames("f", LEAST - 1)) is few
    assert not is_batch(prepare(batches, frames("a")))
    sent = prepare(batches, frames("b"))
    assert is_batch(sent)
    assert [reply_to for _, reply_to, _, _ in sent if reply_to] == [f"b.{LEAST - 1}"]
    assert b"Nats-Batch-Commit: 1\r\n\r\n" in sent[-1][2]
    said, alone = batches.open(puback(f"b.{LEAST - 1}", count=LEAST, batch="x"))
    assert alone == ()
    assert [json.loads(one.payload)["seq"] for one in said] == list(range(101 - LEAST, 101))
    assert [one.subject for one in said] == [f"b.{at}" for at in range(LEAST)]


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"err_code": 10201, "description": "duplicate"}},
        {},  # of a broker that knows no batches
        {"count": LEAST - 1},
        {"count": LEAST, "seq": LEAST - 1},
        {"count": LEAST, "seq": -(2**63)},
        {"count": LEAST, "seq": 10**400},
    ],
)
def test_a_batch_that_is_refused_is_to_be_sent_alone_and_so_are_others_for_a_while(clock, answer):
    batches = Batches(clock)
    prepare(batches, frames("a"))
    prepare(batches, whole := frames("b"))
    said, alone = batches.open(puback(f"b.{LEAST - 1}", **answer))
    assert (said, alone) == ([], whole)
    batches.open(puback(f"a.{LEAST - 1}"))
    later = [is_batch(prepare(batches, frames(str(number)))) for number in range(ALONE_FIRST + 1)]
    assert set(later[:-1]) == {False}
    assert later[-1]


def test_what_is_never_answered_is_not_waited_for_without_end(clock):
    batches = Batches(clock)
    for number in range(4 * UNDER_WAY):
        prepare(batches, frames(str(number)))
    assert len(batches._under_way) <= UNDER_WAY
    clock.now += FORGOTTEN_S + 1
    prepare(batches, frames("new"))
    assert len(batches._under_way) <= UNDER_WAY
    assert f"new.{LEAST - 1}" in batches._under_way


@pytest.mark.parametrize("payload", [b"x" * (MAX_PAYLOAD - 50), b"x" * (MOST_BYTES // LEAST)])
def test_what_is_large_goes_alone(clock, payload):
    batches = Batches(clock)
    prepare(batches, frames("a"))
    large = [(subject, reply_to, block, payload) for subject, reply_to, block, _ in frames("b")]
    assert prepare(batches, large) is large
