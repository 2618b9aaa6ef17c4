"""The boundary around long-lived tasks and threads: what breaks a task ends neither it for good nor the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")

AGAIN_FIRST_S, AGAIN_MAX_S = 0.5, 30.0


async def keep_running(
    name: str, run: Callable[[], Awaitable[None]], on_trouble: Callable[[str], None]
) -> None:
    """Run a task that is to last, and run it again, after a while, when it breaks; ends when it ends by itself.

    Args:
        on_trouble: told what broke it, with the name.
    """
    wait_s = AGAIN_FIRST_S
    loop = asyncio.get_running_loop()
    while True:
        began_mono = loop.time()
        try:
            await run()
        except Exception as error:  # noqa: BLE001 - the boundary; NB: a library's task group wraps what really happened
            on_trouble(f"{name} broke, and begins anew: {_say(error)}")
        else:
            return
        # it has run well for a while: this break is not one of a row
        if loop.time() - began_mono > AGAIN_MAX_S:
            wait_s = AGAIN_FIRST_S
        await asyncio.sleep(wait_s)
        wait_s = min(AGAIN_MAX_S, wait_s * 2)


def _say(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def run_in_pool(pool: Executor, function: Callable[..., T], *args: object) -> T:
    """Run a function in a thread of the pool.

    Cancellation: a thread outlives its task, so whoever is cancelled waits for it to end: it may use descriptors that are
    closed next, or hold a lock.
    """
    future = asyncio.get_running_loop().run_in_executor(pool, function, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        if not future.cancelled():
            future.exception()
        raise
