"""A thousand interleavings of messages and faults in virtual time: what must hold, holds in each of them.

A failure prints seed, plan, faults and what was violated. ``run_seed(SEED)`` takes the same course again, and
``python -m tests.lab --rows R19`` tries any number of them.
"""

from __future__ import annotations

import pytest

from tests.support.heart_chaos import Verdict, make_plan, run_seed
from tests.support.heart_mutants import AcknowledgesFirst, RemembersNothing

SEEDS = 1_000
AT_ONCE = 100
MUTANT_SEEDS = 60


def _kinds(verdicts: list[Verdict]) -> set[str]:
    return {violation[:2] for verdict in verdicts for violation in verdict.violations}


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_interleaving_violates_a_promise(first: int):
    verdicts = [run_seed(seed) for seed in range(first, first + AT_ONCE)]
    broken = [verdict for verdict in verdicts if verdict.violations]
    assert not broken, "\n".join(map(str, broken[:3]))
    assert sum(verdict.runs for verdict in verdicts) > AT_ONCE  # something was handled at all


def test_one_seed_takes_the_same_course_every_time():
    for seed in range(10):
        once, again = run_seed(seed), run_seed(seed)
        assert once.trace == again.trace
        assert once.faults == again.faults


def test_plans_meet_every_setting():
    plans = [make_plan(seed) for seed in range(SEEDS)]
    for name in ("ack_on", "window", "concurrency", "has_second", "lose", "double", "late_s"):
        assert len({getattr(plan, name) for plan in plans}) > 1, name


def test_acknowledging_before_the_commit_is_noticed():
    verdicts = [run_seed(seed, line_class=AcknowledgesFirst) for seed in range(MUTANT_SEEDS)]
    assert "I4" in _kinds(verdicts)


def test_remembering_no_ids_is_noticed():
    verdicts = [run_seed(seed, store_class=RemembersNothing) for seed in range(MUTANT_SEEDS)]
    assert "I2" in _kinds(verdicts)
