"""Interleavings of messages and faults where a stream carries the messages, and reloads go to and fro between both ways.

``python -m tests.lab --rows R19`` tries any number of seeds, every tenth by a stream.
"""

from __future__ import annotations

import pytest

from tests.support.heart_chaos import run_seed

SEEDS = 60
AT_ONCE = 15


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_interleaving_violates_a_promise(first: int):
    verdicts = [run_seed(seed, delivery="jetstream") for seed in range(first, first + AT_ONCE)]
    broken = [verdict for verdict in verdicts if verdict.violations]
    assert not broken, "\n".join(map(str, broken[:3]))
    assert sum(verdict.runs for verdict in verdicts) > AT_ONCE


def test_one_seed_takes_the_same_course_every_time():
    once, again = run_seed(3, delivery="jetstream"), run_seed(3, delivery="jetstream")
    assert (once.trace, once.faults) == (again.trace, again.faults)
