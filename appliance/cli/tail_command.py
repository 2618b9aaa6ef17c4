"""`tail`: follows files on nodes, line by line, until it is interrupted or its time is over."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from appliance.api.model import Count
from appliance.cli.answer_view import GOES_ON, Answers, NodeAnswer, Style
from appliance.cli.api_client import AccessWithdrawn, ApiClient
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
from appliance.cli.following import follow, tell_summary, tell_troubles, terminal_streams, write
from appliance.cli.options import Exit, StateDirOption, read_duration, warn
from appliance.cli.server_options import connect
from appliance.cli.standard_streams import end_with_reader
from appliance.errors import DaemonUnreachable

METHOD = "REQTailFile"
MAX_FILES = 64
DEFAULT_FOR = "1h"
DELIVERY_WAIT_S = 30.0
PATIENCE_S = 5.0
"""How much longer than --for a node may say nothing at all."""
RETRY_S = 1.0
"""How often a daemon is looked for that has gone in the middle."""

_HELP = """Follow a file on one or more nodes as `tail -f` does, through rotation and truncation.

With one node its bytes come out as they are; with several each line is put behind the node's name,
with several files behind the file's, too. What begins with a slash is a file, all else a node.
Which files a node shows is its `allow_paths` (REQTailFile). A Go node begins at the file's end,
whatever -n says. NODE is a node or a target, as for exec: 'ship*', @ROLE, LABEL=VALUE, all, '!TARGET'.

It goes on where it was when a node's daemon, or the one that is asked, comes back, over rotation
too, and says so. Interrupted, it ends on the node with the next line of the file, or when the time of --for is over;
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
    begin = ("-n", str(lines)) if lines else ()
    client = connect(state_dir)
    chosen = choose_nodes(
        client, nodes, exclude or (), method=METHOD, from_node=from_node, always_asks=dry_run
    )
    names = chosen.names
    if dry_run:
        show_dry_run(chosen, Rollout([names]), METHOD, [path, *begin], as_json=False)
        return Exit.OK
    tell_choice(chosen)
    body: dict[str, Any] = {
        "method": METHOD,
        "method_timeout": span_s,
        # later than anybody waits here: what was not taken is taken back, and never a dead letter
        "expires": span_s + 2 * DELIVERY_WAIT_S,
    }
    if from_node is not None:
        body["from_node"] = from_node
    style = Style(
        prefixes=len(names) * len(paths) > 1 and not no_prefix,
        in_lines=len(names) * len(paths) > 1,
        escapes=frozenset() if raw else terminal_streams(),
        streams=True,
    )
    answers = Answers(style, _labels(names, paths))
    asked = [Asked(name, each, begin) for each in paths for name in names]
    with end_with_reader():
        is_whole = _follow_on(client, body, asked, answers)
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


class Asked(NamedTuple):
    """A file of a node, in the order of the answers."""

    node: str
    path: str
    begin: tuple[str, ...]
    """Where to begin, while nothing has come."""


def _follow_on(
    client: ApiClient, body: Mapping[str, Any], asked: Sequence[Asked], answers: Answers
) -> bool:
    """Follow over restarts of the daemon that is asked, too; False when it was interrupted.

    Raises:
        DaemonUnreachable: it is not there, or not any more, and what came does not tell from where to go on.
    """
    began = time.monotonic()
    span_s = left_s = body["method_timeout"]
    bodies = _first_bodies(body, asked)
    while True:
        try:
            return follow(
                client,
                bodies,
                left_s + DELIVERY_WAIT_S,
                answers,
                idle_s=left_s + PATIENCE_S,
                goes_on=True,
            )
        except DaemonUnreachable as error:
            rest = [pair for pair in zip(answers.nodes, asked, strict=False) if pair[0].is_pending]
            left_s = span_s - (time.monotonic() - began)
            can_go_on = all(item.place or not item.progress.has_spoken for item, _ in rest)
            if isinstance(error, AccessWithdrawn) or not rest or not can_go_on or left_s < 1:
                write(answers.finish())
                raise
            if not answers.again_count:
                warn(f"{error}; this {GOES_ON}")
        answers.ask_again([item for item, _ in rest])
        times = {"method_timeout": int(left_s), "expires": left_s + 2 * DELIVERY_WAIT_S}
        bodies = [
            {**body, **times, "to_nodes": [one.node], "method_args": [one.path, *_begin(item, one)]}
            for item, one in rest
        ]
        try:
            time.sleep(RETRY_S)
        except KeyboardInterrupt:
            write(answers.finish())
            return False


def _first_bodies(body: Mapping[str, Any], asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """One request for each file."""
    nodes: dict[str, list[str]] = {}
    for one in asked:
        nodes.setdefault(one.path, []).append(one.node)
    begin = asked[0].begin
    return [
        {**body, "to_nodes": names, "method_args": [path, *begin]} for path, names in nodes.items()
    ]


def _begin(item: NodeAnswer, asked: Asked) -> Sequence[str]:
    return ("-a", item.place) if item.place else asked.begin


def _labels(names: list[str], paths: list[str]) -> list[str]:
    """What stands before the lines of each file of each node, in the order in which they are asked for."""
    if len(paths) == 1:
        return names
    if len(names) == 1:
        return paths
    return [f"{name}:{path}" for path in paths for name in names]
