"""The steady clock over restarts: exact within one boot, bounded by what can have passed over a reboot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.ages import Anchor, choose_offset

LAST = Anchor("boot-a", steady=1_700_000_000.0, mono=5_000.0, wall=1_700_000_000.0)


def steady_after(last, **now):
    return choose_offset(last, **now) + now["mono"]


def test_first_start_begins_with_the_wall_clock():
    assert steady_after(None, boot_id="boot-a", mono=7.0, wall=1_650_000_000.0) == 1_650_000_000.0


@pytest.mark.parametrize("wall", [0.0, 1_600_000_000.0, 1_700_000_100.0, 2_000_000_000.0])
def test_within_one_boot_only_the_monotonic_clock_counts(wall: float):
    found = steady_after(LAST, boot_id="boot-a", mono=5_100.0, wall=wall)
    assert found == LAST.steady + 100.0


@pytest.mark.parametrize(
    ("wall", "passed"),
    [
        (LAST.wall + 3_600.0, 3_600.0),
        (LAST.wall + 20.0, 40.0),  # less than the machine is up: that is known better
        (LAST.wall, 40.0),
        (LAST.wall - 3_600.0, 40.0),
        (0.0, 40.0),  # a machine without a battery, before its clock was set
    ],
)
def test_over_a_reboot_the_wall_clock_is_believed_as_far_as_it_goes_forward(
    wall: float, passed: float
):
    assert steady_after(LAST, boot_id="boot-b", mono=40.0, wall=wall) == LAST.steady + passed


def test_a_moment_noted_before_the_clock_was_set_does_not_make_everything_old():
    noted = Anchor("boot-a", steady=1_700_000_000.0, mono=30.0, wall=40.0)
    found = steady_after(noted, boot_id="boot-b", mono=20.0, wall=1_700_000_600.0)
    assert found == 1_700_000_600.0


def test_a_store_made_before_the_clock_was_set_goes_on_by_what_passed():
    noted = Anchor("boot-a", steady=400.0, mono=400.0, wall=1_700_000_000.0)
    found = steady_after(noted, boot_id="boot-b", mono=20.0, wall=1_700_000_600.0)
    assert found == 1_000.0


def test_an_unknown_boot_counts_as_another():
    noted = Anchor("", steady=1_700_000_000.0, mono=5_000.0, wall=1_700_000_000.0)
    found = steady_after(noted, boot_id="", mono=6_000.0, wall=1_700_000_010.0)
    assert found == noted.steady + 6_000.0


times = st.floats(0, 4e9)


@given(
    last=st.builds(Anchor, st.sampled_from(["", "a", "b"]), times, times, times),
    boot_id=st.sampled_from(["", "a", "b"]),
    mono=times,
    wall=times,
)
def test_time_never_goes_back(last: Anchor, boot_id: str, mono: float, wall: float):
    assert steady_after(last, boot_id=boot_id, mono=mono, wall=wall) >= last.steady - 1e-3
