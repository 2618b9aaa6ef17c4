"""Helpers for the store's tests: records, settings, a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.core.names import NodeName, Subject
from appliance.core.specs import StateSettings
from appliance.outbox.lane import Lane
from appliance.outbox.outbox import MessageStore
from appliance.outbox.records import FinishItem, OutboxRecord, TakeIn

SUBJECT = "beta.REQToConsole.EventACK"
KEY = (NodeName("alpha"), Subject(SUBJECT))
INSTANCE = "00112233aabbccdd"
START_AT = 1_700_000_000.0


class HandClock:
    """Wall-clock seconds, moved by the test."""

    def __init__(self, now: float = START_AT) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


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
        node="beta",
        subject=SUBJECT,
        sender="alpha",
        instance=INSTANCE,
        message_id=message_id,
        payload=b"body %d" % message_id,
        headers={"serial": "cbor"},
        reply_to=f"{SUBJECT}.reply.x",
        keep_body=False,
    )
    return replace(item, **changes)


def make_finish(item: TakeIn, row_id: int | None = None) -> FinishItem:
    """What ends the handling of `item`."""
    return FinishItem(row_id, item.subject, item.sender, item.instance, item.message_id)


@asynccontextmanager
async def open_store(
    directory: Path, clock: HandClock | None = None, **settings: Any
) -> AsyncIterator[MessageStore]:
    """A store for the length of a block."""
    store = await MessageStore.open(
        directory, StateSettings(**settings), clock=clock or HandClock()
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
            record = lane.take(strict=strict)
            if record is not None or not lane._is_asking:
                return record
            async with asyncio.timeout(10):
                await woken.wait()
    finally:
        lane.on_wake = None


async def take_all(lane: Lane) -> list[OutboxRecord]:
    """Everything due."""
    records = []
    while (record := await take(lane)) is not None:
        records.append(record)
    return records
