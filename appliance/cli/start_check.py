"""What a start would do, told before its first effect: `run --check`, and the same for a service of systemd.

An upgrade asks this. What the service is started with (its command line with every drop-in, its environment, its user)
is asked of systemd; where none runs, the unit's own words and the environment files stand for it. A daemon that runs
is asked, too: what it refused for a reason that lies outside of the files, the files do not show.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.cli.options import SYSTEM_STATE_DIR, Exit, find_own_command, warn
from appliance.core.run_options import RunOptions

_RUNNING_SYSTEMD = Path("/run/systemd/system")
_BUS_TIMEOUT_S = 10.0
_PROPERTIES = (
    *("ExecStart", "Environment", "EnvironmentFiles", "StateDirectory"),
    *("User", "Group", "SupplementaryGroups"),
)
_EXISTS = ("ConditionPathExists", "ConditionPathExistsGlob")
_FILES = ("*.yaml", "*.yml", "conf.d/*.yaml", "conf.d/*.yml")
_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WHOLE_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_USER = "appliance"
"""The user of the packages' unit."""
_NOWHERE = "/nonexistent"
_KEPT = ("PATH", "LANG")


def register(app: typer.Typer) -> None:
    """Add the command that the packages ask."""
    app.command("service-check", hidden=True)(service_check)


def check_start(options: RunOptions) -> int:
    """Tell what `run` with these options would do; nothing is touched."""
    from appliance.cli.problem_text import say_count
    from appliance.cli.verdict_view import print_problems
    from appliance.daemon.run import predict_start

    state_dir, start, problems = predict_start(options)
    if problems:
        print_problems(problems, sys.stderr)
        if start.problems:
            warn("a start would fall back to the last set that was in force")
        return Exit.CONFIG
    if start.first.warnings:
        print_problems(start.first.warnings, sys.stderr, None)
    refused = _ask_daemon(state_dir)
    if refused:
        print_problems(refused, sys.stderr)
        warn("this is what the running daemon says of the files")
        return Exit.CONFIG
    nodes = start.first.desired.run_nodes
    what = "the set that is pinned" if start.pin is not None else "ok"
    workers = say_count(len(start.first.desired.workers), "worker")
    typer.echo(f"{what}: starts {', '.join(nodes)} with {workers}")
    return Exit.OK


def _ask_daemon(state_dir: Path) -> list[Any]:
    """Why a daemon that runs refuses the files, as far as that lies outside of them."""
    from appliance.api.model import Status
    from appliance.cli.api_client import ApiClient, ApiRefused, UnixWay
    from appliance.errors import DaemonError
    from appliance.reconcile.reload_result import OUTSIDE

    try:
        attempt = (
            ApiClient(UnixWay(state_dir)).get("/api/v1/status", Status).value.config.last_attempt
        )
    except (DaemonError, ApiRefused):
        return []  # none runs, or one that is too old to say
    if attempt is None or attempt.result != "refused":
        return []
    # NB: what it refused in the files themselves may be what the new version is for
    return [item for item in attempt.problems if item.code in OUTSIDE]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStart:
    """How systemd starts a service."""

    arguments: Sequence[str]
    """After the program."""
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, bool]] = ()
    """Environment files, and whether each may be missing."""
    state_dir: str = ""
    user: str = ""
    group: str = ""
    groups: Sequence[str] = ()
    needs: Sequence[str] = ()
    """Patterns of paths, one of which must be there; without any it starts in any case."""


def service_check(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="What the unit runs.")],
    environment_file: Annotated[
        list[str] | None, typer.Option("--environment-file", help="What the unit reads.")
    ] = None,
    unit: Annotated[str, typer.Option("--unit", help="Asked of systemd.")] = "appliance.service",
) -> int:
    """Say whether a service would start: `run --check` with its command line, environment and user.

    Ends with 66 where there is nothing that it could start with.
    """
    start = ask_systemd(unit) or ServiceStart(
        arguments=["run", *paths],
        files=[(path, True) for path in environment_file or ()],
        state_dir=str(SYSTEM_STATE_DIR),
        user=_USER,
        needs=[f"{path}/{name}" for path in paths for name in _FILES],
    )
    if start.needs and not any(map(glob.glob, start.needs)):
        return Exit.NO_INPUT
    environment = make_environment(start, os.environ)
    arguments = expand_arguments(start.arguments, environment)
    if "run" not in arguments:
        warn(f"{unit} does not start `appliance run`: {' '.join(arguments)}")
        return Exit.USAGE
    command = [*find_own_command(), *arguments, "--check"]
    return subprocess.run(command, env=environment, check=False, **_identity(start)).returncode


