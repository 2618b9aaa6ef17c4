"""The loop that makes what runs be what the set in force asks for. It knows nothing of files, so none can hold it up.

Level-triggered: whatever woke it (a worker ended, a lane got its first record, somebody overrode the config, a delay is
over), it compares desired with observed and closes the gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from appliance.core.names import WorkerKey
from appliance.core.overrides import apply_overrides
from appliance.core.plan import Plan, make_plan
from appliance.core.specs import DesiredState, ObservedState, WorkerSpec
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.pool import ApplyReport, WorkerPool
from appliance.reconcile.trigger import Trigger
from appliance.telemetry.report import Telemetry

RESYNC_S = 30.0
"""How often a pass is made while no set says it (`reload.poll_interval`)."""


class Convergence:
    """Owns every change of the pool. Life: `converge_to` the first set -> `run` in a task, and to others meanwhile."""

    def __init__(
        self,
        pool: WorkerPool,
        overrides: OverrideBook,
        extra_workers: Callable[[], Mapping[WorkerKey, WorkerSpec]],
        telemetry: Telemetry,
        trigger: Trigger,
    ) -> None:
        """`extra_workers` finds publishers that nobody declared and that have something to send, see `daemon.assembly`.

        `trigger` takes the reasons for a pass.
        """
        self._telemetry = telemetry
        self._pool = pool
        self._overrides = overrides
        self._extra_workers = extra_workers
        self._mono = asyncio.get_running_loop().time
        self.trigger = trigger
        self._one_pass = asyncio.Lock()
        """Passes never overlap: two of them could give one key two workers."""
        self._desired: DesiredState | None = None
        self._next_due_mono: float | None = None

    async def run(self, ending: asyncio.Event) -> None:
        """Make passes until `ending` is set and somebody wakes it."""
        while True:
            await self.trigger.wait(self._next_wait_s())
            # before the pass: a reason that comes up during it makes another one
            self.trigger.take()
            if ending.is_set():
                return
            try:
                await self.converge()
            except Exception as error:  # noqa: BLE001 - the boundary around a pass: the next one finds what is left
                self._telemetry.pass_failed(f"{type(error).__name__}: {error}")

    def _next_wait_s(self) -> float:
        # NB: a publisher that was made on demand goes when it has had nothing to send; nobody tells of that
        wait_s = RESYNC_S if self._desired is None else self._desired.reload.poll_interval_s
        due_mono = self._next_due_mono
        return wait_s if due_mono is None else min(wait_s, max(0.0, due_mono - self._mono()))

    async def converge(self) -> None:
        """Close the gap between desired and observed, whatever made it."""
        async with self._one_pass:
            if self._desired is not None:
                await self._close_gap(self._desired)

    async def converge_to(
        self, desired: DesiredState, on_accepted: Callable[[], None]
    ) -> tuple[Plan, ApplyReport]:
        """From here on another set is the one that is asked for; what was done for it at once.

        `on_accepted` is called before the first worker moves, and when no pass is under way.
        """
        async with self._one_pass:
            self._desired = desired
            on_accepted()
            done = await self._close_gap(desired)
        self.trigger.set("followed")  # what was on its way while the pass ran may want another
        return done

    async def _close_gap(self, desired: DesiredState) -> tuple[Plan, ApplyReport]:
        plan = make_plan(self.wanted(desired), self._pool.observe(), self._mono())
        if plan.is_empty:
            self._next_due_mono = plan.next_due_mono
            return plan, ApplyReport()
        report = await self._pool.apply(plan, desired.reload.drain_timeout_s)
        # for the time of the next pass alone: a worker that ended meanwhile has woken the loop itself
        left = make_plan(self.wanted(desired), self._pool.observe(), self._mono())
        self._next_due_mono = left.next_due_mono
        return plan, report

    def wanted(
        self, desired: DesiredState, *, overridden: bool = True
    ) -> Mapping[WorkerKey, WorkerSpec]:
        """The declared workers, those that have something left to send, and what overrides make of them."""
        extra = self._extra_workers()
        # a declared worker wins: its entry says more than the lane that is left of it
        wanted = {**extra, **desired.workers} if extra else desired.workers
        return apply_overrides(wanted, self._overrides.all, desired) if overridden else wanted

    def observe(self) -> ObservedState:
        """What runs now."""
        return self._pool.observe()

    def predict(self, desired: DesiredState, observed: ObservedState | None = None) -> Plan:
        """The plan that a reload to `desired` would carry out."""
        wanted = self.wanted(desired, overridden=not self.clears_overrides(desired))
        return make_plan(wanted, self.observe() if observed is None else observed, self._mono())

    def clears_overrides(self, desired: DesiredState) -> bool:
        """Whether a reload to this desired state makes an end of overrides."""
        return bool(self._overrides.all) and desired.reload.overrides == "clear"
