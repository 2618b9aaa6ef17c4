"""What the bus promises, in sentences that hold on a real nats-server and on the broker within the process alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Protocol

import pytest

from appliance.bus.base import Denial
from appliance.bus.events import BusEvents
from appliance.bus.memory import MemoryBroker, MemoryBus, Permissions
from appliance.bus.nats import NatsBus
from appliance.errors import BusUnavailable, PayloadTooLarge, SubjectInvalid
from appliance.wire.headers import encode_headers
from tests.support.nats_server import NatsServer

from .conftest import Heard, Inbox, make_settings

MAX_PAYLOAD = 4096
REQUEST = "Ship1.REQPing.EventACK"
RESTRICTED = Permissions(
    publish_deny=("Ship1.REQSecret.*", f"{REQUEST}.reply.>"),
    subscribe_deny=("Ship1.REQSecret.CommandACK", "Ship2.>"),
)
SERVER_CONFIG = f"""max_payload: {MAX_PAYLOAD}
authorization {{ users: [
  {{ user: free, password: p }}
  {{ user: restricted, password: p, permissions: {{
    publish: {{ deny: ["Ship1.REQSecret.*", "{REQUEST}.reply.>"] }}
    subscribe: {{ deny: ["Ship1.REQSecret.CommandACK", "Ship2.>"] }} }} }} ] }}"""

Bus = NatsBus | MemoryBus


class World(Protocol):
    """A broker and the buses that a test opens on it."""

    async def open(
        self, *, is_restricted: bool = False, events: BusEvents | None = None
    ) -> Bus: ...

    def stop(self) -> None:
        """The broker is killed."""

    def start(self) -> None:
        """It comes back."""


class NatsWorld:
    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._server = stack.enter_context(NatsServer(SERVER_CONFIG))

    async def open(self, *, is_restricted: bool = False, events: BusEvents | None = None) -> Bus:
        user = "restricted" if is_restricted else "free"
        url = self._server.url.replace("://", f"://{user}:p@")
        bus = await NatsBus.open(make_settings(url), name="test", events=events)
        self._stack.push_async_callback(bus.close)
        return bus

    def stop(self) -> None:
        self._server.kill()

    def start(self) -> None:
        self._server.start()


class MemoryWorld:
    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._broker = MemoryBroker(rng=random.Random(1), max_payload=MAX_PAYLOAD)

    async def open(self, *, is_restricted: bool = False, events: BusEvents | None = None) -> Bus:
        permissions = RESTRICTED if is_restricted else Permissions()
        bus = await MemoryBus.open(
            self._broker, name="test", permissions=permissions, events=events
        )
        self._stack.push_async_callback(bus.close)
        return bus

    def stop(self) -> None:
        self._broker.stop()

    def start(self) -> None:
        self._broker.start()


@pytest.fixture(params=[NatsWorld, MemoryWorld], ids=["nats-server", "memory"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield request.param(stack)


async def settle(*buses: Bus) -> None:
    """Return when all that was sent so far, and what the broker sent for it, was handed over."""
    for _ in range(2):
        for bus in buses:
            await bus.barrier()


async def test_every_plain_subscription_gets_a_message_whole_the_senders_own_too(
    world: World,
) -> None:
    one, two = await world.open(), await world.open()
    inboxes = [Inbox(), Inbox(), Inbox()]
    await one.subscribe(REQUEST, inboxes[0])
    await one.subscribe("Ship1.>", inboxes[1])
    await two.subscribe(REQUEST, inboxes[2])
    block = encode_headers({"serial": "cbor"})
    one.send([(REQUEST, f"{REQUEST}.reply.7", block, b"\x00\xff")])
    for inbox in inboxes:
        (message,) = await inbox.wait_for(1)
        assert (message.subject, message.reply_to) == (REQUEST, f"{REQUEST}.reply.7")
        assert (message.block, message.payload) == (block, b"\x00\xff")
        assert message.headers == {"serial": "cbor"}


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("a.b", {"a.b"}),
        ("a.*", {"a.b", "a.c"}),
        ("*.b", {"a.b"}),
        ("*", {"a"}),
        ("a.>", {"a.b", "a.c", "a.b.c"}),
        ("a.*.c", {"a.b.c"}),
        ("a.*.>", {"a.b.c"}),
        (">", {"a", "a.b", "a.c", "a.b.c", "A.b.d.e"}),
    ],
)
async def test_wildcards_stand_for_whole_tokens(
    world: World, pattern: str, taken: set[str]
) -> None:
    bus = await world.open()
    inbox = Inbox()
    await bus.subscribe(pattern, inbox)
    for subject in ("a", "a.b", "a.c", "a.b.c", "A.b.d.e"):
        await bus.publish(subject, b"")
    await settle(bus)
    assert {message.subject for message in inbox.messages} == taken
    assert len(inbox.messages) == len(taken)


async def test_one_member_of_each_queue_group_gets_a_message_in_order(world: World) -> None:
    buses = [await world.open() for _ in range(3)]
    group, others, plain = [Inbox() for _ in buses], Inbox(), Inbox()
    for bus, inbox in zip(buses, group, strict=True):
        await bus.subscribe("a.b", inbox, queue="g")
    await buses[0].subscribe("a.b", others, queue="h")
    await buses[1].subscribe("a.b", plain)
    buses[2].send([("a.b", "", b"", b"%d" % number) for number in range(300)])
    await settle(buses[2], *buses)
    in_order = list(range(300))
    assert [int(payload) for payload in others.payloads] == in_order
    assert [int(payload) for payload in plain.payloads] == in_order
    shares = [[int(payload) for payload in inbox.payloads] for inbox in group]
    assert sorted(number for share in shares for number in share) == in_order
    assert all(share == sorted(share) and len(share) > 30 for share in shares)


async def test_a_queue_group_is_one_over_the_subjects_its_members_subscribed(world: World) -> None:
    bus = await world.open()
    inbox = Inbox()
    await bus.subscribe("a.b", inbox, queue="g")
    await bus.subscribe("a.*", inbox, queue="g")
    bus.send([("a.b", "", b"", b"")] * 50)
    await settle(bus)
    assert len(inbox.messages) == 50


async def test_when_nobody_is_there_the_sender_alone_is_told_on_its_reply_subject(
    world: World,
) -> None:
    bus, other = await world.open(), await world.open()
    inbox, foreign = Inbox(), Inbox()
    await bus.subscribe(f"{REQUEST}.reply.*", inbox)
    await other.subscribe(f"{REQUEST}.reply.*", foreign)
    await bus.publish(REQUEST, b"", reply_to=f"{REQUEST}.reply.42")
    (message,) = await inbox.wait_for(1)
    assert (message.subject, message.payload, message.reply_to) == (f"{REQUEST}.reply.42", b"", "")
    assert message.block == f"NATS/1.0 503\r\nNats-Subject: {REQUEST}\r\n\r\n".encode()
    assert message.headers["Status"] == "503"
    await bus.publish(REQUEST, b"")
    await settle(bus, other)
    assert len(inbox.messages) == 1, "who wants no answer is told nothing"
    assert foreign.messages == []


async def test_nobody_is_told_so_while_somebody_takes_it_or_a_group_waits_for_the_answer(
    world: World,
) -> None:
    bus, other = await world.open(), await world.open()
    inbox, grouped = Inbox(), Inbox()
    await bus.subscribe(f"{REQUEST}.reply.*", inbox)
    subscription = await other.subscribe(REQUEST, Inbox(), queue=REQUEST)
    await bus.publish(REQUEST, b"", reply_to=f"{REQUEST}.reply.1")
    await settle(bus)
    assert inbox.messages == []
    await subscription.stop_intake()
    await bus.publish(REQUEST, b"", reply_to=f"{REQUEST}.reply.2")
    await inbox.wait_for(1)
    await other.subscribe("grouped.*", grouped, queue="g")
    await other.publish(REQUEST, b"", reply_to="grouped.1")
    await settle(other)
    assert grouped.messages == []


async def test_a_denied_publish_reaches_who_registered_its_subject_in_the_brokers_words(
    world: World,
) -> None:
    bus = await world.open(is_restricted=True)
    inbox = Inbox()
    await bus.subscribe("Ship9.reply.*", inbox)
    denied: list[Denial] = []
    subject = "Ship1.REQSecret.CommandACK"
    bus.on_publish_denied(subject, denied.append)
    await bus.publish(subject, b"", reply_to="Ship9.reply.1")
    await settle(bus)
    assert denied == [
        Denial(f'Permissions Violation for Publish to "{subject}"', True, subject, "")
    ]
    assert inbox.messages == [], "what is denied is not answered by 503"
    assert bus.connection_epoch == 0


async def test_a_denied_answer_reaches_who_registered_the_subject_it_answers(world: World) -> None:
    bus = await world.open(is_restricted=True)
    denied: list[Denial] = []
    foreign: list[Denial] = []
    end = bus.on_publish_denied(REQUEST, denied.append)
    bus.on_publish_denied("Ship1.REQPing", foreign.append)
    await bus.publish(f"{REQUEST}.reply.abc.1", b"")
    await settle(bus)
    assert [(item.is_publish, item.subject) for item in denied] == [
        (True, f"{REQUEST}.reply.abc.1")
    ]
    end()
    await bus.publish(f"{REQUEST}.reply.abc.2", b"")
    await settle(bus)
    assert len(denied) == 1
    assert foreign == []


async def test_a_denied_subscription_is_known_when_subscribe_returns_and_gets_nothing(
    world: World,
) -> None:
    bus, peer = await world.open(is_restricted=True), await world.open()
    denied: list[Denial] = []
    inbox = Inbox()
    subject = "Ship1.REQSecret.CommandACK"
    await bus.subscribe(subject, inbox, queue="q", on_denied=denied.append)
    text = f'Permissions Violation for Subscription to "{subject}" using queue "q"'
    assert denied == [Denial(text, False, subject, "q")]
    await bus.subscribe("Ship2.*", inbox, on_denied=denied.append)
    assert denied[1:] == [
        Denial('Permissions Violation for Subscription to "Ship2.*"', False, "Ship2.*", "")
    ]
    await peer.publish(subject, b"")
    await peer.publish("Ship2.a", b"")
    await settle(peer, bus)
    assert inbox.messages == []


async def test_what_is_denied_below_an_allowed_wildcard_is_not_delivered(world: World) -> None:
    bus, peer = await world.open(is_restricted=True), await world.open()
    denied: list[Denial] = []
    inbox = Inbox()
    await bus.subscribe(">", inbox, on_denied=denied.append)
    await peer.publish("Ship2.a", b"")
    await peer.publish("Ship3.a", b"")
    await inbox.wait_for(1)
    await settle(peer, bus)
    assert denied == []
    assert [message.subject for message in inbox.messages] == ["Ship3.a"]


async def test_what_must_not_be_sent_is_refused_with_the_whole_batch(world: World) -> None:
    bus = await world.open()
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    assert bus.max_payload == MAX_PAYLOAD
    block = encode_headers({"a": "b"})
    await bus.publish("a", b"x" * (MAX_PAYLOAD - len(block)), headers={"a": "b"})
    good = ("a", "", b"", b"1")
    with pytest.raises(PayloadTooLarge):
        bus.send([good, ("a", "", block, b"x" * (MAX_PAYLOAD - len(block) + 1))])
    for bad in (("a b", "", b"", b""), ("a", "b\r\n", b"", b""), ("a", "b.*", b"", b"")):
        with pytest.raises(SubjectInvalid):
            bus.send([good, bad])
    with pytest.raises(SubjectInvalid):
        await bus.subscribe("a..b", inbox)
    await settle(bus)
    assert len(inbox.messages) == 1
    assert bus.connection_epoch == 0


async def test_without_a_broker_nothing_is_sent_or_kept_and_everything_comes_back(
    world: World,
) -> None:
    heard = Heard()
    bus = await world.open(events=heard.make_events())
    inbox, late = Inbox(), Inbox()
    calls: list[int] = []
    await bus.subscribe("a", inbox, queue="g")
    bus.on_connected(lambda: calls.append(bus.connection_epoch))
    assert (bus.is_connected, bus.connection_epoch, bus.connections) == (True, 0, 1)
    world.stop()
    await heard.until(lambda it: "disconnected" in it.calls)
    assert (bus.is_connected, bus.connection_epoch, bus.is_congested) == (False, 1, False)
    with pytest.raises(BusUnavailable):
        bus.send([("a", "", b"", b"away")])
    with pytest.raises(BusUnavailable):
        await bus.publish("a", b"away")
    with pytest.raises(BusUnavailable):
        await bus.wait_until_writable()
    with pytest.raises(BusUnavailable):
        await bus.barrier()
    subscribing = asyncio.create_task(bus.subscribe("b", late))
    world.start()
    await subscribing
    await heard.until(lambda it: "reconnect" in it.calls)
    assert (bus.is_connected, bus.connection_epoch, calls) == (True, 1, [1])
    assert bus.connections == 2
    bus.send([("a", "", b"", b"back"), ("b", "", b"", b"back")])
    await settle(bus)
    assert (inbox.payloads, late.payloads) == ([b"back"], [b"back"])


async def test_a_subscription_without_a_broker_is_given_up_and_leaves_nothing(world: World) -> None:
    heard = Heard()
    bus = await world.open(events=heard.make_events())
    world.stop()
    await heard.until(lambda it: "disconnected" in it.calls)
    inbox = Inbox()
    with pytest.raises(BusUnavailable):
        await bus.subscribe("a", inbox)
    world.start()
    await heard.until(lambda it: "reconnect" in it.calls)
    await bus.publish("a", b"")
    await settle(bus)
    assert inbox.messages == []


async def test_stopping_intake_hands_over_what_came_before_and_nothing_after(world: World) -> None:
    bus, peer = await world.open(), await world.open()
    inbox = Inbox()
    subscription = await bus.subscribe("a", inbox)
    peer.send([("a", "", b"", b"%d" % number) for number in range(200)])
    await peer.barrier()
    await subscription.stop_intake()
    await subscription.stop_intake()
    assert len(inbox.messages) == 200
    peer.send([("a", "", b"", b"late")])
    await settle(peer, bus)
    assert len(inbox.messages) == 200


async def test_what_one_read_brings_comes_at_once_and_a_raising_callback_ends_nothing(
    world: World,
) -> None:
    heard = Heard()
    bus, peer = await world.open(events=heard.make_events()), await world.open()
    inbox = Inbox()

    def fail(_messages: object) -> None:
        raise RuntimeError("bug")

    await bus.subscribe("a", fail)
    await bus.subscribe("a", inbox)
    peer.send([("a", "", b"", b"%d" % number) for number in range(200)])
    await inbox.wait_for(200)
    assert inbox.payloads == [b"%d" % number for number in range(200)]
    assert len(inbox.batches) < 100
    assert any("RuntimeError: bug" in text for text in heard.errors)


async def test_what_was_published_before_close_arrives(world: World) -> None:
    bus, peer = await world.open(), await world.open()
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    peer.send([("a", "", b"", b"%d" % number) for number in range(200)])
    await peer.close()
    await inbox.wait_for(200)
    with pytest.raises(BusUnavailable):
        peer.send([("a", "", b"", b"")])


async def test_a_sender_that_is_congested_goes_on_when_it_may(world: World) -> None:
    bus, peer = await world.open(), await world.open()
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    waits = sent = 0
    while waits < 5:
        if peer.is_congested:
            waits += 1
            await peer.wait_until_writable()
        else:
            peer.send([("a", "", b"", b"x" * MAX_PAYLOAD)] * 5)
            sent += 5
    await inbox.wait_for(sent)
