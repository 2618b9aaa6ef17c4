"""The SQLite file: opening with every check, committing, reading, and what its errors mean.

Synchronous, used by one thread at a time. WAL with synchronous=FULL: in a simulated power cut
NORMAL lost every commit, FULL none (measured). Opening checks what SQLite does not: see `files`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    Verdict,
    decode_head,
    encode_body,
    encode_head,
)
from appliance.outbox.dedupe import Change, Dedupe, seal_block
from appliance.outbox.facts import FactChanges
from appliance.outbox.files import (
    BALLAST_NAME,
    DATABASE_NAME,
    LOCK_NAME,
    MARK_NAME,
    Ballast,
    Lock,
    Mark,
    prepare_directory,
    say_system_error,
)
from appliance.outbox.inbox import Inbox
from appliance.outbox.letters import LetterRow, encode_remains
from appliance.outbox.loading import Found, load
from appliance.outbox.opening import PAGE_BYTES, open_connection
from appliance.outbox.segments import Segments
from appliance.outbox.steady import SteadyClock
from appliance.outbox.texts import pack, seal, unseal

RESERVE_PAGES = 4_096
"""Pages beyond the quota that settling may use: what is noted, and the dead letters of one large commit until it goes."""
GONE_COUNT = 64
GONE_BYTES = 1024 * 1024
"""So many commits, or bytes of them, that can go are deleted with the next one."""
MAX_GONE = 512
CACHE_BYTES = 4 * 1024 * 1024
"""For commits that were read last."""


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
class CommitPlan:
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


class Letters:
    """The dead letters that there are, by number and size."""

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        self.dropped = 0
        """For want of room."""


class Troubles:
    """What is the matter with what is stored, in words; "" where nothing is."""

    def __init__(self) -> None:
        self.damage = ""
        self.warning = ""
        self._damaged_count = 0

    def note_damaged(self, count: int) -> None:
        """Messages were found damaged and are dead letters now."""
        self._damaged_count += count
        self.damage = f"{self._damaged_count} stored messages were damaged: they are dead letters"


class ReadCommits:
    """Those that were read last, for lanes that read from the same ones."""

    def __init__(self) -> None:
        self.commits: OrderedDict[int, tuple[Head, bytes]] = OrderedDict()
        self._size_bytes = 0

    def keep(self, seq: int, head: Head, body: bytes) -> None:
        """It was read; large ones are not worth the others' room."""
        if len(body) > CACHE_BYTES // 4:
            return
        self.commits[seq] = (head, body)
        self._size_bytes += head.size + len(body)
        while self._size_bytes > CACHE_BYTES:
            self.forget(next(iter(self.commits)))

    def forget(self, seq: int) -> None:
        """It is gone, or has to make room."""
        found = self.commits.pop(seq, None)
        if found is not None:
            self._size_bytes -= found[0].size + len(found[1])


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
        self.found: Found
        """At the start, until `queries.take_waiting` takes it."""
        self.letters = Letters()
        self.troubles = Troubles()
        self.is_tight = False
        """Whether room is short: then whatever can go goes with every commit."""
        self._read = ReadCommits()

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
        return self.segments.log_bytes + self.dedupe.block_bytes + self.letters.size_bytes

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
        with contextlib.ExitStack() as undone:
            undone.callback(self.mark.close)
            self.connection, self.instance, self.commits = open_connection(
                self.directory / DATABASE_NAME, self.mark, self.clock, self._max_pages
            )
            undone.callback(self.connection.close)
            self.found = load(
                self.connection,
                self.segments,
                self.inbox,
                self.dedupe,
                self.clock,
                self.mark.anchor,
            )
            self.last_id, self.flushed_seq = self.found.last_id, self.found.flushed_seq
            self.letters.count, self.letters.size_bytes = self.found.letters
            if self.found.damage:
                self.troubles.damage = self.found.damage
            for statement in schema.TEMPORARY:
                self.connection.execute(statement)
            self.mark.attach(self.instance, self.commits, self.clock.anchor())
            self.ballast.restore()
            undone.pop_all()

    def close(self) -> None:
        """Fold the log into the database and let others in."""
        try:
            self.connection.close()
        finally:
            self.mark.close()
            self._lock.release()

    def set_aside_unreadable(self) -> None:
        """Commits that could not be read become dead letters with what is left of them."""
        for rowid in self.found.unreadable:
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
            self.letters.count += 1
        self.found.unreadable.clear()

    # Committing.

    def commit(self, plan: CommitPlan, last_id: int) -> int:
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

    def _choose_gone(self, plan: CommitPlan) -> list[int]:
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
        self, plan: CommitPlan, seq: int, head: bytes, body: bytes, gone: list[int]
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
        plan: CommitPlan,
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
            self.letters.count += len(plan.letters)
            self.letters.size_bytes += sum(len(row[3]) for row in plan.letters)
        self.letters.count -= len(plan.risen)
        if plan.change is not None:
            self.dedupe.apply(plan.change)
            if plan.change.flushes:
                segments.flushed(self.flushed_seq)
        if gone:
            segments.forget(gone)
            for number in gone:
                self._read.forget(number)
        segments.check_free(segment)

    # Reading.

    def read_segment(self, seq: int) -> tuple[Head, bytes]:
        """One commit.

        Raises:
            Damaged: it cannot be read, or is not there.
        """
        cached = self._read.commits.get(seq)
        if cached is not None:
            self._read.commits.move_to_end(seq)
            return cached
        segment = self.segments.by_seq.get(seq)
        rowid = segment.rowid if segment is not None else seq
        try:
            row = self.connection.execute(
                "SELECT head, body FROM log WHERE seq = ?", (rowid,)
            ).fetchone()
        except sqlite3.Error as error:
            if isinstance(map_error(error), StoreUnusable):
                self.troubles.damage = f"commit {seq} cannot be read: {error}"
                raise Damaged(f"damaged: {error}") from error
            raise
        if row is None:
            self.troubles.damage = f"commit {seq} is missing"
            raise Damaged("damaged: missing")
        try:
            head = decode_head(row[0])
        except (Damaged, TypeError) as error:
            self.troubles.damage = f"commit {seq} cannot be read"
            raise Damaged("damaged: cannot be read") from error
        body = bytes(row[1])
        self._read.keep(seq, head, body)
        return head, body

    def _read_block(self, number: int) -> bytes:
        try:
            row = self.connection.execute(
                "SELECT body, crc FROM id_blocks WHERE no = ?", (number,)
            ).fetchone()
        except sqlite3.Error as error:
            if isinstance(map_error(error), StoreUnusable):
                self.troubles.damage = f"a block of remembered ids cannot be read: {error}"
                raise Damaged(str(error)) from error
            raise
        if row is None or zlib.crc32(row[0]) != row[1] or len(row[0]) % 8:
            self.troubles.damage = (
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


def _rows(rows: Sequence[Any]) -> str | None:
    return pack(rows).decode() if rows else None
