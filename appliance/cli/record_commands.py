"""Commands over what the daemon keeps: the outbox and the history of config sets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from appliance.cli.api_client import ApiClient, ApiRefused
from appliance.cli.daemon_commands import RELOAD_TIMEOUT_S, has_many_nodes, show_verdict
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    find_state_dir,
    print_json,
    warn,
)
from appliance.cli.times import say_moment
from appliance.cli.verdict_view import count_actions, split_problems
from appliance.core.escape import escape_line

Json = dict[str, Any]

LimitOption = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID")]


def register(app: typer.Typer) -> None:
    """Add both groups."""
    outbox = typer.Typer(
        help="Messages that wait, and those that nobody took.", no_args_is_help=True
    )
    outbox.command("list")(outbox_list)
    outbox.command("retry")(outbox_retry)
    outbox.command("drop")(outbox_drop)
    app.add_typer(outbox, name="outbox")
    history = typer.Typer(help="Config sets that were applied or refused, the newest first.")
    history.callback(invoke_without_command=True)(history_list)
    history.command("show")(history_show)
    app.add_typer(history, name="history")
    app.command("rollback")(rollback)


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
    _print_table(("ID", "FROM", "TO", "METHOD", "ACCEPTED", "TRIES", "BYTES", "WHY"), rows)
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


def history_list(
    context: typer.Context,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Config sets that were applied or refused, the newest first."""
    if context.invoked_subcommand is not None:
        context.obj = state_dir
        return Exit.OK
    client = ApiClient(find_state_dir(state_dir))
    found = client.get("/api/v1/history", {"limit": str(limit)})
    if output is Output.JSON:
        print_json(found)
        return Exit.OK
    rows = [_history_row(record) for record in found["records"]]
    _print_table(("NUMBER", "AT", "RESULT", "GENERATION", "DIGEST", "REVISION", "BY", "WHAT"), rows)
    return Exit.OK


def _history_row(record: Json) -> list[str]:
    problems = record.get("problems") or []
    what = count_actions(record.get("actions") or [], done=True)
    if record.get("result") == "refused":
        errors, warnings = split_problems(problems)
        first = next(iter([*errors, *warnings]), {})
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        what = f"{first.get('code', '')} {first.get('message', '')}{more}".strip()
    return [
        str(record.get("number", "")),
        say_moment(record.get("at")),
        str(record.get("result", "")),
        str(record.get("generation", "")),
        str(record.get("digest") or "").removeprefix("sha256:")[:12],
        str(record.get("revision") or "")[:10],
        str(record.get("trigger", "")),
        what,
    ]


def history_show(
    context: typer.Context,
    key: Annotated[
        str, typer.Argument(metavar="GEN", help="A generation, number, digest or revision.")
    ],
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Show one record whole."""
    from urllib.parse import quote

    client = ApiClient(find_state_dir(state_dir or context.obj))
    try:
        record = client.get(f"/api/v1/history/{quote(key, safe='')}")
    except ApiRefused as error:
        if error.status != 404:
            raise
        warn(f"no record of {key!r}")
        return Exit.FAILED
    if output is Output.JSON:
        print_json(record)
        return Exit.OK
    revision = f"   git {record['revision']}" if record.get("revision") else ""
    typer.echo(escape_line(f"{say_moment(record.get('at'))}   {record.get('digest')}{revision}"))
    if record.get("by"):
        typer.echo(escape_line(f"asked for by {record['by']}"))
    show_verdict(record, has_many_nodes=has_many_nodes(client))
    for line in str(record.get("diff") or "").splitlines():
        typer.echo(escape_line(line))
    return Exit.OK


def rollback(
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="REV", help="A generation, number, digest or revision of the history."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Although it cancels more than reload.max_cancel.")
    ] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Go back to a config that was in force, without --to to the one before this.

    It stays in force, over restarts too, until the files change again or `reload --force` takes
    them as they are. Exits 0 when it is in force, 78 when it was refused, 1 when there is none.
    """
    client = ApiClient(find_state_dir(state_dir))
    try:
        verdict = client.post(
            "/api/v1/rollback",
            {"to": to, "force": force},
            accept=[422],
            timeout_s=RELOAD_TIMEOUT_S,
        )
    except ApiRefused as error:
        warn(str(error))
        return Exit.FAILED
    if "result" not in verdict:
        warn(str(verdict.get("error") or "not possible"))
        return Exit.FAILED
    if output is Output.JSON:
        print_json(verdict)
    else:
        show_verdict(verdict, has_many_nodes=has_many_nodes(client))
    return Exit.CONFIG if verdict["result"] == "refused" else Exit.OK


def _print_table(header: tuple[str, ...], rows: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from appliance.cli.terminal import make_console

    table = Table(*header, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for row in rows:
        table.add_row(*(Text(escape_line(cell)) for cell in row))
    make_console().print(table)
