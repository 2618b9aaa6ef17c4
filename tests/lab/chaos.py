"""The exactly-once harness: a sending and a receiving daemon and a broker, killed and stalled at random moments under load.

Every message is one line appended to a file on the receiver. The harness knows which messages were *accepted* (the
API answered, so they are on disk) and counts the lines at the end: each accepted line must stand there exactly once,
and no line may stand there twice. At the end nothing waits, and no daemon holds more descriptors than one that has
just been started, or more memory than is told. Two mutants (acknowledge before the commit; no memory of ids) must make
it fail, or it proves nothing.
"""

from __future__ import annotations

import collections
import http.client
import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.tally import Tally, dead_of, line_message, lines_of, tally
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import at_a_random_moment, pace, until

SENDER = """
version: 1
broker: {{servers: ["{url}"], ping_interval: 1s, reconnect_wait: 100ms}}
defaults: {{ack: {{timeout: 1s, on: {ack_on}}}, compression: {compression}}}
nodes:
  alpha:
    publish:
      lines: {{to: beta, method: REQToFileAppend}}
  beta: {{subscribe: {{REQToFileAppend: {{accept_from: [alpha], concurrency: {concurrency}}}}}}}
"""


MAX_MORE_DESCRIPTORS = 8
"""Connections of the harness itself come and go."""


@dataclass
class Outcome:
    """What a run counted. `accepted_per_s` is over all of it, the moments without a sender included."""

    tally: Tally
    faults: dict[str, int]
    accepted_per_s: float
    settle_s: float
    more_descriptors: int = 0
    """How many more than after its first start a daemon holds when all is done."""
    peak_mib: int = 0
    growth_mib: int = 0
    """How much a daemon that was not killed since grew from a quarter of the run on."""

    @property
    def is_exactly_once(self) -> bool:
        return self.tally.is_right

    @property
    def is_right(self) -> bool:
        """Exactly once, and nothing left behind."""
        return self.is_exactly_once and self.more_descriptors <= MAX_MORE_DESCRIPTORS

    def __str__(self) -> str:
        return (
            f"{self.tally}; {self.accepted_per_s:.0f}/s accepted, settled in {self.settle_s:.1f} s,"
            f" {self.more_descriptors:+} descriptors, at most {self.peak_mib} MiB,"
            f" {self.growth_mib:+} MiB from a quarter on, {self.faults}"
        )


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
    seconds: float | None = None,
    settle_timeout_s: float = 60.0,
    concurrency: int = 16,
) -> Outcome:
    """Do each of `kinds` `kills` times in random order under load, or for so many seconds; let everything settle, count.

    Kinds: ``sender``, ``receiver`` and ``broker`` are killed (-9) and started again, ``stall`` and ``pause`` stop broker
    and receiver for a while (SIGSTOP), ``reload`` changes the config of both daemons.
    """
    rng = random.Random(seed)
    with NatsServer() as broker:
        text = SENDER.format(
            url=broker.url, ack_on=ack_on, compression=compression, concurrency=concurrency
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
            fresh = max(map(count_descriptors, (sender, receiver)))
            load = Load(sender, per_second, batch)
            load_since = time.monotonic()
            load.start()
            done: collections.Counter[str] = collections.Counter()
            sizes: dict[int, int] = {}
            for kind in _choose_faults(rng, kinds, kills, seconds):
                at_a_random_moment(rng, *gap_s)
                _fault(kind, rng, sender, receiver, broker)
                done[kind] += 1
                if not sizes and time.monotonic() - load_since > (seconds or 0) / 4:
                    sizes = dict(map(find_size, (sender, receiver)))
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
                faults=dict(done),
                accepted_per_s=len(load.accepted) / load_s,
                settle_s=time.monotonic() - started,
                more_descriptors=max(map(count_descriptors, (sender, receiver))) - fresh,
                peak_mib=max(map(peak_mib, (sender, receiver))),
                growth_mib=max(
                    mib - sizes.get(pid, mib) for pid, mib in map(find_size, (sender, receiver))
                ),
            )
        finally:
            sender.close()
            receiver.close()


def _choose_faults(
    rng: random.Random, kinds: Sequence[str], times: int, seconds: float | None
) -> Iterator[str]:
    if seconds is None:
        faults = [kind for kind in kinds for _ in range(times)]
        rng.shuffle(faults)
        yield from faults
        return
    end_mono = time.monotonic() + seconds
    while time.monotonic() < end_mono:
        yield rng.choice(kinds)


def _fault(
    kind: str, rng: random.Random, sender: Appliance, receiver: Appliance, broker: NatsServer
) -> None:
    if kind == "broker":
        broker.kill()
        at_a_random_moment(rng, 0.0, 0.4)
        broker.start()
    elif kind == "stall":
        broker.pause()
        # mostly shorter than it takes to be noticed (ping_interval), sometimes longer
        at_a_random_moment(rng, 0.2, 1.0 if rng.random() < 0.7 else 8.0)
        broker.resume()
    elif kind == "pause":
        receiver.signal(signal.SIGSTOP)
        at_a_random_moment(rng, 0.2, 3.0)
        receiver.signal(signal.SIGCONT)
    elif kind == "reload":
        timeout = f"ack: {{timeout: {rng.choice((800, 900, 1_000, 1_100))}ms"
        for daemon in (sender, receiver):
            text = daemon.config_path.read_text()
            daemon.write_config(re.sub(r"ack: {timeout: \w+", timeout, text))
            daemon.reload()
    else:
        victim = sender if kind == "sender" else receiver
        victim.kill()
        at_a_random_moment(rng, 0.0, 0.3)
        victim.spawn()
        if rng.random() < 0.7:  # sometimes the next fault comes while it is still starting
            victim.wait_ready()


def count_descriptors(daemon: Appliance) -> int:
    """How many a daemon has open."""
    assert daemon.process is not None
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def peak_mib(daemon: Appliance) -> int:
    """The most memory that the running process of a daemon had."""
    return _read_mib(daemon, "VmHWM")


def find_size(daemon: Appliance) -> tuple[int, int]:
    """The running process of a daemon, and the memory that it has."""
    assert daemon.process is not None
    return daemon.process.pid, _read_mib(daemon, "VmRSS")


def _read_mib(daemon: Appliance, name: str) -> int:
    assert daemon.process is not None
    facts = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", facts, re.M)
    # one that was just killed, and is not reaped yet, has none
    return int(found[1]) // 1024 if found is not None else 0


def _wait_settled(sender: Appliance, receiver: Appliance, timeout_s: float) -> None:
    sender.wait_until(
        lambda status: status["outbox"]["pending"] == 0 and status["outbox"]["in_flight"] == 0,
        timeout_s,
    )
    receiver.wait_until(lambda status: status["inbox"]["unfinished"] == 0, timeout_s)


MUTANT_ACK_BEFORE_COMMIT = [sys.executable, "-m", "tests.lab.mutant_ack_first"]
MUTANT_NO_DEDUPE = [sys.executable, "-m", "tests.lab.mutant_no_dedupe"]
