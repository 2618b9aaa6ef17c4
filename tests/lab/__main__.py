"""The lab of faults and attacks: `python -m tests.lab [--rows R1,R3] [--seeds 20] [--seconds 25]`.

Runs the rows with so many seeds each, prints what each run showed, and a table at the end; the exit status is 1 if a
promise was broken, or a mutant went unnoticed. A run is tried again by its row and seed (`--first SEED --seeds 1`).
With `--full` the rows are the promises of delivery in the sizes that are promised, with one seed each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.lab.full import make_rows
from tests.lab.rows import ROWS, Finding, Row


def run_row(name: str, row: Row, seeds: range, seconds: float) -> list[Finding]:
    """One finding a seed, each in a directory of its own."""
    findings = []
    for seed in seeds:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="lab-") as directory:
            try:
                finding = row.run(Path(directory), seed, seconds)
            except Exception as error:
                finding = Finding(False, f"{type(error).__name__}: {error}")
        findings.append(finding)
        verdict = "ok" if finding.is_right else "BROKEN"
        took = time.monotonic() - began
        print(f"{name} seed {seed}: {verdict} in {took:.0f} s: {finding.said}", flush=True)
    return findings


def table_line(name: str, row: Row, findings: list[Finding]) -> str:
    """A line of the table at the end, as it stands in the README."""
    recovered = [one.recovered_s for one in findings if one.recovered_s is not None]
    figures = [
        f"{sum(one.is_right for one in findings)} of {len(findings)}",
        f"{sum(one.accepted for one in findings):,}",
        f"{sum(one.lost for one in findings)}",
        f"{sum(one.doubled for one in findings)}",
        f"{max(recovered):.1f} s" if recovered else "",
    ]
    return f"| {name} | {row.fault} | {' | '.join(figures)} |"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="in the sizes that are promised")
    parser.add_argument(
        "--share", type=float, default=1.0, help="with --full, of the rates of load"
    )
    parser.add_argument(
        "--rows", help=f"of {', '.join(ROWS)}; with --full of {', '.join(make_rows())}"
    )
    parser.add_argument("--seeds", type=int, help="3 each, with --full one")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=25.0, help="of faults, for each seed")
    options = parser.parse_args()
    rows = make_rows(options.share) if options.full else ROWS
    names = options.rows.split(",") if options.rows else list(rows)
    if unknown := set(names) - rows.keys():
        parser.error(f"no rows: {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    count = options.seeds or (1 if options.full else 3)
    seeds = range(options.first, options.first + count)
    lines, is_right = [], True
    for name in names:
        row = rows[name]
        findings = run_row(name, row, seeds, options.seconds)
        lines.append(table_line(name, row, findings))
        is_right = is_right and all(one.is_right for one in findings)
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    said = (
        f"the sizes that are promised at {options.share:g} of the rates"
        if options.full
        else f"{options.seconds:g} s a seed"
    )
    print(f"\n{said}, load {load}\n")
    print("| row | fault | right | accepted or tried | lost | doubled | slowest recovery |")
    print("|---|---|---|---|---|---|---|", *lines, sep="\n")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
