"""What a test can do on the way between in-process clients; in virtual time, so that minutes cost nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from appliance.bus.memory import MemoryBroker, MemoryBus, Passage
from appliance.errors import BusUnavailable
from tests.support.virtual_time import run_virtual

from .conftest import Inbox


def make_broker(**changes: object) -> MemoryBroker:
    return MemoryBroker(rng=random.Random(7), **changes)  # type: ignore[arg-type]


async def send_numbers(bus: MemoryBus, count: int) -> None:
    bus.send([("a", "", b"", b"%d" % number) for number in range(count)])
    await bus.barrier()


def test_a_policy_loses_doubles_and_delays_each_copy() -> None:
    seen: list[Passage] = []

    def policy(passage: Passage) -> Iterable[float]:
        seen.append(passage)
        return {b"0": (), b"1": (0.0, 0.0), b"2": (90.0,)}.get(passage.message.payload, (0.0,))

    async def scenario() -> None:
        broker = make_broker(policy=policy)
        one = await MemoryBus.open(broker, name="one")
        two = await MemoryBus.open(broker, name="two")
        inbox = Inbox()
        await two.subscribe("a", inbox)
        await send_numbers(one, 4)
        assert (await inbox.wait_for(3, 1))[-1].payload == b"3"
        before = asyncio.get_running_loop().time()
        await inbox.wait_for(4, 100)
        assert asyncio.get_running_loop().time() - before == pytest.approx(90, abs=1)
        assert inbox.payloads == [b"1", b"1", b"3", b"2"]
        assert {(passage.sender, passage.receiver) for passage in seen} == {("one", "two")}

    run_virtual(scenario())


def test_the_same_seed_gives_the_same_run() -> None:
    async def scenario() -> list[bytes]:
        broker = make_broker()
        one = await MemoryBus.open(broker, name="one")
        two = await MemoryBus.open(broker, name="two")
        inbox = Inbox()
        await one.subscribe("a", inbox, queue="g")
        await two.subscribe("a", Inbox(), queue="g")
        await send_numbers(one, 100)
        return inbox.payloads

    shares = [run_virtual(scenario()) for _ in range(2)]
    assert shares[0] == shares[1]
    assert 30 < len(shares[0]) < 70


def test_a_stalled_client_neither_hears_nor_is_heard_and_goes_on_where_it_was() -> None:
    async def scenario() -> None:
        broker = make_broker()
        still = await MemoryBus.open(broker, name="still")
        peer = await MemoryBus.open(broker, name="peer")
        heard_there, heard_here = Inbox(), Inbox()
        await still.subscribe("a", heard_there, queue="g")
        await peer.subscribe("b", heard_here)
        still.stall()
        still.send([("b", "", b"", b"waits")])
        await send_numbers(peer, 3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(300):
                await still.barrier()
        assert (heard_there.messages, heard_here.messages) == ([], [])
        assert still.is_connected
        still.send([("b", "", b"", b"x" * 100_000)])
        assert still.is_congested
        still.resume()
        await still.wait_until_writable()
        assert (await heard_there.wait_for(3))[0].payload == b"0"
        await heard_here.wait_for(2)

    run_virtual(scenario())


def test_a_dead_connection_stays_in_its_queue_group_until_the_broker_notices() -> None:
    async def scenario() -> None:
        broker = make_broker()
        moved = await MemoryBus.open(broker, name="moved")
        peer = await MemoryBus.open(broker, name="peer")
        inbox = Inbox()
        await moved.subscribe("a", inbox, queue="g")
        moved.lose("the uplink changed", noticed_after_s=240)
        assert (moved.is_connected, moved.connection_epoch) == (False, 1)
        await asyncio.sleep(1)
        assert moved.is_connected
        await send_numbers(peer, 100)
        await moved.barrier()
        assert 20 < len(inbox.messages) < 80, "the dead connection swallows its share"
        await asyncio.sleep(240)
        inbox.messages.clear()
        await send_numbers(peer, 100)
        await moved.barrier()
        assert len(inbox.messages) == 100

    run_virtual(scenario())


def test_what_is_on_the_lines_is_lost_with_the_connection_and_waiters_are_told() -> None:
    async def scenario() -> None:
        broker = make_broker()
        bus = await MemoryBus.open(broker, name="bus")
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        other = await bus.subscribe("b", Inbox())
        bus.stall()
        bus.send([("a", "", b"", b"x" * 100_000)])
        waiting = asyncio.create_task(bus.barrier())
        writing = asyncio.create_task(bus.wait_until_writable())
        stopping = asyncio.create_task(other.stop_intake())
        await asyncio.sleep(1)
        bus.lose()
        for task in (waiting, writing):
            with pytest.raises(BusUnavailable):
                await task
        await stopping
        await asyncio.sleep(1)
        await send_numbers(bus, 1)
        assert inbox.payloads == [b"0"]

    run_virtual(scenario())


def test_a_broker_that_comes_late_is_found_and_idle_clients_hold_no_timer() -> None:
    async def scenario() -> None:
        broker = make_broker()
        broker.stop()
        bus = await MemoryBus.open(broker, name="bus")
        assert not bus.is_connected
        asyncio.get_running_loop().call_later(3600, broker.start)
        connected = asyncio.Event()
        bus.on_connected(connected.set)
        await connected.wait()
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        await send_numbers(bus, 1)
        assert inbox.payloads == [b"0"]
        await bus.close()

    run_virtual(scenario())
