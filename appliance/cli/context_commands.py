"""`context`: names for servers, so that a command says `-c NAME` and no more."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.api.model import Access, Status
from appliance.cli.api_client import ApiClient, NotPermitted
from appliance.cli.contexts import (
    HERE,
    NAME,
    Context,
    Contexts,
    contexts_path,
    read_contexts,
    remove_token,
    token_path,
    write_contexts,
    write_token,
)
from appliance.cli.options import Exit, Output, OutputOption, print_json, warn
from appliance.cli.remote_way import MAX_TOKEN_BYTES, RemoteWay, check_token, parse_server
from appliance.cli.server_options import ServerOptions, make_server
from appliance.core.escape import escape_line

NameArgument = Annotated[str, typer.Argument(metavar="CONTEXT", help="The context.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="Names for servers on other machines: `appliance -c NAME status`.",
        no_args_is_help=True,
    )
    group.command("add")(add)
    group.command("use")(use)
    group.command("list")(list_all)
    group.command("show")(show)
    group.command("remove")(remove)
    group.command("test")(try_out)
    app.add_typer(group, name="context")


def _file(*names: str, words: str) -> Any:
    return typer.Option(*names, metavar="FILE", help=words, readable=False)


def add(
    name: NameArgument,
    server: Annotated[
        str, typer.Option("--server", metavar="URL", help="Where it is, as https://host:8090.")
    ],
    token_file: Annotated[
        Path | None,
        _file("--token-file", words="Holds the token to bring; read with each command."),
    ] = None,
    token_stdin: Annotated[
        bool,
        typer.Option(
            "--token-stdin",
            help="Read the token from standard input, and keep it beside the contexts.",
        ),
    ] = False,
    ca: Annotated[
        Path | None,
        _file("--ca", words="The authority that signed the server's certificate."),
    ] = None,
    cert: Annotated[Path | None, _file("--cert", words="A certificate to bring.")] = None,
    key: Annotated[Path | None, _file("--key", words="The key of the certificate.")] = None,
    insecure_http: Annotated[
        bool,
        typer.Option(
            "--insecure-http",
            help="Take http:// to another machine, where everybody on the way reads the token.",
        ),
    ] = False,
) -> int:
    """Name a server, in the place of one of this name. Nothing is asked of it: `context test` does.

    The first one is used from then on where nothing else is said.
    """
    _check_name(name)
    if token_stdin and token_file is not None:
        raise typer.BadParameter("say one of them", param_hint="--token-file, --token-stdin")
    if (cert is None) != (key is None):
        raise typer.BadParameter("a certificate needs both", param_hint="--cert, --key")
    parse_server(server, may_be_plain=insecure_http)
    contexts = read_contexts(contexts_path())
    if token_stdin:
        token_file = token_path(name)
        write_token(token_file, _read_token())
    files = {"token_file": token_file, "ca": ca, "cert": cert, "key": key}
    missing = [
        path for path in files.values() if path is not None and not path.expanduser().exists()
    ]
    for path in missing:
        warn(f"{path} is not there yet")
    places = {
        option: None if path is None else os.path.abspath(path.expanduser())
        for option, path in files.items()
    }
    if not token_stdin and (name in contexts.by_name):
        _forget_token(name, contexts)
    made = contexts.with_one(name, Context(server=server, insecure_http=insecure_http, **places))
    if not contexts.by_name and contexts.current is None:
        made = made.using(name)
    write_contexts(contexts_path(), made)
    typer.echo(f"{name}: {server}{' (in use)' if made.current == name else ''}")
    return Exit.OK


def use(
    name: Annotated[
        str, typer.Argument(metavar="CONTEXT", help="The context, or `local` for this machine.")
    ],
) -> int:
    """Talk to this server where a command says nothing else."""
    contexts = read_contexts(contexts_path())
    if name != HERE:
        contexts.find(name)
    write_contexts(contexts_path(), contexts.using(None if name == HERE else name))
    typer.echo(f"{name} is in use")
    return Exit.OK


def list_all(output: OutputOption = Output.TEXT) -> int:
    """Show all of them; the one in use has a star."""
    from appliance.cli.terminal import print_table

    contexts = read_contexts(contexts_path())
    if output is Output.JSON:
        shown = {name: _facts(item) for name, item in sorted(contexts.by_name.items())}
        print_json({"current": contexts.current, "contexts": shown})
        return Exit.OK
    if not contexts.by_name:
        typer.echo("no contexts; `appliance context add NAME --server https://host:8090` makes one")
        return Exit.OK
    rows = [
        ("*" if name == contexts.current else "", name, item.server, _say_login(item))
        for name, item in sorted(contexts.by_name.items())
    ]
    print_table(("", "NAME", "SERVER", "BRINGS"), rows)
    return Exit.OK


def show(name: NameArgument, output: OutputOption = Output.TEXT) -> int:
    """Show one; never a token."""
    facts = _facts(read_contexts(contexts_path()).find(name))
    if output is Output.JSON:
        print_json(facts)
        return Exit.OK
    for key, value in facts.items():
        typer.echo(escape_line(f"{key:<14} {value}"))
    return Exit.OK


def remove(name: NameArgument) -> int:
    """Forget one, and the token that was typed in for it."""
    contexts = read_contexts(contexts_path())
    contexts.find(name)
    _forget_token(name, contexts)
    write_contexts(contexts_path(), contexts.without(name))
    typer.echo(f"{name} is forgotten")
    return Exit.OK


def try_out(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[CONTEXT]", help="The context; the one in use otherwise."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> int:
    """Ask the server who it is, and who we are to it. Exits 0, 69 not reached or not trusted, 77 not let in."""
    contexts = read_contexts(contexts_path())
    name = name or os.environ.get("APPLIANCE_CONTEXT") or contexts.current
    if name is None or name == HERE:
        raise typer.BadParameter("no context is in use; name one", param_hint="CONTEXT")
    server = make_server(contexts.find(name), ServerOptions(), os.environ)
    client = ApiClient(RemoteWay(server))
    access = client.get("/api/v1/access", Access)
    status = Status()
    # who may send needs not be one who may look
    with contextlib.suppress(NotPermitted):
        status = client.get("/api/v1/status", Status).value
    if output is Output.JSON:
        facts = {"server": str(server.url), "version": status.version, "access": access.plain}
        print_json(facts)
        return Exit.OK
    typer.echo(escape_line(f"{name}: {server.url} is an appliance {status.version or ''}".rstrip()))
    if status.nodes:
        typer.echo(escape_line(f"nodes: {', '.join(list(status.nodes)[:10])}"))
    found = access.value
    who = found.name or "nobody by name"
    if not (found.name or found.token_configured):
        who += " (no token is set up there)"
    may = ", ".join(found.scopes or ()) or ("everything" if found.may_write else "nothing but look")
    typer.echo(escape_line(f"we are {who}, and may: {may}"))
    if found.expires_at:
        typer.echo(escape_line(f"until {found.expires_at}"))
    return Exit.OK


def _check_name(name: str) -> None:
    if name == HERE or NAME.fullmatch(name) is None:
        raise typer.BadParameter(
            "a name is of letters, digits, '_', '-' and inner dots, and not `local`",
            param_hint="CONTEXT",
        )


def _read_token() -> str:
    is_typed = sys.stdin.isatty()
    raw = (
        getpass.getpass("token: ").encode()
        if is_typed
        else sys.stdin.buffer.read(MAX_TOKEN_BYTES + 1)
    )
    return check_token(raw, "what was typed in")


def _forget_token(name: str, contexts: Contexts) -> None:
    path = token_path(name)
    if contexts.by_name[name].token_file == str(path):
        remove_token(path)


def _facts(context: Context) -> dict[str, Any]:
    return {key: value for key, value in asdict(context).items() if value not in (None, False)}


def _say_login(context: Context) -> str:
    brings = [
        *(["token"] if context.token_file else []),
        *(["certificate"] if context.cert else []),
    ]
    return " and ".join(brings) or "nothing"
