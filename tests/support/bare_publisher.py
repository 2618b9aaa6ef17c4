"""An independent client: publishes seed-layout CBOR at a steady rate, knowing only the wire.

`python -m tests.support.bare_publisher URL TO FROM RATE SECONDS` prints how many it sent.
"""

from __future__ import annotations

import asyncio
import sys
import time

import cbor2
import nats

from tests.support.waiting import pace_async


def seed_message(
    to_node: str, from_node: str, method: str, data: list[str], **fields: object
) -> list[object]:
    """The 25 fields in the order of the seed generation."""
    message: list[object] = [
        to_node,
        None,
        fields.get("id", 0),
        data,
        method,
        fields.get("method_args"),
        fields.get("reply_method", ""),
        None,
        False,
        from_node,
        10,
        1,
        0,
        0,
        10,
        0,
        fields.get("directory", ""),
        fields.get("file_name", ""),
        None,
        "",
        "",
        "",
        "",
        "",
        "",
    ]
    return message


async def publish(url: str, to_node: str, from_node: str, rate: int, seconds: float) -> int:
    client = await nats.connect(url)
    loop = asyncio.get_running_loop()
    started = loop.time()
    sent = 0
    total = int(rate * seconds)
    while sent < total:
        due = min(total, int((loop.time() - started) * rate) + 1)
        while sent < due:
            message = seed_message(
                to_node,
                from_node,
                "REQToFileAppend",
                [f"{sent}\n"],
                directory="load",
                file_name="lines.log",
            )
            await client.publish(
                f"{to_node}.REQToFileAppend.EventACK",
                cbor2.dumps(message),
                headers={"serial": "cbor"},
            )
            sent += 1
        await pace_async(time.monotonic() + 0.002)
    await client.flush()
    await client.close()
    return sent


def main() -> None:
    url, to_node, from_node, rate, seconds = sys.argv[1:6]
    print(asyncio.run(publish(url, to_node, from_node, int(rate), float(seconds))), flush=True)


if __name__ == "__main__":
    main()
