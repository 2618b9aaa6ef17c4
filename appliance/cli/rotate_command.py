"""`keys rotate`: another key for a node, without a gap."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.config_change import PathsArgument, WriteOption, paths_of, propose
from appliance.cli.options import Exit, UnusedStateDirOption, warn

if TYPE_CHECKING:
    from appliance.core.specs import BrokerSettings


def rotate(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node that gets another key.")],
    paths: PathsArgument = None,
    seed: Annotated[
        Path | None,
        typer.Option(
            "--seed",
            metavar="FILE",
            readable=False,
            help="The file of the seed in use. The next one stands beside it, as FILE.next. Default: NODE.nk.",
        ),
    ] = None,
    finish: Annotated[
        bool,
        typer.Option(
            "--finish", help="Put the next seed into use, and take the old key out of the config."
        ),
    ] = False,
    write: WriteOption = False,
    _state_dir: UnusedStateDirOption = None,
) -> int:
    """Give a node another key, in two steps, on the machine that has its seed.

    The first step makes the next seed beside the one in use, and prints the change of the config that has the broker take
    both keys. When that is in force (and the broker's: `broker-conf`), --finish logs in with the next seed to see that it
    is, puts it into the place of the old one, where a running daemon takes it, and prints the change that takes the old key
    out. Each step may be repeated.

    \b
    Examples:
      appliance keys rotate ship1 /etc/appliance --seed /etc/appliance/ship1.nk > next.patch
      appliance keys rotate ship1 /etc/appliance --seed /etc/appliance/ship1.nk --finish > old.patch
    """
    from appliance.bus.node_keys import public_key_of
    from appliance.config.edit import add_key, remove_key
    from appliance.config.loader import load_desired
    from appliance.core.names import NodeName
    from appliance.methods.registry import METHOD_TABLE

    asked = paths_of(paths)
    fleet = load_desired(asked, environ=os.environ, methods=METHOD_TABLE).desired
    if node not in fleet.declared_nodes:
        warn(f"{node[:60]} is not declared")
        return Exit.FAILED
    declared = fleet.traits[NodeName(node)].public_keys
    used = seed if seed is not None else Path(f"{node}.nk")
    following = used.with_name(f"{used.name}.next")
    try:
        if not finish:
            key = _begin(used, following)
            if key in declared:
                warn("the config has the next key already; with it in force: --finish")
                return Exit.OK
            done = propose(asked, lambda files: add_key(files, node, key), write=write)
            if done == Exit.OK:
                warn(
                    f"the next seed is {following}. Now: 1. commit the change, and have it in force"
                )
                warn(
                    "2. have the broker know it (broker-conf; the daemon's own broker does by itself)"
                )
                warn("3. the same command with --finish")
            return done
        key = public_key_of((following if following.exists() else used).read_text())
        if key not in declared:
            warn("the next key is not in the config yet: without --finish first")
            return Exit.FAILED
        if following.exists():
            if fleet.broker.servers and not _can_log_in(fleet.broker, following):
                return Exit.FAILED
            os.replace(following, used)
            warn(f"{used} holds the next seed; a running daemon takes it within seconds")
    except OSError as error:
        warn(f"{error.filename}: {error.strerror}")
        return Exit.NO_PERMISSION if isinstance(error, PermissionError) else Exit.FAILED
    except ValueError as error:
        warn(f"{used} {error}")
        return Exit.DATA
    old = [one for one in declared if one != key]
    if not old:
        warn("the old key is out of the config already")
        return Exit.OK
    return propose(asked, lambda files: remove_key(files, node, old[0]), write=write)


def _begin(used: Path, following: Path) -> str:
    """The public key of the next seed, which is made where it is not there yet. Raises OSError, ValueError."""
    from appliance.bus.node_keys import make_seed, public_key_of, write_seed

    # a slip in the name must not begin a rotation of nothing
    public_key_of(used.read_text())
    if not following.exists():
        write_seed(following, make_seed())
    return public_key_of(following.read_text())


def _can_log_in(broker: BrokerSettings, seed_file: Path) -> bool:
    """Whether the broker takes the next seed: the one in use must not go before that."""
    from appliance.bus.enrolling import login_by, try_login
    from appliance.errors import BusError

    try:
        asyncio.run(try_login(login_by(broker, seed_file)))
    except BusError as error:
        warn(f"the broker does not take the next key yet: {error}")
        return False
    return True
