"""How far what came of a stream is settled without a gap: whatever is told may be removed together with all between it."""

from __future__ import annotations

import random

import pytest

from appliance.core.streams import Receipt
from appliance.delivery import removal
from appliance.delivery.removal import Runs


def receipt(number: int, sequence: int, delivered: int = 1) -> Receipt:
    ack = f"$JS.ACK.S.C.{delivered}.{sequence}.{number}.{sequence}.0"
    return Receipt(ack, "S", delivered, sequence, True, number, sequence)


def came(runs: Runs, *receipts: Receipt, asking: int = 1) -> list[str]:
    for one in receipts:
        runs.came(one, asking)
    return [one.ack_subject for one in receipts]


def places(found: list[list[Receipt]]) -> list[list[int]]:
    return [[one.sequence for one in receipts] for receipts in found]


def test_what_is_settled_from_the_first_on_is_told_once():
    runs = Runs()
    acks = came(runs, *(receipt(at, 10 * at) for at in range(1, 6)))
    assert runs.settle(acks[1:3]) == []
    assert places(runs.settle(acks[:1])) == [[10, 20, 30]]
    assert runs.settle(acks[:3]) == []
    assert places(runs.settle(acks[3:])) == [[40, 50]]
    # the run goes on
    assert places(runs.settle(came(runs, receipt(6, 60)))) == [[60]]


@pytest.mark.parametrize(
    ("then", "asking"),
    [
        pytest.param(receipt(4, 50), 1, id="another daemon has the one between"),
        pytest.param(receipt(3, 50), 2, id="it came by another asking"),
        pytest.param(receipt(3, 15), 1, id="it stands before the last"),
        pytest.param(receipt(3, 20), 1, id="it is the last"),
    ],
)
def test_what_does_not_follow_the_last_is_told_for_itself(then, asking):
    runs = Runs()
    acks = came(runs, receipt(1, 10), receipt(2, 20))
    acks += came(runs, then, asking=asking)
    assert places(runs.settle(acks)) == [[10, 20], [then.sequence]]


@pytest.mark.parametrize(
    ("again", "asking"),
    [
        pytest.param(receipt(3, 30, delivered=2), 1, id="delivered again"),
        pytest.param(receipt(3, 30), 0, id="by nobody knows which asking"),
    ],
)
def test_what_may_have_been_in_other_hands_is_never_told(again, asking):
    runs = Runs()
    acks = came(runs, receipt(1, 10), receipt(2, 20))
    acks += came(runs, again, asking=asking)
    acks += came(runs, receipt(4, 40))
    assert places(runs.settle(acks)) == [[10, 20], [40]]


def test_a_later_run_waits_for_what_is_open_in_an_earlier_one():
    runs = Runs()
    acks = came(runs, receipt(1, 10), receipt(2, 20))
    acks += came(runs, receipt(5, 50), receipt(6, 60))
    assert places(runs.settle(acks[:1] + acks[2:])) == [[10]]
    assert places(runs.settle(acks[1:2])) == [[20], [50, 60]]


def test_nothing_is_told_of_what_was_forgotten():
    runs = Runs()
    acks = came(runs, receipt(1, 10), receipt(2, 20))
    runs.forget()
    acks += came(runs, receipt(3, 30))
    assert places(runs.settle(acks)) == [[30]]


def test_behind_one_that_takes_its_time_no_more_is_remembered_than_may_be(monkeypatch):
    monkeypatch.setattr(removal, "MAX_REMEMBERED", 100)
    runs = Runs()
    (slow,) = came(runs, receipt(1, 1))
    told = []
    for at in range(2, 1_000):
        told += places(runs.settle(came(runs, receipt(at, at))))
        assert runs._count <= 100
        assert len(runs._open) <= 100
    assert runs.settle([slow]) == []
    # after the slow one was forgotten, what came later is told; nothing before it is
    assert told
    assert told[0][0] > 100


@pytest.mark.parametrize("seed", range(100))
def test_between_the_first_and_the_last_that_are_told_nothing_is_in_other_hands(seed):
    """A consumer, by its rules, and two daemons of which one is looked at; its leader changes and forgets deliveries."""
    rng = random.Random(seed)
    runs = Runs()
    is_shared = rng.random() < 0.7
    number, place, asking = 0, 0, 1
    ours: dict[str, int] = {}
    settled: set[int] = set()
    stored: list[int] = []
    in_other_hands: list[int] = []
    for _ in range(400):
        what = rng.random()
        if what < 0.03:  # another leader, who knows less; who asked has to ask anew
            back = rng.randint(0, 5)
            number, asking = max(0, number - back), asking + 1
            at = max(0, len([one for one in stored if one <= place]) - rng.randint(0, back))
            place = stored[at - 1] if at else 0
        elif what < 0.04:
            asking += 1
        elif what < 0.1 and in_other_hands:  # delivered again, to us
            number += 1
            one = in_other_hands.pop(rng.randrange(len(in_other_hands)))
            again = receipt(number, one, delivered=2)
            runs.came(again, asking)
            ours[again.ack_subject] = one
        elif what < 0.8:
            following = next((one for one in stored if one > place), None)
            if following is None:
                following = (stored[-1] if stored else 0) + rng.choice((1, 1, 2, 5))
                stored.append(following)
            number, place = number + 1, following
            if is_shared and rng.random() < 0.2:
                in_other_hands.append(place)
            else:
                one = receipt(number, place)
                runs.came(one, rng.choice((asking, asking, asking, 0)))
                ours[one.ack_subject] = place
        elif ours:
            some = rng.sample(sorted(ours), min(len(ours), rng.randint(1, 20)))
            settled |= {ours[ack] for ack in some}
            for receipts in runs.settle(some):
                first, last = receipts[0].sequence, receipts[-1].sequence
                assert settled.issuperset(one for one in stored if first <= one <= last)
            for ack in some:
                del ours[ack]
