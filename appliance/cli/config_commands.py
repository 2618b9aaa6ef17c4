"""`check`, `schema`, `explain` and `init`: what can be done with a config without a daemon."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.options import UnusedStateDirOption, print_json, split_names, warn
from appliance.cli.problem_text import (
    problem_facts,
    render_github,
    render_summary,
    render_text,
    say_count,
)
from appliance.core.problems import Problem, Severity
from appliance.core.specs import DesiredState
from appliance.core.suggest import did_you_mean, find_nearest
from appliance.core.times import rfc3339
from appliance.errors import ConfigInvalid, ConfigUnreadable, RunNodesUnclear
from appliance.garbage import no_look_for_garbage

EX_OK = 0
EX_USAGE = 64
EX_NO_PERMISSION = 77
EX_CONFIG = 78
CREDENTIAL_STORES = ("/run/credentials/appliance.service", "/etc/credstore")
"""What systemd has handed to the service that runs, and what it will hand to one that starts."""


class Output(StrEnum):
    """Forms of an answer."""

    TEXT = "text"
    JSON = "json"


class Format(StrEnum):
    """Forms of a report of problems."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


Paths = Annotated[list[str], typer.Argument(help="Config files and directories.", metavar="PATH…")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Text for people, or JSON.")]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="`github`: annotations for a pull request."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("check", help="Check a config; every problem in one go.")(check)
    app.command("validate", help="The same as `check`.", hidden=True)(check)
    app.command("schema", help="Print the JSON Schema of the config.")(schema)
    app.command("explain", help="Tell the story of an error code.")(explain)
    app.command("init", help="Write a commented starter config into a directory.")(init)


def check(
    paths: Paths,
    output: OutputOption = Output.TEXT,
    report_format: FormatOption = None,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            metavar="N",
            help="A node that must be declared; may be repeated [APPLIANCE_NODE].",
        ),
    ] = None,
    secrets: Annotated[
        bool,
        typer.Option(
            "--secrets",
            help="Also read what the config names as secrets and certificates, as the daemon would.",
        ),
    ] = False,
    _state_dir: UnusedStateDirOption = None,
) -> None:
    """Read, check and compile a config as `run` would; nothing is touched.

    With --secrets, run it as the user of the daemon: what nobody but that user can read is what it is about.
    """
    from appliance.config.loader import load_desired
    from appliance.core.run_options import choose_run_nodes
    from appliance.methods.registry import METHOD_TABLE

    shown = report_format or Format(output)
    counts = {"files": 0, "nodes": 0, "workers": 0}
    digest = None
    try:
        with no_look_for_garbage():
            loaded = load_desired(paths, environ=os.environ, methods=METHOD_TABLE)
        wanted = split_names(node or [os.environ.get("APPLIANCE_NODE", "")])
        if wanted:
            declared = loaded.desired.declared_nodes
            choose_run_nodes(sorted(declared), wanted, all_nodes=False, hostname="")
            embedded = loaded.desired.broker.embedded
            if embedded and embedded.secured:
                # which of the others could not log in at the broker of that daemon
                loaded = replace(loaded, warnings=_warnings_for(paths, wanted))
    except ConfigInvalid as error:
        problems, exit_code = list(error.problems), EX_CONFIG
        counts["files"] = len({problem.file for problem in problems if problem.file})
    except ConfigUnreadable as error:
        problems, exit_code = [_unreadable(error)], EX_CONFIG
    except RunNodesUnclear as error:
        problems, exit_code = [Problem(code="E305", path="nodes", message=str(error))], EX_CONFIG
    else:
        problems, exit_code, digest = list(loaded.warnings), EX_OK, loaded.digest
        if secrets:
            _find_credentials(loaded.desired)
            found = _find_secret_problems(loaded.desired)
            problems += found + _find_openings(loaded.desired, loaded.files)
            if any(problem.severity is Severity.ERROR for problem in found):
                exit_code = EX_CONFIG
        counts = {
            "files": len(loaded.files),
            "nodes": len(loaded.desired.declared_nodes),
            "workers": len(loaded.desired.workers),
        }
    match shown:
        case Format.JSON:
            facts = {
                "ok": exit_code == EX_OK,
                "digest": digest,
                **counts,
                "problems": [problem_facts(problem) for problem in problems],
            }
            print_json(facts)
        case Format.GITHUB:
            if problems:
                typer.echo(render_github(problems))
        case Format.TEXT:
            if problems:
                typer.echo(render_text(problems, colour=_use_colour()))
            if exit_code == EX_OK:
                typer.echo(
                    f"ok: {say_count(counts['nodes'], 'node')}, {say_count(counts['workers'], 'worker')}"
                    f" in {say_count(counts['files'], 'file')}"
                )
            else:
                typer.echo(render_summary(problems, counts["files"], exit_code))
    raise typer.Exit(exit_code)


