"""One publisher and its lane on a broker in memory, in virtual time, without a daemon around them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from appliance.bus.base import BusMessage
from appliance.bus.memory import MemoryBroker, MemoryBus
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import PublisherSpec
from appliance.delivery.modes import DeliveryModes
from appliance.delivery.signer import Signer
from appliance.delivery.verifier import Verifier
from appliance.dialect.spoken import make_dialect
from appliance.outbox.records import OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.telemetry.events import EventHub
from appliance.telemetry.report import Telemetry
from appliance.workers.inbox_owners import InboxOwners
from appliance.workers.peers import PeerBook
from appliance.workers.publisher import Publisher
from appliance.workers.services import WorkerServices
from tests.support.memory_store import MemoryDisk, MemoryStore
from tests.support.virtual_time import Clocks

INSTANCE = "00000000000000aa"
HOUR_S = 3_600.0


def spec_of(kind: str) -> PublisherSpec:
    """From the node `central` to the node `ship`, on a subject of this kind."""
    return PublisherSpec(
        node=NodeName("central"),
        subject=Subject(f"ship.REQToFileAppend.{kind}"),
        to_node=NodeName("ship"),
        method=MethodName("REQToFileAppend"),
        wants_ack=not kind.endswith("NACK"),
    )


class Shore:
    """The publisher, made and not started; its store and broker; and what the ship has got."""

    def __init__(
        self, spec: PublisherSpec, broker: MemoryBroker, bus: MemoryBus, store: MemoryStore
    ) -> None:
        self.spec = spec
        self.broker = broker
        self.reports: list[str] = []
        """Reasons of what was given up."""
        self.store = store
        self.got: list[int] = []
        real = cast(MessageStore, store)
        dialect = make_dialect()
        nothing = cast(Any, None)
        verifier = Verifier(nothing, real, wall=store.now, steady=store.now)
        self.services = WorkerServices(
            bus=bus,
            store=real,
            dialect=dialect,
            delivery=DeliveryModes(bus, dialect, INSTANCE, real, Signer(), verifier),
            verifier=verifier,
            router=nothing,
            telemetry=Telemetry(EventHub()),
            error_reports=nothing,
            peers=PeerBook(real),
            inbox=InboxOwners(real),
            for_handlers=nothing,
            desired=nothing,
            wall=store.now,
            mono=asyncio.get_running_loop().time,
            report_given_up=lambda _, reason: self.reports.append(reason),
        )
        self.publisher = Publisher(spec, self.services)

    async def accept(
        self,
        count: int = 1,
        *,
        wants_ack: bool = True,
        expires_s: float = 24 * HOUR_S,
        origin: str = "",
    ) -> list[int]:
        """Put so many records into the lane; their ids."""
        spec, now = self.spec, self.store.now()
        records = [
            OutboxRecord(
                id=self.store.next_id(),
                node=spec.node,
                subject=spec.subject,
                to_node=spec.to_node,
                method=spec.method,
                payload=b"[]",
                encoding="cbor",
                wants_ack=wants_ack,
                created_at=now,
                expires_at=now + expires_s,
                origin=origin,
            )
            for _ in range(count)
        ]
        await self.store.put(records)
        return [record.id for record in records]

    async def ship_arrives(self) -> MemoryBus:
        """Somebody subscribes, and answers nothing."""
        bus = await MemoryBus.open(self.broker, name="ship")

        def take(messages: list[BusMessage]) -> None:
            self.got += [int(message.headers["appl-id"].split("-")[1]) for message in messages]

        await bus.subscribe(self.spec.subject, take, queue=self.spec.subject)
        return bus


@asynccontextmanager
async def running(shore: Shore) -> AsyncIterator[None]:
    """The publisher is started, and runs."""
    await shore.publisher.start()
    task = asyncio.create_task(shore.publisher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        await shore.publisher.close()


@asynccontextmanager
async def open_shore(kind: str) -> AsyncIterator[Shore]:
    """Inside `run_virtual`."""
    clocks = Clocks()
    broker = MemoryBroker(rng=random.Random(1))
    bus = await MemoryBus.open(broker, name="central")
    store = await MemoryStore.open(
        MemoryDisk(instance=INSTANCE), wall=clocks.wall, mono=clocks.steady
    )
    try:
        yield Shore(spec_of(kind), broker, bus, store)
    finally:
        await bus.close()
        await store.close()
