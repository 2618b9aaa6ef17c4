"""Fixtures of the bus tests: a real nats-server, and buses that are closed whatever happens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from appliance.bus.base import BusMessage
from appliance.bus.events import BusEvents
from appliance.bus.nats import NatsBus
from appliance.core.specs import BrokerSettings
from tests.support.nats_server import NatsServer

INFO_LINE = b'INFO {"server_id":"X","version":"2.15.1","headers":true,"max_payload":1048576}\r\n'
"""The first words of a broker played by a test."""


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with NatsServer() as running:
        yield running


OpenBus = Callable[..., Awaitable[NatsBus]]


def make_settings(*urls: str, **changes: Any) -> BrokerSettings:
    """Settings whose waits suit tests."""
    quick: dict[str, Any] = {
        "servers": urls,
        "connect_timeout_s": 2.0,
        "ping_interval_s": 5.0,  # a shorter one takes a busy machine for a dead broker
        "reconnect_wait_s": 0.02,
    }
    return BrokerSettings(**(quick | changes))


@dataclass
class Heard:
    """Records what a bus tells, and lets a test wait for it."""

    errors: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def make_events(self) -> BusEvents:
        return BusEvents(
            on_connected=lambda: self._note("connected"),
            on_disconnected=lambda: self._note("disconnected"),
            on_reconnect=lambda: self._note("reconnect"),
            on_error=self._note_error,
        )

    async def until(self, holds: Callable[[Heard], bool], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds(self):
                self._changed.clear()
                await self._changed.wait()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._changed.set()

    def _note_error(self, text: str) -> None:
        self.errors.append(text)
        self._changed.set()


class Inbox:
    """An `on_messages` that keeps what came and lets a test wait for a count."""

    def __init__(self) -> None:
        self.messages: list[BusMessage] = []
        self.batches: list[int] = []
        """How many messages came at once, each time."""
        self._changed = asyncio.Event()

    def __call__(self, messages: list[BusMessage]) -> None:
        self.batches.append(len(messages))
        self.messages += messages
        self._changed.set()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    async def wait_for(self, count: int, timeout_s: float = 30.0) -> list[BusMessage]:
        async with asyncio.timeout(timeout_s):
            while len(self.messages) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.messages


@pytest.fixture
async def open_bus() -> AsyncIterator[OpenBus]:
    opened: list[NatsBus] = []

    async def open_one(settings: BrokerSettings | str, **options: Any) -> NatsBus:
        if isinstance(settings, str):
            settings = make_settings(settings)
        bus = await NatsBus.open(settings, **{"name": "test", **options})
        opened.append(bus)
        return bus

    yield open_one
    for bus in opened:
        await bus.close()


class RawClient:
    """A peer that writes bytes as they are; for what no well-behaved client would send."""

    def __init__(self, server: NatsServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        self._file = self._socket.makefile("rb")
        self._file.readline()
        self.send(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')

    def send(self, data: bytes) -> bytes:
        """Send, and return the first line of the answer to a PING sent after it."""
        self._socket.sendall(data + b"PING\r\n")
        return self._file.readline()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def raw(server: NatsServer) -> Iterator[RawClient]:
    client = RawClient(server)
    yield client
    client.close()
