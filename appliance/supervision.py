"""The boundary around long-lived tasks: what breaks one of them ends neither it for good nor the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

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
