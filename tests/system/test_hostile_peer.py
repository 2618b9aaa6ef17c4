"""A short run of the peer that means harm; `python -m tests.lab --rows R13` is the long one."""

from tests.lab.hostile_peer import run


def test_nothing_is_lost_or_broken_beside_a_hostile_peer(tmp_path):
    assert run(tmp_path, seed=1, most=6_000) == []
