"""Ends what is expired in lanes that no publisher has: it may not be able to start, for days.

A running publisher minds the times of its own lane (`workers.lane_sender`). One that cannot start (the broker is away, or
denies the subject) backs off, and lanes beyond the bound on publishers have none; an hour is an hour for them, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from appliance.core.names import WorkerKey
from appliance.core.retry import NO_BROKER, reason_of_expiry
from appliance.outbox.lane import Lane
from appliance.outbox.records import OutboxRecord
from appliance.telemetry.stats import WorkerStats
from appliance.workers.error_reports import REPORT_ORIGIN
from appliance.workers.router import publisher_key
from appliance.workers.services import WorkerServices

SWEEP_S = 2.0
LANES_AT_ONCE = 16
"""Then everybody else gets a turn."""

LaneReason = Callable[[str, str], str]
"""Why nothing of a lane (node, subject) goes out, in words; "" where nothing is known."""


class LaneExpiry:
    """One for a daemon; `run` belongs to its root group. `stats` count what belongs to no worker of the moment."""

    def __init__(self, parts: WorkerServices, stats: WorkerStats, lane_reason: LaneReason) -> None:
        self._parts = parts
        self._stats = stats
        self._store = parts.store
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
        why = NO_BROKER if not self._parts.bus.is_connected else self._lane_reason(node, subject)
        key = publisher_key(node, subject)
        for record in records:
            self._end(key, record, why)

    def _end(self, key: WorkerKey, record: OutboxRecord, why: str) -> None:
        lifetime_s = (record.expires_at or 0.0) - record.created_at
        reason = reason_of_expiry(round(lifetime_s, 1), why)
        telemetry = self._parts.telemetry
        if record.origin == REPORT_ORIGIN:
            self._store.settle_done([record])
            telemetry.error_report_expired(record.node, reason)
        else:
            self._stats.dead += 1
            self._store.settle_dead(record, reason)
            telemetry.message_dead(key, record.id, record.to_node, record.method, reason)
        self._parts.waiters.tell(record.id, reason)
        self._parts.jobs.concluded(record.id, reason)
        self._parts.report_given_up(record, reason)
