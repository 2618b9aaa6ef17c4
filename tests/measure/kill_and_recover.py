"""The long exactly-once run: `python -m tests.measure.kill_and_recover [kills] [seed]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.exactly_once import MUTANT_ACK_BEFORE_COMMIT, run_harness


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    runs = [
        ("done, none", {"ack_on": "done", "compression": "none"}),
        ("received, zstd", {"ack_on": "received", "compression": "zstd"}),
        (
            "mutant: ack first",
            {"receiver_command": MUTANT_ACK_BEFORE_COMMIT, "kinds": ("receiver",)},
        ),
        ("mutant: no dedupe", {"dedupe": False}),
    ]
    for name, options in runs:
        with tempfile.TemporaryDirectory() as directory:
            print(name, run_harness(Path(directory), kills=kills, seed=seed, **options), flush=True)


if __name__ == "__main__":
    main()
