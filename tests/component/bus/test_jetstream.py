"""What delivery by a stream promises, in sentences that hold on a real nats-server and on its double within the process."""

import asyncio
import json
import random
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from appliance.bus.base import BusMessage
from appliance.bus.jetstream import JetStreamApi
from appliance.bus.memory import MemoryBus, Permissions
from appliance.bus.nats import NatsBus
from appliance.core.current import Current
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import (
    AckOn,
    Delivery,
    DesiredState,
    KeptStream,
    PublisherSpec,
    StreamSettings,
    SubscriberSpec,
)
from appliance.core.streams import Receipt, name_of_consumer
from appliance.daemon.stream_keeper import StreamKeeper
from appliance.delivery import claims, removal
from appliance.delivery.base import Confirmation, Flight
from appliance.delivery.claims import Claim, Claims
from appliance.delivery.core import CoreIntake
from appliance.delivery.jetstream import JetStreamDelivery, StreamSecret
from appliance.delivery.pulling import JetStreamIntake
from appliance.delivery.signer import Signer
from appliance.dialect.base import Answer, AnswerKind
from appliance.dialect.spoken import make_dialect
from appliance.errors import BusUnavailable, StreamRefused
from appliance.outbox.records import OutboxRecord
from tests.support.memory_jetstream import StreamingBroker
from tests.support.nats_server import NatsServer
from tests.support.virtual_time import run_virtual
from tests.support.waiting import until_async, until_taken

from .conftest import Inbox, make_settings

SUBJECT = Subject("ship.REQPing.EventACK")
STREAM = "appl-ship"
ONE, TWO = "1" * 16, "2" * 16


class Notes:
    def __init__(self):
        self.known = {}

    def facts(self, kind):
        return self.known.get(kind, {})

    async def remember(self, kind, changes):
        kept = {**self.known.get(kind, {}), **changes}
        self.known[kind] = {key: value for key, value in kept.items() if value is not None}


class World:
    """A broker with JetStream, and what two daemons have of it."""

    def __init__(self, open_bus, on_end):
        self._open = open_bus
        self._on_end = on_end

    async def side(self, instance=ONE, **stream):
        """What a daemon has, whose sender is closed with the test: it may be making the stream."""
        return Side(await self._open(), instance, StreamSettings(**stream), self._on_end)


class Side:
    def __init__(self, bus, instance, stream, on_end=lambda close: None):
        self.bus = bus
        self._on_end = on_end
        self.stream = stream
        self.notes = Notes()
        nowhere: Any = None  # nothing is signed here
        self.mode = JetStreamDelivery(bus, make_dialect(), instance, self.notes, Signer(), nowhere)
        self.api = JetStreamApi(bus, "watcher")
        self.answers = []
        self.inbox = Inbox()
        self.numbers = 0
        self.verdicts = []

    def publisher(self, **fields):
        return PublisherSpec(
            node=NodeName("central"), subject=SUBJECT, to_node=NodeName("ship"),
            method=MethodName("REQPing"), wants_ack=True, compression="none",
            delivery=Delivery.JETSTREAM, stream=self.stream, **fields,
        )  # fmt: skip

    def subscriber(self, **fields):
        return SubscriberSpec(
            node=NodeName("ship"), subject=SUBJECT, method=MethodName("REQPing"), wants_ack=True,
            stream=self.stream, **({"delivery": Delivery.JETSTREAM} | fields),
        )  # fmt: skip

    async def sender(self):
        await self.api.ensure_stream(self.stream, STREAM, SUBJECT, is_ours=True)
        self.carrier = self.mode.make_carrier(self.publisher())
        self._on_end(self.carrier.close)
        await self.carrier.start(self.answers.extend, lambda denial: None, self.hear_verdict)
        return self.carrier

    def hear_verdict(self, message_id, answer):
        self.verdicts.append((message_id, answer.kind, answer.detail))

    def flight(self, text=b"[]"):
        self.numbers += 1
        return Flight(
            OutboxRecord(
                id=self.numbers, node="central", subject=SUBJECT, to_node="ship", method="REQPing",
                payload=text, encoding="cbor", wants_ack=True, created_at=0.0, expires_at=1e9,
            )
        )  # fmt: skip

    async def said(self, count=1):
        await until_async(lambda: len(self.answers) >= count)
        return [answer for _, answer in self.answers]

    async def receiver(self, *, begins_once=False, **fields):
        spec = self.subscriber(**fields)
        if spec.delivery is Delivery.JETSTREAM:
            main = self.mode.make_intake(spec, lambda denial: None, begins_once=begins_once)
        else:
            main = CoreIntake(self.bus, make_dialect(), spec, lambda denial: None, Signer())
        self.intake = self.mode.with_rests(main, spec, begins_once=begins_once)
        await self.intake.start(self.inbox, lambda denial: None)
        return self.intake

    async def take(self, count, text=b"go"):
        """Send so many as a plain client does, and have them come."""
        self.bus.send([(SUBJECT, "", b"", text)] * count)
        self.intake.want(8_192)
        await self.inbox.wait_for(count)

    def confirm_all(self, kind):
        """Say the same of all that came and is in the inbox, which is empty then."""
        messages, self.inbox.messages = self.inbox.messages, []
        answer = Answer(kind)
        self.intake.confirm([Confirmation(one.reply_to, 1, answer, True) for one in messages])

    def confirm(self, message, kind, **words):
        self.intake.confirm([Confirmation(message.reply_to, 1, Answer(kind, **words), True)])

    async def kept(self):
        found = await self.api.find_stream(STREAM)
        return 0 if found is None else found.state["messages"]

    async def until_kept(self, count):
        async def look():
            assert await self.kept() == count

        await until_taken(look, AssertionError)


@pytest.fixture(params=["nats-server", "memory"])
async def world(request, tmp_path):
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            broker = StreamingBroker(rng=random.Random(1))

            async def open_bus():
                bus = await MemoryBus.open(broker, name="test")
                stack.push_async_callback(bus.close)
                return bus
        else:
            config = f'jetstream {{store_dir: "{tmp_path}/jetstream"}}'
            server = stack.enter_context(NatsServer(config))

            async def open_bus():
                bus = await NatsBus.open(make_settings(server.url), name="test")
                stack.push_async_callback(bus.close)
                return bus

        yield World(open_bus, stack.push_async_callback)


