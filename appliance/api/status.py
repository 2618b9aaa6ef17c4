"""What is to be seen of a running daemon: the status, the facts of the metrics, one line for log and service manager.

Each section knows its part of the status (`show`), of the metrics (`measure`), and what is the matter with it; here they
are put together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from appliance import __version__
from appliance.api import model
from appliance.api.config_section import ConfigSection
from appliance.api.fleet import FleetView
from appliance.api.health import can_accept, describe_store, needs_restart
from appliance.api.message_section import MessageSection
from appliance.api.trust_section import TrustSection
from appliance.api.worker_section import WorkerSection
from appliance.bus.nats import NatsBus
from appliance.core.current import Current
from appliance.core.problems import Problem
from appliance.core.times import clock_time, rfc3339
from appliance.telemetry.metrics import MetricsFacts
from appliance.telemetry.report import Telemetry


class Life(StrEnum):
    """Of a daemon: it is put together, starts, runs and stops."""

    BUILDING = "building"
    """Its parts are not all there: nobody can ask it anything yet."""
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class BrokerOfOwn(Protocol):
    """The broker that starts with the daemon; it stands above this package."""

    @property
    def trouble(self) -> str | None:
        """Why it does not run; None while it does."""
        ...


class Section(Protocol):
    """Whoever knows a part of what is to be seen."""

    def show(self, status: model.Status) -> None:
        """Fill in its part of the status."""
        ...

    def measure(self, facts: MetricsFacts) -> None:
        """Fill in its part of the metrics."""
        ...


class BrokerSection:
    """The connection, and the broker that starts with the daemon, if one does."""

    def __init__(self, bus: NatsBus, own: BrokerOfOwn | None) -> None:
        self._bus = bus
        self._own = own

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._bus.is_connected

    @property
    def trouble(self) -> str:
        """Why there is no connection, in words. One's own broker knows more than the line to it."""
        own = self._own.trouble if self._own is not None else None
        return own or self._bus.trouble or NOT_REACHED

    def show(self, status: model.Status) -> None:
        """Its part of the status."""
        status.broker = model.Broker(
            connected=self.is_connected,
            server=self._bus.server,
            embedded=self._own is not None,
            reconnects=self._bus.reconnects,
            error=None if self.is_connected else self.trouble,
        )

    def measure(self, facts: MetricsFacts) -> None:
        """Its part of the metrics."""
        facts.broker_connected = self.is_connected
        facts.broker_reconnects = self._bus.reconnects

    def troubles(self) -> list[str]:
        """That there is no connection."""
        return [] if self.is_connected else [f"not connected to the broker: {self.trouble}"]


class OpenInputs(Protocol):
    """Steward's inputs; they stand above this package."""

    def status(self) -> dict[str, model.Input]:
        """What is open."""
        ...

    def totals(self) -> dict[tuple[str, str], int]:
        """Messages by input and result."""
        ...


