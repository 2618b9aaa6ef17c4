"""What several commands share: options, exit codes, where the state directory is, how to print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.durations import parse_duration
from appliance.core.escape import escape_controls, escape_json

PROGRAM = "appliance"
SOCKET_NAME = "appliance.sock"
SYSTEM_STATE_DIR = Path("/var/lib/appliance")

ENVIRONMENT = {
    "APPLIANCE_CONFIG": "config paths, as PATH is written, for `run` and to find the state directory",
    "APPLIANCE_STATE_DIR": "--state-dir",
    "APPLIANCE_NODE": "--node of `run` and `check`",
    "APPLIANCE_LOG_LEVEL": "--log-level of `run`",
    "APPLIANCE_LOG_FORMAT": "--log-format of `run`",
    "APPLIANCE_SIGNED_BY": "--signed-by of `run`",
    "APPLIANCE_CONTEXT": "--context",
    "APPLIANCE_SERVER": "--server",
    "APPLIANCE_TOKEN": "the token itself, where no option and no context names its file",
    "APPLIANCE_TOKEN_FILE": "--token-file",
    "APPLIANCE_CA": "--ca",
    "APPLIANCE_CERT": "--cert",
    "APPLIANCE_KEY": "--key",
}


class Exit(IntEnum):
    """Exit codes; those from 64 on are the ones of sysexits.h that systemd knows too."""

    OK = 0
    FAILED = 1
    CHANGES = 2
    SILENT = 3
    USAGE = 64
    DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    BUG = 70
    NOT_WRITTEN = 74
    NO_PERMISSION = 77
    CONFIG = 78


class Output(StrEnum):
    """How facts are printed."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="For people or for machines.", show_default=True)
]


def _state_dir(words: str) -> Any:
    return typer.Option(
        "--state-dir",
        envvar="APPLIANCE_STATE_DIR",
        metavar="DIR",
        # what may not be looked at is told as such, and is no wrong use
        readable=False,
        help=words,
        show_default=False,
        show_envvar=False,
    )


STATE_DIR = _state_dir(
    "The state directory of the daemon: it names the one of this machine to talk to."
)
"""By this a command that talks to a daemon is known: it takes another one by `--context` and `--server`, too."""
StateDirOption = Annotated[Path | None, STATE_DIR]
OwnStateDirOption = Annotated[
    Path | None, _state_dir("The state directory of the daemon of this machine.")
]
"""Of a command that is a daemon itself, or reads the files of one: it works on their machine alone."""


UnusedStateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        readable=False,
        help="Taken as by every command; no daemon is asked here.",
        hidden=True,
    ),
]


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where state is when neither flag, environment nor config says: systemd's, root's or the
    user's place.
    """
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return Path(base) / PROGRAM


def find_state_dir(flag: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The state directory of the daemon that a client command talks to."""
    if flag is not None:
        return flag
    paths = split_paths(environ.get("APPLIANCE_CONFIG", ""))
    return _state_dir_of(paths, environ) or default_state_dir(environ)


def _state_dir_of(paths: Sequence[str], environ: Mapping[str, str]) -> Path | None:
    """`state.dir` of a config, as far as it can be read; a client must work while the config is
    broken.
    """
    if not paths:
        return None
    from appliance.config.merge import read_config
    from appliance.errors import ConfigError

    try:
        tree = read_config(paths, environ).tree
    except ConfigError:
        return None
    state = tree.get("state") if isinstance(tree, dict) else None
    found = state.get("dir") if isinstance(state, dict) else None
    return Path(found) if isinstance(found, str) and found else None


def split_paths(text: str) -> list[str]:
    """Paths as environment variables hold them."""
    return [part for part in text.split(os.pathsep) if part]


def split_names(values: Sequence[str]) -> list[str]:
    """Names given by repeating an option, or separated by commas."""
    names = [name.strip() for value in values for name in value.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def read_duration(option: str, text: str | None) -> float | None:
    """Seconds of an option's text, which may be a plain number. Raises BadParameter."""
    if text is None:
        return None
    try:
        return float(text) if text.isdecimal() else parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """APPLIANCE_… variables that mean nothing to us: probably a slip."""
    return sorted(
        name for name in environ if name.startswith("APPLIANCE_") and name not in ENVIRONMENT
    )


def warn(text: str) -> None:
    """A line for the one who typed the command; never part of the result."""
    print(f"{PROGRAM}: {escape_controls(text)}", file=sys.stderr)  # noqa: T201


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    text = json.dumps(value, indent=2, ensure_ascii=not is_utf8(), default=str)
    print(escape_json(text))  # noqa: T201


def print_json_line(value: Any) -> None:
    """One JSON line on stdout, at once."""
    line = json.dumps(value, ensure_ascii=not is_utf8(), default=str)
    print(escape_json(line), flush=True)  # noqa: T201


def is_utf8() -> bool:
    """Whether stdout takes every character as it is."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def find_own_command(argv0: str | None = None) -> list[str]:
    """How this very program is started again, by what it was started with: the words before the arguments.

    The command of the package is a program of its own that sees to certificates and the broker's package; only where
    there is none (`python -m appliance`) is the interpreter asked for the module.
    """
    started_as = sys.argv[0] if argv0 is None else argv0
    path = os.path.abspath(started_as)
    is_program = os.path.isfile(path) and os.access(path, os.X_OK)
    if is_program and os.path.basename(path) == PROGRAM:
        return [path]
    return [sys.executable, *_isolation(), "-m", "appliance"]


def _isolation() -> list[str]:
    """An interpreter that takes no module from directory or environment starts another of that kind."""
    return ["-I"] if sys.flags.isolated else []
