"""The light histogram counts what it is told, in the right bucket."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.telemetry.stats import BOUNDS_S, LightHistogram


def test_a_bound_belongs_to_its_own_bucket():
    histogram = LightHistogram()
    histogram.observe(0.001)
    assert histogram.buckets()[0] == ("0.001", 1)


def test_what_exceeds_all_bounds_is_counted_in_the_last_bucket_only():
    histogram = LightHistogram()
    histogram.observe(3_600.0)
    assert histogram.buckets()[-2][1] == 0
    assert histogram.buckets()[-1] == ("+Inf", 1)


def test_a_clock_that_was_set_back_counts_as_no_time():
    histogram = LightHistogram()
    histogram.observe(-5.0)
    assert (histogram.sum, histogram.buckets()[0][1]) == (0.0, 1)


@given(st.lists(st.floats(0, 1_000)))
def test_every_bucket_holds_exactly_what_is_not_above_its_bound(seconds):
    histogram = LightHistogram()
    for each in seconds:
        histogram.observe(each)
    for bound, (_, count) in zip(BOUNDS_S, histogram.buckets(), strict=False):
        assert count == sum(each <= bound for each in seconds)
    assert histogram.buckets()[-1][1] == histogram.count == len(seconds)


def test_two_histograms_add_up():
    first, second = LightHistogram(), LightHistogram()
    first.observe(0.2)
    second.observe(20.0)
    first.add(second)
    assert first.count == 2
    assert first.sum == 20.2
    assert first.buckets()[-1][1] == 2