class StatusView:
    """Reads the parts and owns nothing. Called on the event loop."""

    def __init__(
        self,
        *,
        life: Current[Life],
        config: ConfigSection,
        broker: BrokerSection,
        workers: WorkerSection,
        messages: MessageSection,
        trust: TrustSection,
        fleet: FleetView,
        inputs: OpenInputs,
        telemetry: Telemetry,
    ) -> None:
        self._life = life
        self._config = config
        self._broker = broker
        self._workers = workers
        self._messages = messages
        self._trust = trust
        # the fleet last: it adds to the nodes that are there
        self._sections: tuple[Section, ...] = (config, broker, workers, messages, trust, fleet)
        self._inputs = inputs
        self._telemetry = telemetry
        self._started_at = time.time()

    def clock_jumped(self, by_s: float) -> None:
        """The wall clock was set: the time of our start, as it is shown, moves with it."""
        self._started_at += by_s

    def status(self) -> model.Status:
        """Everything an operator asks first."""
        is_stopping = self._life.value is Life.STOPPING
        status = model.Status(
            version=__version__,
            pid=os.getpid(),
            started_at=rfc3339(self._started_at),
            stopping=is_stopping,
            inputs=self._inputs.status(),
        )
        for section in self._sections:
            section.show(status)
        if not is_stopping:
            status.degraded_by = self._find_troubles(status.outbox.dead)
        status.healthy = not status.degraded_by and not is_stopping
        return status

    def _find_troubles(self, dead: int) -> list[str]:
        """Why the appliance is not healthy, in words; empty when it is."""
        return [
            *self._config.find_lost_pin(),
            *self._broker.troubles(),
            *self._config.troubles(),
            *self._workers.find_missing(is_connected=self._broker.is_connected),
            *self._messages.troubles(),
            *self._trust.troubles(),
            *self._workers.find_process_troubles(),
            *([f"{dead} dead letter{'s' if dead != 1 else ''}"] if dead else []),
        ]

    def facts(self) -> MetricsFacts:
        """The facts of one scrape."""
        facts = MetricsFacts(
            version=__version__,
            counts=self._telemetry.counts,
            inputs=self._inputs.totals(),
            events_dropped=self._telemetry.events_dropped,
        )
        for section in self._sections:
            section.measure(facts)
        return facts

    def methods(self) -> list[model.Method]:
        """Every method that this daemon knows, the config's own first."""
        return self._config.methods()

    def summary(self) -> str:
        """One line for the log and the service manager."""
        applied = self._config.applied
        running, workers = self._workers.count()
        generation = applied.generation if applied else 0
        nodes = ", ".join(applied.desired.run_nodes[:5]) if applied else ""
        return f"generation {generation}, {running} of {workers} workers running, nodes: {nodes}"

    def service_line(self) -> str:
        """One line for the service manager: what runs, at which revision, and the last verdict."""
        applied, attempt = self._config.applied, self._config.verdict
        if self._life.value is Life.STOPPING:
            return f"stopping, {self._workers.unfinished} messages in hand"
        if applied is None:
            return "starting"
        running, workers = self._workers.count()
        return describe_state(
            generation=applied.generation,
            revision=applied.revision,
            running=running,
            workers=workers,
            connected=self._broker.is_connected,
            result=attempt.result if attempt else "",
            at=attempt.at if attempt else 0.0,
            problems=attempt.problems if attempt else (),
            store_trouble=describe_store(self._messages.health()),
        )

    def liveness(self) -> tuple[bool, str]:
        """The loop answers, so it lives, unless only a restart helps."""
        health = self._messages.health()
        if needs_restart(health):
            return False, describe_store(health) or "the store has failed"
        return True, "alive"

    def readiness(self) -> tuple[bool, str]:
        """Connected, able to accept, and the running set settled; a refused config does not make it unready."""
        if self._life.value is not Life.RUNNING:
            return False, str(self._life.value)
        for trouble in self._broker.troubles():
            return False, trouble
        health = self._messages.health()
        if not can_accept(health):
            return False, describe_store(health) or "the store accepts nothing"
        return True, "ready"


NOT_REACHED = "it has not been reached yet"


def describe_state(
    *,
    generation: int,
    revision: str | None,
    running: int,
    workers: int,
    connected: bool,
    result: str,
    at: float,
    problems: Sequence[Problem],
    store_trouble: str | None = None,
) -> str:
    """One line: what runs, what the last look at the config found, and what is the matter with the store."""
    where = f"generation {generation}" + (f" ({revision[:12]})" if revision else "")
    line = f"{where}, {running} of {workers} workers running"
    if not connected:
        line += ", not connected to the broker"
    if store_trouble is not None:
        line += f", {store_trouble}"
    line += f"; config {result} at {clock_time(at)}"
    if result == "refused" and problems:
        first = problems[0]
        place = f"{first.file}:{first.line}: " if first.line else ""
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        line += f": {place}{first.code} {first.message}{more}"
    return line
