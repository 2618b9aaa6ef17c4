"""A fleet of 10,000 nodes seen from its central: `python -m tests.measure.many_nodes [--nodes 10000] [--hello-every 60]`.

The central and the broker are real. The nodes are played by one client, which says hello in their names and acknowledges
in their place what is sent to them. Told is what it takes central: to start, when all say hello at once (the broker was
away), while they say it by and by, for one broadcast, for `fleet status`, for a reload.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cbor2
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from appliance.core.fleet import NodeReport, encode_report
from appliance.dialect.headers import HELLO_HEADER
from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message
from tests.support.nats_server import NatsServer
from tests.support.waiting import pace_async, until, until_async

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
METHOD = "REQToFile"
HELLOS = "central.REQHello.EventNACK"


def config(url: str, nodes: int, window: int = 16) -> str:
    """Central, and so many ships of one role."""
    ships = "".join(f"  ship{number}: {{roles: [ship]}}\n" for number in range(nodes))
    return f"""
version: 1
broker: {{servers: ["{url}"]}}
roles:
  ship: {{window: {window}, subscribe: {{{METHOD}: {{}}}}}}
nodes:
  central: {{subscribe: {{REQHello: {{}}, REQErrorLog: {{}}}}}}
{ships}"""


class Ships:
    """The client that plays them."""

    def __init__(self, client: Client, count: int, report: NodeReport) -> None:
        self._client = client
        self._headers = {"serial": "cbor", HELLO_HEADER: encode_report(report)}
        self._hellos = [
            cbor2.dumps(seed_message("central", f"ship{number}", "REQHello", ["hello\n"]))
            for number in range(count)
        ]
        self.taken: set[str] = set()

    async def listen(self) -> None:
        """Hear what is sent to any of them."""
        await self._client.subscribe(f"*.{METHOD}.EventACK", cb=self._take)
        await self._client.flush()

    async def _take(self, raw: Msg) -> None:
        node = raw.subject.partition(".")[0]
        self.taken.add(node)
        await self._client.publish(raw.reply, f"confirmed from: {node}: 0".encode())

    async def say_hello(self, number: int) -> None:
        """One of them, in its turn."""
        await self._client.publish(
            HELLOS, self._hellos[number % len(self._hellos)], headers=self._headers
        )


def cpu_s(pid: int) -> float:
    """What a process has used so far, user and system."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_S


def resident_mb(pid: int) -> float:
    """Memory that a process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


@contextmanager
def told(what: str, pid: int) -> Iterator[None]:
    """Print how long it took and what it cost the process."""
    started, used = time.monotonic(), cpu_s(pid)
    yield
    print(
        f"{what:44} {time.monotonic() - started:7.2f} s {cpu_s(pid) - used:7.2f} s of CPU {resident_mb(pid):6.0f} MB",
        flush=True,
    )


def heard(central: Appliance) -> int:
    """Nodes that are known to live, by the metrics: they are cheaper than the status of so many."""
    text = central.request("GET", "/metrics")[1]
    lines = [line for line in text.splitlines() if line.startswith("appliance_fleet_nodes{")]
    counts = {line.split('"')[1]: float(line.split()[1]) for line in lines}
    return int(sum(counts.get(state, 0) for state in ("in_sync", "behind", "refused", "alive")))


async def play(central: Appliance, pid: int, url: str, nodes: int, hello_every_s: float) -> None:
    """The phases with all nodes there."""
    client = await nats.connect(url, pending_size=64 << 20)
    digest = central.status()["config"]["digest"]
    ships = Ships(client, nodes, NodeReport(applied=digest, result="applied"))
    await ships.listen()
    with told(f"{nodes} hellos at once", pid):
        for number in range(nodes):
            await ships.say_hello(number)
        await until_async(lambda: heard(central) >= nodes, every_s=0.3)
    rate = nodes / hello_every_s
    seconds = min(20.0, hello_every_s)
    with told(f"hellos, {rate:.0f}/s for {seconds:g} s", pid):
        started = time.monotonic()
        for number in range(int(rate * seconds)):
            await ships.say_hello(number)
            await pace_async(started + number / rate)
    with told("fleet status", pid):
        await asyncio.to_thread(central.status)
    with told(f"a broadcast to {nodes}, all acknowledged", pid):
        everybody = [f"ship{number}" for number in range(nodes)]
        message = {
            "to_nodes": everybody,
            "method": METHOD,
            "data": ["north\n"],
            "file_name": "orders",
        }
        await asyncio.to_thread(central.send, message)
        await until_async(lambda: len(ships.taken) >= nodes, every_s=0.05)
        await asyncio.to_thread(until, lambda: not central.status()["outbox"]["pending"])
    central.config_path.write_text(config(url, nodes, window=17))
    with told("a reload that changes a role of all", pid):
        await asyncio.to_thread(central.reload)
    await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--hello-every", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, NatsServer() as broker:
        text = config(broker.url, options.nodes)
        central = Appliance(text, Path(directory), args=["--node", "central"])
        central.only_named = True
        started = time.monotonic()
        with central:
            assert central.process is not None
            pid = central.process.pid
            print(
                f"{'start to ready':44} {time.monotonic() - started:7.2f} s {cpu_s(pid):7.2f} s of CPU"
            )
            asyncio.run(play(central, pid, broker.url, options.nodes, options.hello_every))


if __name__ == "__main__":
    main()
