"""Which daemon a command talks to: that of a state directory here, or one elsewhere by its URL or as a context.

A flag wins over the environment, that over the current context, that over the daemon of this machine. What is brought
(token, authority, certificate) belongs to the server it was given with: nothing of one context, and nothing of the
environment that a context names itself, is sent to another server.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import os
import shlex
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.cli.api_client import ApiClient, UnixWay
from appliance.cli.contexts import HERE, Context, contexts_path, read_contexts
from appliance.cli.options import STATE_DIR, find_state_dir
from appliance.cli.remote_way import RemoteWay, Server, check_token, parse_server, read_token


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a command line says of it, before the command or behind it."""

    context: str | None = None
    server: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    insecure_http: bool = False

    def under(self, nearer: ServerOptions) -> ServerOptions:
        """These, save for what is said nearer to the command."""
        given = {
            item.name: getattr(nearer, item.name)
            for item in fields(nearer)
            if getattr(nearer, item.name) not in (None, False)
        }
        return replace(self, **given)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is said."""
        return self == ServerOptions()


def _option(*names: str, words: str, metavar: str | None = None, hidden: bool = False) -> Any:
    return typer.Option(
        *names, metavar=metavar, help=words, readable=False, hidden=hidden, show_default=False
    )


def _annotations(*, hidden: bool) -> dict[str, Any]:
    """Of the parameters, by name; before the command all are shown, behind it what says where."""
    return {
        "context": Annotated[
            str | None,
            _option(
                "-c",
                "--context",
                metavar="CONTEXT",
                words="A server by the name that `appliance context add` gave it; `local`: this machine.",
            ),
        ],
        "server": Annotated[
            str | None,
            _option(
                "--server", metavar="URL", words="The daemon to talk to, as https://host:8090."
            ),
        ],
        "token_file": Annotated[
            Path | None,
            _option(
                "--token-file", metavar="FILE", words="Holds the token to bring.", hidden=hidden
            ),
        ],
        "ca": Annotated[
            Path | None,
            _option(
                "--ca",
                metavar="FILE",
                words="The authority that signed the server's certificate; the system's otherwise.",
                hidden=hidden,
            ),
        ],
        "cert": Annotated[
            Path | None,
            _option("--cert", metavar="FILE", words="A certificate to bring.", hidden=hidden),
        ],
        "key": Annotated[
            Path | None,
            _option("--key", metavar="FILE", words="The key of the certificate.", hidden=hidden),
        ],
        "insecure_http": Annotated[
            bool,
            typer.Option(
                "--insecure-http",
                help="Take http:// to other machines, where everybody on the way reads the token.",
                hidden=hidden,
            ),
        ],
    }


_PREFIX = "server_option_"
"""Of the parameters, which a command may have under the plain names for something else."""
_NOTHING = ServerOptions()
_GIVEN: contextvars.ContextVar[ServerOptions] = contextvars.ContextVar(
    "server options", default=_NOTHING
)


def add_server_options(app: typer.Typer) -> None:
    """Give every command that talks to a daemon the options, and have the others say that they do not."""
    root = app.registered_callback
    assert root is not None
    assert root.callback is not None
    root.callback = _taking(root.callback, _annotations(hidden=False))
    _add_below(app)


def _add_below(app: typer.Typer) -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        command.callback = _taught(command.callback)
    for group in app.registered_groups:
        below = group.typer_instance
        assert below is not None
        if below.registered_callback is not None and below.registered_callback.callback is not None:
            below.registered_callback.callback = _taught(below.registered_callback.callback)
        _add_below(below)


def _taught(command: Callable[..., Any]) -> Callable[..., Any]:
    if talks_to_daemon(command):
        return _taking(command, _annotations(hidden=True))
    return command if command.__module__.endswith(".context_commands") else _here_alone(command)


def talks_to_daemon(command: Callable[..., Any]) -> bool:
    """Whether it takes the state directory of the daemon that it talks to."""
    hints = typing.get_type_hints(command, include_extras=True)
    return STATE_DIR in getattr(hints.get("state_dir"), "__metadata__", ())


def _taking(command: Callable[..., Any], annotations: Mapping[str, Any]) -> Callable[..., Any]:
    """The command with the options behind its own."""
    names = tuple(annotations)

    @functools.wraps(command)
    def taking(**values: Any) -> Any:
        nearer = ServerOptions(**{name: values.pop(_PREFIX + name) for name in names})
        # NB: what stands before a command is kept until the command has read it
        _GIVEN.set(_GIVEN.get().under(nearer))
        return command(**values)

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(
            _PREFIX + name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if name == "insecure_http" else None,
            annotation=annotation,
        )
        for name, annotation in annotations.items()
    ]
    taking.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    taking.__annotations__ = {
        **typing.get_type_hints(command, include_extras=True),
        **{_PREFIX + name: annotation for name, annotation in annotations.items()},
    }
    return taking


def _here_alone(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def here_alone(*args: Any, **values: Any) -> Any:
        if not _GIVEN.get().is_empty:
            raise typer.BadParameter(
                "this command works on this machine alone and asks no server",
                param_hint="--context, --server",
            )
        return command(*args, **values)

    return here_alone


def begin() -> None:
    """Forget what an earlier command line in this process said."""
    _GIVEN.set(ServerOptions())


def connect(state_dir: Path | None) -> ApiClient:
    """The daemon that the command line, the environment or the current context says."""
    place = choose(_GIVEN.get(), state_dir, os.environ)
    return ApiClient(UnixWay(place) if isinstance(place, Path) else RemoteWay(place))


def daemon_words(state_dir: Path | None) -> str:
    """The options as they must be repeated in a command that is suggested, with a space before them."""
    place = choose(_GIVEN.get(), state_dir, os.environ)
    if isinstance(place, Server):
        return place.options
    if _GIVEN.get().context == HERE:
        return f" -c {HERE}"
    if state_dir is None or str(state_dir) == os.environ.get("APPLIANCE_STATE_DIR"):
        return ""
    return f" --state-dir {shlex.quote(str(state_dir))}"


def choose(
    given: ServerOptions, state_dir: Path | None, environ: Mapping[str, str]
) -> Path | Server:
    """A state directory of this machine, or a server.

    Raises:
        BadParameter: two daemons are named.
        ServerInvalid, ContextsUnusable: what is named cannot be used.
    """
    in_environment = environ.get("APPLIANCE_STATE_DIR") or None
    is_flag = state_dir is not None and str(state_dir) != in_environment
    if given.context is not None and given.server is not None:
        raise typer.BadParameter("say one of them", param_hint="--context, --server")
    if given.context is not None or given.server is not None:
        if is_flag:
            raise typer.BadParameter(
                "a state directory is one of this machine; say one of them",
                param_hint="--state-dir, --context, --server",
            )
        return _named(given, given.context, given.server, state_dir, environ)
    if is_flag:
        return find_state_dir(state_dir, environ)
    context = environ.get("APPLIANCE_CONTEXT") or None
    server = environ.get("APPLIANCE_SERVER") or None
    # which was meant cannot be told, and a command for one must not reach another
    both = [
        name
        for name in ("APPLIANCE_SERVER", "APPLIANCE_CONTEXT", "APPLIANCE_STATE_DIR")
        if environ.get(name)
    ]
    if len(both) > 1:
        raise typer.BadParameter(
            f"{' and '.join(both)} are set, which name two daemons; say it by an option",
            param_hint="--context, --server, --state-dir",
        )
    if context is not None or server is not None:
        return _named(given, context, server, None, environ)
    if not any(
        environ.get(name) for name in ("APPLIANCE_STATE_DIR", "APPLIANCE_CONFIG", "STATE_DIRECTORY")
    ):
        current = read_contexts(contexts_path(environ)).current
        if current is not None:
            return _named(given, current, None, None, environ)
    return find_state_dir(state_dir, environ)


def _named(
    given: ServerOptions,
    context: str | None,
    server: str | None,
    state_dir: Path | None,
    environ: Mapping[str, str],
) -> Path | Server:
    if context == HERE:
        return find_state_dir(state_dir, environ)
    if context is None:
        assert server is not None
        words = f" --server {shlex.quote(server)}{_repeat(given)}"
        return make_server(Context(server=server), given, environ, options=words)
    found = read_contexts(contexts_path(environ)).find(context)
    return make_server(found, given, environ, options=f" -c {shlex.quote(context)}{_repeat(given)}")


def _repeat(given: ServerOptions) -> str:
    """What is brought, as options."""
    names = ("token_file", "ca", "cert", "key")
    words = [
        f" --{name.replace('_', '-')} {shlex.quote(str(getattr(given, name)))}"
        for name in names
        if getattr(given, name) is not None
    ]
    return "".join([*words, " --insecure-http" if given.insecure_http else ""])


def make_server(
    context: Context, given: ServerOptions, environ: Mapping[str, str], *, options: str = ""
) -> Server:
    """A server with what is brought to it: by option, else what the context names, else by the environment.

    Raises:
        ServerInvalid: something of it cannot be used.
    """

    def find(name: str) -> Path | None:
        value = (
            getattr(given, name)
            or getattr(context, name)
            or environ.get(f"APPLIANCE_{name.upper()}")
        )
        return Path(value).expanduser() if value else None

    url = parse_server(context.server, may_be_plain=given.insecure_http or context.insecure_http)
    token = None
    if given.token_file is None and context.token_file is None and environ.get("APPLIANCE_TOKEN"):
        token = check_token(os.fsencode(environ["APPLIANCE_TOKEN"]), "APPLIANCE_TOKEN")
    elif (token_file := find("token_file")) is not None:
        token = read_token(token_file)
    return Server(
        url=url, token=token, ca=find("ca"), cert=find("cert"), key=find("key"), options=options
    )