def _warnings_for(paths: list[str], run_nodes: list[str]) -> tuple[Problem, ...]:
    from appliance.config.loader import load_desired
    from appliance.methods.registry import METHOD_TABLE

    return load_desired(
        paths, environ=os.environ, methods=METHOD_TABLE, run_nodes=run_nodes
    ).warnings


def _find_credentials(desired: DesiredState) -> None:
    """Look, by hand, where the service manager takes its credentials from: they can be used there, not from here."""
    from appliance.core.secret_refs import find_secret_refs

    names = [ref.name for ref in find_secret_refs(desired).values() if ref.kind == "credential"]
    if not names or os.environ.get("CREDENTIALS_DIRECTORY"):
        return
    for directory in CREDENTIAL_STORES:
        if any(os.path.exists(os.path.join(directory, name)) for name in names):
            os.environ["CREDENTIALS_DIRECTORY"] = directory
            warn(f"credentials: looked at in {directory}, from where the service has them")
            return


def _find_secret_problems(desired: DesiredState) -> list[Problem]:
    """What is wrong with the secrets and certificates that a set names, and what soon will be."""
    from appliance.bus.inspection import expires_soon, find_signing_trouble, inspect_secrets
    from appliance.core.secret_refs import find_secret_ends, find_secret_refs

    now = time.time()
    found = []
    refs, ends = find_secret_refs(desired), find_secret_ends(desired)
    for place, item in inspect_secrets(refs, now, ends).items():
        if item.trouble is not None:
            is_unseen = item.ref.kind == "credential" and not os.environ.get(
                "CREDENTIALS_DIRECTORY"
            )
            hint = f"ask as root, who sees {CREDENTIAL_STORES[1]}, or name CREDENTIALS_DIRECTORY"
            found.append(
                Problem(
                    code="E244", path=place, message=item.trouble, hint=hint if is_unseen else ""
                )
            )
        elif item.expires_at is not None and expires_soon(item, now):
            words = (
                f"{place} from {item.ref.kind} {item.ref.name} expires {rfc3339(item.expires_at)}"
            )
            found.append(Problem(code="W207", path=place, message=words, severity=Severity.WARNING))
    trouble = find_signing_trouble(desired)
    if trouble is not None:
        found.append(Problem(code="E244", path="signing.key", message=trouble))
    return found


def _find_openings(desired: DesiredState, files: Iterable[str]) -> list[Problem]:
    """Files that everybody on this machine may read or change, and should not."""
    from appliance.bus.inspection import is_for_all_to_read
    from appliance.core.checklist import FileFacts, find_openings
    from appliance.core.secret_refs import find_secret_refs

    refs = find_secret_refs(desired)
    looked_at = [
        (place, ref.name, not is_for_all_to_read(place, ref.name))
        for place, ref in refs.items()
        if ref.kind == "file"
    ]
    looked_at += [("", name, False) for name in files]
    found = []
    for place, name, is_secret in looked_at:
        with suppress(OSError):  # one that cannot be read is told as such
            opening = find_openings(FileFacts(name, os.stat(name).st_mode), is_secret=is_secret)
            if opening:
                words = f"{name}: {opening}"
                found.append(
                    Problem(
                        code="W282",
                        path=place,
                        message=words,
                        hint="appliance doctor looks at the directories above, too",
                        severity=Severity.WARNING,
                    )
                )
    return found


def schema(_state_dir: UnusedStateDirOption = None) -> None:
    """Print the schema as it is shipped."""
    from appliance.config.print_schema import print_schema
    from appliance.methods.registry import METHOD_TABLE

    typer.echo(print_schema(METHOD_TABLE), nl=False)


def explain(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="A code such as E101, or its name.")
    ] = None,
    output: OutputOption = Output.TEXT,
    _state_dir: UnusedStateDirOption = None,
) -> None:
    """Print what a code means, a mistake that gives it, and how to mend that; without a code list all."""
    from appliance.config.error_codes import ERROR_CODES

    if code is None:
        if output is Output.JSON:
            stories = [story._asdict() for story in ERROR_CODES.values()]
            print_json(stories)
            return
        for story in ERROR_CODES.values():
            typer.echo(f"{story.code}  {story.name}")
        return
    by_name = {story.name: story for story in ERROR_CODES.values()}
    found = ERROR_CODES.get(code.upper()) or by_name.get(code.lower())
    if found is None:
        nearest = find_nearest(code.upper(), ERROR_CODES) or find_nearest(code.lower(), by_name)
        typer.echo(f"{code[:40]!r} is no code of ours{did_you_mean(nearest)}", err=True)
        typer.echo("all of them: appliance explain", err=True)
        raise typer.Exit(EX_USAGE)
    if output is Output.JSON:
        print_json(found._asdict())
        return
    example = "\n".join(f"    {line}" for line in found.example.splitlines())
    typer.echo(f"{found.code} {found.name}\n\n{_fold(found.meaning)}\n")
    typer.echo(f"For example:\n\n{example}\n\n{_fold(found.mend)}")


