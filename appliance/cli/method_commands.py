"""`methods`: what can be sent, and what each method takes."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Annotated

import typer
from msgspec import UNSET

from appliance.api.model import Argument, Method, Methods
from appliance.cli.api_client import Answer, ApiClient
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    warn,
)
from appliance.cli.server_options import connect
from appliance.core.durations import format_duration
from appliance.core.escape import escape_line
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


# How to call a method, in words. Pure: methods of the API in, text out.

_DOES = {
    "exec": "runs a program; the answer is its output",
    "http": "makes an HTTP request; the answer is the body of what came back",
    "file": "writes a file below the data directory",
}
_INDENT = "  "


def render_list(methods: Sequence[Method], columns: int | None = None) -> str:
    """One line per method, those of the config first; on a terminal that is too narrow for that (`columns`) some more."""
    calls = [f"{method.name} {method.usage}".strip() for method in methods]
    width = min(44, max((len(call) for call in calls), default=0))
    lines: list[str] = []
    source = None
    for method, call in zip(methods, calls, strict=True):
        if method.source != source:
            source = method.source
            lines += [*([""] if lines else []), _SOURCES.get(source, source)]
        words = f"{_INDENT}{call:{width}s}  {method.kind:7s}  {method.summary}"
        lines.append(escape_line(words).rstrip())
    if columns is None or all(len(line) <= columns for line in lines):
        return "\n".join(lines)
    lines, source = [], None
    for method, call in zip(methods, calls, strict=True):
        if method.source != source:
            source = method.source
            lines += [*([""] if lines else []), _SOURCES.get(source, source)]
        lines.append(escape_line(f"{_INDENT}{call}, {_article(method.kind)}"))
        if method.summary:
            lines.append(
                textwrap.fill(
                    escape_line(method.summary),
                    max(columns, 40),
                    initial_indent=3 * _INDENT,
                    subsequent_indent=3 * _INDENT,
                )
            )
    return "\n".join(lines)


_SOURCES = {"config": "of the config:", "builtin": "of the program:"}


def render_method(method: Method) -> str:
    """What a method does and takes: the help text of one that somebody else declared."""
    origin = "declared in the config" if method.source == "config" else "of the program"
    title = f"{method.name}: {method.summary}" if method.summary else method.name
    lines = [title, "", *render_usage(method), "", _say_kind(method.kind, origin)]
    does = _DOES.get(method.does or "")
    if does:
        lines.append(does)
    if method.timeout_seconds:
        span = format_duration(method.timeout_seconds)
        lines.append(f"stopped after {span} unless a message says more")
    return "\n".join(escape_line(line) for line in lines)


def _say_kind(kind: str, origin: str) -> str:
    return f"{_article(kind)}, {origin}"


def _article(kind: str) -> str:
    return f"{'an' if kind.startswith('e') else 'a'} {kind}"


def render_usage(method: Method) -> list[str]:
    """The usage line, and a line or two for each argument."""
    call = f"usage: appliance send --to NODE {method.name}"
    gap = " " if method.args is not None else " -- "
    lines = [f"{call}{gap}{method.usage}" if method.usage else call]
    arguments = method.args or []
    if method.args == []:
        lines.append(f"{_INDENT}takes no arguments")
    width = max((len(_name_of(argument)) for argument in arguments), default=0)
    for argument in arguments:
        lines.append(f"{_INDENT}{_name_of(argument):{width}s}  {_describe(argument)}")
        if argument.description:
            lines.append(f"{_INDENT}{'':{width}s}  {argument.description}")
    return [escape_line(line) for line in lines]


def _name_of(argument: Argument) -> str:
    return argument.name.replace(" ", "-").upper()


def _describe(argument: Argument) -> str:
    parts = [_values_of(argument)]
    if not argument.required:
        parts.append("may be left out")
    if argument.repeats:
        parts.append(f"up to {argument.most} of them" if argument.most else "any number of them")
    return ", ".join(parts)


def _values_of(argument: Argument) -> str:
    choices = argument.choices
    if choices:
        shown = " | ".join(_say(choice) for choice in choices[:20])
        return shown if len(choices) <= 20 else f"{shown} | …"
    words = argument.type or "text"
    least, most = argument.minimum, argument.maximum
    if least is not UNSET and most is not UNSET:
        words += f" from {least} to {most}"
    elif least is not UNSET:
        words += f", at least {least}"
    elif most is not UNSET:
        words += f", at most {most}"
    if argument.pattern:
        words += f" like {argument.pattern}"
    if argument.length:
        shortest, longest = argument.length
        words += f" of {shortest} to {longest} characters" if longest else f" of {shortest} or more"
    return words


def _say(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
