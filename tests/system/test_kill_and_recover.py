"""kill -9 of the sender, the receiver and the broker under load: every accepted message is handled exactly once.

The long run (ten kills each) is `python -m tests.measure.kill_and_recover`.
"""

import pytest

from tests.support.exactly_once import MUTANT_ACK_BEFORE_COMMIT, MUTANT_NO_DEDUPE, run_harness

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(("ack_on", "compression"), [("done", "none"), ("received", "zstd")])
def test_every_accepted_message_is_handled_exactly_once_whatever_is_killed(
    tmp_path, ack_on, compression
):
    outcome = run_harness(tmp_path, kills=2, seed=7, ack_on=ack_on, compression=compression)
    assert outcome.tally.accepted > 500
    assert outcome.is_exactly_once, outcome


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
