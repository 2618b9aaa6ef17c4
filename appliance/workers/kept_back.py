"""Messages of senders that have their share here already and cannot be told to ask again later.

They wait as the bytes they came in, each sender's in order, not taken in and so not acknowledged: a sender that keeps a
window of unacknowledged messages stands still by that, and loses nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from appliance.bus.base import BusMessage


class KeptBack:
    """Owned by one subscriber, which bounds it."""

    def __init__(self) -> None:
        self._by_sender: dict[str, deque[BusMessage]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, sender: str) -> bool:
        return sender in self._by_sender

    def senders(self) -> Collection[str]:
        """Whose messages these are."""
        return self._by_sender.keys()

    def keep(self, sender: str, message: BusMessage) -> None:
        """Everything of a sender goes this way as long as anything of it does, or it would be overtaken."""
        self._by_sender.setdefault(sender, deque()).append(message)
        self._count += 1

    def take(self, may_go_on: Callable[[str], bool]) -> list[BusMessage]:
        """What the senders that have room again sent, in order; it is kept no longer."""
        found: list[BusMessage] = []
        for sender in [sender for sender in self._by_sender if may_go_on(sender)]:
            found += self._by_sender.pop(sender)
        self._count -= len(found)
        return found
