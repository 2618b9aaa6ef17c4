"""`appliance demo`: start a fleet, send a command through it, show the answers, and keep it running to be played with."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.options import (
    PROGRAM,
    SOCKET_NAME,
    SYSTEM_STATE_DIR,
    Exit,
    default_state_dir,
    find_own_command,
    warn,
)

CLONE = Path("configs/demo")
START_TIMEOUT_S = 30.0
ASKED = (["uptime"], ["--", "uname", "-a"])
"""What the ships are asked, and what where a small system has no such program."""
_HINT = """
The fleet is up. In another terminal:

    {appliance} status{options}
    {appliance} send{options} --to ship1 --to ship2 REQCliCommand hostname

Edit {config} and watch `status` follow. Ctrl-C here ends the fleet.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the root application."""

    @app.command("demo")
    def demo(
        path: Annotated[
            Path | None,
            typer.Argument(
                readable=False,
                help="The fleet to run. Default: configs/demo here, else a copy of it in the state directory.",
            ),
        ] = None,
        state_dir: Annotated[
            str | None,
            typer.Option(
                "--state-dir", envvar="APPLIANCE_STATE_DIR", help="Where it keeps its state."
            ),
        ] = None,
        once: Annotated[bool, typer.Option("--once", help="End after the answers came.")] = False,
    ) -> None:
        """Run the demo fleet, send `uptime` (or `uname -a`) to both ships and print their answers."""
        raise typer.Exit(run_demo(path, state_dir, once=once))


def run_demo(path: Path | None, state_dir: str | None, *, once: bool) -> int:
    """Returns the exit code of the daemon, or the send's if that failed."""
    state_dir = state_dir or _find_place()
    path = path or _find_fleet(Path(state_dir or default_state_dir()))
    if not path.exists():
        warn(f"no fleet at {path}")
        return Exit.USAGE
    command = find_own_command()
    state = ["--state-dir", state_dir] if state_dir else []
    daemon = subprocess.Popen([*command, "run", str(path), "--all-nodes", *state])
    previous = signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the daemon, which ends in order
    signal.signal(signal.SIGTERM, lambda *_: daemon.terminate())
    try:
        socket = Path(state_dir or default_state_dir()) / SOCKET_NAME
        if not _wait_until_ready([*command, "status", *state], daemon, socket):
            if daemon.poll() is None:
                typer.echo(f"appliance: not ready within {START_TIMEOUT_S:g} s", err=True)
                daemon.terminate()
            return daemon.wait() or 70
        options = f" --state-dir {shlex.quote(state_dir)}" if state_dir else ""
        asked = ["--to", "ship1", "--to", "ship2", "REQCliCommand", *_find_asked()]
        typer.echo(f"\n$ appliance send{options} {shlex.join(asked)}")
        sent = subprocess.run([*command, "send", *state, *asked], check=False)
        if once or sent.returncode:
            daemon.terminate()
            daemon.wait()
            return sent.returncode
        appliance = shlex.join(command) if len(command) > 1 else _say_program(command[0])
        typer.echo(_HINT.format(appliance=appliance, config=_config_file(path), options=options))
        return daemon.wait()
    finally:
        if daemon.poll() is None:
            daemon.terminate()
            daemon.wait()
        signal.signal(signal.SIGINT, previous)


def _find_asked() -> list[str]:
    usual, everywhere = ASKED
    return usual if shutil.which(usual[0]) else everywhere


def _find_place() -> str | None:
    """Where the state goes if nobody says: beside that of the machine's own daemon, which is another user's."""
    usual = default_state_dir()
    if usual != SYSTEM_STATE_DIR:
        return None
    try:
        is_ours = usual.stat().st_uid == os.geteuid()
    except FileNotFoundError:
        is_ours = True
    return None if is_ours else str(Path.home() / ".local/state/appliance-demo")


def _find_fleet(state_dir: Path) -> Path:
    """The fleet of a clone; elsewhere a copy of it, to be edited."""
    if CLONE.exists():
        return CLONE
    place = state_dir / "demo"
    if place.exists():
        return place
    from appliance.config.print_schema import SCHEMA_FILE, print_schema
    from appliance.methods.registry import METHOD_TABLE

    place.mkdir(parents=True, mode=0o750)
    for source in sorted((resources.files("appliance.cli") / "demo_fleet").iterdir(), key=str):
        text = source.read_text(encoding="utf-8")
        head, line, rest = text.partition("\n")
        head = re.sub(r"\$schema=\S+", f"$schema={SCHEMA_FILE}", head)
        (place / source.name).write_text(head + line + rest, encoding="utf-8")
    (place / SCHEMA_FILE).write_text(print_schema(METHOD_TABLE), encoding="utf-8")
    return place


def _wait_until_ready(status: list[str], daemon: subprocess.Popen[bytes], socket: Path) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and daemon.poll() is None:
        # only once it can answer: to ask takes a process that starts, beside a daemon that does
        if socket.exists():
            done = subprocess.run([*status, "-o", "json"], capture_output=True, check=False)
            if done.returncode == 0 and json.loads(done.stdout).get("pid") == daemon.pid:
                return True  # and it is ours: another one may be running on this state directory
        time.sleep(0.1)
    return False


def _say_program(path: str) -> str:
    """As somebody would type it."""
    if shutil.which(PROGRAM) == path:
        return PROGRAM
    near = os.path.relpath(path)
    return path if near.startswith("..") else near


def _config_file(path: Path) -> Path:
    files = sorted(path.glob("*.y*ml")) if path.is_dir() else [path]
    return files[0] if files else path
