"""What a benchmark found out, in columns that fit and as JSON; its plot stays within its width, and ASCII where asked."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bench.report import BenchOptions, BenchReport, Summary
from appliance.bench.sides import BenchOrder
from appliance.cli.bench_command import BANDS, render_report, to_json
from appliance.core.specs import (
    BrokerSettings,
    LimitSettings,
    PublisherDefaults,
    StateSettings,
    SubscriberDefaults,
)


def make_report(*summaries):
    return BenchReport(
        options=BenchOptions(paths=("fleet",)),
        order=BenchOrder(
            below="ship1",
            token="0123456789ab",
            broker=BrokerSettings(servers=("nats://127.0.0.1:4222",)),
            limits=LimitSettings(),
            state=StateSettings(),
            sends=PublisherDefaults(),
            takes=SubscriberDefaults(),
        ),
        server="nats://127.0.0.1:4222",
        state_dir="/var/lib/appliance",
        payload_bytes=273,
        summaries=list(summaries),
    )


def make_paced(latencies_s, *rates):
    summary = Summary(name="paced", window=256, asked=1_000.0, rates=list(rates or [1_000.0]))
    summary.messages = len(latencies_s)
    summary.latencies_s.extend(latencies_s)
    return summary


def draw(*summaries, **options):
    return "\n".join(render_report(make_report(*summaries), **options))


@given(st.lists(st.integers(1, 500), min_size=1, max_size=7))
def test_a_figure_is_the_median_of_its_rounds_and_its_noise_their_distance(counts):
    summary = Summary(name="window", window=256, rates=[float(count) for count in counts])
    ordered = sorted(counts)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    assert summary.rate == pytest.approx(middle)
    assert summary.noise == pytest.approx((ordered[-1] - ordered[0]) / middle)


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=300), st.floats(0, 1))
def test_a_quantile_is_the_least_latency_that_such_a_share_does_not_exceed(latencies_s, share):
    found_s = make_paced(latencies_s).latency_s(share)
    assert found_s in latencies_s
    assert sum(value <= found_s for value in latencies_s) >= share * len(latencies_s) - 1e-9
    below = sum(value < found_s for value in latencies_s)
    assert below == 0 or below < share * len(latencies_s) + 1e-9


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300), st.booleans())
def test_the_plot_holds_every_latency_within_80_columns(latencies_s, has_blocks):
    lines = draw(make_paced(latencies_s), has_blocks=has_blocks).splitlines()
    assert max(map(len, lines)) <= 80
    bands = [line.split() for line in lines if line.startswith("  <")]
    assert len(bands) == BANDS
    shares = [float(band[3].rstrip("%")) for band in bands]
    assert sum(shares) == pytest.approx(100, abs=BANDS * 0.05 + 1e-6)
    block = "█" if has_blocks else "#"
    assert max(len(band[4]) if len(band) > 4 else 0 for band in bands) > 10
    assert all(set(band[4]) == {block} for band in bands if len(band) > 4)
    assert has_blocks or "\n".join(lines).isascii()


def test_every_figure_has_its_line():
    full = [
        Summary(name="window", window=256, rates=[25_000.0, 27_000.0, 26_000.0]),
        Summary(name="single", window=1, rates=[2_000.0]),
    ]
    text = draw(*full, make_paced([0.001, 0.002, 0.004]))
    assert [line.split() for line in text.splitlines() if line.startswith("window")] == [
        ["window", "256", "26,000", "8%"],
        ["window", "1", "2,000", "0%"],
    ]
    assert "  p50     2 ms\n  p90     4 ms\n  p99     4 ms\n  max     4 ms" in text
    assert "overload" not in text
    assert "busy" not in text


def test_an_overload_and_a_busy_machine_are_said():
    text = draw(make_paced([0.1], 900.0, 500.0, 930.0))
    assert "Only 900/s came through: these times are those of an overload." in text
    assert "differences below 48% say nothing" in text
    assert "overload" in draw(make_paced([], 0.0))


@pytest.mark.parametrize("latencies_s", [[], [0.001, 0.003]])
def test_the_json_holds_no_value_that_json_has_not(latencies_s):
    report = make_report(Summary(name="window", window=256, rates=[0.0]), make_paced(latencies_s))
    shown = json.loads(json.dumps(to_json(report), allow_nan=False))["scenarios"]
    assert shown["window"]["messages_per_second"] == {"median": 0.0, "noise": 0.0, "rounds": [0.0]}
    latency = shown["paced"]["latency_seconds"]
    assert latency["count"] == len(latencies_s)
    assert latency["max"] == max(latencies_s, default=None)
    assert latency["p50"] == min(latencies_s, default=None)
