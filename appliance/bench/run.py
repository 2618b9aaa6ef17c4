"""`run_bench`: from options to a report; the sending side, and what may end it early."""

from __future__ import annotations

import asyncio
import math
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from appliance.bench.receiver import Receiver
from appliance.bench.report import DEFAULT_RATE, BenchOptions, BenchReport, Summary
from appliance.bench.sides import BenchOrder, SendingSide, find_cause, settle_process
from appliance.bus.broker import EmbeddedBroker
from appliance.core.run_options import choose_run_nodes
from appliance.core.specs import Delivery, PublisherDefaults, SubscriberDefaults
from appliance.errors import (
    BenchFailed,
    BenchInterrupted,
    BenchUnsuited,
    BusUnavailable,
    RunNodesUnclear,
)
from appliance.reconcile.source import FileConfigSource
from appliance.telemetry.logs import setup_logging

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PREFIX = ".bench-"
LEFT_OVER_S = 2 * 86_400.0
"""A directory as old as this is of a benchmark that was killed: none takes as long."""
HEADERS_BYTES = 512
"""More than the headers of a message take."""
STALL_S = 30.0
"""Without an acknowledgement for so long it is over."""
TELL_EVERY_S = 0.2
WARM_S = 0.5
"""Not counted, where a time is measured and not a number."""
PUT = 64
"""Messages handed over together at full speed; some more wait than the window holds."""
MAX_UNDER_WAY = 20_000
"""Messages that may wait when they come due faster than they go; then the round is over."""
MAX_UNDER_WAY_BYTES = 32 * 1024 * 1024
TIMER_S = 0.001
"""The event loop's timers know no less."""

OnProgress = Callable[[str, bool], None]
"""Told in words how far it is, and whether they are worth a line of their own."""


def run_bench(options: BenchOptions, on_progress: OnProgress) -> BenchReport:
    """Measure; blocks until the end. Raises BusUnavailable, BusUnauthorized, BenchError, and as `run` ConfigError."""
    setup_logging("warning")
    settle_process()
    return uvloop.run(_until_signal(options, on_progress))


async def _until_signal(options: BenchOptions, on_progress: OnProgress) -> BenchReport:
    signals: list[int] = []
    working = asyncio.create_task(_measure(options, on_progress))

    def on_signal(number: int) -> None:
        signals.append(number)
        if len(signals) == 1:  # cleaning up is bounded, and a second signal must not cut it short
            working.cancel()

    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await working
    except asyncio.CancelledError:
        raise BenchInterrupted(signals[0]) from None
    finally:
        for number in _ENDING:  # a loop that has closed would heed none of them
            loop.remove_signal_handler(number)


