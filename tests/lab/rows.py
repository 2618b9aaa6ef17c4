"""The rows of the plan of faults and attacks: how each is made on real parts, and what must be true after it.

A row is a function of a directory, a seed and so many seconds; it gives what was seen. Rows whose faults need no load
are tests of the suite: they are run again with examples of that seed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab import fuzz
from tests.lab.chaos import MUTANT_ACK_BEFORE_COMMIT, MUTANT_NO_DEDUPE, Outcome, run_harness
from tests.lab.clock_jumps import run_jumps
from tests.lab.dark import run_dark
from tests.lab.hostile_peer import run as run_hostile
from tests.lab.overload import run_overload
from tests.lab.power_cut import PowerCuts, run_cuts
from tests.lab.swap_load import run_swaps
from tests.support.faked_clock import find_library
from tests.support.heart_chaos import run_seed

ROOT = Path(__file__).parents[2]
MAX_GROWTH_MIB = 24
"""From a quarter of a run on: what a heap of Python's that is in use may still fill up, not what an hour may add."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one run of a row showed. `recovered_s` is how long it took after the last fault until nothing waited."""

    is_right: bool
    said: str
    accepted: int = 0
    lost: int = 0
    doubled: int = 0
    recovered_s: float | None = None


Run = Callable[[Path, int, float], Finding]


@dataclass(frozen=True, slots=True)
class Row:
    """A fault or an attack, how it is made, and its run."""

    fault: str
    run: Run
    is_short: bool = False
    """Whether the time that is asked for does not make it longer."""


def _chaos(*kinds: str, max_mib: int = 256, **options: object) -> Run:
    def run(directory: Path, seed: int, seconds: float) -> Finding:
        ways = {"ack_on": ("done", "received")[seed % 2], "compression": ("none", "zstd")[seed % 2]}
        outcome = run_harness(
            directory, kills=0, seed=seed, seconds=seconds, kinds=kinds, **{**ways, **options}
        )
        is_small = outcome.peak_mib <= max_mib and outcome.growth_mib <= MAX_GROWTH_MIB
        is_right = outcome.is_right and is_small
        return finding_of(outcome, is_right)

    return run


def finding_of(outcome: Outcome, is_right: bool) -> Finding:
    """What a run of the harness showed, judged by whoever ran it."""
    tally = outcome.tally
    return Finding(
        is_right, str(outcome), tally.accepted, tally.lost, tally.doubled, outcome.settle_s
    )


def mutant(command: list[str], defect: str, *kinds: str, per_second: int = 1_000) -> Run:
    """Right is the run that goes wrong: who checks must see it, or proves nothing."""

    def run(directory: Path, seed: int, seconds: float) -> Finding:
        outcome = run_harness(
            directory,
            kills=0,
            seed=seed,
            per_second=per_second,
            seconds=seconds,
            kinds=kinds,
            receiver_command=command,
            settle_timeout_s=600.0,
        )
        return finding_of(outcome, getattr(outcome.tally, defect) > 0)

    return run


def _overload(directory: Path, seed: int, seconds: float) -> Finding:
    backlog = None if seed % 2 else 50
    found = run_overload(
        directory,
        count=max(20, int(seconds * 30)),
        ack_on=("done", "received")[seed % 2],
        backlog=backlog,
        baseline_s=1.0,
    )
    is_right = found.is_right and (backlog is None or found.turned_away > 0)
    return Finding(
        is_right, str(found), found.tally.accepted, found.tally.lost, found.tally.doubled
    )


