"""Between values and stored rows: compact heads and their checksums. Pure.

SQLite notices damage to its own structures, not to a value inside a row (measured: one flipped bit
in a payload, `integrity_check` says ok). So every row carries a CRC-32 over everything that must
not change, and the parts that do change are sealed with a CRC of their own.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec

from appliance.outbox.records import DeadLetter, InboxRow, OutboxRecord, TakeIn

StoredRow = tuple[Any, ...]
MAX_TEXT = 2_000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class RowDamaged(Exception):
    """The row is not what was written. Stays inside this package, where it becomes a dead letter."""


def pack(value: object) -> bytes:
    """JSON in bytes; texts may hold surrogate escapes."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def unpack(raw: bytes) -> Any:
    """Undo `pack`."""
    try:
        return _decode(raw)
    except msgspec.DecodeError:
        return json.loads(raw)


def plain_text(text: str) -> str:
    """A text that JSON and SQLite carry: no surrogates, no NUL, bounded."""
    if text.isascii() and len(text) <= MAX_TEXT and "\0" not in text:
        return text
    cut = text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()
    return cut.replace("\0", "\\x00")


def seal(text: str) -> str:
    """Put a checksum before a text that changes while its row stays."""
    return f"{zlib.crc32(text.encode()):08x}{text}"


def unseal(sealed: object) -> str:
    """Undo `seal`."""
    if not isinstance(sealed, str):
        raise RowDamaged("damaged: not text")
    text = sealed[8:]
    if sealed[:8] != f"{zlib.crc32(text.encode('utf-8', 'replace')):08x}":
        raise RowDamaged("damaged: checksum mismatch")
    return text


def outbox_crc(number: int, node: str, subject: str, head: bytes, payload: bytes) -> int:
    """Checksum of what never changes in an outbox row."""
    where = f"{number}\0{node}\0{subject}\0".encode()
    return zlib.crc32(payload, zlib.crc32(head, zlib.crc32(where)))


def outbox_head(record: OutboxRecord) -> bytes:
    """The record's facts, payload and lane aside."""
    return pack(
        (
            record.to_node,
            record.method,
            record.encoding,
            record.wants_ack,
            record.created_at,
            record.expires_at,
            record.ack_timeout_s,
            record.retries,
            record.headers,
            record.attempt,
            record.origin,
        )
    )


def tries_of(record: OutboxRecord) -> str | None:
    """The record's changing facts, sealed; None for one never tried."""
    if not (record.attempts or record.next_at or record.last_error or record.sends or record.taker):
        return None
    facts = (
        record.attempts,
        record.next_at,
        plain_text(record.last_error),
        record.sends,
        record.taker,
    )
    return seal(pack(facts).decode())


def read_outbox_row(row: StoredRow) -> OutboxRecord:
    """Make a record of ``(id, node, subject, head, payload, crc, tries)``.

    Raises:
        RowDamaged: the checksum does not match. Damaged tries only start counting again.
    """
    number, node, subject, head, payload, crc, tries = row
    try:
        is_whole = outbox_crc(number, node, subject, head, payload) == crc
    except (TypeError, AttributeError, ValueError):
        is_whole = False
    if not is_whole:
        raise RowDamaged("damaged: checksum mismatch")
    # fmt: off
    (
        to_node, method, encoding, wants_ack, created_at, expires_at, ack_timeout_s, retries, headers,
        attempt, origin,
    ) = unpack(head)
    # fmt: on
    attempts, next_at, last_error, sends, taker = 0, 0.0, "", 0, ""
    if tries is not None:
        try:
            attempts, next_at, last_error, sends, taker = unpack(unseal(tries).encode())
        except RowDamaged:
            last_error = "the count of attempts was damaged and starts again"
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
        sends=sends,
        taker=taker,
        attempt=attempt,
        origin=origin,
        place=number,
    )


def read_dead_row(row: StoredRow) -> DeadLetter:
    """Make a dead letter of an outbox row with reason and time of death; a damaged one keeps what
    it can.
    """
    *stored, reason, died_at = row
    try:
        record = read_outbox_row(tuple(stored))
    except RowDamaged as error:
        number, node, subject, _, payload = stored[:5]
        record = OutboxRecord(
            id=number,
            node=str(node),
            subject=str(subject),
            to_node="",
            method="",
            payload=payload if isinstance(payload, bytes) else b"",
            encoding="",
            wants_ack=False,
            created_at=died_at,
        )
        reason = reason if "damaged" in reason else f"{reason} ({error})"
    return DeadLetter(record, reason, died_at)


def inbox_head(item: TakeIn, taken_at: float) -> bytes:
    """What is kept of a message taken in, its payload aside."""
    return pack(
        (
            item.node,
            item.subject,
            item.sender,
            item.instance,
            item.message_id,
            item.block.hex(),
            item.reply_to,
            item.method,
            item.attempt,
            taken_at,
        )
    )


def inbox_crc(row_id: int, head: bytes, payload: bytes) -> int:
    """Checksum of what never changes in an inbox row."""
    return zlib.crc32(payload, zlib.crc32(head, zlib.crc32(b"%d" % row_id)))


def read_inbox_row(row: StoredRow) -> InboxRow:
    """Make an inbox row of ``(row_id, head, payload, crc, started, note)``.

    Raises:
        RowDamaged: body, start mark or note do not match what was written; any of them could make a
            message run wrongly or twice.
    """
    row_id, head, payload, crc, started, note = row
    try:
        is_whole = inbox_crc(row_id, head, payload) == crc and started in (0, STARTED)
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise RowDamaged("damaged: checksum mismatch")
    text = "" if note is None else unseal(note)
    node, subject, sender, instance, message_id, block, reply_to, method, attempt, taken_at = (
        unpack(head)
    )
    return InboxRow(
        row_id=row_id,
        node=node,
        subject=subject,
        sender=sender,
        instance=instance,
        message_id=message_id,
        payload=payload,
        block=bytes.fromhex(block),
        method=method,
        attempt=attempt,
        reply_to=reply_to,
        taken_at=taken_at,
        started=started == STARTED,
        note=text,
    )


STARTED = 0x5AFE57A7
"""The mark of a started message: no single flipped bit makes it of 0."""
