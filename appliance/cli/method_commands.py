"""`methods`: what can be sent, and what each method takes."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated

import typer

from appliance.api.model import Methods
from appliance.cli.api_client import Answer, ApiClient
from appliance.cli.method_view import render_list, render_method
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    warn,
)
from appliance.cli.server_options import connect
from appliance.core.suggest import did_you_mean, find_nearest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("methods")(methods)


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one and its arguments.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            metavar="PATH",
            help="Read this config instead of asking the daemon; may be repeated.",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """List what can be sent: the methods of the config and those of the program.

    With NAME: what that method does and which arguments it takes. Exits 64 for a name that is none,
    69 without a daemon, 78 for a bad config.
    """
    found = _read(config) if config else _fetch(connect(state_dir))
    if name is not None:
        names = [item.name for item in found.value.methods]
        if name not in names:
            nearest = find_nearest(name, names)
            warn(f"no method {name[:80]!r}{did_you_mean(nearest)}")
            return Exit.USAGE
        place = names.index(name)
        if output is Output.JSON:
            print_json(found.plain["methods"][place])
        else:
            typer.echo(render_method(found.value.methods[place]))
    elif output is Output.JSON:
        print_json(found.plain)
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        typer.echo(render_list(found.value.methods, columns))
    return Exit.OK


def show_usage(client: ApiClient, name: str) -> None:
    """The usage of a method on stderr, for somebody who called it wrongly."""
    from appliance.cli.method_view import render_usage

    for method in _fetch(client).value.methods:
        if method.name == name:
            print("\n".join(render_usage(method)), file=sys.stderr)  # noqa: T201


def _fetch(client: ApiClient) -> Answer[Methods]:
    return client.get("/api/v1/methods", Methods)


def _read(paths: list[str]) -> Answer[Methods]:
    from appliance.config.loader import load_desired
    from appliance.core.describe_methods import describe_methods
    from appliance.methods.registry import METHOD_TABLE

    loaded = load_desired(paths, environ=os.environ, methods=METHOD_TABLE)
    methods = describe_methods(METHOD_TABLE, loaded.desired.methods, loaded.desired.hidden)
    return Answer.of(Methods, {"methods": methods})
