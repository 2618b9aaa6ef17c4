"""The processes for methods that compute, as the set in force asks for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import appliance.methods
from appliance.core.current import Current
from appliance.core.names import MethodName
from appliance.core.specs import DesiredState, SubscriberSpec
from appliance.methods.base import Method
from appliance.methods.computing.frames import Greeting
from appliance.methods.computing.pool import Process, ProcessPool, Told
from appliance.methods.computing.process import HandlerProcess


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
