"""`appliance bench`: rates and latencies against the broker of a config."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.bench_view import render_report, say_scenario, to_json
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    default_state_dir,
    is_utf8,
    print_json,
    read_duration,
    split_names,
    split_paths,
    warn,
)
from appliance.cli.plots import draw_bar
from appliance.cli.terminal import PIPE_COLUMNS, make_console
from appliance.core.bench import BenchOptions, BenchReport, Progress
from appliance.errors import BenchDenied, BenchInterrupted, BenchUnsuited, BusError

MAX_COUNT = 1_000_000
MAX_DURATION_S = 300.0
MIN_DURATION_S = 0.2
MAX_ROUNDS = 100
MAX_RATE = 100_000.0
MAX_SIZE_BYTES = 4_194_304
MAX_WINDOW = 65_536
MAX_CONCURRENCY = 4_096
BAR_COLUMNS = 24


class Serialization(StrEnum):
    """As `serialization:`."""

    CBOR = "cbor"
    GOB = "gob"


class Compression(StrEnum):
    """As `compression:`."""

    ZSTD = "zstd"
    NONE = "none"


class AckOnWord(StrEnum):
    """As `ack.on:`."""

    RECEIVED = "received"
    DONE = "done"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench")(bench)


def bench(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Config files and directories [APPLIANCE_CONFIG]."),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node",
            metavar="N",
            help="The node to measure as; its subjects are N.bench.>. "
            "Default: the one named as this host, else the first [APPLIANCE_NODE].",
        ),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option("--duration", metavar="TIME", help="Of a scenario in a round. [default: 2s]"),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, max=MAX_COUNT, help="Messages instead of a time."),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=MAX_ROUNDS, help="Every scenario so often.")
    ] = 3,
    size: Annotated[
        int, typer.Option("--size", min=1, max=MAX_SIZE_BYTES, help="Bytes of data in a message.")
    ] = 256,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            min=0.1,
            max=MAX_RATE,
            help="Only latency, at so many messages a second. Default: full speed, then half of it.",
            show_default=False,
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option("--window", min=1, max=MAX_WINDOW, help="As the config's `window`."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", min=1, max=MAX_CONCURRENCY, help="As the config's `concurrency`."
        ),
    ] = None,
    serialization: Annotated[
        Serialization | None,
        typer.Option("--serialization", help="As the config's `serialization`."),
    ] = None,
    compression: Annotated[
        Compression | None, typer.Option("--compression", help="As the config's `compression`.")
    ] = None,
    ack_on: Annotated[
        AckOnWord | None, typer.Option("--ack-on", help="As the config's `ack.on`.")
    ] = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TEXT,
) -> int:
    """Measure messages per second and latency through the broker of the config.

    Messages go the whole durable way between two processes, and beside it the bare way as a
    yardstick. Nothing of a running daemon is touched: the state is in a directory of its own on
    the disk of the state directory, the subjects are N.bench.> and nobody else's. Ctrl-C ends it
    and cleans up.
    """
    given = [str(path) for path in paths or ()] or split_paths(
        os.environ.get("APPLIANCE_CONFIG", "")
    )
    if not given:
        raise typer.BadParameter("name a config file or directory", param_hint="PATH")
    if duration is not None and count is not None:
        raise typer.BadParameter("--duration and --count exclude each other")
    duration_s = read_duration("--duration", duration)
    if duration_s is not None and not MIN_DURATION_S <= duration_s <= MAX_DURATION_S:
        raise typer.BadParameter(
            f"between {MIN_DURATION_S:g} s and {MAX_DURATION_S:g} s", param_hint="--duration"
        )
    names = split_names([node or os.environ.get("APPLIANCE_NODE", "")])
    if len(names) > 1:
        raise typer.BadParameter("one node only", param_hint="--node")
    options = BenchOptions(
        paths=tuple(given),
        node=names[0] if names else None,
        state_dir=str(state_dir) if state_dir is not None else None,
        default_state_dir=str(default_state_dir()),
        duration_s=2.0 if duration_s is None else duration_s,
        count=count,
        rounds=rounds,
        size_bytes=size,
        window=window,
        concurrency=concurrency,
        serialization=serialization.value if serialization is not None else None,
        compression=compression.value if compression is not None else None,
        ack_on=ack_on.value if ack_on is not None else None,
        rate=rate,
    )
    return _run(options, output)


def _run(options: BenchOptions, output: Output) -> int:
    from appliance.daemon.bench.run import run_bench

    progress = ProgressLine()
    try:
        report = run_bench(options, _announce, progress.tell)
    except BenchUnsuited as error:
        raise typer.BadParameter(str(error)) from None
    except BenchInterrupted as error:
        return progress.give_up(error, 128 + error.number)
    except BenchDenied as error:
        return progress.give_up(error, Exit.NO_PERMISSION)
    except BusError as error:
        return progress.give_up(error, Exit.UNAVAILABLE)
    finally:
        progress.end()
    if output is Output.JSON:
        print_json(to_json(report))
    else:
        console = make_console()
        console.print(
            render_report(report, console.width, has_blocks=is_utf8()),
            soft_wrap=console.width == PIPE_COLUMNS,
        )
    return Exit.OK if report.accounts.is_sound else Exit.FAILED


def _announce(report: BenchReport) -> None:
    warn(f"measuring on {report.server} below {report.settings.node}.bench.>")


class ProgressLine:
    """Where it stands, on stderr: one line that is written over on a terminal, else a line for each scenario."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._is_open = False

    def tell(self, progress: Progress) -> None:
        """Something has gone on."""
        words = (
            f"round {progress.number}/{progress.rounds}: {say_scenario(progress.scenario)}:"
            f" {progress.rate:,.0f}/s"
        )
        if not self._is_terminal:
            if progress.is_done:
                warn(words)
            return
        bar = draw_bar(progress.share, BAR_COLUMNS, has_blocks=is_utf8()).ljust(BAR_COLUMNS)
        sys.stderr.write(f"\r\x1b[K{bar} {words}")
        sys.stderr.flush()
        self._is_open = True

    def give_up(self, error: Exception, code: int) -> int:
        """Say why it ended early."""
        self.end()
        warn(str(error))
        return code

    def end(self) -> None:
        """Take the line away."""
        if self._is_open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_open = False
