"""What is to be seen of a running daemon: the status, the facts of the metrics, one line for log and service manager."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from appliance import __version__
from appliance.api import model
from appliance.api.enrolment import EnrolmentDesk
from appliance.api.fleet import FleetView
from appliance.api.health import (
    can_accept,
    describe_store,
    find_delivery_troubles,
    needs_restart,
)
from appliance.api.secret_watch import SecretWatch
from appliance.api.standings import Standings
from appliance.bus.nats import NatsBus
from appliance.core.current import Current
from appliance.core.delivery import Standing, state_of_reason, why_of_reason
from appliance.core.describe_methods import describe_methods
from appliance.core.escape import escape_line
from appliance.core.names import WorkerKey, WorkerKind
from appliance.core.overrides import Overrides
from appliance.core.problems import Problem, Severity
from appliance.core.specs import Phase, PublisherSpec
from appliance.core.times import clock_time, rfc3339
from appliance.delivery.signer import SigningKeys
from appliance.delivery.verifier import Verifier
from appliance.jobs.ledger import JobLedger
from appliance.methods.computing.pool import ProcessPhase, ProcessPool, ProcessView
from appliance.methods.registry import METHOD_TABLE
from appliance.outbox.records import DeadLetter, OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.pool import Handle, WorkerPool
from appliance.reconcile.reconciler import Reconciler
from appliance.reconcile.reload_result import Applied, ReloadResult, unkept_pin_note
from appliance.reconcile.rollback import Rollback
from appliance.telemetry.audit_file import AuditFile
from appliance.telemetry.events import EventHub
from appliance.telemetry.metrics import MetricsFacts, WorkerView
from appliance.telemetry.report import Telemetry
from appliance.workers.inbox_owners import InboxOwners
from appliance.workers.subscriber import Subscriber


class Life(StrEnum):
    """Of a daemon: it is put together, starts, runs and stops."""

    BUILDING = "building"
    """Its parts are not all there: nobody can ask it anything yet."""
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class BrokerOfOwn(Protocol):
    """The broker that starts with the daemon; it stands above this package."""

    @property
    def trouble(self) -> str | None:
        """Why it does not run; None while it does."""
        ...


class OpenInputs(Protocol):
    """Steward's inputs; they stand above this package."""

    def status(self) -> dict[str, model.Input]:
        """What is open."""
        ...

    def totals(self) -> dict[tuple[str, str], int]:
        """Messages by input and result."""
        ...


