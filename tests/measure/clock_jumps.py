"""Jumps of the wall clock under load: `python tests/measure/clock_jumps.py [--rate 500] [--stay 20]`.

±2 days, ±1 h, a start in 1970 that is corrected later, and a suspend, with schedules on both sides, and kills in between.
Needs libfaketime (Debian: `faketime`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.clock_jumps import run_jumps
from tests.support.faked_clock import find_library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--stay", type=float, default=20.0, metavar="SECONDS", help="after each")
    options = parser.parse_args()
    if find_library() is None:
        sys.exit("libfaketime is not installed here")
    is_right = True
    for name, starts_before_ntp in (("right at the start", False), ("started in 1970", True)):
        with tempfile.TemporaryDirectory() as directory:
            outcome = run_jumps(
                Path(directory),
                per_second=options.rate,
                stay_s=options.stay,
                starts_before_ntp=starts_before_ntp,
            )
        is_right = is_right and outcome.is_right
        print(f"{name}: {outcome}", flush=True)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
