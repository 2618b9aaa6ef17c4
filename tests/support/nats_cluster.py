"""Three nats-servers that keep streams together, of which any may be killed."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

import nats

from tests.support.nats_server import NatsServer
from tests.support.waiting import until

SIZE = 3


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at the moment: what names its neighbours in its configuration cannot wait for its own."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def ask_jetstream(urls: list[str], words: str) -> dict[str, Any]:
    """One request of JetStream's API to any of these servers; an error where none answers."""

    async def ask() -> dict[str, Any]:
        client = await nats.connect(urls, allow_reconnect=False, connect_timeout=2)
        try:
            answer = await client.request(f"$JS.API.{words}", b"", timeout=2)
            found: dict[str, Any] = json.loads(answer.data)
            return found
        finally:
            await client.close()

    try:
        return asyncio.run(ask())
    except Exception as error:
        return {"error": str(error)}


class Cluster:
    """Works as `with`; ready when it has a leader."""

    def __init__(self, directory: Path, *, sync: bool = False) -> None:
        ports = free_ports(SIZE)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        always = "sync_interval: always" if sync else ""
        self.servers = {
            f"n{number}": NatsServer(
                f"server_name: n{number}\n"
                f'jetstream {{store_dir: "{directory}/n{number}"\n{always}\n}}\n'
                f'cluster {{name: c, listen: "127.0.0.1:{port}", routes: [{routes}]}}'
            )
            for number, port in enumerate(ports, 1)
        }

    def __enter__(self) -> Cluster:
        for server in self.servers.values():
            server.start()
        until(lambda: "error" not in self.ask("INFO"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self.servers.values():
            server.__exit__(kind, value, trace)

    @property
    def urls(self) -> list[str]:
        """Addresses for clients."""
        return [server.url for server in self.servers.values()]

    def ask(self, words: str) -> dict[str, Any]:
        """One request of JetStream's API to any server that lives; an error where none answers."""
        running = [server.url for server in self.servers.values() if server.is_running]
        return ask_jetstream(running, words)

    def leader(self, stream: str) -> NatsServer | None:
        """Who leads a stream; None where nobody does at the moment."""
        found = self.ask(f"STREAM.INFO.{stream}").get("cluster", {})
        return self.servers.get(found.get("leader", ""))

    def wait_whole(self, stream: str) -> None:
        """Until all servers have all of a stream: who kills a second one before would lose it."""

        def is_whole() -> bool:
            found = self.ask(f"STREAM.INFO.{stream}").get("cluster", {})
            others = found.get("replicas", [])
            return (
                bool(found.get("leader"))
                and len(others) == SIZE - 1
                and all(one.get("current") and not one.get("offline") for one in others)
            )

        until(is_whole, every_s=0.2)
