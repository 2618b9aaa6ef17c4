"""One commit as two byte strings: a head (who, where, what is settled) and a body (the messages). Pure.

The head alone tells at the start what is live; it is read for every commit, the body only for messages that are
wanted. All is done by columns: one `array` a field, one `join` a commit.

The head carries two checksums, a CRC-32 and an Adler-32. One flipped bit in it is found and put right
(`mend`). Each message in the body has a CRC-32 of its own, so a flipped bit there costs that message alone.
"""

from __future__ import annotations

import math
import struct
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from appliance.core.ages import Anchor
from appliance.outbox.records import InboxRow, OutboxRecord, TakeIn
from appliance.outbox.texts import pack, unpack

SLOT_BITS = 20
MAX_SLOTS = 1 << SLOT_BITS
"""Messages of one commit."""

SeenKey = tuple[str, str, str]
"""Scope, sender, instance: whose ids are remembered together."""
Tries = tuple[int, float, str, int, str]
"""Attempts, next time, last error, sends, taker."""
Verdict = tuple[int, str]
"""Attempt and verdict of an id that is remembered."""

_CHECKSUMS = struct.Struct("<II")
_FIXED = struct.Struct("<QQQQQddd16sIIIIII")


class Damaged(Exception):
    """Bytes are not what was written. Stays inside this package, where it becomes a dead letter."""


@dataclass(slots=True)
class Misc:
    """What is rare in a commit. Places and row ids name messages of earlier commits."""

    tries: list[tuple[int, Tries]] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)
    verdicts: list[tuple[int, int, int, str]] = field(default_factory=list)
    """Number of the group of remembered ids, id, attempt, verdict: those that are not plainly done."""

    def is_empty(self) -> bool:
        """Whether there is none of it."""
        return not (self.tries or self.started or self.notes or self.verdicts)


@dataclass(slots=True)
class Content:
    """What one commit holds, to be encoded."""

    records: Sequence[OutboxRecord] = ()
    rows: Sequence[TakeIn] = ()
    row_ids: Sequence[int] = ()
    old_rows: Sequence[InboxRow] = ()
    """Rows that were moved; they keep their numbers, times and marks. Either these or `rows`."""
    settled: Sequence[int] = ()
    seen: dict[SeenKey, dict[int, Verdict | None]] = field(default_factory=dict)
    misc: Misc = field(default_factory=Misc)
    with_tries: bool = False
    """Whether the tries of records go with them (they were moved)."""


class Ledger(NamedTuple):
    """The facts about the whole log that every commit repeats."""

    seq: int
    last_id: int
    flushed_seq: int
    """Ids remembered by commits up to this one are in blocks of their own."""
    rows_after: int
    """Commits that are in the log after this one, and the sum of their numbers modulo 2**64."""
    sum_after: int
    anchor: Anchor


@dataclass(slots=True)
class Head:
    """A decoded head."""

    ledger: Ledger
    ids: array[int]
    created: array[float]
    expires: array[float]
    shape_of: array[int]
    extra_size: array[int]
    ends: array[int]
    crcs: array[int]
    row_ids: array[int]
    message_ids: array[int]
    """0 where the sender gave no usable id."""
    taken_at: array[float]
    row_shape_of: array[int]
    row_extra_size: array[int]
    row_block_size: array[int]
    row_ends: array[int]
    row_crcs: array[int]
    settled: array[int]
    seen_ids: array[int]
    shapes: list[Any]
    seen_groups: list[tuple[int, int]]
    misc: Misc
    size: int
    was_mended: bool = False

    @property
    def slots(self) -> int:
        """Messages that it describes: records first, then rows of the inbox."""
        return len(self.ids) + len(self.row_ids)

    def all_ends(self) -> array[int]:
        """Where each message ends in the body."""
        return self.ends + self.row_ends


_OUT_COLUMNS = ("Q", "d", "d", "I", "I", "I", "I")
_IN_COLUMNS = ("Q", "Q", "d", "I", "I", "I", "I", "I")
_NO_RECORDS = tuple(array(kind) for kind in _OUT_COLUMNS)
_NO_ROWS = tuple(array(kind) for kind in _IN_COLUMNS)


