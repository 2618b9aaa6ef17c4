"""Hellos: who said one when, what this daemon says of its config in its own, and what it concludes from those it hears."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from appliance import __version__
from appliance.api import model
from appliance.core.current import Current
from appliance.core.fleet import (
    NodeReport,
    NodeSighting,
    NodeStanding,
    encode_report,
    judge_fleet,
    parse_report,
)
from appliance.core.hidden import Hidden
from appliance.core.names import NodeName
from appliance.core.problems import Problem, Severity
from appliance.core.specs import NO_TRAITS, DesiredState, NodeTraits
from appliance.core.times import rfc3339
from appliance.reconcile.pool import WorkerPool
from appliance.reconcile.reconciler import Reconciler
from appliance.telemetry.metrics import MetricsFacts
from appliance.workers.publisher import Publisher

FAILED_RESULTS = frozenset({"refused", "reverted"})
MAX_STRANGERS = 100
MAX_REMOVED = 10_000
FORGOTTEN_AFTER_S = 600.0
"""Of one that is not declared and says nothing any more."""


class OnSeen(Protocol):
    """Told of a hello; only appliances say something of their config with it."""

    def __call__(self, node: NodeName, *, is_appliance: bool) -> None: ...


def _ignore(_node: NodeName) -> None: ...


class Presence:
    """Who said hello when: the declared nodes, and apart from them a bounded number of others. Implements
    `methods.base.HelloSink`.

    Those others are nodes that were removed from the config and still run, or somebody who invents names. A node that an
    earlier set of this run declared always has its place; of all further names there are as many as `MAX_STRANGERS`, and
    who is silent makes room.
    """

    def __init__(
        self,
        desired: Current[DesiredState],
        wall: Callable[[], float],
        *,
        on_undeclared: Callable[[NodeName], None] = _ignore,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._mono = mono
        self.on_seen: list[OnSeen] = []
        """Told of every hello of a declared node."""
        self._on_undeclared = on_undeclared
        self._sightings: dict[NodeName, NodeSighting] = {}
        self._undeclared: dict[NodeName, NodeSighting] = {}
        self._declared = desired.value.declared_nodes
        self._removed: dict[NodeName, None] = {}
        """Declared by a set before the one in force, the last ones last."""
        desired.follow(self._follow)

    def _follow(self, new: DesiredState) -> None:
        for node in self._declared - new.declared_nodes:
            self._removed[node] = None
            self._sightings.pop(node, None)
        self._declared = new.declared_nodes
        for node in new.declared_nodes:
            self._removed.pop(node, None)
            self._undeclared.pop(node, None)
        while len(self._removed) > MAX_REMOVED:
            del self._removed[next(iter(self._removed))]

    def saw_hello(self, node: NodeName, report: str | None) -> None:
        """`node` said hello now."""
        seen = NodeSighting(at=self._wall(), heard_mono=self._mono(), report=parse_report(report))
        if node in self._declared:
            self._sightings[node] = seen
            for callback in self.on_seen:
                callback(node, is_appliance=report is not None)
        elif node in self._undeclared:
            self._undeclared[node] = seen
        elif node in self._removed or self._has_room():
            self._undeclared[node] = seen
            self._on_undeclared(node)

    def _has_room(self) -> bool:
        """Whether one more name can be remembered that no set has declared."""
        return sum(node not in self._removed for node in self.undeclared()) < MAX_STRANGERS

    def clock_jumped(self, by_s: float) -> None:
        """The wall clock was set: times of day that are shown move with it, as what has passed since does not change."""
        for book in (self._sightings, self._undeclared):
            for node, seen in book.items():
                book[node] = replace(seen, at=seen.at + by_s)

    def sightings(self) -> dict[NodeName, NodeSighting]:
        """The last hello of every declared node that said one."""
        return {node: seen for node, seen in self._sightings.items() if node in self._declared}

    def undeclared(self) -> dict[NodeName, NodeSighting]:
        """The last hello of nodes that no config declares and that still say it."""
        since_mono = self._mono() - FORGOTTEN_AFTER_S
        for node in [
            node for node, seen in self._undeclared.items() if seen.heard_mono < since_mono
        ]:
            del self._undeclared[node]
        return dict(self._undeclared)


class FleetView:
    """Made once by the daemon."""

    def __init__(self, reconciler: Reconciler, pool: WorkerPool, hellos: Presence) -> None:
        self._reconciler = reconciler
        self._pool = pool
        self._hellos = hellos
        self._started_mono = time.monotonic()
        self._said: NodeReport | None = None

    def own_report(self) -> NodeReport:
        """What stands here."""
        applied, attempt = self._reconciler.applied, self._reconciler.verdict_on_files
        result = attempt.result if attempt is not None else ""
        errors = (
            [item for item in attempt.problems if item.severity is Severity.ERROR]
            if attempt is not None and result in FAILED_RESULTS
            else []
        )
        return NodeReport(
            version=__version__,
            generation=applied.generation if applied else 0,
            applied=applied.digest if applied else "",
            desired=self._reconciler.files.digest,
            revision=(applied.revision or "") if applied else "",
            branch=(applied.branch or "") if applied else "",
            dirty=applied.dirty if applied else None,
            result=result if result in FAILED_RESULTS else "",
            problems=len(errors),
            first_problem=_say(errors[0]) if errors else "",
        )

    def say(self) -> str:
        """The header of a hello."""
        self._said = self.own_report()
        return encode_report(self._said)

    def follow_verdict(self) -> None:
        """A look is over: if it changed what hellos say, say it now."""
        if self._said is None or self.own_report() == self._said:
            return
        for publisher in self._pool.each(Publisher):
            # others must not learn only with the next hello what has changed here
            publisher.say_hello_again()

    def show(self, status: model.Status) -> None:
        """Its part of the status; nodes that are there say when they were heard."""
        sightings = self._hellos.sightings()
        status.hellos = {str(node): rfc3339(seen.at) for node, seen in sorted(sightings.items())}
        status.fleet = self.describe()
        for name, node in status.nodes.items():
            node.last_hello_at = status.hellos.get(name)

    def measure(self, facts: MetricsFacts) -> None:
        """Its part of the metrics."""
        sightings = self._hellos.sightings()
        facts.last_hello_at = {str(node): seen.at for node, seen in sightings.items()}
        facts.fleet_states = Counter(str(item.state) for item in self.standings())

    def standings(self) -> list[NodeStanding]:
        """Every node that says hello here, or should."""
        applied = self._reconciler.applied
        if applied is None:
            return []
        expected: dict[NodeName, float | None] = {}
        for node in applied.desired.run_nodes:
            expected |= applied.desired.hellos.get(node, {})
        return judge_fleet(
            expected,
            self._hellos.sightings(),
            self.own_report(),
            time.monotonic(),
            self._started_mono,
            self._hellos.undeclared(),
        )

    def describe(self) -> list[model.FleetStanding]:
        """For the status; empty where no hellos are heard."""
        described = [describe_standing(item) for item in self.standings()]
        applied = self._reconciler.applied
        if applied is None:
            return described
        for item in described:
            traits = applied.desired.traits.get(NodeName(item.node), NO_TRAITS)
            item.roles = list(traits.roles)
            item.labels = show_labels(traits, applied.desired.hidden)
        return described


def show_labels(traits: NodeTraits, hidden: Hidden) -> dict[str, str]:
    """The labels of a node; one that is taken from the environment as it is written in the config."""
    return {name: hidden.text(value) for name, value in traits.labels}


def _say(problem: Problem) -> str:
    name = problem.file.rsplit("/", 1)[-1]
    place = f"{name}:{problem.line}:{problem.column} " if problem.line else ""
    return f"{problem.code} {place}{problem.message}"


def describe_standing(item: NodeStanding) -> model.FleetStanding:
    """One node."""
    report = item.report
    described = model.FleetStanding(
        node=item.node,
        state=str(item.state),
        last_hello_at=rfc3339(item.last_hello_at) if item.last_hello_at is not None else None,
    )
    if report is not None:
        described.version = report.version
        described.generation = report.generation
        described.applied = report.applied
        described.desired = report.desired
        described.revision = report.revision or None
        described.branch = report.branch or None
        described.dirty = report.dirty
        described.problems = report.problems
        described.first_problem = report.first_problem or None
    return described
