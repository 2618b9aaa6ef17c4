"""The pieces of one answer are told to whoever waits in the order in which they came, however long each is handled.

Handlers run side by side, and the piece that ends an answer is mostly empty and needs none: without this the end
would be told before what it is the end of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from appliance.workers.incoming import Incoming

_StreamKey = tuple[str, str]


class Turns:
    """Belongs to one subscriber; holds no more than what that has in hand."""

    def __init__(self, tell: Callable[[Incoming], None]) -> None:
        self._tell = tell
        self._streams: dict[_StreamKey, deque[Incoming]] = {}
        self._said: set[Incoming] = set()
        self._ended: set[Incoming] = set()

    def enter(self, work: Incoming) -> None:
        """`work` was taken; what comes of it is told after what came before it."""
        key = _stream_of(work)
        if key is not None:
            self._streams.setdefault(key, deque()).append(work)

    def say(self, work: Incoming) -> None:
        """`work` is handled and to be told: at once, or when its turn has come."""
        if _stream_of(work) is None:
            self._tell(work)
        else:
            self._said.add(work)

    def leave(self, work: Incoming) -> None:
        """The handling of `work` has ended, told or not."""
        key = _stream_of(work)
        if key is None:
            return
        self._ended.add(work)
        waiting = self._streams[key]
        while waiting and waiting[0] in self._ended:
            first = waiting.popleft()
            self._ended.discard(first)
            if first in self._said:
                self._said.discard(first)
                self._tell(first)
        if not waiting:
            del self._streams[key]


def _stream_of(work: Incoming) -> _StreamKey | None:
    return (work.sender, work.stream) if work.stream else None
