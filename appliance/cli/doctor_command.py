"""`doctor`: the checklist of a machine that is part of a fleet, looked at here and now."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import shutil
import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance import __version__
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    OwnStateDirOption,
    find_state_dir,
    print_json,
    split_names,
    split_paths,
)
from appliance.cli.terminal import print_table
from appliance.core.checklist import (
    DaemonFacts,
    FileFacts,
    Grade,
    Point,
    check_broker,
    check_clock,
    check_daemon,
    check_keys,
    check_listeners,
    check_proof,
    check_readers,
    check_rights,
    check_room,
    check_source,
    check_writers,
    count_grades,
    worst_of,
)
from appliance.core.names import NodeName
from appliance.core.specs import DesiredState
from appliance.durable_file import takes_no_writes
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from appliance.api.model import Status

RUNNER_ALLOW = Path("/etc/appliance/runner.allow")
_TIMEX_BYTES = 512
"""Room for struct timex, of which only the kernel's answer is read (Linux: 208 bytes)."""
_TIME_ERROR = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Config files and directories. Default: APPLIANCE_CONFIG, else what the daemon runs.",
            metavar="[PATH]…",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    state_dir: OwnStateDirOption = None,
) -> int:
    """Go through the checklist of docs/security.md on this machine.

    Who may change the config and read its secrets, how the daemon gets to the broker and as whom, what nodes let others do,
    what listens, whether the daemon is well and is the one that is installed, clock and room. Nothing is changed. What
    cannot be seen from here is told as unknown: ask as root. Exit 0 where no point is bad, 1 where one is.
    """
    from appliance.config.loader import load_desired
    from appliance.methods.registry import METHOD_TABLE

    directory = find_state_dir(state_dir)
    given = paths or split_paths(os.environ.get("APPLIANCE_CONFIG", "")) or _paths_of(directory)
    if not given:
        raise typer.BadParameter(
            "name the config: no daemon that could be asked runs here", param_hint="PATH"
        )
    loaded = load_desired(given, environ=os.environ, methods=METHOD_TABLE)
    fleet = replace(loaded.desired, run_nodes=_find_own_nodes(loaded.desired, directory))
    points = list(_look(fleet, [*given, *loaded.files], directory))
    counts = count_grades(points)
    worst = worst_of(points)
    if output is Output.JSON:
        print_json(
            {
                "ok": worst is not Grade.BAD,
                "points": [point._asdict() for point in points],
                "summary": {str(grade): count for grade, count in counts.items()},
            }
        )
    else:
        rows = [(point.name, str(point.grade), _say(point)) for point in points]
        print_table(("POINT", "IS", "WHAT"), rows)
        told = ", ".join(f"{count} {grade}" for grade, count in counts.items() if count)
        typer.echo(f"{len(points)} points: {told}")
    return Exit.FAILED if worst is Grade.BAD else Exit.OK


def _say(point: Point) -> str:
    return f"{point.text} ({point.remedy})" if point.remedy else point.text


def _look(fleet: DesiredState, config_paths: Iterable[str], state_dir: Path) -> Iterator[Point]:
    from appliance.bus.inspection import is_for_all_to_read
    from appliance.core.secret_refs import find_secret_refs

    daemon, error = _ask_daemon(state_dir)
    trusted = {0, os.geteuid()}
    if daemon is not None and daemon.user_id is not None:
        trusted.add(daemon.user_id)
    files = {Path(path) for path in config_paths}
    untrusted = _Strangers(frozenset(trusted))
    yield check_writers("config", _facts_up(files, untrusted), frozenset(trusted), "the config")
    named = {place: ref for place, ref in find_secret_refs(fleet).items() if ref.kind == "file"}
    secrets = [Path(ref.name) for ref in named.values()]
    facts = [
        _facts(Path(ref.name), untrusted)
        for place, ref in named.items()
        if not is_for_all_to_read(place, ref.name)
    ]
    yield check_readers("secrets", facts, "secrets that the config names")
    writers = _facts_up(secrets, untrusted)
    yield check_writers("secret files", writers, frozenset(trusted), "what is a secret")
    yield check_readers("state", [_facts(state_dir)], "the state directory")
    if RUNNER_ALLOW.exists():
        yield check_writers(
            "runner",
            _facts_up([RUNNER_ALLOW], _Strangers(frozenset({0}))),
            frozenset({0}),
            "what the runner runs",
        )
    yield from check_broker(fleet.broker)
    yield check_keys(fleet)
    yield from check_rights(fleet)
    yield from check_proof(fleet)
    yield from check_listeners(fleet)
    signers = daemon.signers if daemon is not None else ""
    yield check_source(fleet, signers)
    if signers:
        facts_up = _facts_up([Path(signers)], untrusted)
        yield check_writers("signers", facts_up, frozenset(trusted), "who may sign the config")
    yield from check_daemon(daemon, error, __version__)
    yield check_clock(_is_clock_kept())
    yield _check_room(state_dir)


