"""What a handler says while it works: partial replies, progress, messages of its own.

Partial replies are one stream: the publisher sends them one after the other, so that they arrive in order whatever is
lost on the way. While earlier pieces wait, later ones pile up in the outbox, which is why a piece should be as large
as what is there to say, not a line each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from appliance.core.message import Message, bytes_to_text, make_reply
from appliance.core.names import NodeName
from appliance.dialect.headers import (
    MORE_HEADER,
    PLACE_HEADER,
    PROGRESS_HEADER,
    STREAM_HEADER,
)
from appliance.errors import AnswerUnwanted, HandlerError, RequestInvalid, StoreError
from appliance.methods.base import Outgoing
from appliance.outbox.records import AWAITED_ORIGIN, OutboxRecord
from appliance.workers.incoming import Incoming
from appliance.workers.reply_policy import ReplyPolicy, Turns
from appliance.workers.services import WorkerServices
from appliance.workers.waiters import Fate

# The pieces of one answer are told to whoever waits in the order in which they came, however long each is handled.
#
# Handlers run side by side, and the piece that ends an answer is mostly empty and needs none: without this the end
# would be told before what it is the end of.

_StreamKey = tuple[str, str]


class ReplyOrder:
    """Belongs to one subscriber; holds no more than what that has in hand."""

    def __init__(self, tell: Callable[[Incoming], None]) -> None:
        self._tell = tell
        self._streams: dict[_StreamKey, deque[Incoming]] = {}
        self._said: set[Incoming] = set()
        self._ended: set[Incoming] = set()

    def enter(self, work: Incoming) -> None:
        """`work` was taken; what comes of it is told after what came before it."""
        key = _stream_of(work)
        if key is not None:
            self._streams.setdefault(key, deque()).append(work)

    def say(self, work: Incoming) -> None:
        """`work` is handled and to be told: at once, or when its turn has come."""
        if _stream_of(work) is None:
            self._tell(work)
        else:
            self._said.add(work)

    def leave(self, work: Incoming) -> None:
        """The handling of `work` has ended, told or not."""
        key = _stream_of(work)
        if key is None:
            return
        self._ended.add(work)
        waiting = self._streams[key]
        while waiting and waiting[0] in self._ended:
            first = waiting.popleft()
            self._ended.discard(first)
            if first in self._said:
                self._said.discard(first)
                self._tell(first)
        if not waiting:
            del self._streams[key]


def _stream_of(work: Incoming) -> _StreamKey | None:
    return (work.sender, work.stream) if work.stream else None


PROGRESS_INTERVAL_S = 0.5
MAX_UNSETTLED_PIECES = 64
"""Partial replies of one message that may wait in the outbox; then the handler waits."""


class ReplyWriter:
    """One per message; implements `methods.base.Outlet`."""

    def __init__(
        self,
        request: Message,
        node: NodeName,
        services: WorkerServices,
        reply_policy: ReplyPolicy,
        *,
        asker_is_appliance: bool,
    ) -> None:
        self._request = request
        self._node = node
        self._store = services.store
        self._delivering = Delivering(node, services)
        self._waiters = services.waiters
        self._reply_policy = reply_policy
        self._asker_is_appliance = asker_is_appliance
        self.turns = Turns()
        """The stream that everything said here is part of."""
        self._unsettled: list[asyncio.Future[Fate]] = []
        self._is_unwanted = False
        """Whether the asker's side has told that nobody waits for the rest."""
        self._progress_due_mono = 0.0
        self._progress_fate: asyncio.Future[Fate] | None = None
        self._mono = asyncio.get_running_loop().time

    @property
    def has_spoken(self) -> bool:
        """Whether a part of the answer is out already."""
        return self.turns.have_begun

    async def reply(self, data: bytes, *, stream: str = "stdout", place: str = "") -> None:
        """A piece of the answer; waits while too many pieces are unsettled."""
        await self._wait_for_room()
        if self._is_unwanted:
            raise AnswerUnwanted
        headers = self.turns.take() | {MORE_HEADER: "1", STREAM_HEADER: stream}
        if place and self._asker_is_appliance:
            headers[PLACE_HEADER] = place
        reply = make_reply(self._request, self._node, bytes_to_text(data))
        for record in self._make(reply, headers):
            # before it is put: it may be acknowledged before the put returns
            fate = self._waiters.expect(record.id)
            fate.add_done_callback(self._note_fate)
            self._unsettled.append(fate)
            await self._delivering.put(record)

    async def progress(self, done_bytes: int, total_bytes: int) -> None:
        """A reply without data that appliances show and nobody files."""
        now = self._mono()
        if not self._asker_is_appliance or now < self._progress_due_mono or self._is_unwanted:
            return
        if self._store.is_crowded:
            return
        if self._progress_fate is not None and not self._progress_fate.done():
            return  # the one before has not got through: while a link is down they must not pile up
        self._progress_due_mono = now + PROGRESS_INTERVAL_S
        headers = self.turns.take() | {
            MORE_HEADER: "1",
            PROGRESS_HEADER: f"{done_bytes}/{total_bytes}",
        }
        reply = make_reply(self._request, self._node, "")
        try:
            record = self._reply_policy.make_reply_record(reply, headers)
        except RequestInvalid:
            return  # told when the answer itself cannot be sent
        self._progress_fate = self._waiters.expect(record.id)
        self._progress_fate.add_done_callback(self._note_fate)
        await self._delivering.put(record)

    async def deliver(self, outgoing: Outgoing) -> bool:
        """Send and wait for the acknowledgement; whether it came after the receiver's work."""
        return await self._delivering.deliver(outgoing)

    def _note_fate(self, fate: asyncio.Future[Fate]) -> None:
        if not fate.cancelled() and fate.result().is_unwanted:
            self._is_unwanted = True

    def _make(self, reply: Message, headers: dict[str, str]) -> tuple[OutboxRecord, ...]:
        try:
            return self._reply_policy.make_records(
                reply, headers, self.turns, to_appliance=self._asker_is_appliance
            )
        except RequestInvalid as error:
            raise HandlerError(f"cannot reply to {reply.to_node[:60]}: {error}") from error

    async def _wait_for_room(self) -> None:
        self._unsettled = [fate for fate in self._unsettled if not fate.done()]
        while len(self._unsettled) >= MAX_UNSETTLED_PIECES:
            await asyncio.wait(self._unsettled, return_when=asyncio.FIRST_COMPLETED)
            self._unsettled = [fate for fate in self._unsettled if not fate.done()]
        while self._store.is_crowded:  # noqa: ASYNC110 - the store has no event for "less crowded"
            await asyncio.sleep(RETRY_S)

    def close(self) -> None:
        """The handler has ended."""
        for fate in (*self._unsettled, self._progress_fate):
            if fate is not None:
                fate.cancel()


