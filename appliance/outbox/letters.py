"""A dead letter as a row: its record in one piece with a checksum. Pure."""

from __future__ import annotations

import struct
import zlib

from appliance.outbox.blobs import Damaged
from appliance.outbox.records import DeadLetter, OutboxRecord
from appliance.outbox.texts import pack, plain_text, unpack

DAMAGED_REASON = "damaged: checksum mismatch"
_FIXED = struct.Struct("<II")

LetterRow = tuple[int, str, str, bytes, str, float]
"""Id, node, subject, body, reason, time of death."""


def encode_letter(record: OutboxRecord, reason: str, died_at: float) -> LetterRow:
    """A row of a whole record."""
    facts = pack(
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
            record.attempts,
            record.next_at,
            plain_text(record.last_error),
            record.sends,
            record.taker,
            record.attempt,
            record.origin,
        )
    )
    rest = facts + record.payload
    body = _FIXED.pack(zlib.crc32(rest, record.id & 0xFFFFFFFF), len(facts)) + rest
    return record.id, record.node, record.subject, body, plain_text(reason), died_at


def encode_remains(
    number: int, node: str, subject: str, payload: bytes, reason: str, died_at: float
) -> LetterRow:
    """A row of a damaged record: what is left of it, never to be sent again."""
    body = _FIXED.pack(zlib.crc32(payload) ^ 0xFFFFFFFF, 0) + payload
    return number, node, subject, body, plain_text(reason), died_at


def decode_letter(row: LetterRow) -> DeadLetter:
    """Undo either; a damaged one keeps what it can."""
    try:
        return DeadLetter(decode_record(row), row[4], row[5])
    except Damaged as error:
        number, node, subject, body, reason, died_at = row
        record = OutboxRecord(
            id=number,
            node=str(node),
            subject=str(subject),
            to_node="",
            method="",
            payload=bytes(body[_FIXED.size :]) if isinstance(body, bytes) else b"",
            encoding="",
            wants_ack=False,
            created_at=died_at,
        )
        return DeadLetter(record, reason if "damaged" in reason else f"{reason} ({error})", died_at)


def decode_record(row: LetterRow) -> OutboxRecord:
    """The record of a letter.

    Raises:
        Damaged: it is not what was written.
    """
    number, node, subject, body, _, _ = row
    try:
        crc, size = _FIXED.unpack_from(body)
        rest = body[_FIXED.size :]
        if zlib.crc32(rest, number & 0xFFFFFFFF) != crc or not size:
            raise Damaged(DAMAGED_REASON)
        (to_node, method, encoding, wants_ack, created_at, expires_at, ack_timeout_s, retries,
         headers, attempts, next_at, last_error, sends, taker, attempt, origin) = unpack(rest[:size])  # fmt: skip
    except (ValueError, TypeError, struct.error) as error:
        raise Damaged(DAMAGED_REASON) from error
    return OutboxRecord(
        id=number,
        node=node,
        subject=subject,
        to_node=to_node,
        method=method,
        payload=rest[size:],
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
    )
