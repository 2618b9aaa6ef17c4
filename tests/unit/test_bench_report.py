"""Summaries of rounds, and the report in columns that fit: figures whole, plots within the width, ASCII where asked."""

import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from appliance.cli.bench_view import render_report, say_latency, to_json
from appliance.cli.plots import draw_bar, draw_columns, squeeze
from appliance.core.bench import (
    Accounts,
    BenchOptions,
    BenchReport,
    BenchSettings,
    Cost,
    Round,
    Scenario,
    ScenarioName,
    full_speed_scenarios,
    make_extent,
    paced_scenarios,
    summarize,
)
from appliance.core.latency import LatencyHistogram
from appliance.core.meter import Meter
from appliance.core.specs import AckOn


def make_round(scenario, count, *, lateness=None, is_overrun=False):
    """A round of a second in which `count` messages came evenly, a millisecond each."""
    meter = Meter(make_extent(1.0, None), 0.0)
    for number in range(count):
        meter.add(0.5 + (number + 1) / count, 0.001 * (1 + number % 7))
    cost = Cost(messages=count, total_s=count * 50e-6, loop_s=count * 30e-6)
    return Round(
        scenario=scenario,
        meter=meter,
        sender=cost,
        receiver=cost,
        lateness=lateness,
        is_overrun=is_overrun,
    )


def make_report(rounds, **changes):
    values = {
        "options": BenchOptions(paths=("fleet",)),
        "settings": BenchSettings(
            node="ship1",
            size_bytes=256,
            window=256,
            concurrency=16,
            serialization="cbor",
            compression="zstd",
            ack_on=AckOn.DONE,
        ),
        "server": "nats://127.0.0.1:4222",
        "is_embedded": False,
        "subject": "ship1.bench.0123456789ab.REQBench.EventACK",
        "state_dir": "/var/lib/appliance",
        "is_other_disk": False,
        "payload_bytes": 273,
        "summaries": summarize(rounds),
        "accounts": Accounts(handed_over=10, acknowledged=10, handled=10),
    } | changes
    return BenchReport(**values)


def all_rounds():
    scenarios = [*full_speed_scenarios(256), Scenario(ScenarioName.PACED, 256, 2_700.0)]
    counts = {ScenarioName.BROKER: 20_000, ScenarioName.BROKER_SINGLE: 9_000}
    return [
        make_round(
            scenario,
            counts.get(scenario.name, 2_700) + 100 * number,
            lateness=LatencyHistogram([0.0001]) if scenario.rate else None,
        )
        for number in range(3)
        for scenario in scenarios
    ]


def draw(report, width, *, has_blocks=True):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(render_report(report, width, has_blocks=has_blocks))
    return console.file.getvalue()


@given(st.lists(st.integers(1, 500), min_size=1, max_size=7))
def test_a_summary_holds_the_median_and_the_spread_of_its_rounds(counts):
    scenario = Scenario(ScenarioName.WINDOW, 256)
    (summary,) = summarize([make_round(scenario, count) for count in counts])
    ordered = sorted(counts)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    assert summary.rate.median == pytest.approx(middle)
    assert summary.rate.noise == pytest.approx((ordered[-1] - ordered[0]) / middle)
    assert summary.messages == summary.latency.count == sum(counts)
    assert summary.sender_us == pytest.approx((50, 30))


def test_ratios_are_taken_round_by_round():
    report = make_report(all_rounds())
    expected = sorted((2_700 + 100 * at) / (20_000 + 100 * at) for at in range(3))[1]
    assert report.ratio(ScenarioName.WINDOW).median == pytest.approx(expected)
    assert report.ratio(ScenarioName.PACED) is None


@pytest.mark.parametrize("overrun", [False, True])
def test_a_rate_that_was_not_reached_is_said(overrun):
    scenario = paced_scenarios(256, 1_000.0)[1]
    (kept,) = summarize([make_round(scenario, 990, is_overrun=overrun)])
    (missed,) = summarize([make_round(scenario, 900)])
    assert (kept.is_behind, missed.is_behind) == (overrun, True)
    assert "those of an overload" in draw(make_report([make_round(scenario, 900)]), 100)


@pytest.mark.parametrize("width", [80, 100, 120, 240])
def test_the_report_fits_and_cuts_no_figure(width):
    lines = draw(make_report(all_rounds()), width).splitlines()
    assert max(map(len, lines)) <= min(width, 100)
    assert not [line for line in lines if "…" in line]
    table = next(line for line in lines if line.startswith("appliance, window 256 "))
    assert "2,800" in table
    assert [line for line in lines if "█" in line]


def test_where_there_are_no_blocks_the_plots_are_ascii():
    text = draw(make_report(all_rounds()), 80, has_blocks=False)
    plots = text[text.index("Latency, ") :]
    assert "###" in plots
    assert plots.replace("µ", "u").isascii()


def test_a_round_too_short_for_a_course_of_time_has_no_plot_of_it():
    scenario = Scenario(ScenarioName.WINDOW, 256)
    meter = Meter(make_extent(1.0, 20), 0.0)
    for number in range(30):
        meter.add(0.001 * number, 0.002)
    quick = make_round(scenario, 0)
    text = draw(make_report([replace(quick, meter=meter)]), 80)
    assert "over time" not in text
    assert "appliance, window 256" in text


def test_lost_and_doubled_messages_are_told():
    accounts = Accounts(handed_over=10, acknowledged=10, handled=8)
    assert (accounts.lost, accounts.doubled, accounts.is_sound) == (2, 0, False)
    assert "2 lost, 0 doubled" in draw(make_report(all_rounds(), accounts=accounts), 80)
    assert Accounts(handed_over=10, acknowledged=10, handled=11).doubled == 1


def test_the_json_holds_no_value_that_json_has_not():
    empty = make_round(Scenario(ScenarioName.WINDOW, 256), 0)
    report = make_report([empty, make_round(Scenario(ScenarioName.BROKER, 256), 0)])
    shown = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert shown["scenarios"]["window"]["latency_seconds"]["p50"] is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000412, "41.2 µs"),
        (0.000999, "999 µs"),
        (0.0009996, "1.00 ms"),
        (0.01234, "12.3 ms"),
        (0.5, "500 ms"),
        (1.5, "1.50 s"),
        (75.0, "75.0 s"),
        (math.nan, "–"),
    ],
)
def test_latencies_are_said_in_three_figures(seconds, text):
    assert say_latency(seconds) == text


@given(st.floats(0, 1), st.integers(1, 60), st.booleans())
def test_a_bar_stays_within_its_width_and_shows_whatever_is_not_nothing(share, width, blocks):
    bar = draw_bar(share, width, has_blocks=blocks)
    assert len(bar) <= width
    assert bool(bar) == (share > 0)


VALUES = st.lists(st.floats(0, 1e6), max_size=70)


@given(st.lists(VALUES, min_size=1, max_size=4), st.integers(10, 90), st.integers(1, 9))
def test_columns_stay_within_their_width_and_the_highest_reaches_the_top(series, width, height):
    lines = draw_columns(series, width, height)
    assert len(lines) == height
    assert len(set(map(len, lines))) == 1
    assert len(lines[0]) <= width
    if any(value > 1e-3 for values in series for value in values):
        assert "█" in lines[0]


@given(VALUES, st.integers(1, 40))
def test_squeezing_keeps_order_and_extent(values, most):
    squeezed = squeeze(values, most)
    assert len(squeezed) == min(len(values), most)
    if values:
        assert min(values) - 1e-6 <= min(squeezed) <= max(squeezed) <= max(values) + 1e-6
