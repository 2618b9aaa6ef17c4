"""A change of broker settings: the new connection first, then the old one emptied; or nothing at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from appliance.core.specs import AuthSettings, SecretRef
from appliance.errors import BusUnauthorized, BusUnavailable
from tests.support.nats_server import NatsServer
from tests.support.waiting import turns

from .conftest import Heard, Inbox, OpenBus, make_settings


async def test_nothing_is_lost_or_doubled_while_the_connection_is_exchanged_under_load(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a", inbox, queue="a")
    done = asyncio.Event()
    sent = 0

    async def send() -> None:
        nonlocal sent
        while not done.is_set():
            for _ in range(20):
                await peer.publish("a", b"%d" % sent)
                sent += 1
            await turns()

    sending = asyncio.create_task(send())
    for _ in range(10):
        await bus.reconfigure(make_settings(server.url))
    done.set()
    await sending
    await peer.barrier()
    await bus.barrier()
    await bus.barrier()
    counts = Counter(inbox.payloads)
    assert sorted(map(int, counts)) == list(range(sent))
    assert set(counts.values()) == {1}
    assert (bus.connection_epoch, bus.reconnects) == (0, 10)


async def test_a_stop_leaves_no_gap_to_the_member_that_has_just_taken_over(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    heard: list[str] = []
    old = await bus.subscribe("a", lambda _: heard.append("old"), queue="a")
    new = await bus.subscribe("a", lambda _: heard.append("new"), queue="a")
    stopping = asyncio.create_task(old.stop_intake())
    await turns(3)
    for _ in range(50):  # of 50 at random among two, both hear some
        await peer.publish("a", b"")
    await peer.barrier()
    await bus.barrier()
    assert set(heard) == {"old", "new"}
    await stopping
    heard.clear()
    for _ in range(50):
        await peer.publish("a", b"")
    await peer.barrier()
    await bus.barrier()
    assert heard == ["new"] * len(heard) != []
    await new.stop_intake()


async def test_a_cut_off_stop_unsubscribes_all_the_same(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    old, new = Inbox(), Inbox()
    leaving = await bus.subscribe("a", old, queue="a")
    await bus.subscribe("a", new, queue="a")
    stopping = asyncio.create_task(leaving.stop_intake())
    await turns(3)
    stopping.cancel()
    await asyncio.wait({stopping})
    await bus.barrier()
    for _ in range(50):
        await peer.publish("a", b"")
    await peer.barrier()
    await bus.barrier()
    assert (len(old.messages), len(new.messages)) == (0, 50)


async def test_it_moves_to_another_broker(open_bus: OpenBus) -> None:
    with NatsServer() as old, NatsServer() as new:
        heard = Heard()
        bus = await open_bus(old.url, events=heard.make_events())
        inbox = Inbox()
        subscription = await bus.subscribe("a", inbox)
        await bus.reconfigure(make_settings(new.url))
        assert bus.server == new.url
        old.stop()
        peer = await open_bus(new.url)
        await peer.publish("a", b"1")
        await inbox.wait_for(1)
        await bus.publish("a", b"2")
        await inbox.wait_for(2)
        assert "disconnected" not in heard.calls
        new.kill()
        new.start()
        await heard.until(lambda it: it.calls.count("reconnect") == 2)
        await bus.publish("a", b"3")
        await inbox.wait_for(3)
        await subscription.stop_intake()


async def test_a_new_broker_that_does_not_answer_or_refuses_leaves_the_old_one_in_use(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    with NatsServer("authorization { token: x }") as other:
        with pytest.raises(BusUnauthorized):
            await bus.reconfigure(make_settings(other.url))
        other.kill()
        with pytest.raises(BusUnavailable):
            await bus.reconfigure(make_settings(other.url))
        other.start().pause()
        with pytest.raises(BusUnavailable):
            await bus.reconfigure(make_settings(other.url, connect_timeout_s=0.1))
    assert bus.server == server.url
    assert bus.failed is None
    await bus.publish("a", b"")
    await inbox.wait_for(1)
    assert (bus.connection_epoch, bus.reconnects) == (0, 0)


async def test_a_lost_broker_can_be_replaced_by_settings(open_bus: OpenBus) -> None:
    with NatsServer() as old, NatsServer() as new:
        heard = Heard()
        bus = await open_bus(old.url, events=heard.make_events())
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        old.kill()
        await heard.until(lambda it: "disconnected" in it.calls)
        await bus.reconfigure(make_settings(new.url))
        await bus.publish("a", b"")
        await inbox.wait_for(1)


async def test_subscribing_and_stopping_during_an_exchange_land_on_the_new_connection(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus, peer = await open_bus(server.url), await open_bus(server.url)
    for _ in range(20):
        kept, stopped = Inbox(), Inbox()
        going = await bus.subscribe("stopped", stopped)
        exchange = asyncio.create_task(bus.reconfigure(make_settings(server.url)))
        coming = await bus.subscribe("kept", kept)
        await going.stop_intake()
        await exchange
        await peer.publish("kept", b"")
        await peer.publish("stopped", b"")
        await kept.wait_for(1)
        await bus.barrier()
        assert stopped.messages == []
        await coming.stop_intake()


async def test_a_cancelled_exchange_leaves_a_working_bus(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    for count in range(30):
        exchange = asyncio.create_task(bus.reconfigure(make_settings(server.url)))
        await turns(count)
        exchange.cancel()
        await asyncio.wait({exchange})
    await bus.publish("a", b"")
    await inbox.wait_for(1)
    await bus.barrier()
    assert len(inbox.messages) == 1


async def test_a_changed_login_is_taken_by_a_new_connection_and_the_subscriptions_go_on(
    tmp_path: Path, open_bus: OpenBus
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    settings = AuthSettings(token=SecretRef(kind="file", name=str(token)))
    with NatsServer(config='authorization { token: "s3cret" }') as server:
        bus = await open_bus(make_settings(server.url, auth=settings))
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        await bus.renew()
        assert (bus.reconnects, bus.connection_epoch) == (1, 0)
        token.write_text("another")
        with pytest.raises(BusUnauthorized):
            await bus.renew()
        await bus.publish("a", b"x")
        await inbox.wait_for(1)
        assert bus.reconnects == 1
