"""What somebody would pick instead: nats-py on JetStream with a file store, as durable and acknowledged.

The producer has a window of unanswered PubAcks, the consumer in another process pulls, decodes and acknowledges each;
the end is when the consumer has acknowledged the last. Run by `heart_bench.py --jetstream`.

By itself a stream keeps what was acknowledged, until it is full. One that lets go of it (`QUEUE`), as the product's
do, writes down each message that goes, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import cbor2
import nats
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

from tests.measure.side import Meter, Plan, make_text
from tests.support.bare_publisher import seed_message

SUBJECT = "beta.REQToConsole.EventACK"
DONE_SUBJECT = "gamma.done"
"""Below no stream: how the consumer tells what it has acknowledged."""
QUEUE = "jetstream_queue"
"""The kind of a plan whose stream lets go of what is acknowledged."""


async def receive(plan: Plan, say_ready: Callable[[], None]) -> None:
    client = await nats.connect(plan.url)
    stream = client.jetstream()
    kept = RetentionPolicy.WORK_QUEUE if plan.kind == QUEUE else RetentionPolicy.LIMITS
    await stream.add_stream(
        StreamConfig(name="S", subjects=["beta.>"], storage=StorageType.FILE, retention=kept)
    )
    consumer = await stream.pull_subscribe(
        "beta.>",
        "durable",
        config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=4096),
    )
    say_ready()
    while True:
        with suppress(TimeoutError):
            batch = await consumer.fetch(256, timeout=10)
            for message in batch:
                cbor2.loads(message.data)
                await message.ack()
            await client.publish(DONE_SUBJECT, b"%d" % len(batch))


async def send(plan: Plan, meter: Meter) -> None:
    client = await nats.connect(plan.url)
    free = asyncio.Semaphore(plan.window)
    is_done = asyncio.Event()
    left = plan.count

    async def on_stored(message) -> None:
        free.release()

    async def on_done(message) -> None:
        nonlocal left
        count = int(message.data)
        left -= count
        meter.acked(count)
        if left <= 0:
            is_done.set()

    prefix = client.new_inbox()
    await client.subscribe(f"{prefix}.*", cb=on_stored)
    await client.subscribe(DONE_SUBJECT, cb=on_done)
    await client.flush()
    text = make_text(plan)
    for number in range(plan.count):
        await free.acquire()
        await client.publish(
            SUBJECT,
            cbor2.dumps(seed_message("beta", "alpha", "REQToConsole", [text], id=number)),
            reply=f"{prefix}.{number}",
            headers={"serial": "cbor", "Nats-Msg-Id": f"a{number}"},
        )
    await is_done.wait()
    await client.close()