class StatusView:
    """Reads the parts and owns nothing. Called on the event loop."""

    def __init__(
        self,
        *,
        life: Current[Life],
        config_paths: Sequence[str],
        signers: str | None,
        own_broker: BrokerOfOwn | None,
        store: MessageStore,
        bus: NatsBus,
        pool: WorkerPool,
        reconciler: Reconciler,
        overrides: OverrideBook,
        fleet: FleetView,
        inbox_owners: InboxOwners,
        standings: Standings,
        telemetry: Telemetry,
        events: EventHub,
        inputs: OpenInputs,
        secrets: SecretWatch,
        jobs: JobLedger,
        signing: SigningKeys,
        verifier: Verifier,
        enrolment: EnrolmentDesk,
        processes: ProcessPool,
        trail: AuditFile,
    ) -> None:
        self._processes = processes
        self._trail = trail
        self._signing = signing
        self._verifier = verifier
        self._config_paths = list(config_paths)
        self._signers = signers
        self._own_broker = own_broker
        self._store = store
        self._bus = bus
        self._pool = pool
        self._reconciler = reconciler
        self._overrides = overrides
        self._fleet = fleet
        self._inbox_owners = inbox_owners
        self._standings = standings
        self._telemetry = telemetry
        self._events = events
        self._inputs = inputs
        self._secrets = secrets
        self._jobs = jobs
        self._enrolment = enrolment
        self._started_at = time.time()
        self._life = life

    def clock_jumped(self, by_s: float) -> None:
        """The wall clock was set: the time of our start, as it is shown, moves with it."""
        self._started_at += by_s

    def status(self) -> model.Status:
        """Everything an operator asks first."""
        store, bus, applied = self._store, self._bus, self._reconciler.applied
        counts, health = store.counts(), store.health()
        hellos = {
            str(node): rfc3339(at) for node, at in sorted(self._fleet.last_hello_at().items())
        }
        problems = [] if self._life.value is Life.STOPPING else self._degradations(counts.dead)
        return model.Status(
            version=__version__,
            pid=os.getpid(),
            started_at=rfc3339(self._started_at),
            generation=applied.generation if applied else 0,
            healthy=not problems and self._life.value is not Life.STOPPING,
            degraded_by=problems,
            stopping=self._life.value is Life.STOPPING,
            config=self._config(),
            broker=model.Broker(
                connected=bus.is_connected,
                server=bus.server,
                embedded=self._own_broker is not None,
                reconnects=bus.reconnects,
                error=None if bus.is_connected else self._find_broker_trouble() or NOT_REACHED,
            ),
            nodes=describe_nodes(self._pool, applied, hellos, self._overrides.all),
            overrides=describe_overrides(self._overrides.all),
            fleet=self._fleet.describe(),
            methods=self.methods(),
            hellos=hellos,
            inputs=self._inputs.status(),
            inbox=model.Inbox(
                unfinished=self._unfinished() + self._orphaned, orphaned=self._orphaned
            ),
            store=model.Store(
                state=health.state, text=health.text, since=rfc3339(store.wall_of(health.since))
            ),
            outbox=model.Outbox(
                pending=counts.pending,
                in_flight=self._in_flight(),
                dead=counts.dead,
                oldest_seconds=round(self._age_s(counts.oldest_created_at), 3),
            ),
            waiting=self._standings.waiting(),
            jobs=model.JobsKept(
                open=self._jobs.open_count,
                kept=len(self._jobs.jobs),
                bytes=self._jobs.size_bytes,
            ),
            secrets={
                place: model.Secret(
                    kind=item.ref.kind,
                    name=item.ref.name,
                    usable=item.trouble is None,
                    error=item.trouble,
                    expires_at=None if item.expires_at is None else rfc3339(item.expires_at),
                )
                for place, item in self._secrets.found.items()
            },
            signatures=model.Signatures(
                refused={str(fault): count for fault, count in self._verifier.refused.items()},
                clock_skew_seconds={
                    node: round(ahead_s, 3)
                    for node, ahead_s in sorted(self._verifier.skews_s.items())
                },
            ),
            enrolment=model.Asking(
                pending=self._enrolment.pending, turned_away=self._enrolment.turned_away
            ),
            audit=model.AuditKept(
                **self._audit_counts(), summing=[escape_line(one) for one in self._trail.summing]
            ),
            processes=[
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
            ],
        )

    def _audit_counts(self) -> dict[str, int]:
        trail = self._trail
        return {
            "entered": trail.entered,
            "summed": trail.summed,
            "unnamed": trail.unnamed,
            "lost": trail.lost,
        }

    def _config(self) -> model.Config:
        applied, attempt = self._reconciler.applied, self._reconciler.last_attempt
        pinned, on_trial = describe_pin_and_trial(self._reconciler.rollback)
        return model.Config(
            digest=applied.digest if applied else None,
            revision=applied.revision if applied else None,
            branch=applied.branch if applied else None,
            dirty=applied.dirty if applied else None,
            paths=self._config_paths,
            applied_at=rfc3339(applied.applied_at) if applied else None,
            last_attempt=describe_attempt(attempt) if attempt is not None else None,
            seen_digest=self._reconciler.files.digest or None,
            pinned=pinned,
            on_trial=on_trial,
            signers=self._signers,
        )

    def _find_broker_trouble(self) -> str:
        """Why there is no connection; "" where nothing is known. One's own broker knows more than the line to it."""
        own = self._own_broker.trouble if self._own_broker is not None else None
        return own or self._bus.trouble or ""

    def _degradations(self, dead: int) -> list[str]:
        worker_troubles = [
            (key.name, find_trouble(handle)) for key, handle in sorted(self._pool.handles.items())
        ]
        rollback = self._reconciler.rollback
        is_pin_lost = rollback.pin is not None and not rollback.is_pin_kept
        unkept = [unkept_pin_note().message] if is_pin_lost else []
        return unkept + find_degradations(
            self._pool,
            self._reconciler.applied,
            self._reconciler.verdict_on_files,
            broker_trouble=None if self._bus.is_connected else self._find_broker_trouble(),
            dead=dead,
            overrides=self._overrides.all,
            delivery=find_delivery_troubles(
                store=self._store.health(),
                orphaned=self._orphaned,
                silent_lanes=self._standings.silent_lanes(),
                worker_troubles=[(name, why) for name, why in worker_troubles if why is not None],
            )
            + self._secrets.troubles()
            + self._signing.troubles()
            + [escape_line(words) for words in self._trail.troubles()]
            + find_process_troubles(self._processes.views()),
        )

    def methods(self) -> list[model.Method]:
        """Every method that this daemon knows, the config's own first."""
        applied = self._reconciler.applied
        described = (
            describe_methods(METHOD_TABLE, applied.desired.methods, applied.desired.hidden)
            if applied
            else describe_methods(METHOD_TABLE, {})
        )
        return msgspec.convert(described, list[model.Method])

    def summary(self) -> str:
        """One line for the log and the service manager."""
        applied, handles = self._reconciler.applied, self._pool.handles
        running = sum(1 for handle in handles.values() if handle.phase == "running")
        generation = applied.generation if applied else 0
        nodes = ", ".join(applied.desired.run_nodes[:5]) if applied else ""
        return (
            f"generation {generation}, {running} of {len(handles)} workers running, nodes: {nodes}"
        )

    def service_line(self) -> str:
        """One line for the service manager: what runs, at which revision, and the last verdict."""
        applied, attempt = self._reconciler.applied, self._reconciler.verdict_on_files
        if self._life.value is Life.STOPPING:
            return f"stopping, {self._unfinished()} messages in hand"
        if applied is None:
            return "starting"
        phases = [str(handle.phase) for handle in self._pool.handles.values()]
        return describe_state(
            generation=applied.generation,
            revision=applied.revision,
            running=phases.count("running"),
            workers=len(phases),
            connected=self._bus.is_connected,
            result=attempt.result if attempt else "",
            at=attempt.at if attempt else 0.0,
            problems=attempt.problems if attempt else (),
            store_trouble=describe_store(self._store.health()),
        )

    def liveness(self) -> tuple[bool, str]:
        """The loop answers, so it lives, unless only a restart helps."""
        health = self._store.health()
        if needs_restart(health):
            return False, describe_store(health) or "the store has failed"
        return True, "alive"

    def readiness(self) -> tuple[bool, str]:
        """Connected, able to accept, and the running set settled; a refused config does not make it unready."""
        if self._life.value is not Life.RUNNING:
            return False, str(self._life.value)
        if not self._bus.is_connected:
            return False, say_unconnected(self._find_broker_trouble())
        health = self._store.health()
        if not can_accept(health):
            return False, describe_store(health) or "the store accepts nothing"
        return True, "ready"

    def facts(self) -> MetricsFacts:
        """The facts of one scrape."""
        applied, counts = self._reconciler.applied, self._store.counts()
        workers = [view_worker(key, handle) for key, handle in self._pool.handles.items()]
        return MetricsFacts(
            version=__version__,
            counts=self._telemetry.counts,
            generation=applied.generation if applied else 0,
            digest=applied.digest if applied else "",
            revision=applied.revision if applied else None,
            branch=applied.branch if applied else None,
            dirty=applied.dirty if applied else None,
            run_nodes=applied.desired.run_nodes if applied else (),
            workers=workers,
            broker_connected=self._bus.is_connected,
            broker_reconnects=self._bus.reconnects,
            outbox_pending=counts.pending,
            outbox_in_flight=self._in_flight(),
            outbox_dead=counts.dead,
            outbox_oldest_s=self._age_s(counts.oldest_created_at),
            jobs_open=self._jobs.open_count,
            jobs_bytes=self._jobs.size_bytes,
            enrolment_pending=self._enrolment.pending,
            enrolment_turned_away=self._enrolment.turned_away,
            waiting=self._standings.waiting(),
            inbox_unfinished=self._unfinished() + self._orphaned,
            inbox_orphaned=self._orphaned,
            store_state=self._store.health().state,
            declared_nodes=applied.desired.declared_nodes if applied else (),
            last_hello_at={str(node): at for node, at in self._fleet.last_hello_at().items()},
            fleet_states=Counter(str(item.state) for item in self._fleet.standings()),
            events_dropped=self._events.dropped,
            inputs=self._inputs.totals(),
            secrets={
                place: (item.trouble is None, item.expires_at)
                for place, item in self._secrets.found.items()
            },
            audit_entries=self._audit_counts(),
            signatures_refused={str(why): n for why, n in self._verifier.refused.items()},
            skews_s=self._verifier.skews_s,
            gone=self._pool.gone,
            processes=Counter(str(one.phase) for one in self._processes.views()),
            process_restarts=self._processes.restarts,
            process_waiting=self._processes.waiting,
        )

    def _unfinished(self) -> int:
        workers = (handle.worker for handle in self._pool.handles.values())
        return sum(worker.unfinished for worker in workers if isinstance(worker, Subscriber))

    @property
    def _orphaned(self) -> int:
        return self._inbox_owners.orphan_count

    def _age_s(self, created_at: float | None) -> float:
        return max(0.0, self._store.now() - created_at) if created_at else 0.0

    def _in_flight(self) -> int:
        return sum(
            handle.worker.stats.in_flight
            for key, handle in self._pool.handles.items()
            if handle.worker is not None and key.kind is WorkerKind.PUBLISHER
        )


