"""Telemetry: one past-tense method per fact. Each writes its log line, counts, and tells the event
hub.

Levels: INFO a normal thing an operator may want to know, WARNING something went wrong and recovers
by itself, ERROR data was lost or a human is needed. Lines that a storm would repeat (a node away, a
stranger who keeps sending) are held back per worker and their number told. The facts of single
messages cost next to nothing while nobody listens.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from appliance.core.names import WorkerKey
from appliance.core.problems import Problem, Severity
from appliance.core.times import rfc3339
from appliance.telemetry.events import time_of_event
from appliance.telemetry.messages import MessageTelemetry
from appliance.telemetry.stats import DrainReport

MAX_PROBLEM_LINES = 20
OPERATOR_TRIGGERS = ("request", "signal")
"""Looks that a person asked for, who waits for a line even when nothing changed."""


class Telemetry(MessageTelemetry):
    """Tells facts of the daemon, its workers, the broker and the config; messages are in the base class."""

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

    def drain_finished(self, drains: Sequence[DrainReport]) -> None:
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

    def clock_jumped(self, by_s: float) -> None:
        """The wall clock was set, by so many seconds forward (or back, below 0). Ages do not follow it."""
        self.counts.clock_jumps += 1
        self._log(logging.WARNING, "the wall clock was set", {"by_s": round(by_s, 3)})
        self._events.emit("clock_jumped", by_s=round(by_s, 3))

    def letters_revived(self, node: str, count: int) -> None:
        """A node has turned out to be there: dead letters of an earlier version to it are sent again."""
        fields = {"node": node, "count": count}
        self._log(logging.INFO, "dead letters of an earlier version are tried again", fields)
        self._events.emit("letters_revived", **fields)

    def jobs_troubled(self, text: str) -> None:
        """The file of jobs cannot be used as it is."""
        self._log(logging.ERROR, "jobs troubled", {"error": text})
        self._events.emit("jobs_troubled", error=text)

    def secret_changed(self, places: Sequence[str]) -> None:
        """Secrets or certificates that the config names hold something else than before."""
        self._log(logging.INFO, "secrets changed", {"places": ", ".join(places)})
        self._events.emit("secret_changed", places=list(places))

    def secret_troubled(self, place: str, trouble: str) -> None:
        """One cannot be used, for another reason than before."""
        self._log(logging.WARNING, "secret unusable", {"place": place, "error": trouble})
        self._events.emit("secret_troubled", place=place, error=trouble)

    def secret_recovered(self, place: str) -> None:
        """It can be used again."""
        self._log(logging.INFO, "secret usable again", {"place": place})
        self._events.emit("secret_recovered", place=place)

    def secret_expires_soon(self, place: str, expires_at: float) -> None:
        """It can be used for two more weeks at most."""
        fields = {"place": place, "expires_at": rfc3339(expires_at)}
        self._log(logging.WARNING, "secret expires soon", fields)
        self._events.emit("secret_expires_soon", **fields)

    def secret_not_taken(self, by: str, error: str) -> None:
        """The broker does not take what is new; the connection that is there goes on."""
        self._log(logging.WARNING, f"changed secrets not taken by the {by}", {"error": error})
        self._events.emit("secret_not_taken", by=by, error=error)

    def input_troubled(self, error: str | None) -> None:
        """The read folder cannot be used, or with None can again."""
        if error is None:
            self._log(logging.INFO, "input folder usable again", {})
        else:
            self._log(logging.WARNING, "input folder troubled", {"error": error})
        self._events.emit("input_troubled", error=error)

    # processes that compute

    def process_died(self, number: int, pid: int | None, reason: str, doing: str) -> None:
        """One ended, or could not be started, and is started again."""
        fields = {"process": number, "pid": pid, "error": reason, "doing": doing}
        self._log(logging.WARNING, "handler process ended", fields)
        self._events.emit("process_died", **fields)

    def process_restarted(self, number: int, pid: int) -> None:
        """One that had ended is up again."""
        fields = {"process": number, "pid": pid}
        self._log(logging.INFO, "handler process started again", fields)
        self._events.emit("process_restarted", **fields)

    # workers

    def worker_started(self, key: WorkerKey) -> None:
        """A worker takes messages."""
        self._worker(logging.DEBUG, "worker started", "worker_started", key)

    def worker_updated(self, key: WorkerKey, fields: Sequence[str]) -> None:
        """Live settings changed inside a running worker."""
        changed = {"fields": list(fields)}
        self._worker(logging.DEBUG, "worker updated", "worker_updated", key, changed)

    def worker_swapped(self, key: WorkerKey, fields: Sequence[str]) -> None:
        """What stands behind a running subscription was replaced."""
        changed = {"fields": list(fields)}
        self._worker(logging.DEBUG, "worker swapped", "worker_swapped", key, changed)

    def worker_stopped(self, key: WorkerKey, report: DrainReport | None) -> None:
        """A worker is gone, with what its drain did if it could still drain."""
        counts: dict[str, object] = {}
        level = logging.DEBUG
        if report is not None:
            counts = {
                "finished": report.finished,
                "handed_back": report.handed_back,
                "abandoned": report.abandoned,
            }
            self.counts.drain_abandoned += report.abandoned
            level = logging.ERROR if report.abandoned else logging.DEBUG
        self._worker(level, "worker stopped", "worker_stopped", key, counts)

    def worker_failed(
        self, key: WorkerKey, error: str, retry_in_s: float, *, is_news: bool = True
    ) -> None:
        """A worker ended or could not start; `retry_in_s` is 0 when it is not tried by itself.

        Where it is no news (it failed with the same words before, or for want of the broker, whose absence is a line of
        its own) the line is for who looks for it.
        """
        fields: dict[str, object] = {"error": error}
        if retry_in_s > 0:
            fields["retry_in_s"] = round(retry_in_s, 3)
        if is_news:
            level = logging.WARNING if retry_in_s > 0 else logging.ERROR
            self._worker(level, "worker failed", "worker_failed", key, fields, storm="failed")
        else:
            self._worker(logging.DEBUG, "worker failed again", "worker_failed", key, fields)

    def worker_recovered(self, key: WorkerKey) -> None:
        """A worker that had failed runs again."""
        self._worker(logging.INFO, "worker recovered", "worker_recovered", key)

    def worker_troubled(self, key: WorkerKey, error: str) -> None:
        """A worker cannot go on for the moment and keeps trying."""
        fields = {"error": error}
        self._worker(
            logging.WARNING, "worker troubled", "worker_troubled", key, fields, storm="troubled"
        )

    def schedule_missed(self, key: WorkerKey, missed_at: float, *, is_made_up: bool) -> None:
        """Times of a `cron` schedule passed unseen, the first of them at `missed_at` by the wall clock."""
        fields: dict[str, object] = {"at": time_of_event(missed_at), "made_up": is_made_up}
        self._worker(logging.WARNING, "time of a schedule missed", "schedule_missed", key, fields)

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

    def broker_error_again(self, text: str) -> None:
        """The same trouble as before: a line for who looks for it."""
        self._log(logging.DEBUG, "broker trouble goes on", {"error": text})

    # the store

    def store_troubled(self, state: str, trouble: str) -> None:
        """The store is not well any more, or not well in another way; `behind` is what a busy disk does."""
        level = logging.WARNING if state == "behind" else logging.ERROR
        self._log(level, "store troubled", {"state": state, "trouble": trouble})
        self._events.emit("store_troubled", state=state, trouble=trouble)

    def store_recovered(self, state: str) -> None:
        """The store is well again, after this trouble."""
        self._log(logging.INFO, "store well again", {"after": state})
        self._events.emit("store_recovered", after=state)

    # the config

    def config_applied(
        self,
        generation: int,
        digest: str,
        revision: str | None,
        plan_counts: Mapping[str, int],
        duration_s: float,
        trigger: str,
        result: str = "applied",
        *,
        is_taken_back: bool = False,
    ) -> None:
        """A set is in force; `result` is "reverted" where it is so again after the trial of another.

        `is_taken_back`: the files hold that other one, after a restart, too.
        """
        self._count_reload(result, is_taken_back=is_taken_back)
        self.counts.reload_duration.observe(duration_s)
        plan = {kind: count for kind, count in plan_counts.items() if count}
        fields: dict[str, object] = {
            "generation": generation,
            "digest": digest,
            "revision": revision,
            "trigger": trigger,
            "duration_s": round(duration_s, 6),
        }
        told = {name: value for name, value in fields.items() if value is not None}
        self._log(logging.INFO, "config applied", {**told, **plan})
        self._events.emit("config_applied", **fields, plan=plan)

    def config_unchanged(self, trigger: str, *, is_taken_back: bool = False) -> None:
        """A look found the set in force; worth a line and an event if it clears a refusal or was asked for.

        Files are looked at again each minute, whatever the watch says: a day of that is not what people look for.
        """
        was_refused = not self.counts.last_reload_successful and not is_taken_back
        self._count_reload("unchanged", is_taken_back=is_taken_back)
        is_told = was_refused or trigger in OPERATOR_TRIGGERS
        sentence = "config good again" if was_refused else "config unchanged"
        self._log(logging.INFO if is_told else logging.DEBUG, sentence, {"trigger": trigger})
        if is_told:
            self._events.emit("config_unchanged", trigger=trigger)

    def config_reverted(self, problems: Sequence[Problem]) -> None:
        """A set did not stand its trial; the one before it is in force again."""
        self._log(logging.ERROR, "config taken back after its trial", {"problems": len(problems)})
        for problem in problems[:MAX_PROBLEM_LINES]:
            self._log(logging.ERROR, "trial failed", {"problem": problem.message})
        self._events.emit(
            "config_reverted", problems=[problem.message for problem in problems[:50]]
        )

    def trial_passed(self, generation: int) -> None:
        """Everything that a set touched runs at the end of its trial."""
        self._log(logging.INFO, "config stood its trial", {"generation": generation})
        self._events.emit("trial_passed", generation=generation)

    def config_refused(self, problems: Sequence[Problem], trigger: str) -> None:
        """A set was refused as a whole; the one in force stays."""
        self._count_reload("refused")
        errors = [problem for problem in problems if problem.severity is Severity.ERROR]
        count = {"problems": len(errors), "trigger": trigger}
        at_start = trigger == "start"
        now = "the last good set starts instead" if at_start else "the running set stays in force"
        self._log(logging.ERROR, f"config refused, {now}", count)
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

    def service_broke(self, text: str) -> None:
        """A task that is to last broke on something unforeseen; it begins anew."""
        self._log(logging.ERROR, "internal error", {"error": text})
        self._events.emit("service_broke", error=text)

    def pass_failed(self, error: str) -> None:
        """A pass over the workers broke on something unforeseen; the next one is made all the same."""
        self._log(logging.ERROR, "pass over the workers failed", {"error": error})
        self._events.emit("pass_failed", error=error)

    def history_not_written(self, error: str) -> None:
        """The record of a set could not be kept; the set itself is in force all the same."""
        self._log(logging.ERROR, "history not written", {"error": error})
        self._events.emit("history_not_written", error=error)

    def _count_reload(self, result: str, *, is_taken_back: bool = False) -> None:
        now = self._wall()
        self.counts.reloads[result] += 1
        self.counts.last_attempt_at = now
        is_bad = result in ("refused", "reverted") or is_taken_back
        self.counts.last_reload_successful = not is_bad
        if self.counts.last_reload_successful:
            self.counts.last_reload_success_at = now
