"""The SQLite file: opening with every check, committing, reading, and what its errors mean.

Synchronous, used by one thread at a time. WAL with synchronous=FULL: in a simulated power cut
NORMAL lost every commit, FULL none (measured). Opening checks what SQLite does not: see `files`.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sqlite3
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import gt
from pathlib import Path
from typing import Any

from appliance.core.ages import Anchor
from appliance.core.names import NodeName, Subject
from appliance.core.specs import StateSettings
from appliance.errors import StoreError, StoreFull, StoreUnusable
from appliance.outbox import schema
from appliance.outbox.blobs import (
    MAX_SLOTS,
    SLOT_BITS,
    Content,
    Damaged,
    Head,
    Ledger,
    SeenKey,
    Verdict,
    decode_head,
    encode_body,
    encode_head,
)
from appliance.outbox.dedupe import Block, Change, Dedupe, seal_block
from appliance.outbox.facts import FactChanges
from appliance.outbox.files import (
    BALLAST_NAME,
    DATABASE_NAME,
    LOCK_NAME,
    MARK_NAME,
    Ballast,
    Lock,
    Mark,
    prepare_database_file,
    prepare_directory,
    say_system_error,
    sync_directory,
)
from appliance.outbox.inbox import Inbox
from appliance.outbox.letters import LetterRow, encode_remains
from appliance.outbox.records import LaneKey
from appliance.outbox.segments import Segments
from appliance.outbox.steady import SteadyClock
from appliance.outbox.texts import pack, seal, unseal

PAGE_BYTES = 4096
RESERVE_PAGES = 4_096
"""Pages beyond the quota that settling may use: what is noted, and the dead letters of one large commit until it goes."""
BUSY_TIMEOUT_MS = 2_000
GONE_COUNT = 64
GONE_BYTES = 1024 * 1024
"""So many commits, or bytes of them, that can go are deleted with the next one."""
MAX_GONE = 512
CACHE_BYTES = 4 * 1024 * 1024
"""Commits that were read last, for lanes that read from the same ones."""


class StoreBusy(StoreError):
    """Another program holds the database for writing; try again. Stays inside this package."""

    retryable = True


class StoreReadOnly(StoreFull):
    """The file system takes no writes now."""


def map_error(error: sqlite3.Error) -> StoreError:
    """What a library error means to us."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_READONLY"):
        return StoreReadOnly(f"the store cannot be written now: {error}")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return StoreFull(f"no room in the store, or the disk fails: {error}")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreBusy(f"the database is locked by another program: {error}")
    if isinstance(error, sqlite3.ProgrammingError):
        return StoreUnusable(f"the store is closed: {error}")
    return StoreUnusable(f"the database is damaged or unusable: {error}")


@dataclass(slots=True)
class Plan:
    """What one commit is to do."""

    content: Content = field(default_factory=Content)
    finished: list[tuple[str, Sequence[int]]] = field(default_factory=list)
    """Scope and numbers of rows of the inbox that end; those that are gone by now count for nothing."""
    letters: list[LetterRow] = field(default_factory=list)
    risen: list[int] = field(default_factory=list)
    """Dead letters that are none any more."""
    facts: FactChanges = field(default_factory=dict)
    change: Change | None = None
    verdicts_before: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        content = self.content
        return not (
            content.records
            or content.settled
            or content.row_ids
            or content.seen
            or self.letters
            or self.risen
            or self.facts
            or self.change
            or self.verdicts_before is not None
            or not content.misc.is_empty()
        )


