"""Durable, acknowledged messages per second from one daemon to another, beside the same loop bare on nats-py.

`python -m tests.measure.throughput [rounds [serialization…]]`; the bare loop is CBOR always. Ours counts from the first
POST to the API until the last record has left the outbox: accepted on disk, sent, taken in on disk, acknowledged,
settled on disk.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
defaults:
  window: {window}
  serialization: {serialization}
  compression: {compression}
  ack: {{timeout: 30s, on: received}}
nodes:
  alpha: {{publish: {{lines: {{to: beta, method: REQToConsole}}}}}}
  beta: {{subscribe: {{REQToConsole: {{}}}}}}
"""
SIZE_BYTES = 256
BATCH = 500


def measure_bare(url: str, count: int, window: int, compression: str) -> float:
    receiver = subprocess.Popen(
        [sys.executable, "-m", "tests.measure.bare_loop", "receive", url], stdout=subprocess.PIPE
    )
    try:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.measure.bare_loop",
                "send",
                url,
                str(count),
                str(window),
                compression,
                str(SIZE_BYTES),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        return float(done.stdout)
    finally:
        receiver.kill()
        receiver.wait()


def measure_ours(
    url: str, directory: Path, count: int, window: int, serialization: str, compression: str
) -> float:
    text = CONFIG.format(
        url=url, window=window, serialization=serialization, compression=compression
    )
    sender, receiver = Appliance(text, directory / "a"), Appliance(text, directory / "b")
    sender.args, receiver.args = ["--node", "alpha"], ["--node", "beta"]
    sender.only_named = receiver.only_named = True
    try:
        sender.start()
        receiver.start()
        started = time.perf_counter()
        for first in range(0, count, BATCH):
            batch = [
                {
                    "from_node": "alpha",
                    "to_nodes": ["beta"],
                    "method": "REQToConsole",
                    "data": [f"{number:08d}" * (SIZE_BYTES // 8)],
                }
                for number in range(first, min(first + BATCH, count))
            ]
            sender.send(*batch)
        while sender.status()["outbox"]["pending"]:
            time.sleep(0.05)
        return count / (time.perf_counter() - started)
    finally:
        sender.close()
        receiver.close()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    serializations = sys.argv[2:] or ["cbor", "gob"]
    for window, count in ((256, 20_000), (1, 3_000)):
        for compression in ("none", "zstd"):
            bare: list[float] = []
            ours: dict[str, list[float]] = {word: [] for word in serializations}
            for _ in range(rounds):
                with NatsServer() as broker, tempfile.TemporaryDirectory() as directory:
                    bare.append(measure_bare(broker.url, count, window, compression))
                    for word in serializations:
                        path = Path(directory) / word
                        rate = measure_ours(broker.url, path, count, window, word, compression)
                        ours[word].append(rate)
            for word in serializations:
                ratio = statistics.median(o / b for o, b in zip(ours[word], bare, strict=True))
                print(
                    f"window {window:3d} {word:4s} {compression:4s}:"
                    f" ours {statistics.median(ours[word]):7.0f}/s"
                    f"  bare {statistics.median(bare):7.0f}/s  ratio {ratio:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
