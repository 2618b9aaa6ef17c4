"""Operations that nobody waits for, until they have company.

They wait on the event loop: handing them over one by one would wake the writer's thread each time, only for it to wait
in their place. Whatever else is handed over takes them along, before it, so the order of operations stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from appliance.outbox.blobs import Tries, tries_of
from appliance.outbox.letters import encode_letter
from appliance.outbox.operations import Bury, Call, Finish, Operation, Settle, Stop, measure
from appliance.outbox.records import OutboxRecord
from appliance.outbox.texts import plain_text

SETTLE_WAIT_S = 0.05
"""How long records that were delivered may gather before they get a commit of their own: a crash in between means that
they are sent once more, and known at the other side.
"""
FINISH_WAIT_S = 0.005
"""The same for handled messages that were acknowledged before: a crash in between means that they are handled once more.
"""
ENOUGH_ROWS = 256
"""So many of either are company enough."""

Together = Sequence[Operation | Call | Stop]
"""What is handed over at once; what runs alone is the last of it."""


class Patience:
    """Belongs to the writer, and to the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hand_over: Callable[[Together], None],
        is_untouched: Callable[[], bool],
    ) -> None:
        """`is_untouched` tells whether something that was handed over has not been looked at yet."""
        self._loop = loop
        self._hand_over = hand_over
        self._is_untouched = is_untouched
        self._waiting: list[Operation | Call | Stop] = []
        self._rows = 0
        self._due_mono = 0.0
        self._timer: asyncio.Handle | None = None
        self._fires_mono = 0.0

    def pass_on(self, operation: Operation | Call | Stop) -> None:
        """Hand an operation over, or keep it for a moment where nobody waits for it."""
        if isinstance(operation, Settle):
            self._keep(operation, SETTLE_WAIT_S)
        elif isinstance(operation, Finish) and not operation.is_urgent:
            self._keep(operation, FINISH_WAIT_S)
        else:
            self._waiting.append(operation)
            self._let_go()

    def _keep(self, operation: Operation, wait_s: float) -> None:
        due_mono = self._loop.time() + wait_s
        if not self._waiting or due_mono < self._due_mono:
            self._due_mono = due_mono
        self._waiting.append(operation)
        self._rows += measure(operation)[0]
        if self._rows >= ENOUGH_ROWS or self._is_untouched():
            self._let_go()
        elif self._timer is None or self._fires_mono > self._due_mono:
            self._wait_until_due()

    def _let_go(self) -> None:
        # NB: in one piece, since the thread wakes with the first
        waiting, self._waiting, self._rows = self._waiting, [], 0
        self._hand_over(waiting)

    def _wait_until_due(self) -> None:
        # NB: a timer that was overtaken is left to fire: under load that costs less than one for every operation
        if self._timer is not None:
            self._timer.cancel()
        # NB: what is due already is no timer for every kind of event loop, so when it fires is kept here
        self._fires_mono = self._due_mono
        self._timer = self._loop.call_at(self._due_mono, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._loop.time() >= self._due_mono:
            self._let_go()
        else:
            self._wait_until_due()


# What publishers conclude, in the words of the writer, with whom it waits for company (see `patience`).


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
        future.add_done_callback(retrieve)
        self._submit(Bury([record.place], [encode_letter(record, reason, died_at)], future))
        return future

    def resolved(self) -> asyncio.Future[None]:
        """A result for what needed no work."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.set_result(None)
        return future


def retrieve(future: asyncio.Future[None]) -> None:
    """A failure nobody waits for is kept by the writer and shows in the counts."""
    if not future.cancelled():
        future.exception()
