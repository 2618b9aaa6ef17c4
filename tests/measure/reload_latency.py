"""From the save of a config file to the new worker running, 100 workers: `python -m tests.measure.reload_latency`."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from tests.support.appliance import Appliance
from tests.support.waiting import until

CONFIG = """
version: 1
broker: {{embedded: true}}
nodes:
{nodes}
  extra: {{subscribe: {{REQPong: {{}}{more}}}}}
"""
NODE = "  n{number}: {{subscribe: {{REQPing: {{}}, REQPong: {{}}, REQToConsole: {{}}, REQToFile: {{}}}}}}"
NEW = "extra.REQPing.EventACK_subscriber"


def main() -> None:
    nodes = "\n".join(NODE.format(number=number) for number in range(25))
    plain, more = (
        CONFIG.format(nodes=nodes, more=""),
        CONFIG.format(nodes=nodes, more=", REQPing: {}"),
    )
    saved_to_running = []
    with tempfile.TemporaryDirectory() as directory, Appliance(plain, Path(directory)) as appliance:
        for _ in range(20):
            started = time.perf_counter()
            appliance.write_config(more)
            until(lambda: (appliance.worker(NEW) or {}).get("phase") == "running", every_s=0.002)
            saved_to_running.append(time.perf_counter() - started)
            appliance.write_config(plain)
            appliance.wait_until(lambda _: appliance.worker(NEW) is None)
        workers = sum(len(node["workers"]) for node in appliance.status()["nodes"].values())
    print(
        f"{workers} workers: median {statistics.median(saved_to_running) * 1e3:.0f} ms,"
        f" min {min(saved_to_running) * 1e3:.0f} ms, max {max(saved_to_running) * 1e3:.0f} ms of 20"
    )


if __name__ == "__main__":
    main()
