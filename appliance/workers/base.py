"""What the pool sees of a worker, whatever its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from appliance.core.names import WorkerKey
from appliance.core.specs import WorkerSpec
from appliance.telemetry.stats import WorkerStats


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What a stop did with the work in hand.

    `finished` ended within the deadline; `handed_back` is safe on disk (here or at the sender) and will be done
    later; `abandoned` was cut off and nobody will do it again.
    """

    worker: str
    finished: int = 0
    handed_back: int = 0
    abandoned: int = 0


class Worker(Protocol):
    """One supervised loop. The pool calls `start`, then `run` in a task, and at the end `drain`, then `close`."""

    key: WorkerKey
    spec: WorkerSpec
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