def encode_body(content: Content, now: float) -> tuple[list[bytes], list[array[Any]], bytes, bytes]:
    """The parts of the body, the columns of the head, shapes and rare things.

    Raises:
        UnicodeEncodeError, OverflowError, TypeError: some value cannot be stored.
    """
    shapes: dict[Any, int] = {}
    parts: list[bytes] = []
    out, end = _encode_records(content, shapes, parts)
    incoming = _encode_rows(content, shapes, parts, end, now)
    seen_ids: array[int] = array("Q")
    groups: list[tuple[int, int]] = []
    for key, ids in content.seen.items():
        number = shapes.setdefault(key, len(shapes))
        for message_id, verdict in ids.items():
            if verdict is not None:
                content.misc.verdicts.append((len(groups), message_id, *verdict))
        groups.append((number, len(ids)))
        seen_ids.extend(ids)
    columns = [*out, *incoming, array("Q", content.settled), seen_ids]
    shape_bytes = b""
    if shapes:
        shape_bytes = pack(list(shapes))
    misc = content.misc
    misc_bytes = b""
    if groups or not misc.is_empty():
        misc_bytes = pack((groups, misc.tries, misc.started, misc.notes, misc.verdicts))
    return parts, columns, shape_bytes, misc_bytes


def _encode_records(
    content: Content, shapes: dict[Any, int], parts: list[bytes]
) -> tuple[Sequence[array[Any]], int]:
    records = content.records
    if not records:
        return _NO_RECORDS, 0
    nan = math.nan
    shape_of: list[int] = []
    sizes: list[int] = []
    ends: list[int] = []
    crcs: list[int] = []
    end = 0
    with_tries = content.with_tries
    crc32 = zlib.crc32
    last_shape: tuple[object, ...] | None = None
    number = 0
    for record in records:
        shape = (
            record.node,
            record.subject,
            record.to_node,
            record.method,
            record.encoding,
            record.wants_ack,
            record.ack_timeout_s,
            record.retries,
            record.attempt,
            record.origin,
        )
        if shape != last_shape:  # mostly all of a commit are of one
            last_shape = shape
            known = shapes.get(shape)
            if known is None:
                "\0".join((record.node, record.subject)).encode()  # names must be plain text
                known = shapes[shape] = len(shapes)
            number = known
        shape_of.append(number)
        tries = tries_of(record) if with_tries else None
        if tries is not None:
            extra = pack((record.headers, tries))
        elif record.headers is not None:
            extra = pack((record.headers,))
        else:
            extra = b""
        payload = record.payload
        checksum = record.id & 0xFFFFFFFF
        if extra:
            checksum = crc32(extra, checksum)
            parts.append(extra)
        sizes.append(len(extra))
        end += len(extra) + len(payload)
        ends.append(end)
        crcs.append(crc32(payload, checksum))
        parts.append(payload)
    columns: list[array[Any]] = [
        array("Q", [record.id for record in records]),
        array("d", [record.created_at for record in records]),
        array("d", [nan if record.expires_at is None else record.expires_at for record in records]),
        array("I", shape_of),
        array("I", sizes),
        array("I", ends),
        array("I", crcs),
    ]
    return columns, end


def _encode_rows(
    content: Content, shapes: dict[Any, int], parts: list[bytes], end: int, now: float
) -> Sequence[array[Any]]:
    if not content.row_ids:
        return _NO_ROWS
    shape_of: list[int] = []
    sizes: list[int] = []
    blocks: list[int] = []
    ends: list[int] = []
    crcs: list[int] = []
    rows = content.rows or [_as_taken(row) for row in content.old_rows]
    notes = [(row.started, row.note) for row in content.old_rows]
    message_ids: list[int] = []
    crc32 = zlib.crc32
    last_shape = None
    number = 0
    for row_id, row in zip(content.row_ids, rows, strict=True):
        (
            scope, node, method, subject, sender, instance,
            message_id, attempt, payload, block, reply_to, _,
        ) = row  # fmt: skip
        shape = (scope, sender, instance, node, method, subject)
        if shape != last_shape:  # mostly all of a commit are of one
            last_shape = shape
            known = shapes.get(shape)
            if known is None:
                "\0".join((scope, sender, instance or "", node, subject)).encode()
                known = shapes[shape] = len(shapes)
            number = known
        message_ids.append(0 if instance is None else message_id)
        known_extra = (message_id, attempt, reply_to)
        extra = pack((*known_extra, *notes[len(sizes)]) if notes else known_extra)
        shape_of.append(number)
        sizes.append(len(extra))
        blocks.append(len(block))
        body = extra + block
        end += len(body) + len(payload)
        ends.append(end)
        crcs.append(crc32(payload, crc32(body, row_id & 0xFFFFFFFF)))
        parts.append(body)
        parts.append(payload)
    times = [row.taken_at for row in content.old_rows] or [now] * len(rows)
    return [
        array("Q", content.row_ids),
        array("Q", message_ids),
        array("d", times),
        array("I", shape_of),
        array("I", sizes),
        array("I", blocks),
        array("I", ends),
        array("I", crcs),
    ]


