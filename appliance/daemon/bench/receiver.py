"""The receiving side of a benchmark, a process of its own as a second daemon would be.

Its first line of standard input is the order. It says when it is ready, answers every further line with its facts, and
ends with the input: whatever becomes of the one who started it, it does not stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import sys
import time
from collections import deque
from pathlib import Path
from typing import Literal

import msgspec
import uvloop

from appliance.bus.base import BusMessage, Denial
from appliance.bus.events import BusEvents
from appliance.bus.nats import NatsBus
from appliance.daemon.bench.order import BenchOrder, Facts, Word
from appliance.daemon.bench.parts import BENCH_METHOD, find_cause, open_parts
from appliance.daemon.run import SWITCH_INTERVAL_S
from appliance.errors import ApplianceError, BusError, BusUnauthorized, BusUnavailable
from appliance.telemetry.events import EventHub
from appliance.telemetry.logs import setup_logging
from appliance.telemetry.report import Telemetry
from appliance.workers.subscriber import Subscriber

MAX_ORDER_BYTES = 1_048_576


class Echo:
    """Answers the yardstick's messages: the broker and two sockets, nothing else."""

    def __init__(self, bus: NatsBus, subject: str) -> None:
        self._bus = bus
        self._subject = subject
        self._waiting: deque[BusMessage] = deque()
        self._arrived = asyncio.Event()
        self._denied: str | None = None

    async def start(self) -> None:
        """Subscribe."""
        await self._bus.subscribe(self._subject, self._take, on_denied=self._on_denied)

    async def run(self) -> None:
        """Answer until cancelled. Raises BusError when the broker denies it."""
        while self._denied is None:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                delivery = self._waiting.popleft()
                with contextlib.suppress(BusUnavailable):
                    await self._bus.publish(delivery.reply_to, delivery.payload)
        raise BusError(self._denied)

    def _take(self, messages: list[BusMessage]) -> None:
        self._waiting.extend(messages)
        self._arrived.set()

    def _on_denied(self, denial: Denial) -> None:
        self._denied = denial.text
        self._arrived.set()


def _say(word: Word) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(word) + b"\n")
    sys.stdout.buffer.flush()


async def _open_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=MAX_ORDER_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def _serve(state_dir: Path) -> None:
    asked = await _open_input()
    order = msgspec.json.decode(await asked.readline(), type=BenchOrder)
    async with contextlib.AsyncExitStack() as stack:
        parts, bus = await open_parts(
            stack,
            order,
            side="receiver",
            state_dir=state_dir,
            telemetry=Telemetry(EventHub()),
            events=BusEvents(),
        )
        subscriber = Subscriber(order.subscriber, BENCH_METHOD, parts)
        stack.push_async_callback(subscriber.close)
        await subscriber.start()
        echo = Echo(bus, order.bare_subject)
        await echo.start()
        working = [
            asyncio.create_task(subscriber.run(), name="subscriber"),
            asyncio.create_task(echo.run(), name="echo"),
            asyncio.create_task(_answer(asked, subscriber), name="answers to the sender"),
        ]
        try:
            await asyncio.sleep(0)  # a denial that came with the subscriptions ends a worker here
            if not any(task.done() for task in working):
                _say(Word(kind="ready"))
            done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = find_cause(task)
                if error is not None:
                    raise error
        finally:
            for task in working:
                task.cancel()
            await asyncio.wait(working)


async def _answer(asked: asyncio.StreamReader, subscriber: Subscriber) -> None:
    while await asked.readline():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        stats = subscriber.stats
        facts = Facts(
            handled=stats.handled,
            failed=stats.failed,
            refused=stats.refused,
            repeats=stats.repeats,
            dropped=stats.dropped,
            cpu_s=usage.ru_utime + usage.ru_stime,
            loop_cpu_s=time.thread_time(),
        )
        _say(Word(kind="facts", facts=facts))


def main() -> int:
    """Run as `python -m appliance.daemon.bench.receiver DIR`."""
    setup_logging("warning")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    try:
        uvloop.run(_serve(Path(sys.argv[1])))
    except (BusUnavailable, BusUnauthorized) as error:
        return _end("failed", error)
    except BusError as error:
        return _end("denied", error)
    except (ApplianceError, OSError) as error:
        return _end("failed", error)
    return 0


def _end(kind: Literal["denied", "failed"], error: Exception) -> int:
    _say(Word(kind=kind, text=str(error)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
