"""Commands that ask or tell the running daemon: status, plan, reload."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.api.model import DrainCounts, Plan, ReloadResult, Status
from appliance.cli.api_client import Answer, ApiClient, ApiRefused
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    print_json_line,
    split_names,
    warn,
)
from appliance.cli.server_options import connect
from appliance.cli.verdict_view import (
    count_actions,
    print_problems,
    show_actions,
    show_settings,
)
from appliance.core.escape import escape_line
from appliance.core.problems import Problem
from appliance.core.times import say_ago
from appliance.errors import ConfigUnreadable, DaemonUnreachable

if TYPE_CHECKING:
    from rich.console import RenderableType

RELOAD_TIMEOUT_S = 600.0
"""A reload drains what it cancels; each drain has its own deadline in the config."""
WATCH_INTERVAL_S = 1.0
MAX_NAMES = 20
"""Nodes named when one is not there."""

NodeFilter = Annotated[
    list[str] | None, typer.Option("--node", metavar="N", help="Only this node; may be repeated.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    app.command("plan")(plan)
    app.command("reload")(reload)


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it.")] = False,
    node: NodeFilter = None,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Show nodes, workers, config, broker and outbox. Exits 0 healthy, 1 degraded, 69 no daemon."""
    from appliance.cli.status_view import is_healthy, print_status
    from appliance.cli.terminal import make_console

    client = connect(state_dir)
    nodes = frozenset(split_names(node)) if node else None
    found = client.get("/api/v1/status", Status)
    if nodes and _lacks_node(sorted(nodes), found.value):
        return Exit.USAGE
    if watch:
        return _watch_status(client, nodes, output)
    if output is Output.JSON:
        print_json(found.plain)
    else:
        print_status(make_console(), found.value, time.time(), nodes=nodes)
    return Exit.OK if is_healthy(found.value) else Exit.FAILED


def _lacks_node(wanted: Sequence[str], status: Status, *others: str) -> bool:
    """Whether a node asked for is not here; then that has been said."""
    here = list(status.nodes)
    missing = [name for name in wanted if name not in here and name not in others]
    if missing:
        more = f" and {len(here) - MAX_NAMES} more" if len(here) > MAX_NAMES else ""
        runs = f"{', '.join(here[:MAX_NAMES])}{more}" if here else "none"
        warn(f"no node {missing[0][:80]!r} here; it runs {runs}")
    return bool(missing)


def has_many_nodes(client: ApiClient) -> bool:
    """Whether the name of a worker alone does not tell whose it is."""
    return len(client.get("/api/v1/status", Status).value.nodes) > 1


def _watch_status(client: ApiClient, nodes: frozenset[str] | None, output: Output) -> int:
    """Until interrupted. A daemon that restarts is waited for; one that was never there is not."""
    found = client.get("/api/v1/status", Status)
    if output is Output.JSON or not sys.stdout.isatty():
        while True:
            print_json_line(found.plain)
            time.sleep(WATCH_INTERVAL_S)
            found = client.get("/api/v1/status", Status)
    from rich.live import Live
    from rich.text import Text

    from appliance.cli.status_view import fit_status
    from appliance.cli.terminal import make_console

    console = make_console()
    view: RenderableType = fit_status(console, found.value, time.time(), nodes=nodes)
    live = Live(view, console=console, screen=True, auto_refresh=False)
    try:
        live.start()
        while True:
            live.update(view, refresh=True)
            time.sleep(WATCH_INTERVAL_S)
            try:
                found = client.get("/api/v1/status", Status)
                view = fit_status(console, found.value, time.time(), nodes=nodes)
            except DaemonUnreachable as error:
                view = Text(f"● {error}; waiting for it", style="bold red")
    except KeyboardInterrupt:
        return Exit.OK
    finally:
        # NB: not `with live`: interrupted while it starts, that would leave the terminal as it is then
        live.stop()


def plan(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="The config to plan. Default: the daemon's own paths."),
    ] = None,
    node: NodeFilter = None,
    all_nodes: Annotated[
        bool, typer.Option("--all-nodes", help="With --against: plan every declared node.")
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="PATH", help="Compare with this config, not the daemon."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="What `reload --force` would do: in spite of a pin too."),
    ] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Show what a reload would do. Exits 0 no change, 2 changes, 78 refused, 69 no daemon."""
    nodes = split_names(node or ())
    is_many = False
    if against:
        if not paths:
            raise typer.BadParameter("--against needs a config to compare", param_hint="PATH")
        from appliance.reconcile.offline import plan_between

        planned = plan_between(paths, against, nodes=nodes, all_nodes=all_nodes or not nodes)
        found = Answer.of(Plan, planned)
    else:
        client = connect(state_dir)
        found = _ask_plan(client, paths or (), force=force)
        if nodes:
            # a node that the plan would start is not here yet
            started = [action.node for action in found.value.actions]
            if _lacks_node(nodes, client.get("/api/v1/status", Status).value, *started):
                return Exit.USAGE
            found = _keep_nodes(found, nodes)
        is_many = output is Output.TEXT and bool(found.value.actions) and has_many_nodes(client)
    if output is Output.JSON:
        print_json(found.plain)
    else:
        in_force = "" if against or nodes else _say_in_force(client, found.value)
        _show_plan(found.value, is_many=is_many, in_force=in_force)
    return {"no change": Exit.OK, "changes": Exit.CHANGES}.get(found.value.result, Exit.CONFIG)


def _ask_plan(client: ApiClient, paths: Sequence[str], *, force: bool) -> Answer[Plan]:
    """The daemon's plan. Other paths than its own are read here, with the rights of whoever asks."""
    query = [("force", "true")] if force else []
    if not paths:
        return client.get("/api/v1/plan", Plan, query)
    from appliance.config.files import read_files

    absolute = [os.path.abspath(path) for path in paths]
    try:
        files = read_files(absolute)
        problems = list(files.problems)
    except ConfigUnreadable as error:
        problems = [Problem(code="E001", message=error.reason, file=error.path)]
    if problems:
        # in a container or under another root the daemon may see what we do not
        with contextlib.suppress(ApiRefused):
            if not client.is_remote:
                asked = [("path", path) for path in absolute] + query
                return client.get("/api/v1/plan", Plan, asked)
        return Answer.of(Plan, Plan(result="refused", problems=problems))
    contents = {name: b64encode(raw).decode() for name, raw in files.contents.items()}
    body = {"digest": files.digest, "force": force}
    if not client.is_remote:
        return client.post("/api/v1/plan", Plan, {**body, "files": contents})
    from appliance.cli.plan_places import Places

    there = client.get("/api/v1/status", Status).value.config.paths
    places = Places(contents, absolute, there)
    moved = {places.there(name): content for name, content in contents.items()}
    found = client.post("/api/v1/plan", Plan, {**body, "files": moved})
    return Answer.of(Plan, places.told_here(found.plain))


