"""Who said hello when: the declared nodes, and apart from them a bounded number of others.

Those others are nodes that were removed from the config and still run, or somebody who invents names. A node that an
earlier set of this run declared always has its place; of all further names there are as many as `MAX_STRANGERS`, and who
is silent makes room.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from appliance.core.current import Current
from appliance.core.fleet import NodeSighting, parse_report
from appliance.core.names import NodeName
from appliance.core.specs import DesiredState

MAX_STRANGERS = 100
MAX_REMOVED = 10_000
FORGOTTEN_AFTER_S = 600.0
"""Of one that is not declared and says nothing any more."""


class OnSeen(Protocol):
    """Told of a hello; only appliances say something of their config with it."""

    def __call__(self, node: NodeName, *, is_appliance: bool) -> None: ...


def _ignore(_node: NodeName) -> None: ...


class Presence:
    """The hello sink of all subscribers."""

    def __init__(
        self,
        desired: Current[DesiredState],
        wall: Callable[[], float],
        on_seen: OnSeen,
        *,
        on_undeclared: Callable[[NodeName], None] = _ignore,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desired = desired
        self._wall = wall
        self._mono = mono
        self._on_seen = on_seen
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
            self._on_seen(node, is_appliance=report is not None)
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