async def test_a_message_is_stored_once_however_often_it_is_sent(world):
    side = await world.side()
    carrier = await side.sender()
    flight = side.flight()
    for _ in range(3):
        assert carrier.send([flight]) == []
    said = await side.said(3)
    assert {(one.kind, one.detail) for one in said} == {(AnswerKind.STORED, f"{STREAM} 1")}
    assert await side.kept() == 1
    carrier.forget([flight])
    flight.record.attempt = 1  # an operator wants it done anew
    carrier.send([flight])
    await side.until_kept(2)


async def test_nobody_can_take_the_id_that_the_next_message_has_for_the_stream(world):
    """The stream takes each once, whoever sends it: who knew the next could have it thrown away as a repeat of his."""
    ids = []
    for side in (await world.side(), await world.side()):  # of the same instance and number
        carrier = await side.sender()
        carrier.send([side.flight()])
        await side.said(1)
        ids.append(await side.kept())
    assert ids == [1, 2]
    again = await world.side()
    again.mode._secret = StreamSecret(side.notes)  # the same daemon after a restart
    carrier = await again.sender()
    carrier.send([again.flight()])
    assert (await again.said(1))[0].kind is AnswerKind.STORED
    assert await again.kept() == 2


async def test_the_keeper_makes_streams_and_has_them_let_go_of_what_goes_another_way(world):
    side = await world.side()
    settings = side.stream
    both = (KeptStream(SUBJECT, settings), KeptStream(Subject("ship2.REQPing.EventACK"), settings))
    desired = Current(fleet_of(both))
    troubles = []
    telemetry = SimpleNamespace(streams_troubled=troubles.append)
    keeper = StreamKeeper(side.bus, desired, side.notes, telemetry)

    async def recorded(name):
        found = await side.api.find_stream(name)
        return found and [one for one in found.config["subjects"] if ".claim." not in one]

    async def until_recorded(name, subjects):
        async def look():
            assert await recorded(name) == subjects

        await until_taken(look, AssertionError)

    running = asyncio.create_task(keeper.run())
    try:
        await until_recorded(STREAM, [SUBJECT])
        await until_recorded("appl-ship2", ["ship2.REQPing.EventACK"])
        # ship's messages go by core from here on, ship2's to another stream
        moved = KeptStream(both[1].subject, StreamSettings(name="other"))
        desired.put(fleet_of((moved,)))
        await until_recorded("other", ["ship2.REQPing.EventACK"])
        await until_recorded(STREAM, [])
        await until_recorded("appl-ship2", [])
        assert list(side.notes.facts("keeps")) == ["other"]
        assert troubles == []
    finally:
        running.cancel()
        await asyncio.wait([running])


def fleet_of(kept):
    nodes = tuple(NodeName(node) for node in ("central", "ship", "ship2"))
    return DesiredState(
        run_nodes=nodes[:1], declared_nodes=frozenset(nodes), workers={}, publisher_defaults={}, kept_streams=kept
    )  # fmt: skip


async def test_many_that_are_sent_at_once_are_each_stored_once_in_their_order(world):
    """Together where the broker knows batches; the double knows none, and has the messages sent alone."""
    side = await world.side()
    carrier = await side.sender()
    for turn in range(1, 5):
        flights = [side.flight(b"%d" % number) for number in range(40)]
        assert carrier.send(flights) == []
        await until_async(lambda turn=turn: len(side.answers) >= 40 * turn)
        assert {one.kind for _, one in side.answers} == {AnswerKind.STORED}
    places = {flight.record.id: answer.detail for flight, answer in side.answers}
    assert places == {number: f"{STREAM} {number}" for number in range(1, 161)}
    assert await side.kept() == 160


async def test_a_batch_that_is_refused_is_sent_alone_at_once(world):
    side = await world.side()
    carrier = await side.sender()
    flights = [side.flight(b"%d" % number) for number in range(40)]
    carrier.send(flights)
    carrier.send(flights)  # as a batch, with ids that the stream knows
    await until_async(lambda: len(side.answers) >= 80)
    assert {one.kind for _, one in side.answers} == {AnswerKind.STORED}
    assert await side.kept() == 40


async def test_no_more_comes_than_was_asked_for_and_what_is_done_leaves_the_stream(world):
    side = await world.side()
    carrier = await side.sender()
    carrier.send([side.flight(b"1"), side.flight(b"2"), side.flight(b"3")])
    intake = await side.receiver()
    intake.want(1)
    (first,) = await side.inbox.wait_for(1)
    assert (first.payload, first.subject) == (b"1", SUBJECT)
    assert first.headers.get("appl-id") == f"{ONE}-1-m"
    assert not [name for name in first.headers if name.startswith("Nats-")]
    side.confirm(first, AnswerKind.TAKEN)
    await side.until_kept(2)
    assert len(side.inbox.messages) == 1
    intake.want(5)
    assert [one.payload for one in await side.inbox.wait_for(3)] == [b"1", b"2", b"3"]
    side.confirm(side.inbox.messages[1], AnswerKind.DONE)
    side.confirm(side.inbox.messages[2], AnswerKind.REFUSED, detail="not here")
    await side.until_kept(0)
    await until_async(lambda: side.verdicts)
    assert side.verdicts == [(1, AnswerKind.REFUSED, "not here")]
    await intake.stop()


@pytest.fixture
def slow(monkeypatch):
    """A broker that takes long for each message that leaves a stream, as one does that writes everything through."""
    monkeypatch.setattr(removal, "SLOW_S", -1.0)
    monkeypatch.setattr(removal, "LOOK_APART_S", 0.0)


async def test_where_the_broker_is_slow_what_is_settled_leaves_the_stream_together(world, slow):
    side = await world.side()
    intake = await side.receiver()
    purges = watch_purges(intake)
    await until_it_pays(side, intake)
    await side.take(500)
    side.confirm_all(AnswerKind.TAKEN)
    await side.until_kept(0)
    assert purges
    found = await side.api.find_consumer(STREAM, SUBJECT)
    assert (found.waiting, found.in_hand) == (0, 0)
    # and it goes on
    await side.take(500)
    side.confirm_all(AnswerKind.DONE)
    await side.until_kept(0)
    await intake.stop()


async def test_what_came_before_the_broker_was_looked_at_anew_holds_up_nothing(world, slow):
    side = await world.side()
    intake = await side.receiver()
    purges = watch_purges(intake)
    await until_it_pays(side, intake)
    await side.take(100)
    intake._removal.tempo.begin_anew()  # as after its time
    side.confirm_all(AnswerKind.TAKEN)
    await side.until_kept(0)
    await until_it_pays(side, intake)
    while not intake._removal.tempo.is_slow:
        await side.take(100)
        side.confirm_all(AnswerKind.TAKEN)
        await side.until_kept(0)
    count = len(purges)
    for _ in range(15):
        await side.take(100)
        side.confirm_all(AnswerKind.TAKEN)
        await side.until_kept(0)
    assert len(purges) > count
    await intake.stop()


