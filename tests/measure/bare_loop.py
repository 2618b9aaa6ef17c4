"""The same loop written bare with nats-py: no disk, no checks, no handlers. Run by `heart_bench.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import cbor2
import nats
import zstandard

from tests.measure.side import Meter, Plan, make_text
from tests.support.bare_publisher import seed_message

SUBJECT = "beta.REQToConsole.EventACK"


async def receive(plan: Plan, say_ready: Callable[[], None]) -> None:
    client = await nats.connect(plan.url)
    decompressor = zstandard.ZstdDecompressor()

    async def on_message(message) -> None:
        data = message.data
        if message.headers.get("cmp") == "z":
            data = decompressor.decompress(data)
        fields = cbor2.loads(data)
        await client.publish(message.reply, b"confirmed from: beta: %d" % fields[2])

    await client.subscribe(SUBJECT, queue=SUBJECT, cb=on_message)
    await client.flush()
    say_ready()
    await asyncio.Event().wait()


async def send(plan: Plan, meter: Meter) -> None:
    client = await nats.connect(plan.url)
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    free = asyncio.Semaphore(plan.window)
    waiting: set[str] = set()
    is_done = asyncio.Event()
    left = plan.count

    async def on_ack(message) -> None:
        nonlocal left
        if message.subject in waiting:
            waiting.discard(message.subject)
            left -= 1
            meter.acked(1)
            free.release()
            if not left:
                is_done.set()

    prefix = f"{SUBJECT}.reply.bare."
    await client.subscribe(f"{prefix}*", cb=on_ack)
    await client.flush()
    headers = {"serial": "cbor"}
    if plan.compression == "zstd":
        headers["cmp"] = "z"
    text = make_text(plan)
    for number in range(plan.count):
        await free.acquire()
        data = cbor2.dumps(seed_message("beta", "alpha", "REQToConsole", [text], id=number))
        if plan.compression == "zstd":
            data = compressor.compress(data)
        reply_to = f"{prefix}{number}"
        waiting.add(reply_to)
        await client.publish(SUBJECT, data, reply=reply_to, headers=headers)
    await is_done.wait()
    await client.close()
