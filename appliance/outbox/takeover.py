"""Taking over a state directory of schema version 1, in one transaction: all of it, or it stays as it was.

Version 1 kept a row a message. Read here and nowhere else: its heads are JSON lists, its checksums CRC-32s over
everything that must not change, with those facts that do change sealed on their own.
"""

from __future__ import annotations

import sqlite3
import zlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from appliance.core.ages import Anchor
from appliance.errors import BusError
from appliance.outbox import schema
from appliance.outbox.blobs import Content, Ledger, encode_body, encode_head
from appliance.outbox.dedupe import BLOCK_IDS, seal_block
from appliance.outbox.letters import (
    DAMAGED_REASON,
    LetterRow,
    encode_letter,
    encode_remains,
)
from appliance.outbox.records import InboxRow, OutboxRecord
from appliance.outbox.texts import unpack, unseal
from appliance.wire.headers import encode_headers

COMMIT_COUNT = 256
COMMIT_BYTES = 1024 * 1024
"""Messages of one commit of the new log."""
UNBOUNDED_PAGES = 1 << 30
_STARTED = 0x5AFE57A7
_LETTER = "INSERT OR IGNORE INTO letters VALUES (?, ?, ?, ?, ?, ?)"
_OUTBOX = "o.id, l.node, l.subject, o.head, o.payload, o.crc, o.tries"


class _Damaged(Exception):
    """A row is not what was written."""


