"""`nodes`: new nodes that ask to be let in, and the change of the config that lets one in."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import UNSET

from appliance.api.model import Count, Enrolment, EnrolmentRequest
from appliance.cli.config_change import PathsArgument, WriteOption, paths_of, propose
from appliance.cli.options import Exit, Output, OutputOption, StateDirOption, print_json, warn
from appliance.cli.record_table import say_age
from appliance.cli.server_options import connect
from appliance.cli.terminal import print_table
from appliance.core.escape import escape_line
from appliance.core.suggest import did_you_mean, find_nearest

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="The node that asks.")]
FingerprintOption = Annotated[
    str | None,
    typer.Option(
        "--fingerprint",
        metavar="FINGERPRINT",
        help="Which key is meant, as its machine prints it: needed where anything speaks against the request.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    nodes = typer.Typer(help="New nodes that ask to be let in.", no_args_is_help=True)
    nodes.command("pending")(pending)
    nodes.command("accept")(accept)
    nodes.command("reject")(reject)
    app.add_typer(nodes, name="nodes")


def pending(output: OutputOption = Output.TEXT, state_dir: StateDirOption = None) -> int:
    """List the nodes that asked by `appliance enrol`, with the fingerprints of their keys.

    Compare the fingerprint with what the machine itself prints before you accept it.
    """
    found = connect(state_dir).get("/api/v1/enrolment", Enrolment)
    if output is Output.JSON:
        print_json(found.plain)
        return Exit.OK
    requests = found.value.requests
    if not requests:
        typer.echo("no node asks to be let in")
    else:
        columns = ("NODE", "FINGERPRINT", "ASKED", "TIMES", "")
        print_table(columns, [_row(one) for one in requests])
    if found.value.turned_away:
        warn(f"turned away unread or without room: {found.value.turned_away}")
    return Exit.OK


def accept(
    node: NodeArgument,
    paths: PathsArgument = None,
    fingerprint: FingerprintOption = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role", metavar="ROLE", help="A role of a node that is new; may be repeated."
        ),
    ] = None,
    into: Annotated[
        str,
        typer.Option("--into", metavar="FILE", help="The file that a new node is written into."),
    ] = "",
    write: WriteOption = False,
    state_dir: StateDirOption = None,
) -> int:
    """Print the change of the config that lets a node in, as a patch to review and to commit.

    The key goes into `public_keys` of the node, which is declared where it is new. Nobody is let in by this command, but by
    the change in force: at once where the broker is the daemon's own, else when it has what `broker-conf` writes.

    \b
    Examples:
      appliance nodes accept ship7 /etc/appliance --role managed > ship7.patch
      appliance nodes accept ship7 fleet/ --into fleet/nodes/ship7.yaml --write
    """
    from appliance.config.edit import add_key

    asked = paths_of(paths)
    found = connect(state_dir).get("/api/v1/enrolment", Enrolment).value.requests
    chosen = _choose(found, node, fingerprint)
    if chosen is None:
        return Exit.FAILED
    done = propose(
        asked,
        lambda files: add_key(files, node, chosen.public_key, roles=role or (), into=into),
        write=write,
    )
    if done == Exit.OK:
        warn(f"fingerprint {chosen.fingerprint}: the same must stand on the machine of {node}")
    return done


def reject(
    node: Annotated[str, typer.Argument(metavar="[NODE]", help="The node that asks.")] = "",
    fingerprint: FingerprintOption = None,
    everybody: Annotated[
        bool, typer.Option("--all", help="Whoever asks now, as after a flood.")
    ] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Turn a node away: its key is remembered, and told so when it asks again."""
    if not node and not everybody:
        raise typer.BadParameter("say which, or --all", param_hint="NODE")
    client = connect(state_dir)
    requests = client.get("/api/v1/enrolment", Enrolment).value.requests
    keys = [
        one.public_key
        for one in requests
        if everybody or (one.node == node and fingerprint in (None, one.fingerprint))
    ]
    if not keys:
        warn(_say_nobody(requests, node) if node else "nobody asks to be let in")
        return Exit.FAILED
    done = client.post("/api/v1/enrolment/reject", Count, {"public_keys": keys})
    if output is Output.JSON:
        print_json(done.plain)
    else:
        typer.echo(f"{done.value.count} turned away")
    return Exit.OK


def _choose(
    requests: list[EnrolmentRequest], node: str, fingerprint: str | None
) -> EnrolmentRequest | None:
    of_node = [one for one in requests if one.node == node]
    if not of_node:
        warn(_say_nobody(requests, node))
        return None
    if fingerprint is not None:
        found = [one for one in of_node if one.fingerprint == fingerprint.strip().lower()]
        if not found:
            warn(f"{node} asks by no key with that fingerprint: take nobody in")
        return found[0] if found else None
    (first, *others) = of_node
    if others or first.warnings:
        for one in of_node:
            warn(f"{node} {one.fingerprint}: {'; '.join(one.warnings) or 'asks, too'}")
        warn("compare with what the machine prints, then say which: --fingerprint FINGERPRINT")
        return None
    return first


def _say_nobody(requests: list[EnrolmentRequest], node: str) -> str:
    nearest = find_nearest(node, [one.node for one in requests])
    return f"{node[:60]} does not ask to be let in{did_you_mean(nearest)}"


def _row(one: EnrolmentRequest) -> list[str]:
    asked = say_age(UNSET, one.first_at)
    return [
        escape_line(one.node),
        one.fingerprint,
        asked,
        str(one.count),
        escape_line("; ".join(one.warnings)),
    ]
