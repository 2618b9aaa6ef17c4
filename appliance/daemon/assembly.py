"""Builds workers, and decides which are wanted beyond the declared ones, and how many processes for methods that compute."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

import appliance.methods
from appliance.core.current import Current
from appliance.core.names import (
    MethodName,
    NodeName,
    Subject,
    WorkerKey,
    WorkerKind,
    parse_subject,
)
from appliance.core.specs import DesiredState, Phase, PublisherSpec, SubscriberSpec, WorkerSpec
from appliance.errors import RequestInvalid, StoreError, SubjectInvalid
from appliance.methods.base import Method, WorkerLine
from appliance.methods.computing.frames import Greeting
from appliance.methods.computing.handler import in_processes
from appliance.methods.computing.pool import Process, ProcessPool, Told
from appliance.methods.computing.process import HandlerProcess
from appliance.methods.declared.methods import make_user_method
from appliance.outbox.records import LaneKey
from appliance.outbox.store import MessageStore
from appliance.reconcile.pool import PoolWorker, WorkerPool
from appliance.workers.inbox_owners import scope_of
from appliance.workers.order_trail import in_trail
from appliance.workers.publisher import Publisher
from appliance.workers.router import Router, publisher_key
from appliance.workers.services import WorkerServices
from appliance.workers.subscriber import Subscriber

MAX_ON_DEMAND = 1_024
"""Lanes that get a publisher without being declared; those beyond wait until others are empty."""


class WorkerFactory:
    """Turns a spec into a worker; handed to the pool as a function."""

    def __init__(self, methods: Mapping[MethodName, Method], services: WorkerServices) -> None:
        self._methods = methods
        self._services = services

    def build(self, spec: WorkerSpec) -> PoolWorker:
        """A worker that has not started."""
        if isinstance(spec, PublisherSpec):
            return Publisher(spec, self._services)
        is_declared = spec.definition is not None
        method = make_user_method(spec) if is_declared else self._methods[spec.method]
        method = in_processes(method, self._services.for_handlers.processes)
        return Subscriber(spec, in_trail(method, self._services.trail), self._services)


def find_extra_workers(
    desired: DesiredState, pool: WorkerPool, store: MessageStore, router: Router
) -> dict[WorkerKey, WorkerSpec]:
    """Publishers that nobody declared but that have something to send, or had until a moment ago.

    Lanes left by an earlier config or run count too: what was accepted is sent, whatever became of its entry.
    """
    wanted: dict[WorkerKey, WorkerSpec] = {}
    # sorted, so that the same lanes have theirs from one pass to the next
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
        # `LaneFollower` moves these to where they are sent from now on
        if key in desired.workers or new_subject_of((node, subject), router) is not None:
            continue
        try:
            parts = parse_subject(subject)
        except SubjectInvalid:
            continue
        wanted[key] = router.spec_of_lane(node, subject, parts.node, parts.method)
    return wanted


def new_subject_of(lane: LaneKey, router: Router) -> Subject | None:
    """Where messages for this lane's destination go by the config in force, if that is another subject now."""
    node, subject = lane
    try:
        parts = parse_subject(subject)
        found = router.publisher_for(node, parts.node, parts.method).subject
    except (SubjectInvalid, RequestInvalid):
        return None
    return found if found != subject else None


class LaneFollower:
    """Moves waiting records after their destination when a config changes the subject that it is reached by.

    A lane is moved when its publisher is gone; until then, and after a failure, the next pass asks again.
    """

    def __init__(self, store: MessageStore, router: Router, on_moved: Callable[[], None]) -> None:
        self._store = store
        self._router = router
        self._on_moved = on_moved
        self._moving: dict[LaneKey, asyncio.Task[None]] = {}

    def look(self, desired: DesiredState, pool: WorkerPool) -> None:
        """Begin to move what has to be moved and can be."""
        for lane in self._store.lanes_with_records():
            key = publisher_key(*lane)
            if key in desired.workers or key in pool.handles or lane in self._moving:
                continue
            subject = new_subject_of(lane, self._router)
            if subject is not None:
                self._moving[lane] = asyncio.get_running_loop().create_task(
                    self._move(lane, (lane[0], subject)), name=f"move lane {lane[1]}"
                )

    async def _move(self, old: LaneKey, new: LaneKey) -> None:
        try:
            # a store that cannot now is asked again by the next pass
            with contextlib.suppress(StoreError):
                await self._store.rename_lane(old, new)
                self._on_moved()
        finally:
            self._moving.pop(old, None)

    async def close(self) -> None:
        """Wait for what is being moved."""
        if self._moving:
            await asyncio.wait(self._moving.values())


def is_subscriber_wanted(workers: Iterable[WorkerKey], scope: str) -> bool:
    """Whether a worker among these takes what comes for a node and method."""
    return any(
        key.kind is WorkerKind.SUBSCRIBER and scope_of(key.subject) == scope for key in workers
    )


def list_workers(pool: WorkerPool, node: NodeName) -> Sequence[WorkerLine]:
    """The node's workers as REQOpProcessList lists them, numbered in the order they were made."""
    return [
        WorkerLine(number=number, kind=str(key.kind), subject=key.subject, phase=str(handle.phase))
        for number, (key, handle) in enumerate(pool.handles.items(), start=1)
        if key.node == node
    ]


def open_processes(
    methods: Mapping[MethodName, Method],
    desired: Current[DesiredState],
    hidden: Current[frozenset[str]],
    told: Told,
) -> ProcessPool:
    """A pool that follows the set in force. Where no method computes there is never a process in it."""
    modules = {name: method.module for name, method in methods.items() if method.info.computes}

    def greet() -> Greeting:
        return Greeting(
            search_path=tuple(sys.path),
            method_paths=tuple(appliance.methods.__path__),
            modules=tuple(sorted(modules[name] for name in _subscribed(modules, desired.value))),
            max_bytes=desired.value.limits.max_process_bytes,
        )

    async def start() -> Process:
        return await HandlerProcess.start(os.environ, hidden.value, greet)

    pool = ProcessPool(start, told)

    def follow(new: DesiredState) -> None:
        pool.resize(new.processes.workers, is_wanted=bool(_subscribed(modules, new)))

    follow(desired.value)
    desired.follow(follow)
    return pool


def _subscribed(modules: Mapping[MethodName, str], desired: DesiredState) -> set[MethodName]:
    """Methods that compute and that a node here subscribes to."""
    if not modules:
        return set()
    return {
        spec.method
        for spec in desired.workers.values()
        if isinstance(spec, SubscriberSpec) and spec.method in modules
    }
