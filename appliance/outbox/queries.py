"""The rarer work on the database: reading lanes and the inbox, moving records, operators' commands.

All functions run on the writer's thread, between batches. Whoever calls them tells them the largest id given out, by
`Database.last_id`, since damaged rows of the inbox need ids as dead letters.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from appliance.outbox.blobs import (
    SLOT_BITS,
    Content,
    Damaged,
    SeenKey,
    decode_record,
    decode_row,
    give_tries,
    tries_of,
)
from appliance.outbox.database import CommitPlan, Database
from appliance.outbox.lane import MAX_RECORDS
from appliance.outbox.letters import (
    DAMAGED_REASON,
    LetterRow,
    decode_letter,
    encode_remains,
)
from appliance.outbox.letters import (
    decode_record as decode_letter_record,
)
from appliance.outbox.records import (
    CALLED_OFF_NOTE,
    CALLED_OFF_VERDICT,
    CalledOff,
    DeadLetter,
    InboxRow,
    LaneKey,
    OutboxRecord,
)
from appliance.outbox.segments import SLOT_MASK
from appliance.outbox.texts import pack

FIRST_RECORDS = 20_000
FIRST_BYTES = 16 * 1024 * 1024
"""What of all lanes together is read at the start."""
DROPPED_VERDICT = "refused: dropped by an operator"
ANY_ATTEMPT = 2**31 - 1
DAMAGED_VERDICT = "failed: damaged on disk before it was handled"
MOVE_BYTES = 1024 * 1024
"""Messages that are moved in one commit, and how many of them."""
MOVE_COUNT = 512

_LETTER = "id, node, subject, body, reason, died_at"


# Waiting records.


@dataclass(slots=True)
class Page:
    """Records that were asked for; `looked_at` counts the entries that they answer, damaged ones included."""

    records: list[OutboxRecord]
    damaged: int
    looked_at: int


@dataclass(slots=True)
class Waiting:
    """What waits in a lane at the start: some in memory, and ids and places of the others."""

    loaded: list[OutboxRecord] = field(default_factory=list)
    ids: array[int] = field(default_factory=lambda: array("Q"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    damaged: int = 0


def take_waiting(database: Database) -> dict[LaneKey, Waiting]:
    """All that waits, by lane; the oldest of each are read, all commits once and in order."""
    database.set_aside_unreadable()
    waiting = dict(database.found.waiting)
    database.found.waiting.clear()
    share = min(MAX_RECORDS // 2, max(1, FIRST_RECORDS // max(1, len(waiting))))
    wanted: list[tuple[int, int, LaneKey]] = []
    found: dict[LaneKey, Waiting] = {}
    for key, (ids, places) in waiting.items():
        wanted += [
            (place, number, key) for number, place in zip(ids[:share], places[:share], strict=True)
        ]
        found[key] = Waiting(ids=ids[share:], places=places[share:])
    wanted.sort(key=lambda entry: entry[0])
    damaged: list[tuple[int, int, LaneKey]] = []
    late: dict[LaneKey, list[tuple[int, int]]] = {}
    size_bytes = 0
    for place, number, key in wanted:
        if size_bytes >= FIRST_BYTES:
            late.setdefault(key, []).append((number, place))
            continue
        try:
            record = _read(database, place)
        except Damaged:
            damaged.append((number, place, key))
            found[key].damaged += 1
            continue
        size_bytes += len(record.payload)
        found[key].loaded.append(record)
    for (
        key,
        entries,
    ) in late.items():  # a window has no holes: what follows the first of them is on disk as well
        entries += [(record.id, record.place) for record in found[key].loaded
                    if record.id > min(entries)[0]]  # fmt: skip
        entries.sort()
        first = entries[0][0]
        one = found[key]
        one.loaded = [record for record in one.loaded if record.id < first]
        one.ids = array("Q", [number for number, _ in entries]) + one.ids
        one.places = array("Q", [place for _, place in entries]) + one.places
    for one in found.values():
        one.loaded.sort(key=lambda record: record.id)
    _bury_damaged(database, damaged)
    return found


def read_records(
    database: Database,
    entries: Sequence[tuple[int, int]],
    key: LaneKey | None,
    max_bytes: int = 1 << 62,
) -> Page:
    """Read records of a lane by id and place; damaged ones become dead letters on the way.

    Without a lane they are left out.
    """
    page = Page([], 0, 0)
    damaged: list[tuple[int, int, LaneKey]] = []
    size_bytes = 0
    for number, old_place in entries:
        if size_bytes >= max_bytes:
            break
        page.looked_at += 1
        place = database.segments.place_of(old_place)
        # settled while the page was asked for
        if not database.segments.is_live(place):
            continue
        try:
            record = _read(database, place)
        except Damaged:
            if key is not None:
                damaged.append((number, place, key))
            continue
        page.records.append(record)
        size_bytes += len(record.payload)
    if damaged:
        page.damaged = len(damaged)
        _bury_damaged(database, damaged)
    return page


def _read(database: Database, place: int) -> OutboxRecord:
    head, body = database.read_segment(place >> SLOT_BITS)
    tries = database.segments.tries.get(place)
    slot = place & SLOT_MASK
    if slot >= len(head.ids):
        raise Damaged("damaged: no record")
    return decode_record(head, body, slot, place, tries)


def _remains(database: Database, place: int) -> bytes:
    with contextlib.suppress(Damaged):
        head, body = database.read_segment(place >> SLOT_BITS)
        ends, slot = head.all_ends(), place & SLOT_MASK
        if slot < len(ends):
            start = ends[slot - 1] if slot else 0
            sizes = [*head.extra_size, *head.row_extra_size]
            return body[start + sizes[slot] : ends[slot]]
    return b""


def _bury_damaged(database: Database, damaged: Sequence[tuple[int, int, LaneKey]]) -> None:
    if not damaged:
        return
    plan = CommitPlan()
    now = database.clock.now()
    for number, place, (node, subject) in damaged:
        payload = _remains(database, place)
        plan.letters.append(encode_remains(number, node, subject, payload, DAMAGED_REASON, now))
    # as a dead letter it is told; left in its lane it would be read again and again
    plan.content.settled = [place for _, place, _ in damaged]
    database.commit(plan, database.last_id)
    database.troubles.note_damaged(len(damaged))


@dataclass(slots=True)
class Compacted:
    """Records that were moved, by lane and id, and their old places."""

    by_lane: dict[LaneKey, dict[int, int]] = field(default_factory=dict)
    old_places: list[int] = field(default_factory=list)


def rename(database: Database, entries: Sequence[tuple[int, int]], key: LaneKey) -> Compacted:
    """Give records another lane. Damaged ones stay where they are."""
    records = read_records(database, entries, None).records
    old_places = [record.place for record in records]
    for record in records:
        record.node, record.subject = key
    return Compacted({key: _move(database, records)}, old_places)


def _move(database: Database, records: list[OutboxRecord]) -> dict[int, int]:
    """Write records anew, with their tries; by id their places afterwards."""
    old_places = [record.place for record in records]
    plan = CommitPlan(Content(records=records, settled=old_places, with_tries=True))
    if records:
        database.commit(plan, database.last_id)
    for old, record in zip(old_places, records, strict=True):
        # the event loop still settles by the old places, until it has heard of the new ones
        database.segments.forwards[old] = record.place
        tries = tries_of(record)
        if tries is not None:
            database.segments.tries[record.place] = tries
    return {record.id: record.place for record in records}


def move_stragglers(database: Database, *, urgently: bool = False) -> Compacted | None:
    """Move a slice of the live messages that hold large commits; None when the log is small enough."""
    places = database.segments.find_stragglers(MOVE_BYTES, even_if_small=urgently)
    if not places:
        return None
    by_place = {place: row_id for row_id, place in database.inbox.places.items()}
    records: list[OutboxRecord] = []
    rows: list[InboxRow] = []
    for place in places:
        row_id = by_place.get(place)
        if row_id is not None:
            with contextlib.suppress(Damaged):  # it surfaces when its worker comes
                rows.append(_read_row(database, row_id))
            continue
        try:
            records.append(_read(database, place))
        except Damaged:
            continue  # it surfaces when its lane is read
    compacted = Compacted(old_places=[record.place for record in records])
    for record in records:
        compacted.by_lane.setdefault(record.lane_key, {})[record.id] = 0
    # rows are found by number and not by place, so nobody has to be told
    if rows:
        old = [database.inbox.places[row.row_id] for row in rows]
        content = Content(old_rows=rows, row_ids=[row.row_id for row in rows], settled=old)
        database.commit(CommitPlan(content), database.last_id)
    if not records and not rows:
        return None
    moved = _move(database, records)
    for numbers in compacted.by_lane.values():
        for number in numbers:
            numbers[number] = moved[number]
    return compacted


def forget_forwards(database: Database, old_places: Iterable[int]) -> None:
    """The event loop knows the new places."""
    for place in old_places:
        database.segments.forwards.pop(place, None)


# The inbox.


def _read_row(database: Database, row_id: int) -> InboxRow:
    inbox = database.inbox
    place = inbox.places[row_id]
    head, body = database.read_segment(place >> SLOT_BITS)
    slot = place & SLOT_MASK
    if not len(head.ids) <= slot < head.slots:
        raise Damaged("damaged: no row")
    row = decode_row(head, body, slot)
    row.started = row.started or row_id in inbox.started
    row.note = inbox.notes.get(row_id, row.note)
    return row


def claim_inbox(database: Database, node: str, method: str, new_id: int) -> list[InboxRow]:
    """What the inbox holds for one worker, oldest first; damaged rows become dead letters.

    `new_id` is the first of as many ids as there are rows, for those dead letters.
    """
    scope = f"{node}.{method}"
    found: list[InboxRow] = []
    for row_id in list(database.inbox.by_scope.get(scope, ())):
        try:
            found.append(_read_row(database, row_id))
        except Damaged as error:
            _bury_row(database, scope, row_id, new_id, str(error))
            new_id += 1
    return found


def _bury_row(database: Database, scope: str, row_id: int, new_id: int, reason: str) -> None:
    place = database.inbox.places[row_id]
    node, _, _ = scope.rpartition(".")
    subject = scope
    plan = CommitPlan()
    with contextlib.suppress(Damaged):
        head, _ = database.read_segment(place >> SLOT_BITS)
        at = (place & SLOT_MASK) - len(head.ids)
        _, sender, instance, node, _, subject = head.shapes[head.row_shape_of[at]]
        if instance is not None:
            verdict = (0, DAMAGED_VERDICT)
            plan.content.seen = {(scope, sender, instance): {head.message_ids[at]: verdict}}
    plan.letters = [
        encode_remains(
            new_id,
            node,
            subject,
            _remains(database, place),
            f"{reason}, received and not yet handled",
            database.clock.now(),
        )
    ]
    plan.content.settled = [place]
    plan.finished = [(scope, (row_id,))]
    database.commit(plan, max(database.last_id, new_id))
    database.troubles.note_damaged(1)


def list_inbox(database: Database, limit: int) -> list[InboxRow]:
    """The oldest rows; damaged ones are left out, they surface when their worker comes."""
    found: list[InboxRow] = []
    for row_id in sorted(database.inbox.places)[:limit]:
        with contextlib.suppress(Damaged):
            found.append(_read_row(database, row_id))
    return found


def inbox_ids(database: Database) -> list[tuple[int, str]]:
    """Every row's id and scope, oldest first, damaged ones too. Reads no bodies."""
    by_scope = database.inbox.by_scope
    return sorted((row_id, scope) for scope, rows in by_scope.items() for row_id in rows)


