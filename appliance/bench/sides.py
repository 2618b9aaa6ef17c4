"""The two sides of a benchmark, of the daemon's own store, connection and workers.

Everything that a benchmark knows of these parts stands in this file. The method is nobody's but the benchmark's and
has no effect: what is measured is the way of a message, not what it asks for.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from appliance.bus.events import BusEvents
from appliance.bus.nats import NatsBus
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName, NodeName, Subject, make_kind, make_subject
from appliance.core.specs import (
    AckOn,
    AckSettings,
    BrokerSettings,
    DesiredState,
    LimitSettings,
    PublisherDefaults,
    PublisherSpec,
    StateSettings,
    SubscriberSpec,
)
from appliance.daemon.console import StdoutConsole
from appliance.daemon.presence import Presence
from appliance.daemon.run import SWITCH_INTERVAL_S
from appliance.methods._files import DataFiles
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.outbox.records import OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.reconcile.overrides import OverrideBook
from appliance.telemetry.events import EventHub
from appliance.telemetry.report import Telemetry
from appliance.workers.answers import Answers
from appliance.workers.parts import WorkerParts
from appliance.workers.publisher import Publisher
from appliance.workers.router import Router
from appliance.workers.subscriber import Subscriber
from appliance.workers.tools import HandlerTools

METHOD = MethodName("REQBench")


class BenchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that both sides are made from; goes to the other process as JSON. Secrets are only named in it."""

    token: str
    """Random; makes every subject the benchmark's own."""
    below: str
    """The declared node whose name all subjects begin with."""
    broker: BrokerSettings
    server_urls: tuple[str, ...]
    limits: LimitSettings = LimitSettings()
    state: StateSettings = StateSettings()
    ack: AckSettings = AckSettings()
    ack_on: AckOn = AckOn.RECEIVED
    concurrency: int = 16
    window: int = 256
    serialization: str = "cbor"
    compression: str = "none"

    @property
    def receiver(self) -> NodeName:
        """The node that receives."""
        return NodeName(f"{self.below}.bench.{self.token}")

    @property
    def sender(self) -> NodeName:
        """The node that sends; it subscribes to nothing of its own."""
        return NodeName(f"{self.receiver}-sender")

    @property
    def pattern(self) -> str:
        """All subjects, as a broker's permissions would name them."""
        return f"{self.below}.bench.>"

    @property
    def subject(self) -> Subject:
        """What the messages go to."""
        return make_subject(self.receiver, METHOD, make_kind(Category.EVENT, wants_ack=True))

    @property
    def subscriber(self) -> SubscriberSpec:
        """The receiving worker."""
        return SubscriberSpec(
            node=self.receiver,
            subject=self.subject,
            method=METHOD,
            wants_ack=True,
            ack_on=self.ack_on,
            concurrency=self.concurrency,
            accept_from=frozenset({self.sender}),
        )

    def publisher(self, window: int) -> PublisherSpec:
        """The sending worker."""
        return PublisherSpec(
            node=self.sender,
            subject=self.subject,
            to_node=self.receiver,
            method=METHOD,
            wants_ack=True,
            ack=self.ack,
            window=window,
            serialization=self.serialization,
            compression=self.compression,
            entry="bench",
        )


class _Nothing:
    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """The message has arrived; that is all."""
        return DONE


_METHOD = Method(
    info=MethodInfo(
        name=METHOD, summary="Nothing; sent by `appliance bench`.", category=Category.EVENT
    ),
    make=_Nothing,
)


