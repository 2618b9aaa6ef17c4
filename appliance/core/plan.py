"""The plan: what to do so that the observed workers become the desired ones. A pure function and its values.

Level-triggered: a plan is made from what the config asks for and what really runs, never from what changed last.
A crash and an edit of the config are therefore healed by the same lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from appliance.core.names import WorkerKey
from appliance.core.settings import ReloadClass, Section, parts_of, reload_class
from appliance.core.specs import (
    DesiredState,
    ObservedState,
    ObservedWorker,
    Phase,
    PublisherSpec,
    StreamSettings,
    WorkerSpec,
)
from appliance.core.streams import find_stream


class ActionKind(StrEnum):
    """What happens to one worker."""

    SPAWN = "spawn"
    UPDATE = "update"
    SWAP = "swap"
    CANCEL = "cancel"


ACTION_SIGNS: Mapping[ActionKind, str] = {
    ActionKind.SPAWN: "+",
    ActionKind.UPDATE: "~",
    ActionKind.SWAP: "±",
    ActionKind.CANCEL: "-",
}

Changes = Mapping[str, tuple[object, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step. `spec` is what shall run afterwards (None for a cancel); `changed` maps field to (old, new)."""

    kind: ActionKind
    key: WorkerKey
    spec: WorkerSpec | None = None
    changed: Changes = field(default_factory=dict)

    @property
    def needs_new_worker(self) -> bool:
        """Whether another worker takes the place of the one that runs, once that has drained.

        All else changes behind a way to the broker that stays; here it is the way itself.
        """
        if self.kind is not ActionKind.SWAP or self.spec is None:
            return False
        old, new = self.changed.get("stream", (None, None))
        is_other_stream = (
            find_stream(self.spec) is not None
            and isinstance(old, StreamSettings)
            and isinstance(new, StreamSettings)
            and not new.is_same_stream(old)
        )
        return is_other_stream or "delivery" in self.changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All steps of one pass, cancels first, then by key. `next_due_mono` says when a waiting worker is due."""

    actions: tuple[Action, ...] = ()
    kept: int = 0
    next_due_mono: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done now."""
        return not self.actions

    def count(self, kind: ActionKind) -> int:
        """Number of actions of one kind."""
        return sum(1 for action in self.actions if action.kind is kind)

    def summary(self) -> dict[str, int]:
        """Counts by kind, and the kept ones."""
        counts = {str(kind): self.count(kind) for kind in ActionKind}
        counts["keep"] = self.kept
        return counts


def find_changes(old: WorkerSpec, new: WorkerSpec) -> Changes:
    """Fields in which two specs of one worker differ, with both values."""
    return {} if old == new else _differences(old, new)


def _differences(old: Any, new: Any) -> Changes:
    return {
        item.name: (getattr(old, item.name), getattr(new, item.name))
        for item in fields(new)
        if getattr(old, item.name) != getattr(new, item.name)
    }


def classify(spec: WorkerSpec, changes: Changes) -> ReloadClass:
    """The heaviest reload class among the changed fields of a worker; of a section those count that differ in it."""
    classes = set(_classes(type(spec), changes))
    return ReloadClass.LIVE if classes <= {ReloadClass.LIVE} else ReloadClass.SWAP


def _classes(worker: type, changes: Changes) -> Iterator[ReloadClass]:
    sections = {part.attr: part.spec for part in parts_of(worker) if isinstance(part, Section)}
    for name, (old, new) in changes.items():
        section = sections.get(name)
        if section is not None and type(old) is type(new) is section:
            yield from _classes(section, _differences(old, new))
        else:
            yield reload_class(worker, name)


_ALIVE = frozenset({Phase.STARTING, Phase.RUNNING})
_ENDED = frozenset({Phase.STOPPED, Phase.BACKING_OFF})


