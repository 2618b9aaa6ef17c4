"""One side of a benchmark: the daemon's own store, bus and worker parts, in a state directory made for it.

The method is nobody's but the benchmark's. It has no effect: what is measured is the way of a message, not what it
asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from appliance.bus.events import BusEvents
from appliance.bus.nats import NatsBus
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category
from appliance.core.specs import DesiredState, PublisherDefaults
from appliance.daemon.bench.order import METHOD, BenchOrder
from appliance.daemon.console import StdoutConsole
from appliance.daemon.presence import Presence
from appliance.methods._files import DataFiles
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.outbox.store import MessageStore
from appliance.reconcile.overrides import OverrideBook
from appliance.telemetry.report import Telemetry
from appliance.workers.answers import Answers
from appliance.workers.parts import WorkerParts
from appliance.workers.router import Router
from appliance.workers.tools import HandlerTools


class _Nothing:
    """The handler."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """The message has arrived; that is all."""
        return DONE


BENCH_METHOD = Method(
    info=MethodInfo(
        name=METHOD, summary="Nothing; sent by `appliance bench`.", category=Category.EVENT
    ),
    make=_Nothing,
)


async def open_parts(
    stack: contextlib.AsyncExitStack,
    order: BenchOrder,
    *,
    side: str,
    state_dir: Path,
    telemetry: Telemetry,
    events: BusEvents,
) -> tuple[WorkerParts, NatsBus]:
    """Store, connection and what workers need; `stack` closes all of it, the connection first.

    Raises:
        BusUnavailable, BusUnauthorized: no broker takes us.
        StoreError: no store can be made in `state_dir`.
    """
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
    fleet = _make_fleet(order)
    router = Router(
        {METHOD: BENCH_METHOD.info}, instance=store.instance, next_id=store.next_id, wall=store.now
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
    parts = WorkerParts(
        bus=bus,
        store=store,
        router=router,
        telemetry=telemetry,
        answers=answers,
        tools=await _make_tools(stack, fleet, router, state_dir),
        fleet=lambda: fleet,
        wall=time.time,
    )
    return parts, bus


def _make_fleet(order: BenchOrder) -> DesiredState:
    nodes = (order.sender, order.receiver)
    publisher, subscriber = order.publisher(order.window), order.subscriber
    return DesiredState(
        run_nodes=nodes,
        declared_nodes=frozenset(nodes),
        workers={publisher.key: publisher, subscriber.key: subscriber},
        publisher_defaults=dict.fromkeys(nodes, PublisherDefaults(ack=order.ack)),
        limits=order.limits,
        state=order.state,
    )


async def _run_beside(stack: contextlib.AsyncExitStack, answers: Answers) -> None:
    task = asyncio.create_task(answers.run(), name="answers")

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    stack.push_async_callback(end)


async def _make_tools(
    stack: contextlib.AsyncExitStack, fleet: DesiredState, router: Router, state_dir: Path
) -> HandlerTools:
    console = StdoutConsole()
    stack.callback(console.close)
    return HandlerTools(
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


def find_cause(task: asyncio.Task[None]) -> BaseException | None:
    """What ended a worker's task, out of the groups that its inner tasks put around it."""
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
