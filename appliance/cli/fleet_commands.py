"""`fleet`: which nodes run the config that runs here, seen from a node that hears their hellos."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from appliance.api.model import Attempt, FleetStanding, Status
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    warn,
)
from appliance.cli.problem_text import say_count
from appliance.cli.server_options import connect
from appliance.cli.terminal import print_table
from appliance.cli.verdict_view import split_problems
from appliance.core.durations import parse_duration
from appliance.core.times import say_ago

POLL_S = 0.5
NO_HELLOS = "no node says hello here: `publish: {hello: {to: …, method: REQHello, every: 30s}}`"
_WORDS = {
    "in_sync": "in sync",
    "behind": "behind",
    "refused": "refused",
    "silent": "silent",
    "unknown": "says hello, but not which config",
    "undeclared": "undeclared",
}
NOT_DECLARED = "runs, and no config here declares it"
OTHER_FILES, NOT_IN_FORCE = "its files are others than here", "its files are not in force there"
"""Why a node is behind that refuses nothing: `git pull`, a file of its own; a pin, a look that is still to come."""
NOT_HEARD = "not heard yet"
_STYLES = {
    "in_sync": "green",
    "behind": "yellow",
    "refused": "red",
    "silent": "red",
    "undeclared": "yellow",
}


def register(app: typer.Typer) -> None:
    """Add the group."""
    fleet = typer.Typer(
        help="Which nodes run the config that runs here: asked of a daemon that hears their hellos.",
        no_args_is_help=True,
    )
    fleet.command("status")(fleet_status)
    fleet.command("wait")(fleet_wait)
    app.add_typer(fleet, name="fleet")


def fleet_status(
    every: Annotated[bool, typer.Option("--all", help="Also the nodes that are in sync.")] = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Name the nodes that are not in sync: behind, refused (with the first problem), silent.

    Exits 0 when all are in sync, 1 when some are behind or refused the config, 3 when some are silent, or not heard
    yet, and the others in sync. Nodes that never say which config they run (Go nodes) do not count, nor do undeclared
    ones: nodes that say hello here and that the config does not declare (any more).
    """
    status = connect(state_dir).get("/api/v1/status", Status)
    standings = status.value.fleet
    if output is Output.JSON:
        told = status.plain
        print_json({"config": told.get("config"), "nodes": told.get("fleet", [])})
        return _exit_of(standings)
    if not standings:
        typer.echo(NO_HELLOS)
        return Exit.OK
    shown = [item for item in standings if every or item.state != "in_sync"]
    if shown:
        _print_rows(shown)
    typer.echo(_summary(standings))
    return _exit_of(standings)