class _Strangers:
    """Users of a group beside those who are trusted, as far as the machine lists them."""

    def __init__(self, trusted: frozenset[int]) -> None:
        self._trusted = trusted
        self._of_group: dict[int, tuple[str, ...]] = {}

    def of(self, group_id: int) -> tuple[str, ...]:
        """Their names, in order."""
        if group_id not in self._of_group:
            found = {one.pw_name for one in pwd.getpwall() if one.pw_gid == group_id}
            with contextlib.suppress(KeyError):
                found.update(grp.getgrgid(group_id).gr_mem)
            names = {one.pw_name for one in pwd.getpwall() if one.pw_uid in self._trusted}
            self._of_group[group_id] = tuple(sorted(found - names))
        return self._of_group[group_id]


def _facts_up(paths: Iterable[Path], strangers: _Strangers) -> Iterator[FileFacts]:
    """The files, and every directory above them: who may write there may put another file in the place."""
    seen: set[Path] = set()
    for path in paths:
        # where it leads counts, and so does who may make the name lead elsewhere
        for start in (path.absolute(), Path(os.path.realpath(path))):
            for one in (start, *start.parents):
                if one not in seen:
                    seen.add(one)
                    yield _facts(one, strangers)


def _facts(path: Path, strangers: _Strangers | None = None) -> FileFacts:
    try:
        found = path.stat()
    except OSError as error:
        return FileFacts(str(path), error=error.strerror or type(error).__name__)
    group = strangers.of(found.st_gid) if strangers is not None else ()
    return FileFacts(str(path), found.st_mode, found.st_uid, group=group)


def _paths_of(state_dir: Path) -> list[str]:
    """The config of the daemon that runs here; empty where none answers."""
    try:
        return list(_ask_status(state_dir).config.paths)
    except ApplianceError:
        return []


def _find_own_nodes(fleet: DesiredState, state_dir: Path) -> tuple[NodeName, ...]:
    """Which nodes are this machine's: those that its daemon runs, or would; all where nothing tells."""
    try:
        names = set(_ask_status(state_dir).nodes)
    except ApplianceError:
        names = set(split_names([os.environ.get("APPLIANCE_NODE", "")]))
    for chosen in (names, {socket.gethostname()}):
        own = sorted(node for node in fleet.declared_nodes if node in chosen)
        if own:
            return tuple(own)
    return fleet.run_nodes


def _ask_status(state_dir: Path) -> Status:
    from appliance.api.model import Status
    from appliance.cli.api_client import ApiClient, UnixWay

    return ApiClient(UnixWay(state_dir)).get("/api/v1/status", Status).value


def _ask_daemon(state_dir: Path) -> tuple[DaemonFacts | None, str]:
    try:
        status = _ask_status(state_dir)
    except ApplianceError as error:
        return None, str(error)
    try:
        user_id = Path(f"/proc/{status.pid}").stat().st_uid
    except OSError:
        user_id = None
    facts = DaemonFacts(
        version=status.version or "",
        user_id=user_id,
        is_healthy=bool(status.healthy),
        degraded_by=tuple(status.degraded_by),
        signers=status.config.signers or "",
    )
    return facts, ""


def _is_clock_kept() -> bool | None:
    """Whether the kernel says that something disciplines its clock. Source: adjtimex(2)."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        # nothing is set: the modes, which come first, are 0
        state: int = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def _check_room(state_dir: Path) -> Point:
    try:
        usage = shutil.disk_usage(state_dir)
        is_read_only = takes_no_writes(state_dir)
    except OSError as error:
        return Point(
            "room", Grade.UNKNOWN, f"{state_dir}: {error.strerror}", "--state-dir names it"
        )
    return check_room(usage.free, usage.total, str(state_dir), is_read_only=is_read_only)
