"""`enrol`: a new node makes its key and asks to be let in."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    UnusedStateDirOption,
    print_json,
    read_duration,
    warn,
)
from appliance.core.names import is_node_name

if TYPE_CHECKING:
    from appliance.core.enrolment import Result
    from appliance.core.specs import BrokerSettings

ASK_EVERY_S = 2.0
_SAID = {
    "pending": "waits: at the node that keeps requests, `appliance nodes accept` writes what lets it in",
    "accepted": "stands in the config",
    "rejected": "is turned away there",
    "full": "finds no room: too many wait; somebody has to look at them first",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("enrol")(enrol)


def enrol(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The name of this machine's node.")],
    server: Annotated[
        str,
        typer.Option(
            "--server", metavar="URL", help="The broker, as in tls://nats.example.com:4222."
        ),
    ],
    invitation: Annotated[
        Path,
        typer.Option(
            "--invitation",
            metavar="FILE",
            readable=False,
            help="The seed of an invitation, a key of `enrolment.invitations` in the config; or its credentials file.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            readable=False,
            help="Where the node's seed goes, or is already. Default: NODE.nk.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca",
            metavar="FILE",
            readable=False,
            help="The authority of the broker's certificate.",
        ),
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait", metavar="DURATION", help="Wait until the node is let in, and log in once."
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    _state_dir: UnusedStateDirOption = None,
) -> int:
    """Make a key for this machine's node, and ask to be let in with it.

    The seed goes into a file for its owner alone and never leaves the machine. What is printed, the fingerprint, is what
    whoever accepts the node compares (`appliance nodes pending`). Asked again it is the same request. Exit 0 where the node
    waits or is let in; with --wait only where it is.

    \b
    Examples:
      appliance enrol ship7 --server tls://nats.example.com:4222 --invitation invitation.nk --wait 1h
    """
    from appliance.bus.enrolling import reach
    from appliance.bus.node_keys import make_seed, public_key_of, write_seed
    from appliance.core.enrolment import Result
    from appliance.core.public_keys import fingerprint_of
    from appliance.core.urls import find_broker_address_problem
    from appliance.errors import BusUnauthorized, BusUnavailable

    if not is_node_name(node):
        raise typer.BadParameter(f"{node[:60]!r} is no node name", param_hint="NODE")
    if not server.startswith(("nats://", "tls://")) or (find_broker_address_problem(server)):
        raise typer.BadParameter(
            "an address such as tls://nats.example.com:4222", param_hint="--server"
        )
    wait_s = read_duration("--wait", wait)
    path = out if out is not None else Path(f"{node}.nk")
    try:
        if not path.exists():
            write_seed(path, make_seed())
        seed = path.read_text()
        public_key = public_key_of(seed)
        own, invited = reach(server, path, ca), reach(server, invitation, ca)
    except OSError as error:
        warn(f"{error.filename}: {error.strerror}")
        return Exit.NO_PERMISSION if isinstance(error, PermissionError) else Exit.FAILED
    except ValueError as error:
        warn(f"{path} {error}")
        return Exit.DATA
    fingerprint = fingerprint_of(public_key)
    if output is Output.TEXT:
        typer.echo(f"{node}\n  public key   {public_key}\n  fingerprint  {fingerprint}")
    try:
        result = asyncio.run(_ask(invited, own, node, seed, wait_s))
    except BusUnauthorized as error:
        warn(f"the invitation opens nothing there: {error}")
        return Exit.NO_PERMISSION
    except BusUnavailable as error:
        warn(str(error))
        return Exit.UNAVAILABLE
    if output is Output.JSON:
        facts = {"node": node, "public_key": public_key, "fingerprint": fingerprint}
        print_json({**facts, "seed_file": str(path), "result": result})
    elif result is None:
        warn("nobody answers: does a daemon run the node of `enrolment.node`?")
    else:
        warn(f"the request {_SAID[result]}" if result != Result.ACCEPTED else f"{node} is let in")
    if result == Result.ACCEPTED:
        if output is Output.TEXT:
            warn(
                f"in the node's own config: broker: {{auth: {{nkey_seed: {{file: {path.absolute()}}}}}}}"
            )
        return Exit.OK
    if result == Result.PENDING:
        return Exit.OK if wait_s is None else Exit.SILENT
    return Exit.FAILED if result is not None else Exit.SILENT


async def _ask(
    invited: BrokerSettings, own: BrokerSettings, node: str, seed: str, wait_s: float | None
) -> Result | None:
    """What comes of asking, until the node can log in or the time is over."""
    from appliance.bus.enrolling import ask_to_be_let_in, try_login
    from appliance.core.enrolment import Result
    from appliance.errors import BusError, BusUnavailable

    ends_mono = time.monotonic() + (wait_s or 0)
    while True:
        try:
            result = await ask_to_be_let_in(invited, node, seed)
        except BusUnavailable:
            # a broker that is away comes back while one waits
            if time.monotonic() >= ends_mono:
                raise
            result = None
        if result is Result.ACCEPTED and wait_s is not None:
            # the config has the key; the broker may get to know it a little later
            try:
                await try_login(own)
            except BusError:
                result = Result.PENDING
        if result in (Result.ACCEPTED, Result.REJECTED) or time.monotonic() >= ends_mono:
            return result
        await asyncio.sleep(min(ASK_EVERY_S, max(0.1, ends_mono - time.monotonic())))
