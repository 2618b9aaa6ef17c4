"""kill -9 under load: `python tests/measure/kill_and_recover.py [--kills 10] [--rate 5000] [--seed 1]`.

Sender, receiver and broker are killed so many times each, in random order, while messages come in at a rate. Every
accepted message must be handled exactly once; two mutants (an acknowledgement before the commit, no memory of ids) must
be caught, or the run proves nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.exactly_once import MUTANT_ACK_BEFORE_COMMIT, MUTANT_NO_DEDUPE, run_harness


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.rate}/s asked for", flush=True)
    load = {"kills": options.kills, "seed": options.seed, "per_second": options.rate, "batch": 100}
    runs = [
        ("done, none", {"ack_on": "done", "compression": "none"}, True),
        ("received, zstd", {"ack_on": "received", "compression": "zstd"}, True),
        (
            "mutant: acknowledges first",
            {"receiver_command": MUTANT_ACK_BEFORE_COMMIT, "kinds": ("receiver",)},
            False,
        ),
        (
            "mutant: forgets ids",
            {"receiver_command": MUTANT_NO_DEDUPE, "kinds": ("broker", "sender")},
            False,
        ),
    ]
    is_right = True
    for name, kind, must_be_right in runs:
        with tempfile.TemporaryDirectory() as directory:
            outcome = run_harness(Path(directory), settle_timeout_s=300.0, **load, **kind)
        is_as_it_must = outcome.is_exactly_once is must_be_right
        is_right = is_right and is_as_it_must
        verdict = "" if must_be_right else (" CAUGHT" if is_as_it_must else " NOT CAUGHT")
        print(f"{name}:{verdict} {outcome}", flush=True)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
