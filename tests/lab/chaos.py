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
from dataclasses import dataclass
from pathlib import Path

from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.tally import Tally, dead_of, line_message, lines_of, tally
from tests.support.waiting import at_a_random_moment, pace, until

SENDER = """
version: 1
broker: {{servers: ["{url}"], ping_interval: 1s, reconnect_wait: 100ms}}
defaults: {{ack: {{timeout: 1s, on: {ack_on}}}, compression: {compression}}}
nodes:
  alpha:
    publish:
      lines: {{to: beta, method: REQToFileAppend}}
  beta: {{subscribe: {{REQToFileAppend: {{accept_from: [alpha]}}}}}}
"""


@dataclass
class Outcome:
    """What a run counted. `accepted_per_s` is over all of it, the moments without a sender included."""

    tally: Tally
    faults: dict[str, int]
    accepted_per_s: float
    settle_s: float

    @property
    def is_exactly_once(self) -> bool:
        return self.tally.is_right

    def __str__(self) -> str:
        return f"{self.tally}; {self.accepted_per_s:.0f}/s accepted, settled in {self.settle_s:.1f} s, killed {self.faults}"


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
            body = [line_message(line) for line in lines]
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
    batch: int = 20,
    ack_on: str = "done",
    compression: str = "none",
    receiver_command: list[str] | None = None,
    gap_s: tuple[float, float] = (0.2, 0.7),
    kinds: tuple[str, ...] = ("sender", "receiver", "broker"),
    settle_timeout_s: float = 60.0,
) -> Outcome:
    """Kill each of `kinds` `kills` times in random order under load, let everything settle, count."""
    rng = random.Random(seed)
    with NatsServer() as broker:
        text = SENDER.format(url=broker.url, ack_on=ack_on, compression=compression)
        sender = Appliance(text, directory / "alpha")
        receiver = Appliance(text, directory / "beta", command=receiver_command)
        sender.args, receiver.args = ["--node", "alpha"], ["--node", "beta"]
        sender.only_named = receiver.only_named = True
        try:
            sender.start(ready=False)
            receiver.start(ready=False)
            sender.wait_ready()
            receiver.wait_ready()
            load = Load(sender, per_second, batch)
            load_since = time.monotonic()
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
            load_s = started - load_since
            sender.wait_ready()
            receiver.wait_ready()
            _wait_settled(sender, receiver, settle_timeout_s)
            return Outcome(
                tally=tally(
                    load.accepted,
                    lines_of(receiver),
                    offered=load.offered,
                    dead=dead_of(sender),
                ),
                faults=dict(collections.Counter(faults)),
                accepted_per_s=len(load.accepted) / load_s,
                settle_s=time.monotonic() - started,
            )
        finally:
            sender.close()
            receiver.close()


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


MUTANT_ACK_BEFORE_COMMIT = [sys.executable, "-m", "tests.support.mutant_ack_first"]
MUTANT_NO_DEDUPE = [sys.executable, "-m", "tests.support.mutant_no_dedupe"]
