"""Who has which rows of the inbox in hand, so that none is handled twice and none is forgotten.

Rows belong to a node and a method, not to a subject: where a reload changes the kind of a subject the worker that took
over gets them. What no worker takes is an orphan: it is listed, ages, and expires; it does not run weeks later because
its subject came back.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.core.names import parse_subject
from appliance.errors import SubjectInvalid
from appliance.outbox.records import InboxRow
from appliance.outbox.store import MessageStore

Adopt = Callable[[], None]
"""Tells a worker to claim rows that have become free."""

ORPHAN_KEEP_S = 86_400.0
"""How long a row that no worker takes is kept before it is given up."""
MAX_LISTED = 10_000


def scope_of(subject: str) -> str:
    """``<node>.<method>`` of a request subject: what stays when its kind changes."""
    try:
        parts = parse_subject(subject)
    except SubjectInvalid:
        return subject
    return f"{parts.node}.{parts.method}"


class InboxOwners:
    """One for all subscribers of a daemon."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store
        self._owners: dict[str, Adopt] = {}
        self.held: set[int] = set()
        """Row ids that some worker has in hand."""

    def own(self, scope: str, adopt: Adopt) -> None:
        """A worker takes this scope from now on; an earlier owner only finishes what it holds."""
        self._owners[scope] = adopt

    def disown(self, scope: str, adopt: Adopt) -> None:
        """A worker has ended: what it left goes to the one that took over, if there is one."""
        if self._owners.get(scope) == adopt:
            del self._owners[scope]
        elif scope in self._owners:
            self._owners[scope]()

    async def claim(self, node: str, method: str, scope: str) -> list[InboxRow]:
        """The rows of a scope that nobody has in hand, oldest first; they are held from now on."""
        rows = [
            row
            for row in await self._store.claim_inbox(node, method)
            if row.row_id not in self.held and scope_of(row.subject) == scope
        ]
        self.held.update(row.row_id for row in rows)
        return rows

    async def orphans(self, limit: int = MAX_LISTED) -> list[InboxRow]:
        """Rows that no worker has in hand, oldest first."""
        if self.orphan_count <= 0:
            return []
        rows = await self._store.list_inbox(limit + len(self.held))
        return [row for row in rows if row.row_id not in self.held][:limit]

    @property
    def orphan_count(self) -> int:
        """How many rows no worker has in hand; cheap."""
        return max(0, self._store.counts().inbox - len(self.held))
