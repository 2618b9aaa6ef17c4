"""Whoever enters how much in the audit trail: entries stay for their time, others have their room, counts are right."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.audit import Head, line_size, make_line
from appliance.core.audit_room import (
    CROWD_SHARE,
    MAX_NAMES,
    MAX_SENDERS,
    MAX_SUMS,
    SUM_EVERY_S,
    AuditRoom,
    Bounds,
    Crowd,
    Sender,
)

BOUNDS = Bounds(200_000, 1_000.0)
MALLORY, BOB = Sender(Crowd.NODES, "mallory"), Sender(Crowd.NODES, "bob")


def facts(number: object = 0, by: str = "node mallory", **what: Any) -> dict[str, Any]:
    what = {"program": str(number), "job": str(random.random()), **what}
    return {"at": "t", "by": by, "asked": "REQCliCommand", "what": what, "outcome": "done"}


class Trail:
    """What a room lets into a trail, with when and whose it is."""

    def __init__(self, left: dict[str, float] | None = None, now: float = 0.0) -> None:
        self.room = AuditRoom(left or {}, now)
        self.entries: list[tuple[float, Sender, dict[str, Any]]] = []

    def ask(self, sender: Sender, entry: dict[str, Any], now: float) -> bool:
        if self.room.may_enter(sender, entry, line_size(entry), now, BOUNDS):
            self.entries.append((now, sender, entry))
            return True
        self.room.sum_up(sender, entry, now)
        return False

    def pass_time(self, now: float, **options: bool) -> None:
        for sender, entry in self.room.take_due(now, BOUNDS, line_size, **options):
            self.entries.append((now, sender, dict(entry)))

    def told(self) -> int:
        """How many entries the trail tells of, one by one or by sums."""
        return sum(
            what.get("summed", what.get("counted", 1))
            for what in (entry["what"] for _, _, entry in self.entries)
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), senders=st.integers(1, 12))
def test_in_the_time_that_entries_stay_no_crowd_enters_more_than_its_share(
    seed: int, senders: int
) -> None:
    rng = random.Random(seed)
    trail, now = Trail(), 0.0
    crowd = [Sender(Crowd.NODES, f"n{number}") for number in range(senders)]
    for _ in range(1_500):
        now += rng.choice((0.0, 0.0, 0.0, 1.0, 20.0))
        trail.ask(rng.choice(crowd), facts(rng.choice((0, rng.random()))), now)
        trail.pass_time(now)
    sizes = [(at, line_size(entry)) for at, _, entry in trail.entries]
    for start, _ in sizes[:: max(1, len(sizes) // 40)]:
        within = sum(size for at, size in sizes if start <= at <= start + BOUNDS.keep_s)
        assert within <= BOUNDS.total_bytes * CROWD_SHARE


def test_a_flood_of_one_sender_has_nothing_of_another_summed_up() -> None:
    trail = Trail()
    for step in range(3_000):
        trail.ask(MALLORY, facts(step % 7 and step), step * 0.1)
        trail.pass_time(step * 0.1)
        if step % 300 == 0:
            assert trail.ask(BOB, facts("uptime", "node bob"), step * 0.1)
    assert trail.room.summing == ["node mallory"]


def test_what_is_new_is_entered_in_the_midst_of_a_flood_of_repeats() -> None:
    trail = Trail()
    for step in range(2_000):
        trail.ask(MALLORY, facts("echo"), step * 0.01)
    assert not trail.ask(MALLORY, facts("echo"), 20.0)
    assert trail.ask(MALLORY, facts("rm"), 20.0)
    assert not trail.ask(MALLORY, facts("rm"), 20.0), "again it is a repeat"


def test_a_flood_of_what_is_refused_hides_nothing_that_is_done_after_it() -> None:
    trail = Trail()
    for step in range(5_000):
        trail.ask(MALLORY, {**facts(step), "outcome": "refused"}, step * 0.01)
    assert trail.ask(MALLORY, facts("rm"), 50.0)
    assert trail.ask(MALLORY, {**facts("rm"), "outcome": "begun"}, 50.0)
    for status, is_entered in ((422, False), (202, True)):
        assert trail.ask(MALLORY, {**facts("send"), "outcome": status}, 50.0) is is_entered
    while trail.ask(MALLORY, facts(random.random()), 50.0):
        pass
    before = trail.room.unnamed
    for step in range(20):
        trail.ask(MALLORY, facts(f"more-{step}"), 51.0)
    assert trail.room.unnamed == before, "beyond it there are sums for what was done"


def test_what_was_entered_before_a_flood_and_what_is_summed_up_is_told_to_the_last_one() -> None:
    trail, asked, unnamed = Trail(), 0, 0
    for step in range(5_000):
        asked += 1
        trail.ask(MALLORY, facts(step if step % 2 else "echo"), step * 0.3)
        trail.pass_time(step * 0.3)
    assert trail.entries[0][2]["what"]["program"] == "echo"
    trail.pass_time(2_000.0, of_every_age=True)
    untold = trail.room.take_untold("t")
    trail.entries += [(0.0, MALLORY, dict(entry)) for entry in untold]
    assert trail.told() == asked
    assert not trail.room.has_sums or not trail.room.take_untold("t")
    counted = [entry["what"] for _, _, entry in trail.entries if "among" in entry["what"]]
    assert counted
    assert all(len(what["among"]) <= MAX_NAMES for what in counted)
    assert trail.room.unnamed > unnamed


def test_sums_say_what_when_and_how_often_and_nothing_of_jobs() -> None:
    trail = Trail()
    while trail.ask(MALLORY, facts("echo"), 0.0):
        pass
    trail.ask(MALLORY, {**facts("echo"), "at": "later"}, 1.0)
    trail.pass_time(SUM_EVERY_S - 1)
    assert not any("summed" in entry["what"] for _, _, entry in trail.entries)
    trail.pass_time(SUM_EVERY_S)
    _, _, entry = trail.entries[-1]
    what = {"program": "echo", "summed": 2, "since": "t", "until": "later"}
    told = {"by": "node mallory", "asked": "REQCliCommand", "what": what, "outcome": "done"}
    assert entry == told
    assert not trail.room.has_sums


def test_who_comes_back_after_a_restart_has_what_he_had_left() -> None:
    trail = Trail()
    for _ in range(1_000):
        trail.ask(MALLORY, facts("echo"), 0.0)
    again = Trail(trail.room.left(0.0, BOUNDS))
    entered = sum(again.ask(MALLORY, facts("echo"), 0.0) for _ in range(1_000))
    assert entered <= 1, "new to the new run, and no more"
    assert again.ask(BOB, facts("echo"), 0.0)
    # in half the time half of it is back
    later = {name: part + 0.5 for name, part in trail.room.left(0.0, BOUNDS).items()}
    assert sum(Trail(later).ask(MALLORY, facts("echo"), 0.0) for _ in range(3)) == 3


def test_however_many_there_are_what_is_remembered_of_them_is_bounded() -> None:
    trail, asked = Trail(), 0
    for number in range(3 * MAX_SENDERS):
        for step in range(4):
            asked += 1
            trail.ask(Sender(Crowd.NODES, f"n{number}"), facts(step), 0.0)
    for step in range(3 * MAX_SUMS):
        asked += 1
        trail.ask(MALLORY, facts(step), 0.0)
    assert len(trail.room._senders) <= MAX_SENDERS + 2
    assert sum(len(its.sums) for its in trail.room._senders.values()) <= 1_024
    trail.pass_time(0.0, of_every_age=True)
    untold = trail.room.take_untold("t")
    assert len(untold) == 1
    trail.entries += [(0.0, MALLORY, dict(entry)) for entry in untold]
    assert trail.told() == asked


def test_the_size_of_a_line_is_known_before_it_is_one() -> None:
    for text in ("", "x" * 300, "ü" * 100, "\x1b[2J", "\udcef" * 50, "𝄞" * 20):
        entry = {**facts(), "what": {"path": text}}
        line, _ = make_line(Head(10**9, "f" * 64), entry)
        assert len(line) + 1 <= line_size(entry) + 5 * text.count("\x1b")
