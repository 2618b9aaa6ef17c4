"""The promises of delivery in their full form: rows whose sizes are those that are promised, not as long as is asked for.

One seed says it; a run of all takes about an hour, of which the dark line stands still for a quarter.
"""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

from tests.lab.chaos import MUTANT_ACK_BEFORE_COMMIT, run_harness
from tests.lab.clock_jumps import run_jumps
from tests.lab.dark import run_dark
from tests.lab.overload import run_overload
from tests.lab.power_cut import run_cuts
from tests.lab.rows import ROWS, Finding, Row, Run, finding_of, finding_of_cuts, mutant
from tests.lab.swap_load import run_swaps

DARK_S = 420.0
IN_THE_LIGHT_S = 10.0
"""How long after the end of the dark all must be there."""
MAX_OVERLOAD_MB = 256.0


def _swaps(share: float) -> Run:
    def run(directory: Path, seed: int, seconds: float) -> Finding:
        del seconds
        found = run_swaps(
            directory,
            rate=int(3_000 * share),
            seconds=75.0,
            window=500,
            swaps=50,
            lives=50,
            flaps=50,
            # appends are synced: so many of them together keep up with the rate
            concurrencies=(128, 64),
            seed=seed,
        )
        lines = found.lines
        return Finding(found.is_right, str(found), lines.accepted, lines.lost, lines.doubled)

    return run


def _kills(share: float) -> Run:
    def run(directory: Path, seed: int, seconds: float) -> Finding:
        del seconds
        outcome = run_harness(
            directory,
            kills=10,
            seed=seed,
            per_second=int(5_000 * share),
            batch=100,
            settle_timeout_s=600.0,
        )
        return finding_of(outcome, outcome.is_right)

    return run


def _overload(directory: Path, seed: int, seconds: float) -> Finding:
    del seed, seconds
    found = run_overload(directory, count=5_000, ack_on="done", concurrency=4, takes_s=0.1)
    is_small = max(found.peak_mb.values()) <= MAX_OVERLOAD_MB
    tally = found.tally
    return Finding(
        found.is_right and is_small, str(found), tally.accepted, tally.lost, tally.doubled
    )


def _dark(directory: Path, seed: int, seconds: float) -> Finding:
    """Beside each other, since they mostly stand still: a receiver that says hello, and one that never did."""
    del seed, seconds

    def run(says_hello: bool) -> tuple[bool, str, int, int, int, float]:
        found = run_dark(
            directory / f"hello-{says_hello}",
            dark_s=DARK_S,
            count=1_000,
            says_hello=says_hello,
            has_traffic_before=True,
        )
        tally = found.tally
        is_right = tally.is_right and found.settled_s <= IN_THE_LIGHT_S
        said = f"{'with' if says_hello else 'without'} hellos: {found}"
        return is_right, said, tally.accepted, tally.lost, tally.doubled, found.settled_s

    with concurrent.futures.ThreadPoolExecutor() as pool:
        rights, words, accepted, lost, doubled, settled_s = zip(
            *pool.map(run, (True, False)), strict=True
        )
    return Finding(
        all(rights), "; ".join(words), sum(accepted), sum(lost), sum(doubled), max(settled_s)
    )


def _clock(share: float) -> Run:
    def run(directory: Path, seed: int, seconds: float) -> Finding:
        del seed, seconds
        found = run_jumps(
            directory, per_second=int(500 * share), stay_s=40.0, starts_before_ntp=True
        )
        lines = found.lines
        return Finding(found.is_right, str(found), lines.accepted, lines.lost, lines.doubled)

    return run


def _cuts(share: float) -> Run:
    def run(directory: Path, seed: int, seconds: float) -> Finding:
        del seconds
        found = run_cuts(
            directory,
            cuts=100,
            seed=seed,
            per_second=int(500 * share),
            ack_on=("received", "done")[seed % 2],
        )
        return finding_of_cuts(found)

    return run


def make_rows(share: float = 1.0) -> dict[str, Row]:
    """The rows; `share` of the rates of load, where a machine does not take them."""
    return {
        "swaps": Row(
            "3,000/s of a peer that resends nothing; 50 swaps, 50 live edits, 50 subjects that come or go",
            _swaps(share),
        ),
        "kills": Row("sender, receiver, broker killed (-9) ten times each, 5,000/s", _kills(share)),
        "M1": Row(
            ROWS["M1"].fault,
            mutant(MUTANT_ACK_BEFORE_COMMIT, "lost", "receiver", per_second=int(1_000 * share)),
        ),
        "M2": ROWS["M2"],
        "overload": Row("5,000 commands of 0.1 s to a node that does four at once", _overload),
        "dark": Row("a line dark for 7 minutes, 1,000 messages, with and without hellos", _dark),
        "clocks": Row(
            "a start before NTP, jumps of 2 days and 1 hour both ways, a suspend, with schedules",
            _clock(share),
        ),
        "cuts": Row("100 power cuts: both state directories as of any instant", _cuts(share)),
    }