async def _measure(options: BenchOptions, on_progress: OnProgress) -> BenchReport:
    nodes = (options.node,) if options.node is not None else ()
    host = socket.gethostname()
    source = FileConfigSource(options.paths, nodes=nodes, all_nodes=not nodes, hostname=host)
    desired = source.load().desired
    try:
        (node,) = choose_run_nodes(desired.run_nodes, None, all_nodes=False, hostname=host)
    except RunNodesUnclear:
        node = desired.run_nodes[0]
    async with AsyncExitStack() as stack:
        state_dir = options.state_dir or desired.state.dir or options.default_state_dir
        directory, words = _make_room(stack, Path(state_dir))
        reached = desired.broker
        if desired.broker.embedded:  # one of our own: that of a daemon is the daemon's
            broker = EmbeddedBroker(directory / "broker")
            stack.push_async_callback(broker.stop)
            await broker.start()
            reached = replace(reached, servers=(broker.url,))
        sends: Any = desired.publisher_defaults.get(node, PublisherDefaults())
        takes = desired.subscriber_defaults.get(node, SubscriberDefaults())
        order = BenchOrder(
            below=node,
            token=secrets.token_hex(6),
            broker=reached,
            limits=desired.limits,
            state=desired.state,
            # from this side to that one: a stream between would be measured, and left behind
            sends=replace(sends, **options.sends, delivery=Delivery.CORE),
            takes=replace(takes, delivery=Delivery.CORE),
        )
        trouble: asyncio.Queue[Exception] = asyncio.Queue()
        side, receiver = SendingSide(order), Receiver(order)
        lost = BusUnavailable("the connection to the broker was lost on the way")
        await side.open(stack, directory / "sender", lambda: trouble.put_nowait(lost))
        side.on_dead = lambda why: trouble.put_nowait(BenchFailed(f"given up: {why}"))
        text = random.Random(1).randbytes(options.size_bytes).hex()[: options.size_bytes]
        size = len(side.make_records([text])[0].payload)
        most = min(side.bus.max_payload - HEADERS_BYTES, desired.limits.max_message_bytes)
        if size > most:
            why = f"a message of {size} bytes is more than broker and config allow, {most}"
            raise BenchUnsuited(f"--size {options.size_bytes}: {why}")
        await receiver.start(stack, directory / "receiver")
        server = side.bus.server
        report = BenchReport(
            options=options, order=order, server=server, state_dir=words, payload_bytes=size
        )
        load = Load(side, text)
        try:
            async with asyncio.TaskGroup() as group:
                works = side.run(), receiver.hear(), _watch(load, trouble, on_progress)
                beside = [group.create_task(work) for work in works]
                await _go_rounds(load, report, on_progress)
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as error:
            raise find_cause(error) from None
        return report


def _make_room(stack: AsyncExitStack, wanted: Path) -> tuple[Path, str]:
    """A directory beside, never in, the state of a daemon, gone afterwards; and the words for its place."""
    parent = Path(os.path.abspath(wanted))
    while not parent.is_dir():
        parent = parent.parent
    words = str(parent)
    if not os.access(parent, os.W_OK | os.X_OK):
        parent = Path(tempfile.gettempdir())
        words = f"{parent}, as {words} is not writable"
    for path in parent.glob(f"{PREFIX}*"):
        facts = path.lstat()
        # NB: the parent may be open to everybody; what is another's is left alone, and a link by `rmtree`
        if facts.st_uid == os.geteuid() and time.time() - facts.st_mtime > LEFT_OVER_S:
            shutil.rmtree(path, ignore_errors=True)
    directory = tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent, ignore_cleanup_errors=True)
    return Path(stack.enter_context(directory)), words


async def _go_rounds(load: Load, report: BenchReport, on_progress: OnProgress) -> None:
    """Everything in every round, so that a slow moment of the machine hits all of it alike."""
    options, window = report.options, report.order.sends.window
    # what is denied is denied here, and what starting costs is no round's
    await load.run(Summary(name="first", window=1), replace(options, count=1))
    on_progress(f"measuring on {report.server} below {report.order.pattern}", True)
    full = [Summary(name="window", window=window), Summary(name="single", window=1)]
    paced = Summary(name="paced", window=window, asked=options.rate or DEFAULT_RATE)
    report.summaries.extend([*full, paced] if options.rate is None else [paced])
    for number in range(1, options.rounds + 1):
        for summary in report.summaries:
            load.words = f"round {number}/{options.rounds}: {summary}"
            await load.run(summary, options)
            on_progress(f"{load.words}: {summary.rates[-1]:,.0f}/s", True)


async def _watch(load: Load, trouble: asyncio.Queue[Exception], on_progress: OnProgress) -> None:
    """Tell how far it is; end it for trouble, or when nothing is answered any more."""
    seen, since_mono = ("", 0), time.monotonic()
    while True:
        now = (load.words, load.acked)
        if now != seen:
            seen, since_mono = now, time.monotonic()
        elif time.monotonic() - since_mono > STALL_S:
            raise BenchFailed(f"no answers for {STALL_S:g} s")
        on_progress(f"{load.words}: {load.acked:,}", False)
        with suppress(TimeoutError):
            async with asyncio.timeout(TELL_EVERY_S):
                raise await trouble.get()