def _keep_nodes(found: Answer[Plan], nodes: list[str]) -> Answer[Plan]:
    """Of a plan what concerns some nodes."""
    plan = found.plain
    plan["actions"] = [action for action in plan["actions"] if action["node"] in nodes]
    if plan["result"] == "changes" and not plan["actions"]:
        plan["result"] = "no change"
    return Answer.of(Plan, plan)


def _say_in_force(client: ApiClient, found: Plan) -> str:
    """That there is no change because the files are in force already: whoever has just edited them wonders."""
    if found.result != "no change" or found.problems:
        return ""
    status = client.get("/api/v1/status", Status).value
    config = status.config
    if not found.digest or found.digest != config.digest or config.applied_at is None:
        return ""
    since = say_ago(config.applied_at, time.time())
    return f": these files are in force as generation {status.generation}, applied {since}"


def _show_plan(found: Plan, *, is_many: bool, in_force: str) -> None:
    from appliance.cli.status_view import say_override

    if problems := [*found.problems, *(found.warnings or ())]:
        print_problems(problems, sys.stderr)
    actions, settings = found.actions, found.settings or {}
    for line in [*show_actions(actions, has_many_nodes=is_many), *show_settings(settings)]:
        typer.echo(line)
    for override in found.overrides or ():
        typer.echo(f"! drift: {say_override(override)}")
    kept = found.summary.get("keep")
    rest = f", {kept} kept" if kept else ""
    match found.result:
        case "no change":
            typer.echo(f"no change{rest}{in_force}")
        case "changes":
            counted = [count_actions(actions), f"{len(settings)} settings" if settings else ""]
            typer.echo(f"\n{', '.join(part for part in counted if part)}{rest}")
        case _:
            typer.echo("refused: a reload would change nothing")


def reload(
    force: Annotated[
        bool, typer.Option("--force", help="Although it cancels more than reload.max_cancel.")
    ] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Look at the config now, and tell the verdict. Exits 0 applied or unchanged, 78 refused."""
    client = connect(state_dir)
    body = {"force": force}
    found = client.post(
        "/api/v1/reload", ReloadResult, body, accept=[422], timeout_s=RELOAD_TIMEOUT_S
    )
    verdict = found.value
    if output is Output.JSON:
        print_json(found.plain)
    else:
        show_verdict(verdict, has_many_nodes=bool(verdict.actions) and has_many_nodes(client))
    return Exit.CONFIG if verdict.result == "refused" else Exit.OK


def show_verdict(
    verdict: ReloadResult, *, has_many_nodes: bool = False, is_past: bool = False
) -> None:
    """A verdict with its problems and actions; one of the past is a fact, with its problems on stdout."""
    if verdict.problems:
        stream, code = (sys.stdout, None) if is_past else (sys.stderr, 78)
        print_problems(verdict.problems, stream, code)
    head = f"{verdict.result}: generation {verdict.generation}"
    match verdict.result:
        case "applied" | "reverted":
            for line in show_actions(verdict.actions, has_many_nodes=has_many_nodes):
                typer.echo(line)
            words = count_actions(verdict.actions, done=True) or "no worker touched"
            took = f"in {verdict.duration_seconds:.3f} s{_say_drain(verdict.drain)}"
            typer.echo(f"{head}, {words}, {took}")
            for name, error in verdict.failed.items():
                if is_past:
                    typer.echo(escape_line(f"{name} did not run yet: {error}"))
                else:
                    warn(f"{name} does not run yet and is tried again: {error}")
        case _:
            typer.echo(f"{head} {'stayed' if is_past else 'stays'} in force")


def _say_drain(drain: DrainCounts) -> str:
    counts = (
        (drain.finished, "finished"),
        (drain.handed_back, "handed back"),
        (drain.abandoned, "abandoned"),
    )
    words = ", ".join(f"{count} {name}" for count, name in counts if count)
    return f"; drained: {words}" if words else ""
