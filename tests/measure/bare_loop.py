"""The loop of the throughput measurement written bare with nats-py: no disk, no checks, no handlers.

`receive URL` acknowledges; `send URL COUNT WINDOW COMPRESSION BYTES` prints acknowledged messages per second.
"""

from __future__ import annotations

import asyncio
import sys
import time

import cbor2
import nats
import uvloop
import zstandard

from tests.support.bare_publisher import seed_message

SUBJECT = "beta.REQToConsole.EventACK"


async def receive(url: str) -> None:
    client = await nats.connect(url)
    decompressor = zstandard.ZstdDecompressor()

    async def on_message(message) -> None:
        data = message.data
        if message.headers.get("cmp") == "z":
            data = decompressor.decompress(data)
        fields = cbor2.loads(data)
        await client.publish(message.reply, b"confirmed from: beta: %d" % fields[2])

    await client.subscribe(SUBJECT, queue=SUBJECT, cb=on_message)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def send(url: str, count: int, window: int, compression: str, size: int) -> float:
    client = await nats.connect(url)
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    free = asyncio.Semaphore(window)
    waiting: set[str] = set()
    done = asyncio.Event()
    acked = 0

    async def on_ack(message) -> None:
        nonlocal acked
        if message.subject in waiting:
            waiting.discard(message.subject)
            acked += 1
            free.release()
            if acked == count:
                done.set()

    prefix = f"{SUBJECT}.reply.bare."
    await client.subscribe(f"{prefix}*", cb=on_ack)
    await client.flush()
    headers = {"serial": "cbor", "cmp": "z"} if compression == "zstd" else {"serial": "cbor"}
    started = time.perf_counter()
    for number in range(count):
        await free.acquire()
        message = seed_message(
            "beta", "alpha", "REQToConsole", [f"{number:08d}" * (size // 8)], id=number
        )
        data = cbor2.dumps(message)
        if compression == "zstd":
            data = compressor.compress(data)
        reply = f"{prefix}{number}"
        waiting.add(reply)
        await client.publish(SUBJECT, data, reply=reply, headers=headers)
    await done.wait()
    rate = count / (time.perf_counter() - started)
    await client.close()
    return rate


def main() -> None:
    if sys.argv[1] == "receive":
        uvloop.run(receive(sys.argv[2]))
        return
    url, count, window, compression, size = sys.argv[2:7]
    print(uvloop.run(send(url, int(count), int(window), compression, int(size))), flush=True)


if __name__ == "__main__":
    main()