def read_inbox(database: Database, row_ids: Sequence[int]) -> list[InboxRow]:
    """These rows, without those that are gone or damaged."""
    found: list[InboxRow] = []
    for row_id in row_ids:
        if row_id in database.inbox.places:
            with contextlib.suppress(Damaged):
                found.append(_read_row(database, row_id))
    return found


def drop_inbox(database: Database, row_ids: Sequence[int] | None) -> int:
    """Forget rows; their ids stay remembered as refused."""
    places = database.inbox.places
    chosen = list(places) if row_ids is None else [one for one in set(row_ids) if one in places]
    scopes = {row_id: scope for scope, rows in database.inbox.by_scope.items() for row_id in rows}
    keys = {
        row_id: (key, message_id)
        for key, ids in database.inbox.unfinished.items()
        for message_id, row_id in ids.items()
    }
    for first in range(0, len(chosen), MOVE_COUNT):
        part = chosen[first : first + MOVE_COUNT]
        plan = CommitPlan()
        plan.content.settled = [places[row_id] for row_id in part]
        plan.finished = [(scopes[row_id], (row_id,)) for row_id in part]
        attempts = {row.row_id: row.attempt for row in read_inbox(database, part)}
        for row_id in part:
            if row_id in keys:
                key, message_id = keys[row_id]
                verdict = (attempts.get(row_id, 0), DROPPED_VERDICT)
                plan.content.seen.setdefault(key, {})[message_id] = verdict
        database.commit(plan, database.last_id)
    return len(chosen)


