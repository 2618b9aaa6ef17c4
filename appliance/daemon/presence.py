"""Who said hello when. Only declared nodes are remembered, so a free sender name cannot grow the book."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from appliance.core.current import Current
from appliance.core.fleet import NodeSighting, parse_report
from appliance.core.names import NodeName
from appliance.core.specs import DesiredState


class OnSeen(Protocol):
    """Told of a hello; only appliances say something of their config with it."""

    def __call__(self, node: NodeName, *, is_appliance: bool) -> None: ...


class Presence:
    """The hello sink of all subscribers."""

    def __init__(
        self,
        desired: Current[DesiredState],
        wall: Callable[[], float],
        on_seen: OnSeen,
        *,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desired = desired
        self._wall = wall
        self._mono = mono
        self._on_seen = on_seen
        self._sightings: dict[NodeName, NodeSighting] = {}

    def saw_hello(self, node: NodeName, report: str | None) -> None:
        """`node` said hello now."""
        if node in self._desired.value.declared_nodes:
            self._sightings[node] = NodeSighting(
                at=self._wall(), heard_mono=self._mono(), report=parse_report(report)
            )
            self._on_seen(node, is_appliance=report is not None)

    def clock_jumped(self, by_s: float) -> None:
        """The wall clock was set: times of day that are shown move with it, as what has passed since does not change."""
        for node, seen in self._sightings.items():
            self._sightings[node] = replace(seen, at=seen.at + by_s)

    def sightings(self) -> dict[NodeName, NodeSighting]:
        """The last hello of every declared node that said one."""
        declared = self._desired.value.declared_nodes
        return {node: seen for node, seen in self._sightings.items() if node in declared}
