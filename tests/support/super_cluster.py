"""Three clusters of one nats-server each, joined by gateways: one broker whose parts are far from each other.

with SuperCluster(directory) as broker:
    await connect(broker.url("north"))
    broker.cut("north")    # the gateways to and from north are gone
    broker.mend("north")

Three, since JetStream wants most of its servers for whatever it decides: two of them go on without the third.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.cut_link import CutLink
from tests.support.nats_cluster import ask_jetstream, free_ports
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

NAMES = ("north", "south", "east")


class SuperCluster:
    """Works as `with`; ready when a stream can be made in each of its clusters."""

    def __init__(self, directory: Path) -> None:
        ports = free_ports(2 * len(NAMES))
        self._gateway_ports = dict(zip(NAMES, ports, strict=False))
        self._route_ports = dict(zip(NAMES, ports[len(NAMES) :], strict=True))
        self._links: dict[tuple[str, str], CutLink] = {}
        self._servers: dict[str, NatsServer] = {}
        self._directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> SuperCluster:
        with ExitStack() as stack:
            for name, other in permutations(NAMES, 2):
                self._links[name, other] = stack.enter_context(CutLink(self._gateway_ports[other]))
            for name in NAMES:
                self._servers[name] = stack.enter_context(NatsServer(self._config(name)))
            until(lambda: all(self._is_joined(name) for name in NAMES), every_s=0.1)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, value, trace)

    def url(self, name: str) -> str:
        """For clients of a cluster."""
        return self._servers[name].url

    def cut(self, name: str) -> None:
        """Cut a cluster off from the others."""
        for pair, link in self._links.items():
            if name in pair:
                link.cut()

    def mend(self, name: str) -> None:
        """Join it again."""
        for pair, link in self._links.items():
            if name in pair:
                link.mend()

    def cluster_of(self, stream: str, asked: str) -> str:
        """In which cluster a stream lives, by a server of the one that is asked; "" where that is not known."""
        found = self._ask(asked, f"STREAM.INFO.{stream}")
        return str(found.get("cluster", {}).get("name", ""))

    def _config(self, name: str) -> str:
        # each goes to the others by links of its own; where the others say that they are is never used
        gateways = "\n".join(
            f'{{name: {other}, urls: ["nats://127.0.0.1:{self._links[name, other].port}"]}}'
            for other in NAMES
            if other != name
        )
        return (
            f"server_name: {name}1\n"
            f'jetstream {{store_dir: "{self._directory}/{name}"}}\n'
            # a route, if only to itself: JetStream would not be one of a cluster without
            f'cluster {{name: {name}, listen: "127.0.0.1:{self._route_ports[name]}",'
            f' routes: ["nats://127.0.0.1:{self._route_ports[name]}"]}}\n'
            f'gateway {{name: {name}, listen: "127.0.0.1:{self._gateway_ports[name]}",'
            f" reject_unknown_cluster: true, gateways: [{gateways}]}}"
        )

    def _is_joined(self, name: str) -> bool:
        return "error" not in self._ask(name, "INFO")

    def _ask(self, name: str, words: str) -> dict[str, Any]:
        return ask_jetstream([self.url(name)], words)
