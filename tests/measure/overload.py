"""Overload: `python tests/measure/overload.py [--commands 5000] [--max-mb 300] [--slowed-ms 500]`.

Commands of 0.1 s to a node with concurrency 4: with default settings, acknowledged when received and when done, and with a
backlog so small that the sender is told to wait. All must be done once, none be dead, memory be bounded, and other lanes of
sender and receiver must not be slowed (their median during it against the bound given).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.overload import run_overload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=5_000)
    parser.add_argument("--max-mb", type=float, default=300.0)
    parser.add_argument("--slowed-ms", type=float, default=500.0)
    options = parser.parse_args()
    few = max(1, options.commands // 5)
    variants = [
        ("defaults, on: received", {"count": options.commands, "ack_on": "received"}),
        ("defaults, on: done", {"count": options.commands, "ack_on": "done"}),
        ("backlog 50, on: received", {"count": few, "ack_on": "received", "backlog": 50}),
        ("backlog 50, on: done", {"count": few, "ack_on": "done", "backlog": 50}),
    ]
    is_right = True
    for name, variant in variants:
        with tempfile.TemporaryDirectory() as directory:
            outcome = run_overload(Path(directory), **variant)
        slowest_ms = max(found["during"][0] for found in outcome.latency_ms.values())
        wrong = []
        if max(outcome.peak_mb.values()) > options.max_mb:
            wrong.append("TOO MUCH MEMORY")
        if slowest_ms > options.slowed_ms:
            wrong.append("OTHERS SLOWED")
        if variant.get("backlog") and not outcome.turned_away:
            wrong.append("NEVER TOLD TO WAIT")
        is_right = is_right and outcome.is_right and not wrong
        print(f"{name}: {' '.join([*wrong, str(outcome)])}", flush=True)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
