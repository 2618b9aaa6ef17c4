"""The inbox as operators see it: messages that were taken in and are not finished, and those that no worker takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from appliance.api import model
from appliance.core.delivery import DeliveryState
from appliance.core.times import rfc3339
from appliance.errors import StoreError
from appliance.outbox.records import InboxRow
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.workers.error_reports import ErrorReports
from appliance.workers.inbox_owners import InboxOwners

ORPHANED = "orphaned"
"""The state of a message that no worker takes: it never runs by itself."""
PIECE = 64
"""Messages that are read at once."""
ORPHAN_LOOK_S = 30.0


async def keep_orphans(
    owners: InboxOwners, telemetry: Telemetry, error_reports: ErrorReports
) -> None:
    """Have what no worker takes age, and tell log and errorCentral of what was given up, until cancelled."""
    while True:
        await asyncio.sleep(ORPHAN_LOOK_S)
        # a store that cannot now is asked again with the next look
        with contextlib.suppress(StoreError):
            for scope, count in (await owners.give_up_orphans()).items():
                telemetry.orphans_given_up(scope, count)
                node, _, method = scope.rpartition(".")
                they = "1 message was" if count == 1 else f"{count} messages were"
                text = f"{they} taken in for {method} and given up: no worker took it in time"
                error_reports.report(node, text, method=method)


def describe_row(row: InboxRow, *, is_held: bool, now: float, taken_at: str) -> model.InboxRecord:
    """One message as the API shows it."""
    state, why = str(DeliveryState.WORKING if row.started else DeliveryState.WAITING), ""
    if not is_held:
        state, why = ORPHANED, f"no worker takes {row.method} on {row.node}"
    return model.InboxRecord(
        id=row.row_id,
        from_node=row.sender,
        node=row.node,
        method=row.method,
        subject=row.subject,
        message_id=row.message_id,
        taken_at=taken_at,
        age_seconds=round(max(0.0, now - row.taken_at), 3),
        state=state,
        why=why,
        bytes=len(row.payload),
    )


class Inbox:
    """Lists and drops. What a worker has in hand is listed too, and only that worker ends it."""

    def __init__(self, store: MessageStore, owners: InboxOwners) -> None:
        self._store = store
        self._owners = owners

    async def list(self, limit: int) -> list[model.InboxRecord]:
        """The oldest unfinished messages."""
        ids = [row_id for row_id, _ in await self._store.inbox_ids()][:limit]
        found: list[model.InboxRecord] = []
        for first in range(0, len(ids), PIECE):  # bodies are large, and only their sizes are told
            rows = await self._store.read_inbox(ids[first : first + PIECE])
            # after the read, during which a worker may have taken some
            held, now = self._owners.held, self._store.now()
            found += [
                describe_row(
                    row,
                    is_held=row.row_id in held,
                    now=now,
                    taken_at=rfc3339(self._store.wall_of(row.taken_at)),
                )
                for row in rows
            ]
        return found

    async def drop(self, ids: Sequence[int] | None) -> model.Count:
        """Forget messages that no worker takes (None: all of them): how many, and how many a worker has in hand."""
        found = {row_id for row_id, _ in await self._store.inbox_ids()}
        asked = found if ids is None else found & set(ids)
        # NB: nothing is awaited between the look at what is held and the order to the store
        free = sorted(asked - set(self._owners.held))
        held_count = len(asked) - len(free)
        count = await self._store.drop_inbox(free) if free else 0
        return model.Count(count=count, held=held_count)
