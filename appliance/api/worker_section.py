"""What is to be seen of workers and of the processes that some of them use."""

from __future__ import annotations

import time
from collections import Counter

import msgspec

from appliance.api import model
from appliance.core.names import WorkerKey, WorkerKind
from appliance.core.overrides import Overrides
from appliance.core.specs import Phase, PublisherSpec
from appliance.core.times import rfc3339
from appliance.methods.computing.pool import ProcessPhase, ProcessPool
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.pool import Handle, WorkerPool
from appliance.reconcile.reconciler import Reconciler
from appliance.telemetry.metrics import MetricsFacts, WorkerView
from appliance.workers.subscriber import Subscriber

_TAKEN_COUNTERS = ("refused", "repeats", "dropped", "turned_away")
NOT_STARTED = "it has not been started yet"


class WorkerSection:
    """Those that there are, and those that the set in force asks for. Owns nothing."""

    def __init__(
        self,
        pool: WorkerPool,
        processes: ProcessPool,
        overrides: OverrideBook,
        reconciler: Reconciler,
    ) -> None:
        self._pool = pool
        self._processes = processes
        self._overrides = overrides
        self._reconciler = reconciler

    def show(self, status: model.Status) -> None:
        """Its part of the status."""
        status.nodes = self._describe_nodes()
        status.overrides = describe_overrides(self._overrides.all)
        status.processes = [
            model.HandlerProcess(
                number=one.number,
                phase=str(one.phase),
                pid=one.pid,
                restarts=one.restarts,
                handled=one.handled,
                doing=one.doing or None,
                busy_seconds=round(one.busy_s, 3),
                error=one.trouble or None,
            )
            for one in self._processes.views()
        ]

    def measure(self, facts: MetricsFacts) -> None:
        """Its part of the metrics."""
        facts.workers = [view_worker(key, one) for key, one in self._pool.handles.items()]
        facts.gone = self._pool.gone
        facts.processes = Counter(str(one.phase) for one in self._processes.views())
        facts.process_restarts = self._processes.restarts
        facts.process_waiting = self._processes.waiting

    def count(self) -> tuple[int, int]:
        """How many run, of how many."""
        handles = self._pool.handles.values()
        return sum(handle.phase is Phase.RUNNING for handle in handles), len(handles)

    @property
    def in_flight(self) -> int:
        """Messages that were sent and wait for an answer."""
        return sum(
            handle.worker.stats.in_flight
            for key, handle in self._pool.handles.items()
            if handle.worker is not None and key.kind is WorkerKind.PUBLISHER
        )

    @property
    def unfinished(self) -> int:
        """Messages that subscribers have in hand."""
        return sum(worker.unfinished for worker in self._pool.each(Subscriber))

    def find_missing(self, *, is_connected: bool) -> list[str]:
        """That workers do not run, in words; without a connection that is the reason, and needs no other."""
        broken = {
            key.name: handle.last_error
            for key, handle in self._pool.handles.items()
            if handle.is_down
        }
        applied = self._reconciler.applied
        # what an operator has stopped by hand is drift, and told as that
        wanted = applied.desired.workers.keys() - self._overrides.all.keys() if applied else set()
        missing = len(wanted - self._pool.handles.keys())
        count = len(broken) + missing
        if not count:
            return []
        names = ", ".join(list(broken)[:3])
        # mostly one reason for all; the others stand beside each worker
        why = next((why for why in broken.values() if why), "" if broken else NOT_STARTED)
        said = "1 worker does not run" if count == 1 else f"{count} workers do not run"
        named = f"{said}: {names}" if names else said
        return [f"{named} ({why})" if why and is_connected else named]

    def find_hindered(self) -> list[tuple[str, str]]:
        """Names of workers that run and cannot do all of their work, with the reason."""
        return [
            (key.name, handle.worker.trouble)
            for key, handle in sorted(self._pool.handles.items())
            if handle.worker is not None and handle.worker.trouble is not None
        ]

    def find_process_troubles(self) -> list[str]:
        """Processes that are not there though they should be, in words."""
        return [
            f"handler process {one.number} does not run: {one.trouble}"
            for one in self._processes.views()
            if one.phase is ProcessPhase.BACKING_OFF
        ]

    def _describe_nodes(self) -> dict[str, model.Node]:
        """Every node this daemon runs, with its workers: those that there are, then those that are missing."""
        applied, handles = self._reconciler.applied, self._pool.handles
        wanted = applied.desired.workers if applied else {}
        nodes = {str(node): model.Node() for node in (applied.desired.run_nodes if applied else ())}
        actions = {
            key.name: "started" if one.starts else "stopped"
            for key, one in self._overrides.all.items()
        }
        for key in [*sorted(handles), *sorted(wanted.keys() - handles.keys())]:
            worker = describe_worker(key, handles.get(key))
            worker.override = actions.get(key.name, msgspec.UNSET)
            if worker.override is not msgspec.UNSET and key not in handles:
                worker.last_error = None  # that somebody has stopped it is the reason
            nodes.setdefault(str(key.node), model.Node()).workers.append(worker)
        return nodes


def view_worker(key: WorkerKey, handle: Handle) -> WorkerView:
    """One worker as the metrics show it."""
    kept = handle.worker.kept if isinstance(handle.worker, Subscriber) else None
    by_state: dict[str, int] | None = None
    oldest_s = 0.0
    if kept is not None:
        by_state = {
            "waiting": kept.waiting,
            "in_hand": kept.in_hand,
            "redelivered": kept.redelivered,
            "parked": kept.parked,
        }
        oldest_s = max(0.0, time.time() - kept.oldest_at) if kept.oldest_at is not None else 0.0
    return WorkerView(
        key=key,
        phase=handle.phase,
        restarts=handle.restarts,
        stats=handle.worker.stats if handle.worker is not None else None,
        kept=by_state,
        kept_oldest_s=oldest_s,
    )


def describe_overrides(overrides: Overrides) -> list[model.Override]:
    """Workers that are not as the config says because somebody started or stopped them."""
    return [
        model.Override(
            worker=key.name,
            node=key.node,
            action="started" if override.starts else "stopped",
            by=override.by,
            at=rfc3339(override.at),
        )
        for key, override in sorted(overrides.items())
    ]


def describe_worker(key: WorkerKey, handle: Handle | None) -> model.Worker:
    """One worker; None for one that should be there and is not."""
    described = model.Worker(
        name=key.name, kind=str(key.kind), subject=key.subject, phase=str(Phase.STOPPED)
    )
    if handle is None:
        described.last_error = NOT_STARTED
        return described
    described.phase = str(handle.phase)
    described.since = rfc3339(handle.since_at)
    described.restarts = handle.restarts
    described.in_flight = described.handled = described.failed = 0
    described.last_error = handle.last_error
    worker = handle.worker
    if worker is not None:
        stats, sends = worker.stats, key.kind is WorkerKind.PUBLISHER
        described.last_error = worker.trouble or handle.last_error
        described.in_flight = stats.in_flight
        described.handled = stats.acked if sends else stats.handled
        described.failed = stats.dead if sends else stats.failed
        for name in ("sent", "missed", "foreign") if sends else _TAKEN_COUNTERS:
            setattr(described, name, getattr(stats, name))
    kept = worker.kept if isinstance(worker, Subscriber) else None
    if kept is not None:
        oldest_at = None if kept.oldest_at is None else rfc3339(kept.oldest_at)
        described.kept = model.KeptByStream(**{**kept._asdict(), "oldest_at": oldest_at})
    if isinstance(handle.spec, PublisherSpec):
        described.declared = handle.spec.entry is not None
        described.entry = handle.spec.entry
    return described