async def test_no_purge_is_asked_for_where_the_broker_is_quick(world, monkeypatch):
    monkeypatch.setattr(removal, "SLOW_S", 60.0)
    side = await world.side()
    intake = await side.receiver()
    purges = watch_purges(intake)
    for _ in range(3):
        await side.take(300)
        side.confirm_all(AnswerKind.TAKEN)
        await side.until_kept(0)
    assert not purges
    await intake.stop()


async def test_what_another_daemon_has_stays_whatever_is_settled_around_it(world, slow):
    side, other = await world.side(ONE), await world.side(TWO)
    intake = await side.receiver()
    await until_it_pays(side, intake)
    rival = await other.receiver()
    rival.want(1)  # asks first, and gets the first
    await until_async(lambda: other.intake._pulls.count)
    side.bus.send([(SUBJECT, "", b"", b"first")])
    for _ in range(3):
        if other.inbox.messages:
            break
        # it was the other's turn
        await side.take(1, text=b"first")
        side.confirm_all(AnswerKind.TAKEN)
        side.bus.send([(SUBJECT, "", b"", b"first")])
    (first,) = await other.inbox.wait_for(1)
    await side.take(300)
    side.confirm_all(AnswerKind.TAKEN)
    await side.until_kept(1)
    kept = await side.api.first_of(STREAM, SUBJECT)
    assert first.origin[1] == kept.sequence
    other.confirm(first, AnswerKind.TAKEN)
    await side.until_kept(0)
    await rival.stop()
    await intake.stop()


async def test_what_is_given_back_stays_and_comes_again(world, slow):
    side = await world.side()
    intake = await side.receiver()
    await until_it_pays(side, intake)
    await side.take(200)
    back = side.inbox.messages[-100]
    side.confirm(back, AnswerKind.BUSY, wait_ms=200)
    side.inbox.messages.remove(back)
    side.confirm_all(AnswerKind.TAKEN)
    (again,) = await side.inbox.wait_for(1)
    assert again.origin == back.origin
    side.confirm_all(AnswerKind.TAKEN)

    async def look():
        assert await side.api.count_of(STREAM, SUBJECT) == 0

    await until_taken(look, AssertionError)
    await intake.stop()


async def test_what_a_new_stream_of_the_name_keeps_is_not_taken_for_what_is_settled(world, slow):
    side = await world.side()
    intake = await side.receiver()
    purges = watch_purges(intake)
    await until_it_pays(side, intake)
    await side.take(100)
    count = len(purges)
    intake.want(0)
    intake._pulls.deny(SimpleNamespace(text="nothing is asked for"))
    await side.api.delete_stream(STREAM)
    await side.api.ensure_stream(side.stream, STREAM, SUBJECT, is_ours=True)
    last = max(one.origin[1] for one in side.inbox.messages)
    side.bus.send([(SUBJECT, "", b"", b"new")] * last)
    await side.until_kept(last)
    side.confirm_all(AnswerKind.TAKEN)
    await until_async(lambda: not intake._removal._is_asking)
    assert await side.kept() == last
    assert len(purges) == count
    await intake.stop()


async def test_a_broker_that_denies_a_purge_is_asked_no_more_and_nothing_stays(world, slow):
    side = await world.side()
    intake = await side.receiver()
    await until_it_pays(side, intake)
    intake._removal._purge._api = SimpleNamespace(
        first_of=side.api.first_of, purge=AsyncMock(side_effect=BusUnavailable("denied"))
    )
    for _ in range(2):
        await side.take(100)
        side.confirm_all(AnswerKind.TAKEN)
        await side.until_kept(0)
    assert intake._removal._purge._api.purge.await_count == 1
    await intake.stop()


async def test_no_purge_goes_to_another_broker_than_the_one_that_was_asked(slow, tmp_path):
    """A change of `broker:` takes hold between two words: what the new one keeps for the node is nothing that is settled."""
    async with AsyncExitStack() as stack:
        brokers = [
            stack.enter_context(
                NatsServer(f'jetstream {{store_dir: "{tmp_path}/{name}", sync_interval: always}}')
            )
            for name in ("old", "new")
        ]
        buses = [
            await NatsBus.open(make_settings(broker.url), name="test")
            for broker in (*brokers, brokers[1])
        ]
        for bus in buses:
            stack.push_async_callback(bus.close)
        moving, _, at_new = buses
        new = Side(at_new, TWO, StreamSettings())
        await new.api.ensure_stream(new.stream, STREAM, SUBJECT, is_ours=True)
        at_new.send([(SUBJECT, "", b"", b"for the new one")] * 500)
        await new.until_kept(500)
        side = Side(moving, ONE, StreamSettings())
        intake = await side.receiver()
        await until_it_pays(side, intake)
        await side.take(100)
        intake.want(0)
        api = intake._removal._purge._api
        asked = []

        async def first_of(*which):
            oldest = await api.first_of(*which)
            await moving.reconfigure(make_settings(brokers[1].url))
            return oldest

        async def purge(*what):
            asked.append(what)
            await api.purge(*what)

        intake._removal._purge._api = SimpleNamespace(first_of=first_of, purge=purge)
        side.confirm_all(AnswerKind.TAKEN)
        await until_async(lambda: not intake._removal._is_asking)
        assert not asked
        assert await new.kept() == 500
        await intake.stop()


async def test_a_stream_that_others_read_is_purged_of_nothing(world, slow):
    side = await world.side()
    made = {"name": STREAM, "subjects": [SUBJECT], "retention": "interest", "storage": "file"}
    if isinstance(side.bus, MemoryBus):
        made[
            "max_bytes"
        ] = -1  # the double keeps every stream as a work queue; the kind is read from its config
    await side.api.ask(f"STREAM.CREATE.{STREAM}", made)
    intake = await side.receiver()
    purges = watch_purges(intake)
    for _ in range(15):
        await side.take(100)
        side.confirm_all(AnswerKind.TAKEN)
        await asyncio.sleep(0)
    assert intake._removal.tempo.is_slow
    assert not purges
    assert "is of another kind" in (intake.trouble or "")
    await intake.stop()


