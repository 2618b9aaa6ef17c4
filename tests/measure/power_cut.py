"""Power cuts: `python tests/measure/power_cut.py [--copies 100] [--rate 1000] [--seed 1]`.

Both state directories are copied at random instants under load, and each pair of copies is started against a fresh broker.
Every message that had been accepted must be handled; lines none twice, commands none twice, and a command that was cut
off must be reported and not run again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.power_cut import run_cuts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.rate}/s asked for", flush=True)
    is_right = True
    for ack_on in ("done", "received"):
        with tempfile.TemporaryDirectory() as directory:
            outcome = run_cuts(
                Path(directory),
                cuts=(options.copies + 1) // 2,
                seed=options.seed,
                per_second=options.rate,
                ack_on=ack_on,
            )
        is_right = is_right and outcome.is_right
        print(f"acknowledged when {ack_on}: {outcome}", flush=True)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
