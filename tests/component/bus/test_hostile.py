"""What a peer with the right to publish can do to the reader: nothing. And what a broken broker can do: be dropped."""

from __future__ import annotations

import asyncio

import pytest

from appliance.bus.nats import NatsBus
from appliance.errors import SubjectInvalid
from tests.support.nats_server import NatsServer

from .conftest import INFO_LINE, Heard, Inbox, OpenBus, RawClient, make_settings

SUBJECT = b"node1.REQCliCommand.CommandACK"


def pub(subject: bytes, reply: bytes, payload: bytes = b"x") -> bytes:
    head = b" ".join(part for part in (b"PUB", subject, reply, b"%d" % len(payload)) if part)
    return head + b"\r\n" + payload + b"\r\n"


def hpub(block: bytes, payload: bytes = b"x") -> bytes:
    total = len(block) + len(payload)
    return b"HPUB %b r %d %d\r\n%b%b\r\n" % (SUBJECT, len(block), total, block, payload)


POISON = {
    "a reply subject that is no UTF-8": pub(SUBJECT, b"\xff\xfe"),
    "a subject that is no UTF-8": pub(b"node1.\xff.CommandACK", b""),
    "a reply subject with a vertical tab": pub(SUBJECT, b"a\x0b5"),
    "a header value that is no UTF-8": hpub(b"NATS/1.0\r\nserial: \xff\xfe\r\n\r\n"),
    "a header line without colon": hpub(b"NATS/1.0\r\nnocolon\r\n\r\n"),
    "a status line": hpub(b"NATS/1.0 503\r\n\r\n"),
    "a status line with odd bytes": hpub(b"NATS/1.0 \xff\xff\xff desc\r\n\r\n"),
    "a header block of the version alone": hpub(b"NATS/1.0"),
    "a header block that is none": hpub(b"\xff" * 12),
    "a header name given twice": hpub(b"NATS/1.0\r\nserial: cbor\r\nserial: gob\r\n\r\n"),
    "a header name with a space": hpub(b"NATS/1.0\r\nser ial: cbor\r\n\r\n"),
    "a header of 60 KB": hpub(b"NATS/1.0\r\nbig: " + b"a" * 60_000 + b"\r\n\r\n"),
    "ten thousand headers": hpub(
        b"NATS/1.0\r\n" + b"".join(b"h%d: v\r\n" % n for n in range(10_000))
    ),
    "an empty payload with headers": hpub(b"NATS/1.0\r\na: b\r\n\r\n", b""),
}


@pytest.mark.parametrize("frame", POISON.values(), ids=POISON)
async def test_the_next_good_message_is_received_after(
    server: NatsServer, open_bus: OpenBus, raw: RawClient, frame: bytes
) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("node1.>", inbox)
    raw.send(frame)
    raw.send(pub(SUBJECT, b"", b"after"))
    await inbox.wait_for(2)
    assert inbox.payloads[-1] == b"after"
    assert bus.connection_epoch == 0


async def test_a_reply_subject_that_is_no_utf8_cannot_be_answered_and_says_so(
    server: NatsServer, open_bus: OpenBus, raw: RawClient
) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("node1.>", inbox)
    raw.send(pub(SUBJECT, b"\xff\xfe"))
    (delivery,) = await inbox.wait_for(1)
    with pytest.raises(SubjectInvalid):
        await bus.publish(delivery.reply_to, b"")


async def run_fake_broker(first_words: bytes) -> tuple[asyncio.Server, str]:
    """A broker that completes the login and then says `first_words`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO_LINE)
        is_first = True
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
                if is_first:
                    writer.write(first_words)
                    is_first = False
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    return listener, f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "words",
    [
        b"HELLO\r\n",
        b"MSG a 1 -5\r\n",
        b"MSG a 1 99999999999\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a\r\n\r\n",
        b"MSG 3\r\nxxx\r\n",
        b"HMSG a 1 9 3\r\nxxx\r\n",
        b"HMSG a 1 3\r\nxxx\r\n",
        b"x" * 70_000,
        b"\r\n",
    ],
)
async def test_a_broker_that_speaks_no_nats_is_dropped_and_tried_again(words: bytes) -> None:
    listener, url = await run_fake_broker(words)
    heard = Heard()
    bus = await NatsBus.open(make_settings(url), name="test", events=heard.make_events())
    try:
        await heard.until(lambda it: any("no NATS protocol" in text for text in it.errors))
    finally:
        await bus.close()
        listener.close()
        await listener.wait_closed()


@pytest.mark.parametrize(
    "words",
    [
        b"+OK\r\n",
        b"INFO {}\r\n",
        b"INFO nonsense\r\n",
        b'INFO {"connect_urls":[1,"a"],"max_payload":"x"}\r\n',
        b"INFO []\r\n",
        b"PONG\r\nPONG\r\n",
        b"PING\r\n",
        b"-ERR\r\n",
    ],
)
async def test_harmless_words_of_a_broker_are_survived(words: bytes) -> None:
    listener, url = await run_fake_broker(words)
    bus = await NatsBus.open(make_settings(url), name="test", require_connection=True)
    try:
        await bus.barrier()
        await bus.barrier()
        assert bus.is_connected
    finally:
        await bus.close()
        listener.close()
        await listener.wait_closed()


async def test_a_new_maximum_and_new_addresses_in_a_later_info_are_taken() -> None:
    listener, url = await run_fake_broker(
        b'INFO {"max_payload":99,"connect_urls":["127.0.0.1:1"]}\r\n'
    )
    heard = Heard()
    bus = await NatsBus.open(make_settings(url), name="test", events=heard.make_events())
    await bus.barrier()
    assert bus.max_payload == 99
    listener.close()
    assert bus._link.wire is not None
    bus._link.wire.drop("the test says so")
    await listener.wait_closed()
    await heard.until(lambda it: any("127.0.0.1:1:" in text for text in it.errors))
    await bus.close()
