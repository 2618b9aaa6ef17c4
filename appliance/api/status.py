"""The status JSON: a snapshot of everything an operator asks first. Its words are a contract (product §4)."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence

from appliance.core.delivery import Standing, state_of_reason, why_of_reason
from appliance.core.names import NodeName
from appliance.core.overrides import Overrides
from appliance.core.problems import Problem
from appliance.core.specs import Phase, PublisherSpec
from appliance.outbox.records import DeadLetter, OutboxRecord
from appliance.reconcile.going_back import GoingBack
from appliance.reconcile.pool import Handle, WorkerPool
from appliance.reconcile.verdicts import Applied, Verdict, problem_json

StatusJson = dict[str, object]


LAST_SHOWN_AT = 253_402_300_799.0
"""The end of the year 9999: what lies beyond (an expiry of a thousand years) is shown as that."""


def rfc3339(at: float) -> str:
    """Wall-clock seconds as text with zone."""
    at = min(max(at, 0.0), LAST_SHOWN_AT)
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds")


def config_json(applied: Applied | None, attempt: Verdict | None, paths: list[str]) -> StatusJson:
    """The set in force and the verdict of the last look."""
    last: StatusJson | None = None
    if attempt is not None:
        last = {
            "at": rfc3339(attempt.at),
            "result": attempt.result,
            "trigger": attempt.trigger,
            "by": attempt.by,
            "problems": [problem_json(problem) for problem in attempt.problems],
            "duration_seconds": round(attempt.duration_s, 6),
        }
    return {
        "digest": applied.digest if applied else None,
        "revision": applied.revision if applied else None,
        "branch": applied.branch if applied else None,
        "dirty": applied.dirty if applied else None,
        "paths": paths,
        "applied_at": rfc3339(applied.applied_at) if applied else None,
        "last_attempt": last,
    }


def fallback_json(going_back: GoingBack) -> StatusJson:
    """Whether an older set is pinned, and whether the one in force is on trial."""
    pin, trial = going_back.pin, going_back.trial
    return {
        "pinned": None
        if pin is None
        else {"reason": pin.reason, "by": pin.by, "since": rfc3339(pin.at)},
        "on_trial": None
        if trial is None
        else {"baseline": trial.baseline.digest, "ends_in_seconds": going_back.trial_left_s()},
    }


def overrides_json(overrides: Overrides) -> list[StatusJson]:
    """Workers that are not as the config says because somebody started or stopped them."""
    return [
        {
            "worker": key.name,
            "node": key.node,
            "action": "started" if override.starts else "stopped",
            "by": override.by,
            "at": rfc3339(override.at),
        }
        for key, override in sorted(overrides.items())
    ]


def nodes_json(
    pool: WorkerPool,
    applied: Applied | None,
    hellos: Mapping[NodeName, float],
    overrides: Overrides,
) -> StatusJson:
    """Every node this daemon runs, with its workers."""
    nodes: dict[str, dict[str, list[StatusJson]]] = {}
    names = {key.name: override for key, override in overrides.items()}
    for node in applied.desired.run_nodes if applied else ():
        nodes[node] = {"workers": []}
    for key in sorted(pool.handles):
        nodes.setdefault(key.node, {"workers": []})["workers"].append(
            worker_json(key.name, str(key.kind), key.subject, pool.handles[key])
        )
    if applied:
        missing = applied.desired.workers.keys() - pool.handles.keys()
        for key in sorted(missing):
            nodes.setdefault(key.node, {"workers": []})["workers"].append(
                {
                    "name": key.name,
                    "kind": str(key.kind),
                    "subject": key.subject,
                    "phase": "stopped",
                }
            )
    for found in nodes.values():
        for worker in found["workers"]:
            override = names.get(str(worker["name"]))
            if override is not None:
                worker["override"] = "started" if override.starts else "stopped"
    return {
        node: {
            **found,
            "last_hello_at": rfc3339(hellos[NodeName(node)]) if node in hellos else None,
        }
        for node, found in nodes.items()
    }


def worker_json(name: str, kind: str, subject: str, handle: Handle) -> StatusJson:
    """One worker."""
    stats = handle.worker.stats if handle.worker is not None else None
    spec = handle.spec
    described: StatusJson = {
        "name": name,
        "kind": kind,
        "subject": subject,
        "phase": str(handle.phase),
        "since": rfc3339(handle.since_at),
        "restarts": handle.restarts,
        "in_flight": stats.in_flight if stats else 0,
        "handled": (stats.acked if kind == "publisher" else stats.handled) if stats else 0,
        "failed": (stats.dead if kind == "publisher" else stats.failed) if stats else 0,
        "last_error": find_trouble(handle) or handle.last_error,
    }
    if stats is not None and kind == "subscriber":
        described |= {"refused": stats.refused, "repeats": stats.repeats, "dropped": stats.dropped}
        described["turned_away"] = stats.turned_away
    elif stats is not None:
        described |= {"sent": stats.sent, "missed": stats.missed, "foreign": stats.foreign}
    if isinstance(spec, PublisherSpec):
        described["declared"] = spec.entry is not None
        described["entry"] = spec.entry
    return described


def say_unconnected(trouble: str) -> str:
    """That there is no broker, with the words of whoever refused or lost the connection."""
    return "not connected to the broker" + (f": {trouble}" if trouble else "")


def find_trouble(handle: Handle) -> str | None:
    """What keeps a running worker from doing all of its work."""
    return handle.worker.trouble if handle.worker is not None else None


def record_json(
    record: OutboxRecord, standing: Standing, *, now: float, wall_of: Callable[[float], float]
) -> StatusJson:
    """One record of the outbox and where it stands; `now` and its own times are of the store's clock."""
    expires_at, next_at = record.expires_at, record.next_at
    return {
        "id": record.id,
        "from": record.node,
        "to": record.to_node,
        "method": record.method,
        "subject": record.subject,
        "accepted_at": rfc3339(wall_of(record.created_at)),
        "age_seconds": round(max(0.0, now - record.created_at), 3),
        "expires_at": rfc3339(wall_of(expires_at)) if expires_at else None,
        "attempts": record.attempts,
        "next_at": rfc3339(wall_of(next_at)) if next_at else None,
        "last_error": record.last_error,
        "bytes": len(record.payload),
        "state": str(standing.state),
        "why": standing.why,
    }


