"""A copy of both state directories at any instant starts, and has every accepted message handled.

The long run is `python -m tests.lab --rows R6`.
"""

import pytest

from tests.lab.power_cut import run_cuts


@pytest.mark.parametrize("ack_on", ["done", "received"])
def test_every_copy_taken_under_load_has_what_was_accepted_handled_once(tmp_path, ack_on):
    outcome = run_cuts(tmp_path, cuts=3, seed=5, per_second=500, ack_on=ack_on)
    assert len(outcome.verdicts) == 3
    assert outcome.is_right, outcome
    assert all(verdict.lines.accepted > 20 for verdict in outcome.verdicts)
