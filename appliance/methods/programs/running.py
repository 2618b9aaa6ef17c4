"""Which programs run for whom, so that whoever started one can see it and have it ended.

A program is known by its message: who sent it (node and store) and its id there. Only that sender can name it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from appliance.errors import HandlerError

T = TypeVar("T")

MAX_CALLED_OFF = 10_000
"""Messages that were called off before they began, remembered in case they still come."""
MAX_SHOWN_CHARACTERS = 500
CALLED_OFF = "cancelled before it began"


class ProgramKey(NamedTuple):
    """The message that a program was started for."""

    from_node: str
    instance: str
    """The sender's store; "" for a Go node."""
    message_id: int


NO_PROGRAM = ProgramKey("", "", 0)


@dataclass(slots=True, eq=False)
class Leash:
    """By which a program is held that may be told to end."""

    key: ProgramKey
    node: str
    method: str
    program: str
    job: str
    since_mono: float
    pid: int | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def holds_until(self, ended: asyncio.Event) -> bool:
        """Wait for the end of the program; False when it is told to end before."""
        waits = [asyncio.ensure_future(event.wait()) for event in (ended, self.asked)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return ended.is_set()

    async def race(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of the work; None when the program is told to end before: then it was cancelled.

        Cancellation: goes to the work.
        """
        running = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self.asked.wait())
        try:
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if not running.done():
                running.cancel()
                await asyncio.wait({running})
        return None if running.cancelled() else running.result()


class RunningPrograms:
    """All of a daemon."""

    def __init__(
        self, mono: Callable[[], float] = time.monotonic, hide: Callable[[str], str] = str
    ) -> None:
        """`hide` takes out of arguments what nobody may see: those of the config's own programs may hold it."""
        self._mono = mono
        self._hide = hide
        self._running: dict[ProgramKey, Leash] = {}
        self._called_off: OrderedDict[ProgramKey, None] = OrderedDict()

    @contextlib.contextmanager
    def entered(
        self, key: ProgramKey, *, node: str, method: str, arguments: Sequence[str], job: str
    ) -> Iterator[Leash]:
        """A program runs while the block does.

        Raises:
            HandlerError: it was called off before it began.
        """
        if self._called_off.pop(key, 0) is None:
            raise HandlerError(CALLED_OFF)
        program = self._hide(" ".join(arguments))[:MAX_SHOWN_CHARACTERS]
        leash = Leash(key, node, method, program, job, self._mono())
        self._running[key] = leash
        try:
            yield leash
        finally:
            if self._running.get(key) is leash:
                del self._running[key]

    def end(self, key: ProgramKey) -> Leash | None:
        """Have a program end; None where it does not run: then it will not begin, either."""
        leash = self._running.get(key)
        if leash is not None:
            leash.asked.set()
            return leash
        self._called_off[key] = None
        if len(self._called_off) > MAX_CALLED_OFF:
            self._called_off.popitem(last=False)
        return None

    def let_begin(self, key: ProgramKey) -> None:
        """Forget that it was called off: it has ended, and what comes with its id from now on is a new attempt."""
        self._called_off.pop(key, None)

    def of_node(self, node: str) -> list[tuple[Leash, float]]:
        """What runs on a node, and for how many seconds, the oldest first."""
        now = self._mono()
        return [
            (leash, max(0.0, now - leash.since_mono))
            for leash in self._running.values()
            if leash.node == node
        ]
