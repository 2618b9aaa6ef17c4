"""Long runs of delivery by streams, with real daemons and brokers: ``python -m tests.measure.streams NAME [--count N]``.

- `away`: a node is away for a month while so many messages are stored for it; the rate of storing, and of doing them when
  it is back. The month is the daemons': their wall clocks are 31 days ahead once all is stored, and central starts anew
- `leader`: a cluster of three whose stream's leader is killed again and again while messages flow
- `reload`: the config goes to and fro between `core` and `jetstream` under load
- `pair`: two daemons of one node, one of which is killed again and again
- `puback`: the sender's line goes dark and is cut while messages flow, so that answers of the stream are lost
- `deleted`: the stream is deleted by hand again and again, while senders go on
- `full`: the disk of the stream is full, is given room, and the broker started anew (needs root, for a small tmpfs)
- `moved`: of so many messages that wait a node does a third, and is moved to another machine

Each tells what was lost and doubled, and how long after the last fault all was done; it exits with 1 if anything was lost or
doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import nats

from tests.support.appliance import PLAIN_COMMAND, Appliance
from tests.support.cut_link import CutLink
from tests.support.faked_clock import FakedClock
from tests.support.nats_cluster import Cluster
from tests.support.nats_server import NatsServer
from tests.support.waiting import pace, until

METHOD = "REQToFileAppend"
AT_ONCE = 50
MONTH_S = 31 * 86_400.0
PATIENCE_S = 600.0
QUIET_S = 120.0
"""Where nothing was done for so long, nothing will be."""
CONFIG = """
version: 1
broker: {{servers: [{servers}], reconnect_wait: 50ms, ping_interval: 1s}}
reload: {{watch: false, poll_interval: 10m, drain_timeout: 10m}}
defaults: {{compression: none, delivery: {delivery}, stream: {{replicas: {replicas}, max_bytes: 200000000, max_age: 1440h}}}}
nodes:
  central: {{subscribe: {{REQErrorLog: {{}}}}}}
  ship: {{subscribe: {{REQToFileAppend: {{accept_from: [central], ack: {{on: {ack_on}}}}}}}}}
