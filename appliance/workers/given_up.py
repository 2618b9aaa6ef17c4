"""Dead letters are news: the errorCentral of the node that asked hears of what was given up, with the reason.

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
from appliance.core.escape import escape_line
from appliance.errors import StoreError
from appliance.outbox.records import OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.workers.error_reports import ERROR_LOG_METHOD, REPORT_ORIGIN, ErrorReports

FACT_KIND = "given up"
"""Of the facts that tell, by node, what was given up while there was no connection: count, last text, its method."""
MAX_REASON_CHARACTERS = 1_000


def is_report(record: OutboxRecord) -> bool:
    """Whether a record is a report of this daemon to errorCentral. Where nobody takes it, it leaves no dead letter."""
    return record.origin == REPORT_ORIGIN


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
        if is_report(record) or record.method == ERROR_LOG_METHOD:
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
