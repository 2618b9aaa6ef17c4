"""What the reconciler needs of workers and of telemetry; the daemon hands in the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from appliance.core.names import WorkerKey
from appliance.core.problems import Problem
from appliance.core.specs import WorkerSpec
from appliance.telemetry.stats import WorkerStats


class DrainOutcome(Protocol):
    """Counts of one worker's stop."""

    @property
    def worker(self) -> str:
        """Its name."""
        ...

    @property
    def finished(self) -> int:
        """Messages that ended within the deadline."""
        ...

    @property
    def handed_back(self) -> int:
        """Messages that are safe and will be done later."""
        ...

    @property
    def abandoned(self) -> int:
        """Messages that were cut off for good."""
        ...


class PoolWorker(Protocol):
    """One supervised loop (the same contract as `workers.base.Worker`)."""

    stats: WorkerStats

    @property
    def trouble(self) -> str | None:
        """What keeps it from doing all of its work although it runs; None where nothing does."""
        ...

    async def start(self) -> None: ...

    async def run(self) -> None: ...

    def update(self, spec: WorkerSpec) -> None: ...

    async def swap(self, spec: WorkerSpec) -> None: ...

    async def drain(self, deadline_mono: float) -> DrainOutcome: ...

    async def close(self) -> None: ...


class PoolTelemetry(Protocol):
    """Facts the pool tells."""

    def worker_started(self, key: WorkerKey) -> None: ...

    def worker_updated(self, key: WorkerKey, fields: Sequence[str]) -> None: ...

    def worker_swapped(self, key: WorkerKey, fields: Sequence[str]) -> None: ...

    def worker_stopped(self, key: WorkerKey, report: DrainOutcome | None) -> None: ...

    def worker_failed(
        self, key: WorkerKey, error: str, retry_in_s: float, *, is_news: bool = True
    ) -> None: ...

    def worker_recovered(self, key: WorkerKey) -> None: ...


class ReloadTelemetry(Protocol):
    """Facts the reconciler tells."""

    def config_applied(
        self,
        generation: int,
        digest: str,
        revision: str | None,
        plan_counts: Mapping[str, int],
        duration_s: float,
        trigger: str,
        result: str,
    ) -> None: ...

    def config_unchanged(self, trigger: str) -> None: ...

    def config_refused(self, problems: Sequence[Problem], trigger: str) -> None: ...

    def config_reverted(self, problems: Sequence[Problem]) -> None: ...

    def trial_passed(self, generation: int) -> None: ...

    def history_not_written(self, error: str) -> None: ...

    def pass_failed(self, error: str) -> None: ...
