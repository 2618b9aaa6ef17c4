"""The broker goes away, stalls, comes back: nothing is buffered, everything is made again, for ever."""

from __future__ import annotations

import asyncio

import pytest

from appliance.bus.nats import NatsBus
from appliance.errors import BusUnavailable
from tests.support.nats_server import NatsServer
from tests.support.waiting import turns

from .conftest import Heard, Inbox, OpenBus, make_settings


async def test_publish_without_connection_raises_at_once_and_nothing_is_sent_later(
    server: NatsServer, open_bus: OpenBus
) -> None:
    heard = Heard()
    bus = await open_bus(server.url, events=heard.make_events())
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    server.kill()
    await heard.until(lambda it: "disconnected" in it.calls)
    for _ in range(100):
        with pytest.raises(BusUnavailable):
            await bus.publish("a", b"offline")
    server.start()
    await heard.until(lambda it: "reconnect" in it.calls)
    await bus.publish("a", b"online")
    await inbox.wait_for(1)
    await bus.barrier()
    assert inbox.payloads == [b"online"]


async def test_subscriptions_are_confirmed_again_before_the_bus_counts_as_connected(
    server: NatsServer, open_bus: OpenBus
) -> None:
    heard = Heard()
    peers_heard = Heard()
    bus = await open_bus(server.url, events=heard.make_events())
    peer = await open_bus(server.url, events=peers_heard.make_events())
    inboxes = [Inbox() for _ in range(50)]
    for number, inbox in enumerate(inboxes):
        await bus.subscribe(f"a.{number}", inbox, queue="q")
    for round_number in range(1, 4):
        server.kill()
        server.start()
        for each in (heard, peers_heard):
            await each.until(lambda it, wanted=round_number: it.calls.count("reconnect") == wanted)
        assert bus.is_connected
        for number in range(50):
            await peer.publish(f"a.{number}", b"")
        await asyncio.gather(*(inbox.wait_for(round_number) for inbox in inboxes))
    assert bus.reconnects == 3


async def test_epoch_grows_with_every_loss_and_callbacks_run_after_every_connect(
    server: NatsServer, open_bus: OpenBus
) -> None:
    heard = Heard()
    bus = await open_bus(server.url, events=heard.make_events())
    woken: list[int] = []
    end = bus.on_connected(lambda: woken.append(1))
    assert (bus.connection_epoch, bus.reconnects) == (0, 0)
    server.kill()
    server.start()
    await heard.until(lambda it: it.calls.count("connected") == 2)
    assert (bus.connection_epoch, bus.reconnects, len(woken)) == (1, 1, 1)
    end()
    server.kill()
    server.start()
    await heard.until(lambda it: it.calls.count("connected") == 3)
    assert (bus.connection_epoch, bus.reconnects, len(woken)) == (2, 2, 1)
    assert heard.calls[:4] == ["connected", "disconnected", "connected", "reconnect"]


async def test_a_broker_that_is_not_there_at_start_is_found_when_it_comes(
    server: NatsServer, open_bus: OpenBus
) -> None:
    server.kill()
    heard = Heard()
    bus = await open_bus(server.url, events=heard.make_events())
    assert not bus.is_connected
    subscribing = asyncio.create_task(bus.subscribe("a", inbox := Inbox()))
    server.start()
    await subscribing
    await bus.publish("a", b"")
    await inbox.wait_for(1)
    assert heard.calls == ["connected"]
    assert any("refused" in text.lower() for text in heard.errors)
    assert bus.trouble is None


async def test_a_required_connection_that_fails_raises(server: NatsServer) -> None:
    server.kill()
    with pytest.raises(BusUnavailable, match=f"127.0.0.1:{server.port}"):
        await NatsBus.open(make_settings(server.url), name="test", require_connection=True)


async def test_no_address_at_all_is_an_error_in_words() -> None:
    with pytest.raises(BusUnavailable, match="no broker address"):
        await NatsBus.open(make_settings(), name="test", require_connection=True)


async def test_a_stalled_broker_is_noticed_within_three_ping_intervals(
    server: NatsServer, open_bus: OpenBus
) -> None:
    heard = Heard()
    bus = await open_bus(make_settings(server.url, ping_interval_s=0.1), events=heard.make_events())
    loop = asyncio.get_running_loop()
    server.pause()
    started_mono = loop.time()
    await heard.until(lambda it: "disconnected" in it.calls)
    assert loop.time() - started_mono < 20.0  # and not the minutes of a connection that is dead
    assert any("no answer from the broker" in text for text in heard.errors)
    server.resume()
    await heard.until(lambda it: "reconnect" in it.calls)
    await bus.barrier()


