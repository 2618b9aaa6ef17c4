"""What every worker is built from; made once by the daemon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.bus.base import Bus
from appliance.core.specs import DesiredState
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.workers.answers import Answers
from appliance.workers.leavers import Leavers
from appliance.workers.router import Router
from appliance.workers.settlements import Settlements
from appliance.workers.tools import HandlerTools


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """`fleet` gives the desired state of the moment, `wall` seconds since the epoch."""

    bus: Bus
    store: MessageStore
    router: Router
    telemetry: Telemetry
    answers: Answers
    tools: HandlerTools
    fleet: Callable[[], DesiredState]
    wall: Callable[[], float]
    hello_report: Callable[[], str | None] = lambda: None
    """What hellos say of the config in force."""
    settlements: Settlements = field(default_factory=Settlements)
    leavers: Leavers = field(default_factory=Leavers)