def take_over(connection: sqlite3.Connection, anchor: Anchor) -> None:
    """Write everything anew; the quota does not count meanwhile.

    Raises:
        sqlite3.Error: it did not work (no room, say); nothing has changed.
    """
    connection.execute(f"PRAGMA max_page_count={UNBOUNDED_PAGES}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in schema.TABLES.split(";"):
            connection.execute(statement)
        _Takeover(connection, anchor).run()
        for table in ("outbox", "dead", "lanes", "seen", "senders", "inbox", "tail"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class _Takeover:
    """One takeover, inside its transaction."""

    def __init__(self, connection: sqlite3.Connection, anchor: Anchor) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._anchor = anchor
        self._seq, self._last_id = self._execute("SELECT commits, last_id FROM tail").fetchone()
        self._rows = 0
        self._sum = 0

    def run(self) -> None:
        """Outbox, dead letters, remembered ids, inbox; at last a commit that holds nothing but the counts."""
        highest = self._execute(
            "SELECT max(ifnull((SELECT max(id) FROM outbox), 0),"
            " ifnull((SELECT max(id) FROM dead), 0))"
        ).fetchone()[0]
        self._last_id = max(self._last_id, highest)
        self._take_records()
        self._take_letters()
        self._take_ids()
        self._take_inbox()
        self._write(Content())

    def _write(self, content: Content) -> None:
        parts, columns, shapes, misc = encode_body(content, self._anchor.steady)
        self._seq += 1
        self._rows += 1
        self._sum = (self._sum + self._seq) & (1 << 64) - 1
        # NB: ids are in blocks already, hence none of these commits is needed for them
        ledger = Ledger(self._seq, self._last_id, self._seq, self._rows, self._sum, self._anchor)
        head = encode_head(columns, shapes, misc, ledger)
        self._execute(schema.APPEND, (self._seq, head, b"".join(parts)))

    def _take_records(self) -> None:
        cursor = self._connection.execute(
            f"SELECT {_OUTBOX} FROM outbox AS o JOIN lanes AS l ON l.no = o.lane ORDER BY o.id"
        )
        records: list[OutboxRecord] = []
        size_bytes = 0
        for row in cursor:
            try:
                record = _read_record(row)
            except _Damaged:
                self._bury(row)
                continue
            records.append(record)
            size_bytes += len(record.payload)
            # in commits of a bounded size: an old store may hold more than memory does
            if len(records) >= COMMIT_COUNT or size_bytes >= COMMIT_BYTES:
                self._write(Content(records=records, with_tries=True))
                records, size_bytes = [], 0
        if records:
            self._write(Content(records=records, with_tries=True))

    def _bury(self, row: Sequence[Any], reason: str = DAMAGED_REASON, died_at: float = 0.0) -> None:
        number, node, subject, _, payload = row[:5]
        letter = encode_remains(
            number,
            str(node),
            str(subject),
            payload if isinstance(payload, bytes) else b"",
            reason,
            died_at or self._anchor.steady,
        )
        self._execute(_LETTER, letter)

    def _take_letters(self) -> None:
        rows = self._connection.execute(
            "SELECT o.id, l.node, l.subject, o.head, o.payload, o.crc, o.tries, o.reason, o.died_at"
            " FROM dead AS o JOIN lanes AS l ON l.no = o.lane"
        )
        for *row, reason, died_at in rows:
            try:
                letter: LetterRow = encode_letter(_read_record(row), reason, died_at)
            except _Damaged:
                self._bury(row, reason if "damaged" in reason else f"{reason} (damaged)", died_at)
                continue
            self._execute(_LETTER, letter)

    def _take_ids(self) -> None:
        numbers: dict[tuple[str, str, str], int] = {}
        block = 0
        senders = self._execute("SELECT no, subject, sender, instance FROM senders").fetchall()
        for old, subject, sender, instance in senders:
            key = (scope_of(subject), sender, instance)
            for ids, times in self._blocks_of(old):
                number = numbers.get(key)
                if number is None:
                    number = numbers[key] = len(numbers) + 1
                    self._execute("INSERT INTO id_senders VALUES (?, ?, ?, ?)", (number, *key))
                block += 1
                raw, crc = seal_block(ids)
                # NB: what claims to be of the future was remembered by a clock that was ahead
                oldest, newest = (min(at, self._anchor.steady) for at in (min(times), max(times)))
                self._execute(
                    "INSERT INTO id_blocks VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
                    (block, number, ids[0], ids[-1], len(ids), oldest, newest, crc, raw),
                )

    def _blocks_of(self, sender: int) -> Iterator[tuple[array[int], list[int]]]:
        ids: array[int] = array("Q")
        times: list[int] = []
        for number, at in self._connection.execute(
            "SELECT id, at FROM seen WHERE sender = ? AND row_id IS NULL ORDER BY id", (sender,)
        ):
            ids.append(number)
            times.append(at)
            if len(ids) == BLOCK_IDS:
                yield ids, times
                ids, times = array("Q"), []
        if ids:
            yield ids, times

    def _take_inbox(self) -> None:
        cursor = self._connection.execute(
            "SELECT row_id, head, payload, crc, started, note, node, subject FROM inbox"
            " ORDER BY row_id"
        )
        rows: list[InboxRow] = []
        size_bytes = 0
        for stored in cursor:
            try:
                row = _read_row(stored[:6])
            except _Damaged:
                self._last_id += 1
                remains = (self._last_id, stored[6], stored[7], b"", stored[2])
                self._bury(remains, f"{DAMAGED_REASON}, received and not yet handled")
                continue
            rows.append(row)
            size_bytes += len(row.payload)
            if len(rows) >= COMMIT_COUNT or size_bytes >= COMMIT_BYTES:
                self._write_rows(rows)
                rows, size_bytes = [], 0
        if rows:
            self._write_rows(rows)

    def _write_rows(self, rows: Sequence[InboxRow]) -> None:
        self._write(Content(old_rows=rows, row_ids=[row.row_id for row in rows]))


def scope_of(subject: str) -> str:
    """Where ids of a subject are remembered from now on: without its kind, which a config may change."""
    head, _, kind = subject.rpartition(".")
    return head if kind in ("EventACK", "EventNACK", "CommandACK", "CommandNACK") else subject


def _read_record(row: Sequence[Any]) -> OutboxRecord:
    number, node, subject, head, payload, crc, tries = row
    try:
        where = f"{number}\0{node}\0{subject}\0".encode()
        is_whole = zlib.crc32(payload, zlib.crc32(head, zlib.crc32(where))) == crc
    except (TypeError, AttributeError, ValueError):
        is_whole = False
    # the checksum covers where it stood, so a row that was moved counts as damaged
    if not is_whole:
        raise _Damaged
    (
        to_node,
        method,
        encoding,
        wants_ack,
        created_at,
        expires_at,
        ack_timeout_s,
        retries,
        headers,
    ) = unpack(head)
    attempts, next_at, last_error = 0, 0.0, ""
    if tries is not None:
        text = unseal(tries)
        if text is None:
            last_error = "the count of attempts was damaged and starts again"
        else:
            attempts, next_at, last_error = unpack(text.encode())
    return OutboxRecord(
        id=number,
        node=node,
        subject=subject,
        to_node=to_node,
        method=method,
        payload=payload,
        encoding=encoding,
        wants_ack=wants_ack,
        created_at=created_at,
        expires_at=expires_at,
        ack_timeout_s=ack_timeout_s,
        retries=retries,
        headers=headers,
        attempts=attempts,
        next_at=float(next_at),
        last_error=last_error,
    )


def _read_row(stored: Sequence[Any]) -> InboxRow:
    row_id, head, payload, crc, started, sealed = stored
    try:
        is_whole = zlib.crc32(payload, zlib.crc32(head, zlib.crc32(b"%d" % row_id))) == crc
    except (TypeError, ValueError):
        is_whole = False
    note = "" if sealed is None else unseal(sealed)
    if not is_whole or started not in (0, _STARTED) or note is None:
        raise _Damaged
    node, subject, sender, instance, message_id, headers, reply_to, taken_at = unpack(head)
    return InboxRow(
        row_id=row_id,
        node=node,
        method=scope_of(subject).rpartition(".")[2],
        subject=subject,
        sender=sender,
        instance=instance,
        message_id=message_id,
        attempt=0,
        payload=payload,
        block=_block_of(headers),
        reply_to=reply_to,
        taken_at=taken_at,
        started=started == _STARTED,
        note=note,
    )


def _block_of(headers: dict[str, str]) -> bytes:
    try:
        return encode_headers(headers) if headers else b""
    except (ValueError, BusError):
        return b""
