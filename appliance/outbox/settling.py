"""What publishers conclude, in the words of the writer, with whom it waits for company (see `patience`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from appliance.outbox.blobs import Tries, tries_of
from appliance.outbox.letters import encode_letter
from appliance.outbox.operations import Bury, Settle
from appliance.outbox.records import OutboxRecord
from appliance.outbox.texts import plain_text


class Settling:
    """Owned by the store; `submit` hands an operation to the writer."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, submit: Callable[[Settle | Bury], None]
    ) -> None:
        self._loop = loop
        self._submit = submit

    def done(self, places: list[int]) -> None:
        """The records at these places were delivered."""
        if places:
            self._submit(Settle(done=places))

    def retry(self, records: Sequence[OutboxRecord]) -> None:
        """The records will be tried again; remember how often they were."""
        tries: dict[int, Tries] = {}
        for record in records:
            found = tries_of(record) or (0, 0.0, "", 0, "")
            tries[record.place] = (*found[:2], plain_text(found[2]), found[3], plain_text(found[4]))
        if tries:
            self._submit(Settle(tries=tries))

    def bury(self, record: OutboxRecord, reason: str, died_at: float) -> asyncio.Future[None]:
        """The record becomes a dead letter; nobody needs to wait for the result."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(_retrieve)
        self._submit(Bury([record.place], [encode_letter(record, reason, died_at)], future))
        return future

    def resolved(self) -> asyncio.Future[None]:
        """A result for what needed no work."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.set_result(None)
        return future


def _retrieve(future: asyncio.Future[None]) -> None:
    """A failure nobody waits for is kept by the writer and shows in the counts."""
    if not future.cancelled():
        future.exception()
