"""Pieces of one answer keep their order whatever becomes of the first, and who waits for it costs no processor time."""

from __future__ import annotations

import asyncio

import pytest

from appliance.core.message import Message
from appliance.wire.headers import encode_headers
from appliance.workers.lane_sender import LaneSender
from tests.component.heart.worlds import add_pair, config, play
from tests.support.heart_world import Behaviour, Daemon, World

CONSOLE = "REQToConsole"
SUBJECT = "beta.REQToConsole.EventACK"
PIECES = ["a", "b", "c"]
FEW_TURNS = 500
"""Far above what timers need in the times of these scenarios; a loop that spins takes thousands a second."""


@pytest.fixture
def turns(monkeypatch):
    """How often any lane was looked at; one that is looked at without end fails the test instead of hanging it."""
    counted: list[None] = []
    turn = LaneSender.turn

    def count(self):
        counted.append(None)
        assert len(counted) < 40 * FEW_TURNS, "it spins"
        return turn(self)

    monkeypatch.setattr(LaneSender, "turn", count)
    return counted


async def put_stream(daemon: Daemon) -> None:
    records = [
        daemon.router.make_record(
            Message(to_node="beta", from_node="alpha", method=CONSOLE, data=(text,)),
            headers={"appl-turn": f"abc.{number}"},
        )
        for number, text in enumerate(PIECES)
    ]
    await daemon.run(daemon.store.put(records))


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_a_piece_whose_retry_is_not_due_holds_up_the_next_ones_over_a_restart(turns, is_killed):
    async def scenario(world: World) -> None:
        settings = config(defaults="ack: {retries: 9, retry_wait: 1m}")
        alpha, _ = await add_pair(world, settings)
        is_lost = True
        world.swallows["alpha"] = lambda sent: is_lost and sent.subject == SUBJECT
        await put_stream(alpha)
        assert await world.settle(
            30, until=lambda: any(record.attempts for record in alpha.disk.records.values())
        )
        if is_killed:
            alpha.kill()
        else:
            await alpha.stop()
        is_lost = False
        await alpha.start()
        await asyncio.sleep(300)
        assert world.log.texts() == PIECES

    play(scenario)
    assert len(turns) < FEW_TURNS


def test_what_waits_for_a_piece_that_is_worked_on_costs_no_time(turns):
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world, config(events=", ack: {on: done}"))
        world.default_behaviour = Behaviour(3.0)
        await put_stream(alpha)
        await asyncio.sleep(60)
        assert world.log.texts() == PIECES

    play(scenario)
    assert len(turns) < FEW_TURNS


def test_what_waits_for_a_stranger_after_a_reconnect_costs_no_time(turns):
    async def scenario(world: World) -> None:
        alpha = await world.add_daemon("alpha", config(), ["alpha"])
        await world.add_stranger(SUBJECT, answers=False)
        await put_stream(alpha)
        await asyncio.sleep(50)
        await world.disconnect(alpha, 1.0)
        await asyncio.sleep(650)

    play(scenario)
    assert len(turns) < 4 * FEW_TURNS  # a look a second, for expiry


def test_a_lane_that_was_busy_and_fell_silent_costs_no_time(turns):
    async def scenario(world: World) -> None:
        alpha = await world.add_daemon("alpha", config(), ["alpha"])
        node = await world.connect("beta")
        busy = encode_headers({"appl-v": "2", "appl-busy": "60000"})
        asked: list[object] = []

        def take(messages) -> None:
            if not asked:
                node.send([(messages[0].reply_to, "", busy, b"busy at: beta: 0")])
            asked.extend(messages)

        await node.subscribe(SUBJECT, take)
        message = Message(to_node="beta", from_node="alpha", method=CONSOLE, data=("x",))
        records = [
            alpha.router.make_record(message, expires_s=15.0),
            alpha.router.make_record(message, retries=1),
        ]
        await alpha.run(alpha.store.put(records))
        await asyncio.sleep(1)
        await alpha.submit(["later"], method=CONSOLE)
        await asyncio.sleep(90)
        assert len(asked) > 2

    play(scenario)
    assert len(turns) < FEW_TURNS


def test_a_silent_lane_of_which_only_later_tries_are_left_costs_no_time(turns):
    async def scenario(world: World) -> None:
        alpha = await world.add_daemon(
            "alpha", config(defaults="ack: {retry_wait: 10m}"), ["alpha"]
        )
        await world.add_stranger(SUBJECT, answers=False)
        await alpha.submit(["first"], method=CONSOLE, retries=3)
        await asyncio.sleep(30)
        await alpha.stop()
        await alpha.start()
        await alpha.submit(["second"], method=CONSOLE, retries=0)
        await asyncio.sleep(120)
        assert len(alpha.disk.dead) == 1

    play(scenario)
    assert len(turns) < FEW_TURNS