class Load:
    """Messages on their whole way, until they are acknowledged. `run` for each round; `acked` tells how far it is."""

    def __init__(self, side: SendingSide, text: str) -> None:
        self._side = side
        self._text = text
        self.words = "start"
        self.acked = 0
        side.on_delivered = self._on_delivered

    async def run(self, summary: Summary, options: BenchOptions) -> None:
        """Returns when everything that was sent is acknowledged; adds the figures to the summary."""
        self._summary = summary
        self._warm, self._total = 0, math.inf
        most = MAX_UNDER_WAY if summary.asked is not None else 2 * summary.window + 4 * PUT
        loop, warm_s = asyncio.get_running_loop(), min(WARM_S, options.duration_s)
        if options.count is not None:
            self._total = options.count
        elif summary.asked is not None:
            self._warm = int(warm_s * summary.asked)
            self._total = self._warm + max(1, round(options.duration_s * summary.asked))
        else:
            loop.call_later(warm_s, self._mark, "warm")
            loop.call_later(warm_s + options.duration_s, self._stop)
        self._most = max(1, min(most, MAX_UNDER_WAY_BYTES // len(self._text)))
        self._under_way: dict[int, float] = {}
        self._has_room, self._is_done = asyncio.Event(), asyncio.Event()
        self._sent = self.acked = 0
        self._begun_at = time.monotonic()
        self._marks: dict[str, tuple[float, int]] = {}
        self._side.set_window(summary.window)
        async with asyncio.TaskGroup() as group:
            while self._sent < self._total:
                if summary.asked is None:
                    due_at = await self._until_room()
                else:
                    due_at = await self._until_due(summary.asked)
                self._sent += len(due_at)
                if due_at:
                    group.create_task(self._put(due_at))
            await self._is_done.wait()
        first_at, first = self._marks.get("warm", (self._begun_at, 0))
        last_at, last = self._marks["end"]
        summary.messages += last - first
        summary.rates.append((last - first) / (last_at - first_at))

    def _mark(self, name: str) -> None:
        self._marks.setdefault(name, (time.monotonic(), self.acked))

    def _stop(self) -> None:
        self._mark("end")
        self._total = self._sent
        self._has_room.set()
        if self.acked == self._sent:
            self._is_done.set()

    async def _until_room(self) -> list[float]:
        while self._sent < self._total and len(self._under_way) >= self._most:
            self._has_room.clear()
            await self._has_room.wait()
        await asyncio.sleep(0)  # what was handed over before goes its way
        return [time.monotonic()] * int(min(PUT, self._most, self._total - self._sent))

    async def _until_due(self, rate: float) -> list[float]:
        """Message n is due at n / rate, whatever became of those before it: else a stall would hide itself."""
        wait_s = self._begun_at + self._sent / rate - time.monotonic()
        await asyncio.sleep(max(wait_s, TIMER_S))
        now = time.monotonic()
        due = int(min(self._total, (now - self._begun_at) * rate + 1))
        if len(self._under_way) > self._most:
            due = self._total = self._sent  # it does not keep up
        # NB: what the timer is late is not the messages'; what it is late beyond its own unit, is
        due_at = [self._begun_at + number / rate + TIMER_S for number in range(self._sent, due)]
        return [min(at, now) for at in due_at]

    async def _put(self, due_at: list[float]) -> None:
        records = self._side.make_records([self._text] * len(due_at))
        self._under_way.update(zip((record.id for record in records), due_at, strict=True))
        await self._side.put(records)

    def _on_delivered(self, id_: int) -> None:
        due_at = self._under_way.pop(id_, None)
        if due_at is None:
            return
        self.acked += 1
        if self._summary.asked is not None and self.acked > self._warm:
            self._summary.latencies_s.append(time.monotonic() - due_at)
        if self.acked == self._warm:
            self._mark("warm")
        if self.acked == self._total:
            self._mark("end")
            self._is_done.set()
        if len(self._under_way) <= self._most // 2:
            self._has_room.set()
