"""The facade that the admin API calls: everything an operator can see or ask of a running daemon."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.api.copy_jobs import CopyJobs
from appliance.api.health import (
    can_accept,
    describe_store,
    find_delivery_troubles,
    needs_restart,
)
from appliance.api.inbox import Inbox
from appliance.api.requests import Once, SubmitRequest, Submitted
from appliance.api.standings import Standings
from appliance.api.status import (
    StatusJson,
    config_json,
    dead_json,
    describe_state,
    fallback_json,
    find_degradations,
    find_trouble,
    nodes_json,
    overrides_json,
    record_json,
    rfc3339,
    say_unconnected,
)
from appliance.api.submission import Submission
from appliance.core.delivery import Standing
from appliance.core.describe import describe_plan, describe_settings
from appliance.core.describe_methods import describe_methods
from appliance.core.names import WorkerKind
from appliance.errors import (
    ConfigInvalid,
    ConfigUnreadable,
    RunNodesUnclear,
)
from appliance.methods.registry import METHOD_TABLE
from appliance.outbox.records import StoreHealth
from appliance.reconcile.history import History, Record
from appliance.reconcile.verdicts import Verdict, drain_json, find_problems_of, problem_json
from appliance.telemetry.metrics import MetricsFacts, WorkerView
from appliance.workers.subscriber import Subscriber

if TYPE_CHECKING:
    from appliance.daemon.app import Daemon


class Operations:
    """Called on the event loop. What cannot be done is raised as an `ApplianceError`."""

    def __init__(self, daemon: Daemon, history: History) -> None:
        self._daemon = daemon
        self._history = history
        self.events = daemon.events
        self._submission = Submission(daemon)
        self._standings = Standings(daemon.pool.handles, daemon.store, daemon.bus)
        self.copies = CopyJobs(
            daemon.spool,
            daemon.parts,
            desired=daemon.desired,
            choose_sender=self._submission.sender,
        )
        self._inbox = Inbox(daemon.store, daemon.inbox_owners)
        self._started_at = time.time()
        self.is_started = False
        self.is_stopping = False

    def clock_jumped(self, by_s: float) -> None:
        """The wall clock was set: the time of our start, as it is shown, moves with it."""
        self._started_at += by_s

    # -- seeing -----------------------------------------------------------------------------------

    def status(self) -> StatusJson:
        """The status JSON."""
        daemon = self._daemon
        counts = daemon.store.counts()
        health = self.store_health()
        attempt = daemon.reconciler.last_attempt
        applied = daemon.reconciler.applied
        overrides = daemon.overrides.all
        problems = find_degradations(
            daemon.pool,
            applied,
            attempt,
            broker_trouble=None if daemon.bus.is_connected else daemon.bus.trouble or "",
            dead=counts.dead,
            overrides=overrides,
            delivery=find_delivery_troubles(
                store=health,
                orphaned=self._orphaned(),
                silent_lanes=self._standings.silent_lanes(),
                worker_troubles=self._worker_troubles(),
            ),
        )
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": rfc3339(self._started_at),
            "generation": applied.generation if applied else 0,
            "healthy": not problems and not self.is_stopping,
            "degraded_by": [] if self.is_stopping else problems,
            "stopping": self.is_stopping,
            "config": {
                **config_json(applied, attempt, list(daemon.config_paths)),
                "seen_digest": daemon.reconciler.files.digest or None,
                **fallback_json(daemon.reconciler.going_back),
            },
            "broker": {
                "connected": daemon.bus.is_connected,
                "server": daemon.bus.server,
                "embedded": daemon.broker is not None,
                "reconnects": daemon.bus.reconnects,
            },
            "nodes": nodes_json(daemon.pool, applied, daemon.presence.last_hello_at(), overrides),
            "overrides": overrides_json(overrides),
            "fleet": daemon.fleet.as_json(),
            "methods": self.methods(),
            "hellos": {
                node: rfc3339(at) for node, at in sorted(daemon.presence.last_hello_at().items())
            },
            "inputs": daemon.inputs.status(),
            "inbox": {
                "unfinished": self._unfinished() + self._orphaned(),
                "orphaned": self._orphaned(),
            },
            "store": {
                "state": health.state,
                "text": health.text,
                "since": rfc3339(self._daemon.store.wall_of(health.since)),
            },
            "outbox": {
                "pending": counts.pending,
                "in_flight": self._in_flight(),
                "dead": counts.dead,
                "oldest_seconds": round(self._age_s(counts.oldest_created_at), 3),
            },
            "waiting": self._standings.waiting(),
        }

    def methods(self) -> list[dict[str, object]]:
        """Every method that this daemon knows, the config's own first."""
        applied = self._daemon.reconciler.applied
        return describe_methods(METHOD_TABLE, applied.desired.methods if applied else {})

    def summary(self) -> str:
        """One line for the log and the service manager."""
        daemon = self._daemon
        applied = daemon.reconciler.applied
        running = sum(1 for handle in daemon.pool.handles.values() if handle.phase == "running")
        generation = applied.generation if applied else 0
        nodes = ", ".join(applied.desired.run_nodes[:5]) if applied else ""
        return f"generation {generation}, {running} of {len(daemon.pool.handles)} workers running, nodes: {nodes}"

    def service_line(self) -> str:
        """One line for the service manager: what runs, at which revision, and the last verdict."""
        daemon = self._daemon
        applied, attempt = daemon.reconciler.applied, daemon.reconciler.last_attempt
        if self.is_stopping:
            return f"stopping, {self._unfinished()} messages in hand"
        if applied is None:
            return "starting"
        phases = [str(handle.phase) for handle in daemon.pool.handles.values()]
        return describe_state(
            generation=applied.generation,
            revision=applied.revision,
            running=phases.count("running"),
            workers=len(phases),
            connected=daemon.bus.is_connected,
            result=attempt.result if attempt else "",
            at=attempt.at if attempt else 0.0,
            problems=attempt.problems if attempt else (),
            store_trouble=describe_store(self.store_health()),
        )

    def liveness(self) -> tuple[bool, str]:
        """The loop answers, so it lives, unless only a restart helps."""
        health = self.store_health()
        if needs_restart(health):
            return False, describe_store(health) or "the store has failed"
        return True, "alive"

    def readiness(self) -> tuple[bool, str]:
        """Connected, able to accept, and the running set settled; a refused config does not make it unready."""
        if self.is_stopping:
            return False, "stopping"
        if not self.is_started:
            return False, "starting"
        if not self._daemon.bus.is_connected:
            return False, say_unconnected(self._daemon.bus.trouble or "")
        health = self.store_health()
        if not can_accept(health):
            return False, describe_store(health) or "the store accepts nothing"
        return True, "ready"

    def metrics(self) -> Operations:
        """The source of the metrics collector."""
        return self

    def facts(self) -> MetricsFacts:
        """The facts of one scrape."""
        daemon = self._daemon
        applied = daemon.reconciler.applied
        counts = daemon.store.counts()
        workers = [
            WorkerView(
                key=key,
                phase=handle.phase,
                restarts=handle.restarts,
                stats=handle.worker.stats if handle.worker is not None else None,
            )
            for key, handle in daemon.pool.handles.items()
        ]
        return MetricsFacts(
            version=__version__,
            counts=daemon.telemetry.counts,
            generation=applied.generation if applied else 0,
            digest=applied.digest if applied else "",
            revision=applied.revision if applied else None,
            branch=applied.branch if applied else None,
            dirty=applied.dirty if applied else None,
            run_nodes=applied.desired.run_nodes if applied else (),
            workers=workers,
            broker_connected=daemon.bus.is_connected,
            broker_reconnects=daemon.bus.reconnects,
            outbox_pending=counts.pending,
            outbox_in_flight=self._in_flight(),
            outbox_dead=counts.dead,
            outbox_oldest_s=self._age_s(counts.oldest_created_at),
            waiting=self._standings.waiting(),
            inbox_unfinished=self._unfinished() + self._orphaned(),
            inbox_orphaned=self._orphaned(),
            store_state=self.store_health().state,
            declared_nodes=applied.desired.declared_nodes if applied else (),
            last_hello_at={str(node): at for node, at in daemon.presence.last_hello_at().items()},
            fleet_states=Counter(str(item.state) for item in daemon.fleet.standings()),
            events_dropped=daemon.events.dropped,
            inputs=daemon.inputs.totals(),
            gone=daemon.pool.gone,
        )

    def lane_reason(self, node: str, subject: str) -> str:
        """Why nothing of a lane goes out now; "" while something does."""
        return self._standings.lane_reason(node, subject)

    def _unfinished(self) -> int:
        workers = (handle.worker for handle in self._daemon.pool.handles.values())
        return sum(worker.unfinished for worker in workers if isinstance(worker, Subscriber))

    def _orphaned(self) -> int:
        return self._daemon.inbox_owners.orphan_count

    def _worker_troubles(self) -> list[tuple[str, str]]:
        found = [
            (key.name, find_trouble(handle))
            for key, handle in sorted(self._daemon.pool.handles.items())
        ]
        return [(name, trouble) for name, trouble in found if trouble is not None]

    def _age_s(self, created_at: float | None) -> float:
        return max(0.0, self._daemon.store.now() - created_at) if created_at else 0.0

    def store_health(self) -> StoreHealth:
        """How the store is."""
        return self._daemon.store.health()

    def _in_flight(self) -> int:
        return sum(
            handle.worker.stats.in_flight
            for key, handle in self._daemon.pool.handles.items()
            if handle.worker is not None and key.kind is WorkerKind.PUBLISHER
        )

    # -- asking -----------------------------------------------------------------------------------

    async def plan(self, paths: Sequence[str] | None, *, force: bool = False) -> dict[str, object]:
        """What a reload would do, with the daemon's own paths or others."""
        daemon = self._daemon
        try:
            loaded = await (daemon.reader.load_from(paths) if paths else daemon.reader.load())
        except (ConfigInvalid, ConfigUnreadable, RunNodesUnclear) as error:
            problems = find_problems_of(error)
            return {
                "result": "refused",
                "actions": [],
                "problems": [problem_json(problem) for problem in problems],
                "summary": {},
            }
        prediction = daemon.reconciler.predict(loaded, is_own=not paths, force=force)
        applied = daemon.reconciler.applied
        moves = applied is not None and not prediction.is_pinned
        settings = describe_settings(applied.desired, loaded.desired) if applied and moves else {}
        is_same = prediction.plan.is_empty and not settings
        result = "refused" if prediction.objections else "no change" if is_same else "changes"
        return {
            "result": result,
            "actions": describe_plan(prediction.plan),
            "settings": settings,
            "overrides": overrides_json(daemon.overrides.all),
            "problems": [problem_json(problem) for problem in prediction.objections],
            "warnings": [problem_json(problem) for problem in prediction.warnings],
            "summary": prediction.plan.summary(),
            "digest": loaded.digest,
        }

    async def reload(self, *, force: bool, trigger: str, by: str = "") -> dict[str, object]:
        """Look again now; the verdict."""
        verdict = await self._daemon.reconciler.reload(force=force, trigger=trigger, by=by)
        return verdict_json(verdict)

    async def roll_back(self, *, to: str | None, force: bool, by: str = "") -> dict[str, object]:
        """Go back to an older set; the verdict."""
        verdict = await self._daemon.reconciler.roll_back(to=to, force=force, by=by)
        return {
            **verdict_json(verdict),
            "pinned": self._daemon.reconciler.going_back.pin is not None,
        }

    async def submit(
        self, requests: Sequence[SubmitRequest], *, atomic: bool = False, once: Once | None = None
    ) -> list[Submitted]:
        """Accept messages; answers when they are on disk."""
        return await self._submission.submit(requests, atomic=atomic, once=once)

    async def is_accepted(self, once: Once) -> bool:
        """Whether messages were accepted under this mark."""
        return await self._submission.is_accepted(once)

    def standing(self, item: Submitted) -> Standing | None:
        """Where a message that was accepted stands now; None where it is none of ours."""
        if item.id is None or item.from_node is None or item.subject is None:
            return None
        return self._standings.of_record(item.from_node, item.subject, item.id)

    def left(self, ids: Sequence[int]) -> None:
        """Nobody waits for the answers to these messages any more."""
        self._daemon.leavers.left(ids)

    # -- outbox and history -------------------------------------------------------------------------

    async def outbox_list(self, state: str, limit: int) -> list[dict[str, object]]:
        """Pending records or dead letters, oldest first."""
        store = self._daemon.store
        if state == "dead":
            letters = await store.list_dead(limit)
            now = store.now()
            return [dead_json(letter, now=now, wall_of=store.wall_of) for letter in letters]
        records = await store.list_pending(limit)
        now, of_record = store.now(), self._standings.of_record
        return [
            record_json(
                record,
                of_record(record.node, record.subject, record.id),
                now=now,
                wall_of=store.wall_of,
            )
            for record in records
        ]

    async def outbox_retry(self, ids: Sequence[int] | None) -> int:
        """Put dead letters back into their lanes."""
        return await self._daemon.store.retry_dead(ids)

    async def outbox_drop(self, ids: Sequence[int] | None, *, dead_only: bool = True) -> int:
        """Forget dead letters (or, with ids, pending records)."""
        return await self._daemon.store.drop(ids, dead_only=dead_only)

    async def inbox_list(self, limit: int) -> list[dict[str, object]]:
        """Messages taken in and not finished, oldest first."""
        return await self._inbox.list(limit)

    async def inbox_drop(self, ids: Sequence[int] | None) -> dict[str, object]:
        """Forget messages that no worker takes."""
        return await self._inbox.drop(ids)

    def history(self, limit: int) -> list[Record]:
        """Newest first."""
        return [
            {key: value for key, value in record.items() if key != "diff"}
            for record in self._history.newest(limit)
        ]

    def history_record(self, key: str) -> Record | None:
        """One record by number, generation, digest or revision, with what changed in the files."""
        record = self._history.find(key)
        return None if record is None else {**record, "diff": self._history.difference(record)}


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """A verdict as the API shows it."""
    return {
        "result": verdict.result,
        "generation": verdict.generation,
        "digest": verdict.digest,
        "revision": verdict.revision,
        "trigger": verdict.trigger,
        "by": verdict.by,
        "problems": [problem_json(problem) for problem in verdict.problems],
        "actions": describe_plan(verdict.plan),
        "summary": verdict.plan.summary(),
        "failed": dict(verdict.failed),
        "duration_seconds": round(verdict.duration_s, 6),
        "drain": drain_json(verdict.drains),
    }
