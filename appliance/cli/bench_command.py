"""`appliance bench`: rate and latency through the broker of a config."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from appliance.bench.report import BenchOptions, BenchReport, Summary
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    OwnStateDirOption,
    default_state_dir,
    is_utf8,
    print_json,
    read_duration,
    split_paths,
    warn,
)
from appliance.core.specs import Compression, Serialization
from appliance.core.times import say_short
from appliance.errors import BenchDenied, BenchInterrupted, BenchUnsuited, BusError

NODE = (
    "The node to measure as; its subjects are N.bench.>. "
    "Default: the one named as this host, else the first [APPLIANCE_NODE]."
)
RATE = "Only latency, at so many messages a second. Default: rates, and latency at 1,000."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench")(bench)


def bench(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH", readable=False, help="Config files and directories [APPLIANCE_CONFIG]."
        ),
    ] = None,
    node: Annotated[str | None, typer.Option(metavar="N", help=NODE)] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="Of each round [2s].")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Messages instead.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Everything so often.")] = 3,
    size: Annotated[int, typer.Option(min=1, max=4_194_304, help="Bytes of text.")] = 256,
    rate: Annotated[float | None, typer.Option(min=0.1, max=100_000.0, help=RATE)] = None,
    window: Annotated[int | None, typer.Option(min=1, max=65_536, help="As in the config.")] = None,
    serialization: Annotated[Serialization | None, typer.Option(help="As in the config.")] = None,
    compression: Annotated[Compression | None, typer.Option(help="As in the config.")] = None,
    state_dir: OwnStateDirOption = None,
    output: OutputOption = Output.TEXT,
) -> int:
    """Measure messages per second and latency through the broker of the config.

    Messages go the whole durable way between two processes. Nothing of a running daemon is
    touched: the state is in a directory of its own on the disk of the state directory, the
    subjects are N.bench.> and nobody else's. Ctrl-C ends it and cleans up.
    """
    given = [str(path) for path in paths or split_paths(os.environ.get("APPLIANCE_CONFIG", ""))]
    if not given:
        raise typer.BadParameter("name a config file or directory", param_hint="PATH")
    if duration is not None and count is not None:
        raise typer.BadParameter("--duration and --count exclude each other")
    duration_s = read_duration("--duration", duration)
    if duration_s is not None and not 0.2 <= duration_s <= 300:
        raise typer.BadParameter("between 0.2 s and 300 s", param_hint="--duration")
    sends = {"window": window, "serialization": serialization, "compression": compression}
    options = BenchOptions(
        paths=tuple(given),
        node=node or os.environ.get("APPLIANCE_NODE") or None,
        state_dir=str(state_dir) if state_dir is not None else None,
        default_state_dir=str(default_state_dir()),
        duration_s=2.0 if duration_s is None else duration_s,
        count=count,
        rounds=rounds,
        size_bytes=size,
        rate=rate,
        sends={name: value for name, value in sends.items() if value is not None},
    )
    from appliance.bench.run import run_bench  # it takes its time, which only this command needs

    start, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")

    def tell(words: str, is_worth_a_line: bool) -> None:
        if start or is_worth_a_line:
            print(start + words, end=end, file=sys.stderr, flush=True)  # noqa: T201

    try:
        report = run_bench(options, tell)
    except BenchUnsuited as error:
        raise typer.BadParameter(str(error)) from None
    except (BenchInterrupted, BenchDenied, BusError) as error:
        tell("", False)
        warn(str(error))
        if isinstance(error, BenchInterrupted):
            return 128 + error.number
        return Exit.NO_PERMISSION if isinstance(error, BenchDenied) else Exit.UNAVAILABLE
    tell("", False)
    if output is Output.JSON:
        print_json(to_json(report))
    else:
        typer.echo("\n".join(render_report(report, has_blocks=is_utf8())))
    return Exit.OK


# What a benchmark found out, as a person likes to read it and as JSON.

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
