"""Puts records into the outbox and waits for their fate: for handlers, and for the daemon's own work."""

from __future__ import annotations

import asyncio
import contextlib

from appliance.core.names import NodeName
from appliance.errors import AnswerUnwanted, HandlerError, RequestInvalid, StoreError
from appliance.methods.base import Outgoing
from appliance.outbox.records import OutboxRecord
from appliance.workers.services import WorkerServices

RETRY_S = 0.2


class Delivering:
    """In the name of one node."""

    def __init__(self, node: NodeName, parts: WorkerServices) -> None:
        self._node = node
        self._store = parts.store
        self._router = parts.router
        self._waiters = parts.waiters

    async def deliver(self, outgoing: Outgoing) -> bool:
        """Send and wait for the acknowledgement; whether it came after the receiver's work.

        Cancelled, it leaves the message in the outbox, unless nobody would mind its fate (`keeps_dead` off).

        Raises:
            HandlerError: it cannot be sent, was refused, dropped or became a dead letter.
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
            if not outgoing.keeps_dead:
                await self._forget(record)
            raise HandlerError(found.reason)
        if found.is_unwanted:
            raise AnswerUnwanted
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
