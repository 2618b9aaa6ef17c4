"""`can`: whether one node may have another do something, and the line of the config that says so."""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer

from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    UnusedStateDirOption,
    print_json,
    split_paths,
)
from appliance.core.escape import escape_controls


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("can")(can)


def can(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node that would do it.")],
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARG]…", help="Its arguments; behind -- where one begins with -."),
    ] = None,
    sender: Annotated[
        str, typer.Option("--from", metavar="NODE", help="The node that would ask.")
    ] = "central",
    via: Annotated[
        str,
        typer.Option(
            "--via",
            metavar="RELAY",
            help="By way of this node, which would pass it on (REQRelay); `any`: directly or by whichever way.",
        ),
    ] = "",
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            metavar="PATH",
            help="Config files and directories; may be repeated. Default: APPLIANCE_CONFIG.",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    _state_dir: UnusedStateDirOption = None,
) -> int:
    """Say whether a node lets another have it do something, and where in the config that stands.

    Nothing is sent, and no daemon is asked: the config alone is read, by the functions by which nodes judge messages. Exit 0
    for yes, 1 for no, so a pipeline can hold a config to what it must never allow; any other status is no answer.

    Without --via it is about what NODE takes from the asking node itself; relays by way of which it could have it all
    the same are named beside the answer. With --via any they count as well: ask so what must never be allowed.

    \b
    Examples:
      appliance can ship1 REQCliCommand --config . -- systemctl restart nginx
      appliance can ship1 REQTailFile /var/log/syslog --from ship2 --config /etc/appliance
      appliance can ship1 REQCliCommand --from ship2 --via central --config . -- uptime
      appliance can ship1 REQCliCommand --via any --config . -- rm -rf /; test $? = 1     # a test of a pipeline
    """
    from appliance.config.arguments import find_argument_problem
    from appliance.config.loader import load_desired
    from appliance.core.policy import ANY_WAY, Question, find_relays, judge
    from appliance.core.relay import RELAY_METHOD
    from appliance.methods.registry import METHOD_TABLE

    paths = config or split_paths(os.environ.get("APPLIANCE_CONFIG", ""))
    if not paths:
        raise typer.BadParameter("name the config, or set APPLIANCE_CONFIG", param_hint="--config")
    loaded = load_desired(paths, environ=os.environ, methods=METHOD_TABLE)
    fleet = loaded.desired
    methods = {
        **METHOD_TABLE,
        **{name: declared.info for name, declared in fleet.methods.items()},
    }
    question = Question(node, method, tuple(arguments or ()), sender, via)
    verdict = judge(question, fleet, methods, find_argument_problem)
    relays = () if via else tuple(find_relays(question, fleet, methods, find_argument_problem))
    way = verdict.via or (via if via != ANY_WAY else "")
    find = loaded.find_setting
    place = (
        find(way, RELAY_METHOD, verdict.setting)
        if verdict.by_relay
        else find(node, method, verdict.setting)
    )
    senders_place = find(node, method, "accept_from")
    steps = {
        "relay_to": f"{way} passes on to {node}",
        "accept_from": f"accept_from names {sender}",
        "relay_methods": f"relay_methods lets {method} through",
    }
    passing = [
        (words, found)
        for setting, words in steps.items()
        if verdict.is_allowed and way and (found := find(way, RELAY_METHOD, setting)) is not None
    ]
    if output is Output.JSON:
        print_json(
            {
                **question._asdict(),
                **verdict._asdict(),
                "via": way,
                "place": str(place) if place is not None else None,
                "accept_from_place": str(senders_place) if senders_place is not None else None,
                "relay_places": [str(found) for _, found in passing],
                "relays": relays,
            }
        )
        return Exit.OK if verdict.is_allowed else Exit.FAILED
    word = "yes" if verdict.is_allowed else "no"
    asked = shlex.join([method, *question.arguments])
    by = f" by way of {way}" if way else ""
    typer.echo(escape_controls(f"{word}: {asked} at {node} from {sender}{by}: {verdict.because}"))
    if place is not None:
        item = "" if verdict.item is None else f", number {verdict.item + 1} of its list"
        typer.echo(f"  {place}: {verdict.setting or 'the entry'}{item}")
    if verdict.is_allowed and senders_place is not None:
        typer.echo(f"  {senders_place}: accept_from names {way or sender}")
    for words, found in passing:
        typer.echo(f"  {found}: {words}")
    for note in verdict.notes:
        typer.echo(f"  {note}")
    for relay in relays:
        typer.echo(f"  by way of {relay}: yes (--via {relay} names the lines)")
    return Exit.OK if verdict.is_allowed else Exit.FAILED
