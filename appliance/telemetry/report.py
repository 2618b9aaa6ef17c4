"""Telemetry: one past-tense method per fact. Each writes its log line, counts, and tells the event
hub.

Levels: INFO a normal thing an operator may want to know, WARNING something went wrong and recovers
by itself, ERROR data was lost or a human is needed. Lines that a storm would repeat (a node away, a
stranger who keeps sending) are held back per worker and their number told. The facts of single
messages cost next to nothing while nobody listens.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.core.escape import escape_controls
from appliance.core.names import WorkerKey
from appliance.core.problems import Problem, Severity
from appliance.telemetry.events import EventHub
from appliance.telemetry.logs import ROOT
from appliance.telemetry.stats import LightHistogram
from appliance.telemetry.storms import StormGuard

MAX_PROBLEM_LINES = 20
MAX_REPLY_CHARACTERS = 65_536
"""Of a reply's text in an event; the whole reply is where its handler put it."""

RELOAD_RESULTS = ("applied", "unchanged", "refused")


class DrainCounts(Protocol):
    """What a worker's stop did with the work in hand."""

    @property
    def worker(self) -> str: ...

    @property
    def finished(self) -> int: ...

    @property
    def handed_back(self) -> int: ...

    @property
    def abandoned(self) -> int: ...


@dataclass(slots=True)
class TelemetryCounts:
    """Counts that belong to no worker. Read by the metrics."""

    reloads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RELOAD_RESULTS, 0))
    reload_duration: LightHistogram = field(default_factory=LightHistogram)
    last_reload_successful: bool = True
    last_reload_success_at: float = 0.0
    last_attempt_at: float = 0.0
    messages_accepted: int = 0
    drain_abandoned: int = 0
    error_reports_suppressed: int = 0
    error_reports_lost: int = 0
    lines_suppressed: int = 0


