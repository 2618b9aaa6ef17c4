"""What a benchmark found out, as a person likes to read it and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator

from appliance.bench.report import BenchReport, Summary
from appliance.core.times import say_short

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
BANDS = 16
BAR_COLUMNS = 54
NOISY = 0.2
"""Rounds that differ by more than this make small differences between two runs worthless."""


def render_report(report: BenchReport, *, has_blocks: bool = True) -> Iterator[str]:
    """Lines of at most 80 columns, save for long names; plain ASCII without blocks."""
    options, sends = report.options, report.order.sends
    each = f"{options.count:,} messages" if options.count else f"{options.duration_s:g} s"
    wire = f"{report.payload_bytes:,} as {sends.serialization} and {sends.compression}"
    yield f"broker    {report.server}"
    yield f"messages  {options.size_bytes:,} bytes of text, {wire}"
    yield f"state     on the disk of {report.state_dir}"
    yield f"measured  {options.rounds} x {each}; rates are medians, noise how far rounds are apart"
    yield f"\n{'':24}{'msgs/s':>10}{'noise':>8}"
    for summary in report.summaries:
        yield f"{summary!s:24}{summary.rate:10,.0f}{summary.noise:8.0%}"
    paced = report.summaries[-1]
    yield from _render_latency(paced, "█" if has_blocks else "#")
    if paced.is_behind:
        yield f"Only {paced.rate:,.0f}/s came through: these times are those of an overload."
    noise = max(summary.noise for summary in report.summaries)
    if noise > NOISY:
        yield f"The machine was busy: differences below {noise:.0%} say nothing. More --rounds help."


def _render_latency(summary: Summary, block: str) -> Iterator[str]:
    values = [max(value, 1e-6) for value in summary.latencies_s]
    if not values:
        return  # it was an overload from the first on
    yield f"\nlatency at {summary}, from when one was due to its acknowledgement"
    for name, share in QUANTILES.items():
        yield f"  {name} {say_short(summary.latency_s(share)):>8}"
    least = min(values)
    step = max(math.log(max(values) / least) / BANDS, 0.01)
    counts = [0] * BANDS
    for value in values:
        counts[min(int(math.log(value / least) / step), BANDS - 1)] += 1
    for at, count in enumerate(counts):
        bar = block * math.ceil(count / max(counts) * BAR_COLUMNS)
        upper_s = least * math.exp(step * (at + 1))
        yield f"  < {say_short(upper_s):>8} {count / len(values):7.1%}  {bar}".rstrip()


def to_json(report: BenchReport) -> dict[str, object]:
    """Everything for machines, times in seconds."""
    options, order = report.options, report.order
    return {
        "broker": {"server": report.server, "embedded": bool(order.broker.embedded)},
        "node": order.below,
        "state_dir": report.state_dir,
        "settings": {
            "size_bytes": options.size_bytes,
            "payload_bytes": report.payload_bytes,
            "window": order.sends.window,
            "concurrency": order.takes.concurrency,
            "serialization": order.sends.serialization,
            "compression": order.sends.compression,
            "ack_on": str(order.takes.ack_on),
        },
        "scenarios": {summary.name: _summary_json(summary) for summary in report.summaries},
    }


def _summary_json(summary: Summary) -> dict[str, object]:
    rates = {"median": summary.rate, "noise": summary.noise, "rounds": summary.rates}
    common = {"window": summary.window, "messages": summary.messages, "messages_per_second": rates}
    if summary.asked is None:
        return common
    count = len(summary.latencies_s)
    shown = {name: summary.latency_s(share) if count else None for name, share in QUANTILES.items()}
    paced = {"asked_per_second": summary.asked, "behind": summary.is_behind}
    return {**common, **paced, "latency_seconds": {"since": "due", "count": count, **shown}}
