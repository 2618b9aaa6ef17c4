"""The SQLite file: opening with every check, the batch statement, and what its errors mean.

Synchronous, used by one thread at a time. WAL with synchronous=FULL: in a simulated power cut
NORMAL lost every commit, FULL none (measured). Opening checks what SQLite does not: see `files`.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.core.specs import StateSettings
from appliance.errors import StoreError, StoreFull, StoreUnusable
from appliance.outbox import schema
from appliance.outbox.batch import Batch, Known, SeenKey
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
    sync_directory,
)
from appliance.outbox.memory import Senders
from appliance.outbox.records import TakeIn
from appliance.outbox.rows import pack
from appliance.outbox.steady import SteadyClock

PAGE_BYTES = 4096
RESERVE_PAGES = 256
"""Pages beyond the quota that settling may use, since even a DELETE can need a new page."""
BUSY_TIMEOUT_MS = 2_000


class StoreBusy(StoreError):
    """Another program holds the database for writing; try again. Stays inside this package."""

    retryable = True


def map_error(error: sqlite3.Error) -> StoreError:
    """What a library error means to us."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return StoreFull(f"no room in the store, or the disk fails: {error}")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreBusy(f"the database is locked by another program: {error}")
    if isinstance(error, sqlite3.ProgrammingError):
        return StoreUnusable(f"the store is closed: {error}")
    return StoreUnusable(f"the database is damaged or unusable: {error}")


