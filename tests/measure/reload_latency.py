"""How long a start and a reload take: `python -m tests.measure.reload_latency [--workers 100 1000 10000] [--rounds 5]`.

`ready` is from the start of a fresh process to its /readyz, `reload` from the save of the config to the answer of a reload
that was asked for then, `saved` from the save alone to the new worker running, which the watcher found by itself (up to
1,000 workers: beyond, asking for the status costs more than what is measured). Seconds; medians and spans of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests.support.appliance import PLAIN_COMMAND, Appliance
from tests.support.waiting import until

CONFIG = """
version: 1
broker: {{embedded: true}}
nodes:
{nodes}
  extra: {{subscribe: {{REQPong: {{}}{more}}}}}
"""
NODE = "  n{number}: {{subscribe: {{REQPing: {{}}, REQPong: {{}}, REQToConsole: {{}}, REQToFile: {{}}}}}}"
WORKERS_OF_A_NODE = 4
NEW = "extra.REQPing.EventACK_subscriber"
STATUS_UP_TO_WORKERS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    order = parser.parse_args()
    for workers in order.workers:
        measure(workers, order.rounds)


def measure(workers: int, rounds: int) -> None:
    nodes = "\n".join(NODE.format(number=number) for number in range(workers // WORKERS_OF_A_NODE))
    plain, more = (
        CONFIG.format(nodes=nodes, more=""),
        CONFIG.format(nodes=nodes, more=", REQPing: {}"),
    )
    ready: list[float] = []
    reload: list[float] = []
    saved: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as directory:
            appliance = Appliance(plain, Path(directory), command=PLAIN_COMMAND)
            started = time.perf_counter()
            with appliance:
                ready.append(time.perf_counter() - started)
                measure_reloads(appliance, plain, more, reload)
                if workers <= STATUS_UP_TO_WORKERS:
                    measure_saves(appliance, plain, more, saved)
    print(f"{workers:,} workers:", *(told(what, times) for what, times in
          (("ready", ready), ("reload", reload), ("saved", saved)) if times), flush=True)  # fmt: skip


def measure_reloads(appliance: Appliance, plain: str, more: str, reload: list[float]) -> None:
    for text in (more, plain):
        started = time.perf_counter()
        appliance.config_path.write_text(text)
        result = appliance.reload()
        reload.append(time.perf_counter() - started)
        assert result["result"] in ("applied", "unchanged"), result


def measure_saves(appliance: Appliance, plain: str, more: str, saved: list[float]) -> None:
    started = time.perf_counter()
    appliance.config_path.write_text(more)
    until(lambda: (appliance.worker(NEW) or {}).get("phase") == "running", every_s=0.002)
    saved.append(time.perf_counter() - started)
    appliance.config_path.write_text(plain)
    appliance.wait_until(lambda _: appliance.worker(NEW) is None)


def told(what: str, times: list[float]) -> str:
    return f"{what} {statistics.median(times):.2f} s ({min(times):.2f} .. {max(times):.2f})"


if __name__ == "__main__":
    main()
