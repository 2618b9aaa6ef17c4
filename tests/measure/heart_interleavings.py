"""Try interleavings of the heart by the hundred thousand: ``python -m tests.measure.heart_interleavings --seeds 100000``.

Prints what was violated, with the seed; exits with 1 if anything was.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import os
import sys
import time

from tests.support.heart_chaos import Verdict, make_plan, run_seed

CHUNK = 200


def try_chunk(first: int, count: int, delivery: str) -> tuple[int, list[Verdict], float]:
    """Seeds tried, those that violate something, and the virtual hours that passed."""
    broken = []
    virtual_s = 0.0
    for seed in range(first, first + count):
        try:
            verdict = run_seed(seed, delivery=delivery)
        except Exception as error:
            verdict = Verdict(make_plan(seed, delivery), [f"{type(error).__name__}: {error}"], [])
        virtual_s += verdict.virtual_s
        if verdict.violations:
            broken.append(verdict)
    return count, broken, virtual_s / 3_600


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", type=int, default=10, help="failures to print in full")
    parser.add_argument("--delivery", choices=("core", "jetstream"), default="core")
    options = parser.parse_args()
    began = time.monotonic()
    tried = 0
    hours = 0.0
    kinds: collections.Counter[str] = collections.Counter()
    shown = 0
    last = options.first + options.seeds
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        chunks = [
            pool.submit(try_chunk, first, min(CHUNK, last - first), options.delivery)
            for first in range(options.first, last, CHUNK)
        ]
        for chunk in concurrent.futures.as_completed(chunks):
            count, broken, virtual_hours = chunk.result()
            tried += count
            hours += virtual_hours
            for verdict in broken:
                kinds.update(violation.split()[0] for violation in verdict.violations)
                if shown < options.show:
                    shown += 1
                    print(verdict, flush=True)
    seconds = time.monotonic() - began
    print(f"{tried} seeds, {hours:.0f} virtual hours in {seconds:.0f} s; violations: {dict(kinds)}")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
