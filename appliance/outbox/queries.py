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
class Page:
    """Records that were asked for; `looked_at` counts the entries that they answer, damaged ones included."""

    records: list[OutboxRecord]
    damaged: int
    looked_at: int


def find_waiting(database: Database) -> dict[LaneKey, tuple[list[int], list[int]]]:
    """Ids and places of all that waits, by lane."""
    found: dict[LaneKey, tuple[list[int], list[int]]] = {}
    rows = database.connection.execute(
        "SELECT l.node, l.subject, o.id FROM outbox AS o JOIN lanes AS l ON l.no = o.lane ORDER BY o.id"
    )
    for node, subject, number in rows:
        ids, places = found.setdefault((NodeName(node), Subject(subject)), ([], []))
        ids.append(number)
        places.append(number)
    return found


def read_records(
    database: Database, entries: Sequence[tuple[int, int]], max_bytes: int = 1 << 62
) -> Page:
    """Read records by id and place; damaged ones become dead letters on the way."""
    page = Page([], 0, 0)
    damaged: list[int] = []
    size_bytes = 0
    cursor = database.connection.execute(
        f"SELECT {_OUTBOX_ROW} FROM outbox AS o CROSS JOIN lanes AS l"
        " WHERE o.id IN (SELECT value FROM json_each(?)) AND l.no = o.lane ORDER BY o.id",
        (pack([number for number, _ in entries]).decode(),),
    )
    last = 0
    with contextlib.closing(cursor):
        for row in cursor:
            if size_bytes >= max_bytes:
                break
            last = row[0]
            try:
                record = read_outbox_row(row)
            except RowDamaged:
                damaged.append(row[0])
                continue
            page.records.append(record)
            size_bytes += len(record.payload)
        else:
            last = 1 << 63
    page.looked_at = sum(1 for number, _ in entries if number <= last)
    if damaged:
        page.damaged = _set_aside(database, damaged)
    return page


def rename(database: Database, entries: Sequence[tuple[int, int]], key: LaneKey) -> dict[int, int]:
    """Give records another lane; by id their places afterwards."""
    moved: dict[int, int] = {}
    node, subject = key
    execute = database.connection.execute
    records = read_records(database, entries).records
    with database.transaction():
        execute("INSERT OR IGNORE INTO lanes(node, subject) VALUES (?, ?)", key)
        lane = execute("SELECT no FROM lanes WHERE node = ? AND subject = ?", key).fetchone()[0]
        for record in records:
            head = outbox_head(record)
            crc = outbox_crc(record.id, node, subject, head, record.payload)
            execute("UPDATE outbox SET lane = ?, crc = ? WHERE id = ?", (lane, crc, record.id))
            moved[record.id] = record.id
    database.lanes[node, subject] = lane
    database.next_lane = max(database.next_lane, lane + 1)
    return moved


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


def claim_inbox(database: Database, node: str, subject: str, new_id: int) -> list[InboxRow]:
    """What the inbox holds for one worker, oldest first; damaged rows become dead letters.

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


def list_inbox(database: Database, limit: int) -> list[InboxRow]:
    """The oldest rows."""
    rows = database.connection.execute(
        "SELECT row_id, head, payload, crc, started, note FROM inbox ORDER BY row_id LIMIT ?",
        (limit,),
    ).fetchall()
    found: list[InboxRow] = []
    for row in rows:
        with contextlib.suppress(RowDamaged):
            found.append(read_inbox_row(row))
    return found


def drop_inbox(database: Database, row_ids: Sequence[int] | None) -> int:
    """Forget rows; their ids stay remembered as refused."""
    where = "" if row_ids is None else " WHERE row_id IN (SELECT value FROM json_each(?))"
    values = () if row_ids is None else (pack(list(row_ids)).decode(),)
    with database.transaction():
        database.connection.execute(
            "UPDATE seen SET row_id = NULL, verdict = 'refused: dropped by an operator'"
            f" WHERE row_id IN (SELECT row_id FROM inbox{where})",
            values,
        )
        return database.connection.execute(f"DELETE FROM inbox{where}", values).rowcount


def list_dead(database: Database, limit: int) -> list[DeadLetter]:
    """The oldest dead letters."""
    rows = database.connection.execute(
        f"SELECT {_DEAD_ROW} FROM dead AS d JOIN lanes AS l ON l.no = d.lane"
        " ORDER BY d.died_at, d.id LIMIT ?",
        (limit,),
    ).fetchall()
    return [read_dead_row(row) for row in rows]


@dataclass(slots=True)
class Revived:
    """Records that wait again; `last_id` is where to go on, None when that was all."""

    records: list[OutboxRecord]
    last_id: int | None


def retry_dead(
    database: Database, *, ids: Sequence[int] | None, after_id: int, limit: int, now: float
) -> Revived:
    """Make dead letters waiting records again, with fresh tries and a fresh lifetime; damaged ones stay."""
    wanted = [row[0] for row in _matching(database, "dead", ids) if row[0] > after_id]
    chosen = wanted[:limit]
    revived = Revived([], chosen[-1] if len(wanted) > limit else None)
    with database.transaction():
        rows = database.connection.execute(
            f"SELECT {_DEAD_ROW}, d.lane FROM dead AS d JOIN lanes AS l ON l.no = d.lane"
            " WHERE d.id IN (SELECT value FROM json_each(?)) ORDER BY d.id",
            (pack(chosen).decode(),),
        ).fetchall()
        for *row, _reason, _died_at, lane in rows:
            try:
                record = read_outbox_row(tuple(row))
            except RowDamaged:
                continue
            _revive(database, record, lane, now)
            revived.records.append(record)
    database.dead_count -= len(revived.records)
    return revived


def _revive(database: Database, record: OutboxRecord, lane: int, now: float) -> None:
    if record.expires_at is not None:
        record.expires_at = now + max(0.0, record.expires_at - record.created_at)
    record.attempts, record.sends, record.next_at = 0, 0, 0.0
    record.last_error = record.taker = ""
    record.attempt += 1
    head = outbox_head(record)
    crc = outbox_crc(record.id, record.node, record.subject, head, record.payload)
    database.connection.execute(
        "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, NULL)",
        (record.id, lane, head, record.payload, crc),
    )
    database.connection.execute("DELETE FROM dead WHERE id = ?", (record.id,))


def drop_dead(database: Database, ids: Sequence[int] | None) -> int:
    """Delete dead letters; how many."""
    with database.transaction():
        dead = [row[0] for row in _matching(database, "dead", ids)]
        _delete(database, "dead", dead)
    database.dead_count -= len(dead)
    return len(dead)


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