async def test_one_that_has_stopped_looks_no_more_how_long_the_broker_takes(world, slow):
    side = await world.side()
    intake = await side.receiver()
    await side.take(100)
    await intake.stop()
    side.confirm_all(AnswerKind.TAKEN)
    assert not intake._removal._is_asking
    await side.until_kept(0)


async def test_a_long_way_to_the_broker_is_not_taken_for_a_slow_disk(world, monkeypatch):
    monkeypatch.setattr(removal, "LOOK_APART_S", 0.0)
    side = await world.side()
    intake = await side.receiver()
    tempo = intake._removal.tempo
    api = tempo._api
    asked = []
    now = 0.0

    async def late(question, *args, **options):
        nonlocal now
        asked.append(question)
        now += 0.05
        return await question(*args, **options)

    tempo._mono = lambda: now
    tempo._api = SimpleNamespace(
        request=partial(late, api.request), first_of=partial(late, api.first_of)
    )
    while len(asked) < 2:
        await side.take(50)
        side.confirm_all(AnswerKind.TAKEN)
        await side.until_kept(0)
    await until_async(lambda: not intake._removal._is_asking)
    assert tempo._slow_count == 0
    await intake.stop()


async def test_what_waits_for_a_purge_is_acknowledged_when_the_worker_stops(world, slow):
    side = await world.side()
    intake = await side.receiver()
    await until_it_pays(side, intake)
    never = asyncio.Event()
    intake._removal._purge._api = SimpleNamespace(first_of=lambda *_: never.wait())
    await side.take(100)
    side.confirm_all(AnswerKind.TAKEN)
    await side.take(100)
    side.confirm_all(AnswerKind.TAKEN)
    assert await side.kept() == 200
    await intake.stop()
    await side.until_kept(0)


def watch_purges(intake):
    """The places before which the stream was to let go of messages, as they are asked for."""
    asked = []
    api = intake._removal._purge._api
    purge = api.purge

    async def watched(stream, subject, before):
        asked.append(before)
        await purge(stream, subject, before)

    intake._removal._purge._api = SimpleNamespace(
        request=api.request, first_of=api.first_of, purge=watched
    )
    return asked


async def until_it_pays(side, intake):
    """Have it found out that the broker is slow, and everything settled; what comes next comes by one asking."""
    while not intake._pulls.only:
        await side.take(100)
        side.confirm_all(AnswerKind.TAKEN)
        await side.until_kept(0)


async def test_more_is_asked_for_when_most_of_it_has_come_and_not_a_little_at_a_time(world):
    side = await world.side()
    intake = await side.receiver()
    intake.want(1_000)
    for count, askings in ((500, 1), (800, 2)):
        side.bus.send([(SUBJECT, "", b"", b"go")] * (count - len(side.inbox.messages)))
        await side.inbox.wait_for(count)
        intake.want(1_000)
        assert intake._pulls.count == askings
    await intake.stop()


async def test_a_message_of_a_plain_client_has_a_name_of_the_stream(world):
    side = await world.side()
    intake = await side.receiver()
    side.bus.send([(SUBJECT, "", b"", b"go")])
    intake.want(5)
    (message,) = await side.inbox.wait_for(1)
    lender, number = message.origin
    assert (lender.startswith("stream-"), number) == (True, 1)
    await intake.stop()


async def test_a_message_that_is_given_back_comes_again_and_belongs_to_the_first_who_claims_it(
    world,
):
    side, other = await world.side(ONE), await world.side(TWO)
    carrier = await side.sender()
    carrier.send([side.flight()])
    intake = await side.receiver()
    intake.want(5)
    (message,) = await side.inbox.wait_for(1)
    side.confirm(message, AnswerKind.BUSY, wait_ms=10)
    await side.inbox.wait_for(2)
    rival = await other.receiver()
    reply_tos = [one.reply_to for one in side.inbox.messages]
    assert await rival.claim(reply_tos) == [False, False]
    assert await intake.claim(reply_tos) == [True, True]
    assert await intake.claim([f"{SUBJECT}.reply.of.core"]) == [True]
    await intake.stop()
    await rival.stop()


async def test_a_stream_that_is_full_or_is_not_there_says_so(world):
    side = await world.side(max_bytes=2_000)
    carrier = await side.sender()
    carrier.send([side.flight(b"x" * 1_000) for _ in range(3)])
    said = await side.said(3)
    assert [one.kind for one in said].count(AnswerKind.HELD) >= 1
    assert any("maximum bytes" in one.detail and STREAM in one.detail for one in said)
    await side.api.ask(f"STREAM.DELETE.{STREAM}")
    side.answers.clear()
    carrier.send([side.flight()])
    said_of_none, *_ = await side.said()
    assert said_of_none.kind is AnswerKind.HELD

    async def look():
        assert await side.api.find_stream(STREAM) is not None

    await until_taken(look, AssertionError)  # it is made anew


async def test_why_a_stream_cannot_be_made_is_told_with_what_waits_for_it(world, monkeypatch):
    side = await world.side()

    async def refuse(*_, **__):
        raise StreamRefused("JetStream refuses it", "insufficient storage resources", 10047)

    carrier = side.mode.make_carrier(side.publisher())
    monkeypatch.setattr(carrier._api, "ensure_stream", refuse)
    await carrier.start(side.answers.extend, lambda denial: None, side.hear_verdict)
    flight = side.flight()
    for count in (1, 2):
        carrier.send([flight])
        said = await side.said(count)
        await asyncio.wait([carrier._making])
    assert [one.kind for one in said] == [AnswerKind.HELD, AnswerKind.HELD]
    assert "and it cannot be made: JetStream refuses it: insufficient storage" in said[1].detail
    await carrier.close()


async def test_limits_follow_the_config_and_a_stream_of_others_keeps_what_else_it_has(world):
    side = await world.side(max_bytes=1_000_000)
    await (await side.receiver()).stop()
    api = side.api
    found = await api.find_stream(STREAM)
    assert found.config["retention"] == "workqueue"
    changed = {**found.config, "description": "ours", "max_bytes": 5_000, "subjects": ["other.x"]}
    await api.ask(f"STREAM.UPDATE.{STREAM}", changed)
    _, told = await api.ensure_stream(side.stream, STREAM, SUBJECT, is_ours=False)
    assert told == ""
    assert (await api.find_stream(STREAM)).config["max_bytes"] == 5_000
    _, told = await api.ensure_stream(side.stream, STREAM, SUBJECT, is_ours=True)
    assert "max_bytes is 5000 and shall be 1000000" in told
    found = await api.find_stream(STREAM)
    assert found.config["description"] == "ours"
    claims = (f"{SUBJECT}.claim.{STREAM}.*", f"{SUBJECT}.claim.{STREAM}.begun.*")
    assert found.config["subjects"] == ["other.x", SUBJECT, *claims]
    _, told = await api.ensure_stream(side.stream, STREAM, SUBJECT, is_ours=True)
    assert told == ""


