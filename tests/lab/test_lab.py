"""The lab's short form: every kind of fault once under load, both mutants caught, some inputs for every reader of bytes.

The long form is `python -m tests.lab`; see the README beside this file.
"""

import pytest

from tests.lab import fuzz
from tests.lab.__main__ import table_line
from tests.lab.chaos import MUTANT_ACK_BEFORE_COMMIT, MUTANT_NO_DEDUPE, run_harness
from tests.lab.rows import ROOT, ROWS, Finding

EVERY_KIND = ("broker", "stall", "sender", "receiver", "pause", "reload")


@pytest.mark.parametrize(("ack_on", "compression"), [("done", "none"), ("received", "zstd")])
def test_every_accepted_message_is_handled_exactly_once_whatever_fails(
    tmp_path, ack_on, compression
):
    outcome = run_harness(
        tmp_path, kills=1, seed=3, kinds=EVERY_KIND, ack_on=ack_on, compression=compression
    )
    assert outcome.tally.accepted > 500
    assert outcome.faults == dict.fromkeys(EVERY_KIND, 1)
    assert outcome.is_right, outcome


def find_one_with(seeds, is_seen, directory, **options):
    """Whether a mutant is caught: each run catches it nearly always, so a few seeds do."""
    runs = (run_harness(directory / str(seed), kills=2, seed=seed, **options) for seed in seeds)
    return any(map(is_seen, runs))


def test_the_harness_sees_a_receiver_that_acknowledges_before_the_commit(tmp_path):
    assert find_one_with(
        range(3, 8),
        lambda outcome: outcome.tally.lost > 0,
        tmp_path,
        kinds=("receiver",),
        receiver_command=MUTANT_ACK_BEFORE_COMMIT,
    )


def test_the_harness_sees_a_receiver_without_a_memory_of_ids(tmp_path):
    assert find_one_with(
        range(5, 10),
        lambda outcome: outcome.tally.doubled > 0,
        tmp_path,
        kinds=("broker", "sender"),
        receiver_command=MUTANT_NO_DEDUPE,
    )


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_broken_input_is_read_or_refused_with_the_error_that_is_declared(name, tmp_path):
    target = fuzz.TARGETS[name]
    report = fuzz.try_inputs(
        target, inputs=1_000 if target.inputs == 1_000_000 else 200, directory=tmp_path
    )
    assert not report.trouble, report
    assert report.slowest_s < fuzz.MAX_CPU_S


def test_a_reader_that_breaks_is_told_with_the_input_that_did_it(tmp_path):
    def read(raw, _):
        if len(raw) > 4:
            raise KeyError("too long")

    fragile = fuzz.Target("fragile", read, lambda: [b"1234"])
    report = fuzz.try_inputs(fragile, inputs=1_000, directory=tmp_path)
    assert "KeyError: 'too long'" in report.trouble[0]
    assert report.trouble == fuzz.try_inputs(fragile, inputs=1_000, directory=tmp_path).trouble


def test_every_row_stands_in_the_readme_with_its_last_figures():
    text = (ROOT / "tests/lab/README.md").read_text()
    for name, row in ROWS.items():
        line = table_line(name, row, [Finding(True, "")])
        assert line[: line.index(" | 1 of 1")] in text, name
