"""Far more commands than a node can do at once, while other lanes of both sides are asked how long they take."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.tally import Tally, dead_of, is_settled, line_message, tally
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import pace, until

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{watch: false, poll_interval: 10m}}
nodes:
  alpha: {{subscribe: {{REQErrorLog: {{}}, REQToFileAppend: {{accept_from: [beta]}}}}}}
  beta:
    subscribe:
      REQToFileAppend: {{accept_from: [alpha], ack: {{on: done}}}}
      REQCliCommand: {{accept_from: [alpha], allow_commands: [[sh, -c, "*"]]{settings}}}
  gamma: {{subscribe: {{REQToFileAppend: {{accept_from: [alpha], ack: {{on: done}}}}}}}}
"""
"""`gamma` is another lane of the sender, `beta`'s other subject is another one of the receiver, too."""
EFFECTS = "APPEND_EFFECTS_TO"
OTHERS = ("beta", "gamma")
PROBE_EVERY_S = 0.1
BATCH = 500


@dataclass
class OverloadOutcome:
    """Latencies in milliseconds, from the request to the word that it is done: 50 and 99 of 100, before and during."""

    tally: Tally
    seconds: float
    least_s: float
    turned_away: int
    dropped: int
    peak_mb: dict[str, float]
    latency_ms: dict[str, dict[str, tuple[float, float]]]

    @property
    def is_right(self) -> bool:
        return self.tally.is_right and not self.dropped

    def __str__(self) -> str:
        took = f"{self.seconds:.0f} s (at least {self.least_s:.0f}), {self.turned_away} times told to wait"
        peaks = ", ".join(f"{name} {mb:.0f} MB" for name, mb in self.peak_mb.items())
        lines = [f"{self.tally}", f"  {took}, dropped {self.dropped}, peaks: {peaks}"]
        lines += [
            f"  to {node}: "
            + ", ".join(
                f"{when} p50 {p50:.0f} p99 {p99:.0f} ms" for when, (p50, p99) in found.items()
            )
            for node, found in self.latency_ms.items()
        ]
        return "\n".join(lines)


class _Probe(threading.Thread):
    """Asks one lane again and again, each time until it is done."""

    def __init__(self, sender: Appliance, node: str) -> None:
        super().__init__(daemon=True)
        self._sender = sender
        self._node = node
        self.latencies_ms: list[float] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            began = time.monotonic()
            told = self._sender.follow(line_message("probe", to_node=self._node), wait_s=60.0)
            assert '"done"' in told, told
            self.latencies_ms.append(1_000 * (time.monotonic() - began))
            pace(began + PROBE_EVERY_S)


def run_overload(
    directory: Path,
    *,
    count: int,
    ack_on: str,
    concurrency: int = 4,
    takes_s: float = 0.1,
    backlog: int | None = None,
    baseline_s: float = 5.0,
    timeout_s: float = 1_800.0,
) -> OverloadOutcome:
    """Submit all commands as fast as that goes, and wait for the last."""
    settings = f", concurrency: {concurrency}, ack: {{on: {ack_on}}}"
    if backlog is not None:
        settings += f", backlog: {backlog}"
    with NatsServer() as broker:
        text = CONFIG.format(url=broker.url, settings=settings)
        daemons = {}
        for node in ("alpha", "beta", "gamma"):
            one = Appliance(text, directory / node, args=["--node", node])
            one.only_named = True
            daemons[node] = one
        sender, receiver = daemons["alpha"], daemons["beta"]
        effects = directory / "effects"
        with sender, receiver, daemons["gamma"]:
            before = _probe(sender, lambda until_mono: pace(until_mono), baseline_s)
            names = [f"command-{number}" for number in range(count)]
            accepted: list[str] = []
            began = time.monotonic()

            def overload(_: float) -> None:
                for first in range(0, count, BATCH):
                    some = names[first : first + BATCH]
                    answers = sender.send(*(_command(name, takes_s, effects) for name in some))
                    accepted.extend(
                        name for name, row in zip(some, answers, strict=True) if row["accepted"]
                    )
                until(
                    lambda: len(_lines(effects)) >= len(accepted) or dead_of(sender),
                    timeout_s=timeout_s,
                    every_s=0.2,
                    tell=sender.log,
                )

            during = _probe(sender, overload, 0.0)
            seconds = time.monotonic() - began
            until(lambda: is_settled(sender) and is_settled(receiver), every_s=0.1, tell=sender.log)
            worker = receiver.worker("beta.REQCliCommand.CommandACK_subscriber")
            assert worker is not None
            return OverloadOutcome(
                tally=tally(accepted, _lines(effects), dead=dead_of(sender) + dead_of(receiver)),
                seconds=seconds,
                least_s=count * takes_s / concurrency,
                turned_away=worker.get("turned_away", 0),
                dropped=worker["dropped"],
                peak_mb={name: _peak_mb(daemons[name]) for name in ("alpha", "beta")},
                latency_ms={
                    node: {"before": before[node], "during": during[node]} for node in OTHERS
                },
            )


def _command(name: str, takes_s: float, effects: Path) -> dict:
    return {
        "from_node": "alpha",
        "to_nodes": ["beta"],
        "method": "REQCliCommand",
        "method_args": ["sh", "-c", f"sleep {takes_s:g}; echo {name} >> {effects}"],
        "directory": "replies",
        "file_name": "replies.log",
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _probe(sender: Appliance, work, seconds: float) -> dict[str, tuple[float, float]]:
    """Latencies of the other lanes while `work` goes on."""
    probes = {node: _Probe(sender, node) for node in OTHERS}
    for probe in probes.values():
        probe.start()
    work(time.monotonic() + seconds)
    for probe in probes.values():
        probe.stopped.set()
        probe.join(70)
    return {node: _quantiles(probe.latencies_ms) for node, probe in probes.items()}


def _quantiles(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def _peak_mb(daemon: Appliance) -> float:
    assert daemon.process is not None
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1_024 / 1e6
