"""Hints that something in one folder may have changed. Never the truth: its user looks anyway, by and by."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import watchfiles

_log = logging.getLogger(__name__)

_STEP_MS = 20
_DEBOUNCE_MS = 100
_REARM_MS = 60_000
"""A folder that was deleted and made again silences its watch; this ends the silence."""
_RETRY_S = 2.0


async def watch_folder(path: str, *, on_hint: Callable[[], None], stop: asyncio.Event) -> None:
    """Call `on_hint` soon after an entry of the folder changed, until `stop` is set.

    Cancellation: the watch ends; a thread of the library ends within some 20 ms.
    """
    while not stop.is_set():
        try:
            await _watch_for_a_while(path, on_hint, stop)
        except Exception as error:  # noqa: BLE001 - the boundary around a library whose own errors come in groups
            # a limit of the system, a folder that is gone, a name that is no UTF-8; its user looks anyway
            _log.debug("watching %s: %s", path, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_S):
                    await stop.wait()


async def _watch_for_a_while(path: str, on_hint: Callable[[], None], stop: asyncio.Event) -> None:
    async for changes in watchfiles.awatch(
        path,
        watch_filter=None,
        debounce=_DEBOUNCE_MS,
        step=_STEP_MS,
        stop_event=stop,
        rust_timeout=_REARM_MS,
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
    ):
        if not changes:
            return
        on_hint()
