"""Helpers for the store's tests: records, settings, a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.core.names import NodeName, Subject
from appliance.core.specs import StateSettings
from appliance.outbox.dedupe import Sender
from appliance.outbox.lane import Lane
from appliance.outbox.records import DONE_VERDICT, DoneRun, FinishItem, OutboxRecord, TakeIn
from appliance.outbox.store import MessageStore

SUBJECT = "beta.REQToConsole.EventACK"
KEY = (NodeName("alpha"), Subject(SUBJECT))
INSTANCE = "00112233aabbccdd"
START_AT = 1_700_000_000.0


class HandClock:
    """A wall clock and a monotonic one, moved by the test.

    Setting `now` lets time pass for both; backwards only the wall clock goes, as when somebody sets it.
    """

    def __init__(self, now: float = START_AT) -> None:
        self._now = now
        self.mono_s = 1_000.0

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, value: float) -> None:
        self.mono_s += max(0.0, value - self._now)
        self._now = value

    def jump_wall(self, seconds: float) -> None:
        """The wall clock alone is set anew."""
        self._now += seconds

    def wall(self) -> float:
        return self._now

    def mono(self) -> float:
        return self.mono_s


def make_record(
    store: MessageStore | int, payload: bytes = b"hello", **changes: Any
) -> OutboxRecord:
    """A record with a new id of the store, or with the id given."""
    record = OutboxRecord(
        id=store if isinstance(store, int) else store.next_id(),
        node="alpha",
        subject=SUBJECT,
        to_node="beta",
        method="REQToConsole",
        payload=payload,
        encoding="cbor",
        wants_ack=True,
        created_at=START_AT,
    )
    return replace(record, **changes)


def make_item(message_id: int, **changes: Any) -> TakeIn:
    """A message that arrived at beta."""
    item = TakeIn(
        scope="beta.REQToConsole",
        node="beta",
        method="REQToConsole",
        subject=SUBJECT,
        sender="alpha",
        instance=INSTANCE,
        message_id=message_id,
        attempt=0,
        payload=b"body %d" % message_id,
        block=b"NATS/1.0\r\nserial: cbor\r\n\r\n",
        reply_to=f"{SUBJECT}.reply.x",
        keep_body=False,
    )
    return item._replace(**changes)


def make_finish(item: TakeIn, row_id: int | None = None, verdict: str = DONE_VERDICT) -> FinishItem:
    """What ends the handling of `item`."""
    return FinishItem(
        row_id, item.scope, item.sender, item.instance, item.message_id, item.attempt, verdict
    )


def make_run(items: list[TakeIn], row_ids: list[int | None]) -> DoneRun:
    """What ends the handling of these messages of one sender, all of them done."""
    scope, _, _, _, sender, instance, *_ = items[0]
    message_ids = [item.message_id for item in items] if instance is not None else []
    rows = [row_id for row_id in row_ids if row_id is not None]
    return DoneRun(scope, sender, instance, rows, message_ids)


@asynccontextmanager
async def open_store(
    directory: Path, clock: HandClock | None = None, **settings: Any
) -> AsyncIterator[MessageStore]:
    """A store for the length of a block."""
    clock = clock or HandClock()
    store = await MessageStore.open(
        directory, StateSettings(**settings), wall=clock.wall, mono=clock.mono, boot_id="boot"
    )
    try:
        yield store
    finally:
        await store.close()


async def take(lane: Lane, *, strict: bool = False) -> OutboxRecord | None:
    """The next record, waiting for the database where the lane has records there only."""
    woken = asyncio.Event()
    lane.on_wake = woken.set
    try:
        while True:
            woken.clear()
            taken = lane.take(1, strict=strict)
            if taken or not lane.is_reading:
                return taken[0] if taken else None
            async with asyncio.timeout(60):
                await woken.wait()
    finally:
        lane.on_wake = None


async def take_all(lane: Lane) -> list[OutboxRecord]:
    """Everything due."""
    records = []
    while (record := await take(lane)) is not None:
        records.append(record)
    return records


async def forget(store: MessageStore) -> bool:
    """One slice of what the store does about old ids and dead letters; True when more may be waiting."""
    return await store._call(lambda _: store._writer._maintenance.forget())


async def flush(store: MessageStore) -> None:
    """Write remembered ids as blocks, which otherwise happens from time to time."""
    await store._call(lambda _: store._writer._maintenance.flush())


def count_ids(senders: Iterable[Sender]) -> int:
    """All ids that are remembered."""
    return sum(len(one.recent) + sum(block.count for block in one.blocks) for one in senders)
