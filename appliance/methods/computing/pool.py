"""The processes that compute: as many as the config says, each with one order at a time, started again when one dies.

Orders wait in one queue for whoever is free. A process that dies takes its order with it, and only that: whoever gave it
hears how it ended and judges what that means for the message. It is started again after pauses that grow until one
has finished something; meanwhile orders go to the others, or wait.

They are there while anybody may need them: from the set that has a method which computes until the one that has none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from appliance.methods.computing.process import ProcessEnded
from appliance.running_time import running_timeout

AGAIN_FIRST_S, AGAIN_MAX_S = 0.1, 30.0
"""The pause before a process that died is started once more, doubled for each that finished nothing since."""


class Process(Protocol):
    """One that is up; see `process.HandlerProcess`."""

    ended: asyncio.Event

    @property
    def pid(self) -> int: ...

    async def ask(self, order: bytes) -> bytes: ...

    def kill(self) -> None: ...

    async def end(self) -> None: ...

    def describe_end(self) -> str: ...


class ProcessPhase(StrEnum):
    """What a process is at."""

    STARTING = "starting"
    IDLE = "idle"
    WORKING = "working"
    BACKING_OFF = "backing_off"
    """It died, and is started again later."""


class ProcessView(NamedTuple):
    """One process, as it is shown. `doing` names the subscription and the message that it works on."""

    number: int
    phase: ProcessPhase
    pid: int | None
    restarts: int
    handled: int
    doing: str
    busy_s: float
    """Since when it does that."""
    trouble: str
    """How it ended the last time, until it has finished something again."""


class Told(Protocol):
    """Who hears of what happens to processes."""

    def process_died(self, number: int, pid: int | None, reason: str, doing: str) -> None:
        """One ended, or could not be started, and is started again."""
        ...

    def process_restarted(self, number: int, pid: int) -> None:
        """One that had died is up again."""
        ...


@dataclass(slots=True, eq=False)
class _Order:
    raw: bytes
    limit_s: float
    doing: str
    done: asyncio.Future[bytes]
    slot: _Slot | None = None


@dataclass(slots=True, eq=False)
class _Slot:
    """The place of a process, and of those that come after it."""

    number: int
    process: Process | None = None
    phase: ProcessPhase = ProcessPhase.STARTING
    order: _Order | None = None
    since_mono: float = 0.0
    restarts: int = 0
    handled: int = 0
    deaths: int = 0
    """Since it has finished something."""
    trouble: str = ""
    is_stopped: bool = False
    """Whether we ended it ourselves: that is no trouble of its own."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def is_free(self) -> bool:
        """Whether its process waits for an order."""
        return (
            self.phase is ProcessPhase.IDLE
            and self.order is None
            and self.process is not None
            and not self.process.ended.is_set()
        )


