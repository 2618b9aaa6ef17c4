"""When a connection writes: what is sent first in a turn of the loop at once, what follows together."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from appliance.bus.protocol import Wire, WireEvents
from appliance.bus.subscription import NatsSubscription


class Socket(asyncio.Transport):
    """Takes everything and keeps what it took."""

    def __init__(self):
        super().__init__()
        self.written = []

    def write(self, data):
        self.written.append(bytes(data))

    def is_closing(self):
        return False

    def set_protocol(self, protocol):
        pass

    def resume_reading(self):
        pass

    def close(self):
        pass


@pytest.fixture
def socket():
    return Socket()


@pytest.fixture
async def wire(socket) -> AsyncIterator[Wire]:
    def ignore(*_):
        pass

    events = WireEvents(on_lost=ignore, on_error=ignore, on_failure=ignore, on_info=ignore)
    wire = Wire(server="nats://x", max_payload=2**20, subscriptions={}, events=events)
    wire.take_over(socket, b"")
    yield wire
    wire.close()


def frames(*payloads):
    return [("a.b", "", b"", payload) for payload in payloads]


async def test_what_is_sent_alone_in_a_turn_does_not_wait_for_its_end(wire, socket):
    wire.publish(frames(b"one", b"two"))
    assert len(socket.written) == 1
    assert socket.written[0].index(b"one") < socket.written[0].index(b"two")
    await asyncio.sleep(0)
    wire.publish(frames(b"three"))
    assert len(socket.written) == 2
    assert b"three" in socket.written[1]


async def test_what_follows_in_the_same_turn_is_written_together_and_in_order(wire, socket):
    for number in range(5):
        wire.publish(frames(b"number %d" % number))
    assert len(socket.written) == 1
    await asyncio.sleep(0)
    assert len(socket.written) == 2
    data = b"".join(socket.written)
    places = [data.index(b"number %d" % number) for number in range(5)]
    assert places == sorted(places)


async def test_a_command_that_came_before_in_the_turn_is_written_before(wire, socket):
    pong = wire.ping()
    wire.publish(frames(b"one"))
    await asyncio.sleep(0)
    data = b"".join(socket.written)
    assert data.index(b"PING") < data.index(b"one")
    pong.cancel()


async def test_a_turn_that_sends_much_is_congested_until_the_next(wire):
    payload = b"x" * 40_000
    for _ in range(2):
        wire.publish(frames(payload))
        assert not wire.is_congested
    wire.publish(frames(payload))
    assert wire.is_congested
    await asyncio.sleep(0)
    assert not wire.is_congested


async def test_what_a_read_brings_about_is_written_with_it_and_before_another_turn(wire, socket):

    def answer(messages):
        for message in messages:
            wire.publish(frames(b"to " + message.payload))

    wire._subscriptions["1"] = NatsSubscription(
        sid="1", subject="a", queue="", on_messages=answer, on_denied=None, stop=answer
    )
    wire.data_received(b"MSG a 1 3\r\none\r\nMSG a 1 3\r\ntwo\r\nMSG a 1 3\r\nsix\r\nPING\r\n")
    assert [data.count(b"to ") for data in socket.written] == [1, 2]
    assert b"".join(socket.written).endswith(b"to six\r\nPONG\r\n")
    wire.publish(frames(b"at once again"))
    assert len(socket.written) == 3
