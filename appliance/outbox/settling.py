"""What publishers conclude, gathered over one turn of the event loop and handed over together.

Until its commit an id counts as settling: should its row be read from the database meanwhile (the
disk may be full for hours), it must not be sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from appliance.outbox.batch import Bury, Settle
from appliance.outbox.records import OutboxRecord
from appliance.outbox.rows import tries_of


class Settling:
    """Owned by the store; `submit` hands an operation to the writer."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, submit: Callable[[Settle | Bury], None]
    ) -> None:
        self._loop = loop
        self._submit = submit
        self._gathered: Settle | None = None
        self._ids: set[int] = set()

    def __contains__(self, record_id: int) -> bool:
        return record_id in self._ids

    def done(self, record_id: int) -> None:
        """The record was delivered."""
        self._ids.add(record_id)
        self._gather().done.append(record_id)

    def retry(self, record: OutboxRecord) -> None:
        """The record will be tried again; remember how often it was."""
        self._gather().tries[record.id] = tries_of(record)

    def bury(self, record: OutboxRecord, reason: str, died_at: float) -> asyncio.Future[None]:
        """The record becomes a dead letter; nobody needs to wait for the result."""
        self._ids.add(record.id)
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(_retrieve)
        self.hand_over()  # NB: what was concluded before it is committed before it
        self._submit(Bury(record.id, reason, died_at, tries_of(record), future))
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

    def committed(self, operation: Settle | Bury) -> None:
        """The writer is through with it."""
        if isinstance(operation, Settle):
            self._ids.difference_update(operation.done)
        else:
            self._ids.discard(operation.record_id)

    def _gather(self) -> Settle:
        if self._gathered is None:
            self._gathered = Settle()
            self._loop.call_soon(self.hand_over)
        return self._gathered


def _retrieve(future: asyncio.Future[None]) -> None:
    """A failure nobody waits for is kept by the writer and shows in the counts."""
    if not future.cancelled():
        future.exception()
