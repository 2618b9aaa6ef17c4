"""Commands that ask or tell the running daemon: status, plan, reload."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from appliance.cli.api_client import ApiClient
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    find_state_dir,
    print_json,
    print_json_line,
    split_names,
    warn,
)
from appliance.cli.verdict_view import (
    count_actions,
    print_problems,
    read_problem,
    show_actions,
    show_settings,
)
from appliance.core.escape import escape_line
from appliance.errors import DaemonUnreachable

if TYPE_CHECKING:
    from rich.console import RenderableType

Json = dict[str, Any]

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

    client = ApiClient(find_state_dir(state_dir))
    nodes = frozenset(split_names(node)) if node else None
    found = client.get("/api/v1/status")
    if nodes and _lacks_node(sorted(nodes), found):
        return Exit.USAGE
    if watch:
        return _watch_status(client, nodes, output)
    if output is Output.JSON:
        print_json(found)
    else:
        print_status(make_console(), found, time.time(), nodes=nodes)
    return Exit.OK if is_healthy(found) else Exit.FAILED


def _lacks_node(wanted: Sequence[str], status: Json, *others: str) -> bool:
    """Whether a node asked for is not here; then that has been said."""
    here = list(status.get("nodes") or ())
    missing = [name for name in wanted if name not in here and name not in others]
    if missing:
        more = f" and {len(here) - MAX_NAMES} more" if len(here) > MAX_NAMES else ""
        runs = f"{', '.join(here[:MAX_NAMES])}{more}" if here else "none"
        warn(f"no node {missing[0][:80]!r} here; it runs {runs}")
    return bool(missing)


def has_many_nodes(client: ApiClient) -> bool:
    """Whether the name of a worker alone does not tell whose it is."""
    return len(client.get("/api/v1/status").get("nodes") or ()) > 1


def _watch_status(client: ApiClient, nodes: frozenset[str] | None, output: Output) -> int:
    """Until interrupted. A daemon that restarts is waited for; one that was never there is not."""
    found = client.get("/api/v1/status")
    if output is Output.JSON or not sys.stdout.isatty():
        while True:
            print_json_line(found)
            time.sleep(WATCH_INTERVAL_S)
            found = client.get("/api/v1/status")
    from rich.live import Live
    from rich.text import Text

    from appliance.cli.status_view import fit_status
    from appliance.cli.terminal import make_console

    console = make_console()
    view: RenderableType = fit_status(console, found, time.time(), nodes=nodes)
    live = Live(view, console=console, screen=True, auto_refresh=False)
    try:
        live.start()
        while True:
            live.update(view, refresh=True)
            time.sleep(WATCH_INTERVAL_S)
            try:
                found = client.get("/api/v1/status")
                view = fit_status(console, found, time.time(), nodes=nodes)
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

        found: Json = dict(
            plan_between(paths, against, nodes=nodes, all_nodes=all_nodes or not nodes)
        )
    else:
        query = [("path", os.path.abspath(path)) for path in paths or ()]
        query += [("force", "true")] if force else []
        client = ApiClient(find_state_dir(state_dir))
        found = client.get("/api/v1/plan", query)
        if nodes:
            # a node that the plan would start is not here yet
            planned = [str(action.get("node")) for action in found["actions"]]
            if _lacks_node(nodes, client.get("/api/v1/status"), *planned):
                return Exit.USAGE
            _keep_nodes(found, nodes)
        is_many = output is Output.TEXT and bool(found["actions"]) and has_many_nodes(client)
    if output is Output.JSON:
        print_json(found)
    else:
        _show_plan(found, is_many=is_many)
    return {"no change": Exit.OK, "changes": Exit.CHANGES}.get(found["result"], Exit.CONFIG)


def _keep_nodes(found: Json, nodes: list[str]) -> None:
    """Leave of a plan what concerns some nodes."""
    found["actions"] = [action for action in found["actions"] if action.get("node") in nodes]
    if found["result"] == "changes" and not found["actions"]:
        found["result"] = "no change"


def _show_plan(found: Json, *, is_many: bool) -> None:
    from appliance.cli.status_view import say_override

    problems = [read_problem(item) for item in found.get("problems") or ()]
    warnings = [read_problem(item) for item in found.get("warnings") or ()]
    if problems or warnings:
        print_problems([*problems, *warnings], sys.stderr)
    actions = found.get("actions") or []
    settings = found.get("settings") or {}
    for line in [*show_actions(actions, has_many_nodes=is_many), *show_settings(settings)]:
        typer.echo(line)
    for override in found.get("overrides") or ():
        typer.echo(f"! drift: {say_override(override)}")
    kept = (found.get("summary") or {}).get("keep")
    rest = f", {kept} kept" if kept else ""
    match found["result"]:
        case "no change":
            typer.echo(f"no change{rest}")
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
    client = ApiClient(find_state_dir(state_dir))
    verdict = client.post(
        "/api/v1/reload", {"force": force}, accept=[422], timeout_s=RELOAD_TIMEOUT_S
    )
    is_refused = verdict.get("result") == "refused"
    if output is Output.JSON:
        print_json(verdict)
    else:
        is_many = bool(verdict.get("actions")) and has_many_nodes(client)
        show_verdict(verdict, has_many_nodes=is_many)
    return Exit.CONFIG if is_refused else Exit.OK


def show_verdict(verdict: Json, *, has_many_nodes: bool = False, is_past: bool = False) -> None:
    """A verdict with its problems and actions; one of the past is a fact, with its problems on stdout."""
    problems = [read_problem(item) for item in verdict.get("problems") or ()]
    if problems:
        print_problems(problems, sys.stdout if is_past else sys.stderr, None if is_past else 78)
    generation, result = verdict.get("generation"), verdict.get("result")
    stays = "stayed" if is_past else "stays"
    match result:
        case "applied" | "reverted":
            actions = verdict.get("actions") or []
            for line in show_actions(actions, has_many_nodes=has_many_nodes):
                typer.echo(line)
            words = count_actions(actions, done=True) or "no worker touched"
            seconds = float(verdict.get("duration_seconds") or 0)
            typer.echo(
                f"{result}: generation {generation}, {words}, in {seconds:.3f} s{_drain(verdict)}"
            )
            for name, error in (verdict.get("failed") or {}).items():
                if is_past:
                    typer.echo(escape_line(f"{name} did not run yet: {error}"))
                else:
                    warn(f"{name} does not run yet and is tried again: {error}")
        case _:
            typer.echo(f"{result}: generation {generation} {stays} in force")


def _drain(verdict: Json) -> str:
    drain = verdict.get("drain") or {}
    named = [(name, drain.get(name) or 0) for name in ("finished", "handed_back", "abandoned")]
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in named if count)
    return f"; drained: {words}" if words else ""
