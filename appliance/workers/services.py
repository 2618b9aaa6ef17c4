"""What every worker is built from; made once by the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from appliance.bus.base import Bus
from appliance.core.current import Current
from appliance.core.hidden import Hiding
from appliance.core.names import NodeName
from appliance.core.specs import DesiredState
from appliance.delivery.base import DeliveryMode
from appliance.dialect.base import Dialect
from appliance.methods.base import Console, Files, FileTaker, HelloSink, WorkerLine, WorkerSwitch
from appliance.outbox.records import OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.workers.error_reports import ErrorReports
from appliance.workers.inbox_owners import InboxOwners
from appliance.workers.peers import PeerBook
from appliance.workers.router import Router
from appliance.workers.stall import StallWatch
from appliance.workers.waiters import AbandonedRequests, DeliveryWaiters

# What the daemon lends to every handler.


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerServices:
    """Shared by all subscribers of a daemon."""

    files: Files
    console: Console
    hellos: HelloSink
    hidden_environment: Current[frozenset[str]]
    list_workers: Callable[[NodeName], Sequence[WorkerLine]]
    switch: WorkerSwitch
    files_taker: FileTaker | None = None


def _report_nothing(_record: OutboxRecord, _reason: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """`fleet` gives the desired state of the moment, `wall` seconds since the epoch, `mono` seconds that never jump."""

    bus: Bus
    store: MessageStore
    dialect: Dialect
    delivery: DeliveryMode
    router: Router
    telemetry: Telemetry
    error_reports: ErrorReports
    peers: PeerBook
    inbox: InboxOwners
    tools: HandlerServices
    desired: Current[DesiredState]
    wall: Callable[[], float]
    mono: Callable[[], float] = time.monotonic
    hello_report: Callable[[], str | None] = lambda: None
    """What hellos say of the config in force."""
    report_given_up: Callable[[OutboxRecord, str], None] = _report_nothing
    """Tells errorCentral of a record that became a dead letter, and why."""
    hiding: Hiding = field(default_factory=Hiding)
    """What no text that leaves a worker shows: neither an answer nor what is remembered."""
    stall: StallWatch = field(default_factory=lambda: StallWatch(time.monotonic))
    waiters: DeliveryWaiters = field(default_factory=DeliveryWaiters)
    abandoned: AbandonedRequests = field(default_factory=AbandonedRequests)