async def test_publishers_blocked_by_a_stalled_broker_are_released_when_it_is_given_up(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus = await open_bus(make_settings(server.url, ping_interval_s=0.1))
    server.pause()
    sent = 0

    async def fill() -> None:
        nonlocal sent
        while True:
            await bus.publish("a", b"x" * 500_000)
            sent += 1

    async with asyncio.timeout(60):
        results = await asyncio.gather(*(fill() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, BusUnavailable) for result in results)
    # Sockets hold a few MB; without backpressure this would be gigabytes.
    assert sent < 200
    server.resume()


async def test_a_publisher_in_a_tight_loop_lets_others_run(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus = await open_bus(server.url)
    counted = 0

    async def count_turns() -> None:
        nonlocal counted
        while True:
            await turns()
            counted += 1

    counter = asyncio.create_task(count_turns())
    for _ in range(20_000):
        await bus.publish("a", b"x" * 1000)
    counter.cancel()
    assert counted > 10


async def test_a_barrier_under_way_when_the_broker_dies_raises(
    server: NatsServer, open_bus: OpenBus
) -> None:
    bus = await open_bus(server.url)
    server.pause()
    waiting = asyncio.create_task(bus.barrier())
    await turns()
    server.kill()
    with pytest.raises(BusUnavailable, match="lost"):
        await waiting


async def test_subscribe_without_connection_gives_up_in_time_and_leaves_nothing(
    server: NatsServer, open_bus: OpenBus
) -> None:
    heard = Heard()
    bus = await open_bus(
        make_settings(server.url, connect_timeout_s=0.1), events=heard.make_events()
    )
    await heard.until(lambda it: "connected" in it.calls)
    server.kill()
    await heard.until(lambda it: "disconnected" in it.calls)
    inbox = Inbox()
    with pytest.raises(BusUnavailable):
        await bus.subscribe("a", inbox)
    server.start()
    await heard.until(lambda it: "reconnect" in it.calls)
    await bus.publish("a", b"")
    await bus.barrier()
    await bus.barrier()
    assert inbox.messages == []


async def test_a_cancelled_subscribe_leaves_nothing(server: NatsServer, open_bus: OpenBus) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    subscribing = asyncio.create_task(bus.subscribe("a", inbox))
    await turns()
    subscribing.cancel()
    await asyncio.wait({subscribing})
    assert subscribing.cancelled()
    await bus.publish("a", b"")
    await bus.barrier()
    await bus.barrier()
    assert inbox.messages == []


async def test_the_next_broker_is_used_when_one_dies(open_bus: OpenBus) -> None:
    with NatsServer() as one, NatsServer() as two:
        heard = Heard()
        bus = await open_bus(make_settings(one.url, two.url), events=heard.make_events())
        first = one if bus.server == one.url else two
        first.kill()
        await heard.until(lambda it: "reconnect" in it.calls)
        assert bus.server == (two.url if first is one else one.url)


async def test_a_failure_that_repeats_is_reported_once(open_bus: OpenBus) -> None:
    attempts = asyncio.Semaphore(0)

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        attempts.release()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    heard = Heard()
    url = f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    bus = await open_bus(url, events=heard.make_events())
    async with asyncio.timeout(60):
        for _ in range(6):
            await attempts.acquire()
    assert len(heard.errors) == 1
    assert not bus.is_connected
    await bus.close()
    listener.close()
    await listener.wait_closed()


async def test_callbacks_of_the_daemon_that_raise_do_no_harm(
    server: NatsServer, open_bus: OpenBus, caplog: pytest.LogCaptureFixture
) -> None:
    from appliance.bus.events import BusEvents

    def fail(*_: str) -> None:
        raise RuntimeError("bug in a callback")

    bus = await open_bus(
        server.url,
        events=BusEvents(on_connected=fail, on_disconnected=fail, on_reconnect=fail, on_error=fail),
    )
    back = asyncio.Event()
    bus.on_connected(fail)
    bus.on_connected(back.set)
    server.kill()
    server.start()
    async with asyncio.timeout(60):
        await back.wait()
    assert bus.is_connected
    assert "a callback of the bus failed" in caplog.text


async def test_closing_while_it_tries_to_connect_ends_at_once(server: NatsServer) -> None:
    server.pause()  # accepts connections, never says INFO
    opening = asyncio.create_task(
        NatsBus.open(make_settings(server.url, connect_timeout_s=0.1), name="test")
    )
    bus = await opening
    async with asyncio.timeout(60):
        await bus.close()
    server.resume()