def _as_taken(row: InboxRow) -> TakeIn:
    return TakeIn(
        row.scope,
        row.node,
        row.method,
        row.subject,
        row.sender,
        row.instance,
        row.message_id,
        row.attempt,
        row.payload,
        row.block,
        row.reply_to,
        keep_body=True,
    )


def encode_head(
    columns: Sequence[array[Any]], shape_bytes: bytes, misc_bytes: bytes, ledger: Ledger
) -> bytes:
    """The head, with its checksums."""
    anchor = ledger.anchor
    # NB: most are empty in most commits
    rest = b"".join([*[one.tobytes() for one in columns if one], shape_bytes, misc_bytes])
    boot_id = anchor.boot_id
    fixed = _FIXED.pack(
        ledger.seq,
        ledger.last_id,
        ledger.flushed_seq,
        ledger.rows_after,
        ledger.sum_after,
        anchor.steady,
        anchor.mono,
        anchor.wall,
        bytes.fromhex(boot_id) if len(boot_id) == 32 else boot_id.encode()[:16],
        len(columns[0]),
        len(columns[7]),
        len(columns[15]),
        len(columns[16]),
        len(shape_bytes),
        len(misc_bytes),
    )
    checked = fixed + rest
    return _CHECKSUMS.pack(zlib.crc32(checked), zlib.adler32(checked)) + checked


def decode_head(raw: bytes) -> Head:
    """Undo `encode_head`; one flipped bit is put right.

    Raises:
        Damaged: more than that is wrong.
    """
    data, was_mended = _checked(raw)
    try:
        return _decode(data, was_mended)
    except (ValueError, TypeError, IndexError, struct.error) as error:
        raise Damaged(f"damaged: {error}") from error


def _checked(raw: bytes) -> tuple[bytes, bool]:
    if len(raw) < _CHECKSUMS.size + _FIXED.size:
        raise Damaged("damaged: too short")
    crc, adler = _CHECKSUMS.unpack_from(raw)
    checked = memoryview(raw)[_CHECKSUMS.size :]
    is_crc_right, is_adler_right = zlib.crc32(checked) == crc, zlib.adler32(checked) == adler
    if is_crc_right and is_adler_right:
        return raw, False
    if is_crc_right or is_adler_right:
        return raw, True  # the other checksum itself was hit
    mended = mend(bytes(checked), crc)
    if mended is None or zlib.adler32(mended) != adler:
        raise Damaged("damaged: checksum mismatch")
    return raw[: _CHECKSUMS.size] + mended, True


def _decode(data: bytes, was_mended: bool) -> Head:
    (seq, last_id, flushed, rows_after, sum_after, steady, mono, wall, boot,
     out, rows, settled, seen, shape_size, misc_size) = _FIXED.unpack_from(data, _CHECKSUMS.size)  # fmt: skip
    at = _CHECKSUMS.size + _FIXED.size
    columns: list[array[Any]] = []
    kinds = [(kind, out) for kind in _OUT_COLUMNS] + [(kind, rows) for kind in _IN_COLUMNS]
    for kind, count in [*kinds, ("Q", settled), ("Q", seen)]:
        column: array[Any] = array(kind)
        size = count * column.itemsize
        column.frombytes(data[at : at + size])
        if len(column) != count:
            raise Damaged("damaged: cut off")
        columns.append(column)
        at += size
    shapes = unpack(data[at : at + shape_size]) if shape_size else []
    at += shape_size
    misc, groups = Misc(), []
    if misc_size:
        raw_groups, tries, started, notes, verdicts = unpack(data[at : at + misc_size])
        groups = [(number, count) for number, count in raw_groups]
        misc = Misc(
            tries=[(place, (a, float(b), c, d, e)) for place, (a, b, c, d, e) in tries],
            started=started,
            notes=[(row_id, text) for row_id, text in notes],
            verdicts=[(a, b, c, d) for a, b, c, d in verdicts],
        )
    boot_id = boot.hex() if any(boot[12:]) else boot.rstrip(b"\0").decode("ascii", "replace")
    ledger = Ledger(
        seq, last_id, flushed, rows_after, sum_after, Anchor(boot_id, steady, mono, wall)
    )
    # fmt: off
    return Head(
        ledger,
        columns[0], columns[1], columns[2], columns[3], columns[4], columns[5], columns[6],
        columns[7], columns[8], columns[9], columns[10], columns[11], columns[12], columns[13], columns[14],
        columns[15], columns[16], shapes, groups, misc, len(data), was_mended,
    )
    # fmt: on


