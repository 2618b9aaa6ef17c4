"""What `workers: 2` gives over `workers: 1` for a handler that computes: one daemon, one broker, both numbers by turns.

    python -m tests.measure.processes [--milliseconds 10 20 50] [--seconds 2] [--runs 5]

Each run hands the same messages over twice, and times from the first until all are handled and answered. A handler keeps a
core for so many milliseconds of its own time, however long that takes on a machine that does other work as well, whose load
is told beside; a run computes for so many seconds. The reloads between are part of what is tried. What the daemon itself
used of a core is told as well: on a machine of two a second process shares its core with that, so it gives less for short
handlers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.support.appliance import Appliance
from tests.support.computing import COMMAND
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

CONFIG = """
version: 1
workers: {workers}
broker: {{servers: ["{url}"]}}
nodes:
  central: {{subscribe: {{REQToFileAppend: {{accept_from: [ship]}}}}}}
  ship: {{subscribe: {{REQSpin: {{accept_from: [central], ack: {{on: done}}}}}}}}
"""
PATIENCE_S = 300.0


class Bench:
    """One daemon that is asked again and again."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.daemon = Appliance(self.text(1), directory, command=COMMAND)
        self.answered = 0

    def text(self, workers: int) -> str:
        return CONFIG.format(workers=workers, url=self.url)

    def measure(self, workers: int, messages: int, handler_s: float) -> tuple[float, float]:
        """Messages in a second until all was done, and what the daemon's own process used of a core for each, in ms."""
        self.daemon.config_path.write_text(self.text(workers))
        self.daemon.reload()
        until(lambda: self._phases() == ["idle"] * workers, timeout_s=PATIENCE_S)
        asked = {
            "from_node": "central", "to_nodes": ["ship"], "method": "REQSpin",
            "method_args": ["cpu", str(handler_s)], "data": ["x\n"], "directory": "t", "file_name": "f",
        }  # fmt: skip
        own = self._own_cpu_s()
        began = time.monotonic()
        self.daemon.send(*[asked] * messages)
        self.answered += messages
        until(lambda: self._answers() >= self.answered, timeout_s=PATIENCE_S, every_s=0.02)
        took_s = time.monotonic() - began
        return messages / took_s, (self._own_cpu_s() - own) / messages * 1_000

    def _phases(self) -> list[str]:
        return [one["phase"] for one in self.daemon.status()["processes"]]

    def _answers(self) -> int:
        path = self.daemon.data("t", "ship", "f")
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def _own_cpu_s(self) -> float:
        assert self.daemon.process is not None
        fields = (
            Path(f"/proc/{self.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--milliseconds", type=float, nargs="+", default=[10.0, 20.0, 50.0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    ratios: dict[float, list[float]] = {each_ms: [] for each_ms in given.milliseconds}
    with tempfile.TemporaryDirectory() as place, NatsServer() as broker:
        bench = Bench(broker.url, Path(place))
        with bench.daemon:
            bench.measure(2, 20, 0.01)  # what is loaded once is loaded
            for run in range(given.runs):
                for each_ms in given.milliseconds:
                    messages = max(2, round(given.seconds * 1_000 / each_ms))
                    # by turns, so that neither number always comes first
                    found = {
                        workers: bench.measure(workers, messages, each_ms / 1_000)
                        for workers in ((1, 2) if run % 2 else (2, 1))
                    }
                    ratios[each_ms].append(found[2][0] / found[1][0])
                    print(
                        f"{each_ms:g} ms: one {found[1][0]:.1f}/s, two {found[2][0]:.1f}/s, {ratios[each_ms][-1]:.2f};"
                        f" the daemon itself {found[1][1]:.2f} and {found[2][1]:.2f} ms a message;"
                        f" load {os.getloadavg()[0]:.1f}",
                        flush=True,
                    )
    for each_ms, of_them in ratios.items():
        print(
            f"{each_ms:g} ms: median of {given.runs} {statistics.median(of_them):.2f},"
            f" {min(of_them):.2f}..{max(of_them):.2f}"
        )


if __name__ == "__main__":
    main()
