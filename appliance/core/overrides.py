"""Workers that an operator started or stopped beside the config, with REQOpProcessStart and REQOpProcessStop.

An override stands between the config and what runs: `status` and `plan` show it as drift, and the next reload clears
it unless `reload.overrides` says keep. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.core.method import MethodInfo
from appliance.core.names import (
    MethodName,
    NodeName,
    WorkerKey,
    WorkerKind,
    make_kind,
    make_subject,
)
from appliance.core.specs import DesiredState, PublisherSpec, SubscriberSpec, WorkerSpec
from appliance.core.user_method import RESERVED_PREFIX

OPERATING_METHODS = frozenset({"REQOpProcessList", "REQOpProcessStart", "REQOpProcessStop"})
"""Stopping these from afar would lock the one out who did it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One worker that is not as the config says. `starts` False means it is stopped."""

    key: WorkerKey
    starts: bool
    by: str
    """The node that asked for it."""
    at: float


Overrides = Mapping[WorkerKey, Override]


def apply_overrides(
    workers: Mapping[WorkerKey, WorkerSpec], overrides: Overrides, desired: DesiredState
) -> Mapping[WorkerKey, WorkerSpec]:
    """The workers that are wanted once overrides are taken into account."""
    if not overrides:
        return workers
    wanted = {key: spec for key, spec in workers.items() if _stays(overrides.get(key))}
    for key, override in overrides.items():
        if override.starts and key not in wanted and key.node in desired.run_nodes:
            spec = started_spec(desired, key)
            if spec.definition is not None or spec.method.startswith(RESERVED_PREFIX):
                wanted[key] = spec
            # else a method of the config that the config no longer has
    return wanted


def _stays(override: Override | None) -> bool:
    return override is None or override.starts


def started_spec(desired: DesiredState, key: WorkerKey) -> SubscriberSpec:
    """What a started subscriber looks like: its entry that is switched off, else one that allows nothing."""
    declared = desired.switched_off.get(key)
    if declared is not None:
        return declared
    subject = key.subject
    _, method, kind = subject.rsplit(".", 2)
    definition = desired.methods.get(MethodName(method))
    if definition is not None:
        return SubscriberSpec(
            node=key.node,
            subject=subject,
            method=MethodName(method),
            wants_ack=not kind.endswith("NACK"),
            accept_from=frozenset(),
            definition=definition.for_node(key.node),
        )
    return SubscriberSpec(
        node=key.node,
        subject=subject,
        method=MethodName(method),
        wants_ack=not kind.endswith("NACK"),
    )


def subscriber_key(desired: DesiredState, node: NodeName, info: MethodInfo) -> WorkerKey:
    """The key of a node's subscriber of a method: as declared, else on the method's usual subject."""
    for workers in (desired.workers, desired.switched_off):
        for key, spec in workers.items():
            if isinstance(spec, SubscriberSpec) and (spec.node, spec.method) == (node, info.name):
                return key
    kind = make_kind(info.category, wants_ack=info.acks_by_default)
    subject = make_subject(info.subject_node or node, info.name, kind)
    return WorkerKey(node, subject, WorkerKind.SUBSCRIBER)


def publisher_keys(desired: DesiredState, node: NodeName, to: str, method: str) -> list[WorkerKey]:
    """The declared publishers of a node to another one with a method."""
    return [
        key
        for key, spec in desired.workers.items()
        if isinstance(spec, PublisherSpec)
        and (spec.node, spec.to_node, spec.method) == (node, to, method)
    ]


def without_idle(overrides: Overrides, desired: DesiredState) -> dict[WorkerKey, Override]:
    """The overrides that still differ from the config: the others have become its word."""
    return {
        key: override
        for key, override in overrides.items()
        if override.starts != (key in desired.workers) and key.node in desired.run_nodes
    }