RETRY_S = 0.2


class Delivering:
    """In the name of one node."""

    def __init__(self, node: NodeName, services: WorkerServices) -> None:
        self._node = node
        self._store = services.store
        self._router = services.router
        self._waiters = services.waiters

    async def deliver(self, outgoing: Outgoing) -> bool:
        """Send and wait for the acknowledgement; whether it came after the receiver's work.

        Cancelled, it leaves the message in the outbox, unless nobody would mind its fate (`keeps_dead` off).

        Raises:
            HandlerError: it cannot be sent, was refused, dropped or became a dead letter, or was taken by a node that
                does not understand it.
            AnswerUnwanted: the receiver took it and wants no more of the kind.
        """
        try:
            record = self._router.make_record(
                outgoing.message._replace(from_node=self._node),
                expires_s=outgoing.expires_s,
                headers=dict(outgoing.headers) if outgoing.headers else None,
                in_name_of=outgoing.in_name_of,
            )
        except RequestInvalid as error:
            raise HandlerError(
                f"cannot send to {outgoing.message.to_node[:60]}: {error}"
            ) from error
        if not outgoing.keeps_dead:
            record.origin = AWAITED_ORIGIN
        # before it is put: the answer may come before the put returns
        fate = self._waiters.expect(record.id)
        try:
            await self.put(record)
            found = await fate
        except asyncio.CancelledError:
            # else it would go on being sent for somebody who has gone
            if not outgoing.keeps_dead:
                await self._forget(record)
            raise
        finally:
            fate.cancel()
        if found.reason is not None:
            raise HandlerError(found.reason)
        if found.is_unwanted:
            raise AnswerUnwanted
        if found.by_seed and outgoing.not_understood:
            raise HandlerError(outgoing.not_understood)
        return found.is_done

    async def _forget(self, record: OutboxRecord) -> None:
        with contextlib.suppress(StoreError):  # the store may be closing; then it expires some day
            await self._store.drop([record.id], dead_only=False)

    async def put(self, record: OutboxRecord) -> None:
        """Store a record, as soon as there is room for it."""
        while True:
            try:
                await self._store.put([record])
            except StoreError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return
