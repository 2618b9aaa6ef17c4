"""`cp`: copies files from nodes, to nodes and between nodes, as scp does."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.api_client import ApiClient
from appliance.cli.copy_job import Copier, exit_code_of
from appliance.cli.copy_places import Job, PlacesUnclear, plan_copies
from appliance.cli.options import (
    Exit,
    StateDirOption,
    find_state_dir,
    read_duration,
    warn,
)
from appliance.cli.progress_view import ProgressView
from appliance.errors import ApplianceError, DaemonError

DEFAULT_WAIT = "30s"

_HELP = """Copy files from a node, to a node, or between nodes, as scp does.

A file at a node is written NODE:/PATH, with an absolute path. Several sources, or a target that ends
with a slash, copy into a directory. Single regular files are copied, of any size: what is larger than
a message goes in pieces, is checked by SHA-256, and goes on after broken lines and restarts.
The target is replaced in one step when the whole is there and right, and keeps the old file's mode.

\b
What may be read at a node is allow_paths of its REQCopyFileFrom, what may be written that of its
REQCopyFileTo. To fetch files the own node subscribes REQCopyFileTo and accepts the sender; it needs
no allow_paths for that. A Go node gives and takes files up to 1,000,000 bytes.

\b
Exit status: 0 all copied, 1 some failed, 3 some nodes gave no sign of life for --wait, 64 wrong use,
69 no daemon, 130 interrupted. Interrupting ends a copy from or to here at once and leaves the target
as it was; one between two nodes that has begun goes on.

\b
Examples:
  appliance cp ship1:/var/log/syslog ./
  appliance cp ./nginx.conf ship1:/etc/nginx/nginx.conf
  appliance cp ship1:/var/log/a.log ship2:/var/log/b.log ./logs/
  appliance cp ship1:/srv/backup.tar ship2:/srv/
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cp", help=_HELP, no_args_is_help=True)(copy)


def copy(
    places: Annotated[
        list[str], typer.Argument(metavar="SOURCE… TARGET", help="Paths here, NODE:/PATH there.")
    ],
    is_quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="N", help="The own node that takes part.")
    ] = None,
    wait: Annotated[
        str,
        typer.Option(
            "--wait", metavar="TIME", help="Give up after that long without a sign of life."
        ),
    ] = DEFAULT_WAIT,
    state_dir: StateDirOption = None,
) -> int:
    """Copy one file after another; the first failure does not keep the others."""
    wait_s = read_duration("--wait", wait) or 0.0
    if not 1 <= wait_s <= 3_600:
        raise typer.BadParameter("between 1s and 1h", param_hint="--wait")
    try:
        jobs = plan_copies(places)
    except PlacesUnclear as error:
        raise typer.BadParameter(str(error), param_hint="SOURCE… TARGET") from None
    view = ProgressView(is_quiet=is_quiet)
    client = ApiClient(find_state_dir(state_dir))
    copier = Copier(client, view, node=from_node, wait_s=wait_s)
    codes = [_copy_one(copier, view, job) for job in jobs]
    failed = sum(1 for code in codes if code != Exit.OK)
    if failed and len(jobs) > 1:
        warn(f"{len(jobs) - failed} of {len(jobs)} copied, {failed} failed")
    if Exit.FAILED in codes:
        return Exit.FAILED
    return Exit.SILENT if failed else Exit.OK


def _copy_one(copier: Copier, view: ProgressView, job: Job) -> int:
    try:
        copier.copy(job)
    except (DaemonError, KeyboardInterrupt):
        view.end()
        raise
    except ApplianceError as error:
        view.end()
        warn(str(error))
        return exit_code_of(error)
    view.end()
    return Exit.OK
