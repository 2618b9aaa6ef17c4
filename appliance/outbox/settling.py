"""What publishers conclude, gathered over one turn of the event loop and handed over together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from appliance.outbox.blobs import tries_of
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
        self._gathered: Settle | None = None

    def done(self, places: Sequence[int]) -> None:
        """The records at these places were delivered."""
        if places:
            self._gather().done += places

    def retry(self, records: Sequence[OutboxRecord]) -> None:
        """The records will be tried again; remember how often they were."""
        if not records:
            return
        tries = self._gather().tries
        for record in records:
            found = tries_of(record) or (0, 0.0, "", 0, "")
            tries[record.place] = (*found[:2], plain_text(found[2]), found[3], plain_text(found[4]))

    def bury(self, record: OutboxRecord, reason: str, died_at: float) -> asyncio.Future[None]:
        """The record becomes a dead letter; nobody needs to wait for the result."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(_retrieve)
        self.hand_over()  # NB: what was concluded before it is committed before it
        self._submit(Bury([record.place], [encode_letter(record, reason, died_at)], future))
        return future

    def resolved(self) -> asyncio.Future[None]:
        """A result for what needed no work."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.set_result(None)
        return future

    def hand_over(self) -> None:
        """Give the writer what was gathered so far."""
        if self._gathered is not None:
            gathered, self._gathered = self._gathered, None
            self._submit(gathered)

    def _gather(self) -> Settle:
        if self._gathered is None:
            self._gathered = Settle()
            # all that one turn of the loop concludes is one operation
            self._loop.call_soon(self.hand_over)
        return self._gathered


def _retrieve(future: asyncio.Future[None]) -> None:
    """A failure nobody waits for is kept by the writer and shows in the counts."""
    if not future.cancelled():
        future.exception()