async def test_the_order_of_one_handler_is_one_message_at_a_time(world):
    side = await world.side()
    await (await side.receiver(concurrency=1)).stop()
    found = await side.api.find_consumer(STREAM, SUBJECT)
    assert found.config["max_ack_pending"] == 1
    assert found.config["durable_name"] == name_of_consumer(SUBJECT)


async def test_a_subject_that_changes_its_stream_has_the_old_one_emptied_first_and_forgotten(world):
    side = await world.side()
    carrier = await side.sender()
    carrier.send([side.flight(b"old")])
    await side.said()
    await (await side.receiver()).stop()
    side.stream = StreamSettings(name="other")
    intake = await side.receiver()
    assert side.notes.facts("stream").keys() == {f"{SUBJECT} {STREAM}", f"{SUBJECT} other"}
    side.bus.send([(SUBJECT, "", b"", b"new")])
    intake.want(5)
    await side.inbox.wait_for(2)
    assert {one.payload for one in side.inbox.messages} == {b"old", b"new"}
    for message in side.inbox.messages:
        side.confirm(message, AnswerKind.DONE)
    await until_async(lambda: side.notes.facts("stream").keys() == {f"{SUBJECT} other"})
    assert await side.api.find_consumer(STREAM, SUBJECT) is None
    await intake.stop()


async def test_what_a_stream_holds_for_a_node_that_never_knew_of_it_is_fetched_by_core(world):
    """The fleet went over to streams and back while the node was away, or its disk was lost."""
    side, node = await world.side(ONE), await world.side(TWO)
    carrier = await side.sender()
    carrier.send([side.flight(b"1"), side.flight(b"2")])
    await side.said(2)
    intake = await node.receiver(delivery=Delivery.CORE)
    intake.want(5)
    assert [one.payload for one in await node.inbox.wait_for(2)] == [b"1", b"2"]
    assert node.notes.facts("stream")
    for message in node.inbox.messages:
        node.confirm(message, AnswerKind.DONE)
    await side.until_kept(0)
    await until_async(lambda: intake._rests[0].has_ended)
    assert not node.notes.facts("stream")
    # what comes by core from here on is recorded no more, and nothing makes the stream what it was
    async with asyncio.TaskGroup() as group:
        for task in intake._rests[0]._tasks:
            group.create_task(asyncio.wait([task]))
    side.bus.send([(SUBJECT, "", b"", b"3")])
    assert [one.payload for one in await node.inbox.wait_for(3)][2] == b"3"
    assert await side.kept() == 0
    assert await side.api.find_consumer(STREAM, SUBJECT) is None
    await intake.stop()


async def test_what_a_sender_of_an_older_config_had_a_stream_keep_is_fetched_after_a_reconnect(
    world, monkeypatch
):
    side, node = await world.side(ONE), await world.side(TWO)
    reconnects = []
    monkeypatch.setattr(
        node.bus, "on_connected", lambda call: reconnects.append(call) or (lambda: None)
    )
    intake = await node.receiver(delivery=Delivery.CORE)
    await asyncio.wait([intake._seeking])
    carrier = await side.sender()
    carrier.send([side.flight(b"1")])
    await side.said(1)
    intake.want(5)
    (reconnect,) = reconnects
    reconnect()
    await until_async(lambda: len(node.inbox.messages) == 2)  # by core, and from the stream
    for message in node.inbox.messages:
        node.confirm(message, AnswerKind.DONE)
    await side.until_kept(0)
    await intake.stop()


async def test_nobody_has_a_message_of_a_stream_acknowledged_by_the_reply_subject_that_he_names(
    world,
):
    """What a stream delivered is told from all that comes over the wire, whoever sends it."""
    side, node = await world.side(ONE), await world.side(TWO)
    carrier = await side.sender()
    carrier.send([side.flight(b"1")])
    await side.said(1)
    intake = await node.receiver(delivery=Delivery.CORE)
    intake.want(5)
    (kept,) = await node.inbox.wait_for(1)
    ack = f"$JS/ACK/{STREAM}/{name_of_consumer(SUBJECT)}/1/1/1/1/0"
    for below in ("x", "x/", f"x//{ack}", f"{ONE}/{ONE}/{ack}", "x//central/REQPing/EventACK"):
        node.bus.send([(SUBJECT, f"{SUBJECT}.reply.stream.{below}", b"", b"forged")])
    forged = (await node.inbox.wait_for(6))[1:]
    for message in forged:
        assert await intake.claim([message.reply_to]) == [True]
        node.confirm(message, AnswerKind.DONE)
    # and so it is when the way in has changed before they are done
    other = await world.side(TWO)
    plain = other.mode.make_intake(other.subscriber(), lambda denial: None, begins_once=True)
    strays = []
    await other.bus.subscribe("central.>", strays.extend, on_denied=lambda denial: None)
    for message in forged:
        assert await plain.claim([message.reply_to]) == [True]
        plain.confirm([Confirmation(message.reply_to, 1, Answer(AnswerKind.DONE), True)])
    other.bus.send([("central.end", "", b"", b"")])
    await until_async(lambda: [one.subject for one in strays] == ["central.end"])
    assert await side.kept() == 1
    node.confirm(kept, AnswerKind.DONE)
    await side.until_kept(0)
    await intake.stop()


async def test_a_stream_of_others_with_that_name_is_left_alone(world):
    side = await world.side()
    await side.api.ask(
        f"STREAM.CREATE.{STREAM}", {"name": STREAM, "subjects": [SUBJECT], "storage": "file"}
    )
    intake = await side.receiver(delivery=Delivery.CORE)
    side.bus.send([(SUBJECT, "", b"", b"1")])
    await side.inbox.wait_for(1)
    await side.until_kept(1)
    assert not side.notes.facts("stream")
    await intake.stop()


async def test_what_jetstream_refuses_is_told_in_its_words(world):
    side = await world.side()
    with pytest.raises(StreamRefused, match="stream not found"):
        await side.api.ask("STREAM.UPDATE.nothing", {"name": "nothing", "subjects": ["a.b"]})