class SendingSide(Telemetry):
    """Life: `open` -> `run` in a task, `put` meanwhile -> the stack closes.

    `on_delivered` is told the id of every message that was acknowledged, `on_dead` why one was given up.
    """

    def __init__(self, order: BenchOrder) -> None:
        super().__init__(EventHub())
        self.on_delivered: Callable[[int], None] = lambda _id: None
        self.on_dead: Callable[[str], None] = lambda _reason: None
        self._order = order
        self._parts: WorkerParts
        self._publisher: Publisher
        self.bus: NatsBus

    async def open(
        self, stack: AsyncExitStack, state_dir: Path, *, on_disconnected: Callable[[], None]
    ) -> None:
        """Store and connection. Raises BusUnavailable, BusUnauthorized, StoreError."""
        events = BusEvents(on_disconnected=on_disconnected)
        self._parts, self.bus = await _open_parts(
            stack, self._order, "sender", state_dir, self, events
        )

    async def start(self, stack: AsyncExitStack) -> None:
        """Let records go. Raises BusUnavailable, also when the broker denies the subjects."""
        self._publisher = Publisher(self._order.publisher(self._order.window), self._parts)
        stack.push_async_callback(self._publisher.close)
        await self._publisher.start()

    async def run(self) -> None:
        """Send until cancelled. Raises BusUnavailable when the broker denies it."""
        await self._publisher.run()

    def set_window(self, window: int) -> None:
        """From the next message on."""
        self._publisher.update(self._order.publisher(window))

    def make_records(self, texts: Sequence[str]) -> list[OutboxRecord]:
        """Encoded, each with its id."""
        to_node, from_node = self._order.receiver, self._order.sender
        make = self._parts.router.make_record
        return [
            make(Message(to_node=to_node, from_node=from_node, method=METHOD, data=(text,)))
            for text in texts
        ]

    async def put(self, records: list[OutboxRecord]) -> None:
        """Accept them; returns when they are on disk. Raises StoreError."""
        await self._parts.store.put(records)

    async def flush(self) -> None:
        """Returns when what was concluded is on disk."""
        await self._parts.store.list_pending(1)  # NB: answered after the commits of all before it

    def message_delivered(self, node: str, id_: int, *args: object, **fields: object) -> None:
        """Acknowledged."""
        self.on_delivered(id_)

    def message_dead(self, *args: object) -> None:
        """The last argument is the reason."""
        self.on_dead(str(args[-1]))


async def open_receiver(stack: AsyncExitStack, order: BenchOrder, state_dir: Path) -> Subscriber:
    """The worker that takes messages, subscribed; `run` it.

    Raises:
        BusUnavailable, BusUnauthorized, StoreError: as of `SendingSide.open`.
        BusError: the broker denies the subject.
    """
    telemetry = Telemetry(EventHub())
    parts, _ = await _open_parts(stack, order, "receiver", state_dir, telemetry, BusEvents())
    subscriber = Subscriber(order.subscriber, _METHOD, parts)
    stack.push_async_callback(subscriber.close)
    await subscriber.start()
    return subscriber


def settle_process() -> None:
    """What the daemon does for its speed before its loop begins."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()


def find_cause(task: asyncio.Task[None]) -> BaseException | None:
    """What ended a worker's task, out of the groups that its inner tasks put around it."""
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _open_parts(
    stack: AsyncExitStack,
    order: BenchOrder,
    side: str,
    state_dir: Path,
    telemetry: Telemetry,
    events: BusEvents,
) -> tuple[WorkerParts, NatsBus]:
    store = await MessageStore.open(state_dir, order.state)
    stack.push_async_callback(store.close)
    bus = await NatsBus.open(
        order.broker,
        server_urls=order.server_urls,
        name=f"appliance bench {order.token} {side}",
        events=events,
        require_connection=True,
    )
    stack.push_async_callback(bus.close)
    publisher, subscriber = order.publisher(order.window), order.subscriber
    nodes = (order.sender, order.receiver)
    fleet = DesiredState(
        run_nodes=nodes,
        declared_nodes=frozenset(nodes),
        workers={publisher.key: publisher, subscriber.key: subscriber},
        publisher_defaults=dict.fromkeys(nodes, PublisherDefaults(ack=order.ack)),
        limits=order.limits,
        state=order.state,
    )
    router = Router(
        {METHOD: _METHOD.info}, instance=store.instance, next_id=store.next_id, wall=store.now
    )
    router.follow(fleet)
    # NB: no reports: whoever subscribes to errorCentral on this broker has nothing to do with a benchmark
    answers = Answers(
        bus=bus,
        store=store,
        router=router,
        telemetry=telemetry,
        per_minute=lambda: 0,
        wall=time.time,
    )
    await _run_beside(stack, answers)
    console = StdoutConsole()
    stack.callback(console.close)
    tools = HandlerTools(
        files=await stack.enter_async_context(DataFiles(state_dir / "data")),
        console=console,
        hellos=Presence(lambda: fleet, time.time, lambda _node: None),
        hidden_environment=frozenset,
        list_workers=lambda _node: (),
        switch=OverrideBook(
            state_dir / "overrides.json",
            fleet=lambda: fleet,
            methods=lambda: router.methods,
            wall=time.time,
            on_change=lambda: None,
        ),
    )
    parts = WorkerParts(
        bus=bus,
        store=store,
        router=router,
        telemetry=telemetry,
        answers=answers,
        tools=tools,
        fleet=lambda: fleet,
        wall=time.time,
    )
    return parts, bus


async def _run_beside(stack: AsyncExitStack, answers: Answers) -> None:
    task = asyncio.create_task(answers.run(), name="answers")

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    stack.push_async_callback(end)
