"""The writer thread: takes all operations that are queued, makes one commit of them, reports once.

While one commit waits for the disk the next batch gathers, so the batch grows with the load. What
publishers concluded (`Settle`, `Bury`) is never given up: when the disk is full it is tried without
the rest, with a reserve, and kept in memory until it goes through. What asks for room (`Put`, then
`Take` and `Finish`) fails with StoreFull, whole, and its caller decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from appliance.errors import StoreError, StoreFull, StoreUnusable
from appliance.outbox import queries
from appliance.outbox.blobs import encode_body
from appliance.outbox.composing import Composer
from appliance.outbox.database import CommitPlan, Database, StoreBusy, StoreReadOnly, map_error
from appliance.outbox.ids import IdSource
from appliance.outbox.maintenance import Maintenance
from appliance.outbox.operations import (
    Annotate,
    Bury,
    Call,
    Finish,
    Moved,
    Operation,
    Put,
    Settle,
    Stop,
    Take,
    measure,
)
from appliance.outbox.patience import Patience, Together
from appliance.outbox.records import HealthState
from appliance.outbox.texts import pack

MAX_BATCH_ROWS = 1_000
MAX_BATCH_BYTES = 8 * 1024 * 1024
BUSY_WAIT_S = 0.05
KEPT_RETRY_S = 0.2
HOUSEKEEPING_S = 5.0
HOUSEKEEPING_BUSY_S = 0.1
SHORT_OF_ROOM_S = 0.5
SETTLE_PIECE = 64

_ALONE = (Call, Stop)
_SETTLING = (Settle, Bury)
# NB: tuples, since a union is made anew each time that it is written

Ended = tuple[Operation | Call | Stop | Moved, StoreError | None, Any]
"""An operation that has ended: why it failed, and for a `Call` what it returned."""


class Writer:
    """Owns the thread and, while it runs, the database."""

    def __init__(
        self,
        database: Database,
        *,
        loop: asyncio.AbstractEventLoop,
        mono: Callable[[], float],
        ids: IdSource,
        on_outcomes: Callable[[list[Ended]], None],
    ) -> None:
        self._database = database
        self._loop = loop
        self._maintenance = Maintenance(database)
        self._no_room = ""
        self._is_read_only = False
        self._mono = mono
        self.waiting_since_mono: float | None = None
        self._ids = ids
        self._on_outcomes = on_outcomes
        self._queue: queue.SimpleQueue[Together] = queue.SimpleQueue()
        self._patience = Patience(loop, self._queue.put, lambda: not self._queue.empty())
        self._kept: list[Operation] = []
        self._is_short_of_room = False
        self._broken: StoreError | None = None
        self._is_stopping = False
        self._housekeeping_due_mono = 0.0
        self._space_due_mono = 0.0
        self._runner = threading.Thread(target=self._run, name="store writer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._runner.start()

    def submit(self, operation: Operation | Call | Stop) -> None:
        """Hand an operation over; it is answered on the loop, by which this is called."""
        operation.since_mono = self._mono()
        self._patience.pass_on(operation)

    def join(self) -> None:
        """Wait for the thread's end; after `Stop` only."""
        self._runner.join()

    def trouble(self) -> tuple[HealthState, str]:
        """What keeps the store from working, as far as the writer knows."""
        if self._broken is not None:
            return HealthState.BROKEN, str(self._broken)
        if self._is_read_only:
            return HealthState.READ_ONLY, "the file system of the state directory takes no writes"
        if self._is_short_of_room or self._kept or self._no_room:
            return HealthState.FULL, self._no_room or "no room on the disk: waiting for space"
        troubles = self._database.troubles
        if troubles.damage:
            return HealthState.DAMAGED, troubles.damage
        return HealthState.OK, troubles.warning

    # The thread.

    def _run(self) -> None:
        while True:
            operations, last = self._gather()
            # before what runs alone, which so sees everything that was handed over before it
            if operations or self._kept:
                oldest = self._kept[0] if self._kept else operations[0]
                self.waiting_since_mono = oldest.since_mono
                self._commit(operations)
            if self._maintenance.is_flush_due and self._broken is None:
                with contextlib.suppress(sqlite3.Error, StoreError):
                    self._maintenance.flush()
            if isinstance(last, Stop):
                self._say_goodbye()
                self._report([(last, None, None)])
                return
            if last is not None:
                self._call(last)
            if time.monotonic() >= self._housekeeping_due_mono:
                self._keep_house()

    def _gather(self) -> tuple[list[Operation], Call | Stop | None]:
        """Everything queued, up to the bounds of a batch and to the first operation that runs
        alone.
        """
        operations: list[Operation] = []
        measured = rows = size_bytes = 0
        first_wait_s = HOUSEKEEPING_S
        if self._kept:
            first_wait_s = KEPT_RETRY_S
        elif self._is_short_of_room:
            first_wait_s = SHORT_OF_ROOM_S
        try:
            together = self._queue.get(timeout=first_wait_s)
        except queue.Empty:
            return operations, None
        while True:
            for operation in together:
                if isinstance(operation, _ALONE):  # the last of them
                    self._is_stopping = isinstance(operation, Stop)
                    return operations, operation
                operations.append(operation)
            if self._queue.empty():  # nobody else takes from it
                return operations, None
            for operation in operations[measured:]:
                operation_rows, operation_bytes = measure(operation)
                rows += operation_rows
                size_bytes += operation_bytes
            if rows >= MAX_BATCH_ROWS or size_bytes >= MAX_BATCH_BYTES:
                return operations, None
            measured = len(operations)
            together = self._queue.get_nowait()

    def _report(self, outcomes: list[Ended]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._on_outcomes, outcomes)

    # Committing.

    def _commit(self, fresh: list[Operation]) -> None:
        operations = self._kept + fresh
        self._kept = []
        outcomes: list[Ended] = []
        if self._is_short_of_room:
            # not even tried: it would eat the room that settling needs, which is what makes room again
            full = StoreFull("no room on the disk: waiting for space before taking more")
            operations = self._fail(operations, Put, full, outcomes)
        while operations and self._broken is None:
            try:
                self._apply(operations)
            except StoreFull as error:
                self._is_read_only = (
                    isinstance(error, StoreReadOnly) or self._maintenance.is_read_only()
                )
                if not self._database.is_tight:
                    self._database.is_tight = True  # what can go goes with the next try
                    continue
                operations = self._make_do(operations, error, outcomes)
            except StoreBusy as error:
                if self._is_stopping:
                    # somebody else holds the lock; a stop cannot wait for him for ever
                    self._broken = error
                time.sleep(BUSY_WAIT_S)
            except StoreError as error:
                self._broken = error
            except Exception as error:  # noqa: BLE001 - the boundary: the thread must answer
                # one caller's values must not fail what the others have in the same commit
                bad = self._find_bad(operations)
                if not bad:
                    text = f"internal error: {type(error).__name__}: {error}"
                    self._broken = StoreUnusable(text)
                    break
                outcomes += bad
                refused = {id(operation) for operation, _, _ in bad}
                operations = [other for other in operations if id(other) not in refused]
            else:
                outcomes += [(operation, None, None) for operation in operations]
                # that settling went through says nothing of the room: it has a reserve of its own
                if not all(isinstance(one, _SETTLING) for one in operations):
                    self._no_room, self._is_read_only = "", False
                operations = []
        if self._broken is not None:
            outcomes += [(operation, self._broken, None) for operation in operations]
        self.waiting_since_mono = self._kept[0].since_mono if self._kept else None
        if outcomes:
            self._report(outcomes)

    def _make_do(
        self, operations: list[Operation], error: StoreError, outcomes: list[Ended]
    ) -> list[Operation]:
        """No room for all of it: settle alone, since that makes room; what to try next."""
        settled: list[Operation] = [one for one in operations if isinstance(one, Settle | Bury)]
        others: list[Operation] = [one for one in operations if not isinstance(one, Settle | Bury)]
        if settled:
            # first, since it makes room; the others are tried again after it
            self._settle_in_pieces(settled, outcomes)
            return others
        self._no_room = str(error)
        for kinds in (Put, Take | Finish | Annotate):
            left = self._fail(others, kinds, error, outcomes)
            if len(left) < len(others):
                return left
        raise AssertionError(others)

    def _settle_in_pieces(self, operations: Sequence[Operation], outcomes: list[Ended]) -> None:
        """Settle in spite of a full quota, then of a full disk. What fails all the same is kept.

        In pieces, because each needs room in the log until it is folded into the database.
        """
        database = self._database
        pieces = deque(_split(operations))
        try:
            database.use_reserve(allowed=True)
            while pieces:
                try:
                    self._apply([pieces[0]])
                except StoreFull:
                    database.fold_log()
                    if not self._try_again(pieces[0]):
                        # the last resort: room that was held for this moment
                        if not database.ballast.release():
                            break
                        self._is_short_of_room = True
                        self._space_due_mono = self._housekeeping_due_mono = 0.0
                        continue
                outcomes.append((pieces.popleft(), None, None))
            database.use_reserve(allowed=False)
        except (StoreBusy, sqlite3.Error):
            pass  # NB: whatever it was, the pieces left are kept and tried again
        self._kept = list(pieces)

    def _try_again(self, operation: Operation) -> bool:
        try:
            self._apply([operation])
        except StoreFull:
            return False
        return True

    @staticmethod
    def _fail(
        operations: list[Operation], kinds: Any, error: StoreError, outcomes: list[Ended]
    ) -> list[Operation]:
        outcomes += [(one, error, None) for one in operations if isinstance(one, kinds)]
        return [one for one in operations if not isinstance(one, kinds)]

    def _apply(self, operations: Sequence[Operation]) -> None:
        try:
            plan = Composer(self._database).compose(operations)
            if not plan.is_empty:
                self._database.commit(plan, self._ids.last)
        except sqlite3.DataError as error:
            raise StoreFull(f"too large for one commit: {error}") from error
        except sqlite3.Error as error:
            raise map_error(error) from error

    def _find_bad(self, operations: Sequence[Operation]) -> list[Ended]:
        """Operations whose values cannot be stored; only their own callers hear of it."""
        bad: list[Ended] = []
        for operation in operations:
            try:
                plan = Composer(self._database).compose([operation])
                encode_body(plan.content, 0.0)
                pack([*plan.facts.items()]).decode()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this operation's
                bad.append((operation, StoreUnusable(f"cannot be stored: {error}"), None))
        return bad

    # Everything else.

    def _call(self, call: Call) -> None:
        if self._broken is not None:
            self._report([(call, self._broken, None)])
            return
        try:
            result = call.function(self._database)
        except sqlite3.Error as error:
            mapped = map_error(error)
            if isinstance(mapped, StoreUnusable):
                # a damaged file is damaged for everybody, whoever met it first
                self._broken = mapped
            self._report([(call, mapped, None)])
        except StoreError as error:
            self._report([(call, error, None)])
        except Exception as error:  # noqa: BLE001 - the boundary: the thread must answer
            text = f"internal error: {type(error).__name__}: {error}"
            self._report([(call, StoreUnusable(text), None)])
        else:
            self._report([(call, None, result)])

    def _keep_house(self) -> None:
        """Prune in slices, give space back, hold room again. Trouble here is met again by real
        work.
        """
        now = time.monotonic()
        interval_s = SHORT_OF_ROOM_S if self._is_short_of_room else HOUSEKEEPING_S
        self._housekeeping_due_mono = now + interval_s
        if self._broken is not None:
            return
        # without a commit too: how much time has passed must be known after a restart
        self._database.mark.advance(self._database.commits, self._database.clock.anchor())
        with contextlib.suppress(sqlite3.Error, StoreError):
            if self._is_read_only:
                self._is_read_only = self._maintenance.is_read_only()
            self._move_stragglers()
            if self._maintenance.forget():
                self._housekeeping_due_mono = now + HOUSEKEEPING_BUSY_S
            self._maintenance.delete_gone()
        if now < self._space_due_mono:
            return
        self._space_due_mono = now + interval_s
        with contextlib.suppress(sqlite3.Error):
            self._maintenance.give_back_space(urgently=self._is_short_of_room)
        self._database.ballast.restore()
        if self._database.ballast.is_held:
            self._is_short_of_room = False
        with contextlib.suppress(sqlite3.Error, OSError):
            if self._maintenance.has_room():
                self._no_room = ""
                self._database.is_tight = False

    def _move_stragglers(self) -> None:
        if self._database.segments.forwards:
            return  # the loop has yet to learn where the last ones are
        compacted = queries.move_stragglers(self._database, urgently=self._database.is_tight)
        if compacted is None:
            return
        # there may be more of them: the next slice follows the next batch
        self._housekeeping_due_mono = 0.0
        if compacted.by_lane:
            self._report([(Moved(compacted.by_lane, compacted.old_places), None, None)])

    def _say_goodbye(self) -> None:
        """Remember ids given out but never stored; after a kill those were seen by nobody."""
        with contextlib.suppress(sqlite3.Error, StoreError):
            if self._broken is None and self._ids.last > self._database.last_id:
                self._database.commit(CommitPlan(), self._ids.last)
            self._maintenance.delete_gone()


def _split(operations: Sequence[Operation]) -> Iterator[Operation]:
    for operation in operations:
        if not isinstance(operation, Settle):
            yield operation
            continue
        for first in range(0, len(operation.done), SETTLE_PIECE):
            yield Settle(done=operation.done[first : first + SETTLE_PIECE])
        tries = list(operation.tries.items())
        for first in range(0, len(tries), SETTLE_PIECE):
            yield Settle(tries=dict(tries[first : first + SETTLE_PIECE]))
