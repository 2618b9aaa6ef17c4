"""Reloads under load: another process publishes, the config is edited, the effects are counted by id.

The publisher knows only the wire, keeps so many messages unacknowledged and resends nothing: what gets lost is lost.
Beside it, commands that take their time are sent one after the other to the node whose config is edited.
"""

from __future__ import annotations

import collections
import itertools
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.tally import Tally, dead_of, is_settled, lines_of, tally
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import pace, until

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 20ms, watch: false, poll_interval: 10m, max_cancel: "100%"}}
nodes:
  source: {{subscribe: {{REQToFileAppend: {{}}}}}}
  beta:
    subscribe:
      REQToFileAppend: {{ack: {{on: {ack_on}}}, concurrency: {concurrency}}}
      REQCliCommand: {{ack: {{on: {ack_on}}}, concurrency: {slow_concurrency}, allow_commands: [[sh, -c, "*"]]}}
{extra}
"""
EXTRA = "      REQPing: {}"
SLOW_S = 0.3
SLOW_EVERY_S = 0.25
"""Two loops do more of them than come in, one does not: sometimes they queue up, and are caught up with."""


@dataclass
class SwapOutcome:
    """`lines` of the bare publisher, `slow` of the commands."""

    lines: Tally
    slow: Tally
    acked: int
    dropped: int
    reloads: dict[str, int]
    lines_per_s: float

    @property
    def is_right(self) -> bool:
        return (
            self.lines.is_right
            and self.slow.is_right
            and self.acked == self.lines.accepted
            and not self.dropped
            and set(self.reloads) <= {"applied"}
        )

    def __str__(self) -> str:
        return (
            f"{'RIGHT' if self.is_right else 'WRONG'}: {self.lines_per_s:.0f}/s sent, {self.acked} acknowledged,"
            f" {self.dropped} dropped, reloads {self.reloads}\n  lines: {self.lines}\n  slow: {self.slow}"
        )


class _SlowLoad(threading.Thread):
    """Commands that take a while, one after the other, until stopped."""

    def __init__(self, appliance: Appliance, effects: Path) -> None:
        super().__init__(daemon=True)
        self.appliance = appliance
        self.effects = effects
        self.accepted: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        due_mono = time.monotonic()
        for number in itertools.count():
            if self.stopped.is_set():
                return
            name = f"slow-{number}"
            script = f"sleep {SLOW_S}; echo {name} >> {self.effects}"
            answers = self.appliance.send(
                {
                    "from_node": "source",
                    "to_nodes": ["beta"],
                    "method": "REQCliCommand",
                    "method_args": ["sh", "-c", script],
                    "directory": "replies",
                    "file_name": "replies.log",
                }
            )
            if answers[0]["accepted"]:
                self.accepted.append(name)
            due_mono += SLOW_EVERY_S
            pace(due_mono)


def run_swaps(
    directory: Path,
    *,
    rate: int,
    seconds: float,
    window: int = 500,
    swaps: int = 0,
    lives: int = 0,
    flaps: int = 0,
    concurrencies: tuple[int, int] = (16, 1),
    seed: int = 1,
) -> SwapOutcome:
    """Spread the edits evenly over the load; each edit is waited for, so none melts into the next.

    `concurrencies` are what live edits choose of for the handler that takes the load.
    """
    edits = ["swap"] * swaps + ["live"] * lives + ["flap"] * flaps
    random.Random(seed).shuffle(edits)
    with NatsServer() as broker:
        many, few = concurrencies
        state = {"ack_on": "received", "concurrency": many, "slow_concurrency": 1, "extra": ""}
        text = CONFIG.format(url=broker.url, **state)
        with Appliance(text, directory) as appliance:
            slow = _SlowLoad(appliance, directory / "effects")
            slow.start()
            load = ["beta", "source", str(rate), str(seconds), str(window)]
            publisher = subprocess.Popen(
                [sys.executable, "-m", "tests.support.bare_publisher", broker.url, *load],
                stdout=subprocess.PIPE,
            )
            started = time.monotonic()
            results: collections.Counter[str] = collections.Counter()
            for number, edit in enumerate(edits):
                if edit == "swap":
                    state["ack_on"] = "done" if state["ack_on"] == "received" else "received"
                elif edit == "live":
                    state["concurrency"] = few if state["concurrency"] == many else many
                    state["slow_concurrency"] = 1 if state["slow_concurrency"] == 2 else 2
                else:
                    state["extra"] = "" if state["extra"] else EXTRA
                appliance.write_config(CONFIG.format(url=broker.url, **state))
                results[appliance.reload()["result"]] += 1
                pace(started + seconds * (number + 1) / len(edits))
            sent, acked = map(int, publisher.communicate(timeout=20 * seconds + 120)[0].split())
            sent_s = time.monotonic() - started
            slow.stopped.set()
            slow.join(60)
            # the commands queue up where a machine is slow, and are caught up with
            until(
                lambda: is_settled(appliance),
                timeout_s=60 + 10 * seconds,
                every_s=0.05,
                tell=appliance.log,
            )
            worker = appliance.worker("beta.REQToFileAppend.EventACK_subscriber")
            assert worker is not None
            ids = lines_of(appliance)
            return SwapOutcome(
                lines=tally([str(number) for number in range(sent)], ids, order=map(int, ids)),
                slow=tally(
                    slow.accepted,
                    slow.effects.read_text().splitlines() if slow.effects.exists() else [],
                    dead=dead_of(appliance),
                ),
                acked=acked,
                dropped=worker["dropped"],
                reloads=dict(results),
                lines_per_s=sent / sent_s,
            )
