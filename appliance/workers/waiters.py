"""Who waits for the fate of a record: handlers that must know whether what they sent has arrived."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from appliance.core.message import CALLER_FILE, Message, body_number
from appliance.dialect.headers import MORE_HEADER
from appliance.workers.incoming import Incoming

# Which answers nobody waits for any more, so that who still speaks can be told.
#
# Only who has left is remembered, never who waits: after a restart, or where several daemons share a node's name,
# nobody counts as gone and the answer runs to its own end.

MAX_REMEMBERED = 10_000


class AbandonedRequests:
    """Ids of requests whose callers have gone, the newest ones."""

    def __init__(self) -> None:
        self._ids: OrderedDict[int, None] = OrderedDict()

    def left(self, ids: Iterable[int]) -> None:
        """Nobody waits for the answers to these any more."""
        self._ids.update(dict.fromkeys(map(body_number, ids)))
        while len(self._ids) > MAX_REMEMBERED:
            self._ids.popitem(last=False)

    def is_unwanted(self, work: Incoming, message: Message) -> bool:
        """Whether this is a piece of an answer that was for a caller alone, who has gone."""
        request = message.previous_message
        return (
            bool(self._ids)
            and request is not None
            and request.file_name == CALLER_FILE
            and body_number(request.id) in self._ids
            and message.is_reply
            and MORE_HEADER in work.headers
        )


class Fate(NamedTuple):
    """What became of a record: `reason` says why it will never be acknowledged, None that it is.

    `is_done` tells that an appliance acknowledged it after its work and not before, `is_unwanted` that nobody waits
    for what would follow, `by_seed` that who took it does not say that it is an appliance.
    """

    reason: str | None
    is_done: bool = False
    is_unwanted: bool = False
    by_seed: bool = False


class DeliveryWaiters:
    """Futures by record id. Publishers tell, `Delivering` waits; costs nothing while nobody does."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[Fate]] = {}

    def expect(self, record_id: int) -> asyncio.Future[Fate]:
        """A future that is resolved when the record leaves the outbox."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[record_id] = future
        future.add_done_callback(lambda _: self._waiting.pop(record_id, None))
        return future

    @property
    def has_waiters(self) -> bool:
        """Whether anybody waits for any fate; who would tell of many records asks first."""
        return bool(self._waiting)

    def tell(
        self,
        record_id: int,
        reason: str | None,
        *,
        is_done: bool = False,
        is_unwanted: bool = False,
        by_seed: bool = False,
    ) -> None:
        """The record left the outbox."""
        if self._waiting:
            future = self._waiting.get(record_id)
            if future is not None and not future.done():
                future.set_result(Fate(reason, is_done, is_unwanted, by_seed))
