"""A line that goes dark: `python tests/measure/dark_line.py [--minutes 7] [--messages 1000] [--within 10]`.

The receiver's line to the broker swallows everything both ways for minutes, with default settings; 1,000 messages are
sent to it meanwhile. All must be there once, seconds after the light. Four variants at once: a receiver that says hello or
does not, to which the sender had sent before the dark or had not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.dark import run_dark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--messages", type=int, default=1_000)
    parser.add_argument("--within", type=float, default=10.0, metavar="SECONDS")
    options = parser.parse_args()
    variants = [(hello, before) for hello in (True, False) for before in (True, False)]
    is_right = True
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(len(variants)) as threads:
        runs = [
            threads.submit(
                run_dark,
                Path(directory, f"{says_hello}-{before}"),
                dark_s=60 * options.minutes,
                count=options.messages,
                says_hello=says_hello,
                has_traffic_before=before,
            )
            for says_hello, before in variants
        ]
        for (says_hello, before), run in zip(variants, runs, strict=True):
            name = f"{'says hello' if says_hello else 'no hello'}, {'traffic' if before else 'nothing'} before"
            outcome = run.result()
            is_late = outcome.settled_s > options.within
            is_right = is_right and outcome.tally.is_right and not is_late
            print(f"{name}: {outcome}{' TOO LATE' if is_late else ''}", flush=True)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
