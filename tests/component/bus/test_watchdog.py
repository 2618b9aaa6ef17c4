"""Messages to ourselves: they find a broker that answers PING and delivers nothing, and stop where they are denied."""

from __future__ import annotations

import asyncio

import pytest

from appliance.bus import watchdog
from appliance.bus.nats import NatsBus
from tests.support.nats_server import NatsServer

from .conftest import INFO_LINE, Heard, Inbox, OpenBus, make_settings


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_LOOPBACK_EVERY_S", 0.02)
    # The intervals of these tests are so short that a busy machine would look like a dead broker.
    monkeypatch.setattr(watchdog, "_MAX_UNANSWERED_PINGS", 1_000_000)


async def test_a_broker_that_answers_but_delivers_nothing_is_dropped() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO_LINE)
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    heard = Heard()
    bus = await NatsBus.open(
        make_settings(url, ping_interval_s=0.02),
        name="test",
        loopback_node="ship1",
        events=heard.make_events(),
    )
    await heard.until(lambda it: any("delivers nothing" in text for text in it.errors))
    await bus.close()
    listener.close()
    await listener.wait_closed()


async def test_a_healthy_broker_is_left_alone(
    server: NatsServer, open_bus: OpenBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two that are missed are the end, and a busy machine keeps a broker waiting for a moment
    monkeypatch.setattr(watchdog, "_LOOPBACK_EVERY_S", 0.3)
    heard = Heard()
    bus = await open_bus(
        make_settings(server.url, ping_interval_s=0.1),
        loopback_node="ship1",
        events=heard.make_events(),
    )
    peer = await open_bus(server.url)
    inbox = Inbox()
    await peer.subscribe("ship1.LOOPBACK.>", inbox)
    await inbox.wait_for(4)
    assert bus.connection_epoch == 0
    assert heard.errors == []


@pytest.mark.parametrize("denied", ["publish", "subscribe"])
async def test_a_denial_turns_the_check_off_for_good(
    open_bus: OpenBus, denied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_LOOPBACK_EVERY_S", 0.1)
    config = f"""authorization {{ users: [ {{ user: u, password: p, permissions: {{
      {denied}: {{ deny: ["ship1.LOOPBACK.>"] }} }} }}, {{ user: spy, password: p }} ] }}"""
    with NatsServer(config) as server:
        heard = Heard()
        bus = await open_bus(
            make_settings(server.url.replace("://", "://u:p@"), ping_interval_s=0.05),
            loopback_node="ship1",
            events=heard.make_events(),
        )
        spy = await open_bus(server.url.replace("://", "://spy:p@"))
        inbox = Inbox()
        await spy.subscribe("ship1.LOOPBACK.>", inbox)
        loopback = bus._link._loopback
        assert loopback is not None
        tick, ticks = loopback.tick, asyncio.Semaphore(0)
        monkeypatch.setattr(loopback, "tick", lambda wire: (tick(wire), ticks.release()))
        async with asyncio.timeout(60):
            for _ in range(10):  # as many times as find a broker that delivers nothing
                await ticks.acquire()
        await spy.barrier()
        assert bus.connection_epoch == 0
        assert heard.errors == []
        assert inbox.messages == []