def fleet_wait(
    revision: Annotated[
        str | None, typer.Option("--rev", metavar="R", help="A git revision, or its start.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option("--digest", metavar="D", help="A config digest, or its start.")
    ] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="T", help="How long at most, as 90s or 5m.")
    ] = "2m",
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Wait until every node runs a config: the one given, else the one in force here.

    The daemon that is asked must run it too. Nodes that do not say which config they run (Go nodes) are named and not
    waited for. Exits 0 when all do, 1 when some refused it or run another one, 3 when the rest is silent.
    """
    try:
        timeout_s = float(timeout) if timeout.isdecimal() else parse_duration(timeout)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--timeout") from None
    client = connect(state_dir)
    ends = time.monotonic() + timeout_s
    while True:
        status = client.get("/api/v1/status", Status)
        # the daemon that is asked is of the fleet too; nodes that never tell their config cannot be waited for
        here = _own_standing(status.value)
        standings = status.value.fleet
        counted = [item for item in standings if not _is_mute(item) and not _is_foreign(item)]
        left = [item for item in [here, *counted] if not _has(item, revision, digest)]
        if not (left and standings) or time.monotonic() >= ends:
            break
        time.sleep(min(POLL_S, max(0.0, ends - time.monotonic())))
    if output is Output.JSON:
        told = {"nodes": status.plain.get("fleet", []), "here": msgspec.to_builtins(here)}
        print_json({**told, "missing": [item.node for item in left]})
    elif not standings:
        warn(NO_HELLOS)
    else:
        if left:
            _print_rows(left)
        done = sum(_has(item, revision, digest) for item in counted)
        if done == len(counted):
            typer.echo(f"all {done} nodes run it" if done != 1 else "the only node runs it")
        else:
            typer.echo(f"{done} of {say_count(len(counted), 'node')} run it")
        mute = [item.node for item in standings if _is_mute(item)]
        if mute:
            warn(f"not waited for, as they do not say which config they run: {', '.join(mute)}")
    if not standings:
        return Exit.FAILED
    if not left:
        return Exit.OK
    return Exit.SILENT if all(item.state in ("silent", "unknown") for item in left) else Exit.FAILED


def _own_standing(status: Status) -> FleetStanding:
    config = status.config
    attempt = config.last_attempt or Attempt()
    errors = split_problems(attempt.problems)[0] if attempt.is_refused else []
    return FleetStanding(
        node="(here)",
        state="refused" if attempt.is_refused else "in_sync",
        last_hello_at=attempt.at,
        version=status.version,
        applied=config.digest,
        revision=config.revision,
        branch=config.branch,
        dirty=config.dirty,
        problems=len(errors),
        first_problem=f"{errors[0].code} {errors[0].message}" if errors else None,
    )


def _is_mute(item: FleetStanding) -> bool:
    """A Go node, or an older version."""
    return item.state == "unknown" and bool(item.last_hello_at)


def _is_foreign(item: FleetStanding) -> bool:
    """One that does not belong to the fleet, as far as the config says."""
    return item.state == "undeclared"


def _has(item: FleetStanding, revision: str | None, digest: str | None) -> bool:
    if item.state in ("silent", "refused", "unknown"):
        return False
    if revision is not None:
        is_it = (item.revision or "").startswith(revision.lower())
        return bool(revision) and is_it and item.dirty is False
    if digest is not None:
        wanted = digest.removeprefix("sha256:")
        return bool(wanted) and _bare_digest(item).startswith(wanted)
    return item.state == "in_sync"


def _bare_digest(item: FleetStanding) -> str:
    return (item.applied or "").removeprefix("sha256:")


def _exit_of(standings: Sequence[FleetStanding]) -> int:
    states = {item.state for item in standings}
    if states & {"behind", "refused"}:
        return Exit.FAILED
    # not heard yet is not in sync: whether it is, nobody knows
    is_unheard = any(item.state == "unknown" and not _is_mute(item) for item in standings)
    return Exit.SILENT if is_unheard or "silent" in states else Exit.OK


def _summary(standings: Sequence[FleetStanding]) -> str:
    counts = Counter(_say_state(item) for item in standings)
    said = [f"{counts[words]} {words}" for words in (*_WORDS.values(), NOT_HEARD) if counts[words]]
    return f"{say_count(len(standings), 'node')}: {', '.join(said)}"


def _say_state(item: FleetStanding) -> str:
    is_heard = item.state != "unknown" or item.last_hello_at
    return _WORDS.get(item.state, item.state) if is_heard else NOT_HEARD


def _say_config(item: FleetStanding) -> str:
    commit = (item.revision or "")[:10]
    return f"{commit}-dirty" if commit and item.dirty else commit or _bare_digest(item)[:12]


def _print_rows(standings: Sequence[FleetStanding]) -> None:
    from rich.text import Text

    now = time.time()
    has_labels = any(item.labels for item in standings)
    rows: list[list[str | Text]] = []
    for item in standings:
        seen = say_ago(item.last_hello_at, now) if item.last_hello_at else "never"
        more = (item.problems or 0) - 1
        why = (item.first_problem or "") + (f" (and {more} more)" if more > 0 else "")
        if _is_foreign(item):
            why = NOT_DECLARED
        elif item.state == "behind" and not why:
            waits = bool(item.desired) and item.desired != item.applied
            why = NOT_IN_FORCE if waits else OTHER_FILES
        state = Text(_say_state(item), style=_STYLES.get(item.state, ""))
        labels = " ".join(f"{name}={value}" for name, value in (item.labels or {}).items())
        shown = [labels] if has_labels else []
        rows.append([item.node, state, seen, _say_config(item), item.version or "", *shown, why])
    names = ["NODE", "STATE", "HELLO", "CONFIG", "VERSION", *(["LABELS"] * has_labels), "WHY"]
    print_table(names, rows)