def ask_systemd(unit: str) -> ServiceStart | None:
    """How this systemd starts the unit now, drop-ins included; None where it cannot be asked."""
    busctl = shutil.which("busctl")
    if busctl is None or not _RUNNING_SYSTEMD.is_dir():
        return None
    path = "/org/freedesktop/systemd1/unit/" + re.sub(
        r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", unit
    )

    def ask(kind: str, *names: str) -> dict[str, Any]:
        place = ("org.freedesktop.systemd1", path, f"org.freedesktop.systemd1.{kind}")
        done = subprocess.run(
            [busctl, "--json=short", "get-property", *place, *names],
            capture_output=True,
            text=True,
            timeout=_BUS_TIMEOUT_S,
            check=False,
        )
        answers = [json.loads(line)["data"] for line in done.stdout.splitlines()]
        return dict(zip(names, answers, strict=True))

    try:
        return read_answers({**ask("Service", *_PROPERTIES), **ask("Unit", "Conditions")})
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        return None


def read_answers(found: Mapping[str, Any]) -> ServiceStart | None:
    """What systemd's properties say of a start; None where the unit starts nothing."""
    if not found["ExecStart"]:
        return None
    words = [str(word) for word in found["ExecStart"][0][1]]
    names = [str(name) for name in found["StateDirectory"]]
    return ServiceStart(
        arguments=words[1:],
        environment=dict(str(entry).partition("=")[::2] for entry in found["Environment"]),
        files=[(str(path), bool(is_optional)) for path, is_optional in found["EnvironmentFiles"]],
        state_dir=f"/var/lib/{names[0]}" if names else "",
        user=str(found["User"]),
        group=str(found["Group"]),
        groups=[str(name) for name in found["SupplementaryGroups"]],
        needs=[
            str(pattern)
            for kind, is_one_of, is_negated, pattern, _ in found["Conditions"]
            if kind in _EXISTS and is_one_of and not is_negated
        ],
    )


def make_environment(start: ServiceStart, own: Mapping[str, str]) -> dict[str, str]:
    """What the service gets: nothing of the asker's own but where programs are and its language."""
    from appliance.config.environment_file import MAX_FILE_BYTES, parse_environment_file

    found = {name: own[name] for name in _KEPT if name in own}
    entry = _find_user(start.user)
    if start.state_dir:
        # what a user that is not there yet has kept: nothing
        is_known = entry is not None or not start.user
        found["STATE_DIRECTORY"] = start.state_dir if is_known else _NOWHERE
    if entry is not None:
        found |= {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
        found["SHELL"] = entry.pw_shell
    found |= start.environment
    for path, is_optional in start.files:
        try:
            with open(path, encoding="utf-8") as file:
                found |= parse_environment_file(file.read(MAX_FILE_BYTES))
        except (OSError, UnicodeDecodeError) as error:
            if not is_optional:
                raise typer.BadParameter(f"{path}: {error}") from None
    return found


def expand_arguments(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Put variables in as systemd does: `${NAME}` anywhere, `$NAME` as words of their own."""

    def value_of(found: re.Match[str]) -> str:
        return environment.get(found[1], "") if found[1] else "$"

    expanded: list[str] = []
    for word in words:
        whole = _WHOLE_VARIABLE.fullmatch(word)
        if whole is not None:
            expanded += environment.get(whole[1], "").split()
        else:
            expanded.append(_VARIABLE.sub(value_of, word))
    return expanded


def _identity(start: ServiceStart) -> dict[str, Any]:
    """Root asks as the service's user: what that one may not read the service cannot, either."""
    entry = _find_user(start.user)
    if os.geteuid() != 0 or entry is None:
        return {}
    return {
        "user": entry.pw_uid,
        "group": start.group or entry.pw_gid,
        "extra_groups": list(start.groups),
        "cwd": "/",
    }


def _find_user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name) if name else None
    except KeyError:
        return None
