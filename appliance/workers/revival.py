"""Tries dead letters of an earlier version again whose node has turned out to be there.

That version gave up after a few tries that nobody answered. A line that was dark for minutes left dead letters so, and
nobody looks through them. They are sent again when the node says hello, as an operator would with `outbox retry`, as long
as its memory of ids tells a message that it had done all the same.
"""

from __future__ import annotations

import asyncio

from appliance.core.current import Current
from appliance.core.delivery import UNANSWERED_BEFORE
from appliance.core.specs import DesiredState
from appliance.errors import StoreError
from appliance.outbox.ids import id_time
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry


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
