"""Reloads under load: `python tests/measure/swap_under_load.py [--rate 3000] [--seconds 25] [--window 500] [--seed 1]`.

A plain NATS publisher that resends nothing keeps 500 messages unacknowledged, commands take their time, and the config is
edited: 50 swaps (of when an acknowledgement is given), 50 live edits (of the concurrency), 50 times a subject comes or
goes. Nothing may be lost, doubled, out of order or dropped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.swap_load import run_swaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=3_000)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--window", type=int, default=500)
    parser.add_argument("--edits", type=int, default=50, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.rate}/s asked for", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        outcome = run_swaps(
            Path(directory),
            rate=options.rate,
            seconds=options.seconds,
            window=options.window,
            swaps=options.edits,
            lives=options.edits,
            flaps=options.edits,
            seed=options.seed,
        )
    print(outcome)
    sys.exit(0 if outcome.is_right else 1)


if __name__ == "__main__":
    main()
