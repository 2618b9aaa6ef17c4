"""The application: puts the commands together and turns whatever ends one into an exit code."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Annotated

import typer
from typer.core import TyperGroup

import appliance.cli
from appliance import __version__, early
from appliance.cli import standard_streams
from appliance.cli.api_client import AccessWithdrawn, ApiRefused, NotPermitted, SocketForbidden
from appliance.cli.contexts import ContextsUnusable
from appliance.cli.options import PROGRAM, Exit, unknown_variables, warn
from appliance.cli.remote_way import ServerInvalid
from appliance.cli.server_options import add_server_options, begin
from appliance.cli.verdict_view import print_problems
from appliance.core import message
from appliance.errors import (
    ApplianceError,
    ConfigError,
    ConfigInvalid,
    DaemonError,
    OutputLost,
    StateDirForeign,
)

READER_GONE = 141
"""As a shell tells the end by SIGPIPE, with which programs leave a pipe that nobody reads."""
_CLICK = sys.modules[typer.BadParameter.__module__]
"""The exceptions of click, which typer brings along or imports, depending on its version."""


_ORDER = (
    "run_command", "start_check", "config_commands", "daemon_commands", "send_command",
    "exec_command", "tail_command", "copy_command", "method_commands", "fleet_commands",
    "history_commands", "job_commands", "ps_command", "outbox_commands", "inbox_commands",
    "jetstream_commands", "context_commands", "broker_commands", "enrol_command",
    "node_commands", "can_command", "doctor_command", "audit_command", "wire_command",
    "bench_command", "runner_command", "setup_command", "completing", "demo_command",
)  # fmt: skip
"""In which the help shows commands, by their modules. What is not named here comes behind it, by name."""

_EXIT_CODES = """\b
Exit codes:
  0  done              3  no answer      70  a bug of ours
  1  failed, degraded  64 wrong use      74  output not written
  2  changes (plan)    65 bad data       77  no permission
                       69 no daemon      78  bad config
  130 interrupted      141 the reader of the output has gone
exec with one node: the program's own.
"""


def find_commands(package: ModuleType) -> Iterator[ModuleType]:
    """Every module of commands: those that `_ORDER` names, and whatever else is called one and registers any."""
    for name in _ORDER:
        yield importlib.import_module(f"{package.__name__}.{name}")
    for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        if entry.name.endswith(("_command", "_commands")) and entry.name not in _ORDER:
            module = importlib.import_module(f"{package.__name__}.{entry.name}")
            if hasattr(module, "register"):
                yield module


def make_app() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        name=PROGRAM,
        help="A declarative, hot-reloading message daemon for NATS that speaks Steward's wire.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        epilog=_EXIT_CODES,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_before_every_command)
    for commands in find_commands(appliance.cli):
        commands.register(app)
    add_server_options(app)
    return app


@functools.cache
def load_command() -> TyperGroup:
    """The command line with all commands, made when it is first needed: it takes longer than many a command runs."""
    return typer.main.get_group(make_app())


def _show_version(wanted: bool) -> None:
    if wanted:
        is_compiled = not str(message.__file__).endswith(".py")
        typer.echo(f"{PROGRAM} {__version__}{' (compiled)' if is_compiled else ''}")
        raise typer.Exit


def _before_every_command(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback when the program itself fails.")
    ] = False,
) -> None:
    """Runs before the command."""
    if context.invoked_subcommand != "run":
        early.restore()
    unknown = unknown_variables(os.environ)
    if unknown:
        warn(f"unknown environment variable{'s' if len(unknown) > 1 else ''}: {', '.join(unknown)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    standard_streams.guard()
    begin()
    try:
        code = _run(given)
        is_told = standard_streams.finish()
    except OutputLost as error:
        standard_streams.give_up_output()
        if error.is_reader_gone:
            return READER_GONE
        warn(str(error))
        return Exit.NOT_WRITTEN
    return Exit.NOT_WRITTEN if code == Exit.OK and not is_told else code


def _run(given: Sequence[str]) -> int:
    try:
        result = load_command().main(args=given, prog_name=PROGRAM, standalone_mode=False)
    except OutputLost:
        raise
    except _CLICK.UsageError as error:
        error.show(file=sys.stderr)
        if isinstance(error, _CLICK.NoSuchOption) and error.ctx and error.ctx.info_name == "send":
            warn("options of the method's own command go after --, as in: REQCliCommand -- ls -a")
        return Exit.USAGE
    except _CLICK.ClickException as error:
        error.show(file=sys.stderr)
        return Exit.FAILED
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except ConfigInvalid as error:
        print_problems(error.problems, sys.stderr)
        _warn_of_notes(error)
        return Exit.CONFIG
    except ApplianceError as error:
        warn(str(error))
        _warn_of_notes(error)
        return _code_of(error)
    except PermissionError as error:
        if "--debug" in given:
            traceback.print_exc()
        place = f" to use {error.filename}" if error.filename else ""
        warn(
            f"no permission{place}: {error.strerror or error}; its owner may, or its group; or say sudo"
        )
        return Exit.NO_PERMISSION
    except Exception as error:  # noqa: BLE001 - the boundary around the program
        if "--debug" in given:
            traceback.print_exc()
        else:
            warn(f"internal error: {type(error).__name__}: {error} (--debug shows where)")
        return Exit.BUG
    return int(result) if isinstance(result, int) else Exit.OK


def _warn_of_notes(error: ApplianceError) -> None:
    """What whoever passed the error on had to say about it."""
    for note in getattr(error, "__notes__", ()):
        warn(note)


def _code_of(error: ApplianceError) -> Exit:
    if isinstance(error, ConfigError):
        return Exit.CONFIG
    if isinstance(error, ServerInvalid | ContextsUnusable):
        return Exit.USAGE
    if isinstance(error, AccessWithdrawn | NotPermitted | SocketForbidden | StateDirForeign):
        return Exit.NO_PERMISSION
    if isinstance(error, DaemonError):
        return Exit.UNAVAILABLE
    if isinstance(error, ApiRefused) and error.status in (429, 502, 503, 504):
        return Exit.UNAVAILABLE
    return Exit.FAILED