def find_process_troubles(processes: Sequence[ProcessView]) -> list[str]:
    """Processes that are not there though they should be, in words."""
    return [
        f"handler process {one.number} does not run: {one.trouble}"
        for one in processes
        if one.phase is ProcessPhase.BACKING_OFF
    ]


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


def describe_attempt(attempt: ReloadResult) -> model.Attempt:
    """The verdict of the last look."""
    return model.Attempt(
        at=rfc3339(attempt.at),
        result=attempt.result,
        trigger=attempt.trigger,
        by=attempt.by,
        problems=list(attempt.problems),
        duration_seconds=round(attempt.duration_s, 6),
    )


def describe_pin_and_trial(rollback: Rollback) -> tuple[model.Pinned | None, model.OnTrial | None]:
    """Whether an older set is pinned, and whether the one in force is on trial."""
    pin, trial = rollback.pin, rollback.trial
    return (
        None if pin is None else model.Pinned(reason=pin.reason, by=pin.by, since=rfc3339(pin.at)),
        None
        if trial is None
        else model.OnTrial(baseline=trial.baseline.digest, ends_in_seconds=rollback.trial_left_s()),
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


def describe_nodes(
    pool: WorkerPool, applied: Applied | None, hellos: dict[str, str], overrides: Overrides
) -> dict[str, model.Node]:
    """Every node this daemon runs, with its workers: those that there are, then those that are missing."""
    wanted = applied.desired.workers if applied else {}
    nodes = {str(node): model.Node() for node in (applied.desired.run_nodes if applied else ())}
    actions = {key.name: "started" if one.starts else "stopped" for key, one in overrides.items()}
    for key in [*sorted(pool.handles), *sorted(wanted.keys() - pool.handles.keys())]:
        worker = describe_worker(key, pool.handles.get(key))
        worker.override = actions.get(key.name, msgspec.UNSET)
        if worker.override is not msgspec.UNSET and key not in pool.handles:
            worker.last_error = None  # that somebody has stopped it is the reason
        nodes.setdefault(str(key.node), model.Node()).workers.append(worker)
    for name, node in nodes.items():
        node.last_hello_at = hellos.get(name)
    return nodes


NOT_STARTED = "it has not been started yet"


def describe_worker(key: WorkerKey, handle: Handle | None) -> model.Worker:
    """One worker; None for one that should be there and is not."""
    described = model.Worker(
        name=key.name, kind=str(key.kind), subject=key.subject, phase=str(Phase.STOPPED)
    )
    if handle is None:
        described.last_error = NOT_STARTED
        return described
    stats = handle.worker.stats if handle.worker is not None else None
    sends = key.kind is WorkerKind.PUBLISHER
    described.phase = str(handle.phase)
    described.since = rfc3339(handle.since_at)
    described.restarts = handle.restarts
    described.in_flight = stats.in_flight if stats else 0
    described.handled = (stats.acked if sends else stats.handled) if stats else 0
    described.failed = (stats.dead if sends else stats.failed) if stats else 0
    described.last_error = find_trouble(handle) or handle.last_error
    if stats is not None:
        names = ("sent", "missed", "foreign") if sends else _TAKEN_COUNTERS
        for name in names:
            setattr(described, name, getattr(stats, name))
    kept = handle.worker.kept if isinstance(handle.worker, Subscriber) else None
    if kept is not None:
        oldest_at = None if kept.oldest_at is None else rfc3339(kept.oldest_at)
        described.kept = model.KeptByStream(**{**kept._asdict(), "oldest_at": oldest_at})
    if isinstance(handle.spec, PublisherSpec):
        described.declared = handle.spec.entry is not None
        described.entry = handle.spec.entry
    return described


_TAKEN_COUNTERS = ("refused", "repeats", "dropped", "turned_away")


NOT_REACHED = "it has not been reached yet"


def say_unconnected(trouble: str) -> str:
    """That there is no broker, with the words of whoever refused or lost the connection."""
    return f"not connected to the broker: {trouble or NOT_REACHED}"


def find_trouble(handle: Handle) -> str | None:
    """What keeps a running worker from doing all of its work."""
    return handle.worker.trouble if handle.worker is not None else None


def describe_record(
    record: OutboxRecord, standing: Standing, *, now: float, wall_of: Callable[[float], float]
) -> model.OutboxRecord:
    """One record of the outbox and where it stands; `now` and its own times are of the store's clock."""
    expires_at, next_at = record.expires_at, record.next_at
    return model.OutboxRecord(
        id=record.id,
        from_node=record.node,
        to=record.to_node,
        method=record.method,
        subject=record.subject,
        accepted_at=rfc3339(wall_of(record.created_at)),
        age_seconds=round(max(0.0, now - record.created_at), 3),
        expires_at=rfc3339(wall_of(expires_at)) if expires_at else None,
        attempts=record.attempts,
        next_at=rfc3339(wall_of(next_at)) if next_at else None,
        last_error=record.last_error,
        bytes=len(record.payload),
        state=str(standing.state),
        why=standing.why,
    )


def describe_dead(
    letter: DeadLetter, *, now: float, wall_of: Callable[[float], float]
) -> model.OutboxRecord:
    """One dead letter, with how it ended and why."""
    standing = Standing(state_of_reason(letter.reason), why_of_reason(letter.reason))
    described = describe_record(letter.record, standing, now=now, wall_of=wall_of)
    described.reason = letter.reason
    described.died_at = rfc3339(wall_of(letter.died_at))
    described.dead_seconds = round(max(0.0, now - letter.died_at), 3)
    return described


def find_degradations(
    pool: WorkerPool,
    applied: Applied | None,
    attempt: ReloadResult | None,
    *,
    broker_trouble: str | None,
    dead: int,
    overrides: Overrides,
    delivery: Sequence[str] = (),
) -> list[str]:
    """Why the appliance is not healthy, in words; empty when it is.

    Args:
        broker_trouble: why there is no connection, "" where nothing is known; None while there is one.
        delivery: why messages do not get on.
    """
    reasons = []
    if broker_trouble is not None:
        reasons.append(say_unconnected(broker_trouble))
    if attempt is not None and attempt.result == "reverted":
        first = _say_first(attempt.problems)
        reasons.append(f"the last config was taken back after its trial{first}")
    if attempt is not None and attempt.result == "refused":
        count = len(attempt.problems)
        first = _say_first(attempt.problems)
        said = f"({count} problem{'s' if count != 1 else ''}){first}"
        # a trial is judged, and the way back may be refused: the config was not
        is_way_back = attempt.trigger == "trial"
        what = "the way back from a failed trial" if is_way_back else "the last config"
        reasons.append(f"{what} was refused {said}")
    broken = {
        key.name: handle.last_error
        for key, handle in pool.handles.items()
        if handle.phase in (Phase.BACKING_OFF, Phase.FAILED, Phase.STOPPED)
    }
    # what an operator has stopped by hand is drift, and told as that
    wanted = applied.desired.workers.keys() - overrides.keys() if applied else set()
    missing = len(wanted - pool.handles.keys())
    if broken or missing:
        names = ", ".join(list(broken)[:3])
        # mostly one reason for all; the others stand beside each worker
        why = next((why for why in broken.values() if why), "" if broken else NOT_STARTED)
        count = len(broken) + missing
        said = "1 worker does not run" if count == 1 else f"{count} workers do not run"
        named = f"{said}: {names}" if names else said
        # without a connection that is the reason, and stands above
        reasons.append(f"{named} ({why})" if why and broker_trouble is None else named)
    reasons += delivery
    if dead:
        reasons.append(f"{dead} dead letter{'s' if dead != 1 else ''}")
    return reasons


def _say_first(problems: Sequence[Problem]) -> str:
    """The first problem, where there is one: what is wrong is not told without why."""
    first = next((one for one in problems if one.severity is Severity.ERROR), None)
    if first is None:
        return ""
    line = f":{first.line}" if first.line else ""
    # what cannot be read has no line, and nobody knows what "it" is without the name
    place = f"{os.path.basename(first.file)}{line} " if first.file else ""
    return f": {first.code} {place}{first.message}"


def describe_state(
    *,
    generation: int,
    revision: str | None,
    running: int,
    workers: int,
    connected: bool,
    result: str,
    at: float,
    problems: Sequence[Problem],
    store_trouble: str | None = None,
) -> str:
    """One line: what runs, what the last look at the config found, and what is the matter with the store."""
    where = f"generation {generation}" + (f" ({revision[:12]})" if revision else "")
    line = f"{where}, {running} of {workers} workers running"
    if not connected:
        line += ", not connected to the broker"
    if store_trouble is not None:
        line += f", {store_trouble}"
    line += f"; config {result} at {clock_time(at)}"
    if result == "refused" and problems:
        first = problems[0]
        place = f"{first.file}:{first.line}: " if first.line else ""
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        line += f": {place}{first.code} {first.message}{more}"
    return line
