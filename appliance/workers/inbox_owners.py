"""Who has which rows of the inbox in hand, so that none is handled twice and none is forgotten.

Rows belong to a node and a method, not to a subject: where a reload changes the kind of a subject the worker that took
over gets them. What no worker takes is an orphan: it is listed, ages, and expires; it does not run weeks later because
its subject came back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice

from appliance.core.names import parse_subject
from appliance.errors import SubjectInvalid
from appliance.outbox.records import InboxRow
from appliance.outbox.store import MessageStore

Adopt = Callable[[], None]
"""Tells a worker to claim rows that have become free."""

ORPHAN_KEEP_S = 86_400.0
"""How long a row that no worker takes is kept before it is given up."""
MAX_NOTED = 10_000
"""Rows that are newly remembered as without a worker at one look; those beyond it with the next."""
FACT_KIND = "orphan"
"""Of the facts that tell since when (steady seconds) a row has no worker, by its id."""


def scope_of(subject: str) -> str:
    """``<node>.<method>`` of a request subject: what stays when its kind changes."""
    try:
        parts = parse_subject(subject)
    except SubjectInvalid:
        return subject
    return f"{parts.node}.{parts.method}"


class InboxOwners:
    """One for all subscribers of a daemon. `is_wanted` tells whether a worker of a scope is to run, also while it cannot."""

    def __init__(
        self, store: MessageStore, is_wanted: Callable[[str], bool] = lambda _scope: False
    ) -> None:
        self._store = store
        self._is_wanted = is_wanted
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
        """The rows of a scope that nobody has in hand, oldest first; they are held from now on.

        Not those whose time without a worker is over: they are given up with the next look (`give_up_orphans`).
        """
        rows = [
            row
            for row in await self._store.claim_inbox(node, method)
            if row.row_id not in self.held
            and scope_of(row.subject) == scope
            and not self._is_overdue(row.row_id)
        ]
        self.held.update(row.row_id for row in rows)
        return rows

    @property
    def orphan_count(self) -> int:
        """How many rows are of a scope that no worker takes; cheap."""
        owners = self._owners
        return sum(
            count for scope, count in self._store.inbox_scopes().items() if scope not in owners
        )

    async def give_up_orphans(self) -> Mapping[str, int]:
        """Remember on disk since when rows have no worker, and forget those that had none for `ORPHAN_KEEP_S`.

        A worker that is wanted and cannot run (the broker is away, or denies it) keeps its rows, however long that lasts.
        Called now and then. How many were given up, by scope.

        Raises:
            StoreError: some of it was not done; the next call does it.
        """
        since = self._store.facts(FACT_KIND)
        if not since and not self.orphan_count:
            return {}
        scopes = dict(await self._store.inbox_ids())
        # NB: nothing is awaited between the look at what is held and the order to the store
        free = [row_id for row_id in scopes if row_id not in self.held]
        overdue = [row_id for row_id in free if self._is_overdue(row_id)]
        if overdue:
            # a resend is told that it was refused: it must not run after it was given up
            await self._store.drop_inbox(overdue)
        wanted = {scope for scope in set(scopes.values()) if self._is_wanted(scope)}
        waiting = [str(row_id) for row_id in free if scopes[row_id] not in wanted]
        kept = set(waiting).difference(map(str, overdue))
        now = f"{self._store.now():.0f}"
        changes: dict[str, str | None] = {key: None for key in since if key not in kept}
        new = (key for key in waiting if key not in since)
        changes.update(dict.fromkeys(islice(new, MAX_NOTED), now))
        if changes:
            await self._store.remember(FACT_KIND, changes)
        return Counter(scopes[row_id] for row_id in overdue)

    def _is_overdue(self, row_id: int) -> bool:
        since = self._store.facts(FACT_KIND).get(str(row_id))
        return since is not None and self._store.now() - float(since) >= ORPHAN_KEEP_S
