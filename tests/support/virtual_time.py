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


class Deadlock(AssertionError):
    """Nothing is ready, no timer is set, and the scenario is not at its end: it would wait for ever."""


class Livelock(AssertionError):
    """Callbacks keep coming and no time passes, or time passes without end."""


class LeakedTasks(AssertionError):
    """Tasks outlive the scenario that started them."""


class Unhandled(AssertionError):
    """Something reached the loop's exception handler."""


class _NoSelector:
    """Stands where a selector would: moves the time instead of waiting for sockets."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.turns_at_this_time = 0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock(f"nothing is ready and no timer is set\n{describe_tasks(self._loop)}")
        if timeout <= 0:
            self.turns_at_this_time += 1
            if self.turns_at_this_time > MAX_TURNS_AT_ONE_TIME:
                turns = f"{self.turns_at_this_time} turns without time passing"
                raise Livelock(f"{turns}\n{describe_tasks(self._loop)}")
            return []
        self.turns_at_this_time = 0
        self._loop.pass_time(timeout)
        return []

    def close(self) -> None: ...


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of one scenario; see the module. `time()` is the steady clock."""

    def __init__(self) -> None:
        super().__init__()
        self._now = START_STEADY_S
        self._selector = self._timer = _NoSelector(self)
        self._clock_resolution = 1e-6  # sums of floats over days are not exact to the nanosecond
        self._ends_at = START_STEADY_S + MAX_VIRTUAL_S
        self.unhandled: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        """Steady seconds."""
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Move the clock; called when there is nothing to do until then."""
        self._now += seconds
        if self._now > self._ends_at:
            raise Livelock(f"more than {MAX_VIRTUAL_S / 86_400:g} days have passed")

    def grant_more(self) -> None:
        """A run was ended for taking too long; what it left behind may still be ended in order."""
        self._timer.turns_at_this_time = 0
        self._ends_at = self._now + MAX_VIRTUAL_S

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:
        """There are no threads: the same as `call_soon`."""
        return self.call_soon(*args, **kwargs)

    def run_in_executor(self, *_: Any, **__: Any) -> Any:
        """Real threads take real time. Raises RuntimeError."""
        raise RuntimeError("virtual time knows no threads")

    # NB: what `BaseEventLoop` leaves to its subclasses
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
