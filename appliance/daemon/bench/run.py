"""`run_bench`: from options to a report."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvloop

from appliance.bus.broker import EmbeddedBroker
from appliance.core.bench import BenchOptions, BenchReport, BenchSettings, summarize
from appliance.core.names import NodeName
from appliance.core.run_nodes import choose_run_nodes
from appliance.core.specs import AckOn, DesiredState, PublisherDefaults, SubscriberDefaults
from appliance.daemon.bench.order import BenchOrder
from appliance.daemon.bench.place import BenchPlace
from appliance.daemon.bench.rounds import OnProgress, Rounds
from appliance.daemon.run import SWITCH_INTERVAL_S
from appliance.daemon.source import FileConfigSource
from appliance.errors import BenchInterrupted, BenchUnsuited, RunNodesUnclear
from appliance.telemetry.logs import setup_logging

MAX_BELOW_BYTES = 150
"""Of the node's name, so that the subjects below it stay within what a subject may have."""

OnBegin = Callable[[BenchReport], None]
"""Told once both sides stand, with a report that has no figures yet."""


def run_bench(options: BenchOptions, on_begin: OnBegin, on_progress: OnProgress) -> BenchReport:
    """Measure; blocks until the end.

    Raises:
        ConfigError: as `run` would refuse it.
        BusUnavailable, BusUnauthorized: no broker takes us, or it was lost on the way.
        BenchError: denied, unsuited, failed, interrupted.
    """
    setup_logging("warning")
    desired, node = _load(options)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    return uvloop.run(_main(options, desired, node, on_begin, on_progress))


def _load(options: BenchOptions) -> tuple[DesiredState, NodeName]:
    """The config as `run` reads it, and the node to stand below: asked for, of this host, or the first."""
    source = FileConfigSource(
        options.paths,
        nodes=(options.node,) if options.node is not None else (),
        all_nodes=options.node is None,
        hostname=socket.gethostname(),
    )
    desired = source.load().desired
    try:
        (node,) = choose_run_nodes(
            desired.run_nodes, None, all_nodes=False, hostname=socket.gethostname()
        )
    except RunNodesUnclear:
        node = desired.run_nodes[0]
    return desired, node


async def _main(
    options: BenchOptions,
    desired: DesiredState,
    node: NodeName,
    on_begin: OnBegin,
    on_progress: OnProgress,
) -> BenchReport:
    signals: list[int] = []
    task = asyncio.current_task()
    assert task is not None

    def on_signal(number: int) -> None:
        signals.append(number)
        if len(signals) == 1:  # cleaning up is bounded, and a second signal must not cut it short
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        return await _measure(options, desired, node, on_begin, on_progress)
    except asyncio.CancelledError:
        if not signals:
            raise
        raise BenchInterrupted(signals[0]) from None


async def _measure(
    options: BenchOptions,
    desired: DesiredState,
    node: NodeName,
    on_begin: OnBegin,
    on_progress: OnProgress,
) -> BenchReport:
    async with contextlib.AsyncExitStack() as stack:
        state_dir = options.state_dir or desired.state.dir or options.default_state_dir
        place = await asyncio.to_thread(BenchPlace, Path(state_dir))
        stack.push_async_callback(asyncio.to_thread, place.close)
        order, settings = _make_order(
            options, desired, node, await _broker_urls(stack, desired, place.path)
        )
        rounds = Rounds(order, options, on_progress)
        await rounds.open(stack, place.path)
        report = BenchReport(
            options=options,
            settings=settings,
            server=rounds.server,
            is_embedded=desired.broker.embedded,
            subject=order.subject,
            state_dir=str(place.path.parent),
            is_other_disk=place.is_other_disk,
            payload_bytes=rounds.payload_bytes,
        )
        on_begin(report)
        measured = await rounds.measure()
        return replace(report, summaries=summarize(measured), accounts=rounds.accounts)


async def _broker_urls(
    stack: contextlib.AsyncExitStack, desired: DesiredState, directory: Path
) -> tuple[str, ...]:
    """The configured servers, or an embedded broker of the benchmark's own: that of a daemon is the daemon's."""
    if not desired.broker.embedded:
        return desired.broker.servers
    broker = EmbeddedBroker(directory / "broker")
    stack.push_async_callback(broker.stop)
    await broker.start()
    return (broker.url,)


def _make_order(
    options: BenchOptions, desired: DesiredState, node: NodeName, urls: tuple[str, ...]
) -> tuple[BenchOrder, BenchSettings]:
    if len(node) > MAX_BELOW_BYTES:
        raise BenchUnsuited(f"the name of node {node[:40]}… is too long to stand below it")
    sends = desired.publisher_defaults.get(node, PublisherDefaults())
    takes = desired.subscriber_defaults.get(node, SubscriberDefaults())
    settings = BenchSettings(
        node=node,
        size_bytes=options.size_bytes,
        window=options.window or sends.window,
        concurrency=options.concurrency or takes.concurrency,
        serialization=options.serialization or sends.serialization,
        compression=options.compression or sends.compression,
        ack_on=AckOn(options.ack_on) if options.ack_on else takes.ack_on,
    )
    order = BenchOrder(
        token=secrets.token_hex(6),
        below=node,
        broker=desired.broker,
        server_urls=urls,
        limits=desired.limits,
        state=desired.state,
        ack=sends.ack,
        ack_on=settings.ack_on,
        concurrency=settings.concurrency,
        window=settings.window,
        serialization=settings.serialization,
        compression=settings.compression,
    )
    return order, settings
