"""`appliance demo`: start a fleet, send a command through it, show the answers, and keep it running to be played with."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

START_TIMEOUT_S = 30.0
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
        path: Annotated[Path, typer.Argument(help="The fleet to run.")] = Path("configs/demo"),
        state_dir: Annotated[
            str | None,
            typer.Option(
                "--state-dir", envvar="APPLIANCE_STATE_DIR", help="Where it keeps its state."
            ),
        ] = None,
        once: Annotated[bool, typer.Option("--once", help="End after the answers came.")] = False,
    ) -> None:
        """Run the demo fleet, send `uptime` to both ships and print their answers."""
        raise typer.Exit(run_demo(path, state_dir, once=once))


def run_demo(path: Path, state_dir: str | None, *, once: bool) -> int:
    """Returns the exit code of the daemon, or the send's if that failed."""
    if not path.exists():
        typer.echo(
            f"appliance: no fleet at {path}; run this in a clone, or name a config", err=True
        )
        return 64
    command = [sys.executable, "-m", "appliance"]
    state = ["--state-dir", state_dir] if state_dir else []
    daemon = subprocess.Popen([*command, "run", str(path), "--all-nodes", *state])
    previous = signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the daemon, which ends in order
    signal.signal(signal.SIGTERM, lambda *_: daemon.terminate())
    try:
        if not _wait_until_ready([*command, "status", *state], daemon):
            if daemon.poll() is None:
                typer.echo(f"appliance: not ready within {START_TIMEOUT_S:g} s", err=True)
                daemon.terminate()
            return daemon.wait() or 70
        options = f" --state-dir {shlex.quote(state_dir)}" if state_dir else ""
        typer.echo(f"\n$ appliance send{options} --to ship1 --to ship2 REQCliCommand uptime")
        sent = subprocess.run(
            [*command, "send", "--to", "ship1", "--to", "ship2", *state, "REQCliCommand", "uptime"],
            check=False,
        )
        if once or sent.returncode:
            daemon.terminate()
            daemon.wait()
            return sent.returncode
        appliance = f"{Path(sys.argv[0]).parent}/appliance" if "/" in sys.argv[0] else "appliance"
        typer.echo(_HINT.format(appliance=appliance, config=_config_file(path), options=options))
        return daemon.wait()
    finally:
        if daemon.poll() is None:
            daemon.terminate()
            daemon.wait()
        signal.signal(signal.SIGINT, previous)


def _wait_until_ready(status: list[str], daemon: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and daemon.poll() is None:
        done = subprocess.run([*status, "-o", "json"], capture_output=True, check=False)
        if done.returncode == 0 and json.loads(done.stdout).get("pid") == daemon.pid:
            return True  # and it is ours: another one may be running on this state directory
        time.sleep(0.1)
    return False


def _config_file(path: Path) -> Path:
    files = sorted(path.glob("*.y*ml")) if path.is_dir() else [path]
    return files[0] if files else path
