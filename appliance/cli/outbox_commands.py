"""`outbox`: messages that wait, and those that nobody took."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from appliance.cli.api_client import ApiClient
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    find_state_dir,
    print_json,
    warn,
)
from appliance.cli.terminal import print_table
from appliance.cli.times import say_moment

Json = dict[str, Any]

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
    """List pending messages or dead letters, the oldest first."""
    query = {"state": "dead" if dead else "pending", "limit": str(limit)}
    found = ApiClient(find_state_dir(state_dir)).get("/api/v1/outbox", query)
    if output is Output.JSON:
        print_json(found)
        return Exit.OK
    records = found["records"]
    if not records:
        typer.echo("no dead letters" if dead else "nothing is pending")
        return Exit.OK
    rows = [_outbox_row(record, dead=dead) for record in records]
    print_table(("ID", "FROM", "TO", "METHOD", "ACCEPTED", "TRIES", "BYTES", "WHY"), rows)
    return Exit.OK


def _outbox_row(record: Json, *, dead: bool) -> list[str]:
    why = record.get("reason") if dead else record.get("last_error")
    names = ("id", "from", "to", "method")
    accepted = say_moment(record.get("accepted_at"))
    numbers = [str(record.get("attempts", "")), str(record.get("bytes", ""))]
    return [*(str(record.get(name, "")) for name in names), accepted, *numbers, str(why or "")]


def outbox_retry(
    ids: IdsArgument = None,
    every: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Send dead letters once more."""
    body = _choose(ids, every, "--all")
    found = ApiClient(find_state_dir(state_dir)).post("/api/v1/outbox/retry", body)
    return _tell_count(found, "put back into the outbox", output, wanted=ids)


def outbox_drop(
    ids: IdsArgument = None,
    every: Annotated[bool, typer.Option("--all-dead", help="Every dead letter.")] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Forget messages for good: dead ones, or pending ones by their id."""
    body = _choose(ids, every, "--all-dead")
    if ids:
        body["pending"] = True
    found = ApiClient(find_state_dir(state_dir)).post("/api/v1/outbox/drop", body)
    return _tell_count(found, "dropped", output, wanted=ids)


def _choose(ids: list[str] | None, every: bool, flag: str) -> Json:
    if bool(ids) == every:
        raise typer.BadParameter(f"name ids or say {flag}", param_hint="ID")
    if not ids:
        return {}
    wrong = [text for text in ids if not text.lstrip("#").isdecimal()]
    if wrong:
        raise typer.BadParameter(f"{wrong[0][:40]!r} is no id", param_hint="ID")
    return {"ids": [int(text.lstrip("#")) for text in ids]}


def _tell_count(found: Json, words: str, output: Output, *, wanted: list[str] | None) -> int:
    count = int(found["count"])
    if output is Output.JSON:
        print_json(found)
    elif wanted and not count:
        warn("no such message")
    else:
        typer.echo(f"{count} message{'s' if count != 1 else ''} {words}")
    return Exit.FAILED if wanted and count < len(set(wanted)) else Exit.OK
