"""What is to be seen of the config: the set in force, and what came of the files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from appliance.api import model
from appliance.core.describe_methods import describe_methods
from appliance.core.problems import Problem, Severity
from appliance.core.times import rfc3339
from appliance.methods.registry import METHOD_TABLE
from appliance.reconcile.reconciler import Reconciler
from appliance.reconcile.reload_result import Applied, ReloadResult, unkept_pin_note
from appliance.reconcile.rollback import Rollback
from appliance.reconcile.source import FileConfigSource
from appliance.telemetry.metrics import MetricsFacts


class ConfigSection:
    """Owns nothing."""

    def __init__(self, source: FileConfigSource, reconciler: Reconciler) -> None:
        self._source = source
        self._reconciler = reconciler

    @property
    def applied(self) -> Applied | None:
        """The set in force."""
        return self._reconciler.applied

    @property
    def verdict(self) -> ReloadResult | None:
        """What became of what the files hold."""
        return self._reconciler.verdict_on_files

    def show(self, status: model.Status) -> None:
        """Its part of the status."""
        applied, attempt = self.applied, self._reconciler.last_attempt
        pinned, on_trial = describe_pin_and_trial(self._reconciler.rollback)
        status.generation = applied.generation if applied else 0
        status.methods = self.methods()
        status.config = model.Config(
            digest=applied.digest if applied else None,
            revision=applied.revision if applied else None,
            branch=applied.branch if applied else None,
            dirty=applied.dirty if applied else None,
            paths=list(self._source.paths),
            applied_at=rfc3339(applied.applied_at) if applied else None,
            last_attempt=describe_attempt(attempt) if attempt is not None else None,
            seen_digest=self._reconciler.files.digest or None,
            pinned=pinned,
            on_trial=on_trial,
            signers=self._source.signed_by,
        )

    def measure(self, facts: MetricsFacts) -> None:
        """Its part of the metrics."""
        applied = self.applied
        if applied is None:
            return
        facts.generation = applied.generation
        facts.digest = applied.digest
        facts.revision = applied.revision
        facts.branch = applied.branch
        facts.dirty = applied.dirty
        facts.run_nodes = applied.desired.run_nodes
        facts.declared_nodes = applied.desired.declared_nodes

    def methods(self) -> list[model.Method]:
        """Every method that this daemon knows, the config's own first."""
        applied = self.applied
        described = (
            describe_methods(METHOD_TABLE, applied.desired.methods, applied.desired.hidden)
            if applied
            else describe_methods(METHOD_TABLE, {})
        )
        return msgspec.convert(described, list[model.Method])

    def find_lost_pin(self) -> list[str]:
        """That a restart would bring back what was taken back, in words."""
        rollback = self._reconciler.rollback
        is_lost = rollback.pin is not None and not rollback.is_pin_kept
        return [unkept_pin_note().message] if is_lost else []

    def troubles(self) -> list[str]:
        """Why the files are not in force, in words, or what a restart would not know of them."""
        count = self._reconciler.unwritten_records
        unwritten = (
            f"the history lacks {count} record{'s' if count != 1 else ''} that the disk does not take:"
            " a restart may go back to an older set"
        )
        return [*find_refusal(self.verdict), *([unwritten] if count else [])]


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


def find_refusal(attempt: ReloadResult | None) -> list[str]:
    """That a look had the files refused, or taken back, with the first reason; empty where it did not."""
    result = attempt.result if attempt is not None else ""
    if attempt is None or result not in ("refused", "reverted"):
        return []
    first = _say_first(attempt.problems)
    if result == "reverted":
        return [f"the last config was taken back after its trial{first}"]
    count = len(attempt.problems)
    # a trial is judged, and the way back may be refused: the config was not
    is_way_back = attempt.trigger == "trial"
    what = "the way back from a failed trial" if is_way_back else "the last config"
    return [f"{what} was refused ({count} problem{'s' if count != 1 else ''}){first}"]


def _say_first(problems: Sequence[Problem]) -> str:
    """The first problem, where there is one: what is wrong is not told without why."""
    first = next((one for one in problems if one.severity is Severity.ERROR), None)
    if first is None:
        return ""
    line = f":{first.line}" if first.line else ""
    # what cannot be read has no line, and nobody knows what "it" is without the name
    place = f"{os.path.basename(first.file)}{line} " if first.file else ""
    return f": {first.code} {place}{first.message}"
