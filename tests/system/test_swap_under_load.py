"""A reload under load loses, doubles and reorders nothing. The long run is `python -m tests.lab --rows R9`."""

from tests.lab.swap_load import run_swaps


def test_edits_of_all_kinds_under_load_lose_double_and_reorder_nothing(tmp_path):
    outcome = run_swaps(tmp_path, rate=1_500, seconds=5, swaps=8, lives=8, flaps=8)
    assert outcome.is_right, outcome
    assert outcome.lines.accepted == 7_500
    assert outcome.slow.accepted > 3
    assert outcome.reloads == {"applied": 24}
