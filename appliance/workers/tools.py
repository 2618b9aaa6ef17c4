"""What the daemon lends to every handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.core.current import Current
from appliance.core.names import NodeName
from appliance.methods.base import Console, Files, FileTaker, HelloSink, WorkerLine, WorkerSwitch


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerTools:
    """Shared by all subscribers of a daemon."""

    files: Files
    console: Console
    hellos: HelloSink
    hidden_environment: Current[frozenset[str]]
    list_workers: Callable[[NodeName], Sequence[WorkerLine]]
    switch: WorkerSwitch
    files_taker: FileTaker | None = None
