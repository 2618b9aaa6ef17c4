"""How long the daemon runs, and how it stops: intake ends first, then sending, within one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from appliance.api.status import Life, StatusView
from appliance.core.current import Current
from appliance.core.names import WorkerKind
from appliance.core.specs import DesiredState
from appliance.daemon.signals import Signals
from appliance.inputs.inputs import Inputs
from appliance.reconcile.pool import WorkerPool
from appliance.reconcile.reconciler import Reconciler
from appliance.service_manager import ServiceManager
from appliance.supervision import keep_running
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import DrainReport

MAX_PASS_S = 300.0
"""What a pass may take beside its drains: reading a large fleet, connecting to a broker that is slow."""


class Lifetime:
    """From parts that are built to workers that have stopped. `run` once."""

    def __init__(
        self,
        *,
        life: Current[Life],
        signals: Signals,
        manager: ServiceManager,
        desired: Current[DesiredState],
        telemetry: Telemetry,
        reconciler: Reconciler,
        pool: WorkerPool,
        inputs: Inputs,
        view: StatusView,
    ) -> None:
        self._life = life
        self._signals = signals
        self._manager = manager
        self._desired = desired
        self._telemetry = telemetry
        self._reconciler = reconciler
        self._pool = pool
        self._inputs = inputs
        self._view = view
        self._drains: list[DrainReport] = []

    async def run(
        self,
        start: Callable[[], Awaitable[None]],
        services: Mapping[str, Callable[[], Awaitable[None]]],
    ) -> list[DrainReport]:
        """Until a signal; what each worker had left.

        Args:
            start: brings a first set into force.
            services: what runs beside the reconciler as long as the daemon does, by name.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(keep_running(name, run, self._telemetry.service_broke), name=name)
                for name, run in services.items()
            ]
            await start()
            reconciling = group.create_task(self._reconciler.run(), name="reconciler")
            self._life.put(Life.RUNNING)
            # not before a set is in force: until then there is no node in whose name to send
            self._inputs.start_taking()
            self._telemetry.daemon_ready(self._view.summary())
            self._manager.ready()
            await self._signals.stop.wait()
            await self._shut_down(reconciling)
            for task in tasks:
                task.cancel()
        return self._drains

    def is_alive(self) -> bool:
        """Whether the reconciler waits, or is at work for no longer than a pass can honestly take, and nothing else
        needs a restart.
        """
        if self._signals.stop.is_set():
            return True  # stopping has limits of its own
        if not self._view.liveness()[0]:
            return False
        limit_s = MAX_PASS_S + 2 * self._desired.value.reload.drain_timeout_s
        return self._reconciler.busy_s() <= limit_s

    async def _shut_down(self, reconciling: asyncio.Task[None]) -> None:
        """What is left by the deadline stays in the store."""
        self._life.put(Life.STOPPING)
        self._manager.stopping()
        loop = asyncio.get_running_loop()
        deadline_mono = loop.time() + self._desired.value.reload.drain_timeout_s
        self._reconciler.stop()
        draining = asyncio.create_task(self._drain(deadline_mono, reconciling), name="drain")
        hurry = asyncio.create_task(self._signals.stop_now.wait(), name="second signal")
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not draining.done():
            self._telemetry.daemon_stopping("second signal: not waiting for work in hand")
            draining.cancel()
            await asyncio.wait({draining})
            draining = asyncio.create_task(
                self._stop_workers(loop.time(), reconciling), name="stop at once"
            )
        await asyncio.wait({draining, hurry})
        draining.result()

    async def _drain(self, deadline_mono: float, reconciling: asyncio.Task[None]) -> None:
        await self._inputs.close()
        await self._stop_workers(deadline_mono, reconciling)

    async def _stop_workers(self, deadline_mono: float, reconciling: asyncio.Task[None]) -> None:
        # a pass in hand could start what is being stopped here
        await asyncio.wait(
            {reconciling}, timeout=max(0.1, deadline_mono - asyncio.get_running_loop().time())
        )
        reconciling.cancel()
        self._drains += await self._pool.stop_all(deadline_mono, [WorkerKind.SUBSCRIBER])
        # after the subscribers: what their last messages caused to be sent still goes out
        self._drains += await self._pool.stop_all(deadline_mono, [WorkerKind.PUBLISHER])
