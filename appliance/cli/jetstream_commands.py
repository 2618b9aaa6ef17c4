"""`jetstream`: what streams of the broker keep for the nodes of the daemon, and what of them is left over."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import UNSET

from appliance.api.model import StreamKept, StreamPruned, StreamsKept, StreamsPruned
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
)
from appliance.cli.record_table import say_age
from appliance.cli.server_options import connect
from appliance.cli.terminal import print_table
from appliance.core.escape import escape_line
from appliance.core.streams import StreamAddress


def register(app: typer.Typer) -> None:
    """Add the group."""
    streams = typer.Typer(
        help="What streams of the broker keep for the daemon's nodes (`delivery: jetstream`).",
        no_args_is_help=True,
    )
    streams.command("list")(streams_list)
    streams.command("prune")(streams_prune)
    app.add_typer(streams, name="jetstream")


def streams_list(
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """List what streams keep for the daemon's nodes: what waits, is in hand, was delivered again, and the oldest."""
    found = connect(state_dir).get("/api/v1/streams", StreamsKept)
    if output is Output.JSON:
        print_json(found.plain)
        return Exit.OK
    streams = found.value.streams
    if not streams:
        typer.echo("no stream keeps anything for these nodes")
        return Exit.OK
    columns = ("STREAM", "SUBJECT", "WAITING", "IN HAND", "AGAIN", "OLDEST", "")
    print_table(columns, [_row(one) for one in streams])
    return Exit.OK


def streams_prune(
    force: Annotated[
        bool, typer.Option("--force", help="Also what still holds messages, and these with it.")
    ] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Take away consumers, subjects and streams that no config of these nodes asks for any more.

    What still holds messages stays, unless --force is given.
    """
    found = connect(state_dir).post("/api/v1/streams/prune", StreamsPruned, {"force": force})
    streams = found.value.streams
    if output is Output.JSON:
        print_json(found.plain)
    elif not streams:
        typer.echo("nothing is left over")
    else:
        for one in streams:
            typer.echo(_say_pruned(one))
    return Exit.OK if all(one.is_pruned for one in streams) else Exit.FAILED


def _row(one: StreamKept) -> list[str]:
    note = "" if one.is_wanted else "left over"
    if not one.exists:
        note = "not there"
    oldest = say_age(UNSET, one.oldest_at) if one.oldest_at else ""
    counts = [str(one.waiting), str(one.in_hand), str(one.redelivered)]
    return [_say_stream(one), escape_line(one.subject), *counts, oldest, note]


def _say_stream(one: StreamKept | StreamPruned) -> str:
    return escape_line(str(StreamAddress(one.stream, one.domain)))


def _say_pruned(one: StreamPruned) -> str:
    name = f"{escape_line(one.subject)} in {_say_stream(one)}"
    count = f"{one.messages} message{'s' if one.messages != 1 else ''}"
    if one.is_pruned:
        return f"{name}: taken away" + (f" with {count}" if one.messages else "")
    return f"{name}: stays, it holds {count} (--force takes them away)"