def make_plan(
    desired: Mapping[WorkerKey, WorkerSpec], observed: ObservedState, now_mono: float
) -> Plan:
    """Compare desired with observed.

    A worker that is draining or stuck keeps its key blocked until it is gone: nothing is planned for it, so no
    two workers ever share a key. A worker that backs off is spawned again when due, or at once when its spec
    changed (the change may be the cure).
    """
    cancels = [
        Action(kind=ActionKind.CANCEL, key=key)
        # sorted: the same difference is the same plan, in words and in tests
        for key in sorted(observed.keys() - desired.keys())
        if observed[key].phase not in (Phase.DRAINING, Phase.FAILED)
    ]
    others: list[Action] = []
    kept = 0
    due: list[float] = []
    for key in sorted(desired):
        spec = desired[key]
        seen = observed.get(key)
        if seen is None:
            others.append(Action(kind=ActionKind.SPAWN, key=key, spec=spec))
            continue
        changes = find_changes(seen.spec, spec)
        if seen.phase in _ALIVE:
            if not changes:
                kept += 1
            elif classify(spec, changes) is ReloadClass.LIVE:
                others.append(Action(kind=ActionKind.UPDATE, key=key, spec=spec, changed=changes))
            else:
                others.append(Action(kind=ActionKind.SWAP, key=key, spec=spec, changed=changes))
        elif seen.phase in _ENDED:
            is_due = seen.retry_at_mono is None or seen.retry_at_mono <= now_mono
            # an edit may be the cure, and is not made to wait for the back-off
            if changes or is_due:
                others.append(Action(kind=ActionKind.SPAWN, key=key, spec=spec, changed=changes))
            elif seen.retry_at_mono is not None:
                due.append(seen.retry_at_mono)
    return Plan(actions=tuple(cancels + others), kept=kept, next_due_mono=min(due) if due else None)


def apply_to_model(plan: Plan, observed: ObservedState) -> dict[WorkerKey, ObservedWorker]:
    """What is observed after every action of `plan` went well. Used to predict, and to test the planner."""
    after = dict(observed)
    for action in plan.actions:
        if action.kind is ActionKind.CANCEL:
            after.pop(action.key, None)
        else:
            assert action.spec is not None
            after[action.key] = ObservedWorker(spec=action.spec, phase=Phase.RUNNING)
    return after


def find_excess_cancels(
    plan: Plan, observed: ObservedState, max_fraction: float
) -> tuple[WorkerKey, ...]:
    """The workers that would go, if they are more than `max_fraction` of the declared ones; else nothing.

    A half-written or empty file must not stop a fleet. A worker whose method stays on the same node under another
    subject (another ack mode, say) is not counted as gone, nor is a publisher that was made on demand.
    """
    respawned = {
        (action.spec.node, action.spec.method, action.key.kind)
        for action in plan.actions
        if action.kind is ActionKind.SPAWN and action.spec is not None
    }
    counted = [key for key, seen in observed.items() if _is_declared(seen.spec)]
    gone = tuple(
        action.key
        for action in plan.actions
        if action.kind is ActionKind.CANCEL
        and _is_declared(observed[action.key].spec)
        and (action.key.node, observed[action.key].spec.method, action.key.kind) not in respawned
    )
    if gone and len(gone) > len(counted) * max_fraction:
        return gone
    return ()


def _is_declared(spec: WorkerSpec) -> bool:
    return not isinstance(spec, PublisherSpec) or spec.entry is not None


def find_restart_fields(old: DesiredState, new: DesiredState) -> tuple[str, ...]:
    """Settings that differ and that a running daemon cannot change; a reload with any of them is refused by name."""
    changed = list(_restarting(DesiredState, old, new))
    if _EMBEDDED in changed or not new.broker.embedded:
        # The port is the embedded broker's: without one it has no effect, and with a new one nothing to say.
        changed = [name for name in changed if name != "broker.port"]
    return tuple(changed)


_EMBEDDED = "broker.embedded"


def _restarting(spec: type, old: object, new: object, prefix: str = "") -> Iterator[str]:
    for part in parts_of(spec):
        before, after = getattr(old, part.attr, None), getattr(new, part.attr, None)
        path = prefix + ".".join(part.keys)
        if isinstance(part, Section):
            yield from _restarting(part.spec, before, after, f"{path}.")
        elif part.reload is ReloadClass.RESTART and before != after:
            yield path
