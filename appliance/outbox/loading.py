"""What the log of commits says, read once at the start: what is live, which ids are known, what waits."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Sequence
from itertools import islice
from operator import gt
from typing import NamedTuple

from appliance.core.ages import Anchor
from appliance.core.names import NodeName, Subject
from appliance.outbox.blobs import SLOT_BITS, Damaged, Head, SeenKey, Verdict, decode_head
from appliance.outbox.dedupe import Block, Dedupe
from appliance.outbox.inbox import Inbox
from appliance.outbox.records import LaneKey
from appliance.outbox.segments import Segments
from appliance.outbox.steady import SteadyClock


class Found(NamedTuple):
    """What a start finds beside what the indexes in memory hold from then on."""

    last_id: int
    flushed_seq: int
    letters: tuple[int, int]
    """How many dead letters, and their bytes."""
    facts: dict[tuple[str, str], str]
    waiting: dict[LaneKey, tuple[array[int], array[int]]]
    """Ids and places by lane."""
    unreadable: list[int]
    """Rows of the log."""
    damage: str
    """In words."""


def load(
    connection: sqlite3.Connection,
    segments: Segments,
    inbox: Inbox,
    dedupe: Dedupe,
    clock: SteadyClock,
    marked: Anchor | None,
) -> Found:
    """Fill what is empty so far, and start the clock; `marked` is the moment that the mark knows."""
    _load_ids(connection, dedupe)
    heads, unreadable, damage = _load_heads(connection, segments)
    ledger = heads[-1].ledger if heads else None
    anchors = [one for one in (ledger and ledger.anchor, marked) if one is not None]
    clock.start(max(anchors, key=lambda one: one.steady, default=None))
    flushed_seq = ledger.flushed_seq if ledger else 0
    _replay(heads, segments, inbox, dedupe, flushed_seq)
    facts = connection.execute("SELECT kind, key, value FROM facts")
    count, size_bytes, highest = connection.execute(
        "SELECT count(*), ifnull(sum(length(body)), 0), ifnull(max(id), 0) FROM letters"
    ).fetchone()
    last_ids = [ledger.last_id if ledger else 0, highest]
    return Found(
        last_id=max(last_ids + [max(head.ids, default=0) for head in heads]),
        flushed_seq=flushed_seq,
        letters=(count, size_bytes),
        facts={(kind, key): value for kind, key, value in facts},
        waiting=_find_live(heads, segments, inbox),
        unreadable=unreadable,
        damage=damage,
    )


def _load_ids(connection: sqlite3.Connection, dedupe: Dedupe) -> None:
    by_number = {}
    for number, scope, sender, instance in connection.execute(
        "SELECT * FROM id_senders ORDER BY no"
    ):
        by_number[number] = dedupe.load_sender(number, (scope, sender, instance))
    for owner, *facts in connection.execute(
        "SELECT sender, no, low, high, count, oldest, newest, exceptions FROM id_blocks ORDER BY no"
    ):
        if owner in by_number:
            dedupe.load_block(by_number[owner], Block(*facts))


def _load_heads(
    connection: sqlite3.Connection, segments: Segments
) -> tuple[list[Head], list[int], str]:
    """The commits that can be read, rows of those that cannot, and what is damaged in words."""
    heads: list[Head] = []
    unreadable: list[int] = []
    damage = ""
    count = total = 0
    rows = connection.execute("SELECT seq, head, length(body) FROM log ORDER BY seq")
    for rowid, raw, body_size in rows:
        count += 1
        total += rowid
        try:
            head = decode_head(raw)
        except (Damaged, TypeError):
            unreadable.append(rowid)
            continue
        if (head.all_ends()[-1] if head.slots else 0) > body_size:
            damage = f"commit {rowid} is cut off"
        heads.append(head)
        segment = segments.add(
            head.ledger.seq,
            len(raw) + body_size,
            head.all_ends(),
            remembers=bool(head.seen_ids) and head.ledger.seq > 0,
        )
        if segment.rowid != rowid:
            segments.seq_sum += rowid - segment.rowid
            segment.rowid = rowid
    for rowid in unreadable:
        damage = f"commit {rowid} cannot be read: what it held is lost"
    if heads and not unreadable:
        ledger = heads[-1].ledger
        if (ledger.rows_after, ledger.sum_after) != (count, total & (1 << 64) - 1):
            damage = f"the log holds {count} commits where it should hold {ledger.rows_after}"
    return heads, unreadable, damage


def _replay(
    heads: Sequence[Head], segments: Segments, inbox: Inbox, dedupe: Dedupe, flushed_seq: int
) -> None:
    """Do again what the commits said of messages and ids."""
    # first: ids up to there are in blocks, and their commits are not held for them
    segments.flushed(flushed_seq)
    for head in heads:
        ledger, misc = head.ledger, head.misc
        segment = segments.by_seq[ledger.seq]
        first = ledger.seq << SLOT_BITS | len(head.ids)
        for at, row_id in enumerate(head.row_ids):
            scope = head.shapes[head.row_shape_of[at]][0]
            # live or not: what is said of it later in the log must find it
            inbox.load(row_id, first + at, scope)
        noted = [*head.settled, *[place for place, _ in misc.tries]]
        noted += [inbox.places.get(row_id, 0) for row_id in misc.started]
        noted += [inbox.places.get(row_id, 0) for row_id, _ in misc.notes]
        segments.note(segment, noted)
        segments.settle(head.settled)
        for place, tries in misc.tries:
            if segments.is_live(place):
                segments.tries[place] = tries
        inbox.mark(misc.started, misc.notes)
        # those before are in blocks, which were loaded already
        if head.seen_ids and ledger.seq > flushed_seq:
            for key, ids in _seen_of(head).items():
                dedupe.learn(key, ids, ledger.anchor.steady)
        segments.check_free(segment)
    # only now: whether a row lives is known when the whole log was seen
    inbox.drop_settled(segments)


def _find_live(
    heads: Sequence[Head], segments: Segments, inbox: Inbox
) -> dict[LaneKey, tuple[array[int], array[int]]]:
    """What waits, by lane; what the inbox has in hand is told to it."""
    lanes: dict[LaneKey, tuple[array[int], array[int]]] = {}
    for head in heads:
        segment = segments.by_seq[head.ledger.seq]
        if not segment.live:
            continue
        base = head.ledger.seq << SLOT_BITS
        columns: dict[int, tuple[array[int], array[int]]] = {}
        state, shape_of, ids = segment.state, head.shape_of, head.ids
        for slot in range(len(ids)):
            if state[slot]:
                number = shape_of[slot]
                column = columns.get(number)
                if column is None:
                    shape = head.shapes[number]
                    lane = (NodeName(shape[0]), Subject(shape[1]))
                    column = columns[number] = lanes.setdefault(lane, (array("Q"), array("Q")))
                column[0].append(ids[slot])
                column[1].append(base | slot)
        rows = head.row_ids
        for at in range(len(rows)):
            if state[len(ids) + at]:
                scope, sender, instance, *_ = head.shapes[head.row_shape_of[at]]
                if instance is not None:
                    key = (scope, sender, instance)
                    inbox.load_unfinished(rows[at], key, head.message_ids[at])
    for lane, (numbers, places) in lanes.items():
        if any(map(gt, numbers, islice(numbers, 1, None))):  # commits out of order, or moved ones
            order = sorted(range(len(numbers)), key=numbers.__getitem__)
            lanes[lane] = (
                array("Q", [numbers[at] for at in order]),
                array("Q", [places[at] for at in order]),
            )
    return lanes


def _seen_of(head: Head) -> dict[SeenKey, dict[int, Verdict | None]]:
    """The ids that a commit remembers."""
    found: list[dict[int, Verdict | None]] = []
    keyed: dict[SeenKey, dict[int, Verdict | None]] = {}
    at = 0
    for number, count in head.seen_groups:
        ids: dict[int, Verdict | None] = dict.fromkeys(head.seen_ids[at : at + count])
        at += count
        found.append(ids)
        scope, sender, instance = head.shapes[number]
        keyed[scope, sender, instance] = ids
    for group, message_id, attempt, verdict in head.misc.verdicts:
        found[group][message_id] = (attempt, verdict)
    return keyed
