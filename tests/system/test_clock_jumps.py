"""Jumps of the wall clock under load. The long run is `python -m tests.lab --rows R18`."""

import time

import pytest

from tests.lab.clock_jumps import DAY_S, HOUR_S, SUSPEND, run_jumps
from tests.support.faked_clock import FakedClock, find_library

pytestmark = pytest.mark.skipif(
    find_library() is None, reason="libfaketime is not installed here (Debian: faketime)"
)
IN_1970_S = 30.0 - time.time()


@pytest.mark.parametrize(
    "offset_s",
    [0.0, HOUR_S, -HOUR_S, 2 * DAY_S, -2 * DAY_S, IN_1970_S],
    ids=["right", "ahead", "behind", "days-ahead", "days-behind", "1970"],
)
def test_a_faked_clock_fakes_the_wall_clock_and_nothing_else(tmp_path, offset_s):
    FakedClock(tmp_path / "clock", offset_s).prove()


def test_jumps_a_standstill_and_kills_under_load_lose_double_and_expire_nothing(tmp_path):
    outcome = run_jumps(
        tmp_path,
        per_second=200,
        stay_s=0.2,
        jumps=(-2 * DAY_S, SUSPEND),
        starts_before_ntp=True,
        suspend_s=0.5,
    )
    assert outcome.is_right, outcome
    assert outcome.jumps_told == 2
    assert outcome.lines.accepted > 100
