"""What a benchmark found out, as a person likes to read it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from appliance.cli.plots import draw_bar, draw_columns
from appliance.core.bench import BenchReport, Scenario, ScenarioName, Summary
from appliance.core.meter import BIN_S

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
MAX_WIDTH = 100
MAX_BANDS = 16
PLOT_HEIGHT = 8
NOISY = 0.2
"""Rounds that differ by more than this make small differences between two runs worthless."""
_LABEL = 12


def say_scenario(scenario: Scenario) -> str:
    """Its name in the table and in the progress."""
    who = "broker alone" if scenario.is_bare else "appliance"
    if scenario.rate is not None:
        return f"{who} at {scenario.rate:,.0f}/s"
    return f"{who}, window {scenario.window}"


def say_latency(seconds: float) -> str:
    """Three figures and the unit that suits them."""
    if math.isnan(seconds):
        return "–"
    for unit, size in (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if seconds < 0.9995e3 * size or unit == "s":
            value = seconds / size
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    raise AssertionError("seconds have no end")


def say_extent(report: BenchReport) -> str:
    """How much is measured."""
    options = report.options
    rounds = f"{options.rounds} round{'s' if options.rounds != 1 else ''}"
    each = f"{options.duration_s:g} s" if options.count is None else f"{options.count:,} messages"
    return f"{rounds} of {each}, without the warm-up"


def render_report(report: BenchReport, width: int, *, has_blocks: bool) -> RenderableType:
    """Everything, in `width` columns."""
    width = min(width, MAX_WIDTH)
    parts: list[RenderableType] = [*_header(report), Text(""), _table(report), Text("")]
    parts += [Text(line) for line in _notes(report)]
    parts += [Text(line, style="yellow") for line in _warnings(report)]
    for summary in (report.find(ScenarioName.PACED), report.find(ScenarioName.WINDOW)):
        if summary is None or not summary.latency.count:
            continue
        is_paced = summary.scenario.rate is not None
        lines = (_histogram if is_paced else _rates)(summary, width, has_blocks=has_blocks)
        parts += [Text(""), *(Text(line) for line in lines)]
    return Group(*parts)


def _header(report: BenchReport) -> Iterator[Text]:
    settings = report.settings
    yield _fact("broker", report.server + (" (embedded)" if report.is_embedded else ""))
    yield _fact("subject", report.subject)
    yield _fact(
        "messages",
        f"{settings.size_bytes:,} bytes of data, {report.payload_bytes:,} as"
        f" {settings.serialization} and {settings.compression},"
        f" acknowledged when {settings.ack_on}",
    )
    yield _fact("state", f"on the disk of {report.state_dir}")
    yield _fact("measured", say_extent(report))


def _fact(name: str, value: str) -> Text:
    return Text(f"{name:<10}", style="bold").append(value, style="not bold")


def _table(report: BenchReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    for name in ("msgs/s", "noise", *(name for name, _ in QUANTILES)):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in report.summaries:
        latency = summary.latency
        table.add_row(
            say_scenario(summary.scenario),
            f"{summary.rate.median:,.0f}",
            f"{summary.rate.noise:.0%}",
            *(say_latency(latency.quantile(share)) for _, share in QUANTILES),
        )
    return table


def _notes(report: BenchReport) -> Iterator[str]:
    yield "msgs/s: median of the rounds; noise: how far apart these are, as a share of it."
    yield "Times: from the sending to the acknowledgement; at a rate from when a message was due."
    for name, words in (
        (ScenarioName.WINDOW, f"window {report.settings.window}"),
        (ScenarioName.SINGLE, "window 1"),
    ):
        ratio = report.ratio(name)
        summary = report.find(name)
        if ratio is None or summary is None:
            continue
        yield (
            f"At {words}: {ratio.median:.2f} of the broker's own rate; processor per message"
            f" {summary.sender_us[0]:.0f} µs sending, {summary.receiver_us[0]:.0f} µs receiving."
        )
    accounts = report.accounts
    yield (
        f"{accounts.handed_over:,} handed over, {accounts.acknowledged:,} acknowledged,"
        f" {accounts.handled:,} handled; {accounts.missed:,} attempts missed."
    )


def _warnings(report: BenchReport) -> Iterator[str]:
    if not report.accounts.is_sound:
        yield f"Not every message was handled once: {report.accounts.lost:,} lost, {report.accounts.doubled:,} doubled."
    if report.is_other_disk:
        yield f"{report.state_dir} is on another disk than the state directory, which is not writable here."
    worst = max((summary.rate.noise for summary in report.summaries), default=0.0)
    if worst > NOISY:
        yield f"The machine was busy: differences below {worst:.0%} say nothing. More --rounds help."
    for summary in report.summaries:
        if summary.is_behind:
            yield (
                f"{say_scenario(summary.scenario)}: only {summary.rate.median:,.0f}/s came through;"
                " these times are those of an overload."
            )


def _histogram(summary: Summary, width: int, *, has_blocks: bool) -> Iterator[str]:
    latency = summary.latency
    yield f"Latency, {say_scenario(summary.scenario)}, up to:"
    bands = latency.bands(MAX_BANDS)
    most = max((band.amount for band in bands), default=1)
    room = width - _LABEL - 9
    for band in bands:
        bar = draw_bar(band.amount / most, room, has_blocks=has_blocks)
        upper_s = min(band.upper_s, latency.largest_s)
        yield f"{say_latency(upper_s):>{_LABEL - 2}}  {band.amount / latency.count:6.1%}  {bar}".rstrip()


def _rates(summary: Summary, width: int, *, has_blocks: bool) -> Iterator[str]:
    values = [series for series in summary.rates_over_time if series]
    if not values:
        return  # over before there was any course of time to show
    yield f"Messages per second over time, {say_scenario(summary.scenario)}, rounds side by side:"
    top = max((value for series in values for value in series), default=0.0)
    lines = draw_columns(values, width - _LABEL, PLOT_HEIGHT, has_blocks=has_blocks)
    foot = "┤" if has_blocks else "|"
    for at, line in enumerate(lines):
        label = f"{top:,.0f}" if at == 0 else "0" if at == len(lines) - 1 else ""
        yield f"{label:>{_LABEL - 2}} {foot}{line}".rstrip()


def to_json(report: BenchReport) -> dict[str, object]:
    """Everything for machines, times in seconds."""
    options, settings, accounts = report.options, report.settings, report.accounts
    return {
        "broker": {"server": report.server, "embedded": report.is_embedded},
        "node": settings.node,
        "subject": report.subject,
        "state_dir": report.state_dir,
        "other_disk": report.is_other_disk,
        "settings": {
            "size_bytes": settings.size_bytes,
            "payload_bytes": report.payload_bytes,
            "window": settings.window,
            "concurrency": settings.concurrency,
            "serialization": settings.serialization,
            "compression": settings.compression,
            "ack_on": str(settings.ack_on),
        },
        "rounds": options.rounds,
        "duration_seconds": None if options.count is not None else options.duration_s,
        "count": options.count,
        "scenarios": {
            str(item.scenario.name): _summary_json(report, item) for item in report.summaries
        },
        "messages": {
            "handed_over": accounts.handed_over,
            "acknowledged": accounts.acknowledged,
            "handled": accounts.handled,
            "missed": accounts.missed,
            "dead": accounts.dead,
            "repeats": accounts.repeats,
            "refused": accounts.refused,
            "lost": accounts.lost,
            "doubled": accounts.doubled,
        },
    }


def _summary_json(report: BenchReport, summary: Summary) -> dict[str, object]:
    latency, scenario = summary.latency, summary.scenario
    ratio = None if scenario.is_bare else report.ratio(scenario.name)
    found: dict[str, object] = {
        "window": scenario.window,
        "asked_per_second": scenario.rate,
        "messages": summary.messages,
        "messages_per_second": {
            "median": summary.rate.median,
            "lowest": min(summary.rate.values),
            "highest": max(summary.rate.values),
            "noise": summary.rate.noise,
            "rounds": list(summary.rate.values),
        },
        "ratio_to_broker": None if ratio is None else ratio.median,
        "latency_seconds": {
            "since": "sent" if scenario.rate is None else "due",
            **{name: _number(latency.quantile(share)) for name, share in QUANTILES},
            "min": _number(latency.quantile(0.0)),
            "mean": _number(latency.mean_s),
            "count": latency.count,
            "histogram": [
                {"from": band.lower_s, "to": band.upper_s, "count": band.amount}
                for band in latency.bands(MAX_BANDS * 4)
            ],
        },
        "processor_seconds_per_message": {
            "sender": summary.sender_us[0] / 1e6,
            "sender_event_loop": summary.sender_us[1] / 1e6,
            "receiver": summary.receiver_us[0] / 1e6,
            "receiver_event_loop": summary.receiver_us[1] / 1e6,
        },
        "rate_over_time": {
            "bin_seconds": BIN_S,
            "rounds": [list(values) for values in summary.rates_over_time],
        },
    }
    if summary.lateness is not None:
        found["behind"] = summary.is_behind
        found["generator_lateness_seconds"] = {
            name: _number(summary.lateness.quantile(share)) for name, share in QUANTILES
        }
    return found


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
