"""The inbox as operators see it: messages that were taken in and are not finished, and those that no worker takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

from appliance.core.delivery import DeliveryState
from appliance.daemon.status import rfc3339
from appliance.outbox.records import InboxRow

Json = dict[str, object]

ORPHANED = "orphaned"
"""The state of a message that no worker takes: it never runs by itself."""
MAX_DROPPED_AT_ONCE = 10_000


class Rows(Protocol):
    """Where the messages lie; what operators need of the store."""

    now: Callable[[], float]
    """Steady seconds."""
    wall_of: Callable[[float], float]
    """Wall-clock seconds of a steady time."""

    async def list_inbox(self, limit: int) -> list[InboxRow]:
        """The oldest ones."""
        ...

    async def drop_inbox(self, row_ids: Sequence[int]) -> int:
        """Forget some; how many."""
        ...


@runtime_checkable
class Owners(Protocol):
    """Who has which of them in hand."""

    @property
    def held(self) -> Collection[int]:
        """Row ids that some worker has in hand."""
        ...

    @property
    def orphan_count(self) -> int:
        """How many nobody has in hand."""
        ...


def describe_row(row: InboxRow, *, is_held: bool, now: float, taken_at: str) -> Json:
    """One message as the API shows it."""
    state, why = str(DeliveryState.WORKING if row.started else DeliveryState.WAITING), ""
    if not is_held:
        state, why = ORPHANED, f"no worker takes {row.method} on {row.node}"
    return {
        "id": row.row_id,
        "from": row.sender,
        "node": row.node,
        "method": row.method,
        "subject": row.subject,
        "message_id": row.message_id,
        "taken_at": taken_at,
        "age_seconds": round(max(0.0, now - row.taken_at), 3),
        "state": state,
        "why": why,
        "bytes": len(row.payload),
    }


class Inbox:
    """Lists and drops. What a worker has in hand is listed too, and only that worker ends it."""

    def __init__(self, rows: Rows, owners: Owners) -> None:
        self._rows = rows
        self._owners = owners

    @property
    def orphan_count(self) -> int:
        """How many messages no worker takes; cheap."""
        return self._owners.orphan_count

    async def list(self, limit: int) -> list[Json]:
        """The oldest unfinished messages."""
        rows = await self._rows.list_inbox(limit)
        held, now = self._owners.held, self._rows.now()
        return [
            describe_row(
                row,
                is_held=row.row_id in held,
                now=now,
                taken_at=rfc3339(self._rows.wall_of(row.taken_at)),
            )
            for row in rows
        ]

    async def drop(self, ids: Sequence[int] | None) -> Json:
        """Forget messages that no worker takes (None: all of them): how many, and how many a worker has in hand."""
        found = {row.row_id for row in await self._rows.list_inbox(MAX_DROPPED_AT_ONCE)}
        asked = found if ids is None else found & set(ids)
        # NB: nothing is awaited between the look at what is held and the order to the store
        free = sorted(asked - set(self._owners.held))
        held_count = len(asked) - len(free)
        return {"count": await self._rows.drop_inbox(free) if free else 0, "held": held_count}
