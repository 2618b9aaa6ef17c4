"""`outbox`: messages that wait, and those that nobody took."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.api.model import Count, OutboxRecord, OutboxRecords
from appliance.cli.api_client import Answer
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    warn,
)
from appliance.cli.record_table import WIDE_COLUMNS, fit_names, say_age
from appliance.cli.server_options import connect
from appliance.cli.terminal import make_console, print_table
from appliance.core.delivery import describe_end
from appliance.core.times import say_moment

RETRIED = "to be tried again: what had failed runs again, what was done is not done twice"

LimitOption = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    outbox = typer.Typer(
        help="Messages that wait, and those that nobody took.", no_args_is_help=True
    )
    outbox.command("list")(outbox_list)
    outbox.command("retry")(outbox_retry)
    outbox.command("drop")(outbox_drop)
    app.add_typer(outbox, name="outbox")


def outbox_list(
    dead: Annotated[bool, typer.Option("--dead", help="Dead letters instead of pending.")] = False,
    limit: LimitOption = 100,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """List pending messages or dead letters, the oldest first: where each stands, and why.

    On a narrow terminal names are shortened in their middle; -o json has everything whole.
    """
    query = {"state": "dead" if dead else "pending", "limit": str(limit)}
    found = connect(state_dir).get("/api/v1/outbox", OutboxRecords, query)
    if output is Output.JSON:
        print_json(found.plain)
        return Exit.OK
    records = found.value.records
    if not records:
        typer.echo("no dead letters" if dead else "nothing is pending")
        return Exit.OK
    width = make_console().width
    if width >= WIDE_COLUMNS:
        rows = [_wide_row(record, dead=dead) for record in records]
        print_table(("ID", "FROM", "TO", "METHOD", "ACCEPTED", "TRIES", "BYTES", "WHY"), rows)
    else:
        rows = [_narrow_row(record, dead=dead) for record in records]
        print_table(("ID", "TO", "METHOD", "AGE", "WHY"), fit_names(rows, width, names=(1, 2)))
    return Exit.OK


def describe_record(record: OutboxRecord, *, dead: bool) -> str:
    """``waiting: nobody there``, ``failed: disk full``; of a daemon of an earlier version what it tells."""
    if dead:
        return describe_end(record.reason) if record.reason else record.state
    if not record.state:
        return record.last_error or ""
    return f"{record.state}: {record.why}" if record.why else record.state


def _wide_row(record: OutboxRecord, *, dead: bool) -> list[str]:
    names = [record.id_text, record.from_node, record.to, record.method]
    numbers = ["" if count is None else str(count) for count in (record.attempts, record.bytes)]
    why = describe_record(record, dead=dead)
    return [*names, say_moment(record.accepted_at), *numbers, why]


def _narrow_row(record: OutboxRecord, *, dead: bool) -> list[str]:
    age = say_age(record.age_seconds, record.accepted_at)
    return [record.id_text, record.to, record.method, age, describe_record(record, dead=dead)]


def outbox_retry(
    ids: IdsArgument = None,
    every: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Try dead letters again, as a new attempt: what had failed runs again, what was done is not done twice."""
    body = choose_ids(ids, every, "--all")
    found = connect(state_dir).post("/api/v1/outbox/retry", Count, body)
    return tell_count(found, RETRIED, output, wanted=ids)


def outbox_drop(
    ids: IdsArgument = None,
    every: Annotated[bool, typer.Option("--all-dead", help="Every dead letter.")] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Forget messages for good: dead ones, or pending ones by their id."""
    body = choose_ids(ids, every, "--all-dead")
    if ids:
        body["pending"] = True
    found = connect(state_dir).post("/api/v1/outbox/drop", Count, body)
    return tell_count(found, "dropped", output, wanted=ids)


def choose_ids(ids: list[str] | None, every: bool, flag: str) -> dict[str, object]:
    """The body of a request that concerns ids, or with `flag` everything."""
    if bool(ids) == every:
        raise typer.BadParameter(f"name ids or say {flag}", param_hint="ID")
    if not ids:
        return {}
    wrong = [text for text in ids if not text.lstrip("#").isdecimal()]
    if wrong:
        raise typer.BadParameter(f"{wrong[0][:40]!r} is no id", param_hint="ID")
    return {"ids": [int(text.lstrip("#")) for text in ids]}


def tell_count(
    found: Answer[Count], words: str, output: Output, *, wanted: list[str] | None
) -> int:
    """How many messages a request concerned; the exit code."""
    count = found.value.count
    if output is Output.JSON:
        print_json(found.plain)
    elif wanted and not count:
        warn("no such message")
    else:
        said = words if count else words.partition(":")[0]
        typer.echo(f"{count} message{'s' if count != 1 else ''} {said}")
    return Exit.FAILED if wanted and count < len(set(wanted)) else Exit.OK
