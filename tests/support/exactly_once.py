"""The exactly-once harness: a sending and a receiving daemon and a broker, killed at random moments under load.

Every message is one line appended to a file on the receiver. The harness knows which messages were *accepted* (the
API answered, so they are on disk) and counts the lines at the end: each accepted line must stand there exactly once,
and no line may stand there twice. Two mutants (acknowledge before the commit; no memory of ids) must make it fail,
or it proves nothing.
"""

from __future__ import annotations

import collections
import http.client
import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import at_a_random_moment, pace, until

SENDER = """
version: 1
broker: {{servers: ["{url}"], ping_interval: 1s, reconnect_wait: 100ms}}
defaults: {{ack: {{timeout: 1s, retries: 1000, on: {ack_on}}}, compression: {compression}}}
nodes:
  alpha:
    publish:
      lines: {{to: beta, method: REQToFileAppend}}
  beta: {{subscribe: {{REQToFileAppend: {{accept_from: [alpha], dedupe: {dedupe}}}}}}}
"""


@dataclass
class Outcome:
    """What a run counted."""

    accepted: int = 0
    lines: int = 0
    lost: int = 0
    doubled: int = 0
    invented: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    settle_s: float = 0.0
    first_lost: list[str] = field(default_factory=list)

    @property
    def is_exactly_once(self) -> bool:
        return not (self.lost or self.doubled or self.invented)


class Load(threading.Thread):
    """Posts batches to the sending daemon and remembers what was accepted."""

    def __init__(self, appliance: Appliance, per_second: int, batch: int = 20) -> None:
        super().__init__(daemon=True)
        self.appliance = appliance
        self.interval_s = batch / per_second
        self.batch = batch
        self.accepted: set[str] = set()
        self.offered: set[str] = set()
        self.stopped = threading.Event()

    def run(self) -> None:
        number = 0
        due = time.monotonic()
        while not self.stopped.is_set():
            lines = [f"line-{number + i}" for i in range(self.batch)]
            number += self.batch
            self.offered.update(lines)
            body = [
                {
                    "from_node": "alpha",
                    "to_nodes": ["beta"],
                    "method": "REQToFileAppend",
                    "directory": "load",
                    "file_name": "lines.log",
                    "data": [f"{line}\n"],
                }
                for line in lines
            ]
            try:
                code, answer = self.appliance.request(
                    "POST", "/api/v1/messages", body, timeout_s=5.0
                )
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                pace(time.monotonic() + 0.02)
                continue  # it was just killed; these lines may or may not be on disk
            if code == 202:
                rows = answer["messages"] if isinstance(answer, dict) else answer
                self.accepted.update(
                    line for line, row in zip(lines, rows, strict=True) if row["accepted"]
                )
            due += self.interval_s
            pace(due)


def run_harness(
    directory: Path,
    *,
    kills: int,
    seed: int,
    per_second: int = 1_000,
    ack_on: str = "done",
    compression: str = "none",
    dedupe: bool = True,
    receiver_command: list[str] | None = None,
    gap_s: tuple[float, float] = (0.2, 0.7),
    kinds: tuple[str, ...] = ("sender", "receiver", "broker"),
    settle_timeout_s: float = 60.0,
) -> Outcome:
    """Kill each of `kinds` `kills` times in random order under load, let everything settle, count."""
    rng = random.Random(seed)
    outcome = Outcome()
    with NatsServer() as broker:
        text = SENDER.format(
            url=broker.url, ack_on=ack_on, compression=compression, dedupe=str(dedupe).lower()
        )
        sender = Appliance(text, directory / "alpha")
        receiver = Appliance(text, directory / "beta", command=receiver_command)
        sender.args, receiver.args = ["--node", "alpha"], ["--node", "beta"]
        sender.only_named = receiver.only_named = True
        try:
            sender.start(ready=False)
            receiver.start(ready=False)
            sender.wait_ready()
            receiver.wait_ready()
            load = Load(sender, per_second)
            load.start()
            faults = [kind for kind in kinds for _ in range(kills)]
            rng.shuffle(faults)
            for kind in faults:
                at_a_random_moment(rng, *gap_s)
                _fault(kind, rng, sender, receiver, broker)
            accepted = len(load.accepted)
            # the last to be killed takes messages again
            until(lambda: len(load.accepted) > accepted + load.batch, tell=sender.log)
            load.stopped.set()
            load.join(10)
            started = time.monotonic()
            sender.wait_ready()
            receiver.wait_ready()
            _wait_settled(sender, receiver, settle_timeout_s)
            outcome.settle_s = time.monotonic() - started
            outcome.faults = dict(collections.Counter(faults))
            _count(receiver, load, outcome)
        finally:
            sender.close()
            receiver.close()
    return outcome


def _fault(
    kind: str, rng: random.Random, sender: Appliance, receiver: Appliance, broker: NatsServer
) -> None:
    if kind == "broker":
        broker.kill()
        at_a_random_moment(rng, 0.0, 0.4)
        broker.start()
        return
    victim = sender if kind == "sender" else receiver
    victim.kill()
    at_a_random_moment(rng, 0.0, 0.3)
    victim.spawn()
    if rng.random() < 0.7:  # sometimes the next fault comes while it is still starting
        victim.wait_ready()


def _wait_settled(sender: Appliance, receiver: Appliance, timeout_s: float) -> None:
    sender.wait_until(
        lambda status: status["outbox"]["pending"] == 0 and status["outbox"]["in_flight"] == 0,
        timeout_s,
    )
    receiver.wait_until(lambda status: status["inbox"]["unfinished"] == 0, timeout_s)


def _count(receiver: Appliance, load: Load, outcome: Outcome) -> None:
    text = receiver.data("load", "beta", "lines.log").read_text()
    counts = collections.Counter(text.splitlines())
    lost = load.accepted - counts.keys()
    outcome.accepted = len(load.accepted)
    outcome.lines = sum(counts.values())
    outcome.lost = len(lost)
    outcome.first_lost = sorted(lost)[:5]
    outcome.doubled = sum(count - 1 for count in counts.values())
    outcome.invented = len(counts.keys() - load.offered)


MUTANT_ACK_BEFORE_COMMIT = [sys.executable, "-m", "tests.support.mutant_ack_first"]
