"""Virtual time: an event loop that waits for nothing.

When no callback is ready, the loop's time jumps to the next timer, so that a day passes in milliseconds and every run
of one seed takes the same course. The loop knows no sockets, pipes, signals or threads: what needs the outside fails at
once instead of making a test slow or dependent on the machine.

    def test_something():
        async def scenario():
            await asyncio.sleep(86_400)

        run_virtual(scenario())

`run_virtual` fails the test when the scenario can never go on (nothing ready and no timer: `Deadlock`), spins without
time passing (`Livelock`), leaves tasks behind (`LeakedTasks`), or when anything reached the loop's exception handler
(`Unhandled`), which asyncio by itself only logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

START_STEADY_S = 1_000.0
"""What the steady clock shows at first: not zero, as no machine's does."""
START_WALL_S = 1_700_000_000.0
MAX_TURNS_AT_ONE_TIME = 200_000
"""Turns of the loop without time passing, beyond which it is taken to spin."""
MAX_VIRTUAL_S = 400 * 86_400.0
RESOLUTION_S = 1e-6
"""Timers that are no further apart fire together: sums of floats over days are not exact to the nanosecond."""


class Deadlock(AssertionError):
    """Nothing is ready, no timer is set, and the scenario is not at its end: it would wait for ever."""


class Livelock(AssertionError):
    """Callbacks keep coming and no time passes, or time passes without end."""


class LeakedTasks(AssertionError):
    """Tasks outlive the scenario that started them."""


class Unhandled(AssertionError):
    """Something reached the loop's exception handler."""


