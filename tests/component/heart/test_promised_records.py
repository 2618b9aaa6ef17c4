"""Records that were accepted for an acknowledging destination which acknowledges nothing any more: they still arrive."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from appliance.bus.base import BusMessage
from appliance.bus.memory import MemoryBroker, MemoryBus
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import DesiredState, PublisherSpec
from appliance.delivery.core import CoreDelivery
from appliance.dialect.steward import StewardDialect
from appliance.outbox.records import OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.telemetry.events import EventHub
from appliance.telemetry.report import Telemetry
from appliance.workers.inbox_owners import InboxOwners
from appliance.workers.parts import WorkerParts
from appliance.workers.peers import PeerBook
from appliance.workers.publisher import Publisher
from tests.support.memory_store import MemoryDisk, MemoryStore
from tests.support.virtual_time import Clocks, run_virtual

INSTANCE = "00000000000000aa"
SUBJECT = Subject("ship.REQToFileAppend.CommandNACK")
SPEC = PublisherSpec(
    node=NodeName("central"),
    subject=SUBJECT,
    to_node=NodeName("ship"),
    method=MethodName("REQToFileAppend"),
    wants_ack=False,
)
HOUR_S = 3_600.0


class Shore:
    """A publisher of a lane whose destination acknowledges nothing, on a broker in memory."""

    def __init__(self, broker: MemoryBroker, bus: MemoryBus, store: MemoryStore) -> None:
        self.broker = broker
        self.store = store
        self.got: list[int] = []
        real = cast(MessageStore, store)
        dialect = StewardDialect()
        nothing = cast(Any, None)
        self.publisher = Publisher(
            SPEC,
            WorkerParts(
                bus=bus,
                store=real,
                dialect=dialect,
                delivery=CoreDelivery(bus, dialect, INSTANCE),
                router=nothing,
                telemetry=Telemetry(EventHub()),
                answers=nothing,
                peers=PeerBook(real),
                inbox=InboxOwners(real),
                tools=nothing,
                fleet=lambda: DesiredState(),
                wall=store.now,
                mono=asyncio.get_running_loop().time,
            ),
        )

    async def accept(self, *, wants_ack: bool) -> int:
        number, now = self.store.next_id(), self.store.now()
        record = OutboxRecord(
            id=number,
            node=SPEC.node,
            subject=SUBJECT,
            to_node=SPEC.to_node,
            method=SPEC.method,
            payload=b"[]",
            encoding="cbor",
            wants_ack=wants_ack,
            created_at=now,
            expires_at=now + 24 * HOUR_S,
        )
        await self.store.put([record])
        return number

    async def ship_arrives(self) -> MemoryBus:
        bus = await MemoryBus.open(self.broker, name="ship")

        def take(messages: list[BusMessage]) -> None:
            self.got += [int(message.headers["appl-id"].split("-")[1]) for message in messages]

        await bus.subscribe(SUBJECT, take, queue=SUBJECT)
        return bus


@asynccontextmanager
async def shore() -> AsyncIterator[Shore]:
    clocks = Clocks()
    broker = MemoryBroker(rng=random.Random(1))
    bus = await MemoryBus.open(broker, name="central")
    store = await MemoryStore.open(
        MemoryDisk(instance=INSTANCE), wall=clocks.wall, mono=clocks.steady
    )
    made = Shore(broker, bus, store)
    await made.publisher.start()
    running = asyncio.create_task(made.publisher.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.wait({running})
        await made.publisher.close()
        await bus.close()
        await store.close()


def test_what_was_promised_waits_until_somebody_is_there() -> None:
    async def scenario() -> None:
        async with shore() as central:
            promised = await central.accept(wants_ack=True)
            await asyncio.sleep(HOUR_S)
            assert central.store.counts().pending == 1
            assert central.publisher.lane_reason() == "nobody there"
            ship = await central.ship_arrives()
            await asyncio.sleep(60.0)
            assert central.got == [promised]
            assert central.store.counts().pending == 0
            assert central.store.counts().dead == 0
            await ship.close()

    run_virtual(scenario())


def test_it_is_sent_once_where_somebody_is_there() -> None:
    async def scenario() -> None:
        async with shore() as central:
            ship = await central.ship_arrives()
            numbers = [await central.accept(wants_ack=True) for _ in range(3)]
            await asyncio.sleep(HOUR_S)
            assert central.got == numbers
            assert central.store.counts().pending == 0
            await ship.close()

    run_virtual(scenario())


def test_what_was_never_promised_is_over_once_it_is_sent() -> None:
    async def scenario() -> None:
        async with shore() as central:
            await central.accept(wants_ack=False)
            await asyncio.sleep(1.0)
            assert central.store.counts().pending == 0

    run_virtual(scenario())