class Telemetry:
    """Tells facts. Used on the event loop only."""

    def __init__(
        self,
        events: EventHub,
        logger: logging.Logger | None = None,
        *,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._logger = logger or logging.getLogger(ROOT)
        self._wall = wall
        self.counts = TelemetryCounts()
        self._storms = StormGuard(self._suppressed_told, mono=mono)

    # the daemon

    def daemon_ready(self, summary: str) -> None:
        """Everything is up."""
        self._log(logging.INFO, "ready", {"summary": summary})
        self._events.emit("daemon_ready", summary=summary)

    def daemon_stopping(self, reason: str) -> None:
        """The end has begun."""
        self._log(logging.INFO, "stopping", {"reason": reason})
        self._events.emit("daemon_stopping", reason=reason)

    def status_dumped(self, status: Mapping[str, object]) -> None:
        """Somebody asked by signal for the status in the log."""
        self._log(logging.INFO, "status asked for by signal", {"status": status})

    def drain_finished(self, drains: Sequence[DrainCounts]) -> None:
        """Every worker has stopped."""
        finished = sum(drain.finished for drain in drains)
        handed_back = sum(drain.handed_back for drain in drains)
        abandoned = sum(drain.abandoned for drain in drains)
        fields = {
            "workers": len(drains),
            "finished": finished,
            "handed_back": handed_back,
            "abandoned": abandoned,
        }
        # a single worker's stop was counted when it stopped, see worker_stopped
        level = logging.ERROR if abandoned else logging.INFO
        self._log(level, "stopped all workers", fields)
        self._events.emit("drain_finished", **fields)

    # workers

    def worker_started(self, key: WorkerKey) -> None:
        """A worker takes messages."""
        self._worker(logging.INFO, "worker started", "worker_started", key)

    def worker_updated(self, key: WorkerKey, fields: Sequence[str]) -> None:
        """Live settings changed inside a running worker."""
        changed = {"fields": list(fields)}
        self._worker(logging.INFO, "worker updated", "worker_updated", key, changed)

    def worker_swapped(self, key: WorkerKey, fields: Sequence[str]) -> None:
        """What stands behind a running subscription was replaced."""
        changed = {"fields": list(fields)}
        self._worker(logging.INFO, "worker swapped", "worker_swapped", key, changed)

    def worker_stopped(self, key: WorkerKey, report: DrainCounts | None) -> None:
        """A worker is gone, with what its drain did if it could still drain."""
        counts: dict[str, object] = {}
        level = logging.INFO
        if report is not None:
            counts = {
                "finished": report.finished,
                "handed_back": report.handed_back,
                "abandoned": report.abandoned,
            }
            self.counts.drain_abandoned += report.abandoned
            level = logging.ERROR if report.abandoned else logging.INFO
        self._worker(level, "worker stopped", "worker_stopped", key, counts)

    def worker_failed(self, key: WorkerKey, error: str, retry_in_s: float) -> None:
        """A worker ended or could not start; `retry_in_s` is 0 when it is not tried by itself."""
        fields: dict[str, object] = {"error": error}
        if retry_in_s > 0:
            fields["retry_in_s"] = round(retry_in_s, 3)
        level = logging.WARNING if retry_in_s > 0 else logging.ERROR
        self._worker(level, "worker failed", "worker_failed", key, fields, storm="failed")

    def worker_recovered(self, key: WorkerKey) -> None:
        """A worker that had failed runs again."""
        self._worker(logging.INFO, "worker recovered", "worker_recovered", key)

    def worker_troubled(self, key: WorkerKey, error: str) -> None:
        """A worker cannot go on for the moment and keeps trying."""
        fields = {"error": error}
        self._worker(
            logging.WARNING, "worker troubled", "worker_troubled", key, fields, storm="troubled"
        )

    # the broker

    def broker_connected(self, server: str) -> None:
        """A connection is in use."""
        self._log(logging.INFO, "broker connected", {"server": server})
        self._events.emit("broker_connected", server=server)

    def broker_disconnected(self, reason: str = "") -> None:
        """The connection is gone; messages wait in the outbox."""
        self._log(logging.WARNING, "broker disconnected", {"reason": reason} if reason else {})
        self._events.emit("broker_disconnected", reason=reason)

    def broker_error(self, text: str) -> None:
        """The broker or the way to it makes trouble."""
        self._log(logging.WARNING, "broker trouble", {"error": text})
        self._events.emit("broker_error", error=text)

    # the config

    def config_applied(
        self,
        generation: int,
        digest: str,
        revision: str | None,
        plan_counts: Mapping[str, int],
        duration_s: float,
        trigger: str,
    ) -> None:
        """A set is in force."""
        self._count_reload("applied")
        self.counts.reload_duration.observe(duration_s)
        plan = {kind: count for kind, count in plan_counts.items() if count}
        fields: dict[str, object] = {
            "generation": generation,
            "digest": digest,
            "revision": revision,
            "trigger": trigger,
            "duration_s": round(duration_s, 6),
        }
        self._log(logging.INFO, "config applied", {**fields, **plan})
        self._events.emit("config_applied", **fields, plan=plan)

    def config_unchanged(self, trigger: str) -> None:
        """A look found the set in force."""
        self._count_reload("unchanged")
        self._log(logging.INFO, "config unchanged", {"trigger": trigger})
        self._events.emit("config_unchanged", trigger=trigger)

    def config_refused(self, problems: Sequence[Problem], trigger: str) -> None:
        """A set was refused as a whole; the one in force stays."""
        self._count_reload("refused")
        errors = [problem for problem in problems if problem.severity is Severity.ERROR]
        count = {"problems": len(errors), "trigger": trigger}
        self._log(logging.ERROR, "config refused, the running set stays in force", count)
        for problem in errors[:MAX_PROBLEM_LINES]:
            place = (
                f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
            )
            fields = {"code": problem.code, "place": place, "path": problem.path}
            shown = {key: value for key, value in fields.items() if value}
            self._log(logging.ERROR, "config problem", {**shown, "problem": problem.message})
        if len(errors) > MAX_PROBLEM_LINES:
            self._log(
                logging.ERROR, "more config problems", {"count": len(errors) - MAX_PROBLEM_LINES}
            )
        codes = [problem.code for problem in errors[:MAX_PROBLEM_LINES]]
        self._events.emit("config_refused", **count, codes=codes)

    def history_not_written(self, error: str) -> None:
        """The record of a set could not be kept; the set itself is in force all the same."""
        self._log(logging.ERROR, "history not written", {"error": error})
        self._events.emit("history_not_written", error=error)

    # messages: frequent, so cheap while nobody listens

    def messages_accepted(self, count: int) -> None:
        """Messages from a caller are on disk."""
        self.counts.messages_accepted += count
        if self._logger.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, "messages accepted", {"count": count})
        if self._events.has_listeners:
            self._events.emit_frequent("messages_accepted", count=count)

    def message_accepted(self, *ids: int) -> None:
        """Messages with these ids are on disk."""
        self.messages_accepted(len(ids))

    def message_delivered(
        self, node: str, id_: int, to_node: str, method: str, seconds: float
    ) -> None:
        """Acknowledged, or sent where no acknowledgement is asked for."""
        if self._events.has_listeners:
            self._events.emit_frequent(
                "message_delivered",
                node=node,
                id=id_,
                to=to_node,
                method=method,
                seconds=round(seconds, 6),
            )
        if self._logger.isEnabledFor(logging.DEBUG):
            fields = {"node": node, "id": id_, "to": to_node, "method": method, "seconds": seconds}
            self._log(logging.DEBUG, "message delivered", fields)

    def attempt_missed(
        self, key: WorkerKey, id_: int, outcome: str, attempt: int, next_in_s: float
    ) -> None:
        """An attempt got no acknowledgement; the message stays and is tried again."""
        if self._events.has_listeners:
            self._events.emit_frequent(
                "attempt_missed",
                node=key.node,
                worker=key.name,
                id=id_,
                outcome=outcome,
                attempt=attempt,
                next_in_seconds=round(next_in_s, 3),
            )
        fields = {"id": id_, "outcome": outcome, "attempt": attempt, "next_in_s": next_in_s}
        self._held_back("missed", logging.WARNING, "message not acknowledged", key, fields)

    def message_dead(
        self, key: WorkerKey, id_: int, to_node: str, method: str, reason: str
    ) -> None:
        """A message was parked as a dead letter."""
        fields: dict[str, object] = {"id": id_, "to": to_node, "method": method, "reason": reason}
        self._worker(logging.ERROR, "dead letter", "message_dead", key, fields, storm="dead")

    def message_refused(self, key: WorkerKey, sender: str, reason: str) -> None:
        """An incoming message was not admitted."""
        fields = {"sender": sender, "reason": reason}
        self._worker(
            logging.WARNING, "message refused", "message_refused", key, fields, storm="refused"
        )

    def message_dropped(self, key: WorkerKey) -> None:
        """Too many messages wait: one was dropped unacknowledged, so its sender sends it again."""
        if self._events.has_listeners:
            self._events.emit_frequent("message_dropped", node=key.node, worker=key.name)
        self._held_back("dropped", logging.WARNING, "message dropped: too many wait", key, {})

    def handler_failed(self, key: WorkerKey, sender: str, id_: int, error: str) -> None:
        """A handler refused or broke."""
        fields: dict[str, object] = {"sender": sender, "id": id_, "error": error}
        self._worker(
            logging.WARNING, "handler failed", "handler_failed", key, fields, storm="handler"
        )

    def message_interrupted(self, key: WorkerKey, sender: str, id_: int) -> None:
        """The daemon had died while this message was handled; it was not run again."""
        fields: dict[str, object] = {"sender": sender, "id": id_}
        self._worker(logging.ERROR, "message interrupted", "message_interrupted", key, fields)

    def reply_received(
        self,
        node: str,
        from_node: str,
        previous_id: int,
        id_: int,
        method: str,
        data: str,
        exit_status: str | int | None,
    ) -> None:
        """A reply to a message of ours arrived."""
        if self._events.has_listeners:
            self._events.emit_frequent(
                "reply_received",
                **{"from": from_node},
                node=node,
                previous_id=previous_id,
                id=id_,
                method=method,
                # JSON holds no bytes that are not UTF-8, so those are shown as escapes here
                data=escape_controls(data[:MAX_REPLY_CHARACTERS]),
                is_cut=len(data) > MAX_REPLY_CHARACTERS,
                exit_status=exit_status,
            )
        if self._logger.isEnabledFor(logging.DEBUG):
            fields = {"node": node, "from": from_node, "previous_id": previous_id, "id": id_}
            self._log(logging.DEBUG, "reply received", fields)

    def error_report_suppressed(self, count: int) -> None:
        """Reports to errorCentral were held back by the rate limit."""
        self.counts.error_reports_suppressed += count
        self._log(logging.WARNING, "error reports suppressed", {"count": count})
        self._events.emit("error_reports_suppressed", count=count)

    def error_report_lost(self, node: str, error: str) -> None:
        """A report to errorCentral could not even be stored."""
        self.counts.error_reports_lost += 1
        if self._storms.allows(f"report_lost {node}"):
            self._log(logging.ERROR, "error report lost", {"node": node, "error": error})
        self._events.emit("error_report_lost", node=node, error=error)

    # helpers

    def _count_reload(self, result: str) -> None:
        now = self._wall()
        self.counts.reloads[result] += 1
        self.counts.last_attempt_at = now
        self.counts.last_reload_successful = result != "refused"
        if result != "refused":
            self.counts.last_reload_success_at = now

    def _log(self, level: int, sentence: str, fields: Mapping[str, object]) -> None:
        self._logger.log(level, sentence, extra={"fields": fields})

    def _worker(
        self,
        level: int,
        sentence: str,
        kind: str,
        key: WorkerKey,
        fields: Mapping[str, object] | None = None,
        *,
        storm: str | None = None,
    ) -> None:
        """Log and emit a fact of one worker; with `storm` the line is held back when repeated."""
        told = dict(fields or {})
        if storm is None:
            self._log(level, sentence, {"worker": key.name, "node": key.node, **told})
        else:
            self._held_back(storm, level, sentence, key, told)
        self._events.emit(kind, node=key.node, worker=key.name, **told)

    def _held_back(
        self, storm: str, level: int, sentence: str, key: WorkerKey, fields: Mapping[str, object]
    ) -> None:
        name = key.name
        if self._storms.allows(f"{storm} {name}"):
            self._log(level, sentence, {"worker": name, "node": key.node, **fields})

    def _suppressed_told(self, name: str, count: int) -> None:
        self.counts.lines_suppressed += count
        kind, _, worker = name.partition(" ")
        fields = {"worker": worker, "kind": kind, "count": count}
        self._log(logging.WARNING, "similar lines suppressed", fields)
