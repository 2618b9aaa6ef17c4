"""A reload under load loses, doubles and reorders nothing. The long run is `python -m tests.measure.swap_under_load`."""

import pytest

from tests.support.swap_load import run_swaps

pytestmark = pytest.mark.timeout(120)


def test_swaps_and_live_changes_under_load_lose_double_and_reorder_nothing(tmp_path):
    outcome = run_swaps(tmp_path, rate=1_500, seconds=5, swaps=10, lives=10)
    assert outcome.sent == outcome.lines == 7_500, outcome
    assert (outcome.lost, outcome.doubled, outcome.disordered) == (0, 0, 0), outcome
    assert outcome.reloads == {"applied": 20}


def test_an_unrelated_subject_that_comes_and_goes_disturbs_nobody(tmp_path):
    outcome = run_swaps(tmp_path, rate=1_500, seconds=3, flaps=12)
    assert outcome.sent == outcome.lines == 4_500, outcome
    assert (outcome.lost, outcome.doubled, outcome.disordered) == (0, 0, 0), outcome
    assert outcome.reloads == {"applied": 12}
