"""`inbox`: messages that were taken in and are not finished, and those of them that no worker takes."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.api.model import Count, InboxRecord, InboxRecords
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    warn,
)
from appliance.cli.outbox_commands import IdsArgument, LimitOption, choose_ids
from appliance.cli.record_table import WIDE_COLUMNS, fit_names, say_age
from appliance.cli.server_options import connect
from appliance.cli.terminal import make_console, print_table
from appliance.core.times import say_moment


def register(app: typer.Typer) -> None:
    """Add the group."""
    inbox = typer.Typer(
        help="Messages that were taken in and are not finished.", no_args_is_help=True
    )
    inbox.command("list")(inbox_list)
    inbox.command("drop")(inbox_drop)
    app.add_typer(inbox, name="inbox")


def inbox_list(
    limit: LimitOption = 100,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """List messages that were taken in and are not finished, the oldest first: waiting, working or orphaned.

    Orphaned is what no worker takes, because its subscription is gone from the config. If that is not back within a
    day, they are given up.
    """
    found = connect(state_dir).get("/api/v1/inbox", InboxRecords, {"limit": str(limit)})
    if output is Output.JSON:
        print_json(found.plain)
        return Exit.OK
    records = found.value.records
    if not records:
        typer.echo("nothing is unfinished")
        return Exit.OK
    width = make_console().width
    if width >= WIDE_COLUMNS:
        wide = [_wide_row(record) for record in records]
        print_table(("ID", "FROM", "NODE", "METHOD", "TAKEN", "BYTES", "STATE"), wide)
    else:
        rows = [_narrow_row(record) for record in records]
        print_table(("ID", "FROM", "METHOD", "AGE", "STATE"), fit_names(rows, width, names=(1, 2)))
    return Exit.OK


def inbox_drop(
    ids: IdsArgument = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every message that no worker takes.")
    ] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Forget messages that no worker takes, for good. What a worker has in hand stays: it ends that by itself."""
    chosen = choose_ids(ids, every, "--all")
    body = chosen if ids else {"all": True}
    found = connect(state_dir).post("/api/v1/inbox/drop", Count, body)
    count, held = found.value.count, found.value.held or 0
    if output is Output.JSON:
        print_json(found.plain)
    elif ids and not count and not held:
        warn("no such message")
    else:
        typer.echo(f"{count} message{'s' if count != 1 else ''} dropped{_say_held(held)}")
    return Exit.FAILED if ids and count < len(set(ids)) else Exit.OK


def _say_held(held: int) -> str:
    return f"; {held} in the hands of a worker stay{'s' if held == 1 else ''}" if held else ""


def _state_of(record: InboxRecord) -> str:
    return f"{record.state}: {record.why}" if record.why else record.state


def _wide_row(record: InboxRecord) -> list[str]:
    names = [record.id_text, record.from_node, record.node, record.method]
    size = "" if record.bytes is None else str(record.bytes)
    return [*names, say_moment(record.taken_at), size, _state_of(record)]


def _narrow_row(record: InboxRecord) -> list[str]:
    age = say_age(record.age_seconds, record.taken_at)
    return [record.id_text, record.from_node, record.method, age, _state_of(record)]
