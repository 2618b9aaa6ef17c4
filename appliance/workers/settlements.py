"""Who waits for the fate of a record: handlers that must know whether what they sent has arrived."""

from __future__ import annotations

import asyncio


class Settlements:
    """Futures by record id. Publishers tell, outlets wait; costs nothing while nobody does."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[str | None]] = {}

    def expect(self, record_id: int) -> asyncio.Future[str | None]:
        """A future that becomes None when the record is acknowledged, else the reason why it never will be."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[record_id] = future
        future.add_done_callback(lambda _: self._waiting.pop(record_id, None))
        return future

    def tell(self, record_id: int, reason: str | None) -> None:
        """The record left the outbox."""
        if self._waiting:
            future = self._waiting.get(record_id)
            if future is not None and not future.done():
                future.set_result(reason)
