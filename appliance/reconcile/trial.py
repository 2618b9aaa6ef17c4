"""Sets on trial ("commit confirmed"): what each touched, what it would go back to, and the judgement when its time is over.

Each set has a trial of its own: one that touches nothing prolongs none, and one that mends what another broke takes it
over. Pure; `Rollback` keeps the oldest one over a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from appliance.core.names import WorkerKey
from appliance.core.plan import ActionKind, Plan
from appliance.core.specs import DOWN, DesiredState, ObservedState, Phase
from appliance.reconcile.reload_result import Applied

TRIAL_FILE = "trial.json"
"""Below the state directory."""
MAX_EXTENSIONS = 20
"""How often a trial is prolonged while the broker is away, which says nothing about the set."""

CLEARER_AFTER_S = 0.5
"""When a trial is judged again whose workers are just being tried."""
MAX_UNCLEAR_S = 30.0
"""How long one that nobody can judge is waited for: a start may take ten seconds, and what runs again has to last three."""

_TOUCHING = frozenset({ActionKind.SPAWN, ActionKind.UPDATE, ActionKind.SWAP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """`baseline` is the set that was in force before."""

    baseline: Applied
    touched: frozenset[WorkerKey]
    until_mono: float
    length_s: float
    changes_broker: bool
    extensions: int = 0
    unclear_since_mono: float | None = None

    def extended(self) -> Trial:
        """The same for another while."""
        return replace(
            self,
            until_mono=self.until_mono + self.length_s,
            extensions=self.extensions + 1,
            unclear_since_mono=None,
        )

    def unclear(self, now_mono: float) -> Trial:
        """The same, to be judged in a moment; the first such moment is kept."""
        since_mono = now_mono if self.unclear_since_mono is None else self.unclear_since_mono
        return replace(self, until_mono=now_mono + CLEARER_AFTER_S, unclear_since_mono=since_mono)

    def postponed(self, until_mono: float) -> Trial:
        """The same, to be judged then."""
        return replace(self, until_mono=until_mono)


Trials = tuple[Trial, ...]
"""Those that run, the oldest first."""


def begin_trial(
    running: Trials, before: Applied, now: DesiredState, plan: Plan, now_mono: float
) -> Trials:
    """The trials once a set has been applied: with its own, if it wants one and touches anything."""
    length_s = now.reload.trial_s
    touched = frozenset(action.key for action in plan.actions if action.kind in _TOUCHING)
    changes_broker = before.desired.broker != now.broker
    # what it touches is its own matter from here on
    left = tuple(replace(trial, touched=trial.touched - touched) for trial in running)
    if length_s <= 0:
        # a set without a trial confirms what it builds on
        return ()
    if not (touched or changes_broker):
        return running
    begun = Trial(
        baseline=before,
        touched=touched,
        until_mono=now_mono + length_s,
        length_s=length_s,
        changes_broker=changes_broker,
    )
    return (*left, begun)


def resume_trial(
    kept: KeptTrial, baseline: Applied, plan: Plan, now_at: float, now_mono: float
) -> Trial:
    """The trial that an earlier run was in, for what is left of it; `plan` leads from the baseline to the set."""
    # NB: a clock that was set meanwhile makes it neither endless nor over
    left_s = min(kept.length_s, max(0.0, kept.ends_at - now_at))
    return Trial(
        baseline=baseline,
        touched=frozenset(action.key for action in plan.actions if action.kind in _TOUCHING),
        until_mono=now_mono + max(left_s, min(kept.length_s, MIN_RESUMED_S)),
        length_s=kept.length_s,
        changes_broker=kept.changes_broker,
    )


MIN_RESUMED_S = 5.0
"""A daemon that has just started needs this long to show what it can."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Workers that a set on trial touched, with their reasons: those that do not run, and those of which nobody can say
    yet.
    """

    failed: Mapping[str, str]
    unclear: Mapping[str, str]


def examine(
    trial: Trial, wanted: Mapping[WorkerKey, object], observed: ObservedState, now_mono: float
) -> Findings:
    """How the workers that the set touched do.

    A worker that fails is tried again and again: a look may come just while it is being tried, or right after, when what
    fails has not failed yet. That says nothing, neither for the set nor against it.
    """
    failed, unclear = {}, {}
    for key in sorted(trial.touched):
        if key not in wanted:
            continue
        worker = observed.get(key)
        if worker is None:
            failed[key.name] = "did not start"
            continue
        reason = worker.last_error or f"still {worker.phase}"
        is_due = worker.retry_at_mono is not None and worker.retry_at_mono <= now_mono
        if worker.phase is Phase.STARTING or (worker.phase is Phase.BACKING_OFF and is_due):
            unclear[key.name] = reason
        elif worker.phase in DOWN:
            failed[key.name] = reason
        elif worker.phase is Phase.RUNNING and worker.last_error is not None:
            unclear[key.name] = reason
    # one that has been tried all the while has shown what it can
    since_mono = now_mono if trial.unclear_since_mono is None else trial.unclear_since_mono
    if now_mono - since_mono >= MAX_UNCLEAR_S:
        return Findings({**failed, **unclear}, {})
    return Findings(failed, unclear)


class KeptTrial(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest trial as it stands on disk. `digest` is that of the set in force, `baseline` that of the one before."""

    digest: str
    baseline: str
    ends_at: float
    length_s: float
    changes_broker: bool = False
