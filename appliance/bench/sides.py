"""The two sides of a benchmark, of the daemon's own store, connection and workers.

All that a benchmark knows of these parts stands here. Its method has no effect: what is measured is the way of a
message, not what it asks for.
"""

from __future__ import annotations

import gc
import hashlib
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from appliance.bus.events import BusEvents
from appliance.bus.nats import NatsBus
from appliance.bus.node_keys import public_key_of_seed
from appliance.core.current import Current
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName, NodeName, make_kind, make_subject
from appliance.core.specs import (
    BrokerSettings,
    Delivery,
    DesiredState,
    LimitSettings,
    NodeTraits,
    PublisherDefaults,
    PublisherSpec,
    StateSettings,
    SubscriberDefaults,
    SubscriberSpec,
)
from appliance.daemon.run import SWITCH_INTERVAL_S
from appliance.delivery.modes import DeliveryModes
from appliance.delivery.signer import Signer, make_signing_key
from appliance.delivery.verifier import Verifier
from appliance.dialect.spoken import make_dialect
from appliance.errors import BenchDenied, BusUnavailable
from appliance.garbage import YOUNG_OBJECTS
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.outbox.records import OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.telemetry.events import EventHub
from appliance.telemetry.report import Telemetry
from appliance.workers.inbox_owners import InboxOwners
from appliance.workers.peers import PeerBook
from appliance.workers.publisher import Publisher
from appliance.workers.router import Router
from appliance.workers.services import WorkerServices
from appliance.workers.subscriber import Subscriber

METHOD = MethodName("REQBench")


class BenchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that both sides are made from; goes to the other process as JSON. Secrets are only named in it."""

    below: str
    """The declared node whose name all subjects begin with."""
    token: str
    """Random; makes every subject the benchmark's own."""
    broker: BrokerSettings
    limits: LimitSettings
    state: StateSettings
    sends: PublisherDefaults
    takes: SubscriberDefaults
    delivery: Delivery = Delivery.CORE
    """Whatever the config says of others: no stream is left behind by who only wants to measure."""

    @property
    def receiver(self) -> NodeName:
        """The node that receives; the sender subscribes to nothing of its own."""
        return NodeName(f"{self.below}.bench.{self.token}")

    @property
    def sender(self) -> NodeName:
        """The node that sends."""
        return NodeName(f"{self.receiver}-sender")

    @property
    def pattern(self) -> str:
        """All subjects, as a broker's permissions would name them."""
        return f"{self.below}.bench.>"


class _Nobody:
    """In the place of those who lend things to handlers and report failures: here nothing is lent or reported."""

    def __getattr__(self, name: str) -> Any:
        self.__dict__[name] = found = lambda *_args, **_fields: ()  # the next time it costs nothing
        return found


class _Nothing:
    async def handle(self, message: Message, context: HandlerContext) -> Result:
        return DONE


_INFO = MethodInfo(
    name=METHOD, summary="Sent by `appliance bench`.", category=Category.EVENT, is_prompt=True
)
_METHOD = Method(info=_INFO, make=_Nothing)


class SendingSide(Telemetry):
    """Life: `open` -> `run` in a task, `put` meanwhile -> the stack closes.

    `on_delivered` is told the id of every message that was acknowledged, `on_dead` why one was given up.
    """

    def __init__(self, order: BenchOrder) -> None:
        super().__init__(EventHub())
        self.on_delivered: Callable[[int], None] = lambda _id: None
        self.on_dead: Callable[[str], None] = lambda _reason: None
        self._order = order
        self._services: WorkerServices
        self._spec: PublisherSpec
        self._publisher: Publisher
        self.bus: NatsBus

    @property
    def follows_messages(self) -> bool:
        """Every delivery is counted here."""
        return True

    async def open(self, stack: AsyncExitStack, place: Path, on_lost: Callable[[], None]) -> None:
        """Store and connection. Raises BusUnavailable, BusUnauthorized, StoreError."""
        events = BusEvents(on_disconnected=on_lost)
        self._services, self.bus = await _open_services(stack, self._order, place, self, events)
        make = self._services.router.publisher_for
        self._spec = make(self._order.sender, self._order.receiver, METHOD)
        self._publisher = Publisher(self._spec, self._services)
        stack.push_async_callback(self._publisher.close)

    async def run(self) -> None:
        """Send until cancelled. Raises BenchDenied, BusUnavailable."""
        try:
            await self._publisher.start()
            await self._publisher.run()
        except (BusUnavailable, BaseExceptionGroup) as error:
            cause = find_cause(error)
            if isinstance(cause, BusUnavailable) and self.bus.is_connected:
                raise BenchDenied(self._order.pattern, str(cause)) from None
            raise cause from None

    def set_window(self, window: int) -> None:
        """From the next message on."""
        self._publisher.update(replace(self._spec, window=window))

    def make_records(self, texts: Iterable[str]) -> list[OutboxRecord]:
        """Encoded, each with its id."""
        to_node, from_node = self._order.receiver, self._order.sender
        make = self._services.router.make_record
        return [
            make(Message(to_node=to_node, from_node=from_node, method=METHOD, data=(text,)))
            for text in texts
        ]

    async def put(self, records: list[OutboxRecord]) -> None:
        """Accept them; returns when they are on disk. Raises StoreError."""
        await self._services.store.put(records)

    def message_delivered(self, node: str, id_: int, *args: object, **fields: object) -> None:
        """Acknowledged."""
        self.on_delivered(id_)

    def message_dead(self, *args: object) -> None:
        """The last argument is the reason."""
        self.on_dead(str(args[-1]))


