"""A large file between two daemons over a link that is cut three times.

`python -m tests.measure.copy_over_cut_link [MB [serialization…]]`

ship1's link to the broker stalls and is cut at 20, 50 and 80 % of what the command shows on its terminal, and mended
two seconds later. Told are MB/s (with the breaks and without them), what the peak of each daemon's memory grew to and
by, how many steps of progress the terminal showed, and whether the hash is right.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.appliance import Appliance
from tests.support.copy_fleet import CopyFleet, copy_fleet, hash_of, write_random
from tests.support.terminal import OnTerminal
from tests.support.waiting import pace

CUT_AT_PERCENT = (20, 50, 80)
HELD_S = 0.5
DOWN_S = 2.0
_PERCENT = re.compile(r"(\d+)%")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to. Memory is the peak of central and of ship1, in MB."""

    exit_code: int
    is_right: bool
    cuts: int
    shown: int
    seconds: float
    broken_s: float
    peak_mb: tuple[float, float]
    grown_mb: tuple[float, float]

    def describe(self, size_mb: float) -> str:
        quick = size_mb / (self.seconds - self.broken_s)
        peaks = " and ".join(
            f"{peak:.0f} MB (+{grown:.0f})"
            for peak, grown in zip(self.peak_mb, self.grown_mb, strict=True)
        )
        return (
            f"exit {self.exit_code}, hash {'right' if self.is_right else 'WRONG'}, {self.cuts} cuts,"
            f" {self.shown} steps shown, {self.seconds:.1f} s: {size_mb / self.seconds:.1f} MB/s,"
            f" without the breaks {quick:.1f} MB/s, peak RSS {peaks}"
        )


def memory_mb(daemon: Appliance, field: str = "VmHWM") -> float:
    """Memory of a daemon's process: `VmHWM` its peak, `VmRSS` that of now."""
    assert daemon.process is not None
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1_024 / 1e6


def run(
    fleet: CopyFleet,
    command: list[str],
    target: Path,
    sha256: str,
    cut_at_percent: tuple[int, ...] = CUT_AT_PERCENT,
    *,
    held_s: float = HELD_S,
    down_s: float = DOWN_S,
) -> Outcome:
    """Run a command that copies, and cut the link when it shows so much: first it is silent, then gone."""
    daemons = (fleet.central, fleet.ship)
    before = [memory_mb(daemon, "VmRSS") for daemon in daemons]
    cuts_before = fleet.link.cuts
    broken_s = 0.0
    shown: list[int] = []
    started = time.perf_counter()
    with OnTerminal(*command, state_dir=fleet.central.state) as terminal:
        for percent in cut_at_percent:
            terminal.until(lambda said, least=percent: _last_percent(said) >= least, 600.0)
            broke = time.perf_counter()
            fleet.link.hold()
            pace(time.monotonic() + held_s)
            fleet.link.cut()
            pace(time.monotonic() + down_s)
            fleet.link.mend()
            broken_s += time.perf_counter() - broke
        exit_code = terminal.wait(600.0)
        shown = [int(text) for text in _PERCENT.findall(terminal.said)]
    seconds = time.perf_counter() - started
    peaks = [memory_mb(daemon) for daemon in daemons]
    return Outcome(
        exit_code=exit_code,
        is_right=target.exists() and hash_of(target) == sha256,
        cuts=fleet.link.cuts - cuts_before,
        shown=len(set(shown)),
        seconds=seconds,
        broken_s=broken_s,
        peak_mb=(peaks[0], peaks[1]),
        grown_mb=(peaks[0] - before[0], peaks[1] - before[1]),
    )


def _last_percent(said: str) -> int:
    found = _PERCENT.findall(said)
    return int(found[-1]) if found else -1


def commands(fleet: CopyFleet, source: str) -> dict[str, tuple[list[str], Path]]:
    """The ways a file can go; what is asked, and where it is then."""
    at_ship, at_central = fleet.at("ship1", source), fleet.at("central", "copied")
    here = fleet.root / "here"
    return {
        "send REQCopyFileFrom": (
            ["send", "--to", "ship1", "--wait", "10m", "REQCopyFileFrom", str(at_ship), "central", str(at_central)],
            at_central,
        ),
        "cp from a node": (["cp", f"ship1:{at_ship}", str(here)], here),
        "cp to a node": (["cp", str(at_ship), f"ship1:{fleet.at('ship1', 'brought')}"], fleet.at("ship1", "brought")),
        "cp between nodes": (["cp", f"ship1:{at_ship}", f"central:{at_central}.2"], Path(f"{at_central}.2")),
    }  # fmt: skip


def main() -> None:
    size_mb = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for serialization in sys.argv[2:] or ["cbor", "gob"]:
        for name in ("send REQCopyFileFrom", "cp from a node", "cp to a node", "cp between nodes"):
            # daemons of their own for each, so that a peak is this run's
            with (
                tempfile.TemporaryDirectory() as directory,
                copy_fleet(Path(directory), serialization=serialization) as fleet,
            ):
                sha256 = write_random(fleet.at("ship1", "large"), size_mb * 1_000_000)
                command, target = commands(fleet, "large")[name]
                outcome = run(fleet, command, target, sha256)
                fleet.settle()
                left = fleet.leftovers()
                print(
                    f"{serialization} {name}: {outcome.describe(size_mb)}, left over: {left or 'nothing'}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
