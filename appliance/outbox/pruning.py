"""Forgetting what is too old, a slice at a time. Runs on the writer's thread, between batches.

A slice is one commit, whatever it is of: with a commit for each sender, ten thousand senders whose memory ends at the
same hour would keep everybody from the disk for minutes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, field

from appliance.outbox.database import Database

PRUNE_SLICE = 2_000
"""Rows that are deleted at once."""
SENDERS_AT_ONCE = 500
"""Senders that are looked at in one slice, in turn."""
MAX_SEEN = 2_000_000
"""Remembered message ids, about 25 bytes each. Beyond it the largest sender's oldest go early."""
DEAD_SLICE = 500


@dataclass(slots=True)
class _Slice:
    """What goes, to be told to the caches when it is committed."""

    room: int
    gone: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)


def prune(database: Database, now: float) -> bool:
    """Forget a slice; True when more may be waiting."""
    part = _Slice(PRUNE_SLICE)
    with database.transaction():
        _forget_ids(database, now, part)
        dead = _forget_dead(database, now)
    for number, count in part.gone.items():
        database.senders.forget_ids(number, count)
    for number in part.ended:
        database.senders.forget(number)
    database.dead_count -= dead
    return part.room <= 0 or dead == DEAD_SLICE


def _forget_ids(database: Database, now: float, part: _Slice) -> None:
    with contextlib.closing(_candidates(database, now)) as candidates:
        for number, before in candidates:
            if part.room <= 0:
                return
            _forget_oldest(database, number, before, part)


def _candidates(database: Database, now: float) -> Generator[tuple[int, int]]:
    """Senders, each with the time that its ids must be younger than to stay."""
    senders, too_many = database.senders, int(now) + 1
    if senders.counts and sum(senders.counts.values()) > MAX_SEEN:
        yield max(senders.counts, key=lambda number: senders.counts[number]), too_many
    for number in senders.crowded_out():
        yield number, too_many
    before = int(now - database.settings.dedupe_window_s)
    turn = senders.next_of_round(SENDERS_AT_ONCE)
    try:
        while turn:
            yield turn[0], before
            del turn[0]
    finally:
        senders.put_back(turn)


def _forget_oldest(database: Database, number: int, before: int, part: _Slice) -> None:
    """Ids grow with time, so the smallest ids of a sender are its oldest."""
    if number in part.ended:
        return
    execute = database.connection.execute
    oldest = "SELECT at FROM seen WHERE sender = ? ORDER BY id LIMIT 1"
    found = execute(oldest, (number,)).fetchone()
    if found is not None and found[0] < before:
        count = execute(
            "DELETE FROM seen WHERE sender = ? AND at < ? AND row_id IS NULL"
            " AND id IN (SELECT id FROM seen WHERE sender = ? ORDER BY id LIMIT ?)",
            (number, before, number, part.room),
        ).rowcount
        part.room -= count
        part.gone[number] = part.gone.get(number, 0) + count
        found = execute(oldest, (number,)).fetchone()
    if found is None:
        # instances come and go with reinstalled peers: without this their list would only grow
        execute("DELETE FROM senders WHERE no = ?", (number,))
        part.room -= 1
        part.ended.add(number)


def _forget_dead(database: Database, now: float) -> int:
    return database.connection.execute(
        "DELETE FROM dead WHERE id IN"
        " (SELECT id FROM dead WHERE died_at < ? ORDER BY died_at LIMIT ?)",
        (now - database.settings.dead_letter_keep_s, DEAD_SLICE),
    ).rowcount
