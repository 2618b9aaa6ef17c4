"""The loads of a benchmark: messages on their whole way, and bare ones as the yardstick.

At full speed a load keeps more waiting than the window lets out. At a rate messages come due by the clock, and their
latency counts from that moment, so that nothing a stall delays is left out.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine

from appliance.bus.base import BusMessage, OnDenied
from appliance.bus.nats import NatsBus
from appliance.core.bench import Scenario
from appliance.core.delivery import DeliveryState
from appliance.core.latency import LatencyHistogram
from appliance.core.message import Message
from appliance.core.meter import Extent, Meter
from appliance.core.names import REPLY_TOKEN
from appliance.daemon.bench.order import METHOD, BenchOrder
from appliance.daemon.bench.pacer import Pacer
from appliance.outbox.records import OutboxRecord
from appliance.telemetry.events import EventHub
from appliance.telemetry.report import Telemetry
from appliance.workers.parts import WorkerParts
from appliance.workers.publisher import Publisher

BATCH = 64
"""Messages handed over in one go, at full speed."""
MAX_BACKLOG = 20_000
"""Messages that may wait when they come due faster than they go; then the round is over."""
MAX_UNDER_WAY_BYTES = 32 * 1024 * 1024
"""Of large messages fewer wait: they are in the memory of both sides and of the broker."""
TEXTS = 64
MAX_TEXTS_BYTES = 4 * 1024 * 1024


def make_texts(size_bytes: int) -> list[str]:
    """Texts of this size, of random hex digits: zstd makes a little more than half of one."""
    source = random.Random(size_bytes)  # the same for every run
    count = max(1, min(TEXTS, MAX_TEXTS_BYTES // size_bytes))
    return [source.randbytes(size_bytes // 2 + 1).hex()[:size_bytes] for _ in range(count)]


class BenchTelemetry(Telemetry):
    """Tells the load what became of its messages."""

    def __init__(self, on_dead: Callable[[str], None]) -> None:
        super().__init__(EventHub())
        self.on_delivered: Callable[[int, float], None] = lambda _id, _seconds: None
        self._on_dead = on_dead
        self.missed = 0

    def message_delivered(
        self,
        node: str,
        id_: int,
        to_node: str,
        method: str,
        seconds: float,
        state: DeliveryState = DeliveryState.TAKEN,
    ) -> None:
        """Acknowledged."""
        self.on_delivered(id_, seconds)

    def attempt_missed(self, *args: object, **fields: object) -> None:
        """Counted; it is tried again."""
        self.missed += 1

    def message_dead(self, *args: object) -> None:
        """The last argument is the reason."""
        self._on_dead(str(args[-1]))


class _Load:
    """What is under way, by number or id, with the time it was due or sent."""

    def __init__(self, scenario: Scenario, extent: Extent) -> None:
        self._scenario = scenario
        total = extent.measure_count
        self._total = None if total is None else total + extent.warm_count
        self.meter = Meter(extent, time.monotonic())
        self.sent = 0
        self.lateness = LatencyHistogram()
        self.is_overrun = False
        self._under_way: dict[int, float] = {}
        self._most = MAX_BACKLOG
        self._wake = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._time_s = None if extent.measure_s is None else extent.warm_s + extent.measure_s
        self._pacer: Pacer | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send until the meter is full; when this returns everything that was sent is answered."""
        try:
            if self._scenario.rate is None:
                await self._go_full()
            else:
                await self._keep_pace(self._scenario.rate)
            while self._sending or self._under_way:
                for task in [task for task in self._sending if task.done()]:
                    self._sending.discard(task)
                    task.result()
                await self._wait()
        finally:
            for task in self._sending:
                task.cancel()

    @property
    def _is_over(self) -> bool:
        """Whether nothing more is to be sent."""
        is_all_sent = self._total is not None and self.sent >= self._total
        return self.is_overrun or is_all_sent or self.meter.is_full(time.monotonic())

    async def _wait(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    def _completed(self, number: int, seconds: float | None = None) -> None:
        since = self._under_way.pop(number, None)
        if since is None:
            return
        now = time.monotonic()
        if self._pacer is None:
            self.meter.add(now, now - since if seconds is None else seconds)
        else:
            self.meter.add(now, now - since, due_at=since)
        self._wake.set()

    async def _go_full(self) -> None:
        raise NotImplementedError

    async def _keep_pace(self, rate: float) -> None:
        self._pacer = Pacer(rate, self._release, total=self._total)
        self._pacer.start()
        try:
            async with asyncio.timeout(self._time_s):
                await self._all_sent.wait()
        except TimeoutError:
            pass
        finally:
            await self._pacer.stop()

    def _release(self, first: int, count: int) -> None:
        """Messages `first` and following are due."""
        if self._is_over:
            return
        assert self._pacer is not None
        if len(self._under_way) > min(MAX_BACKLOG, self._most):
            self._overrun()
            return
        due_at = [self._pacer.due_at(first + at) for at in range(count)]
        self.lateness.add(time.monotonic() - due_at[0])
        task = asyncio.create_task(self._send_due(due_at), name="bench send")
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._sending.discard(task)
            if self._total is not None and self.sent >= self._total:
                self._all_sent.set()
        else:
            self._overrun()  # nothing more is sent, and `run` raises what went wrong
        self._wake.set()

    def _overrun(self) -> None:
        self.is_overrun = True
        self._all_sent.set()

    def _send_due(self, due_at: list[float]) -> Coroutine[None, None, None]:
        raise NotImplementedError


class DurableLoad(_Load):
    """Outbox, broker, inbox, handler, acknowledgement, settled on disk.

    At full speed the time of a message is that from its sending to its acknowledgement: what it waited before, in a
    queue of our own making, says nothing.
    """

    def __init__(
        self,
        order: BenchOrder,
        parts: WorkerParts,
        publisher: Publisher,
        telemetry: BenchTelemetry,
        scenario: Scenario,
        extent: Extent,
        texts: list[str],
    ) -> None:
        super().__init__(scenario, extent)
        self._parts = parts
        self._most = max(1, MAX_UNDER_WAY_BYTES // len(texts[0]))
        self._messages = [
            Message(to_node=order.receiver, from_node=order.sender, method=METHOD, data=(text,))
            for text in texts
        ]
        publisher.update(order.publisher(scenario.window))
        telemetry.on_delivered = self._completed

    async def run(self) -> None:
        """As of every load; and all of it is settled on disk."""
        await super().run()
        await self._parts.store.list_pending(1)  # NB: answered after the commits of all before it

    async def _go_full(self) -> None:
        most = min(2 * self._scenario.window + 2 * BATCH, self._most)
        batch = min(BATCH, most)
        while not self._is_over:
            if len(self._under_way) + batch > most:
                await self._wait()
                continue
            count = batch if self._total is None else min(batch, self._total - self.sent)
            await self._send_due([time.monotonic()] * count)

    async def _send_due(self, due_at: list[float]) -> None:
        records = [self._make_record(self.sent + at) for at in range(len(due_at))]
        self.sent += len(records)
        for record, at in zip(records, due_at, strict=True):
            self._under_way[record.id] = at
        await self._parts.store.put(records)

    def _make_record(self, number: int) -> OutboxRecord:
        return self._parts.router.make_record(self._messages[number % len(self._messages)])


class BareReplies:
    """The subscription that hears the yardstick's answers; made once for all rounds."""

    def __init__(self, bus: NatsBus, order: BenchOrder) -> None:
        self._bus = bus
        self.prefix = f"{order.bare_subject}.{REPLY_TOKEN}."
        self.on_reply: Callable[[int], None] = lambda _number: None

    async def start(self, on_denied: OnDenied) -> None:
        """Subscribe."""
        await self._bus.subscribe(f"{self.prefix}*", self._take, on_denied=on_denied)

    def _take(self, messages: list[BusMessage]) -> None:
        for message in messages:
            number = message.subject.removeprefix(self.prefix)
            if number.isdecimal():
                self.on_reply(int(number))


class BareLoad(_Load):
    """As many bytes to the same process and back, through the same broker: no disk, no checks, no handler."""

    def __init__(
        self,
        order: BenchOrder,
        bus: NatsBus,
        replies: BareReplies,
        scenario: Scenario,
        extent: Extent,
        payload: bytes,
    ) -> None:
        super().__init__(scenario, extent)
        self._most = max(1, MAX_UNDER_WAY_BYTES // max(len(payload), 1))
        self._bus = bus
        self._subject = order.bare_subject
        self._prefix = replies.prefix
        self._payload = payload
        replies.on_reply = self._completed

    async def _go_full(self) -> None:
        most = min(self._scenario.window, self._most)
        while not self._is_over:
            while len(self._under_way) < most and not self._is_over:
                await self._send_due([time.monotonic()])
            await self._wait()

    async def _send_due(self, due_at: list[float]) -> None:
        for at in due_at:
            number = self.sent
            self.sent += 1
            self._under_way[number] = at
            await self._bus.publish(
                self._subject, self._payload, reply_to=f"{self._prefix}{number}"
            )
