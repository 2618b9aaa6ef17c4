"""What ends without delivery: who hears of it, how it ends where no publisher runs, and when it is tried again.

Dead letters are news: the errorCentral of the node that asked hears of what was given up, with the reason.

Through the same queue as other reports and with a rate of its own, so that a node which is away for good silences
nothing else. A report that is given up is not reported: nobody would hear it, and errors must not cause one another.

While there is no connection nobody can hear of it. What was given up meanwhile is counted, on disk, and told by number
when there is one: a link that was down for days leaves one line, and not a thousand reports that wait among messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import NamedTuple

from appliance.bus.base import Bus
from appliance.core.current import Current
from appliance.core.delivery import UNANSWERED_BEFORE
from appliance.core.escape import escape_line
from appliance.core.names import WorkerKey
from appliance.core.retry import NO_BROKER, reason_of_expiry
from appliance.core.specs import DesiredState
from appliance.errors import StoreError
from appliance.outbox.ids import id_time
from appliance.outbox.lane import Lane
from appliance.outbox.records import AWAITED_ORIGIN, OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import WorkerStats
from appliance.workers.error_reports import ERROR_LOG_METHOD, REPORT_ORIGIN, ErrorReports
from appliance.workers.router import publisher_key
from appliance.workers.services import WorkerServices

FACT_KIND = "given up"
"""Of the facts that tell, by node, what was given up while there was no connection: count, last text, its method."""
MAX_REASON_CHARACTERS = 1_000


class _Untold(NamedTuple):
    number: int
    text: str
    method: str

    def __str__(self) -> str:
        if self.number == 1:
            return self.text
        return f"gave up {self.number} messages while there was no connection to the broker, the last: {self.text}"


class GivenUp:
    """Told of every record that becomes a dead letter. One for a daemon; `close` it before the store."""

    def __init__(self, error_reports: ErrorReports, store: MessageStore, bus: Bus) -> None:
        self._error_reports = error_reports
        self._store = store
        self._bus = bus
        self._untold: dict[str, _Untold] = {}
        self._changed: set[str] = set()
        self._saving: asyncio.Task[None] | None = None
        for node, value in store.facts(FACT_KIND).items():
            with contextlib.suppress(ValueError, TypeError):
                self._untold[node] = _Untold(*json.loads(value))
        self._end_watching: Callable[[], None] = bus.on_connected(self._tell)
        if bus.is_connected:
            self._tell()

    def report_given_up(self, record: OutboxRecord, reason: str) -> None:
        """Call once, when a record of a publisher has ended without delivery. `reason` is the dead letter's."""
        if record.origin in (REPORT_ORIGIN, AWAITED_ORIGIN) or record.method == ERROR_LOG_METHOD:
            return
        # NB: a reason may quote the other side
        words = escape_line(reason[:MAX_REASON_CHARACTERS])
        text = f"gave up message {record.id}, {record.method} to {record.to_node} on {record.subject}: {words}"
        if self._bus.is_connected:
            self._error_reports.report(record.node, text, method=record.method, is_given_up=True)
            return
        before = self._untold.get(record.node)
        number = 1 if before is None else before.number + 1
        self._untold[record.node] = _Untold(number, text, record.method)
        self._save(record.node)

    def _tell(self) -> None:
        """There is a connection."""
        untold, self._untold = self._untold, {}
        for node, one in untold.items():
            self._error_reports.report(node, str(one), method=one.method, is_given_up=True)
            self._save(node)

    def _save(self, node: str) -> None:
        self._changed.add(node)
        if self._saving is None or self._saving.done():
            self._saving = asyncio.get_running_loop().create_task(
                self._save_changed(), name="remember what was given up"
            )

    async def _save_changed(self) -> None:
        while self._changed:
            # in rounds: what is given up while this is written is written with the next
            changed, self._changed = self._changed, set()
            now = {node: self._untold.get(node) for node in changed}
            values = {node: None if one is None else json.dumps(one) for node, one in now.items()}
            # a full disk only means that a restart forgets how many it were; they are dead letters all the same
            with contextlib.suppress(StoreError):
                await self._store.remember(FACT_KIND, values)

    async def close(self) -> None:
        """Wait for what is being remembered."""
        self._end_watching()
        if self._saving is not None:
            await asyncio.wait({self._saving})