class _Handle(asyncio.Handle):
    """One of asyncio's, made without asking the loop whether it is debugged: a run of one seed makes a thousand."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _TimerHandle(_Handle, asyncio.TimerHandle):
    """The same of a timer. It is compared by its place in the heap, and never by itself."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualLoop,
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(callback, args, loop, context)
        self._when = when
        self._scheduled = False


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of one scenario; see the module. `time()` is the steady clock.

    Its turns are its own, for they are most of what a scenario costs: there are no sockets to ask, timers are compared as
    numbers, and those of one moment fire in the order in which they were set.
    """

    _scheduled: list[tuple[float, int, asyncio.TimerHandle]]

    def __init__(self) -> None:
        super().__init__()
        self._now = START_STEADY_S
        self._turns_at_this_time = 0
        self._timers_set = 0
        self._timers_called_off = 0
        self._ends_at = START_STEADY_S + MAX_VIRTUAL_S
        self.unhandled: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        """Steady seconds."""
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Move the clock on by so much, as somebody does who keeps everybody waiting."""
        self._go_on_to(self._now + seconds)

    def _go_on_to(self, now: float) -> None:
        self._turns_at_this_time = 0
        self._now = now
        if now > self._ends_at:
            raise Livelock(f"more than {MAX_VIRTUAL_S / 86_400:g} days have passed")

    def grant_more(self) -> None:
        """A run was ended for taking too long; what it left behind may still be ended in order."""
        self._turns_at_this_time = 0
        self._ends_at = self._now + MAX_VIRTUAL_S

    def call_soon(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """In the next turn."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        """There are no threads: the same as `call_soon`."""
        return self.call_soon(*args, **kwargs)

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """After so many seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """When the steady clock shows so much."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = _TimerHandle(when, callback, args, self, context)
        self._timers_set += 1
        heapq.heappush(self._scheduled, (when, self._timers_set, handle))
        return handle

    def run_in_executor(self, *_: Any, **__: Any) -> Any:
        """Real threads take real time. Raises RuntimeError."""
        raise RuntimeError("virtual time knows no threads")

    # NB: what `BaseEventLoop` leaves to its subclasses

    def _run_once(self) -> None:
        """One turn: what is ready, or the next timer, to which the clock moves on."""
        ready, timers = self._ready, self._scheduled
        if self._timers_called_off > 100 and self._timers_called_off > len(timers) // 2:
            timers[:] = [timer for timer in timers if not timer[2]._cancelled]
            heapq.heapify(timers)
            self._timers_called_off = 0
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
            self._timers_called_off -= 1
        if ready or self._stopping or (timers and timers[0][0] <= self._now):
            self._count_turn()
        elif timers:
            self._go_on_to(timers[0][0])
        else:
            raise Deadlock(f"nothing is ready and no timer is set\n{describe_tasks(self)}")
        due = self._now + RESOLUTION_S
        while timers and timers[0][0] < due:
            handle = heapq.heappop(timers)[2]
            if handle._cancelled:
                self._timers_called_off -= 1
            else:
                ready.append(handle)
        for _ in range(len(ready)):  # what these bring about is for the next turn
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _count_turn(self) -> None:
        self._turns_at_this_time += 1
        if self._turns_at_this_time > MAX_TURNS_AT_ONE_TIME:
            turns = f"{self._turns_at_this_time} turns without time passing"
            raise Livelock(f"{turns}\n{describe_tasks(self)}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._timers_called_off += 1

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""


class Clocks:
    """Wall and steady seconds of the running `VirtualLoop`. The wall clock can be set; the steady one only goes on."""

    def __init__(self, wall_at_start: float = START_WALL_S) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._loop = loop
        self._ahead_s = wall_at_start - loop.time()

    def steady(self) -> float:
        """As `time.monotonic`."""
        return self._loop.time()

    def wall(self) -> float:
        """As `time.time`."""
        return self._loop.time() + self._ahead_s

    def jump_wall(self, seconds: float) -> None:
        """Somebody, or NTP, sets the wall clock."""
        self._ahead_s += seconds


def run_virtual(scenario: Coroutine[Any, Any, T], *, seed: int | None = None) -> T:
    """Run a coroutine on a loop of its own in virtual time; its result.

    With `seed` the module `random` is seeded for the run, so that jitter is the same every time.

    Raises:
        Deadlock, Livelock, LeakedTasks, Unhandled: see the module. What the scenario raises comes first.
    """
    with contextlib.ExitStack() as stack:
        if seed is not None:
            stack.enter_context(_seeded(seed))
        loop = VirtualLoop()
        stack.callback(_close, loop)
        main = loop.create_task(scenario, name="scenario")
        result = loop.run_until_complete(main)
        left = _tasks_after_a_few_turns(loop)
        if left:
            raise LeakedTasks(f"{len(left)} tasks outlive the scenario\n{describe_tasks(loop)}")
        if loop.unhandled:
            first = loop.unhandled[0]
            error = first.get("exception")
            raise Unhandled(
                f"{len(loop.unhandled)} times, first: {first['message']}: {error!r}"
            ) from error
        return result


def describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """A line for each task: its name and where it waits."""
    lines = []
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
        frames = _frames(task.get_coro())
        where = " > ".join(f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in frames)
        lines.append(f"  {task.get_name()}: {where or 'not begun'}")
    return "\n".join(lines) or "  no task is left"


def _frames(coroutine: Any) -> list[Any]:
    """The frames of a waiting coroutine from the outside in."""
    frames = []
    while coroutine is not None and len(frames) < 20:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        frames.append(frame)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return frames


def _tasks_after_a_few_turns(loop: VirtualLoop) -> set[asyncio.Task[Any]]:
    """What is ending gets the turns that it needs to end; no time passes."""
    for _ in range(5):
        left = asyncio.all_tasks(loop)
        if not left:
            break
        loop.run_until_complete(asyncio.sleep(0))
    return asyncio.all_tasks(loop)


def _close(loop: VirtualLoop) -> None:
    """End whatever is left, so that one failed scenario says nothing in the next one's time."""
    loop.unhandled = []
    loop.grant_more()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        with contextlib.suppress(Exception):
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    with contextlib.suppress(Exception):
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


Clock = Callable[[], float]
