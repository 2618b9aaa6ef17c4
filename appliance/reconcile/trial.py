"""A set on trial: what it touched, what it would go back to, and the judgement when its time is over. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from appliance.core.names import WorkerKey
from appliance.core.plan import ActionKind, Plan
from appliance.core.specs import ObservedState, Phase
from appliance.reconcile.verdicts import Applied

MAX_EXTENSIONS = 20
"""How often a trial is prolonged while the broker is away, which says nothing about the set."""

_TOUCHING = frozenset({ActionKind.SPAWN, ActionKind.UPDATE, ActionKind.SWAP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """`baseline` is the last set that stood its trial, or needed none."""

    baseline: Applied
    touched: frozenset[WorkerKey]
    until_mono: float
    length_s: float
    changes_broker: bool
    extensions: int = 0

    def extended(self) -> Trial:
        """The same for another while."""
        return replace(
            self, until_mono=self.until_mono + self.length_s, extensions=self.extensions + 1
        )


def begin_trial(
    earlier: Trial | None, before: Applied, now: Applied, plan: Plan, now_mono: float
) -> Trial | None:
    """The trial of a set that has just been applied; None where it has none."""
    length_s = now.desired.reload.trial_s
    touched = frozenset(action.key for action in plan.actions if action.kind in _TOUCHING)
    changes_broker = before.desired.broker != now.desired.broker
    if earlier is not None:
        touched |= earlier.touched
        changes_broker = changes_broker or earlier.changes_broker
    if length_s <= 0 or not (touched or changes_broker):
        return None
    return Trial(
        baseline=earlier.baseline if earlier is not None else before,
        touched=touched,
        until_mono=now_mono + length_s,
        length_s=length_s,
        changes_broker=changes_broker,
    )


def find_failures(
    trial: Trial, wanted: Mapping[WorkerKey, object], observed: ObservedState
) -> dict[str, str]:
    """Workers that the set touched and that do not run, with their reasons."""
    failures = {}
    for key in sorted(trial.touched):
        if key not in wanted:
            continue
        worker = observed.get(key)
        if worker is None:
            failures[key.name] = "did not start"
        elif worker.phase in (Phase.BACKING_OFF, Phase.FAILED, Phase.STOPPED):
            failures[key.name] = worker.last_error or str(worker.phase)
    return failures
