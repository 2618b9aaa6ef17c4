"""What of a stream comes few at a time while more of it is on the way, handed over together.

A broker that writes a batch through to its disk delivers it as it goes, one or two messages a read. Each list that is handed
over costs the daemon a write-through of its own, and of one disk the two would have each other wait.
"""

from __future__ import annotations

import asyncio

from appliance.bus.base import BusMessage, OnMessages

GATHER_S = 0.01
"""How long the first of them waits at most; what is stored costs about as much."""
ENOUGH = 256


class Gathering:
    """Of one intake. Hands over in the order in which they came."""

    def __init__(self, hand_over: OnMessages) -> None:
        self._hand_over = hand_over
        self._messages: list[BusMessage] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, messages: list[BusMessage], *, has_more: bool) -> None:
        """Of one read; `has_more` where the stream has more that is on its way to us."""
        if has_more and len(self._messages) + len(messages) < ENOUGH:
            self._messages += messages
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.end)
            return
        gathered, self._messages = self._messages, []
        self._stop_timer()
        self._hand_over(gathered + messages if gathered else messages)

    def end(self) -> None:
        """Hand over what is there."""
        self._stop_timer()
        gathered, self._messages = self._messages, []
        if gathered:
            self._hand_over(gathered)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
