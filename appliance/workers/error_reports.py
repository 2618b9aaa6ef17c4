"""Reports to errorCentral of what failed, was refused or given up.

They are made where a worker must not wait, so they go through one bounded queue and one loop. They are rate-limited,
never speak about error reports, and stop when a thousand of them already wait for an errorCentral that does not answer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from appliance.core.current import Current
from appliance.core.hidden import Hiding
from appliance.core.message import Message
from appliance.core.names import ERROR_CENTRAL
from appliance.core.specs import DesiredState
from appliance.core.times import rfc3339
from appliance.errors import RequestInvalid, StoreError
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.workers.router import Router, lane_key

ERROR_LOG_METHOD = "REQErrorLog"
REPORT_ORIGIN = "report"
"""The origin of records that are reports: where nobody takes them they are dropped and counted, and no dead letter."""
MAX_QUEUED = 1_000
MAX_WAITING_REPORTS = 1_000
MAX_REPORT_CHARACTERS = 8_192


@dataclass(frozen=True, slots=True)
class _Report:
    node: str
    text: str


class _Rate:
    """So many reports a minute; counts those that were one too many."""

    def __init__(self) -> None:
        self._window_start_mono = -math.inf
        self._in_window = 0
        self.suppressed = 0

    def enter(self, now_mono: float, per_minute: int, *, is_full: bool) -> int | None:
        """None if this one is too many; else how many were, since the last minute began."""
        told = 0
        if now_mono - self._window_start_mono >= 60.0:
            self._window_start_mono = now_mono
            self._in_window = 0
            told, self.suppressed = self.suppressed, 0
        if self._in_window >= per_minute or is_full:
            self.suppressed += 1 + told
            return None
        self._in_window += 1
        return told


_ABOUT = ((False, False), (True, False), (False, True))
"""What is counted apart: failures, refusals, dead letters."""


class ErrorReports:
    """Owns the queue; `run` belongs to the daemon's root group."""

    def __init__(
        self,
        *,
        store: MessageStore,
        router: Router,
        telemetry: Telemetry,
        desired: Current[DesiredState],
        wall: Callable[[], float],
        mono: Callable[[], float] = time.monotonic,
        hiding: Hiding | None = None,
    ) -> None:
        self._hiding = hiding or Hiding()
        self._store = store
        self._router = router
        self._telemetry = telemetry
        self._desired = desired
        self._wall = wall
        self._mono = mono
        self._queue: asyncio.Queue[_Report] = asyncio.Queue(MAX_QUEUED)
        self._rates = {about: _Rate() for about in _ABOUT}

    def report(
        self,
        node: str,
        text: str,
        *,
        method: str,
        is_refusal: bool = False,
        is_given_up: bool = False,
    ) -> None:
        """Tell errorCentral, in `node`'s name. A failure of an error report is not reported.

        Refused messages and dead letters count apart: whoever sends garbage, or is away, must not silence the failures of
        real work.
        """
        if method == ERROR_LOG_METHOD:
            return
        # judged before anything is queued: a flood of failures must cost no more than a count
        suppressed = self._rates[is_refusal, is_given_up].enter(
            self._mono(),
            self._desired.value.limits.error_reports_per_minute,
            is_full=self._queue.full(),
        )
        if suppressed is None:
            self._telemetry.error_report_held_back()
            return
        if suppressed:
            text = f"{text} ({suppressed} earlier reports suppressed)"
            self._telemetry.error_report_suppressed(suppressed)
        self._queue.put_nowait(_Report(node, self._hiding.text(text)))

    async def run(self) -> None:
        """Send what is queued, until cancelled."""
        while True:
            item = await self._queue.get()
            await self._store_report(item)

    async def _store_report(self, item: _Report) -> None:
        stamp = rfc3339(self._wall())
        text = item.text[:MAX_REPORT_CHARACTERS]
        message = Message(
            to_node=ERROR_CENTRAL,
            from_node=item.node,
            method=ERROR_LOG_METHOD,
            data=(f"{stamp}, node: {item.node}, {text}\n",),
            directory="errorLog",
            file_name="error.log",
        )
        try:
            spec = self._router.publisher_for(item.node, ERROR_CENTRAL, ERROR_LOG_METHOD)
            # an errorCentral that is away for days must not fill the outbox
            waiting = self._store.lane(lane_key(spec)).depth
            if waiting >= MAX_WAITING_REPORTS or self._store.is_crowded:
                self._rates[False, False].suppressed += 1
                self._telemetry.error_report_held_back()
                return
            record = self._router.make_record(message)
            record.origin = REPORT_ORIGIN
            await self._store.put([record])
        except (RequestInvalid, StoreError) as error:
            self._telemetry.error_report_lost(item.node, str(error))
