"""The heart beside its yardsticks: what a message costs from one disk to another, in one run.

    .venv/bin/python tests/measure/heart_bench.py [--rounds 5] [--count 20000] [--jetstream] [--signatures]
        [--profile DIR] [--json]

`bare` is a loop on nats-py with nothing durable, `floor` a model of a durable heart without a product around it, `heart`
the product's own store, connection and workers, durable on both sides. Each runs as two processes, sender and receiver,
once in every round; figures are medians of the rounds, ratios medians of those within a round. The count is of messages
after a warm-up; from accepting a message to its acknowledgement. Processor times are of the messages counted.
"""

from __future__ import annotations

# ruff: noqa: E402
import argparse
import asyncio
import cProfile
import io
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # NB: it is run as a file

import msgspec
import uvloop

from appliance.bench.sides import BenchOrder, SendingSide, open_receiver, settle_process
from appliance.bus.base import BusMessage
from appliance.bus.nats import NatsBus
from appliance.core.specs import (
    BrokerSettings,
    Delivery,
    LimitSettings,
    PublisherDefaults,
    SignaturePolicy,
    StateSettings,
    SubscriberDefaults,
)
from tests.measure import bare_loop, heart_floor, jetstream_peer
from tests.measure.side import LOOP, OTHER, WRITER, Meter, Plan, make_text, processor_s
from tests.support.nats_server import NatsServer
from tests.support.waiting import pace_async

WARM_SHARE = 0.15
SINGLE_SHARE = 0.15
"""Of the count, at window 1: it takes as long."""
PACED_RATE = 1_000.0
PACED_S = 5.0
TIMER_S = 0.001
TELL_S = 0.005
WAITING = 100_000
PUT = 64
PUTTERS = 4
"""Callers that hand over messages at once, each waiting until its own are on disk."""
MOST_WAITING = 1_000
"""Accepted and not yet sent, as with a daemon that keeps up: a lane has twice as much in memory, and what waits on disk
costs its reading, about 2 us a message, on top."""
TIMEOUT_S = 300
SHOWN = 25
THREADS = (LOOP, WRITER, OTHER)
ALWAYS = 'jetstream {{store_dir: "{directory}/js", sync_interval: always}}'
DEFAULT = 'jetstream {{store_dir: "{directory}/js"}}'


# -- the product --------------------------------------------------------------------------------------


def make_order(plan: Plan) -> BenchOrder:
    return BenchOrder(
        below="beta",
        token="measured",
        broker=BrokerSettings(servers=(plan.url,)),
        limits=LimitSettings(),
        state=StateSettings(),
        sends=PublisherDefaults(
            window=plan.window, serialization=plan.serialization, compression=plan.compression
        ),
        takes=SubscriberDefaults(signatures=SignaturePolicy(plan.signatures)),
        delivery=Delivery.JETSTREAM if plan.kind == "heart_stream" else Delivery.CORE,
    )


async def open_heart(stack: AsyncExitStack, plan: Plan) -> tuple[SendingSide, asyncio.Task[None]]:
    side = SendingSide(make_order(plan))
    await side.open(stack, Path(plan.directory, "sender"), lambda: None)
    working = asyncio.create_task(side.run())
    stack.callback(working.cancel)
    return side, working