"""


def config(*urls: str, delivery: str = "jetstream", ack_on: str = "received") -> str:
    servers = ", ".join(f'"{url}"' for url in urls)
    replicas = 3 if len(urls) > 1 else 1
    return CONFIG.format(servers=servers, delivery=delivery, replicas=replicas, ack_on=ack_on)


class Run:
    """One run in a directory of its own, with a load that goes on until it is stopped."""

    def __init__(self, directory: Path, seed: int, ack_on: str = "received") -> None:
        self.directory = directory
        self.ack_on = ack_on
        self.rng = random.Random(seed)
        self.sent = 0

    def daemon(self, name: str, text: str, *nodes: str) -> Appliance:
        args = [word for node in nodes or (name,) for word in ("--node", node)]
        made = Appliance(text, self.directory / name, args=args, command=PLAIN_COMMAND)
        made.only_named = True
        return made

    def send(self, sender: Appliance, count: int) -> None:
        while count > 0:
            texts = [f"{self.sent + at}\n" for at in range(min(count, AT_ONCE))]
            sender.send(
                *(
                    {
                        "from_node": "central", "to_nodes": ["ship"], "method": METHOD, "data": [text],
                        "directory": "t", "file_name": "f",
                    }
                    for text in texts
                )
            )  # fmt: skip
            self.sent += len(texts)
            count -= len(texts)

    def flow(self, sender: Appliance, seconds: float, rate: float) -> None:
        """Send at a rate for a time."""
        due_mono = began = time.monotonic()
        while due_mono < began + seconds:
            self.send(sender, AT_ONCE)
            due_mono += AT_ONCE / rate
            pace(due_mono)

    def lines(self, *daemons: Appliance) -> Counter[str]:
        found: Counter[str] = Counter()
        for one in daemons:
            path = one.data("t", "ship", "f")
            if path.exists():
                found.update(path.read_text().split())
        return found

    def settle(self, sender: Appliance, *daemons: Appliance) -> str:
        """Wait until all is done; what was lost and doubled, "" for nothing."""
        began = time.monotonic()
        until(lambda: not sender.status()["outbox"]["pending"], timeout_s=PATIENCE_S, every_s=0.2)
        # lost is what does not come any more: how long all of it takes is the machine's
        found, grew_mono = self.lines(*daemons), time.monotonic()
        while len(found) < self.sent and time.monotonic() < grew_mono + QUIET_S:
            pace(time.monotonic() + 0.5)
            now = self.lines(*daemons)
            if len(now) > len(found):
                grew_mono = time.monotonic()
            found = now
        lost = self.sent - len(found)
        doubled = sum(count - 1 for count in found.values())
        dead = sender.status()["outbox"]["dead"]
        print(
            f"  {self.sent} sent, {lost} lost, {doubled} doubled, {dead} dead letters,"
            f" all done {time.monotonic() - began:.1f} s after the last fault",
            flush=True,
        )
        return "" if not (lost or doubled or dead) else "lost or doubled"


def away(run: Run, count: int) -> str:
    with jetstream(run) as server:
        text = config(server.url, ack_on=run.ack_on)
        clock = FakedClock(run.directory / "clock")
        central, ship = run.daemon("central", text), run.daemon("ship", text)
        central.environment = ship.environment = clock.environment
        with central:
            began = time.monotonic()
            run.send(central, count)
            until(lambda: not central.status()["outbox"]["pending"], timeout_s=PATIENCE_S)
            print(f"  stored at {count / (time.monotonic() - began):.0f}/s")
            central.stop()
            clock.set(MONTH_S)
            central.start()
            began = time.monotonic()
            with ship:
                until(lambda: handled(ship) >= count, timeout_s=PATIENCE_S, every_s=0.1)
                print(f"  done at {count / (time.monotonic() - began):.0f}/s, start included")
                # news of the month after comes with what waited
                run.flow(central, 1.0, 200)
                return run.settle(central, ship)


def handled(daemon: Appliance) -> int:
    return sum(one["handled"] for one in daemon.status()["nodes"]["ship"]["workers"])


def leader(run: Run, count: int) -> str:
    with Cluster(run.directory) as cluster:
        text = config(*cluster.urls)
        with run.daemon("ship", text) as ship, run.daemon("central", text) as central:
            for kill in range(count):
                run.flow(central, 1.0, 1_000)
                victim = cluster.leader("appl-ship")
                if victim is not None:
                    victim.kill()
                run.flow(central, 1.0, 1_000)
                if victim is not None:
                    victim.start()
                cluster.wait_whole("appl-ship")
                print(f"  kill {kill + 1}: {run.sent} sent", flush=True)
            return run.settle(central, ship)


def reload(run: Run, count: int) -> str:
    with jetstream(run) as server:
        texts = [config(server.url, delivery=delivery) for delivery in ("core", "jetstream")]
        with run.daemon("all", texts[0], "central", "ship") as both:
            for turn in range(count):
                run.flow(both, 1.0, 2_000)
                both.config_path.write_text(texts[(turn + 1) % 2])
                result = both.reload()["result"]
                assert result == "applied", result
            return run.settle(both, both)


def pair(run: Run, count: int) -> str:
    with jetstream(run) as server:
        text = config(server.url, ack_on=run.rng.choice(("received", "done")))
        with (
            run.daemon("central", text) as central,
            run.daemon("one", text, "ship") as one,
            run.daemon("two", text, "ship") as two,
        ):
            for _ in range(count):
                run.flow(central, 1.0, 1_000)
                victim = run.rng.choice((one, two))
                victim.kill()
                run.flow(central, run.rng.uniform(0.2, 2.0), 1_000)
                victim.start()
            return run.settle(central, one, two)


def puback(run: Run, count: int) -> str:
    with jetstream(run) as server, CutLink(server.port) as link:
        text = config(f"nats://127.0.0.1:{link.port}", ack_on=run.rng.choice(("received", "done")))
        ships = config(server.url, ack_on="done")
        with run.daemon("central", text) as central, run.daemon("ship", ships) as ship:
            for _ in range(count):
                run.flow(central, run.rng.uniform(0.3, 1.0), 1_000)
                link.swallow()
                run.flow(central, run.rng.uniform(0.05, 0.3), 1_000)
                link.cut()
                run.flow(central, run.rng.uniform(0.05, 0.5), 1_000)
                link.mend()
            return run.settle(central, ship)


def deleted(run: Run, count: int) -> str:
    """What was in the stream is gone with it: it is deleted when the node has done all that it held."""
    with jetstream(run) as server:
        text = config(server.url, ack_on=run.rng.choice(("received", "done")))
        with run.daemon("central", text) as central, run.daemon("ship", text) as ship:
            for _ in range(count):
                run.flow(central, 0.5, 500)
                until(lambda: len(run.lines(ship)) >= run.sent, timeout_s=PATIENCE_S, every_s=0.05)
                ask_api(server.url, "STREAM.DELETE.appl-ship")
                run.flow(central, run.rng.uniform(0.1, 1.0), 500)
            return run.settle(central, ship)


def full(run: Run, count: int) -> str:
    store = run.directory / "small"
    store.mkdir()
    with ExitStack() as stack:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(store)], check=True)
        stack.callback(lambda: subprocess.run(["umount", "-l", str(store)], check=False))
        server = stack.enter_context(NatsServer(f'jetstream {{store_dir: "{store}/jetstream"}}'))
        text = config(server.url, ack_on=run.rng.choice(("received", "done"))).replace(
            "max_bytes: 200000000", "max_bytes: 0"
        )
        central = stack.enter_context(run.daemon("central", text))
        ship = stack.enter_context(run.daemon("ship", text))
        ballast = store / "ballast"
        for _ in range(count):
            run.flow(central, 0.5, 1_000)
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(65_536))
            run.flow(central, run.rng.uniform(1.0, 3.0), 1_000)
            print(f"  full: {central.status()['outbox']['pending']} wait at the sender", flush=True)
            ballast.unlink()
            server.kill()  # a broker whose disk was full keeps no streams until it is started anew
            server.start()
        return run.settle(central, ship)


def moved(run: Run, count: int) -> str:
    with jetstream(run) as server:
        text = config(server.url)
        with run.daemon("central", text) as central:
            run.send(central, count)
            until(lambda: not central.status()["outbox"]["pending"], timeout_s=PATIENCE_S)
            with run.daemon("old", text, "ship") as old:
                until(lambda: handled(old) >= count // 3, timeout_s=PATIENCE_S, every_s=0.1)
                # what it has taken in stays with it: an operator waits until that is done
                old.stop(PATIENCE_S)
            print(f"  moved after {len(run.lines(old))}", flush=True)
            with run.daemon("new", text, "ship") as new:
                return run.settle(central, old, new)


def ask_api(url: str, words: str) -> None:
    async def ask() -> None:
        client = await nats.connect(url)
        await client.request(f"$JS.API.{words}", timeout=10)
        await client.close()

    asyncio.run(ask())


def jetstream(run: Run) -> NatsServer:
    return NatsServer(
        f'jetstream {{store_dir: "{run.directory}/jetstream", sync_interval: always}}'
    )


RUNS: dict[str, tuple[Callable[[Run, int], str], int]] = {
    "away": (away, 100_000),
    "leader": (leader, 20),
    "reload": (reload, 50),
    "pair": (pair, 10),
    "puback": (puback, 5),
    "deleted": (deleted, 3),
    "full": (full, 2),
    "moved": (moved, 100_000),
}


def directories(seeds: range) -> Iterator[tuple[int, Path]]:
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="streams-") as directory:
            yield seed, Path(directory)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("--count", type=int, help="messages, kills or reloads")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--ack-on", default="received", choices=("received", "done"), help="of `away`"
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    act, usual = RUNS[options.name]
    bad = 0
    for seed, directory in directories(range(options.first, options.first + options.seeds)):
        print(f"{options.name}, seed {seed}", flush=True)
        with ExitStack():
            bad += bool(act(Run(directory, seed, options.ack_on), options.count or usual))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
