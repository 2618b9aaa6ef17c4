"""The hub of events: facts as dictionaries, kept in a ring and handed to whoever listens.

Everything happens on the event loop. A listener that does not keep up loses the newest events and
learns how many; it never slows down the one who tells. Frequent facts (one per message) go to
listeners only: in the ring they would push out everything an operator wants to read there.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from appliance.core.hidden import Hiding
from appliance.core.times import rfc3339

Event = dict[str, object]
EventFilter = Callable[[Event], bool]

RING_SIZE = 1_000
LISTENER_QUEUE = 10_000
"""Events that may wait for one slow listener."""
LISTENER_CHARACTERS = 64 * 1024 * 1024
"""Contents of messages that may wait with them: pieces of answers are far larger than other facts."""


def time_of_event(at: float) -> str:
    """Wall-clock seconds as events show them: UTC is a Z."""
    return rfc3339(at).replace("+00:00", "Z")


class Listener:
    """One who listens: an asynchronous iterator over events, ended by `close`."""

    def __init__(self, wants: EventFilter | None, limit: int) -> None:
        self._wants = wants
        self._limit = limit
        self._waiting: deque[Event] = deque()
        self._waiting_characters = 0
        self._wake = asyncio.Event()
        self.is_closed = False
        self.dropped = 0
        """Events lost because this listener was too slow."""

    def offer(self, event: Event) -> bool:
        """Take an event if it is wanted; False when it had to be dropped."""
        if self.is_closed or (self._wants is not None and not self._wants(event)):
            return True
        if len(self._waiting) >= self._limit or self._waiting_characters > LISTENER_CHARACTERS:
            self.dropped += 1
            return False
        self._waiting.append(event)
        self._waiting_characters += _content_size(event)
        self._wake.set()
        return True

    def close(self) -> None:
        """End the iteration, after what already waits."""
        self.is_closed = True
        self._wake.set()

    async def next(self, timeout_s: float | None = None) -> Event | None:
        """The next event; None when the time is over or the listener was closed.

        Cancellation: no event is lost.
        """
        while not self._waiting:
            if self.is_closed:
                return None
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return None
        return self._take()

    def take_waiting(self) -> Iterator[Event]:
        """The events that are there already, and none that comes while they are looked at."""
        for _ in range(len(self._waiting)):
            yield self._take()

    def _take(self) -> Event:
        event = self._waiting.popleft()
        self._waiting_characters -= _content_size(event)
        return event

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.next()) is not None:
            yield event


def _content_size(event: Event) -> int:
    data = event.get("data")
    return len(data) if isinstance(data, str) else 0


class EventHub:
    """Owns the ring and the listeners."""

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        ring_size: int = RING_SIZE,
        hiding: Hiding | None = None,
    ) -> None:
        self._hiding = hiding or Hiding()
        self._wall = wall
        self._ring: deque[Event] = deque(maxlen=ring_size)
        self._listeners: list[Listener] = []
        self._sequence = 0
        self.dropped = 0
        """Events that slow listeners lost, all together."""

    @property
    def has_listeners(self) -> bool:
        """Whether anybody listens now; who tells a frequent fact asks first."""
        return bool(self._listeners)

    def emit(self, kind: str, /, **fields: object) -> None:
        """Tell a fact. Field values must be what JSON can hold."""
        event = self._make(kind, fields)
        self._ring.append(event)
        self._hand_out(event)

    def emit_frequent(self, kind: str, /, **fields: object) -> None:
        """Tell a fact that happens with every message: for listeners only."""
        if self._listeners:
            self._hand_out(self._make(kind, fields))

    def recent(self, *, after: int = 0, limit: int = RING_SIZE) -> list[Event]:
        """The last events, oldest first; only those with a sequence number above `after`."""
        found = [event for event in self._ring if self._number(event) > after]
        return found[-limit:] if limit > 0 else []

    @contextmanager
    def listen(
        self, wants: EventFilter | None = None, *, limit: int = LISTENER_QUEUE
    ) -> Iterator[Listener]:
        """Listen from now on until the block ends."""
        listener = Listener(wants, limit)
        self._listeners = [*self._listeners, listener]
        try:
            yield listener
        finally:
            listener.close()
            self._listeners = [other for other in self._listeners if other is not listener]

    def close_listeners(self) -> None:
        """End every iteration that is under way: nothing more will be told."""
        for listener in self._listeners:
            listener.close()

    def _make(self, kind: str, fields: dict[str, object]) -> Event:
        self._sequence += 1
        told = self._hiding.fields(fields)
        return {"seq": self._sequence, "at": time_of_event(self._wall()), "event": kind, **told}

    def _hand_out(self, event: Event) -> None:
        for listener in self._listeners:
            if not listener.offer(event):
                self.dropped += 1

    @staticmethod
    def _number(event: Event) -> int:
        number = event["seq"]
        return number if isinstance(number, int) else 0
