"""The rarer work on the database: reading lanes and the inbox, operators' commands, pruning.

All functions run on the writer's thread, between batches.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.core.names import NodeName, Subject
from appliance.outbox.database import Database
from appliance.outbox.records import DeadLetter, InboxRow, LaneKey, OutboxRecord
from appliance.outbox.rows import (
    RowDamaged,
    outbox_crc,
    outbox_head,
    pack,
    read_dead_row,
    read_inbox_row,
    read_outbox_row,
)

MOVE_SLICE = 500
VACUUM_PAGES = 512

_OUTBOX_ROW = "o.id, l.node, l.subject, o.head, o.payload, o.crc, o.tries"
_DEAD_ROW = "d.id, l.node, l.subject, d.head, d.payload, d.crc, d.tries, d.reason, d.died_at"


@dataclass(slots=True)
class LanePage:
    """Some records of a lane in order of id. `last_id` is the last row looked at, damaged or not."""

    records: list[OutboxRecord]
    damaged: int
    last_id: int
    is_end: bool


def count_lanes(database: Database) -> dict[LaneKey, tuple[int, int]]:
    """How many records wait in each lane, and the smallest id."""
    rows = database.connection.execute(
        "SELECT l.node, l.subject, count(*), min(o.id) FROM outbox AS o"
        " JOIN lanes AS l ON l.no = o.lane GROUP BY o.lane"
    )
    return {
        (NodeName(node), Subject(subject)): (count, lowest)
        for node, subject, count, lowest in rows.fetchall()
    }


def read_lane(
    database: Database, key: LaneKey, after_id: int, max_records: int, max_bytes: int
) -> LanePage:
    """Read on in a lane; damaged rows become dead letters on the way."""
    page = LanePage([], 0, after_id, True)
    lane = database.lanes.get(key)
    if lane is None:
        return page
    damaged: list[int] = []
    size_bytes = 0
    cursor = database.connection.execute(
        f"SELECT {_OUTBOX_ROW} FROM outbox AS o CROSS JOIN lanes AS l"
        " WHERE o.lane = ? AND o.id > ? AND l.no = o.lane ORDER BY o.id",
        (lane, after_id),
    )
    with contextlib.closing(cursor):
        for row in cursor:
            if len(page.records) >= max_records or size_bytes >= max_bytes:
                page.is_end = False
                break
            page.last_id = row[0]
            try:
                record = read_outbox_row(row)
            except RowDamaged:
                damaged.append(row[0])
                continue
            page.records.append(record)
            size_bytes += len(record.payload)
    if damaged:
        page.damaged = _set_aside(database, damaged)
    return page


def _set_aside(database: Database, ids: Sequence[int]) -> int:
    with database.transaction():
        moved = database.connection.execute(
            "INSERT OR IGNORE INTO dead SELECT id, lane, head, payload, crc, tries,"
            " 'damaged: checksum mismatch', ? FROM outbox"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (time.time(), pack(ids).decode()),
        ).rowcount
        database.connection.execute(
            "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))", (pack(ids).decode(),)
        )
    database.dead_count += moved
    return len(ids)


def read_unfinished(database: Database, node: str, subject: str, new_id: int) -> list[InboxRow]:
    """What the inbox holds for one subscriber, oldest first; damaged rows become dead letters.

    `new_id` is the first of as many ids as there are rows, for those dead letters.
    """
    rows = database.connection.execute(
        "SELECT row_id, head, payload, crc, started, note FROM inbox"
        " WHERE node = ? AND subject = ? ORDER BY row_id",
        (node, subject),
    ).fetchall()
    found: list[InboxRow] = []
    for row in rows:
        try:
            found.append(read_inbox_row(row))
        except RowDamaged as error:
            _bury_inbox_row(database, node, subject, row, new_id, str(error))
            new_id += 1
    return found


def _bury_inbox_row(
    database: Database, node: str, subject: str, row: Sequence[Any], new_id: int, reason: str
) -> None:
    row_id, head, payload = row[:3]
    execute = database.connection.execute
    with database.transaction():
        execute("INSERT OR IGNORE INTO lanes(node, subject) VALUES (?, ?)", (node, subject))
        lane = execute(
            "SELECT no FROM lanes WHERE node = ? AND subject = ?", (node, subject)
        ).fetchone()[0]
        execute(
            "INSERT INTO dead VALUES (?, ?, ?, ?, 0, NULL, ?, ?)",
            (new_id, lane, head, payload, f"{reason}, received and not yet handled", time.time()),
        )
        execute("UPDATE seen SET row_id = NULL WHERE row_id = ?", (row_id,))
        execute("DELETE FROM inbox WHERE row_id = ?", (row_id,))
    database.lanes[node, subject] = lane
    database.next_lane = max(database.next_lane, lane + 1)
    database.last_id = max(database.last_id, new_id)
    database.dead_count += 1


def list_pending(database: Database, limit: int) -> list[OutboxRecord]:
    """The oldest records that wait; damaged ones are left out, they surface when their lane is
    read.
    """
    rows = database.connection.execute(
        f"SELECT {_OUTBOX_ROW} FROM outbox AS o JOIN lanes AS l ON l.no = o.lane"
        " ORDER BY o.id LIMIT ?",
        (limit,),
    ).fetchall()
    records: list[OutboxRecord] = []
    for row in rows:
        with contextlib.suppress(RowDamaged):
            records.append(read_outbox_row(row))
    return records


def list_dead(database: Database, limit: int) -> list[DeadLetter]:
    """The oldest dead letters."""
    rows = database.connection.execute(
        f"SELECT {_DEAD_ROW} FROM dead AS d JOIN lanes AS l ON l.no = d.lane"
        " ORDER BY d.died_at, d.id LIMIT ?",
        (limit,),
    ).fetchall()
    return [read_dead_row(row) for row in rows]


def retry_dead(
    database: Database, ids: Sequence[int] | None, now: float
) -> dict[LaneKey, list[int]]:
    """Put dead letters back into their lanes with fresh tries and a fresh lifetime; damaged ones
    stay.
    """
    wanted = [row[0] for row in _matching(database, "dead", ids)]
    moved: dict[LaneKey, list[int]] = {}
    for first in range(0, len(wanted), MOVE_SLICE):
        chosen = pack(wanted[first : first + MOVE_SLICE]).decode()
        with database.transaction():
            rows = database.connection.execute(
                f"SELECT {_DEAD_ROW}, d.lane FROM dead AS d JOIN lanes AS l ON l.no = d.lane"
                " WHERE d.id IN (SELECT value FROM json_each(?)) ORDER BY d.id",
                (chosen,),
            ).fetchall()
            for *row, _reason, _died_at, lane in rows:
                try:
                    record = read_outbox_row(tuple(row))
                except RowDamaged:
                    continue
                _revive(database, record, lane, now)
                moved.setdefault(record.lane_key, []).append(record.id)
    database.dead_count -= sum(map(len, moved.values()))
    return moved


def _revive(database: Database, record: OutboxRecord, lane: int, now: float) -> None:
    if record.expires_at is not None:
        record.expires_at = now + max(0.0, record.expires_at - record.created_at)
    head = outbox_head(record)
    crc = outbox_crc(record.id, record.node, record.subject, head, record.payload)
    database.connection.execute(
        "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, NULL)",
        (record.id, lane, head, record.payload, crc),
    )
    database.connection.execute("DELETE FROM dead WHERE id = ?", (record.id,))


def drop(
    database: Database, ids: Sequence[int] | None, *, dead_only: bool
) -> tuple[int, dict[LaneKey, list[int]]]:
    """Delete dead letters, and with `dead_only` off waiting records too; which of those, by lane."""
    dropped: dict[LaneKey, list[int]] = {}
    with database.transaction():
        dead = [row[0] for row in _matching(database, "dead", ids)]
        _delete(database, "dead", dead)
        if not dead_only:
            names = {number: key for key, number in database.lanes.items()}
            waiting = _matching(database, "outbox", ids)
            _delete(database, "outbox", [row[0] for row in waiting])
            for number, lane in waiting:
                node, subject = names[lane]
                dropped.setdefault((NodeName(node), Subject(subject)), []).append(number)
    database.dead_count -= len(dead)
    return len(dead) + sum(map(len, dropped.values())), dropped


def _matching(database: Database, table: str, ids: Sequence[int] | None) -> list[tuple[int, int]]:
    if ids is None:
        return database.connection.execute(f"SELECT id, lane FROM {table} ORDER BY id").fetchall()
    return database.connection.execute(
        f"SELECT id, lane FROM {table} WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (pack(list(ids)).decode(),),
    ).fetchall()


def _delete(database: Database, table: str, ids: Sequence[int]) -> None:
    database.connection.execute(
        f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))",
        (pack(ids).decode(),),
    )


def give_back_space(database: Database, *, urgently: bool) -> None:
    """Shrink the file a little when much of it is unused; `urgently` by all of that, and the log too."""
    free = database.connection.execute("PRAGMA freelist_count").fetchone()[0]
    if not urgently:
        if free > 4 * VACUUM_PAGES:
            database.connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        return
    step = VACUUM_PAGES // 8  # the log grows by about as much before it is folded again
    for _ in range(0, free, step):
        database.connection.execute(f"PRAGMA incremental_vacuum({step})").fetchall()
        database.fold_log()