async def send_heart(plan: Plan, meter: Meter) -> None:
    async with AsyncExitStack() as stack:
        side, working = await open_heart(stack, plan)
        send = send_full if plan.rate is None else send_paced
        doing = asyncio.create_task(send(side, plan, meter))
        await asyncio.wait({doing, working}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            working.result()
            raise RuntimeError("the publisher ended")
        doing.result()


async def send_full(side: SendingSide, plan: Plan, meter: Meter) -> None:
    text = make_text(plan)
    accepted = acked = 0
    has_room, is_done = asyncio.Event(), asyncio.Event()
    most = MOST_WAITING + plan.window

    def on_delivered(_id: int) -> None:
        nonlocal acked
        acked += 1
        meter.acked(1)
        if accepted - acked < most:
            has_room.set()
        if acked == plan.count:
            is_done.set()

    async def put() -> None:
        nonlocal accepted
        while accepted < plan.count:
            if accepted - acked >= most:
                has_room.clear()
                await has_room.wait()
                continue
            records = side.make_records([text] * min(PUT, plan.count - accepted))
            accepted += len(records)
            await side.put(records)

    side.on_delivered = on_delivered
    async with asyncio.TaskGroup() as group:
        for _ in range(PUTTERS):
            group.create_task(put())
    await is_done.wait()


async def send_paced(side: SendingSide, plan: Plan, meter: Meter) -> None:
    """One message after the other; timed from when it was due, or the timer's own unit later: it is no more exact."""
    text = make_text(plan)
    since: dict[int, float] = {}
    is_done = asyncio.Event()
    acked = 0

    def on_delivered(id_: int) -> None:
        nonlocal acked
        acked += 1
        meter.took(time.monotonic() - since.pop(id_))
        meter.acked(1)
        if acked == plan.count:
            is_done.set()

    async def put(due_at: float) -> None:
        begun_at = time.monotonic()
        records = side.make_records([text])
        since[records[0].id] = min(due_at + TIMER_S, begun_at)
        await side.put(records)

    side.on_delivered = on_delivered
    async with asyncio.TaskGroup() as group:
        first_at = time.monotonic()
        for number in range(plan.count):
            due_at = first_at + number / plan.rate
            await pace_async(due_at)
            group.create_task(put(due_at))
    await is_done.wait()


async def receive_heart(plan: Plan, say_ready: Callable[[], None]) -> None:
    async with AsyncExitStack() as stack:
        subscriber = await open_receiver(stack, make_order(plan), Path(plan.directory, "receiver"))
        say_ready()
        await subscriber.run()


async def send_stream(plan: Plan, meter: Meter) -> None:
    """As `send_heart`, to the moment at which the receiver has done the last: a sender is done when the stream has it."""
    async with AsyncExitStack() as stack:
        side, working = await open_heart(stack, plan)
        is_done = asyncio.Event()
        left = plan.count

        def on_done(messages: list[BusMessage]) -> None:
            nonlocal left
            for message in messages:
                left -= int(message.payload)
                meter.acked(int(message.payload))
            if left <= 0:
                is_done.set()

        await side.bus.subscribe(jetstream_peer.DONE_SUBJECT, on_done)
        # the meter counts what is done; what is delivered is only what makes room for more
        doing = asyncio.create_task(send_full(side, plan, Meter(plan, lambda: None)))
        async with asyncio.TaskGroup() as group:
            group.create_task(is_done.wait())
            await doing
        working.cancel()


async def receive_stream(plan: Plan, say_ready: Callable[[], None]) -> None:
    async with AsyncExitStack() as stack:
        subscriber = await open_receiver(stack, make_order(plan), Path(plan.directory, "receiver"))
        bus = await NatsBus.open(BrokerSettings(servers=(plan.url,)), name="done")
        stack.push_async_callback(bus.close)
        say_ready()
        working = asyncio.create_task(subscriber.run())
        told = 0
        while not working.done():
            done = subscriber.stats.handled
            if done > told:
                bus.send([(jetstream_peer.DONE_SUBJECT, "", b"", b"%d" % (done - told))])
                told = done
            await pace_async(time.monotonic() + TELL_S)
        working.result()


async def hold_waiting(plan: Plan) -> dict[str, float]:
    """Memory of the sender while nobody takes its messages."""
    async with AsyncExitStack() as stack:
        side, _ = await open_heart(stack, plan)
        text = make_text(plan)
        before = rss_bytes()
        for first in range(0, plan.count, PUT):
            await side.put(side.make_records([text] * min(PUT, plan.count - first)))
        return {"before_bytes": before, "waiting_bytes": rss_bytes(), "messages": plan.count}


def rss_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


# -- one measurement, in processes of its own ---------------------------------------------------------

KINDS = {
    "bare": (bare_loop.send, bare_loop.receive),
    "floor": (heart_floor.send, heart_floor.receive),
    "heart": (send_heart, receive_heart),
    "heart_stream": (send_stream, receive_stream),
    "jetstream": (jetstream_peer.send, jetstream_peer.receive),
    jetstream_peer.QUEUE: (jetstream_peer.send, jetstream_peer.receive),
}


async def run_receiver(plan: Plan) -> None:
    """Answers every line of its input with its processor time, and ends with the input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    working = asyncio.create_task(KINDS[plan.kind][1](plan, lambda: print("ready", flush=True)))
    working.add_done_callback(lambda task: task.cancelled() or os._exit(1))
    while await reader.readline():
        print(json.dumps(processor_s()), flush=True)
    working.cancel()
    await asyncio.wait({working})


async def run_sender(plan: Plan) -> dict[str, object]:
    if plan.kind == "memory":
        return await hold_waiting(plan)
    receiver = await asyncio.create_subprocess_exec(
        *child_command("receive", plan), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert (await receiver.stdout.readline()) == b"ready\n"
        meter = Meter(plan, lambda: receiver.stdin.write(b"\n"))
        async with asyncio.timeout(TIMEOUT_S):
            await KINDS[plan.kind][0](plan, meter)
            receiving = [json.loads(await receiver.stdout.readline()) for _ in meter.marks]
    finally:
        receiver.stdin.close()
        await receiver.wait()
    result: dict[str, object] = {
        "rate": meter.rate,
        "sender_us": cost_us([cpu for _, cpu in meter.marks], meter.measured),
        "receiver_us": cost_us(receiving, meter.measured),
    }
    if meter.latencies_s:
        steps = statistics.quantiles(meter.latencies_s, n=1000)
        result["latency_ms"] = {
            "p50": steps[499] * 1e3,
            "p90": steps[899] * 1e3,
            "p99": steps[989] * 1e3,
            "max": max(meter.latencies_s) * 1e3,
        }
    return result


def cost_us(marks: list[dict[str, float]], messages: int) -> dict[str, float]:
    before, after = marks
    return {name: (after[name] - before[name]) / messages * 1e6 for name in THREADS}


def child_command(role: str, plan: Plan) -> list[str]:
    return [sys.executable, __file__, "--child", role, msgspec.json.encode(plan).decode()]


def run_child(role: str, plan: Plan) -> None:
    if plan.kind in ("heart", "heart_stream", "memory"):
        settle_process()
    profile = cProfile.Profile(time.thread_time) if plan.profile is not None else None
    if profile is not None:
        profile.enable()  # NB: this thread, the event loop's, alone; what waits costs nothing
    if role == "receive":
        uvloop.run(run_receiver(plan))
    else:
        print(json.dumps(uvloop.run(run_sender(plan))), flush=True)
    if profile is not None:
        profile.disable()
        profile.dump_stats(Path(plan.profile, f"{role}.prof"))


def measure(plan: Plan) -> dict[str, object]:
    done = subprocess.run(
        child_command("send", plan), stdout=subprocess.PIPE, check=True, timeout=2 * TIMEOUT_S
    )
    return json.loads(done.stdout)


# -- rounds ---------------------------------------------------------------------------------------


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table; `beside` names the lines it is held against."""

    name: str
    kind: str
    window: int = 256
    serialization: str = "cbor"
    compression: str = "none"
    signatures: str = "off"
    rate: float | None = None
    broker: str = ""


def make_cases(options: argparse.Namespace) -> list[Case]:
    cases = [
        Case(name="bare 256", kind="bare"),
        Case(name="floor 256", kind="floor"),
        Case(name="heart 256", kind="heart"),
        Case(name="heart 256 zstd", kind="heart", compression="zstd"),
        Case(name="heart 256 gob", kind="heart", serialization="gob"),
        Case(name="bare 1", kind="bare", window=1),
        Case(name="floor 1", kind="floor", window=1),
        Case(name="heart 1", kind="heart", window=1),
        Case(name=f"heart {PACED_RATE:.0f}/s", kind="heart", rate=PACED_RATE),
    ]
    if options.jetstream:
        cases += [
            Case(name=f"{name} 256 {sync}", kind=kind, broker=broker)
            for sync, broker in (("always", ALWAYS), ("default", DEFAULT))
            for name, kind in (
                ("jetstream", "jetstream"),
                ("queue", jetstream_peer.QUEUE),
                ("stream", "heart_stream"),
            )
        ]
    if options.signatures:
        cases += [
            Case(name=f"heart {window} {word}", kind="heart", window=window, signatures=word)
            for window in (256, 1)
            for word in ("prefer", "require")
        ]
        cases.append(
            Case(
                name=f"heart {PACED_RATE:.0f}/s require",
                kind="heart",
                rate=PACED_RATE,
                signatures="require",
            )
        )
    if options.only:
        cases = [case for case in cases if any(word in case.name for word in options.only)]
    return cases


def run_case(case: Case, count: int, url: str | None, profile: str | None = None) -> dict:
    if case.rate is not None:
        count = int(case.rate * PACED_S)
    elif case.window == 1:
        count = int(count * SINGLE_SHARE)
    warm = 0 if case.kind == "memory" else int(count * WARM_SHARE)
    with tempfile.TemporaryDirectory(prefix="heart-bench-", dir=".") as directory:
        plan = Plan(
            kind=case.kind,
            url=url or "",
            directory=directory,
            count=count + warm,
            warm=warm,
            window=case.window,
            serialization=case.serialization,
            compression=case.compression,
            signatures=case.signatures,
            rate=case.rate,
            profile=profile,
        )
        if url is not None:
            return measure(plan)
        with NatsServer(case.broker.format(directory=Path(directory).resolve())) as broker:
            result = measure(msgspec.structs.replace(plan, url=broker.url))
            # warm-up and all: the broker keeps no book of what was measured
            spent = Path(f"/proc/{broker.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            seconds = sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")
            result["broker_us"] = seconds / plan.count * 1e6
            return result


def run_rounds(cases: list[Case], options: argparse.Namespace) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {case.name: [] for case in cases}
    with NatsServer() as broker:
        for number in range(options.rounds):
            for case in cases:
                url = None if case.broker else broker.url
                result = run_case(case, options.count, url)
                found[case.name].append(result)
                say(f"round {number + 1}/{options.rounds} {case.name:22s} {result['rate']:8,.0f}/s")
    return found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def summarize(found: dict[str, list[dict]]) -> dict[str, dict[str, object]]:
    summary = {}
    for name, rounds in found.items():
        rates = [item["rate"] for item in rounds]
        line: dict[str, object] = {
            "messages_per_second": statistics.median(rates),
            "lowest": min(rates),
            "highest": max(rates),
        }
        for yardstick in ("bare", "floor"):
            others = found.get(f"{yardstick} {name.split()[1]}")
            if others:
                pairs = zip(rounds, others, strict=True)
                line[f"of_{yardstick}"] = statistics.median(a["rate"] / b["rate"] for a, b in pairs)
        for side in ("sender_us", "receiver_us"):
            line[side] = median_of([item[side] for item in rounds])
        if "broker_us" in rounds[0]:
            line["broker_us"] = statistics.median(item["broker_us"] for item in rounds)
        if "latency_ms" in rounds[0]:
            line["latency_ms"] = median_of([item["latency_ms"] for item in rounds])
        summary[name] = line
    return summary


def median_of(items: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(item[name] for item in items) for name in items[0]}


def show(summary: dict[str, dict], memory: dict[str, float] | None) -> None:
    print(
        f"{'':22s} {'msgs/s':>8s} {'low..high':>15s} {'bare':>5s} {'floor':>5s}"
        f"  {'sender us = loop+writer':>23s}  {'receiver us':>16s}"
    )
    for name, line in summary.items():
        ratios = (line.get("of_bare"), line.get("of_floor"))
        shown = [f"{ratio:5.2f}" if ratio is not None else " " * 5 for ratio in ratios]
        spread = f"{line['lowest']:,.0f}..{line['highest']:,.0f}"
        print(
            f"{name:22s} {line['messages_per_second']:8,.0f} {spread:>15s} {' '.join(shown)}"
            f"  {show_cost(line['sender_us']):>23s}  {show_cost(line['receiver_us']):>16s}"
            + (f"  broker {line['broker_us']:.1f}" if "broker_us" in line else "")
        )
    for name, line in summary.items():
        if "latency_ms" in line:
            parts = ", ".join(f"{key} {value:.2f}" for key, value in line["latency_ms"].items())
            print(f"{name}: submit to acknowledged, ms: {parts}")
    if memory is not None:
        before, after = memory["before_bytes"], memory["waiting_bytes"]
        print(
            f"memory: {before / 1e6:.0f} MB, {after / 1e6:.0f} MB with {memory['messages']:,} waiting:"
            f" {(after - before) / memory['messages']:.0f} bytes each"
        )


def show_cost(cost: dict[str, float]) -> str:
    total = f"{sum(cost.values()):.1f} = {cost[LOOP]:.1f}+{cost[WRITER]:.1f}"
    return total if cost[OTHER] < 0.5 else f"{total}+{cost[OTHER]:.1f}"


def profile_heart(directory: Path, count: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    case = Case(name="heart 256", kind="heart")
    run_case(case, count, None, profile=str(directory.resolve()))
    for role in ("send", "receive"):
        path = directory / f"{role}.prof"
        text = io.StringIO()
        stats = pstats.Stats(str(path), stream=text)
        stats.sort_stats("tottime").print_stats(SHOWN)
        print(f"{role}: {path}\n{text.getvalue().partition('Ordered by')[2]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=20_000, help="messages at window 256")
    parser.add_argument("--waiting", type=int, default=WAITING, help="for the memory; 0: not")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="cases whose name has the word")
    parser.add_argument("--jetstream", action="store_true", help="beside it, both syncs")
    parser.add_argument("--signatures", action="store_true", help="beside it, signed messages")
    parser.add_argument(
        "--profile",
        nargs="?",
        const=Path(tempfile.gettempdir(), "heart-profile"),
        metavar="DIR",
        help=f"only cProfile each side's loop thread into DIR and print the top {SHOWN}",
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("ROLE", "PLAN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        role, plan = options.child
        run_child(role, msgspec.json.decode(plan, type=Plan))
        return
    if options.profile:
        profile_heart(Path(options.profile), options.count)
        return
    found = run_rounds(make_cases(options), options)
    summary = summarize(found)
    memory = None
    if options.waiting and not options.only:
        case = Case(name="memory", kind="memory")
        memory = run_case(case, int(options.waiting), None)
    if options.json:
        print(json.dumps({"cases": summary, "rounds": found, "memory": memory}, indent=2))
    else:
        show(summary, memory)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
