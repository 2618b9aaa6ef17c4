"""A receiver whose line to the broker swallows everything for a while, and messages that are sent to it meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.tally import Tally, dead_of, line_message, lines_of, tally
from tests.support.appliance import Appliance
from tests.support.cut_link import CutLink
from tests.support.nats_server import NatsServer
from tests.support.waiting import pace, until

CONFIG = """
version: 1
broker: {{servers: ["{url}"]{broker}}}
nodes:
  alpha: {{subscribe: {{REQHello: {{}}}}}}
  beta:
    subscribe: {{REQToFileAppend: {{accept_from: [alpha]}}}}
    publish: {{{hello}}}
"""
HELLO = "hello: {to: alpha, method: REQHello, every: 5m}"
BATCH = 50
WATCHED_S = 400.0
"""After the light: far more than is promised, so that what comes late is told apart from what is lost."""


@dataclass
class DarkOutcome:
    """`settled_s` from the light to the last effect; `sends` of one message at most."""

    tally: Tally
    settled_s: float

    def __str__(self) -> str:
        return f"{self.tally}; all there {self.settled_s:.1f} s after the light"


def run_dark(
    directory: Path,
    *,
    dark_s: float,
    count: int,
    says_hello: bool,
    has_traffic_before: bool,
    broker_settings: str = "",
    server_settings: str = "",
) -> DarkOutcome:
    """Send `count` messages over the first half of the dark; wait for all of them in the light."""
    with NatsServer(server_settings) as broker, CutLink(broker.port) as link:
        hello = HELLO if says_hello else ""
        sender = Appliance(
            CONFIG.format(url=broker.url, hello=hello, broker=broker_settings),
            directory / "alpha",
            args=["--node", "alpha"],
        )
        receiver = Appliance(
            CONFIG.format(url=f"nats://127.0.0.1:{link.port}", hello=hello, broker=broker_settings),
            directory / "beta",
            args=["--node", "beta"],
        )
        sender.only_named = receiver.only_named = True
        accepted: list[str] = []

        def offer(lines: list[str]) -> None:
            answers = sender.send(*(line_message(line) for line in lines))
            accepted.extend(
                line for line, row in zip(lines, answers, strict=True) if row["accepted"]
            )

        with sender, receiver:
            if says_hello:
                until(lambda: sender.data("hello-messages").exists(), tell=receiver.log)
            if has_traffic_before:
                offer([f"before-{number}" for number in range(BATCH)])
                until(lambda: len(lines_of(receiver)) == BATCH, tell=sender.log)
            link.swallow()
            dark_since = time.monotonic()
            for first in range(0, count, BATCH):
                offer([f"dark-{number}" for number in range(first, first + BATCH)])
                pace(dark_since + dark_s / 2 * (first + BATCH) / count)
            pace(dark_since + dark_s)
            link.mend()
            light_mono = time.monotonic()
            wanted = len(accepted)

            def is_over() -> bool:
                return (
                    len(lines_of(receiver)) >= wanted or time.monotonic() - light_mono > WATCHED_S
                )

            until(is_over, timeout_s=2 * WATCHED_S, every_s=0.05)
            settled_s = time.monotonic() - light_mono
            sender.wait_until(lambda status: status["outbox"]["pending"] == 0)
            found = tally(accepted, lines_of(receiver), dead=dead_of(sender))
    return DarkOutcome(found, settled_s)
