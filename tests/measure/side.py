"""What all kinds of hearts are measured with: the plan of a run, its meter, and processor time by thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

LOOP, WRITER, OTHER = "loop", "writer", "other"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: `warm` of the `count` messages are left out. With `rate` they come due by the clock."""

    kind: str
    url: str
    directory: str
    count: int
    warm: int
    window: int
    serialization: str = "cbor"
    compression: str = "none"
    signatures: str = "off"
    size_bytes: int = 256
    rate: float | None = None
    profile: str | None = None


def make_text(plan: Plan) -> str:
    return "01234567" * (plan.size_bytes // 8)


def processor_s() -> dict[str, float]:
    """Of this process so far: the event loop's thread, the store writer's, and all others together."""
    found = {LOOP: 0.0, WRITER: 0.0}
    for thread in threading.enumerate():
        name = LOOP if thread is threading.main_thread() else WRITER
        if name is LOOP or "writer" in thread.name:
            with suppress(OSError):  # it may just have ended
                found[name] += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return found | {OTHER: time.process_time() - sum(found.values())}


class Meter:
    """Told how many were acknowledged; `on_mark` is called when the warm-up ends, and at the end."""

    def __init__(self, plan: Plan, on_mark: Callable[[], None]) -> None:
        self._plan = plan
        self._on_mark = on_mark
        self._acked = 0
        self.marks: list[tuple[float, dict[str, float]]] = []
        self.latencies_s: list[float] = []

    def acked(self, count: int) -> None:
        before, self._acked = self._acked, self._acked + count
        if before < self._plan.warm <= self._acked:
            self._plan_mark()
            self._warm_acked = self._acked
        if before < self._plan.count <= self._acked:
            self._plan_mark()

    def took(self, seconds: float) -> None:
        """How long a message took, at a rate."""
        if self._acked > self._plan.warm:
            self.latencies_s.append(seconds)

    def _plan_mark(self) -> None:
        self._on_mark()
        self.marks.append((time.perf_counter(), processor_s()))

    @property
    def measured(self) -> int:
        return self._plan.count - self._warm_acked

    @property
    def rate(self) -> float:
        return self.measured / (self.marks[1][0] - self.marks[0][0])