class Database:
    """The open database with what is cached of it. Made by `open`."""

    def __init__(
        self, directory: Path, settings: StateSettings, lock: Lock, clock: SteadyClock
    ) -> None:
        self.clock = clock
        self.facts: dict[tuple[str, str], str] = {}
        self.directory = directory
        self.settings = settings
        self._lock = lock
        self.mark = Mark(directory / MARK_NAME)
        self.ballast = Ballast(directory / BALLAST_NAME)
        self.connection: sqlite3.Connection
        self.instance = ""
        self.commits = 0
        self.last_id = 0
        self.lanes: dict[tuple[str, str], int] = {}
        self.senders = Senders()
        self.next_lane = 1
        self.next_row_id = 1
        self.dead_count = 0

    @property
    def _max_pages(self) -> int:
        return max(self.settings.max_bytes // PAGE_BYTES, 64)

    def use_settings(self, settings: StateSettings) -> None:
        """Bounds for everything from here on."""
        self.settings = settings
        self.use_reserve(allowed=False)

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
        lock = Lock(directory / LOCK_NAME)
        try:
            database = cls(directory, settings, lock, clock)
            database._connect()
        except sqlite3.Error as error:
            lock.release()
            mapped = map_error(error)
            raise type(mapped)(f"cannot open {directory / DATABASE_NAME}: {mapped}") from error
        except OSError as error:
            lock.release()
            raise StoreUnusable(f"cannot open the store in {directory}: {error}") from error
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
            if not is_fresh:  # NB: nothing is written to a file that may yet be refused
                self._check_version()
                self._load()
                self._check_mark(path)
            self._configure(is_fresh=is_fresh)
            if is_fresh:
                self._create()
                self._load()
            for statement in schema.TEMPORARY:
                self.connection.execute(statement)
            self.clock.start(self.mark.anchor)
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
            f"max_page_count={self._max_pages}",
        ):
            self.connection.execute(f"PRAGMA {pragma}")

    def _check_version(self) -> None:
        if self._value("PRAGMA application_id") != schema.APPLICATION_ID:
            raise StoreUnusable(f"{self.directory / DATABASE_NAME} is no store of an appliance")
        version = self._value("PRAGMA user_version")
        if version != schema.SCHEMA_VERSION:
            raise StoreUnusable(
                f"the store has schema version {version}, this appliance knows"
                f" {schema.SCHEMA_VERSION}: run the version that made it"
            )

    def _create(self) -> None:
        self.connection.executescript(
            f"BEGIN IMMEDIATE; {schema.CREATE}"
            f" INSERT INTO meta VALUES ('instance', '{secrets.token_hex(8)}');"
            f" PRAGMA application_id = {schema.APPLICATION_ID};"
            f" PRAGMA user_version = {schema.SCHEMA_VERSION}; COMMIT;"
        )
        sync_directory(self.directory)

    def _load(self) -> None:
        execute = self.connection.execute
        self.instance = self._value("SELECT value FROM meta WHERE key = 'instance'")
        self.commits, self.last_id = execute("SELECT commits, last_id FROM tail").fetchone()
        highest = self._value("SELECT max(ifnull((SELECT max(id) FROM outbox), 0),"
                              " ifnull((SELECT max(id) FROM dead), 0))")  # fmt: skip
        self.last_id = max(self.last_id, highest)
        for number, node, subject in execute("SELECT no, node, subject FROM lanes"):
            self.lanes[node, subject] = number
        self.next_lane = max(self.lanes.values(), default=0) + 1
        self.senders.load(
            execute("SELECT no, subject, sender, instance FROM senders ORDER BY no"),
            execute("SELECT sender, count(*) FROM seen GROUP BY sender"),
        )
        self.next_row_id = self._value("SELECT ifnull(max(row_id), 0) + 1 FROM inbox")
        self.dead_count = self._value("SELECT count(*) FROM dead")
        for kind, key, value in execute("SELECT kind, key, value FROM facts"):
            self.facts[kind, key] = value

    def _check_mark(self, path: Path) -> None:
        if not self.mark.exists:
            return
        if self.mark.instance != self.instance:
            raise StoreUnusable(
                f"{path} is not the database that was here before: put that one back, or remove"
                f" {MARK_NAME} to accept this one"
            )
        if self.commits < self.mark.commits:
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

    @property
    def inbox_count(self) -> int:
        """Messages taken in and not finished."""
        return 0

    @property
    def size_bytes(self) -> int:
        """What the database takes on disk."""
        return (self.directory / DATABASE_NAME).stat().st_size

    # What the writer does all day.

    def find_seen(self, items: Sequence[TakeIn]) -> Mapping[SeenKey, Known]:
        """Which of these are known, and for an unfinished one its inbox row."""
        keys: list[SeenKey] = []
        for item in items:
            if item.instance is not None:
                sender = self.senders.numbers.get((item.scope, item.sender, item.instance))
                if sender is not None:
                    keys.append((sender, item.message_id))
        if not keys:
            return {}
        found = self.connection.execute(
            "SELECT s.sender, s.id, s.row_id, s.attempt, s.verdict FROM json_each(?) AS k CROSS JOIN seen AS s"
            " WHERE s.sender = json_extract(k.value, '$[0]')"
            " AND s.id = json_extract(k.value, '$[1]')",
            (pack(keys).decode(),),
        )
        return {
            (sender, number): (row_id, attempt, verdict or "done")
            for sender, number, row_id, attempt, verdict in found.fetchall()
        }

    def apply(self, batch: Batch, last_id: int) -> None:
        """Commit a batch: all of it, or an exception and nothing."""
        self.last_id = max(self.last_id, last_id)
        commits = self.commits + 1
        self.connection.execute(schema.APPLY, batch.parameters(commits, self.last_id))
        self.commits = commits
        self.mark.advance(commits, self.clock.anchor())
        self.lanes.update(batch.lanes)
        self.next_lane += len(batch.lanes)
        self.senders.learn(batch.senders, batch.remembered)
        self.next_row_id += batch.inbox_rows
        self.dead_count += batch.dead_count

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """One commit for what is done inside, or nothing of it."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def keep_last_id(self, last_id: int) -> None:
        """Remember ids given out but never stored; after a kill those were seen by nobody."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.execute("UPDATE tail SET last_id = max(last_id, ?)", (last_id,))

    def use_reserve(self, *, allowed: bool) -> None:
        """Let settling go beyond the quota for a moment."""
        pages = self._max_pages + (RESERVE_PAGES if allowed else 0)
        self.connection.execute(f"PRAGMA max_page_count={pages}")

    def fold_log(self) -> None:
        """Move the log into the database and give its room back, as far as that works now."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