def _dark(directory: Path, seed: int, seconds: float) -> Finding:
    found = run_dark(
        directory,
        dark_s=seconds / 2,
        count=int(seconds * 20),
        says_hello=bool(seed % 2),
        has_traffic_before=bool(seed // 2 % 2),
        broker_settings=", ping_interval: 1s, reconnect_wait: 100ms",
    )
    tally = found.tally
    return Finding(
        tally.is_right, str(found), tally.accepted, tally.lost, tally.doubled, found.settled_s
    )


def finding_of_cuts(found: PowerCuts) -> Finding:
    """Of all copies together."""
    lines = [verdict.lines for verdict in found.verdicts]
    return Finding(
        found.is_right,
        str(found),
        sum(one.accepted for one in lines),
        sum(one.lost for one in lines),
        sum(one.doubled for one in lines),
    )


def _power_cut(directory: Path, seed: int, seconds: float) -> Finding:
    found = run_cuts(
        directory,
        cuts=max(2, int(seconds // 3)),
        seed=seed,
        per_second=500,
        ack_on=("done", "received")[seed % 2],
    )
    return finding_of_cuts(found)


def _reloads(directory: Path, seed: int, seconds: float) -> Finding:
    edits = max(4, int(seconds * 2))
    found = run_swaps(
        directory, rate=1_500, seconds=seconds, swaps=edits, lives=edits, flaps=edits, seed=seed
    )
    lines = found.lines
    return Finding(found.is_right, str(found), lines.accepted, lines.lost, lines.doubled)


def _hostile(directory: Path, seed: int, seconds: float) -> Finding:
    problems = run_hostile(directory, seed, seconds=seconds)
    return Finding(not problems, "; ".join(problems) or "nothing lost, doubled, slow or large")


def _clock(directory: Path, seed: int, seconds: float) -> Finding:
    if find_library() is None:
        return Finding(True, "SKIPPED: libfaketime is not installed here")
    found = run_jumps(
        directory,
        per_second=200,
        stay_s=seconds / 10,
        suspend_s=seconds / 10,
        starts_before_ntp=bool(seed % 2),
    )
    lines = found.lines
    return Finding(found.is_right, str(found), lines.accepted, lines.lost, lines.doubled)


def _simulated(directory: Path, seed: int, seconds: float) -> Finding:
    del directory
    first, count = seed * 10_000, max(10, int(seconds * 20))
    broken, runs = [], 0
    for number in range(first, first + count):
        verdict = run_seed(number, delivery="jetstream" if number % 10 == 0 else "core")
        runs += verdict.runs
        if verdict.violations:
            broken.append(str(verdict))
    said = f"seeds {first} to {first + count - 1}, {runs} runs of handlers"
    return Finding(not broken, "\n".join([said, *broken[:3]]), runs)


def _fuzz(directory: Path, seed: int, seconds: float) -> Finding:
    reports = [
        fuzz.try_inputs(target, seed=seed, seconds=seconds / len(fuzz.TARGETS), directory=directory)
        for target in fuzz.TARGETS.values()
    ]
    return Finding(
        not any(report.trouble for report in reports),
        "; ".join(map(str, reports)),
        sum(report.tried for report in reports),
    )


def _tests(*paths: str, only: str = "") -> Run:
    """Tests of the suite, with examples of this seed where they draw any."""

    def run(directory: Path, seed: int, seconds: float) -> Finding:
        del directory, seconds
        drawn = ["--hypothesis-profile=drawn", f"--hypothesis-seed={seed}"]
        chosen = ["-k", only] if only else []
        command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-n0", *drawn, *chosen]
        done = subprocess.run(
            [*command, *paths], cwd=ROOT, capture_output=True, text=True, check=False
        )
        words = re.sub(r"\x1b\[[\d;]*m", "", done.stdout).strip().splitlines()
        said = words[-1] if done.returncode == 0 else "\n".join(words[-30:])
        found = re.search(r"(\d+) passed", said)
        return Finding(done.returncode == 0, said, int(found[1]) if found else 0)

    return run


ROWS: dict[str, Row] = {
    "R1": Row("the broker is killed (-9) and started again", _chaos("broker")),
    "R2": Row("the broker stands still for 0.2 to 8 s", _chaos("stall", gap_s=(0.5, 1.5))),
    "R3": Row("sender and receiver are killed (-9) at work", _chaos("sender", "receiver")),
    "R1-R4": Row(
        "all of the above and a receiver that stands still, in one run",
        _chaos("broker", "stall", "sender", "receiver", "pause", "reload"),
    ),
    "R4": Row("a receiver that stands still for up to 3 s", _chaos("pause")),
    "R4b": Row("more commands than a node can do, small and default backlogs", _overload),
    "R5": Row("a line that swallows everything both ways", _dark),
    "R6": Row("power cuts: both state directories as of any instant", _power_cut),
    "R7": Row("a disk that is full", _tests("tests/component/store/test_store_full.py"), True),
    "R8": Row(
        "bits that flip, files cut short, in the store and beside it",
        _tests(
            "tests/component/store/test_store_log.py",
            "tests/component/store/test_store_protection.py",
            "tests/component/test_damaged_state.py",
        ),
        True,
    ),
    "R9": Row("a storm of reloads under load", _reloads),
    "R10": Row(
        "configs that are garbage",
        _tests("tests/unit/test_config_reading.py", "tests/unit/test_config_battery.py"),
        True,
    ),
    "R11": Row(
        "generated configs: checked, planned, applied",
        _tests("tests/unit/test_config_properties.py", "tests/system/test_check_equals_run.py"),
        True,
    ),
    "R12": Row(
        "the reconciler and its pool",
        _tests(
            "tests/component/test_reconciler.py",
            "tests/component/test_pool.py",
            "tests/component/test_table_of_ways.py",
        ),
        True,
    ),
    "R13": Row("a peer that may publish anything and means harm", _hostile),
    "R14": Row("bytes of any kind for each decoder and reader", _fuzz),
    "R15": Row("messages with one thing wrong", _tests("tests/unit/test_wire_fuzz.py"), True),
    "R16": Row(
        "gob as Go writes it, and every byte of it changed",
        _tests("tests/unit/test_wire_gob.py", "tests/interop"),
        True,
    ),
    "R17": Row(
        "handlers that raise, hang, flood and leave children",
        _tests(
            "tests/component/methods/test_run_command.py",
            "tests/component/methods/test_streamed_command.py",
            "tests/steward_defects/test_blocked.py",
            "tests/steward_defects/test_workers.py",
        ),
        True,
    ),
    "R18": Row("a wall clock that jumps, a suspend, a start before NTP", _clock),
    "R19": Row("interleavings in virtual time, lossy, late, doubling", _simulated),
    "R20": Row(
        "the attacks on the original, one by one",
        _tests(
            "tests/steward_defects",
            "tests/system/test_permissions.py",
            "tests/component/heart/test_hostile_answers.py",
        ),
        True,
    ),
    "R21": Row(
        "what a Go node says and expects, by recorded frames",
        _tests("tests/system/test_independent_client.py", "tests/system/test_copy_seed.py"),
        True,
    ),
    "R22": Row(
        "a soak: 2,000/s, a reload every 5 s, a fault that kills no daemon every 30 s",
        # a machine that is busy with other things as well is behind at the end, which is told
        _chaos(
            *["reload"] * 5,
            "broker",
            gap_s=(4.5, 5.5),
            per_second=2_000,
            batch=100,
            settle_timeout_s=600.0,
            # appends are synced: so many of them together keep up with the rate
            concurrency=128,
        ),
    ),
    "M1": Row(
        "mutant: acknowledges before the commit, must be caught",
        mutant(MUTANT_ACK_BEFORE_COMMIT, "lost", "receiver"),
    ),
    "M2": Row(
        "mutant: remembers no ids, must be caught",
        mutant(MUTANT_NO_DEDUPE, "doubled", "broker", "sender"),
    ),
}
