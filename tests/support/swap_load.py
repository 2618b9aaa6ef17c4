"""Reloads under load: another process publishes, the config is edited, the lines in the file are counted by id."""

from __future__ import annotations

import collections
import itertools
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import pace, until

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 20ms, watch: false, poll_interval: 10m, max_cancel: "100%"}}
state: {{max_messages: 1000000}}
nodes:
  source: {{}}
  beta:
    subscribe:
      REQToFileAppend: {{ack: {{on: {ack_on}}}, concurrency: {concurrency}, backlog: 60000}}
{extra}
"""
EXTRA = "      REQPing: {}"


@dataclass
class SwapOutcome:
    sent: int
    lines: int
    lost: int
    doubled: int
    disordered: int
    reloads: dict[str, int]
    worker: dict


def run_swaps(
    directory: Path, *, rate: int, seconds: float, swaps: int = 0, lives: int = 0, flaps: int = 0
) -> SwapOutcome:
    """Spread the edits evenly over the load; each edit is waited for, so none melts into the next."""
    with NatsServer() as broker:
        state = {"ack_on": "received", "concurrency": 16, "extra": ""}
        text = CONFIG.format(url=broker.url, **state)
        with Appliance(text, directory) as appliance:
            edits = ["swap"] * swaps + ["live"] * lives + ["flap"] * flaps
            edits = (
                [edits[(i * 7) % len(edits)] for i in range(len(edits))]
                if len(edits) % 7
                else edits
            )
            publisher = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.bare_publisher",
                    broker.url,
                    "beta",
                    "source",
                    str(rate),
                    str(seconds),
                ],
                stdout=subprocess.PIPE,
            )
            started = time.monotonic()
            results: collections.Counter[str] = collections.Counter()
            for number, edit in enumerate(edits):
                if edit == "swap":
                    state["ack_on"] = "done" if state["ack_on"] == "received" else "received"
                elif edit == "live":
                    state["concurrency"] = 1 if state["concurrency"] == 16 else 16
                else:
                    state["extra"] = "" if state["extra"] else EXTRA
                appliance.write_config(CONFIG.format(url=broker.url, **state))
                results[appliance.reload()["result"]] += 1
                due = started + seconds * (number + 1) / len(edits)
                pace(due)
            sent = int(publisher.communicate(timeout=seconds + 60)[0])
            name = "beta.REQToFileAppend.EventACK_subscriber"
            worker = _wait_handled(appliance, name, sent)
            ids = [
                int(line)
                for line in appliance.data("load", "beta", "lines.log").read_text().split()
            ]
    counts = collections.Counter(ids)
    return SwapOutcome(
        sent=sent,
        lines=len(ids),
        lost=len(set(range(sent)) - counts.keys()),
        doubled=sum(count - 1 for count in counts.values()),
        disordered=sum(1 for before, after in itertools.pairwise(ids) if after < before),
        reloads=dict(results),
        worker=worker,
    )


def _wait_handled(appliance: Appliance, name: str, sent: int) -> dict:
    """Until the worker handled all, or its count stands still for three seconds."""
    last, last_change, found = -1, time.monotonic(), {}

    def is_over() -> bool:
        nonlocal last, last_change, found
        worker = appliance.worker(name)
        assert worker is not None
        found = worker
        if worker["handled"] != last:
            last, last_change = worker["handled"], time.monotonic()
        return worker["handled"] >= sent or time.monotonic() - last_change > 3.0

    until(is_over, every_s=0.02)
    return found
