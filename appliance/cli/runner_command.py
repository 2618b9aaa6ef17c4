"""`runner`: run allowed commands for a daemon that has not the rights itself."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.options import Exit, UnusedStateDirOption, warn


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("runner")(runner)


def runner(
    allow: Annotated[
        Path,
        typer.Option(
            "--allow",
            metavar="FILE",
            readable=False,
            help="What may run; only root, or who runs this, may write it.",
        ),
    ],
    socket: Annotated[
        Path | None,
        typer.Option(
            "--socket",
            metavar="PATH",
            readable=False,
            help="Where to listen. Default: the socket that systemd hands over.",
        ),
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(
            "--user",
            metavar="NAME",
            help="Who may ask; may be repeated. Default: the user that runs this.",
        ),
    ] = None,
    max_commands: Annotated[
        int, typer.Option("--max-commands", min=1, max=1_000, help="How many may run at once.")
    ] = 16,
    _state_dir: UnusedStateDirOption = None,
) -> int:
    """Run allowed commands for a daemon that has not the rights itself.

    A subscription of REQCliCommand or REQCliCommandCont with `runner: PATH` has its commands run here, after its own
    `allow_commands` let them. The allow list has one command a line, in words as a shell reads them: `*` stands for
    one argument that is no option, as a part of one (`/srv/app/*`) for a part of one name; a last `**` stands for any
    rest. It is read again for every command. Lines `@user NAME…`, `@directory PATTERN…` and `@variable NAME…` list what
    a command may be run with (`exec --user`, `--cwd`, `--env`).
    """
    import os

    from appliance.runner.server import AllowListUnusable, RunnerSettings, run_runner
    from appliance.telemetry.logs import setup_logging

    user_ids = {_user_id(name) for name in user} if user else {os.geteuid()}
    settings = RunnerSettings(
        allow_path=allow,
        user_ids=frozenset(user_ids),
        socket_path=socket,
        max_commands=max_commands,
    )
    setup_logging()
    try:
        run_runner(settings)
    except AllowListUnusable as error:
        warn(str(error))
        return Exit.CONFIG
    return Exit.OK


def _user_id(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise typer.BadParameter(f"there is no user {name!r}", param_hint="--user") from None
