"""Who said hello when. Only declared nodes are remembered, so a free sender name cannot grow the book."""

from __future__ import annotations

from collections.abc import Callable

from appliance.core.names import NodeName
from appliance.core.specs import DesiredState


class Presence:
    """The hello sink of all subscribers."""

    def __init__(
        self,
        fleet: Callable[[], DesiredState],
        wall: Callable[[], float],
        on_seen: Callable[[NodeName], None],
    ) -> None:
        self._fleet = fleet
        self._wall = wall
        self._on_seen = on_seen
        self._last_hello_at: dict[NodeName, float] = {}

    def saw_hello(self, node: NodeName) -> None:
        """`node` said hello now."""
        if node in self._fleet().declared_nodes:
            self._last_hello_at[node] = self._wall()
            self._on_seen(node)

    def last_hello_at(self) -> dict[NodeName, float]:
        """Wall-clock seconds of the last hello per declared node."""
        declared = self._fleet().declared_nodes
        return {node: at for node, at in self._last_hello_at.items() if node in declared}
