"""Notices a connection that is dead though nobody said so: pings, and messages to ourselves.

A broker that is stalled or cut off answers no PING: the connection is dropped after three intervals. A broker that
answers PING but delivers nothing is found by a message to ourselves, tried only while nothing else arrives.
"""

from __future__ import annotations

import asyncio
import secrets

from appliance.bus.base import BusMessage, Denial
from appliance.bus.protocol import Wire
from appliance.errors import BusError

_MAX_UNANSWERED_PINGS = 2
_LOOPBACK_EVERY_S = 10.0
_MAX_LOOPBACK_MISSES = 2


async def watch_wire(
    wire: Wire, *, ping_interval_s: float, loopback: Loopback | None, changed: asyncio.Event
) -> None:
    """Watch `wire` until `changed` is set, or drop it when it is dead.

    Cancellation: nothing is left behind.
    """
    unanswered = 0
    while not wire.is_lost:
        try:
            async with asyncio.timeout(ping_interval_s):
                await changed.wait()
                return
        except TimeoutError:
            if wire.lost_reason is not None:
                return
        # whatever came says that the other side lives; a busy line may keep a PONG waiting
        if wire.was_heard:
            unanswered = 0
        if unanswered >= _MAX_UNANSWERED_PINGS:
            waited_s = ping_interval_s * (unanswered + 1)
            wire.drop(f"no answer from the broker for {waited_s:g} s")
            return
        unanswered += 1
        wire.was_heard = False
        wire.ping()
        if loopback is not None:
            loopback.tick(wire)


class Loopback:
    """Messages to ourselves on ``<node>.LOOPBACK.<token>``. Off for good once the broker denies them."""

    def __init__(self, node: str) -> None:
        self._subject = f"{node}.LOOPBACK.{secrets.token_hex(8)}"
        self._is_off = False
        self._wire: Wire | None = None
        self._seen = -1
        self._misses = 0
        self._due_mono = 0.0

    @property
    def subject(self) -> str:
        """Where the messages go."""
        return self._subject

    def turn_off(self, _denial: Denial) -> None:
        """Never try again: the broker denies it."""
        self._is_off = True

    def take(self, _messages: list[BusMessage]) -> None:
        """A message of ours came back; the wire has counted it, which is all that matters."""

    def tick(self, wire: Wire) -> None:
        """Look whether anything arrived since the last look, and send the next message."""
        if self._is_off:
            return
        now = asyncio.get_running_loop().time()
        # on a fresh connection nothing was missed yet
        if wire is not self._wire:
            self._wire, self._seen, self._misses = wire, -1, 0
        elif now < self._due_mono:
            return
        # anything that arrives says as much as our own message would
        elif wire.messages_in == self._seen:
            self._misses += 1
            if self._misses >= _MAX_LOOPBACK_MISSES:
                wire.drop("the broker answers but delivers nothing")
                return
        else:
            self._misses = 0
        self._seen = wire.messages_in
        self._due_mono = now + _LOOPBACK_EVERY_S
        try:
            wire.publish([(self._subject, "", b"", b"")])
        except BusError:
            return
