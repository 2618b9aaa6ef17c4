"""Many small files between two daemons: `cp -r` from a node and to it.

`python -m tests.measure.copy_many_files [COUNT]`

Told are files a second, the peak of each daemon's memory and by how much it grew, and whether every hash is right.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.measure.copy_over_cut_link import memory_mb
from tests.support import forked
from tests.support.copy_fleet import CopyFleet, copy_fleet

FILES_A_DIRECTORY = 100
LARGEST_BYTES = 8_192


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way came to. Memory is the peak of central and of ship1, in MB."""

    exit_code: int
    said: str
    wrong: int
    seconds: float
    peak_mb: tuple[float, float]
    grown_mb: tuple[float, float]

    def describe(self, count: int) -> str:
        peaks = " and ".join(
            f"{peak:.0f} MB (+{grown:.0f})"
            for peak, grown in zip(self.peak_mb, self.grown_mb, strict=True)
        )
        return (
            f"exit {self.exit_code}, {self.wrong} of {count} wrong or missing, {self.seconds:.1f} s:"
            f" {count / self.seconds:.0f} files/s, peak RSS {peaks}"
        )


def make_tree(root: Path, count: int) -> dict[str, str]:
    """Files of all sizes up to a few pages, a hundred to a directory; their hashes by name."""
    rng = random.Random(count)
    hashes: dict[str, str] = {}
    for number in range(count):
        name = f"{number // FILES_A_DIRECTORY:04d}/{number:06d}"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = rng.randbytes(rng.randrange(LARGEST_BYTES))
        path.write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    return hashes


def run(fleet: CopyFleet, source: str, target: str, there: Path, hashes: dict[str, str]) -> Outcome:
    """Copy a tree, and look at every file of it."""
    daemons = (fleet.central, fleet.ship)
    before = [memory_mb(daemon, "VmRSS") for daemon in daemons]
    began = time.perf_counter()
    done = forked.run(
        ["cp", "-q", "-r", "--state-dir", str(fleet.central.state), source, target], timeout=3_600
    )
    seconds = time.perf_counter() - began
    peaks = [memory_mb(daemon) for daemon in daemons]
    wrong = sum(not _is_right(there / name, sha256) for name, sha256 in hashes.items())
    return Outcome(
        exit_code=done.returncode,
        said=done.stderr,
        wrong=wrong,
        seconds=seconds,
        peak_mb=(peaks[0], peaks[1]),
        grown_mb=(peaks[0] - before[0], peaks[1] - before[1]),
    )


def _is_right(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def run_both_ways(fleet: CopyFleet, count: int) -> dict[str, Outcome]:
    """From ship1 to here, and from here to ship1."""
    source = fleet.at("ship1", "many")
    hashes = make_tree(source, count)
    here, back = fleet.root / "here", fleet.at("ship1", "back")
    return {
        "from a node": run(fleet, f"ship1:{source}", str(here), here, hashes),
        "to a node": run(fleet, str(here), f"ship1:{back}", back, hashes),
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as directory, copy_fleet(Path(directory)) as fleet:
        for way, outcome in run_both_ways(fleet, count).items():
            print(f"{way}: {outcome.describe(count)}", outcome.said[-500:], flush=True)
        fleet.settle()
        print(f"left over: {fleet.leftovers() or 'nothing'}", flush=True)


if __name__ == "__main__":
    main()