def call_off(
    database: Database, key: SeenKey | None, message_id: int, row_id: int | None
) -> CalledOff:
    """Have a message not begin any more, wherever it is; `key` None where its id is not remembered."""
    inbox, plan = database.inbox, CommitPlan()
    if key is not None:
        row_id = inbox.unfinished.get(key, {}).get(message_id, row_id)
    if row_id in inbox.places:
        found = CalledOff.WAITS
        plan.content.misc.notes = [(row_id, CALLED_OFF_NOTE)]
    elif key is None or database.dedupe.find(key, message_id) is not None:
        return CalledOff.HAS_ENDED
    else:
        # which attempt of it is on its way is not known; none of them is to begin
        found = CalledOff.NEVER_CAME
        plan.content.seen[key] = {message_id: (ANY_ATTEMPT, CALLED_OFF_VERDICT)}
    database.commit(plan, database.last_id)
    return found


# Dead letters.


def list_dead(database: Database, limit: int) -> list[DeadLetter]:
    """The oldest dead letters."""
    rows: list[LetterRow] = database.connection.execute(
        f"SELECT {_LETTER} FROM letters ORDER BY died_at, id LIMIT ?", (limit,)
    ).fetchall()
    return [decode_letter(row) for row in rows]


def find_dead(database: Database, to_node: str, reason_begins: str) -> list[int]:
    """Ids of the dead letters to a node whose reason begins so; their bodies are not read."""
    begins = reason_begins.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = database.connection.execute(
        "SELECT id, subject FROM letters WHERE reason LIKE ? || '%' ESCAPE '\\' ORDER BY id",
        (begins,),
    )
    # NB: a node may have dots in its name, so a beginning of the subject does not tell
    return [number for number, subject in rows if subject.rsplit(".", 2)[0] == to_node]


