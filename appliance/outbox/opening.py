"""Opens the file of a store, if it is the one that was here: all of it, by this program, of a version that is known."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from appliance.errors import StoreUnusable
from appliance.outbox import schema
from appliance.outbox.files import (
    DATABASE_NAME,
    MARK_NAME,
    Mark,
    prepare_database_file,
    sync_directory,
)
from appliance.outbox.steady import SteadyClock

PAGE_BYTES = 4096
BUSY_TIMEOUT_MS = 2_000


def open_connection(
    path: Path, mark: Mark, clock: SteadyClock, max_pages: int
) -> tuple[sqlite3.Connection, str, int]:
    """The connection, the store's instance, and how many commits there were.

    Raises:
        StoreUnusable: it is not what was here before, or nothing of ours.
        sqlite3.Error: it cannot be opened, or the disk fails.
    """
    if mark.exists and (not path.exists() or path.stat().st_size == 0):
        raise StoreUnusable(
            f"{path} is missing or empty, but a database was here: put it back, or remove"
            f" {MARK_NAME} to begin with an empty store (its messages are then given up)"
        )
    prepare_database_file(path)
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
    )
    try:
        return connection, *_prepare(connection, path, mark, clock, max_pages)
    except BaseException:
        connection.close()
        raise


def _prepare(
    connection: sqlite3.Connection, path: Path, mark: Mark, clock: SteadyClock, max_pages: int
) -> tuple[str, int]:
    is_fresh = not mark.exists and not _value(connection, "SELECT 1 FROM sqlite_master")
    if is_fresh:
        _configure(connection, max_pages, is_fresh=True)
        return _create(connection, path), 0
    # NB: nothing is written to a file that may yet be refused
    version = _check_version(connection, path, mark)
    instance = _value(connection, "SELECT value FROM meta WHERE key = 'instance'")
    if mark.exists and mark.instance != instance:
        raise StoreUnusable(
            f"{path} is not the database that was here before: put that one back, or remove"
            f" {MARK_NAME} to accept this one"
        )
    old = "SELECT commits FROM tail" if version == 1 else "SELECT max(seq) FROM log"
    commits = _value(connection, old) or 0
    _check_commits(path, mark, commits)
    _configure(connection, max_pages, is_fresh=False)
    if version == 1:
        from appliance.outbox import takeover

        clock.start(mark.anchor)
        takeover.take_over(connection, clock.anchor())
        commits = _value(connection, "SELECT max(seq) FROM log")
    return instance, commits


def _configure(connection: sqlite3.Connection, max_pages: int, *, is_fresh: bool) -> None:
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
        f"max_page_count={max_pages}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _check_version(connection: sqlite3.Connection, path: Path, mark: Mark) -> int:
    if _value(connection, "PRAGMA application_id") != schema.APPLICATION_ID:
        if mark.exists and not _value(connection, "SELECT 1 FROM sqlite_master"):
            # as a young store is that was copied by its name alone
            raise StoreUnusable(
                f"{path} holds nothing without {DATABASE_NAME}-wal, which is missing: put both back, or remove"
                f" {MARK_NAME} to begin with an empty store (its messages are then given up)"
            )
        raise StoreUnusable(
            f"{path} is no store of an appliance: move it away, or name another directory by --state-dir"
        )
    version = _value(connection, "PRAGMA user_version")
    if version not in (1, schema.SCHEMA_VERSION):
        raise StoreUnusable(
            f"the store has schema version {version}, this appliance knows"
            f" {schema.SCHEMA_VERSION}: run the version that made it"
        )
    return int(version)


def _create(connection: sqlite3.Connection, path: Path) -> str:
    instance = secrets.token_hex(8)
    connection.executescript(
        f"BEGIN IMMEDIATE; {schema.META} {schema.TABLES}"
        f" INSERT INTO meta VALUES ('instance', '{instance}');"
        f" PRAGMA application_id = {schema.APPLICATION_ID};"
        f" PRAGMA user_version = {schema.SCHEMA_VERSION}; COMMIT;"
    )
    sync_directory(path.parent)
    return instance


def _check_commits(path: Path, mark: Mark, commits: int) -> None:
    if not mark.exists or commits >= mark.commits:
        return
    # copied before it is closed: SQLite removes the log then, with what it could not read
    log = path.with_name(f"{path.name}-wal")
    with contextlib.suppress(OSError):
        shutil.copy2(log, path.with_name(f"{path.name}-wal.damaged"))
    raise StoreUnusable(
        f"the last {mark.commits - commits} commits of {path} are missing: its write-ahead log is damaged"
        f" (kept as {DATABASE_NAME}-wal.damaged) or the file is an older copy; remove"
        f" {MARK_NAME} to go on without them"
    )


def _value(connection: sqlite3.Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None
