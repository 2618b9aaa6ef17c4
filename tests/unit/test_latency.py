"""Quantiles that are right to within what they promise, and a meter that counts what it should and nothing else."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.latency import GROWTH, SMALLEST_S, LatencyHistogram
from appliance.core.meter import BIN_S, Extent, Meter

SECONDS = st.floats(min_value=SMALLEST_S, max_value=3_600.0)
SHARES = st.floats(min_value=0.0, max_value=1.0)
ROUNDING = 1e-9


def exact(values, share):
    """The nearest rank, by definition."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


@given(st.lists(SECONDS, min_size=1, max_size=200), SHARES)
def test_a_quantile_is_never_too_low_and_at_most_two_percent_too_high(values, share):
    true, told = exact(values, share), LatencyHistogram(values).quantile(share)
    assert true * (1 - ROUNDING) <= told <= true * GROWTH * (1 + ROUNDING)


@given(st.lists(SECONDS, min_size=1), SHARES, SHARES)
def test_quantiles_rise_and_end_at_the_extremes(values, one, other):
    histogram = LatencyHistogram(values)
    low, high = sorted((one, other))
    assert histogram.quantile(low) <= histogram.quantile(high)
    assert histogram.quantile(1.0) == max(values)
    assert min(values) <= histogram.quantile(0.0) <= min(values) * GROWTH * (1 + ROUNDING)


@given(st.lists(SECONDS), st.lists(SECONDS), SHARES)
def test_merging_is_counting_both(one, other, share):
    merged, both = LatencyHistogram(one), LatencyHistogram(one + other)
    merged.merge(LatencyHistogram(other))
    assert merged.count == both.count == len(one) + len(other)
    assert math.isclose(merged.sum_s, both.sum_s)
    assert merged.bands(10) == both.bands(10)
    if both.count:
        assert merged.quantile(share) == both.quantile(share)


@given(st.lists(SECONDS, min_size=1), st.integers(1, 40))
def test_bands_hold_every_value_once_and_border_on_each_other(values, most):
    bands = LatencyHistogram(values).bands(most)
    assert len(bands) <= most
    assert sum(band.amount for band in bands) == len(values)
    for before, after in pairwise(bands):
        assert before.upper_s == after.lower_s
    for band in bands:
        low, high = band.lower_s * (1 - ROUNDING), band.upper_s * (1 + ROUNDING)
        certain = sum(low * GROWTH < value < high / GROWTH for value in values)
        possible = sum(low <= value <= high for value in values)
        assert certain <= band.amount <= possible


def test_an_empty_histogram_knows_nothing():
    histogram = LatencyHistogram()
    assert math.isnan(histogram.quantile(0.5))
    assert math.isnan(histogram.mean_s)
    assert histogram.bands(5) == []


TIMED = Extent(warm_s=1.0, measure_s=2.0)
TIMES = st.lists(st.floats(min_value=0.0, max_value=5.0), max_size=100).map(sorted)


@given(TIMES)
def test_a_timed_round_counts_what_completes_after_the_warm_up_and_within_its_time(times):
    meter = Meter(TIMED, 10.0)
    for at in times:
        meter.add(10.0 + at, 0.001)
    within = [at for at in times if 11.0 < 10.0 + at <= 13.0]
    assert meter.count == meter.latency.count == len(within)
    assert meter.rate == len(within) / 2.0
    assert sum(meter.rates) * BIN_S == pytest.approx(len(within), abs=1.01)
    assert len(meter.rates) == 20


def test_the_latency_of_what_was_due_in_time_is_kept_however_late_it_comes():
    meter = Meter(TIMED, 0.0)
    meter.add(30.0, 28.0, due_at=2.0)  # a stall: due within, back long after
    meter.add(2.5, 2.0, due_at=0.5)  # due in the warm-up
    assert meter.latency.count == 1
    assert meter.latency.largest_s == 28.0
    assert meter.count == 1  # and of the rate counts what was done in the measured time


@given(st.lists(st.floats(min_value=1e-6, max_value=1.0), min_size=1, max_size=80), st.data())
def test_a_counted_round_leaves_the_first_out_and_stops_at_its_number(steps, data):
    warm = data.draw(st.integers(0, 20))
    wanted = data.draw(st.integers(1, 60))
    meter = Meter(Extent(warm_count=warm, measure_count=wanted), 0.0)
    at, times = 0.0, []
    for step in steps:
        at += step
        times.append(at)
        meter.add(at, 0.001)
    counted = times[warm : warm + wanted]
    assert meter.count == len(counted)
    assert meter.is_full(at) == (len(counted) == wanted)
    assert meter.share(at) == pytest.approx(min(len(times), warm + wanted) / (warm + wanted))
    if counted:
        since = times[warm - 1] if warm else 0.0
        assert meter.rate == pytest.approx(len(counted) / (counted[-1] - since))


def test_a_round_that_came_all_at_once_counts_from_its_beginning():
    meter = Meter(Extent(warm_count=2, measure_count=4), 1.0)
    for _ in range(6):
        meter.add(1.5, 0.1)
    assert meter.rate == 4 / 0.5
