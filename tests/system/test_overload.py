"""More commands than a node can do at once, with room for few of them.

The long run is `python -m tests.lab --rows R4b`.
"""

import pytest

from tests.lab.overload import run_overload


@pytest.mark.parametrize("ack_on", ["done", "received"])
def test_commands_for_which_there_is_no_room_are_all_done_once_in_the_end(tmp_path, ack_on):
    outcome = run_overload(
        tmp_path, count=60, ack_on=ack_on, takes_s=0.05, backlog=10, baseline_s=0.5
    )
    assert outcome.is_right, outcome
    assert outcome.tally.accepted == 60
    assert outcome.turned_away > 0
