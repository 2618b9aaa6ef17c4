"""Builds workers and decides which are wanted beyond the declared ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.core.names import MethodName, NodeName, WorkerKey, parse_subject
from appliance.core.specs import DesiredState, Phase, PublisherSpec, WorkerSpec
from appliance.errors import SubjectInvalid
from appliance.methods._user_methods import make_user_method
from appliance.methods.base import Method, WorkerLine
from appliance.outbox.store import MessageStore
from appliance.reconcile.contracts import PoolWorker
from appliance.reconcile.pool import WorkerPool
from appliance.workers.parts import WorkerParts
from appliance.workers.publisher import Publisher
from appliance.workers.router import Router, publisher_key
from appliance.workers.subscriber import Subscriber

MAX_ON_DEMAND = 1_024
"""Lanes that get a publisher without being declared; those beyond wait until others are empty."""


class WorkerFactory:
    """Turns a spec into a worker; handed to the pool as a function."""

    def __init__(self, methods: Mapping[MethodName, Method], parts: WorkerParts) -> None:
        self._methods = methods
        self._parts = parts

    def build(self, spec: WorkerSpec) -> PoolWorker:
        """A worker that has not started."""
        if isinstance(spec, PublisherSpec):
            return Publisher(spec, self._parts)
        if spec.definition is not None:
            return Subscriber(spec, make_user_method(spec), self._parts)
        return Subscriber(spec, self._methods[spec.method], self._parts)


def find_extra_workers(
    desired: DesiredState, pool: WorkerPool, store: MessageStore, router: Router
) -> dict[WorkerKey, WorkerSpec]:
    """Publishers that nobody declared but that have something to send, or had until a moment ago.

    Lanes left by an earlier config or run count too: what was accepted is sent, whatever became of its entry.
    """
    wanted: dict[WorkerKey, WorkerSpec] = {}
    lanes = set(sorted(store.lanes_with_records())[:MAX_ON_DEMAND])
    for key, handle in pool.handles.items():
        spec = handle.spec
        if not isinstance(spec, PublisherSpec) or key in desired.workers:
            continue
        worker = handle.worker
        is_used = isinstance(worker, Publisher) and spec.entry is None and not worker.is_idle
        if is_used and handle.phase in (Phase.STARTING, Phase.RUNNING):
            lanes.add((spec.node, spec.subject))
    for node, subject in lanes:
        key = publisher_key(node, subject)
        if key in desired.workers:
            continue
        try:
            parts = parse_subject(subject)
        except SubjectInvalid:
            continue
        wanted[key] = router.spec_of_lane(node, subject, parts.node, parts.method)
    return wanted


def list_workers(pool: WorkerPool, node: NodeName) -> Sequence[WorkerLine]:
    """The node's workers as REQOpProcessList lists them, numbered in the order they were made."""
    return [
        WorkerLine(number=number, kind=str(key.kind), subject=key.subject, phase=str(handle.phase))
        for number, (key, handle) in enumerate(pool.handles.items(), start=1)
        if key.node == node
    ]


def secret_variables(desired: DesiredState) -> frozenset[str]:
    """Environment variables that the config names as holding secrets; no command of a peer may read them."""
    tls, auth = desired.broker.tls, desired.broker.auth
    refs = [desired.admin.token]
    refs += [one.token for one in (desired.inputs.tcp, desired.inputs.http) if one is not None]
    if tls is not None:
        refs += [tls.ca, tls.cert, tls.key]
    if auth is not None:
        refs += [auth.nkey_seed, auth.credentials, auth.password, auth.token]
    found = {ref.name for ref in refs if ref is not None and ref.kind == "env"}
    for method in desired.methods.values():
        headers = method.http.secret_headers if method.http is not None else ()
        found |= {secret.name for secret in headers if secret.kind == "env"}
    return frozenset(found)