class ProcessPool:
    """Life: made by the daemon; `resize` with every set; `close` when no handler runs any more."""

    def __init__(self, start: Callable[[], Awaitable[Process]], told: Told) -> None:
        self._start = start
        self._told = told
        self._size = 1
        self._kept = 0
        self._slots: list[_Slot] = []
        self._waiting: deque[_Order] = deque()
        self._is_closed = False
        self.restarts_of_gone = 0
        """Of places that there are no more: a counter must never fall."""

    # -- what is asked ----------------------------------------------------------------------------

    async def compute(self, raw: bytes, limit_s: float, doing: str) -> bytes:
        """Have a process work on an order, for at most `limit_s` from when it begins; its outcome, as it came.

        Raises:
            TimeoutError: it took longer, and the process was killed.
            ProcessEnded: the process ended.

        Cancellation: kills the process, if one has begun.
        """
        order = _Order(raw, limit_s, doing, asyncio.get_running_loop().create_future())
        self._waiting.append(order)
        self._settle()
        try:
            return await order.done
        except asyncio.CancelledError:
            slot = order.slot
            if slot is None:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(order)
                self._settle()
            elif (
                slot.order is order
            ):  # it may have ended meanwhile, and the process be at the next one
                self._stop(slot)
            raise

    def resize(self, size: int, *, is_wanted: bool) -> None:
        """From now on so many at once, and where they are wanted all of them before the first order comes.

        Those beyond it end when they have done what they have in hand.
        """
        self._size = size
        self._kept = size if is_wanted else 0
        self._settle()

    def views(self) -> list[ProcessView]:
        """Every process that there is or should be."""
        now = asyncio.get_running_loop().time()
        return [
            ProcessView(
                number=slot.number,
                phase=slot.phase,
                pid=slot.process.pid if slot.process is not None else None,
                restarts=slot.restarts,
                handled=slot.handled,
                doing=slot.order.doing if slot.order is not None else "",
                busy_s=now - slot.since_mono if slot.order is not None else 0.0,
                trouble=slot.trouble,
            )
            for slot in self._slots
        ]

    @property
    def waiting(self) -> int:
        """Orders that no process has begun."""
        return len(self._waiting)

    @property
    def restarts(self) -> int:
        """How often a process that died was started again; never falls."""
        return self.restarts_of_gone + sum(slot.restarts for slot in self._slots)

    async def close(self) -> None:
        """Kill what still runs; nobody waits for it any more."""
        self._is_closed = True
        tasks = [slot.task for slot in self._slots if slot.task is not None]
        for slot in self._slots:
            self._stop(slot)
            slot.wake.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for order in self._waiting:
            order.done.cancel()

    # -- slots ------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Hand out what waits, make places that are missing, have those leave that are too many."""
        if self._is_closed:
            return
        self._hand_out()
        wanted = self._wanted
        taken = {slot.number for slot in self._slots}
        while len(self._slots) < wanted:
            number = next(number for number in range(1, wanted + 1) if number not in taken)
            taken.add(number)
            slot = _Slot(number)
            self._slots.append(slot)
            self._slots.sort(key=lambda one: one.number)
            slot.task = asyncio.get_running_loop().create_task(
                self._keep(slot), name=f"handler process {number}"
            )
        if len(self._slots) > wanted:
            for slot in reversed(self._slots):
                slot.wake.set()

    def _hand_out(self) -> None:
        for slot in self._slots:
            # NB: fewer may be wanted by now than there are
            if self._waiting and self._busy < self._size and slot.is_free:
                self._give(slot)

    @property
    def _wanted(self) -> int:
        """How many places there should be now."""
        return min(self._size, max(self._kept, self._busy + len(self._waiting)))

    @property
    def _busy(self) -> int:
        return sum(1 for slot in self._slots if slot.order is not None)

    def _give(self, slot: _Slot) -> None:
        order = self._waiting.popleft()
        order.slot, slot.order = slot, order
        slot.phase = ProcessPhase.WORKING
        slot.since_mono = asyncio.get_running_loop().time()
        slot.wake.set()

    def _is_too_many(self, slot: _Slot) -> bool:
        """Whether it may go. Who asks goes at once, so that no two go for one that is too many."""
        return slot.order is None and len(self._slots) > self._wanted

    def _stop(self, slot: _Slot) -> None:
        slot.is_stopped = True
        if slot.process is not None:
            slot.process.kill()

    async def _keep(self, slot: _Slot) -> None:
        """Keep one place filled until it is one too many."""
        try:
            while not self._is_too_many(slot):
                if await self._bring_up(slot):
                    await self._serve(slot)
        finally:
            self._slots.remove(slot)
            self.restarts_of_gone += slot.restarts
            if slot.process is not None:
                process, slot.process = slot.process, None
                await process.end()
            self._settle()

    async def _bring_up(self, slot: _Slot) -> bool:
        """Start a process; False when that failed, or the place is no longer needed."""
        if slot.deaths:
            slot.phase = ProcessPhase.BACKING_OFF
            pause_s = min(AGAIN_FIRST_S * 2.0 ** min(slot.deaths - 1, 16), AGAIN_MAX_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    while not self._is_too_many(slot):
                        slot.wake.clear()
                        await slot.wake.wait()
                    return False
        slot.phase, slot.is_stopped = ProcessPhase.STARTING, False
        try:
            slot.process = await self._start()
        except (OSError, ProcessEnded) as error:
            self._died(slot, None, f"cannot be started: {error}", "")
            return False
        if slot.deaths or slot.restarts:
            self._told.process_restarted(slot.number, slot.process.pid)
        slot.phase = ProcessPhase.IDLE
        return True

    async def _serve(self, slot: _Slot) -> None:
        """Work on orders until the process ends or is one too many."""
        process = slot.process
        assert process is not None
        watch = asyncio.get_running_loop().create_task(process.ended.wait())
        watch.add_done_callback(lambda _: slot.wake.set())
        doing = ""
        try:
            while not process.ended.is_set():
                slot.wake.clear()
                self._hand_out()
                if slot.order is None:
                    if self._is_too_many(slot):
                        return
                    await slot.wake.wait()
                    continue
                doing = slot.order.doing
                if await self._work(slot, process, slot.order):
                    doing = ""  # it is not to blame for what comes after its outcome
        finally:
            watch.cancel()
        await process.end()
        slot.process = None
        slot.restarts += 1
        if slot.is_stopped:
            slot.deaths = 0
        else:
            self._died(slot, process.pid, process.describe_end(), doing)

    async def _work(self, slot: _Slot, process: Process, order: _Order) -> bool:
        """Give an order to the process, and its outcome to whoever waits; whether there was one."""
        try:
            async with running_timeout(order.limit_s):
                outcome = await process.ask(order.raw)
        except TimeoutError:
            self._stop(slot)
            self._tell(order, TimeoutError())
            await process.ended.wait()
        except ProcessEnded as ended:
            self._tell(order, ended)
            await process.ended.wait()
        else:
            slot.handled += 1
            slot.deaths, slot.trouble = 0, ""
            if not order.done.done():
                order.done.set_result(outcome)
            slot.phase = ProcessPhase.IDLE
            return True
        finally:
            slot.order = None
            order.done.cancel()  # where the pool is closed: nobody will tell
        return False

    def _tell(self, order: _Order, error: Exception) -> None:
        if not order.done.done():
            order.done.set_exception(error)

    def _died(self, slot: _Slot, pid: int | None, reason: str, doing: str) -> None:
        slot.deaths += 1
        slot.trouble = reason
        self._told.process_died(slot.number, pid, reason, doing)