async def open_receiver(stack: AsyncExitStack, order: BenchOrder, state_dir: Path) -> Subscriber:
    """The worker that takes messages, subscribed; `run` it. Raises BusError when the broker denies the subject."""
    telemetry = Telemetry(EventHub())
    services, _ = await _open_services(stack, order, state_dir, telemetry, BusEvents())
    subject = make_subject(order.receiver, METHOD, make_kind(Category.EVENT, wants_ack=True))
    spec = SubscriberSpec(
        node=order.receiver,
        subject=subject,
        method=METHOD,
        wants_ack=True,
        ack_on=order.takes.ack_on,
        delivery=order.delivery,
        signatures=order.takes.signatures,
        concurrency=order.takes.concurrency,
        accept_from=frozenset({order.sender}),
    )
    subscriber = Subscriber(spec, _METHOD, services)
    stack.push_async_callback(subscriber.close)
    await subscriber.start()
    return subscriber


def find_cause(error: BaseException) -> BaseException:
    """What ended a worker, out of the groups that its inner tasks put around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def settle_process() -> None:
    """What the daemon does for its speed before its loop begins."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    gc.freeze()


async def _open_services(
    stack: AsyncExitStack, order: BenchOrder, place: Path, telemetry: Telemetry, events: BusEvents
) -> tuple[WorkerServices, NatsBus]:
    store = await MessageStore.open(place, order.state)
    stack.push_async_callback(store.close)
    name = f"appliance bench {order.token} {place.name}"
    bus = await NatsBus.open(order.broker, name=name, events=events, require_connection=True)
    stack.push_async_callback(bus.close)
    nodes = (order.sender, order.receiver)
    # of the benchmark's own nodes, and nobody else's: no secret
    seed = hashlib.sha256(order.token.encode()).digest()
    traits = NodeTraits(public_keys=(public_key_of_seed(seed),))
    sends = replace(
        order.sends,
        ack_mode="required",
        delivery=order.delivery,
        signatures=order.takes.signatures,
    )
    fleet = DesiredState(
        run_nodes=nodes,
        declared_nodes=frozenset(nodes),
        workers={},
        traits=dict.fromkeys(nodes, traits),
        publisher_defaults={order.sender: sends},
        limits=order.limits,
        state=order.state,
    )
    router = Router({METHOD: _INFO}, instance=store.instance, next_id=store.next_id, wall=store.now)
    router.route_by(fleet)
    nobody: Any = _Nobody()
    dialect = make_dialect()
    desired = Current(fleet)
    signer = Signer()
    signer.key = make_signing_key(seed)
    verifier = Verifier(desired, store, wall=time.time, steady=store.now)
    services = WorkerServices(
        bus=bus,
        store=store,
        dialect=dialect,
        delivery=DeliveryModes(bus, dialect, store.instance, store, signer, verifier),
        verifier=verifier,
        peers=PeerBook(store),
        inbox=InboxOwners(store),
        router=router,
        telemetry=telemetry,
        error_reports=nobody,
        for_handlers=nobody,
        desired=desired,
        wall=time.time,
    )
    return services, bus