STRANGE_ANSWERS = [
    {"config": 7},
    {"config": {"name": STREAM, "subjects": 7}, "created": "x"},
    {"config": {"name": STREAM}, "state": {"last_seq": "x"}, "created": "x"},
    {"config": {"name": "another"}, "created": "x"},
    {"config": {}, "num_pending": None},
    {"config": {}, "num_pending": -1, "num_ack_pending": 10**400},
    {"config": {}, "ack_floor": []},
    {"message": {"seq": 1, "data": "no base64", "time": []}},
    {"message": [1]},
    {"error": "no"},
]


async def test_an_answer_of_another_shape_is_told_as_one_that_cannot_be_read(monkeypatch):
    bus = await MemoryBus.open(StreamingBroker(rng=random.Random(1)), name="test")
    side = Side(bus, ONE, StreamSettings())
    intake = await side.receiver()
    told = "the broker's answer on STREAM.INFO.appl-ship "
    for answer in STRANGE_ANSWERS:
        says = AsyncMock(return_value=BusMessage("x", json.dumps(answer).encode()))
        monkeypatch.setattr(JetStreamApi, "request", says)
        for ask in (
            side.api.find_stream(STREAM),
            side.api.find_consumer(STREAM, SUBJECT),
            side.api.last_of(STREAM, SUBJECT),
            side.api.stored_at(STREAM, SUBJECT, 1),
        ):
            # what answers one question may be none to another one, and nothing else is raised
            with suppress(BusUnavailable):
                await ask
        # and the worker looks again later
        intake._upkeep.look_now()
        await intake._upkeep.look(1.0)
        assert (intake.trouble or "").startswith(told)
        monkeypatch.undo()
        intake._upkeep.look_now()
        await intake._upkeep.look(1.0)
        assert intake.trouble is None
    await intake.stop()
    await bus.close()


async def two_that_begin_once(world):
    """Two daemons of a node, and a message that the first has begun and given no word of."""
    side, other = await world.side(ONE), await world.side(TWO)
    carrier = await side.sender()
    carrier.send([side.flight()])
    intake = await side.receiver(begins_once=True, ack_on=AckOn.DONE)
    rival = await other.receiver(begins_once=True, ack_on=AckOn.DONE)
    intake.want(1)
    (message,) = await side.inbox.wait_for(1)
    side.confirm(message, AnswerKind.BUSY, wait_ms=10)  # as if nothing were heard of it
    rival.want(5)
    return side, other, message


async def test_what_one_daemon_has_begun_another_gives_back_until_it_is_there_again(
    world, monkeypatch
):
    monkeypatch.setattr(claims, "PAUSE_FIRST_S", 0.01)
    side, other, _ = await two_that_begin_once(world)

    def redelivered():
        return other.intake._claims._asked_mono

    await until_async(redelivered)
    side.intake.want(5)
    _, again = await side.inbox.wait_for(2)
    assert other.inbox.messages == []
    side.confirm(again, AnswerKind.DONE)
    await side.until_kept(
        1
    )  # what it wrote of the second delivery; the claim before the work is gone
    await side.intake.stop()
    await other.intake.stop()


async def test_what_a_daemon_had_begun_that_stays_away_is_taken_over_and_not_its_any_more(
    world, monkeypatch
):
    monkeypatch.setattr(claims, "PAUSE_FIRST_S", 0.01)
    monkeypatch.setattr(claims, "TAKEOVER_S", 0.05)
    side, other, message = await two_that_begin_once(world)
    (taken,) = await other.inbox.wait_for(1)
    assert taken.headers["appl-begun"] == "1"
    assert taken.headers["appl-id"] == f"{ONE}-1-m"
    assert await side.intake.claim([message.reply_to]) == [False]
    assert await other.intake.claim([taken.reply_to]) == [True]
    other.confirm(taken, AnswerKind.DONE)
    await side.intake.stop()
    await other.intake.stop()


async def test_many_that_are_claimed_at_once_are_each_claimed_by_one(world):
    """Together where the broker knows batches."""
    side, other = await world.side(ONE), await world.side(TWO)
    await (await side.receiver(begins_once=True, ack_on=AckOn.DONE)).stop()
    count = 120
    receipts = [
        Receipt(f"$JS.ACK.S.C.1.{at}.1.1.1", STREAM, 1, at, False) for at in range(1, 2 * count + 1)
    ]
    mine = Claims(side.api, ONE, SUBJECT, lambda: 0.0)
    theirs = Claims(other.api, TWO, SUBJECT, lambda: 0.0)
    for at in range(0, count, 40):
        found = await mine.of_deliveries(receipts[at : at + 40], "life")
        assert set(found) == {Claim.OURS}
    found = await theirs.of_deliveries(receipts[: count + 40], "life")
    assert found == [Claim.ANOTHERS] * count + [Claim.OURS] * 40
    found = await mine.of_deliveries(receipts[: count + 80], "life")
    assert found[:count] == [Claim.OURS] * count
    assert found[count:] == [Claim.ANOTHERS] * 40 + [Claim.OURS] * 40


async def test_a_stream_without_room_for_claims_is_emptied_all_the_same(world):
    side = await world.side(max_bytes=2_000)
    carrier = await side.sender()
    carrier.send([side.flight(b"x" * 1_000) for _ in range(2)])
    await side.said(2)
    intake = await side.receiver(begins_once=True, ack_on=AckOn.DONE)
    side.bus.send([(SUBJECT, "", b"", b"x" * number) for number in range(600, 0, -1)])
    intake.want(1)
    (message,) = await side.inbox.wait_for(1)
    side.confirm(message, AnswerKind.DONE)
    await intake.stop()


async def test_what_is_delivered_no_more_is_the_trouble_of_the_worker(world, request):
    if "memory" in request.node.name:
        pytest.skip("the double parks nothing")
    side = await world.side()
    intake = await side.receiver()
    found = await side.api.find_consumer(STREAM, SUBJECT)
    words = f"CONSUMER.CREATE.{STREAM}.{name_of_consumer(SUBJECT)}.{SUBJECT}"
    config = {**found.config, "max_deliver": 1}
    await side.api.ask(words, {"stream_name": STREAM, "config": config, "action": "update"})
    side.bus.send([(SUBJECT, "", b"", b"go")])
    intake.want(5)
    (message,) = await side.inbox.wait_for(1)
    side.confirm(message, AnswerKind.BUSY, wait_ms=10)
    await until_async(lambda: "are delivered no more" in (intake.trouble or ""))
    # whatever somebody says of it, the stream is asked; and it knows after a restart, too
    advisory = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{STREAM}.{name_of_consumer(SUBJECT)}"
    side.bus.send([(advisory, "", b"", b"x")] * 9)
    await side.api.find_stream(STREAM)
    await intake._stock.look(1e9, has_in_hand=False)
    assert (intake.trouble or "").startswith(f"1 messages of the stream {STREAM} were delivered")
    await intake.stop()
    intake = await side.receiver()
    await until_async(lambda: (intake.trouble or "").startswith("1 messages of the stream"))
    await intake.stop()
    # on core it stays to be seen, and keeps nothing else from coming
    intake = await side.receiver(delivery=Delivery.CORE)
    await until_async(lambda: intake._rests[0].has_ended)
    assert (side.notes.facts("stream").keys(), await side.kept()) == ({f"{SUBJECT} {STREAM}"}, 1)
    await side.api.ask(f"STREAM.PURGE.{STREAM}")
    await intake.stop()