class Database:
    """The open database with what is known of it in memory. Made by `open`."""

    def __init__(
        self, directory: Path, settings: StateSettings, lock: Lock, clock: SteadyClock
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.clock = clock
        self._lock = lock
        self.mark = Mark(directory / MARK_NAME)
        self.ballast = Ballast(directory / BALLAST_NAME)
        self.connection: sqlite3.Connection
        self.instance = ""
        self.commits = 0
        self.last_id = 0
        self.flushed_seq = 0
        self.segments = Segments()
        self.inbox = Inbox()
        self.dedupe = Dedupe(self._read_block, self._read_verdict)
        self.facts: dict[tuple[str, str], str] = {}
        self.waiting: dict[LaneKey, tuple[array[int], array[int]]] = {}
        """Ids and places of what waited at the start, by lane; until somebody takes it."""
        self.forwards: dict[int, int] = {}
        """From old places to new ones, until the event loop knows those."""
        self.dead_count = 0
        self.dead_bytes = 0
        self.dropped_letters = 0
        """Dead letters that were dropped for want of room."""
        self.damage = ""
        """What was found damaged, in words."""
        self._damaged_count = 0
        self.warning = ""
        self.is_tight = False
        """Whether room is short: then whatever can go goes with every commit."""
        self._cache: OrderedDict[int, tuple[Head, bytes]] = OrderedDict()
        self._cached_bytes = 0
        self._unreadable: list[int] = []

    @property
    def _max_pages(self) -> int:
        return max(self.settings.max_bytes // PAGE_BYTES, 64)

    @property
    def inbox_count(self) -> int:
        """Messages taken in and not finished."""
        return len(self.inbox.places)

    @property
    def size_bytes(self) -> int:
        """What is stored: the log, remembered ids, dead letters."""
        return self.segments.log_bytes + self.dedupe.block_bytes + self.dead_bytes

    def note_damaged(self, count: int) -> None:
        """Messages were found damaged and are dead letters now."""
        self._damaged_count += count
        self.damage = f"{self._damaged_count} stored messages were damaged: they are dead letters"

    def use_settings(self, settings: StateSettings) -> None:
        """Bounds for everything from here on."""
        self.settings = settings
        self.use_reserve(allowed=False)

    # Opening and closing.

    @classmethod
    def open(cls, directory: Path, settings: StateSettings, clock: SteadyClock) -> Database:
        """Open or make the store of a state directory.

        Raises:
            StoreLocked: another process has it open.
            StoreUnusable: not a database of ours, damaged, emptied, or of an unknown version.
            StoreFull: no room to open it.
        """
        if sqlite3.sqlite_version_info < schema.MIN_SQLITE:
            needed = ".".join(map(str, schema.MIN_SQLITE))
            raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old, {needed} is needed")
        prepare_directory(directory)
        # before anything is read: a second daemon must not even look at a file that is being written
        lock = Lock(directory / LOCK_NAME)
        try:
            database = cls(directory, settings, lock, clock)
            try:
                database._connect()
            except sqlite3.Error as error:
                # what SQLite needs beside its file may find no room: that is what the ballast is for
                is_full = isinstance(map_error(error), StoreFull)
                if not is_full or not database.ballast.release():
                    raise
                database = cls(directory, settings, lock, clock)
                database._connect()
        except sqlite3.Error as error:
            lock.release()
            mapped = map_error(error)
            raise type(mapped)(f"cannot open {directory / DATABASE_NAME}: {mapped}") from error
        except OSError as error:
            lock.release()
            told = say_system_error(error)
            raise StoreUnusable(f"cannot open the store in {directory}: {told}") from error
        except StoreError:
            lock.release()
            raise
        return database

    def _connect(self) -> None:
        path = self.directory / DATABASE_NAME
        if self.mark.exists and (not path.exists() or path.stat().st_size == 0):
            raise StoreUnusable(
                f"{path} is missing or empty, but a database was here: put it back, or remove"
                f" {MARK_NAME} to begin with an empty store (its messages are then given up)"
            )
        prepare_database_file(path)
        self.connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
        )
        try:
            is_fresh = not self.mark.exists and not self._value("SELECT 1 FROM sqlite_master")
            version = schema.SCHEMA_VERSION if is_fresh else self._check_version()
            if not is_fresh:  # NB: nothing is written to a file that may yet be refused
                self.instance = self._value("SELECT value FROM meta WHERE key = 'instance'")
                self._check_instance(path)
            if version == 1:
                self.commits = self._value("SELECT commits FROM tail")
                self._check_commits(path)
            elif not is_fresh:
                self.commits = self._value("SELECT max(seq) FROM log") or 0
                self._check_commits(path)
            self._configure(is_fresh=is_fresh)
            if is_fresh:
                self._create()
            elif version == 1:
                from appliance.outbox import takeover

                self.clock.start(self.mark.anchor)
                takeover.take_over(self.connection, self.clock.anchor())
                self.commits = self._value("SELECT max(seq) FROM log")
            self._load()
            for statement in schema.TEMPORARY:
                self.connection.execute(statement)
            self.mark.attach(self.instance, self.commits, self.clock.anchor())
            self.ballast.restore()
        except BaseException:
            self.connection.close()
            self.mark.close()
            raise

    def _configure(self, *, is_fresh: bool) -> None:
        shape = (f"page_size={PAGE_BYTES}", "auto_vacuum=INCREMENTAL") if is_fresh else ()
        for pragma in (
            *shape,
            "journal_mode=WAL",
            "synchronous=FULL",
            "temp_store=MEMORY",
            "cache_size=-16000",
            "journal_size_limit=16777216",
            "trusted_schema=ON",
            "secure_delete=FAST",  # some builds write zeros over every page of what goes, once more to the disk
            f"max_page_count={self._max_pages}",
        ):
            self.connection.execute(f"PRAGMA {pragma}")

    def _check_version(self) -> int:
        if self._value("PRAGMA application_id") != schema.APPLICATION_ID:
            path = self.directory / DATABASE_NAME
            if self.mark.exists and not self._value("SELECT 1 FROM sqlite_master"):
                # as a young store is that was copied by its name alone
                raise StoreUnusable(
                    f"{path} holds nothing without {DATABASE_NAME}-wal, which is missing: put both back, or remove"
                    f" {MARK_NAME} to begin with an empty store (its messages are then given up)"
                )
            raise StoreUnusable(
                f"{path} is no store of an appliance: move it away, or name another directory by --state-dir"
            )
        version = self._value("PRAGMA user_version")
        if version not in (1, schema.SCHEMA_VERSION):
            raise StoreUnusable(
                f"the store has schema version {version}, this appliance knows"
                f" {schema.SCHEMA_VERSION}: run the version that made it"
            )
        return int(version)

    def _create(self) -> None:
        self.instance = secrets.token_hex(8)
        self.connection.executescript(
            f"BEGIN IMMEDIATE; {schema.META} {schema.TABLES}"
            f" INSERT INTO meta VALUES ('instance', '{self.instance}');"
            f" PRAGMA application_id = {schema.APPLICATION_ID};"
            f" PRAGMA user_version = {schema.SCHEMA_VERSION}; COMMIT;"
        )
        sync_directory(self.directory)

    def _check_instance(self, path: Path) -> None:
        if self.mark.exists and self.mark.instance != self.instance:
            raise StoreUnusable(
                f"{path} is not the database that was here before: put that one back, or remove"
                f" {MARK_NAME} to accept this one"
            )

    def _check_commits(self, path: Path) -> None:
        if self.mark.exists and self.commits < self.mark.commits:
            missing = self.mark.commits - self.commits
            self._keep_evidence(path)
            raise StoreUnusable(
                f"the last {missing} commits of {path} are missing: its write-ahead log is damaged"
                f" (kept as {DATABASE_NAME}-wal.damaged) or the file is an older copy; remove"
                f" {MARK_NAME} to go on without them"
            )

    def _keep_evidence(self, path: Path) -> None:
        """Copy the log before closing: SQLite removes it then, with what it could not read."""
        log = path.with_name(f"{path.name}-wal")
        with contextlib.suppress(OSError):
            shutil.copy2(log, path.with_name(f"{path.name}-wal.damaged"))

    def _value(self, query: str) -> Any:
        row = self.connection.execute(query).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Fold the log into the database and let others in."""
        try:
            self.connection.close()
        finally:
            self.mark.close()
            self._lock.release()

    # Loading.

    def _load(self) -> None:
        execute = self.connection.execute
        self._load_ids()
        heads, anchor = self._load_heads()
        anchors = [one for one in (anchor, self.mark.anchor) if one is not None]
        self.clock.start(max(anchors, key=lambda one: one.steady, default=None))
        self._replay(heads)
        for kind, key, value in execute("SELECT kind, key, value FROM facts"):
            self.facts[kind, key] = value
        self.dead_count, self.dead_bytes, highest = execute(
            "SELECT count(*), ifnull(sum(length(body)), 0), ifnull(max(id), 0) FROM letters"
        ).fetchone()
        self.last_id = max(self.last_id, highest)

    def _load_ids(self) -> None:
        execute = self.connection.execute
        by_number = {}
        for number, scope, sender, instance in execute("SELECT * FROM id_senders ORDER BY no"):
            by_number[number] = self.dedupe.load_sender(number, (scope, sender, instance))
        for owner, *facts in execute(
            "SELECT sender, no, low, high, count, oldest, newest, exceptions FROM id_blocks"
            " ORDER BY no"
        ):
            if owner in by_number:
                self.dedupe.load_block(by_number[owner], Block(*facts))

    def _load_heads(self) -> tuple[list[Head], Anchor | None]:
        heads: list[Head] = []
        unreadable: list[int] = []
        count = total = 0
        rows = self.connection.execute("SELECT seq, head, length(body) FROM log ORDER BY seq")
        for rowid, raw, body_size in rows:
            count += 1
            total += rowid
            try:
                head = decode_head(raw)
            except (Damaged, TypeError):
                unreadable.append(rowid)
                continue
            if (head.all_ends()[-1] if head.slots else 0) > body_size:
                self.damage = f"commit {rowid} is cut off"
            heads.append(head)
            segment = self.segments.add(
                head.ledger.seq,
                len(raw) + body_size,
                head.all_ends(),
                remembers=bool(head.seen_ids) and head.ledger.seq > 0,
            )
            if segment.rowid != rowid:
                self.segments.seq_sum += rowid - segment.rowid
                segment.rowid = rowid
        self._unreadable = unreadable
        for rowid in unreadable:
            self.damage = f"commit {rowid} cannot be read: what it held is lost"
        if not heads:
            return heads, None
        ledger = heads[-1].ledger
        self.last_id, self.flushed_seq = ledger.last_id, ledger.flushed_seq
        expected = (ledger.rows_after, ledger.sum_after)
        if not unreadable and expected != (count, total & (1 << 64) - 1):
            self.damage = f"the log holds {count} commits where it should hold {ledger.rows_after}"
        return heads, ledger.anchor

    def _replay(self, heads: Sequence[Head]) -> None:
        """Do again what the commits said of messages and ids; then see what is live."""
        segments = self.segments
        # first: ids up to there are in blocks, and their commits are not held for them
        segments.flushed(self.flushed_seq)
        for head in heads:
            ledger, misc = head.ledger, head.misc
            segment = segments.by_seq[ledger.seq]
            self.last_id = max(self.last_id, max(head.ids, default=0))
            first = ledger.seq << SLOT_BITS | len(head.ids)
            for at, row_id in enumerate(head.row_ids):
                scope = head.shapes[head.row_shape_of[at]][0]
                # live or not: what is said of it later in the log must find it
                self.inbox.load(row_id, first + at, scope)
            noted = [*head.settled, *[place for place, _ in misc.tries]]
            noted += [self.inbox.places.get(row_id, 0) for row_id in misc.started]
            noted += [self.inbox.places.get(row_id, 0) for row_id, _ in misc.notes]
            segments.note(segment, noted)
            segments.settle(head.settled)
            for place, tries in misc.tries:
                if segments.is_live(place):
                    segments.tries[place] = tries
            self.inbox.mark(misc.started, misc.notes)
            # those before are in blocks, which were loaded already
            if head.seen_ids and ledger.seq > self.flushed_seq:
                for key, ids in seen_of(head).items():
                    self.dedupe.learn(key, ids, ledger.anchor.steady)
            segments.check_free(segment)
        # only now: whether a row lives is known when the whole log was seen
        self.inbox.drop_settled(segments)
        self._find_live(heads)

    def _find_live(self, heads: Sequence[Head]) -> None:
        lanes = self.waiting
        for head in heads:
            segment = self.segments.by_seq[head.ledger.seq]
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
                        self.inbox.load_unfinished(rows[at], key, head.message_ids[at])
        for lane, (numbers, places) in lanes.items():
            if any(
                map(gt, numbers, islice(numbers, 1, None))
            ):  # commits out of order, or moved ones
                order = sorted(range(len(numbers)), key=numbers.__getitem__)
                lanes[lane] = (
                    array("Q", [numbers[at] for at in order]),
                    array("Q", [places[at] for at in order]),
                )

    def set_aside_unreadable(self) -> None:
        """Commits that could not be read become dead letters with what is left of them."""
        for rowid in self._unreadable:
            row = self.connection.execute("SELECT head, body FROM log WHERE seq = ?", (rowid,))
            head, body = row.fetchone()
            self.last_id += 1
            reason = f"damaged: commit {rowid} cannot be read: what it held is lost"
            letter = encode_remains(self.last_id, "", "", head + body, reason, self.clock.now())
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.execute("INSERT INTO letters VALUES (?, ?, ?, ?, ?, ?)", letter)
            # the last row stays: its number tells how many commits there were
            if rowid != self.commits:
                self.connection.execute("DELETE FROM log WHERE seq = ?", (rowid,))
            self.connection.execute("COMMIT")
            self.dead_count += 1
        self._unreadable = []

    # Committing.

    def commit(self, plan: Plan, last_id: int) -> int:
        """Commit a plan: all of it, or an exception and nothing. The number of the commit."""
        content, segments = plan.content, self.segments
        if len(content.records) + len(content.row_ids) > MAX_SLOTS:
            raise StoreFull(f"too many messages for one commit: {len(content.records)}")
        anchor = self.clock.anchor()
        parts, columns, shapes, misc = encode_body(content, anchor.steady)
        seq = self.commits + 1
        last_id = max(self.last_id, last_id)
        flushed_seq = self.flushed_seq
        # ids of all commits up to here are in blocks once this is on disk, so those commits are needed for them no more
        if plan.change is not None and plan.change.flushes:
            flushed_seq = self.commits
        gone = self._choose_gone(plan)
        rows, total = segments.rows_without(gone)
        ledger = Ledger(seq, last_id, flushed_seq, rows + 1, (total + seq) & (1 << 64) - 1, anchor)
        head = encode_head(columns, shapes, misc, ledger)
        body = b"".join(parts)
        if gone or plan.letters or plan.risen or plan.facts or plan.change or plan.verdicts_before:
            rowids = [segments.by_seq[number].rowid for number in gone]
            self.connection.execute(schema.APPLY, self._parameters(plan, seq, head, body, rowids))
        else:
            self.connection.execute(schema.APPEND, (seq, head, body))
        self.commits, self.last_id, self.flushed_seq = seq, last_id, flushed_seq
        # memory follows the disk, never the other way round: a commit that fails has changed nothing
        self._learn(plan, seq, len(head) + len(body), columns, gone, anchor.steady)
        # after the commit: the mark outside of the file tells when commits are missing from it
        self.mark.advance(seq, anchor)
        return seq

    def _choose_gone(self, plan: Plan) -> list[int]:
        segments = self.segments
        # not each time: a commit that deletes as well costs more than one that only appends
        enough = len(segments.free) >= GONE_COUNT or segments.free_bytes >= GONE_BYTES
        if not enough and not self.is_tight:
            return []
        gone = list(segments.free)[:MAX_GONE]
        # what this very commit settles can go with it, where each byte counts
        if self.is_tight and plan.content.settled:
            chosen = set(gone)
            counts: dict[int, int] = {}
            for place in set(plan.content.settled):
                if segments.is_live(place):
                    counts[place >> SLOT_BITS] = counts.get(place >> SLOT_BITS, 0) + 1
            for number, count in counts.items():
                segment = segments.by_seq[number]
                if segment.live == count and not segment.refs and number not in chosen:
                    gone.append(number)
        return gone

    def _parameters(
        self, plan: Plan, seq: int, head: bytes, body: bytes, gone: list[int]
    ) -> tuple[Any, ...]:
        """The values of the one statement, in the order of `schema.COLUMNS`."""
        parts: list[bytes] = []
        offset = 1
        letters = []
        for number, node, subject, letter, reason, died_at in plan.letters:
            letters.append((number, node, subject, offset, len(letter), reason, died_at))
            parts.append(letter)
            offset += len(letter)
        change = plan.change or Change()
        senders, blocks, verdicts = [], [], []
        for new in change.new:
            if not new.sender.is_on_disk:
                senders.append((new.sender.number, *new.sender.key))
            raw, crc = seal_block(new.ids)
            one = new.block
            blocks.append(
                (one.number, new.sender.number, one.low, one.high, one.count, one.oldest,
                 one.newest, one.exceptions, crc, offset, len(raw))
            )  # fmt: skip
            parts.append(raw)
            offset += len(raw)
            for number, attempt, verdict in new.verdicts:
                row = (new.sender.number, number, attempt, seal(verdict), one.newest)
                verdicts.append(row)
        return (
            seq,
            head,
            body,
            _rows(gone),
            b"".join(parts),
            _rows(letters),
            _rows(plan.risen),
            _rows([(*key, value) for key, value in plan.facts.items()]),
            _rows(senders),
            _rows(blocks),
            _rows(verdicts),
            _rows([block.number for _, block in change.gone]),
            _rows([sender.number for sender in change.ended]),
            plan.verdicts_before,
        )

    def _learn(
        self,
        plan: Plan,
        seq: int,
        size: int,
        columns: Sequence[array[Any]],
        gone: list[int],
        now: float,
    ) -> None:
        content, segments, inbox = plan.content, self.segments, self.inbox
        ends = columns[5] + columns[13]
        segment = segments.add(seq, size, ends, remembers=bool(content.seen))
        base = seq << SLOT_BITS
        for place, record in enumerate(content.records, base):
            record.place = place
        for key, ids in content.seen.items():
            self.dedupe.learn(key, ids, now)
            inbox.forget_ids(key, ids)
        if plan.finished:
            inbox.finish(plan.finished)
        first_row = base | len(content.records)
        if content.old_rows:
            for place, row_id in enumerate(content.row_ids, first_row):
                inbox.places[row_id] = place
                inbox.forget_marks(row_id)
        else:
            inbox.add(content.row_ids, first_row, content.rows)
        misc = content.misc
        noted = content.settled
        if not misc.is_empty():
            noted = [*noted, *[place for place, _ in misc.tries]]
            noted += [inbox.places.get(row_id, 0) for row_id in misc.started]
            noted += [inbox.places.get(row_id, 0) for row_id, _ in misc.notes]
            segments.tries.update(misc.tries)
            inbox.mark(misc.started, misc.notes)
        if noted:
            segments.note(segment, noted)
            segments.settle(content.settled)
        if plan.letters:
            self.dead_count += len(plan.letters)
            self.dead_bytes += sum(len(row[3]) for row in plan.letters)
        self.dead_count -= len(plan.risen)
        if plan.change is not None:
            self.dedupe.apply(plan.change)
            if plan.change.flushes:
                segments.flushed(self.flushed_seq)
        if gone:
            segments.forget(gone)
            for number in gone:
                self._uncache(number)
        segments.check_free(segment)

    # Reading.

    def place_of(self, place: int) -> int:
        """Where a message is by now."""
        while place in self.forwards:
            place = self.forwards[place]
        return place

    def read_segment(self, seq: int) -> tuple[Head, bytes]:
        """One commit.

        Raises:
            Damaged: it cannot be read, or is not there.
        """
        cached = self._cache.get(seq)
        if cached is not None:
            self._cache.move_to_end(seq)
            return cached
        segment = self.segments.by_seq.get(seq)
        rowid = segment.rowid if segment is not None else seq
        try:
            row = self.connection.execute(
                "SELECT head, body FROM log WHERE seq = ?", (rowid,)
            ).fetchone()
        except sqlite3.Error as error:
            if isinstance(map_error(error), StoreUnusable):
                self.damage = f"commit {seq} cannot be read: {error}"
                raise Damaged(f"damaged: {error}") from error
            raise
        if row is None:
            self.damage = f"commit {seq} is missing"
            raise Damaged("damaged: missing")
        try:
            head = decode_head(row[0])
        except (Damaged, TypeError) as error:
            self.damage = f"commit {seq} cannot be read"
            raise Damaged("damaged: cannot be read") from error
        body = bytes(row[1])
        if len(body) <= CACHE_BYTES // 4:
            self._cache[seq] = (head, body)
            self._cached_bytes += head.size + len(body)
            while self._cached_bytes > CACHE_BYTES:
                self._uncache(next(iter(self._cache)))
        return head, body

    def _uncache(self, seq: int) -> None:
        found = self._cache.pop(seq, None)
        if found is not None:
            self._cached_bytes -= found[0].size + len(found[1])

    def _read_block(self, number: int) -> bytes:
        try:
            row = self.connection.execute(
                "SELECT body, crc FROM id_blocks WHERE no = ?", (number,)
            ).fetchone()
        except sqlite3.Error as error:
            if isinstance(map_error(error), StoreUnusable):
                self.damage = f"a block of remembered ids cannot be read: {error}"
                raise Damaged(str(error)) from error
            raise
        if row is None or zlib.crc32(row[0]) != row[1] or len(row[0]) % 8:
            self.damage = (
                "a block of remembered ids is damaged: messages of its time count as known"
            )
            raise Damaged("damaged: checksum mismatch")
        return bytes(row[0])

    def _read_verdict(self, sender: int, message_id: int) -> Verdict | None:
        row = self.connection.execute(
            "SELECT attempt, verdict FROM id_verdicts WHERE sender = ? AND id = ?",
            (sender, message_id),
        ).fetchone()
        if row is None:
            return None
        text = unseal(row[1])
        return row[0], "failed: the verdict is damaged" if text is None else text

    # Room.

    def use_reserve(self, *, allowed: bool) -> None:
        """Let settling go beyond the quota for a moment."""
        pages = self._max_pages + (RESERVE_PAGES if allowed else 0)
        self.connection.execute(f"PRAGMA max_page_count={pages}")

    def fold_log(self) -> None:
        """Move the log into the database and give its room back, as far as that works now."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def seen_of(head: Head) -> dict[SeenKey, dict[int, Verdict | None]]:
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


def _rows(rows: Sequence[Any]) -> str | None:
    return pack(rows).decode() if rows else None
