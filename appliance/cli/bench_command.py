"""`appliance bench`: rate and latency through the broker of a config."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.bench.report import BenchOptions
from appliance.cli.bench_view import render_report, to_json
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
