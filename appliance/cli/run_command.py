"""`run`: gathers flags and environment into the daemon's options, and starts it."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.options import OwnStateDirOption, default_state_dir, split_names, split_paths
from appliance.core.run_options import RunOptions


class LogLevel(StrEnum):
    """What is worth a line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """For people or for machines."""

    TEXT = "text"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH", readable=False, help="Config files and directories [APPLIANCE_CONFIG]."
        ),
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            metavar="N",
            help="A node to run; may be repeated. Default: the one named as this host [APPLIANCE_NODE].",
        ),
    ] = None,
    all_nodes: Annotated[
        bool, typer.Option("--all-nodes", help="Run every declared node.")
    ] = False,
    state_dir: OwnStateDirOption = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            "--log-level",
            envvar="APPLIANCE_LOG_LEVEL",
            show_envvar=False,
            help="Wins over log.level of the config.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            "--log-format",
            envvar="APPLIANCE_LOG_FORMAT",
            show_envvar=False,
            help="Wins over log.format of the config.",
        ),
    ] = None,
    signed_by: Annotated[
        Path | None,
        typer.Option(
            "--signed-by",
            metavar="FILE",
            readable=False,
            envvar="APPLIANCE_SIGNED_BY",
            show_envvar=False,
            help="SSH public keys, a line each: take only git commits signed by one [APPLIANCE_SIGNED_BY].",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Start nothing: say what a start like this would do; 0 it starts, 78 it is refused.",
        ),
    ] = False,
) -> int:
    """Run the daemon: start what the config declares, and follow the config from then on."""
    given = [str(path) for path in paths or ()] or split_paths(
        os.environ.get("APPLIANCE_CONFIG", "")
    )
    if not given:
        raise typer.BadParameter("name a config file or directory", param_hint="PATH")
    nodes = split_names(node or ())
    if all_nodes and nodes:
        raise typer.BadParameter("--node and --all-nodes exclude each other")
    if not all_nodes and not nodes:
        nodes = split_names([os.environ.get("APPLIANCE_NODE", "")])
    options = RunOptions(
        paths=tuple(given),
        nodes=tuple(nodes),
        all_nodes=all_nodes,
        state_dir=str(state_dir) if state_dir is not None else None,
        default_state_dir=str(default_state_dir()),
        log_level=log_level.value if log_level is not None else None,
        log_format=log_format.value if log_format is not None else None,
        signed_by=str(signed_by) if signed_by is not None else None,
    )
    if check:
        from appliance.cli.start_check import check_start

        return check_start(options)
    from appliance.daemon import run_daemon

    return run_daemon(options)
