"""`fleet`: which nodes run the config that runs here, seen from a node that hears their hellos."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from appliance.cli.api_client import ApiClient
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    find_state_dir,
    print_json,
)
from appliance.cli.times import say_ago
from appliance.core.durations import parse_duration
from appliance.core.escape import escape_line

Json = dict[str, Any]

POLL_S = 0.5
_WORDS = {
    "in_sync": "in sync",
    "behind": "behind",
    "refused": "refused",
    "silent": "silent",
    "unknown": "says hello, but not which config",
}
_STYLES = {"in_sync": "green", "behind": "yellow", "refused": "red", "silent": "red"}


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

    Exits 0 when all are in sync, 1 when some are behind or refused the config, 3 when some are
    silent and the others in sync.
    """
    status = ApiClient(find_state_dir(state_dir)).get("/api/v1/status")
    standings: list[Json] = status.get("fleet") or []
    if output is Output.JSON:
        print_json({"config": status.get("config"), "nodes": standings})
        return _exit_of(standings)
    if not standings:
        typer.echo(
            "no node says hello here: `publish: {hello: {to: …, method: REQHello, every: 30s}}`"
        )
        return Exit.OK
    shown = [item for item in standings if every or item["state"] != "in_sync"]
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

    Exits 0 when all do, 1 when some refused it or run another one, 3 when the rest is silent.
    """
    try:
        timeout_s = float(timeout) if timeout.isdecimal() else parse_duration(timeout)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--timeout") from None
    client = ApiClient(find_state_dir(state_dir))
    ends = time.monotonic() + timeout_s
    while True:
        standings: list[Json] = client.get("/api/v1/status").get("fleet") or []
        left = [item for item in standings if not _has(item, revision, digest)]
        if not left or time.monotonic() >= ends:
            break
        time.sleep(min(POLL_S, max(0.0, ends - time.monotonic())))
    if output is Output.JSON:
        print_json({"nodes": standings, "missing": [item["node"] for item in left]})
    elif left:
        _print_rows(left)
        typer.echo(f"{len(standings) - len(left)} of {len(standings)} nodes run it")
    else:
        typer.echo(f"all {len(standings)} nodes run it")
    if not left:
        return Exit.OK
    return Exit.SILENT if all(item["state"] == "silent" for item in left) else Exit.FAILED


def _has(item: Json, revision: str | None, digest: str | None) -> bool:
    if item["state"] in ("silent", "refused", "unknown"):
        return False
    if revision is not None:
        found = str(item.get("revision") or "")
        return bool(revision) and found.startswith(revision.lower()) and not item.get("dirty")
    if digest is not None:
        wanted = digest.removeprefix("sha256:")
        return bool(wanted) and str(item.get("applied") or "").removeprefix("sha256:").startswith(
            wanted
        )
    return bool(item["state"] == "in_sync")


def _exit_of(standings: Sequence[Json]) -> int:
    states = {item["state"] for item in standings}
    if states & {"behind", "refused"}:
        return Exit.FAILED
    return Exit.SILENT if "silent" in states else Exit.OK


def _summary(standings: Sequence[Json]) -> str:
    counts = Counter(str(item["state"]) for item in standings)
    said = [f"{counts[state]} {words}" for state, words in _WORDS.items() if counts[state]]
    return f"{len(standings)} nodes: {', '.join(said)}"


def _print_rows(standings: Sequence[Json]) -> None:
    from rich.table import Table
    from rich.text import Text

    from appliance.cli.terminal import make_console

    table = Table("NODE", "STATE", "HELLO", "CONFIG", "VERSION", "WHY", box=None, pad_edge=False,
                  padding=(0, 2, 0, 0), header_style="dim")  # fmt: skip
    now = time.time()
    for item in standings:
        state = str(item["state"])
        seen = say_ago(item["last_hello_at"], now) if item.get("last_hello_at") else "never"
        revision = str(item.get("revision") or "")[:10]
        digest = str(item.get("applied") or "").removeprefix("sha256:")[:12]
        why = str(item.get("first_problem") or "")
        if int(item.get("problems") or 0) > 1:
            why += f" (and {int(item['problems']) - 1} more)"
        table.add_row(
            Text(escape_line(str(item["node"]))),
            Text(_WORDS.get(state, state), style=_STYLES.get(state, "")),
            Text(seen),
            Text(escape_line(revision or digest)),
            Text(escape_line(str(item.get("version") or ""))),
            Text(escape_line(why)),
        )
    make_console().print(table)
