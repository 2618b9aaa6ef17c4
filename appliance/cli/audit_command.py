"""`audit`: what operators asked of the daemon of this machine, and whether the trail is whole."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    OwnStateDirOption,
    find_state_dir,
    print_json,
    warn,
)
from appliance.cli.terminal import print_table
from appliance.core.audit import verify as verify_trail
from appliance.core.times import say_moment

COLUMNS = ("NUMBER", "AT", "BY", "ASKED", "OUTCOME", "WHAT")


def register(app: typer.Typer) -> None:
    """Add both."""
    trail = typer.Typer(help="What operators asked of this daemon.", no_args_is_help=True)
    trail.command("show")(show)
    trail.command("verify")(verify)
    app.add_typer(trail, name="audit")


def show(
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="The newest so many.")] = 20,
    output: OutputOption = Output.TEXT,
    state_dir: OwnStateDirOption = None,
) -> int:
    """The newest entries: who asked, what for, and what was answered.

    The files are read, and no daemon is asked: audit.jsonl in the state directory and those beside it with a number.
    """
    from appliance.telemetry.audit_file import find_trail, read_lines

    found: list[dict[str, Any]] = []
    try:
        for path in reversed(find_trail(find_state_dir(state_dir))):
            entries = [entry for line in read_lines(path) if (entry := _read(line)) is not None]
            found = [*entries[-(limit - len(found)) :], *found]
            if len(found) >= limit:
                break
    except OSError as error:
        return _unreadable(error)
    if output is Output.JSON:
        print_json({"entries": found})
        return Exit.OK
    print_table(COLUMNS, [_row(entry) for entry in found])
    return Exit.OK


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    number, at, by, asked, outcome = (
        str(entry.get(name, "")) for name in ("number", "at", "by", "asked", "outcome")
    )
    what = entry.get("what")
    # NB: to the second, as everywhere for people; -o json has the whole time
    said = json.dumps(what, ensure_ascii=False) if what else ""
    return number, say_moment(at), by, asked, outcome, said


def verify(
    head: Annotated[
        str,
        typer.Option(
            "--head", metavar="DIGEST", help="A digest that the log said: it must be in the trail."
        ),
    ] = "",
    output: OutputOption = Output.TEXT,
    state_dir: OwnStateDirOption = None,
) -> int:
    """Whether no line was changed, taken out or put in; exit 1 where one was.

    Each line holds the hash of the one before it. Somebody who may write the files can cut off the end, or write all of it
    anew: the daemon therefore says number and digest of the last line in its log, at its start, at its stop and with each
    new file. --head asks for one of those.
    """
    from appliance.telemetry.audit_file import find_trail, read_lines

    directory = find_state_dir(state_dir)
    try:
        found = verify_trail(
            ((path.name, read_lines(path)) for path in find_trail(directory)), head.lower()
        )
    except OSError as error:
        return _unreadable(error)
    is_whole = not found.breaks and found.holds
    if output is Output.JSON:
        print_json(
            {
                "ok": is_whole,
                "entries": found.entries,
                "first": found.first,
                "last": found.head.number,
                "digest": found.head.digest,
                "breaks": [one._asdict() for one in found.breaks],
                "head_found": found.holds,
            }
        )
        return Exit.OK if is_whole else Exit.FAILED
    for one in found.breaks:
        warn(f"{one.file}:{one.line} {one.why}")
    if not found.holds:
        warn(f"no line has the digest {head[:80]}: the end was cut off, or all of it written anew")
    if is_whole:
        words = f"{found.entries} entries, {found.first} to {found.head.number}"
        typer.echo(f"whole: {words}, the last with digest {found.head.digest}")
    return Exit.OK if is_whole else Exit.FAILED


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _unreadable(error: OSError) -> int:
    warn(f"{error.filename} cannot be read: {error.strerror}")
    return Exit.NO_PERMISSION if isinstance(error, PermissionError) else Exit.FAILED
