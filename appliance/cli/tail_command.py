"""`tail`: follows files on nodes, line by line, until it is interrupted or its time is over."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from appliance.api.model import Count
from appliance.cli.answer_view import Answers
from appliance.cli.choosing import (
    TARGETS_HELP,
    DryRunOption,
    ExcludeOption,
    RawOption,
    Rollout,
    choose_nodes,
    show_dry_run,
    tell_choice,
)
from appliance.cli.exec_command import INTERRUPTED, exit_code_of
from appliance.cli.following import follow, tell_summary, tell_troubles, terminal_streams
from appliance.cli.options import Exit, StateDirOption, read_duration, warn
from appliance.cli.server_options import connect

METHOD = "REQTailFile"
MAX_FILES = 64
DEFAULT_FOR = "1h"
DELIVERY_WAIT_S = 30.0
PATIENCE_S = 5.0
"""How much longer than --for a node may say nothing at all."""

_HELP = """Follow a file on one or more nodes as `tail -f` does, through rotation and truncation.

With one node its bytes come out as they are; with several each line is put behind the node's name,
with several files behind the file's, too. What begins with a slash is a file, all else a node.
Which files a node shows is its `allow_paths` (REQTailFile). A Go node begins at the file's end,
whatever -n says. NODE is a node or a target, as for exec: 'ship*', @ROLE, LABEL=VALUE, all, '!TARGET'.

Interrupted, it ends on the node with the next line of the file, or when the time of --for is over;
what a node that is away has not taken is taken back.

\b
Exits 0 when the time of --for is over, 1 when a node refused or failed, 3 when one was silent, 64
for wrong use or no such node, 69 without a daemon, 130 when interrupted.

\b
Examples:
  appliance tail ship1 /var/log/syslog
  appliance tail ship1 ship2 -n 20 /var/log/nginx/access.log
  appliance tail @edge -x site=oslo /var/log/syslog
  appliance tail ship1 /var/log/syslog /var/log/auth.log
  appliance tail ship1 --for 10m /var/log/syslog | grep -i error
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tail", help=_HELP, no_args_is_help=True)(tail)


def tail(
    nodes: Annotated[
        list[str], typer.Argument(metavar="NODE", help=f"Where the file is. {TARGETS_HELP}")
    ],
    path: Annotated[str, typer.Argument(metavar="PATH…", help="The whole path there, or several.")],
    lines: Annotated[
        int,
        typer.Option("-n", "--lines", min=0, max=100_000, help="Begin with its last N lines."),
    ] = 10,
    span: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long to follow it; at most 24h.")
    ] = DEFAULT_FOR,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="N", help="The node that asks.")
    ] = None,
    no_prefix: Annotated[
        bool, typer.Option("--no-prefix", help="With several nodes: lines without the node's name.")
    ] = False,
    exclude: ExcludeOption = None,
    dry_run: DryRunOption = False,
    raw: RawOption = False,
    state_dir: StateDirOption = None,
) -> int:
    """Ask for the file and show it."""
    span_s = read_duration("--for", span) or 0.0
    if not 1 <= span_s <= 86_400:
        raise typer.BadParameter("between 1s and 24h", param_hint="--for")
    paths = list(dict.fromkeys([*(word for word in nodes if word.startswith("/")), path]))
    nodes = [word for word in nodes if not word.startswith("/")]
    if len(paths) > MAX_FILES:
        raise typer.BadParameter(f"at most {MAX_FILES} files", param_hint="PATH")
    rest = ["-n", str(lines)] if lines else []
    arguments = [path, *rest]
    client = connect(state_dir)
    chosen = choose_nodes(
        client, nodes, exclude or (), method=METHOD, from_node=from_node, always_asks=dry_run
    )
    names = chosen.names
    if dry_run:
        show_dry_run(chosen, Rollout([names]), METHOD, arguments, as_json=False)
        return Exit.OK
    tell_choice(chosen)
    body: dict[str, Any] = {
        "to_nodes": names,
        "method": METHOD,
        "method_timeout": span_s,
        # later than anybody waits here: what was not taken is taken back, and never a dead letter
        "expires": span_s + 2 * DELIVERY_WAIT_S,
    }
    if from_node is not None:
        body["from_node"] = from_node
    answers = Answers(
        prefixes=len(names) * len(paths) > 1 and not no_prefix,
        in_lines=len(names) * len(paths) > 1,
        labels=_labels(names, paths),
        escapes=frozenset() if raw else terminal_streams(),
        streams=True,
    )
    bodies = [{**body, "method_args": [each, *rest]} for each in paths]
    is_whole = follow(client, bodies, span_s + DELIVERY_WAIT_S, answers, idle_s=span_s + PATIENCE_S)
    tell_troubles(answers)
    pending = [item for item in answers.silent if not item.progress.is_delivered and item.id]
    if pending:
        # whoever asked to see a file now does not want it when the node is back
        ids = [item.id for item in pending]
        client.post("/api/v1/outbox/drop", Count, {"ids": ids, "pending": True})
        for item in pending:
            warn(f"{item.node}: {item.describe()}; the request was taken back")
    if is_whole:
        tell_summary(answers)
        return exit_code_of(answers)
    return INTERRUPTED


def _labels(names: list[str], paths: list[str]) -> list[str]:
    """What stands before the lines of each file of each node, in the order in which they are asked for."""
    if len(paths) == 1:
        return names
    if len(names) == 1:
        return paths
    return [f"{name}:{path}" for path in paths for name in names]