async def test_a_consumer_that_somebody_has_paused_is_the_trouble_of_the_worker(world):
    side = await world.side()
    intake = await side.receiver()
    words = f"CONSUMER.PAUSE.{STREAM}.{name_of_consumer(SUBJECT)}"
    await side.api.ask(words, {"pause_until": "2999-01-01T00:00:00Z"})
    side.bus.send([(SUBJECT, "", b"", b"go")])
    intake.want(5)
    said = (
        f"somebody has paused the consumer {name_of_consumer(SUBJECT)} of the stream {STREAM}: "
        "it delivers nothing until 2999-01-01T00:00:00Z"
    )
    await intake._stock.look(1e9, has_in_hand=False)
    assert intake.trouble == said
    # it is not ours to end that
    await intake._upkeep.ensure()
    assert not side.inbox.messages
    await side.api.ask(words, {"pause_until": None})
    await side.inbox.wait_for(1)
    await intake._stock.look(2e9, has_in_hand=False)
    assert intake.trouble is None
    await intake.stop()


async def test_a_stream_that_is_left_is_emptied_though_somebody_deletes_the_consumer(world):
    side, node = await world.side(ONE), await world.side(TWO)
    carrier = await side.sender()
    carrier.send([side.flight(b"1")])
    await side.said(1)
    intake = await node.receiver(delivery=Delivery.CORE)
    await asyncio.wait([intake._seeking])
    (rest,) = intake._rests
    await node.inbox.wait_for(1)
    await side.api.delete_consumer(STREAM, SUBJECT)
    await rest._upkeep.end_rest()
    assert not rest.has_ended
    await rest._upkeep.look(1e9)
    rest.want(5)
    message = (await node.inbox.wait_for(2))[1]
    node.confirm(message, AnswerKind.DONE)
    await side.until_kept(0)
    await intake.stop()


async def test_limits_that_the_config_changes_are_no_trouble_and_what_others_change_is(world):
    side = await world.side(max_bytes=1_000_000)
    intake = await side.receiver()
    side.stream = StreamSettings(max_bytes=2_000_000)
    intake.update(side.subscriber())

    async def look():
        assert (await side.api.find_stream(STREAM)).config["max_bytes"] == 2_000_000

    await until_taken(look, AssertionError)
    assert intake.trouble is None
    found = await side.api.find_stream(STREAM)
    await side.api.ask(f"STREAM.UPDATE.{STREAM}", {**found.config, "max_bytes": 5_000})
    intake._upkeep.look_now()  # not in half a minute
    await until_async(lambda: "max_bytes is 5000" in (intake.trouble or ""))
    await until_taken(look, AssertionError)
    await intake.stop()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_msgs_per_subject": 1}, "messages get lost in it: max_msgs_per_subject is 1"),
        ({"no_ack": True}, "messages get lost in it: no_ack is True"),
        ({"storage": "memory"}, "storage is 'memory' and shall be 'file'"),
    ],
    ids=str,
)
async def test_a_stream_that_others_made_so_that_it_loses_messages_is_the_trouble_from_the_start(
    world, settings, told
):
    side = await world.side()
    made = {"name": STREAM, "subjects": [SUBJECT], "storage": "file", "retention": "workqueue"}
    await side.api.ask(f"STREAM.CREATE.{STREAM}", made | settings)
    intake = await side.receiver()
    assert told in (intake.trouble or "")
    intake._upkeep.look_now()
    await intake._upkeep.look(1e9)
    assert told in (intake.trouble or "")
    await intake.stop()


async def test_a_claim_is_written_when_the_stream_says_so_and_not_when_somebody_else_does():
    bus = await MemoryBus.open(StreamingBroker(rng=random.Random(1)), name="test")
    said = (
        {},
        {"error": {"err_code": 10060, "description": "expected stream does not match"}},
        {"stream": "other", "seq": 1},
        {"stream": STREAM, "seq": -1},
        {"stream": STREAM},
        {"stream": STREAM, "seq": 9},
    )

    def answer(messages):
        texts = [json.dumps(one).encode() for one in said]
        bus.send([(one.reply_to, "", b"", text) for one in messages for text in texts])

    await bus.subscribe(f"{SUBJECT}.claim.>", answer, on_denied=lambda denial: None)
    mine = Claims(JetStreamApi(bus, "ship"), ONE, SUBJECT, asyncio.get_running_loop().time)
    receipt = Receipt("$JS.ACK.x", STREAM, 1, 7, False)
    assert await mine.of_deliveries([receipt], "life") == [Claim.OURS]
    assert mine.newest == 9
    await bus.close()


async def test_a_consumer_that_somebody_had_deliver_nothing_but_headers_is_mended(world):
    side = await world.side()
    intake = await side.receiver()
    found = await side.api.find_consumer(STREAM, SUBJECT)
    words = f"CONSUMER.CREATE.{STREAM}.{name_of_consumer(SUBJECT)}.{SUBJECT}"
    config = {**found.config, "headers_only": True}
    await side.api.ask(words, {"stream_name": STREAM, "config": config, "action": "update"})
    intake._upkeep.look_now()
    await intake._upkeep.look(1e9)
    assert "headers_only is True" in (intake.trouble or "")
    found = await side.api.find_consumer(STREAM, SUBJECT)
    assert not found.config.get("headers_only")
    await intake.stop()


