"""`cp`: copies files from nodes, to nodes and between nodes, as scp does."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from appliance.cli.api_client import NotPermitted
from appliance.cli.copy_job import Copier, NobodyAnswers
from appliance.cli.copy_places import Job, PlacesUnclear, plan_copies
from appliance.cli.copy_report import CopyOutcome, CopyState, exit_code_of, facts_of, summary_of
from appliance.cli.exec_command import INTERRUPTED
from appliance.cli.options import (
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    read_duration,
    warn,
)
from appliance.cli.progress_view import ProgressView
from appliance.cli.server_options import connect
from appliance.errors import ApplianceError, DaemonError

DEFAULT_WAIT = "30s"

_HELP = """Copy files from a node, to a node, or between nodes, as scp does.

A file at a node is written NODE:/PATH, with an absolute path. Several sources, or a target that ends
with a slash, copy into a directory. Regular files are copied, no directories, up to max_file_bytes of
either node (1 GiB unless its config says more): what is larger than a message goes in pieces, is
checked by SHA-256, and goes on after broken lines and restarts of either node. A file that grows
meanwhile, as logs do, is copied as it was at the beginning.

The target is replaced in one step when the whole is there and right. It keeps the mode of the file
that was there; a new one at a node is for its owner alone (0600). Its directory must be there;
--mkdir makes it, at a node, where allow_paths has the directory, too.

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
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="A file: PATH here, NODE:/PATH there.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A file, or a directory that ends with a slash.")
    ],
    is_quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
    mkdir: Annotated[
        bool, typer.Option("--mkdir", help="Make the target's missing directories at a node.")
    ] = False,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="N", help="The own node that takes part.")
    ] = None,
    wait: Annotated[
        str,
        typer.Option(
            "--wait", metavar="TIME", help="Give up after that long without a sign of life."
        ),
    ] = DEFAULT_WAIT,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Copy one file after another; a failure does not keep the others."""
    wait_s = read_duration("--wait", wait) or 0.0
    if not 1 <= wait_s <= 3_600:
        raise typer.BadParameter("between 1s and 1h", param_hint="--wait")
    try:
        jobs = plan_copies([*sources, target])
    except PlacesUnclear as error:
        raise typer.BadParameter(str(error), param_hint="SOURCE… TARGET") from None
    view = ProgressView(is_quiet=is_quiet)
    copier = Copier(
        connect(state_dir),
        view,
        node=from_node,
        wait_s=wait_s,
        makes_directories=mkdir,
    )
    outcomes: list[CopyOutcome] = []
    broken: ApplianceError | None = None
    with _ending_like_interrupted() as ended_by:
        for job in jobs:
            outcome, broken = _copy_one(copier, view, job)
            outcomes.append(outcome)
            if broken is not None or outcome.state is CopyState.INTERRUPTED:
                break
    if output is Output.JSON:
        print_json(facts_of(outcomes, len(jobs)))
    if broken is not None:
        raise broken
    if len(jobs) > 1 and (words := summary_of(outcomes, len(jobs))):
        warn(words)
    if outcomes[-1].state is CopyState.INTERRUPTED:
        return 128 + ended_by[0] if ended_by else INTERRUPTED
    return exit_code_of(outcomes)


@contextlib.contextmanager
def _ending_like_interrupted() -> Iterator[list[int]]:
    """Let timeout(1) and a terminal that is closed end us as Ctrl-C does: nothing is left at the daemon.

    Gives where the number of the signal stands once it came.
    """
    ended_by: list[int] = []

    def end(number: int, _frame: object) -> None:
        ended_by.append(number)
        raise KeyboardInterrupt

    # where one is ignored, as under nohup, that stands
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield ended_by
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _copy_one(
    copier: Copier, view: ProgressView, job: Job
) -> tuple[CopyOutcome, ApplianceError | None]:
    """What came of it, told already; beside it what makes all others fail as well."""
    began_mono = time.monotonic()
    outcome = CopyOutcome(job)
    broken: ApplianceError | None = None
    try:
        with view.ticking():
            outcome.copied = copier.copy(job)
        outcome.state = CopyState.COPIED
    except KeyboardInterrupt:
        outcome.state, outcome.reason = CopyState.INTERRUPTED, copier.describe_interrupted(job)
    except NobodyAnswers as error:
        outcome.state, outcome.reason = CopyState.SILENT, str(error)
    except (DaemonError, NotPermitted) as error:
        outcome.reason, broken = str(error), error
    except ApplianceError as error:
        outcome.reason = str(error)
    outcome.seconds = time.monotonic() - began_mono
    view.end()
    if outcome.reason is not None and broken is None:
        warn(outcome.reason)
    return outcome, broken