def _fold(text: str) -> str:
    """Prose in lines that a terminal shows whole; words are not broken."""
    columns = min(100, shutil.get_terminal_size().columns)
    return textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)


def init(
    directory: Annotated[
        Path, typer.Argument(help="Where to write; made if missing.", readable=False)
    ],
    _state_dir: UnusedStateDirOption = None,
) -> None:
    """Write a starter config. Nothing that exists is touched."""
    from appliance.config.print_schema import SCHEMA_FILE, print_schema
    from appliance.methods.registry import METHOD_TABLE

    contents = {**STARTER_FILES, SCHEMA_FILE: print_schema(METHOD_TABLE)}
    there = [name for name in contents if os.path.lexists(directory / name)]
    if there:
        typer.echo(f"{directory / there[0]} exists; nothing was written", err=True)
        raise typer.Exit(EX_USAGE)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            with open(directory / name, "x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        typer.echo(f"cannot write into {directory}: {error.strerror or error}", err=True)
        is_forbidden = isinstance(error, PermissionError)
        raise typer.Exit(EX_NO_PERMISSION if is_forbidden else EX_USAGE) from error
    for name in contents:
        typer.echo(f"wrote {directory / name}")
    typer.echo(f"next: appliance check {directory} && appliance run {directory} --all-nodes")


def _unreadable(error: ConfigUnreadable) -> Problem:
    return Problem(code="E001", message=f"cannot be read: {error.reason}", file=error.path)


def _use_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


# What `appliance init` writes: a small fleet on one machine, commented for its first reader.

_MAIN = """\
# yaml-language-server: $schema=appliance.schema.json
#
# A starter config. Check it:   appliance check .
# Run it, all nodes at once:    appliance run . --all-nodes
# Edit any file here while it runs: within a second the change is in force.
version: 1

# The lowest layer of settings; roles, nodes and entries override it, in this order.
defaults:
  ack: {mode: required, timeout: 5s, expires: 24h}   # sent again until acknowledged, for a day

# A role is a bundle of entries that many nodes share.
roles:
  managed:
    subscribe:
      REQPing: {}                      # answer pings
      REQCliCommand:                   # run commands, from central alone, and only these
        accept_from: [central]
        allow_commands:
          - [uptime]
          - [hostname]
          - [echo, "**"]               # `*` is one argument, a last `**` any rest
      # REQTailFile: {accept_from: [central], allow_paths: [/var/log/*.log]}       # appliance tail
      # REQCopyFileFrom: {accept_from: [central], allow_paths: [/var/log/**]}      # appliance cp
      # REQHttpGet: {accept_from: [central], allow_urls: ["http://127.0.0.1:8080/status"]}
    publish:
      hello:                           # say hello to central, again and again
        to: central
        method: REQHello
        every: 30s
        data: ["Hello from ${node}\\n"] # ${node} is the node's own name
"""

_NODES = """\
# yaml-language-server: $schema=appliance.schema.json
#
# The nodes of the fleet. All files of the directory are merged, so a node may as well have a file of its own.
version: 1

nodes:
  central:
    subscribe:
      REQHello: {}                     # keep what the others say
      REQErrorLog: {}                  # errors of every node arrive here
      REQToFileAppend: {}              # replies are written below the data directory
      REQPong: {}                      # answers to pings, if the sender asks for this method
      # REQCopyFileTo: {accept_from: [ship1, ship2]}   # what `appliance cp` fetches from them
    publish:
      commands: {to: [ship1, ship2], method: REQCliCommand}
      pings: {to: [ship1, ship2], method: REQPing}

  ship1: {roles: [managed]}
  ship2: {roles: [managed]}
"""

_BROKER = """\
# yaml-language-server: $schema=appliance.schema.json
#
# The way to the NATS broker, in a file of its own: it is the one part in which machines differ.
version: 1

# `embedded` starts a private broker beside the daemon, which is enough for one machine (it needs the
# extra `broker`); `secured` lets nobody do there what is not declared in these files.
# For a real fleet drop it and name the servers:
broker:
  embedded: {secured: true}
  # servers: ["tls://nats.example.com:4222"]
  # tls: {ca: {file: ca.pem}}
  # auth: {nkey_seed: {file: /etc/appliance/node.nk}}   # secrets are named, never written here
"""

STARTER_FILES = {"appliance.yaml": _MAIN, "nodes.yaml": _NODES, "broker.yaml": _BROKER}
