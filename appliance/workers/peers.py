"""Which nodes have said that they are appliances, by a hello or an answer. Remembered on disk.

An appliance remembers the ids of messages and does a resend once; any other node may do it again, so publishers are
sparing with those.
"""

from __future__ import annotations

import asyncio
import contextlib

from appliance.errors import StoreError
from appliance.outbox.store import MessageStore

FACT_KIND = "peer"
MAX_PEERS = 10_000


class PeerBook:
    """One for all publishers of a daemon."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store
        self._known = set(store.facts(FACT_KIND))
        self._saving: set[asyncio.Task[None]] = set()

    def is_appliance(self, node: str) -> bool:
        """Whether the node has ever said so."""
        return node in self._known

    def learn(self, node: str) -> None:
        """The node has said so now."""
        # beyond the bound a peer counts as a stranger, to whom little is sent again
        if node in self._known or len(self._known) >= MAX_PEERS:
            return
        self._known.add(node)
        task = asyncio.get_running_loop().create_task(self._save(node), name=f"remember {node}")
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def _save(self, node: str) -> None:
        # a full disk only means that a later run has to hear it again
        with contextlib.suppress(StoreError):
            await self._store.remember(FACT_KIND, {node: "1"})

    async def close(self) -> None:
        """Wait for what is being remembered."""
        if self._saving:
            await asyncio.wait(self._saving)
