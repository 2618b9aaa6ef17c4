"""The pool: owns every running worker, applies plans, observes.

One handle per key. A worker runs in a guard that turns whatever ends it into "this worker ended, because"; it then
backs off and the next pass spawns it again. Workers never see the pool.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from appliance.core.hidden import Hiding
from appliance.core.names import WorkerKey
from appliance.core.plan import Action, ActionKind, Plan
from appliance.core.retry import backoff_s
from appliance.core.specs import DOWN, ObservedState, ObservedWorker, Phase, WorkerSpec
from appliance.errors import ApplianceError, BusUnavailable
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import DrainReport, WorkerStats

MAX_RESTART_BACKOFF_S = 30.0
START_TIMEOUT_S = 10.0
JOIN_TIMEOUT_S = 5.0
STABLE_AFTER_S = 60.0
"""A worker that ran this long is forgiven its earlier failures."""
RECOVERED_AFTER_S = 3.0
"""One that failed and runs again is told of as recovered after this long: what failed before is tried by then."""


class PoolWorker(Protocol):
    """One supervised loop. The pool calls `start`, then `run` in a task, and at the end `drain`, then `close`."""

    stats: WorkerStats

    @property
    def trouble(self) -> str | None:
        """What keeps it from doing all of its work although it runs; None where nothing does."""
        ...

    async def start(self) -> None:
        """Get ready: when this returns the worker takes messages. Raises what keeps it from starting."""
        ...

    async def run(self) -> None:
        """Work until drained. Raising means the worker failed and is to be restarted."""
        ...

    def update(self, spec: WorkerSpec) -> None:
        """Take over fields of class `live`."""
        ...

    async def swap(self, spec: WorkerSpec) -> None:
        """Build what `spec` needs, then put it behind the running subscription or lane in one step."""
        ...

    async def drain(self, deadline_mono: float) -> DrainReport:
        """Stop intake, finish what is in hand until the deadline, give the rest back."""
        ...

    async def close(self) -> None:
        """Release everything, whatever state it is in."""
        ...


Kind = TypeVar("Kind")


@dataclass(slots=True)
class Handle:
    """Everything the pool knows of one worker."""

    spec: WorkerSpec
    worker: PoolWorker | None = None
    task: asyncio.Task[None] | None = None
    phase: Phase = Phase.STARTING
    since_at: float = 0.0
    since_mono: float = 0.0
    restarts: int = 0
    failures: int = 0
    retry_at_mono: float | None = None
    last_error: str | None = None
    probation: asyncio.TimerHandle | None = None
    """Runs while a worker that failed before has yet to show that it lasts."""

    @property
    def is_down(self) -> bool:
        """Whether it does not run and should. One that has failed stays so while it is tried again."""
        is_tried_again = self.phase is Phase.STARTING and self.last_error is not None
        return self.phase in DOWN or is_tried_again


@dataclass(slots=True)
class ApplyReport:
    """What applying a plan did."""

    drains: list[DrainReport] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class WorkerPool:
    """Applies plans. The tasks of the workers, each in a `_guard`, are owned here and joined before they are forgotten."""

    def __init__(
        self,
        build_worker: Callable[[WorkerSpec], PoolWorker],
        telemetry: Telemetry,
        *,
        wall: Callable[[], float],
        on_ended: Callable[[], None],
        hiding: Hiding | None = None,
    ) -> None:
        self._hiding = hiding or Hiding()
        self._build = build_worker
        self._telemetry = telemetry
        self._wall = wall
        self._mono = asyncio.get_running_loop().time
        self._on_ended = on_ended
        self.handles: dict[WorkerKey, Handle] = {}
        self.gone = WorkerStats()
        """What workers that are no more have counted."""
        self.moves = 0
        """How many workers have come and gone."""

    def observe(self) -> ObservedState:
        """What runs now, as values."""
        return {
            key: ObservedWorker(
                spec=handle.spec,
                phase=handle.phase,
                retry_at_mono=handle.retry_at_mono,
                restarts=handle.restarts,
                last_error=handle.last_error,
            )
            for key, handle in self.handles.items()
        }

    def each(self, kind: type[Kind]) -> Iterator[Kind]:
        """The workers of a class, running or not."""
        for handle in self.handles.values():
            if isinstance(handle.worker, kind):
                yield handle.worker

    async def apply(self, plan: Plan, drain_timeout_s: float) -> ApplyReport:
        """Do every action; one worker's failure is that worker's alone."""
        report = ApplyReport()
        deadline_mono = self._mono() + drain_timeout_s
        # side by side: each has a key of its own, and one drain may take all of the time
        async with asyncio.TaskGroup() as group:
            for action in plan.actions:
                group.create_task(
                    self._act(action, deadline_mono, report),
                    name=f"{action.kind} {action.key.name}",
                )
        return report

    def retry_now(self) -> None:
        """Let every worker that backs off try again in the next pass (the broker is back, say)."""
        for handle in self.handles.values():
            if handle.phase is Phase.BACKING_OFF:
                # made due only, for all spawning is done by passes, one at a time
                handle.retry_at_mono = self._mono()

    async def stop_all(self, deadline_mono: float, kinds: Iterable[str]) -> list[DrainReport]:
        """Drain and join every worker of the given kinds, all at once, within one deadline."""
        report = ApplyReport()
        wanted = set(kinds)
        async with asyncio.TaskGroup() as group:
            for key in list(self.handles):
                if key.kind in wanted:
                    group.create_task(self._cancel(key, deadline_mono, report))
        return report.drains

    async def _act(self, action: Action, deadline_mono: float, report: ApplyReport) -> None:
        if action.kind is ActionKind.CANCEL:
            await self._cancel(action.key, deadline_mono, report)
            return
        assert action.spec is not None
        if action.kind is ActionKind.SPAWN:
            await self._spawn(action.key, action.spec, report)
            return
        handle = self.handles.get(action.key)
        if handle is None or handle.worker is None:
            return  # it ended between plan and act; the next pass spawns it with its new spec
        if action.needs_new_worker:
            await self._cancel(action.key, deadline_mono, report)
            # one that does not end keeps its key, and nobody takes its place
            if action.key not in self.handles:
                await self._spawn(action.key, action.spec, report)
            return
        names = sorted(action.changed)
        is_update = action.kind is ActionKind.UPDATE
        try:
            if is_update:
                handle.worker.update(action.spec)
            else:
                await handle.worker.swap(action.spec)
        except Exception as error:  # noqa: BLE001 - the boundary around a worker
            report.failed[action.key.name] = handle.last_error = self._words(error)
            self._telemetry.worker_failed(action.key, handle.last_error, 0.0)
            return
        # not before: what raised shows as a difference in the next pass
        handle.spec = action.spec
        if handle.probation is None:
            handle.last_error = None  # of a change that failed before this one did not
        tell = self._telemetry.worker_updated if is_update else self._telemetry.worker_swapped
        tell(action.key, names)

    def clock_jumped(self, by_s: float) -> None:
        """The wall clock was set: since when workers are what they are moves with it, as it is shown."""
        for handle in self.handles.values():
            handle.since_at += by_s

    async def _spawn(self, key: WorkerKey, spec: WorkerSpec, report: ApplyReport) -> None:
        old = self.handles.get(key)
        handle = Handle(spec=spec, since_at=self._wall(), since_mono=self._mono())
        if old is not None:
            handle.restarts = old.restarts + 1
            handle.failures = old.failures
            handle.last_error = old.last_error
            # with its worker the old handle is gone; metrics must not go back
            self._keep_counts(old)
        self.handles[key] = handle
        self.moves += 1
        try:
            handle.worker = self._build(spec)
            if old is not None and old.worker is not None:
                handle.worker.stats.restarts = handle.restarts
            async with asyncio.timeout(START_TIMEOUT_S):
                await handle.worker.start()
        except Exception as error:  # noqa: BLE001 - the boundary around a worker
            await self._close(handle)
            self._back_off(key, handle, error)
            report.failed[key.name] = handle.last_error or ""
            return
        handle.phase = Phase.RUNNING
        if handle.last_error is not None:
            handle.probation = asyncio.get_running_loop().call_later(
                RECOVERED_AFTER_S, self._recovered, key, handle
            )
        handle.task = asyncio.create_task(self._guard(key, handle), name=key.name)
        self._telemetry.worker_started(key)

    def _recovered(self, key: WorkerKey, handle: Handle) -> None:
        handle.last_error = handle.probation = None
        self._telemetry.worker_recovered(key)

    async def _guard(self, key: WorkerKey, handle: Handle) -> None:
        worker = handle.worker
        assert worker is not None
        error: Exception | None = None
        try:
            await worker.run()
        except Exception as caught:  # noqa: BLE001 - the boundary around a worker: its end becomes a value
            error = caught
        # `_cancel` awaits this task, and closes and forgets the worker itself
        if handle.phase is Phase.DRAINING:
            return
        # before the back-off wakes a pass: what it holds is given back when a successor starts
        await self._close(handle)
        self._back_off(key, handle, error or RuntimeError("the worker ended by itself"))

    def _back_off(self, key: WorkerKey, handle: Handle, error: Exception) -> None:
        now = self._mono()
        if handle.phase is Phase.RUNNING and now - handle.since_mono > STABLE_AFTER_S:
            handle.failures = 0
        handle.failures += 1
        delay_s = backoff_s(handle.failures, cap_s=MAX_RESTART_BACKOFF_S, jitter=random.random())
        handle.phase = Phase.BACKING_OFF
        handle.since_at = self._wall()
        handle.retry_at_mono = now + delay_s
        words = self._words(error)
        is_news = words != handle.last_error and not isinstance(_cause(error), BusUnavailable)
        handle.last_error = words
        handle.task = None
        self._telemetry.worker_failed(key, words, delay_s, is_news=is_news)
        self._on_ended()

    async def _cancel(self, key: WorkerKey, deadline_mono: float, report: ApplyReport) -> None:
        handle = self.handles.get(key)
        if handle is None:
            return
        task = handle.task
        if task is None or handle.worker is None:
            # it backs off: nothing runs that could be drained
            await self._close(handle)
            self._forget(key)
            return
        # before it is asked to: a worker that ends by its drain has not failed
        handle.phase = Phase.DRAINING
        outcome: DrainReport | None = None
        try:
            outcome = await handle.worker.drain(deadline_mono)
        except Exception as error:  # noqa: BLE001 - the boundary around a worker
            handle.last_error = self._words(error)
            self._telemetry.worker_failed(key, handle.last_error, 0.0)
        else:
            report.drains.append(outcome)
        # a worker that is drained ends by itself in a moment; who does not is cut off
        done, _ = await asyncio.wait(
            {task}, timeout=max(0.0, min(1.0, deadline_mono - self._mono()))
        )
        if not done:
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=JOIN_TIMEOUT_S)
        await self._close(handle)
        if not done:
            # the key stays taken: a second worker beside one that still runs would do its work twice
            handle.phase = Phase.FAILED
            handle.last_error = "does not end when cancelled"
            self._telemetry.worker_failed(key, handle.last_error, 0.0)
            return
        self._forget(key)
        self._telemetry.worker_stopped(key, outcome)
        self._on_ended()  # what arrived for it while it ended may want a successor

    def _forget(self, key: WorkerKey) -> None:
        handle = self.handles.pop(key, None)
        if handle is not None:
            self.moves += 1
            self._keep_counts(handle)

    def _keep_counts(self, handle: Handle) -> None:
        """Its worker counts no more."""
        if handle.worker is not None:
            self.gone.add(handle.worker.stats)

    async def _close(self, handle: Handle) -> None:
        if handle.probation is not None:
            handle.probation.cancel()
        if handle.worker is None:
            return
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                await handle.worker.close()
        except Exception as error:  # noqa: BLE001 - the boundary around a worker
            handle.last_error = self._words(error)

    def _words(self, error: BaseException) -> str:
        return self._hiding.text(_words(error))


def _cause(error: BaseException) -> BaseException:
    # a worker's own task group wraps what ended it, which is all that is worth telling
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    error = _cause(error)
    if isinstance(error, TimeoutError):
        return "did not start in time"
    text = str(error)
    return text if isinstance(error, ApplianceError) and text else f"{type(error).__name__}: {text}"