# Ends what is expired in lanes that no publisher has: it may not be able to start, for days.
#
# A running publisher minds the times of its own lane (`workers.lane_sender`). One that cannot start (the broker is away, or
# denies the subject) backs off, and lanes beyond the bound on publishers have none; an hour is an hour for them, too.

SWEEP_S = 2.0
LANES_AT_ONCE = 16
"""Then everybody else gets a turn."""

LaneReason = Callable[[str, str], str]
"""Why nothing of a lane (node, subject) goes out, in words; "" where nothing is known."""


class LaneExpiry:
    """One for a daemon; `run` belongs to its root group. `stats` count what belongs to no worker of the moment."""

    def __init__(
        self, services: WorkerServices, stats: WorkerStats, lane_reason: LaneReason
    ) -> None:
        self._services = services
        self._stats = stats
        self._store = services.store
        self._lane_reason = lane_reason

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()

    async def sweep(self) -> None:
        """End what is expired now. What is on disk only is read for the next time."""
        looked_at = 0
        for key in sorted(self._store.lanes_with_records()):
            lane = self._store.lane(key)
            # its publisher runs, and minds the times itself
            if lane.on_wake is not None:
                continue
            self._end_expired(lane)
            looked_at += 1
            if not looked_at % LANES_AT_ONCE:
                await asyncio.sleep(0)

    def _end_expired(self, lane: Lane) -> None:
        # takes none, but has what is on disk only read into memory for the next sweep
        lane.take(0)
        records = lane.take_expired(self._store.now())
        if not records:
            return
        node, subject = lane.key
        why = NO_BROKER if not self._services.bus.is_connected else self._lane_reason(node, subject)
        key = publisher_key(node, subject)
        for record in records:
            self._end(key, record, why)

    def _end(self, key: WorkerKey, record: OutboxRecord, why: str) -> None:
        lifetime_s = (record.expires_at or 0.0) - record.created_at
        reason = reason_of_expiry(round(lifetime_s, 1), why)
        telemetry = self._services.telemetry
        if record.origin == REPORT_ORIGIN:
            self._store.settle_done([record])
            telemetry.error_report_expired(record.node, reason)
        elif record.origin == AWAITED_ORIGIN:
            self._store.settle_done([record])
        else:
            self._stats.dead += 1
            self._store.settle_dead(record, reason)
            telemetry.message_dead(key, record.id, record.to_node, record.method, reason)
        self._services.waiters.tell(record.id, reason)
        self._services.jobs.concluded(record.id, reason)
        self._services.report_given_up(record, reason)


# Tries dead letters of an earlier version again whose node has turned out to be there.
#
# That version gave up after a few tries that nobody answered. A line that was dark for minutes left dead letters so, and
# nobody looks through them. They are sent again when the node says hello, as an operator would with `outbox retry`, as long
# as its memory of ids tells a message that it had done all the same.


class Revival:
    """One for a daemon; `close` it before the store. How long ids are remembered is as the set in force says."""

    def __init__(
        self, store: MessageStore, telemetry: Telemetry, desired: Current[DesiredState]
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._desired = desired
        self._asked: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def node_seen(self, node: str) -> None:
        """An appliance of the config said hello. Once for each node in a run: no new ones come."""
        if node in self._asked:
            return
        self._asked.add(node)
        if not self._store.counts().dead:
            return
        task = asyncio.get_running_loop().create_task(self._revive(node), name=f"revive {node}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _revive(self, node: str) -> None:
        try:
            found = await self._store.find_dead(node, UNANSWERED_BEFORE)
            oldest_at = self._store.now() - self._desired.value.state.dedupe_window_s
            ids = [number for number in found if id_time(number) > oldest_at]
            if ids:
                self._telemetry.letters_revived(node, await self._store.retry_dead(ids))
        except StoreError:
            self._asked.discard(node)  # with its next hello

    async def close(self) -> None:
        """End what is under way; what is not begun is found in the next run."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
