"""An independent client: publishes seed-layout CBOR at a steady rate, knowing only the wire.

`python -m tests.support.bare_publisher URL TO FROM RATE SECONDS [WINDOW]` prints how many it sent, and with a window how
many of them were acknowledged; it waits while so many are not, and resends nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time

import cbor2
import nats

from tests.support.waiting import pace_async

ACKS_WAIT_S = 20.0


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


async def publish(
    url: str, to_node: str, from_node: str, rate: int, seconds: float, window: int = 0
) -> tuple[int, int]:
    """(sent, acknowledged); without a window nothing is asked to be acknowledged."""
    client = await nats.connect(url)
    subject = f"{to_node}.REQToFileAppend.EventACK"
    prefix = f"{subject}.reply.{secrets.token_hex(6)}"
    acked: set[str] = set()

    async def on_ack(answer: nats.aio.msg.Msg) -> None:
        if answer.data.startswith(f"confirmed from: {to_node}: ".encode()):
            acked.add(answer.subject)

    if window:
        await client.subscribe(f"{prefix}.*", cb=on_ack)
    started = time.monotonic()
    deadline = started + 10 * seconds + ACKS_WAIT_S
    total = int(rate * seconds)
    sent = 0
    while sent < total and time.monotonic() < deadline:
        due = min(total, int((time.monotonic() - started) * rate) + 1)
        if window:
            due = min(due, len(acked) + window)
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
                subject,
                cbor2.dumps(message),
                reply=f"{prefix}.{sent}" if window else "",
                headers={"serial": "cbor"},
            )
            sent += 1
        await pace_async(time.monotonic() + 0.002)
    await client.flush()
    deadline = time.monotonic() + ACKS_WAIT_S
    while window and len(acked) < sent and time.monotonic() < deadline:
        await pace_async(time.monotonic() + 0.01)
    await client.close()
    return sent, len(acked)


def main() -> None:
    url, to_node, from_node, rate, seconds = sys.argv[1:6]
    window = int(sys.argv[6]) if len(sys.argv) > 6 else 0
    counts = asyncio.run(publish(url, to_node, from_node, int(rate), float(seconds), window))
    print(*(counts if window else counts[:1]), flush=True)


if __name__ == "__main__":
    main()