def dead_json(letter: DeadLetter, *, now: float, wall_of: Callable[[float], float]) -> StatusJson:
    """One dead letter, with how it ended and why."""
    standing = Standing(state_of_reason(letter.reason), why_of_reason(letter.reason))
    return {
        **record_json(letter.record, standing, now=now, wall_of=wall_of),
        "reason": letter.reason,
        "died_at": rfc3339(wall_of(letter.died_at)),
        "dead_seconds": round(max(0.0, now - letter.died_at), 3),
    }


def find_degradations(
    pool: WorkerPool,
    applied: Applied | None,
    attempt: Verdict | None,
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
        reasons.append("the last config was taken back after its trial")
    if attempt is not None and attempt.result == "refused":
        count = len(attempt.problems)
        reasons.append(f"the last config was refused ({count} problem{'s' if count != 1 else ''})")
    broken = [
        key.name
        for key, handle in pool.handles.items()
        if handle.phase in (Phase.BACKING_OFF, Phase.FAILED, Phase.STOPPED)
    ]
    wanted = applied.desired.workers.keys() - overrides.keys() if applied else set()
    missing = len(wanted - pool.handles.keys())
    if broken or missing:
        names = ", ".join(broken[:3])
        count = len(broken) + missing
        said = "1 worker does not run" if count == 1 else f"{count} workers do not run"
        reasons.append(f"{said}{': ' + names if names else ''}")
    reasons += delivery
    if dead:
        reasons.append(f"{dead} dead letter{'s' if dead != 1 else ''}")
    return reasons


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
    line += f"; config {result} at {time.strftime('%H:%M:%S', time.localtime(at))}"
    if result == "refused" and problems:
        first = problems[0]
        place = f"{first.file}:{first.line}: " if first.line else ""
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        line += f": {place}{first.code} {first.message}{more}"
    return line