@pytest.mark.parametrize(
    "settings",
    [
        {"max_batch": 10},
        {"max_bytes": 1_000},
        {"max_expires": 1_000_000_000},
        {"backoff": [1_000_000_000, 2_000_000_000]},
        {"inactive_threshold": 60_000_000_000},
        {"priority_policy": "overflow", "priority_groups": ["near"]},
        {"filter_subject": "", "filter_subjects": [SUBJECT, "ship.REQPing.EventNoACK"]},
    ],
    ids=lambda settings: next(reversed(settings)),
)
async def test_a_consumer_that_somebody_has_set_so_that_it_delivers_nothing_is_mended_at_once(
    settings, tmp_path
):
    with NatsServer(f'jetstream {{store_dir: "{tmp_path}/jetstream"}}') as server:
        async with AsyncExitStack() as stack:
            bus = await NatsBus.open(make_settings(server.url), name="test")
            stack.push_async_callback(bus.close)
            side = Side(bus, ONE, StreamSettings())
            intake = await side.receiver()
            stack.push_async_callback(intake.stop)
            found = await side.api.find_consumer(STREAM, SUBJECT)
            words = f"CONSUMER.CREATE.{STREAM}.{name_of_consumer(SUBJECT)}"
            words += "" if "filter_subjects" in settings else f".{SUBJECT}"
            config = {**found.config, **settings}
            await side.api.ask(words, {"stream_name": STREAM, "config": config, "action": "update"})
            # what refuses to deliver is looked at by itself; the others when it is time
            if not any(key.startswith(("max_", "priority_")) for key in settings):
                intake._upkeep.look_now()
            await side.take(1)
            await until_async(lambda: f"{next(reversed(settings))} is" in (intake.trouble or ""))
            found = await side.api.find_consumer(STREAM, SUBJECT)
            assert found.config["filter_subject"] == SUBJECT
            assert not any(
                found.config.get(key)
                for key in settings
                if key not in ("filter_subject", "priority_policy")
            )
            assert found.config.get("priority_policy") in (None, "none")
            assert side.inbox.messages[0].payload == b"go"


def test_a_broker_that_refuses_to_deliver_is_asked_once_a_second_and_it_is_told():
    """JetStream off, the stream not to be made, a limit of the consumer that cannot be changed: each asking is refused."""

    async def scenario():
        broker = StreamingBroker(rng=random.Random(1))
        bus = await MemoryBus.open(broker, name="test")
        side = Side(bus, ONE, StreamSettings())
        intake = await side.receiver()
        loop = asyncio.get_running_loop()
        asked, take = [], broker._take_pull

        def refuse(_subject, inbox, _payload):
            if inbox.rpartition(".")[2].isdecimal():
                asked.append(loop.time())
            broker._send(inbox, b"", "NATS/1.0 409 Exceeded MaxWaiting")

        broker._take_pull = refuse
        intake.want(8)
        await asyncio.sleep(60.0)
        # at once the first time, for a consumer that has moved is there at once
        assert asked[1] - asked[0] < 0.1
        assert 30 <= len(asked) <= 62
        assert intake.trouble == "the broker refuses to deliver: 409 Exceeded MaxWaiting"
        broker._take_pull = take
        began = loop.time()
        await side.take(1)
        assert loop.time() - began < 2.1
        assert intake.trouble is None
        await intake.stop()
        await bus.close()

    run_virtual(scenario())


async def test_what_somebody_says_of_an_asking_that_nobody_has_made_ends_none(world):
    side = await world.side()
    intake = await side.receiver()
    intake.want(8)
    refusal = b"NATS/1.0 409 Consumer Deleted\r\n\r\n"
    for number in ("wake", "9" * 30, intake._pulls.count + 7):
        side.bus.send([(f"{intake._pulls.inbox}.{number}", "", refusal, b"")])
    side.bus.send([(SUBJECT, "", b"", b"go")])
    await side.inbox.wait_for(1)
    # of the one that was made it ends it
    assert intake._pulls.count == 1
    side.bus.send([(f"{intake._pulls.inbox}.1", "", refusal, b"")])
    await until_async(lambda: intake._pulls.count == 2)
    await intake.stop()


async def test_a_stream_of_another_name_that_records_the_subject_is_told_to_the_sender(world):
    side = await world.side()
    carrier = await side.sender()
    await side.api.delete_stream(STREAM)
    other = {"name": "other", "subjects": [SUBJECT], "storage": "file"}
    await side.api.ask("STREAM.CREATE.other", other)
    carrier.send([side.flight()])
    (answer,) = await side.said()
    assert answer.detail.startswith(f"stream {STREAM}: another stream records the subject")


async def test_a_node_that_may_not_ask_for_messages_says_so(request):
    broker = StreamingBroker(rng=random.Random(1))
    denied = Permissions(publish_deny=("$JS.API.CONSUMER.MSG.NEXT.>",))
    bus = await MemoryBus.open(broker, name="test", permissions=denied)
    side = Side(bus, ONE, StreamSettings())
    intake = await side.receiver()
    intake.want(5)
    await until_async(lambda: "Permissions Violation" in (intake.trouble or ""))
    await intake.stop()
    await bus.close()


async def test_a_node_on_core_that_may_not_look_for_a_stream_asks_once(monkeypatch):
    broker = StreamingBroker(rng=random.Random(1))
    denied = Permissions(publish_deny=("$JS.API.>",))
    bus = await MemoryBus.open(broker, name="test", permissions=denied)
    asked, send = [], bus.send

    def note(frames):
        asked.extend(frame[0] for frame in frames)
        send(frames)

    monkeypatch.setattr(bus, "send", note)
    side = Side(bus, ONE, StreamSettings())
    intake = await side.receiver(delivery=Delivery.CORE)
    await until_async(lambda: asked and intake._seeking.done())
    bus.lose()
    await until_async(lambda: bus.is_connected)
    await until_async(lambda: intake._seeking.done())
    assert asked == ["$JS.API.STREAM.INFO.appl-ship"]
    await intake.stop()
    await bus.close()


async def test_what_was_found_for_a_node_on_core_ends_with_a_stop_that_comes_while_it_begins(
    world, monkeypatch
):
    side, node = await world.side(ONE), await world.side(TWO)
    carrier = await side.sender()
    carrier.send([side.flight(b"1")])
    await side.said(1)
    begun, ended = asyncio.Event(), []

    async def begin(self, *_):
        begun.set()
        await asyncio.Event().wait()

    async def end(self):
        ended.append(self)

    monkeypatch.setattr(JetStreamIntake, "start", begin)
    monkeypatch.setattr(JetStreamIntake, "stop", end)
    intake = await node.receiver(delivery=Delivery.CORE)
    await begun.wait()
    await intake.stop()
    assert len(ended) == 1
