"""`methods`: what can be sent, and what each method takes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from appliance.cli.api_client import ApiClient
from appliance.cli.method_view import render_list, render_method
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    find_state_dir,
    print_json,
    warn,
)
from appliance.core.suggest import find_nearest

Json = dict[str, Any]


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
    found = _read(config) if config else fetch_methods(ApiClient(find_state_dir(state_dir)))
    if name is not None:
        chosen = next((item for item in found if item["name"] == name), None)
        if chosen is None:
            nearest = find_nearest(name, [str(item["name"]) for item in found])
            hint = f"; did you mean {nearest}?" if nearest else ""
            warn(f"no method {name[:80]!r}{hint}")
            return Exit.USAGE
        print_json(chosen) if output is Output.JSON else typer.echo(render_method(chosen))
    elif output is Output.JSON:
        print_json({"methods": found})
    else:
        typer.echo(render_list(found))
    return Exit.OK


def fetch_methods(client: ApiClient) -> list[Json]:
    """The methods of the running daemon."""
    found: list[Json] = client.get("/api/v1/methods")["methods"]
    return found


def show_usage(client: ApiClient, name: str) -> None:
    """The usage of a method on stderr, for somebody who called it wrongly."""
    from appliance.cli.method_view import render_usage

    for method in fetch_methods(client):
        if method["name"] == name:
            print("\n".join(render_usage(method)), file=sys.stderr)  # noqa: T201


def _read(paths: list[str]) -> list[Json]:
    from appliance.config.loader import load_desired
    from appliance.core.describe_methods import describe_methods
    from appliance.methods.registry import METHOD_TABLE

    loaded = load_desired(paths, environ=os.environ, methods=METHOD_TABLE)
    return describe_methods(METHOD_TABLE, loaded.desired.methods)
