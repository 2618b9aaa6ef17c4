"""Answers of those who hear a subject and mean harm: they cost nobody else an answer, and make no flood of sends."""

from __future__ import annotations

import asyncio

import cbor2
import pytest

from appliance.bus.base import BusMessage, Frame
from appliance.delivery.core import MAX_TOKENS
from appliance.wire.headers import encode_headers
from tests.component.heart.worlds import add_pair, config, numbered, play
from tests.support.bare_publisher import seed_message
from tests.support.heart_world import World

CONSOLE = "REQToConsole"
SUBJECT = "beta.REQToConsole.EventACK"
HERE_SUBJECT = f"{SUBJECT}.reply.here.here"
HERE = encode_headers({"appl-v": "2", "appl-here": "1"})
WAITING = 200
FLOOD_S = 10


async def _sends_during(world: World, frame: Frame | None, per_s: int) -> int:
    """How often a node that is away is sent to, in ten seconds in which somebody says something."""
    alpha, beta = await add_pair(world)
    await beta.stop()
    await alpha.submit(numbered(WAITING), method=CONSOLE)
    await asyncio.sleep(60)
    bus = await world.connect("anybody")
    before = len(world.sent)
    for _ in range(FLOOD_S * per_s):
        if frame is not None:
            bus.send([frame])
        await asyncio.sleep(1 / per_s)
    sends = [sent for sent in world.sent[before:] if sent.subject == SUBJECT]
    await beta.start()
    return len(sends)


def test_honest_words_that_a_node_is_back_let_everything_be_tried():
    async def scenario(world: World) -> None:
        sends = await _sends_during(world, (HERE_SUBJECT, "", HERE, b"here: beta: 0"), per_s=1)
        assert sends >= WAITING

    play(scenario)


@pytest.mark.parametrize(
    ("block", "payload"),
    [
        (HERE, b"here: beta: 0"),
        (b"", b""),
        (b"", b"busy at: beta: 0"),
        (b"", b"confirmed from: beta: 0"),
    ],
    ids=["here", "empty", "busy", "confirmed"],
)
def test_a_flood_of_words_about_nothing_makes_no_flood_of_sends(block: bytes, payload: bytes):
    async def scenario(world: World) -> None:
        sends = await _sends_during(world, (HERE_SUBJECT, "", block, payload), per_s=100)
        assert sends <= WAITING * (FLOOD_S + 1)  # once a second everything may be tried

    play(scenario)


def test_a_flood_of_hellos_makes_no_flood_of_sends():
    async def scenario(world: World) -> None:
        hello = cbor2.dumps(seed_message("alpha", "beta", "REQHello", ["hi"], id=0))
        frame = ("alpha.REQHello.EventNACK", "", encode_headers({"serial": "cbor"}), hello)
        sends = await _sends_during(world, frame, per_s=100)
        assert WAITING <= sends <= WAITING * (FLOOD_S + 1)

    play(scenario)


@pytest.mark.parametrize("bait", [b'{"a":' + b"[" * 1_015, b'{"a":1}'], ids=["deep", "flat"])
def test_a_text_that_is_no_answer_takes_no_answer_beside_it_away(bait: bytes):
    async def scenario(world: World) -> None:
        alpha = await world.add_daemon("alpha", config(), ["alpha"])
        node = await world.connect("a node in Go, and somebody who hears its subject")
        taken: list[BusMessage] = []

        def take(messages: list[BusMessage]) -> None:
            frames: list[Frame] = []
            for message in messages:
                taken.append(message)
                frames.append((message.reply_to, "", b"", b"confirmed from: beta: 1"))
                beside = message.reply_to.rpartition(".")[0] + ".x"
                frames.append((beside, "", b"", bait))
            node.send(frames)

        await node.subscribe(SUBJECT, take)
        await alpha.submit(numbered(3), method=CONSOLE)
        await asyncio.sleep(3_600)
        assert len(taken) == 3
        assert not alpha.disk.dead
        assert not alpha.disk.records

    play(scenario)


def test_a_node_that_is_busy_for_ever_costs_little_and_no_room():
    async def scenario(world: World) -> None:
        alpha = await world.add_daemon("alpha", config(), ["alpha"])
        node = await world.connect("beta")
        asked = 0
        busy = encode_headers({"appl-v": "2", "appl-busy": "0"})

        def take(messages: list[BusMessage]) -> None:
            nonlocal asked
            asked += len(messages)
            # said twice, which counts once
            node.send([(one.reply_to, "", busy, b"busy at: beta: 0") for one in messages * 2])

        await node.subscribe(SUBJECT, take)
        (number,) = await alpha.submit(["x"], method=CONSOLE)
        await asyncio.sleep(300)
        (publisher,) = [
            handle.worker
            for key, handle in alpha.pool.handles.items()
            if key.subject == SUBJECT and key.kind == "publisher"
        ]
        assert MAX_TOKENS < asked <= 300 / 0.1
        assert len(publisher._carrier._tokens.flights) <= MAX_TOKENS
        assert alpha.disk.records[number].sends >= 0

    play(scenario)
