"""The file of jobs: a database of its own beside the store, with a writer thread of its own.

What the command line asked for, and what came of it, is kept for days and may be large; messages of other traffic
must not wait for it, and a damaged file must keep nobody from starting: it is set aside, and a new one begun. A write
is durable when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.errors import StoreError, StoreFull, StoreUnusable
from appliance.outbox.database import map_error
from appliance.outbox.files import prepare_database_file, prepare_directory

FILE_NAME = "jobs.db"
DAMAGED_SUFFIX = ".damaged"
VERSION = 1
MAX_BATCH = 500
_SCHEMA = """
    CREATE TABLE job (key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL,
        is_accepted INTEGER NOT NULL, facts BLOB NOT NULL);
    CREATE TABLE target (key INTEGER PRIMARY KEY, job INTEGER NOT NULL, message INTEGER,
        is_open INTEGER NOT NULL, kind TEXT NOT NULL, facts BLOB NOT NULL, state BLOB NOT NULL);
    CREATE INDEX target_job ON target (job);
    CREATE INDEX target_message ON target (message);
    CREATE INDEX target_open ON target (key) WHERE is_open;
    CREATE TABLE piece (seq INTEGER PRIMARY KEY, job INTEGER NOT NULL, target INTEGER NOT NULL,
        source TEXT, stream TEXT NOT NULL, data BLOB NOT NULL);
    CREATE INDEX piece_job ON piece (job);
    CREATE INDEX piece_target ON piece (target);
    CREATE UNIQUE INDEX piece_source ON piece (target, source)
"""
_TABLES = ("job", "target", "piece")
_COUNT_TABLES = f"SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN {_TABLES}"

Statement = tuple[str, Sequence[Any]]
Row = tuple[Any, ...]
Work = Callable[[sqlite3.Connection], Any]


class _Unusable(sqlite3.DatabaseError):
    """It can be read, and is none of ours."""


class JobFile:
    """Made by `open`, ended by `close`; used on the event loop."""

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._connection: sqlite3.Connection | None = None
        self._is_troubled = False
        self._thread = threading.Thread(target=self._run, name="job writer", daemon=True)

    @classmethod
    async def open(cls, state_dir: Path, report: Callable[[str], None]) -> JobFile:
        """Open or make the file; `report` is told of trouble, in words.

        A file that cannot be used is set aside. Where none can be made at all, every write fails with a StoreError.
        """
        file = cls(state_dir / FILE_NAME, report)
        await asyncio.to_thread(prepare_directory, state_dir)
        file._thread.start()
        # what is wrong is told, and shows with the first write
        with contextlib.suppress(StoreError):
            await file.read("SELECT 1")
        return file

    async def write(self, statements: Sequence[Statement]) -> None:
        """Do all of them or none; durable when this returns.

        Raises:
            StoreError: nothing was written.
        """

        def work(connection: sqlite3.Connection) -> None:
            for text, values in statements:
                connection.execute(text, values).fetchall()

        await self._submit(work)

    async def read(self, text: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows of a question. Raises StoreError."""
        found: list[Row] = await self._submit(
            lambda connection: connection.execute(text, values).fetchall()
        )
        return found

    async def close(self) -> None:
        """After everything that was handed over."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _submit(self, work: Work) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put((work, future))
        return future

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        is_over = False
        while not is_over:
            batch = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) >= MAX_BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            is_over = item is None
            if batch:
                self._do(batch)
        if self._connection is not None:
            self._connection.close()

    def _do(self, batch: list[tuple[Work, asyncio.Future[Any]]]) -> None:
        """One commit for all; where that fails each alone, so that one's trouble is nobody else's."""
        outcomes = self._attempt([work for work, _ in batch])
        if isinstance(outcomes, StoreError) and len(batch) > 1:
            singly = [self._attempt([work]) for work, _ in batch]
            results = [one if isinstance(one, StoreError) else one[0] for one in singly]
        elif isinstance(outcomes, StoreError):
            results = [outcomes]
        else:
            results = outcomes
        self._tell_trouble(results)
        futures = [future for _, future in batch]
        # the loop is gone where the daemon was torn down, and whoever waited with it
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_tell, futures, results)

    def _tell_trouble(self, results: Sequence[Any]) -> None:
        """Once, until it works again."""
        troubles = [result for result in results if isinstance(result, StoreError)]
        if troubles and not self._is_troubled:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._report, f"jobs are not kept: {troubles[0]}")
        self._is_troubled = bool(troubles)

    def _attempt(self, works: Sequence[Work]) -> list[Any] | StoreError:
        try:
            return self._commit(works)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                self._roll_back()
                return map_error(error)
            self._set_aside(str(error))
        except OSError as error:
            return StoreFull(f"{self._path} cannot be used: {error.strerror or error}")
        except sqlite3.Error as error:
            return map_error(error)
        try:
            return self._commit(works)
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            return StoreUnusable(f"{self._path} cannot be used: {error}")

    def _commit(self, works: Sequence[Work]) -> list[Any]:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        results = [work(connection) for work in works]
        connection.execute("COMMIT")
        return results

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        prepare_database_file(self._path)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            # a job is promised like its messages: a power cut takes neither
            connection.execute("PRAGMA synchronous = FULL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise _Unusable(f"version {version} is of a later program")
            ((said,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
            if said != "ok":
                raise _Unusable(str(said))
            ((tables,),) = connection.execute(_COUNT_TABLES).fetchall()
            if version and tables != len(_TABLES):
                raise _Unusable("tables are missing")
            if not version:
                connection.execute("BEGIN")
                for text in _SCHEMA.split(";"):
                    connection.execute(text)
                connection.execute(f"PRAGMA user_version = {VERSION}")
                connection.execute("COMMIT")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _set_aside(self, why: str) -> None:
        """Begin anew beside what cannot be read; the newest of those is kept for whoever wants to look."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        aside = self._path.with_name(f"{FILE_NAME}{DAMAGED_SUFFIX}")
        with contextlib.suppress(OSError):
            os.replace(self._path, aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path}{suffix}")
        said = f"the file of jobs was damaged ({why}): it is {aside}, and jobs begin anew"
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._report, said)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is the trouble, and not the disk, the moment or the question."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or isinstance(error, _Unusable)


def _tell(futures: list[asyncio.Future[Any]], results: list[Any]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue  # its caller was cancelled
        if isinstance(result, StoreError):
            future.set_exception(result)
        else:
            future.set_result(result)
