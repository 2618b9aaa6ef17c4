"""Awaits a coroutine for a bounded time, at no cost for one that never waits.

Most handlers end without waiting once; a timer armed and disarmed for each was a third of the time in which they are
called.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from appliance.running_time import running_timeout

T = TypeVar("T")


async def within(
    work: Coroutine[Any, Any, T],
    limit_s: float | None,
) -> T:
    """The coroutine's result; `limit_s` None is no limit.

    Raises:
        TimeoutError: it waited beyond the limit, and was cancelled.

    Cancellation: goes to the coroutine.
    """
    try:
        waits_for = work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    return await rest_within(work, waits_for, limit_s)


async def rest_within(work: Coroutine[Any, Any, T], waits_for: Any, limit_s: float | None) -> T:
    """`within` for a coroutine that has begun already and now waits for what its last step gave.

    Raises:
        TimeoutError: it waited beyond the limit, and was cancelled.

    Cancellation: goes to the coroutine.
    """
    async with running_timeout(limit_s):
        return await _Rest(work, waits_for)


class _Rest(Generic[T]):
    """The part of a begun coroutine from its first wait on. (`await` itself takes only those that have not begun.)"""

    def __init__(self, work: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, T]:
        work, waits_for = self._work, self._waits_for
        while True:
            try:
                answer = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - all of them are the coroutine's, cancellation first
                thrown: BaseException | None = error
            else:
                thrown = None
            try:
                waits_for = work.send(answer) if thrown is None else work.throw(thrown)
            except StopIteration as ended:
                result: T = ended.value
                return result