def dead_reasons(database: Database, ids: Sequence[int]) -> dict[int, str]:
    """By id, of those that are dead letters; their bodies are not read."""
    rows = database.connection.execute(
        "SELECT id, reason FROM letters WHERE id IN (SELECT value FROM json_each(?))",
        (pack(list(ids)).decode(),),
    )
    return dict(rows.fetchall())


@dataclass(slots=True)
class Revived:
    """Records that wait again; `last_id` is where to go on, None when that was all."""

    records: list[OutboxRecord]
    last_id: int | None


def retry_dead(
    database: Database, *, ids: Sequence[int] | None, after_id: int, limit: int, now: float
) -> Revived:
    """Make dead letters waiting records again, with fresh tries and a fresh lifetime; damaged ones stay."""
    which = "" if ids is None else " AND id IN (SELECT value FROM json_each(?))"
    values = (after_id,) if ids is None else (after_id, pack(list(ids)).decode())
    rows: list[LetterRow] = database.connection.execute(
        f"SELECT {_LETTER} FROM letters WHERE id > ?{which} ORDER BY id LIMIT {int(limit)}", values
    ).fetchall()
    revived = Revived([], rows[-1][0] if len(rows) == limit else None)
    for row in rows:
        with contextlib.suppress(Damaged):
            revived.records.append(_as_new(decode_letter_record(row), now))
    if revived.records:
        numbers = [record.id for record in revived.records]
        plan = CommitPlan(Content(records=revived.records), risen=numbers)
        database.commit(plan, database.last_id)
    return revived


def _as_new(record: OutboxRecord, now: float) -> OutboxRecord:
    expires_at = None
    if record.expires_at is not None:
        expires_at = now + max(0.0, record.expires_at - record.created_at)
    # NB: its age begins anew, too: else each further retry would add the time that has passed to its lifetime
    fresh = replace(record, created_at=now, expires_at=expires_at, attempt=record.attempt + 1)
    give_tries(fresh, (0, 0.0, "", 0, ""))
    return fresh


def drop_dead(database: Database, ids: Sequence[int] | None) -> int:
    """Delete dead letters; how many."""
    which = "" if ids is None else " WHERE id IN (SELECT value FROM json_each(?))"
    values = () if ids is None else (pack(list(ids)).decode(),)
    rows = database.connection.execute(f"SELECT id FROM letters{which} ORDER BY id", values)
    numbers = [number for (number,) in rows.fetchall()]
    for first in range(0, len(numbers), MOVE_COUNT):
        _drop_letters(database, numbers[first : first + MOVE_COUNT])
    return len(numbers)


def _drop_letters(database: Database, numbers: Sequence[int]) -> None:
    chosen = pack(list(numbers)).decode()
    (size,) = database.connection.execute(
        "SELECT ifnull(sum(length(body)), 0) FROM letters"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (chosen,),
    ).fetchone()
    database.commit(CommitPlan(risen=list(numbers)), database.last_id)
    database.letters.size_bytes -= size


def forget_letters(database: Database) -> bool:
    """Drop a slice of the dead letters whose time is over or that have no room; True when there may be more."""
    settings = database.settings
    excess = database.letters.count - settings.max_messages
    rows = database.connection.execute(
        "SELECT id FROM letters WHERE died_at < ? ORDER BY died_at LIMIT ?",
        (database.clock.now() - settings.dead_letter_keep_s, MOVE_COUNT),
    ).fetchall()
    # only where age alone makes no room
    if not rows and excess > 0:
        rows = database.connection.execute(
            "SELECT id FROM letters ORDER BY died_at, id LIMIT ?", (min(excess, MOVE_COUNT),)
        ).fetchall()
        database.letters.dropped += len(rows)
        database.troubles.warning = (
            f"{database.letters.dropped} dead letters were dropped: their room holds"
            f" {settings.max_messages}"
        )
    if rows:
        _drop_letters(database, [number for (number,) in rows])
    return len(rows) == MOVE_COUNT