def decode_record(
    head: Head, body: bytes, slot: int, place: int, tries: Tries | None
) -> OutboxRecord:
    """One record of a commit; `tries` are those that came later.

    Raises:
        Damaged: it is not what was written.
    """
    start = head.ends[slot - 1] if slot else 0
    number = head.ids[slot]
    raw = body[start : head.ends[slot]]
    if zlib.crc32(raw, number & 0xFFFFFFFF) != head.crcs[slot]:
        raise Damaged("damaged: checksum mismatch")
    size = head.extra_size[slot]
    headers = None
    if size:
        headers, *own_tries = unpack(raw[:size])
        if tries is None and own_tries:
            tries = tuple(own_tries[0])
    node, subject, to_node, method, encoding, wants_ack, ack_timeout_s, retries, attempt, origin = (
        head.shapes[head.shape_of[slot]]
    )
    expires = head.expires[slot]
    record = OutboxRecord(
        id=number,
        node=node,
        subject=subject,
        to_node=to_node,
        method=method,
        payload=raw[size:],
        encoding=encoding,
        wants_ack=wants_ack,
        created_at=head.created[slot],
        expires_at=None if expires != expires else expires,
        ack_timeout_s=ack_timeout_s,
        retries=retries,
        headers=headers,
        attempt=attempt,
        origin=origin,
        place=place,
    )
    if tries is not None:
        give_tries(record, tries)
    return record


def decode_row(head: Head, body: bytes, slot: int) -> InboxRow:
    """One row of the inbox; `slot` counts the records before it.

    Raises:
        Damaged: it is not what was written.
    """
    at = slot - len(head.ids)
    ends = head.row_ends
    start = ends[at - 1] if at else (head.ends[-1] if head.ends else 0)
    row_id = head.row_ids[at]
    raw = body[start : ends[at]]
    if zlib.crc32(raw, row_id & 0xFFFFFFFF) != head.row_crcs[at]:
        raise Damaged("damaged: checksum mismatch")
    size = head.row_extra_size[at]
    middle = size + head.row_block_size[at]
    message_id, attempt, reply_to, *marks = unpack(raw[:size])
    started, note = marks or (False, "")
    _, sender, instance, node, method, subject = head.shapes[head.row_shape_of[at]]
    return InboxRow(
        row_id=row_id,
        node=node,
        method=method,
        subject=subject,
        sender=sender,
        instance=instance,
        message_id=message_id,
        attempt=attempt,
        payload=raw[middle:],
        block=raw[size:middle],
        reply_to=reply_to,
        taken_at=head.taken_at[at],
        started=started,
        note=note,
    )


def tries_of(record: OutboxRecord) -> Tries | None:
    """A record's changing facts; None for one never tried."""
    if not (record.attempts or record.next_at or record.last_error or record.sends or record.taker):
        return None
    return record.attempts, record.next_at, record.last_error, record.sends, record.taker


def give_tries(record: OutboxRecord, tries: Tries) -> None:
    """Undo `tries_of`."""
    record.attempts, record.next_at, record.last_error, record.sends, record.taker = tries


def mend(data: bytes, crc: int) -> bytes | None:
    """Put the one flipped bit right after which a CRC-32 holds again; None when there is none.

    A flipped bit changes the CRC by a value that depends on its distance from the end alone, and no two distances
    below 2**32 share one.
    """
    wanted = zlib.crc32(data) ^ crc
    table = _CRC_TABLE
    changes = [table[1 << bit] for bit in range(8)]
    for at in range(len(data) - 1, -1, -1):
        if wanted in changes:
            fixed = bytearray(data)
            fixed[at] ^= 1 << changes.index(wanted)
            return bytes(fixed)
        changes = [table[change & 0xFF] ^ (change >> 8) for change in changes]
    return None


def _make_crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _make_crc_table()
