"""`history` and `rollback`: the config sets that were applied or refused, and the way back to one of them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from appliance.api.model import History, HistoryRecord, ReloadResult
from appliance.cli.api_client import ApiRefused, NotPermitted
from appliance.cli.daemon_commands import RELOAD_TIMEOUT_S, has_many_nodes, show_verdict
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    warn,
)
from appliance.cli.outbox_commands import LimitOption
from appliance.cli.server_options import connect
from appliance.cli.terminal import print_table
from appliance.cli.verdict_view import count_actions, say_commit, split_problems
from appliance.core.escape import escape_line
from appliance.core.times import say_moment

NAMES_OF_A_RECORD = "A number of the history, a digest or git revision or the start of one, or g12 for a generation."


COLUMNS = ("NUMBER", "AT", "RESULT", "GEN", "DIGEST", "GIT", "TRIGGER", "WHAT")


def register(app: typer.Typer) -> None:
    """Add both."""
    history = typer.Typer(help="Config sets that were applied or refused, the newest first.")
    history.callback(invoke_without_command=True)(history_list)
    history.command("show")(history_show)
    app.add_typer(history, name="history")
    app.command("rollback")(rollback)


def history_list(
    context: typer.Context,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Config sets that were applied or refused, the newest first.

    The last 50 are kept, and beyond them the last two that were in force.
    """
    if context.invoked_subcommand is not None:
        context.obj = state_dir
        return Exit.OK
    client = connect(state_dir)
    found = client.get("/api/v1/history", History, {"limit": str(limit)})
    if output is Output.JSON:
        print_json(found.plain)
        return Exit.OK
    rows = [_history_row(record) for record in found.value.records]
    shown = [name for name in COLUMNS if name != "GIT" or any(row[name] for row in rows)]
    print_table(shown, [[row[name] for name in shown] for row in rows])
    return Exit.OK


def _history_row(record: HistoryRecord) -> dict[str, str]:
    what = count_actions(record.actions, done=True) or "no worker changed"
    if record.result in ("refused", "reverted"):
        errors, warnings = split_problems(record.problems)
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        what = "".join(f"{item.code} {item.message}{more}" for item in [*errors, *warnings][:1])
    commit = _short_commit(record)
    cells = (
        str(record.number),
        say_moment(record.at),
        record.result,
        f"g{record.generation}",
        _short_digest(record),
        f"{commit}-dirty" if commit and record.dirty else commit,
        _say_trigger(record),
        what,
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _short_digest(found: ReloadResult) -> str:
    return (found.digest or "").removeprefix("sha256:")[:12]


def _short_commit(found: ReloadResult) -> str:
    return (found.revision or "")[:10]


def _say_trigger(record: HistoryRecord) -> str:
    return f"{record.trigger} by {record.by}" if record.by else record.trigger


def history_show(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="REV", help=NAMES_OF_A_RECORD)],
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Show one record whole: what it changed in the files and in the workers."""
    client = connect(state_dir or context.obj)
    try:
        found = client.get(f"/api/v1/history/{quote(key, safe='')}", HistoryRecord)
    except ApiRefused as error:
        if error.status != 404:
            raise
        warn(f"no record of {key!r} in the history")
        return Exit.FAILED
    if output is Output.JSON:
        print_json(found.plain)
        return Exit.OK
    record = found.value
    lines = [
        f"record {record.number}   {say_moment(record.at)}   {_say_trigger(record)}",
        record.digest or "",
    ]
    if record.revision:
        author = f" by {record.author}" if record.author else ""
        lines.append(say_commit(record, length=40) + author)
    for line in lines:
        typer.echo(escape_line(line))
    typer.echo()
    show_verdict(record, has_many_nodes=has_many_nodes(client), is_past=True)
    diff = record.diff.splitlines()
    for line in ["", *diff] if diff else []:
        typer.echo(escape_line(line))
    return Exit.OK


def _say_set(verdict: ReloadResult) -> str:
    """Which set it is, by the names that `--to` takes."""
    digest, commit = _short_digest(verdict), _short_commit(verdict)
    return f"set {digest}, commit {commit}" if commit else f"set {digest}"


def rollback(
    to: Annotated[str | None, typer.Option("--to", metavar="REV", help=NAMES_OF_A_RECORD)] = None,
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
    client = connect(state_dir)
    try:
        found = client.post(
            "/api/v1/rollback",
            ReloadResult,
            {"to": to, "force": force},
            accept=[422],
            timeout_s=RELOAD_TIMEOUT_S,
        )
    except NotPermitted:
        raise
    except ApiRefused as error:
        warn(str(error))
        return Exit.FAILED
    verdict = found.value
    if not verdict.result:
        warn(verdict.error or "not possible")
        return Exit.FAILED
    if output is Output.JSON:
        print_json(found.plain)
    else:
        show_verdict(verdict, has_many_nodes=has_many_nodes(client))
        if verdict.result != "refused":
            typer.echo(f"back to {_say_set(verdict)}")
        if verdict.pinned:
            typer.echo("pinned until the files change, or `appliance reload --force`")
    return Exit.CONFIG if verdict.result == "refused" else Exit.OK
