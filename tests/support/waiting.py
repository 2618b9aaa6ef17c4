"""The only place where tests let time pass: all else waits for what it is about.

`until` and `until_async` are for what gives no event: files, processes, sockets and counters of others. They look again
at intervals that grow with the wait, for to look costs what is waited for its processor; they fail loudly when what must
come does not. Their bound is generous, since a slow machine is no defect.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_EVERY_S = 0.005
LOOK_AT_LEAST_EVERY_S = 0.1
LATE_SHARE = 0.1
"""A wait may last so much longer than what it waits for."""
LONG_S = 120.0
"""Far above what anything takes here: who waits so long waits for what does not come."""


def _pause_s(every_s: float, waited_s: float) -> float:
    return max(every_s, min(waited_s * LATE_SHARE, LOOK_AT_LEAST_EVERY_S))


def until(
    condition: Callable[[], T],
    *,
    timeout_s: float = LONG_S,
    every_s: float = LOOK_EVERY_S,
    tell: Callable[[], object] = lambda: "what was waited for did not come",
) -> T:
    """What `condition` gives once that is true of it; `tell` says what is there instead when it never is."""
    began_mono = time.monotonic()
    while not (found := condition()):
        waited_s = time.monotonic() - began_mono
        if waited_s > timeout_s:
            raise AssertionError(f"not in {timeout_s:g} s: {tell()}")
        time.sleep(_pause_s(every_s, waited_s))
    return found


async def until_async(
    condition: Callable[[], T],
    *,
    timeout_s: float = LONG_S,
    every_s: float = LOOK_EVERY_S,
    tell: Callable[[], object] = lambda: "what was waited for did not come",
) -> T:
    """As `until`, while the event loop goes on."""
    began_mono = time.monotonic()
    while not (found := condition()):
        waited_s = time.monotonic() - began_mono
        if waited_s > timeout_s:
            raise AssertionError(f"not in {timeout_s:g} s: {tell()}")
        await asyncio.sleep(_pause_s(every_s, waited_s))
    return found


async def until_taken(
    attempt: Callable[[], Awaitable[T]], refusal: type[Exception], *, timeout_s: float = LONG_S
) -> T:
    """What an attempt gives, once it does not end with this refusal any more."""
    deadline_mono = time.monotonic() + timeout_s
    while True:
        try:
            return await attempt()
        except refusal:
            if time.monotonic() > deadline_mono:
                raise
            await asyncio.sleep(LOOK_EVERY_S)


async def turns(count: int = 1) -> None:
    """Let everything that can run in the loop do so, so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


def pace(due_mono: float) -> None:
    """For whoever makes load at a rate: on to the moment when the next is due."""
    time.sleep(max(0.0, due_mono - time.monotonic()))


async def pace_async(due_mono: float) -> None:
    """As `pace`, while the event loop goes on."""
    await asyncio.sleep(max(0.0, due_mono - time.monotonic()))


def at_a_random_moment(rng: random.Random, low_s: float, high_s: float) -> None:
    """For whoever kills at random instants: nothing is waited for, any moment of these must do."""
    time.sleep(rng.uniform(low_s, high_s))


async def until_still(value: Callable[[], object], *, for_s: float) -> None:
    """Until a value does not change for a while: for what may come once more, where it is no failure when it does later."""
    last, since_mono = value(), time.monotonic()
    deadline_mono = since_mono + LONG_S
    while (now_mono := time.monotonic()) < since_mono + for_s:
        assert now_mono < deadline_mono, f"it never stood still: {last}"
        await asyncio.sleep(LOOK_EVERY_S)
        if (found := value()) != last:
            last, since_mono = found, time.monotonic()
