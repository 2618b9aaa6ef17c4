"""Who sends to a subject of ours: remembered on disk, to greet them after a restart, too.

Where somebody else takes part in a subject (a stream that records it), nothing tells senders that nobody was there, nor
that somebody is; so a node that is back says so itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from appliance.core.names import REPLY_TOKEN
from appliance.errors import StoreError
from appliance.outbox.store import MessageStore
from appliance.workers.incoming import Incoming

MAX_KNOWN_SENDERS = 1_024
SENDER_FACT_KIND = "sender"
"""Of the facts that tell how the reply subjects of a daemon begin that sends to a subject of ours."""


class KnownSenders:
    """How the newest reply subject of every sender to one subject begins, by instance and name: a daemon has a lane for
    each of its nodes.
    """

    def __init__(self, subject: str, store: MessageStore) -> None:
        self._subject = subject
        self._store = store
        mine = f"{subject} "
        self._begins = {
            key[len(mine) :]: begins
            for key, begins in store.facts(SENDER_FACT_KIND).items()
            if key.startswith(mine)
        }
        self._remembering: set[asyncio.Task[None]] = set()

    @property
    def reply_subjects(self) -> list[str]:
        """How they begin."""
        return list(self._begins.values())

    def note(self, works: Iterable[Incoming]) -> None:
        """These have come; lanes among them that are new are remembered."""
        known = last_instance = last_sender = None
        for work in works:
            instance = work.identity.instance
            if instance is None or not work.reply_tos or not work.identity.hears:
                continue
            if instance != last_instance or work.sender != last_sender:  # mostly all are of one
                last_instance, last_sender = instance, work.sender
                known = self._begins.get(f"{instance} {work.sender}")
            if known is None or not work.reply_tos[0].startswith(known):
                known = self._remember(f"{instance} {work.sender}", work.reply_tos[0])

    def close(self) -> None:
        """What is not on disk yet need not get there."""
        for task in self._remembering:
            task.cancel()

    def _remember(self, whose: str, reply_to: str) -> str | None:
        if reply_to.endswith(f".{REPLY_TOKEN}"):
            return None  # shared with everybody who sends here: nothing below it is heard
        begins = self._begins[whose] = reply_to.rpartition(".")[0] + "."
        changes: dict[str, str | None] = {f"{self._subject} {whose}": begins}
        if len(self._begins) > MAX_KNOWN_SENDERS:
            oldest = next(iter(self._begins))
            del self._begins[oldest]
            changes[f"{self._subject} {oldest}"] = None
        task = asyncio.get_running_loop().create_task(
            self._write(changes), name=f"remember who sends to {self._subject}"
        )
        self._remembering.add(task)
        task.add_done_callback(self._remembering.discard)
        return begins

    async def _write(self, changes: dict[str, str | None]) -> None:
        # a full disk only means that they are not greeted after a restart
        with contextlib.suppress(StoreError):
            await self._store.remember(SENDER_FACT_KIND, changes)
