"""Keeps overrides, workers that a peer has started or stopped beside the config (REQOpProcessStart, REQOpProcessStop).

They are in force at once, and on disk before whoever asked is told so: a restart does not undo them. A set that is
brought into force does, where it says `reload: {overrides: clear}`; and each goes whose worker the config has as it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from appliance.core.current import Current
from appliance.core.method import MethodTable
from appliance.core.names import MethodName, NodeName, Subject, WorkerKey, WorkerKind, parse_subject
from appliance.core.overrides import (
    OPERATING_METHODS,
    Override,
    Overrides,
    publisher_keys,
    subscriber_key,
    without_idle,
)
from appliance.core.specs import DesiredState
from appliance.durable_file import write_private
from appliance.errors import ArgumentsInvalid, HandlerError, StoreUnusable, SubjectInvalid

MAX_OVERRIDES = 1_000
NOT_STARTABLE = frozenset({"REQRelay"})
"""What these do hangs on settings that a message cannot bring along."""


class _Kept(msgspec.Struct):
    """An override as it stands on disk."""

    node: str
    subject: str
    kind: WorkerKind
    starts: bool
    by: str
    at: float


def _restore(kept: _Kept) -> Override:
    """Raises SubjectInvalid."""
    parse_subject(kept.subject)
    key = WorkerKey(NodeName(kept.node), Subject(kept.subject), kept.kind)
    return Override(key=key, starts=kept.starts, by=kept.by, at=kept.at)


class OverrideBook:
    """The overrides of one daemon; implements `methods.base.WorkerSwitch`."""

    def __init__(
        self,
        path: Path,
        *,
        desired: Current[DesiredState],
        methods: Callable[[], MethodTable],
        wall: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self._path = path
        self._desired = desired
        self._methods = methods
        self._wall = wall
        self._on_change = on_change
        self._all: dict[WorkerKey, Override] = {}
        self._lock = asyncio.Lock()

    @property
    def all(self) -> Overrides:
        """Those in force."""
        return MappingProxyType(self._all)

    def load(self) -> None:
        """Read what an earlier run left. Blocks; an unreadable file counts as empty only if it is missing.

        Raises:
            StoreUnusable: it is there and cannot be used.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable(error) from error
        try:
            kept = msgspec.json.decode(text, type=list[_Kept])
            self._all = {override.key: override for override in map(_restore, kept)}
        except (msgspec.DecodeError, RecursionError, SubjectInvalid) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> StoreUnusable:
        return StoreUnusable(
            f"{self._path} cannot be used: {error}; without it workers are as the config says"
        )

    async def drop_idle(self, desired: DesiredState, *, clear: bool) -> None:
        """A config was applied: drop overrides that have become its word, or all."""
        async with self._lock:
            left = {} if clear else without_idle(self._all, desired)
            if left != self._all:
                await self._keep(left)

    async def start(self, node: NodeName, method: str, *, by: str) -> str:
        """Start a subscriber of `node`. The words for the one who asked."""
        info = self._methods().get(MethodName(method))
        if info is None:
            raise ArgumentsInvalid(f"unknown method {method[:60]!r}")
        if method in NOT_STARTABLE:
            raise ArgumentsInvalid(f"{method} needs settings of its own: declare it in the config")
        # one at a time: each looks at what the one before has left
        async with self._lock:
            desired = self._desired.value
            key = subscriber_key(desired, node, info)
            override = self._all.get(key)
            if key in desired.workers:
                if override is None:
                    return f"{key.name} runs already"
                await self._put(key, None)
                return f"{key.name} started, as the config says"
            if override is not None:
                return f"{key.name} runs already"
            if info.name in desired.methods and key not in desired.switched_off:
                raise ArgumentsInvalid(
                    f"{method} does something here only where the config subscribes it, "
                    "if need be with `enabled: false`"
                )
            await self._put(key, Override(key=key, starts=True, by=by, at=self._wall()))
            return f"{key.name} started, beside the config"

    async def stop(self, node: NodeName, method: str, at_node: str, kind: str, *, by: str) -> str:
        """Stop a worker of `node`: its subscriber, or its publishers to `at_node`."""
        if method in OPERATING_METHODS:
            raise HandlerError(f"{method} is not stopped from afar: nobody could start it again")
        info = self._methods().get(MethodName(method))
        if info is None:
            raise ArgumentsInvalid(f"unknown method {method[:60]!r}")
        async with self._lock:
            keys = self._find(node, method, at_node, kind)
            if not keys:
                raise HandlerError(f"{node} runs no {kind} of {method} for {at_node[:60]}")
            for key in keys:
                override = self._all.get(key)
                # what was started by hand is stopped by taking that back, not by a second override
                if override is not None and override.starts:
                    await self._put(key, None)
                else:
                    await self._put(key, Override(key=key, starts=False, by=by, at=self._wall()))
            return f"{', '.join(key.name for key in keys)} stopped, against the config"

    def _find(self, node: NodeName, method: str, at_node: str, kind: str) -> list[WorkerKey]:
        desired = self._desired.value
        wanted = {*desired.workers, *(key for key, item in self._all.items() if item.starts)}
        stopped = {key for key, item in self._all.items() if not item.starts}
        if kind == "publisher":
            return [k for k in publisher_keys(desired, node, at_node, method) if k not in stopped]
        if kind != "subscriber":
            raise ArgumentsInvalid("the third argument is subscriber or publisher")
        # its companions too: they came with it and mean nothing without
        methods = {method, *self._methods()[MethodName(method)].companions}
        found = []
        for key in wanted - stopped:
            if key.node != node or key.kind is not WorkerKind.SUBSCRIBER:
                continue
            try:
                parts = parse_subject(key.subject)
            except SubjectInvalid:
                continue
            if parts.method in methods and at_node in (node, parts.node):
                found.append(key)
        return sorted(found)

    async def _put(self, key: WorkerKey, override: Override | None) -> None:
        changed = dict(self._all)
        changed.pop(key, None)
        if override is not None:
            if len(changed) >= MAX_OVERRIDES:
                raise HandlerError(f"more than {MAX_OVERRIDES} overrides: reload to clear them")
            changed[key] = override
        await self._keep(changed)
        # once it is on disk: the pass that it wakes acts on it
        self._on_change()

    async def _keep(self, changed: Mapping[WorkerKey, Override]) -> None:
        try:
            # before it holds: who is told that a worker was stopped must find it so after a restart
            await asyncio.to_thread(_write, self._path, changed)
        except OSError as error:
            raise HandlerError(f"cannot keep the override: {error}") from error
        self._all = dict(changed)


def _write(path: Path, overrides: Mapping[WorkerKey, Override]) -> None:
    items = [
        {
            "node": item.key.node,
            "subject": item.key.subject,
            "kind": str(item.key.kind),
            "starts": item.starts,
            "by": item.by,
            "at": item.at,
        }
        for item in overrides.values()
    ]
    write_private(path, json.dumps(items, indent=1).encode())
