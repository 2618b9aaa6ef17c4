"""Messages go through: in order, whole, with their headers, and never before or after a subscription."""

from __future__ import annotations

import asyncio
import os

import pytest
import uvloop

from appliance.bus.nats import NatsBus
from appliance.errors import BusUnavailable, PayloadTooLarge, SubjectInvalid
from appliance.wire.headers import encode_headers
from tests.support.nats_server import NatsServer
from tests.support.waiting import turns

from .conftest import Heard, Inbox, OpenBus, RawClient, make_settings


async def test_a_message_arrives_with_subject_payload_headers_and_reply(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("ship1.REQPing.EventACK", inbox, queue="ship1.REQPing.EventACK")
    await peer.publish(
        "ship1.REQPing.EventACK",
        b"\x00\xffhello\r\n",
        headers={"serial": "cbor", "cmp": "z"},
        reply_to="ship1.REQPing.EventACK.reply.7",
    )
    (delivery,) = await inbox.wait_for(1)
    assert delivery.subject == "ship1.REQPing.EventACK"
    assert delivery.payload == b"\x00\xffhello\r\n"
    assert delivery.headers == {"serial": "cbor", "cmp": "z"}
    assert delivery.reply_to == "ship1.REQPing.EventACK.reply.7"


async def test_a_message_published_right_after_subscribe_returned_is_received_200_of_200(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    inbox = Inbox()
    for number in range(200):
        subscription = await bus.subscribe(f"a.{number}", inbox)
        await peer.publish(f"a.{number}", b"x")
        await inbox.wait_for(number + 1)
        await subscription.stop_intake()
    assert len(inbox.messages) == 200


async def test_the_barrier_travels_behind_the_commands_before_it() -> None:
    """The defect of the library's own flush, measured with a server that only notes the order of the bytes."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"X","version":"2.15.1","headers":true}\r\n')
        while line := await reader.readline():
            seen.append(line.split()[0])
            if line.startswith(b"PUB"):
                await reader.readexactly(int(line.split()[-1]) + 2)
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    bus = await NatsBus.open(
        make_settings(f"nats://127.0.0.1:{port}", ping_interval_s=60), name="test"
    )
    try:
        for _ in range(200):
            seen.clear()
            await bus.publish("a", b"1")
            await bus.barrier()
            assert seen == [b"PUB", b"PING"]
            seen.clear()
            await bus.subscribe("a", Inbox())
            assert seen == [b"SUB", b"PING"]
    finally:
        await bus.close()
        listener.close()
        await listener.wait_closed()


async def test_order_is_kept_over_many_messages(server: NatsServer, open_bus: OpenBus) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    for number in range(5000):
        await peer.publish("a", b"%d" % number, headers={"n": str(number)} if number % 2 else None)
    await inbox.wait_for(5000)
    assert inbox.payloads == [b"%d" % number for number in range(5000)]


async def test_a_payload_of_a_megabyte_arrives_whole(server: NatsServer, open_bus: OpenBus) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    payload = os.urandom(bus.max_payload)
    await bus.publish("a", payload)
    await bus.publish("a", b"")
    await inbox.wait_for(2)
    assert inbox.payloads == [payload, b""]


async def test_one_member_of_a_queue_group_gets_each_message(
    server: NatsServer, open_bus: OpenBus
) -> None:
    buses = [await open_bus(server.url) for _ in range(3)]
    inbox = Inbox()
    for bus in buses:
        await bus.subscribe("a", inbox, queue="g")
    for number in range(100):
        await buses[0].publish("a", b"%d" % number)
    for bus in buses:
        await bus.barrier()
        await bus.barrier()
    assert sorted(int(payload) for payload in inbox.payloads) == list(range(100))


async def test_no_responders_is_a_delivery_with_status_503_on_a_wildcard(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("ship1.REQPing.EventACK.reply.*", inbox)
    await bus.publish("ship1.REQPing.EventACK", b"", reply_to="ship1.REQPing.EventACK.reply.42")
    (delivery,) = await inbox.wait_for(1)
    assert delivery.subject == "ship1.REQPing.EventACK.reply.42"
    assert delivery.headers["Status"] == "503"
    assert delivery.payload == b""


async def test_headers_that_differ_in_case_are_both_passed_on(
    server: NatsServer, open_bus: OpenBus, raw: RawClient
) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    block = b"NATS/1.0\r\nSerial: gob\r\nserial: cbor\r\nserial: other\r\n\r\n"
    raw.send(b"HPUB a %d %d\r\n" % (len(block), len(block)) + block + b"\r\n")
    (delivery,) = await inbox.wait_for(1)
    assert delivery.headers == {"Serial": "gob", "serial": "cbor"}


async def test_stop_intake_hands_over_everything_that_was_sent_before(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    for _ in range(20):
        inbox = Inbox()
        subscription = await bus.subscribe("a", inbox, queue="a")
        for number in range(50):
            await peer.publish("a", b"%d" % number)
        await peer.barrier()
        await subscription.stop_intake()
        assert len(inbox.messages) == 50
        await peer.publish("a", b"late")
        await peer.barrier()
        await bus.barrier()
        assert len(inbox.messages) == 50


async def test_stop_intake_twice_and_without_connection_does_no_harm(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus = await open_bus(server.url)
    first, second = await bus.subscribe("a", Inbox()), await bus.subscribe("b", Inbox())
    await first.stop_intake()
    await first.stop_intake()
    server.kill()
    await second.stop_intake()


@pytest.mark.parametrize("error", [RuntimeError("bug"), asyncio.CancelledError()])
async def test_a_callback_that_raises_does_not_end_the_reader(
    server: NatsServer, open_bus: OpenBus, error: BaseException
) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()

    def take(delivery: object) -> None:
        raise error

    await bus.subscribe("bad", take)
    await bus.subscribe("good", inbox)
    for _ in range(3):
        await bus.publish("bad", b"")
    await bus.publish("good", b"")
    await inbox.wait_for(1)


async def test_subscribing_during_close_ends_with_unavailable(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus = await open_bus(make_settings(server.url, connect_timeout_s=0.05))
    await bus.close()
    with pytest.raises(BusUnavailable):
        await bus.subscribe("a", Inbox())
    with pytest.raises(BusUnavailable):
        await bus.publish("a", b"")
    with pytest.raises(BusUnavailable):
        await bus.barrier()


def test_it_works_the_same_on_uvloop(server: NatsServer) -> None:
    async def talk() -> list[bytes]:
        bus = await NatsBus.open(make_settings(server.url), name="test", require_connection=True)
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        for number in range(1000):
            await bus.publish("a", b"%d" % number)
        await inbox.wait_for(1000)
        await bus.close()
        return inbox.payloads

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(talk()) == [b"%d" % number for number in range(1000)]


async def test_a_member_that_joins_and_leaves_its_group_under_load_loses_and_doubles_nothing(
    server: NatsServer, open_bus: OpenBus
) -> None:
    steady, restless, peer = [await open_bus(server.url) for _ in range(3)]
    inbox = Inbox()
    await steady.subscribe("a", inbox, queue="g")
    done = asyncio.Event()
    sent = 0

    async def send() -> None:
        nonlocal sent
        while not done.is_set():
            for _ in range(10):
                await peer.publish("a", b"%d" % sent)
                sent += 1
            await turns()

    sending = asyncio.create_task(send())
    for _ in range(300):
        subscription = await restless.subscribe("a", inbox, queue="g")
        await subscription.stop_intake()
    done.set()
    await sending
    for bus in (peer, steady, restless, steady):
        await bus.barrier()
    assert sorted(map(int, inbox.payloads)) == list(range(sent))


async def test_a_batch_of_frames_is_sent_at_once_in_order_and_comes_in_batches(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a.*", inbox)
    block = encode_headers({"serial": "cbor"})
    frames = [(f"a.{n}", f"r.{n}", block if n % 2 else b"", b"%d" % n) for n in range(1000)]
    peer.send(frames)
    taken = await inbox.wait_for(1000)
    assert [(m.subject, m.reply_to, m.block, m.payload) for m in taken] == frames
    assert taken[1].headers == {"serial": "cbor"}
    assert taken[0].headers == {}
    assert len(inbox.batches) < 500, "messages of one read come together"


async def test_a_sender_is_told_to_wait_and_may_go_on_when_the_socket_takes_more(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    assert not peer.is_congested
    sent = waited = 0
    while waited < 20:
        if peer.is_congested:
            waited += 1
            await peer.wait_until_writable()
        else:
            peer.send([("a", "", b"", b"x" * 100_000)])
            sent += 1
    await inbox.wait_for(sent)


async def test_sending_without_a_connection_raises_and_sends_nothing(
    server: NatsServer, open_bus: OpenBus
) -> None:
    heard = Heard()
    bus = await open_bus(server.url, events=heard.make_events())
    server.kill()
    await heard.until(lambda it: "disconnected" in it.calls)
    assert not bus.is_congested
    with pytest.raises(BusUnavailable):
        bus.send([("a", "", b"", b"")])
    with pytest.raises(BusUnavailable):
        await bus.wait_until_writable()


async def test_one_bad_frame_fails_the_batch_and_nothing_of_it_is_sent(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    for bad in (("a b", "", b"", b""), ("a", "r\r\n", b"", b""), ("a", "r..s", b"", b"")):
        with pytest.raises(SubjectInvalid):
            bus.send([("a", "", b"", b"1"), bad])
    with pytest.raises(PayloadTooLarge):
        bus.send([("a", "", b"", b"1"), ("a", "", b"", b"x" * (bus.max_payload + 1))])
    await bus.barrier()
    await bus.barrier()
    assert inbox.messages == []
    assert bus.connection_epoch == 0
