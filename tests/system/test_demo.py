"""`appliance demo` where there is no clone: an installation has all it needs."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from appliance.cli import demo_command
from tests.support import forked

ROOT = Path(__file__).parents[2]


def demo(directory, program, *options, **environment):
    env = {name: text for name, text in os.environ.items() if not name.startswith("APPLIANCE_")}
    return subprocess.run(
        [*program, "demo", "--once", *options],
        cwd=directory,
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_it_runs_a_copy_of_the_fleet_that_can_be_edited(tmp_path):
    state = tmp_path / "state"
    program = [forked.program()]
    done = demo(tmp_path, program, "--state-dir", str(state))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("load average") == 2
    for path in (ROOT / "configs/demo").iterdir():
        copy = (state / "demo" / path.name).read_text()
        assert copy.partition("\n")[2] == path.read_text().partition("\n")[2]
        assert copy.startswith("# yaml-language-server: $schema=appliance.schema.json\n")
    mine = state / "demo/appliance.yaml"
    mine.write_text(mine.read_text() + "# mine\n")
    assert demo(tmp_path, program, "--state-dir", str(state)).returncode == 0
    assert mine.read_text().endswith("# mine\n")


def test_it_asks_what_every_system_can_tell_where_there_is_no_uptime(tmp_path):
    """A small Debian has no procps."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "uname").symlink_to(shutil.which("uname"))
    program = [forked.program()]
    done = demo(tmp_path, program, "--state-dir", str(tmp_path / "s"), PATH=str(programs))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REQCliCommand -- uname -a\n" in done.stdout
    assert done.stdout.count(os.uname().version) == 2


def test_it_starts_itself_as_it_was_started(tmp_path):
    """As /usr/bin/appliance, which adds where the broker is: a plain `python -m appliance` would not find it."""
    program = tmp_path / "appliance"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "open(os.environ['STARTS'], 'a').write(sys.argv[1] + '\\n')\n"
        "from appliance.__main__ import main\n"
        "main()\n"
    )
    program.chmod(0o755)
    starts = tmp_path / "starts"
    done = demo(tmp_path, [str(program)], "--state-dir", str(tmp_path / "s"), STARTS=str(starts))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"demo", "run", "status", "send"} <= set(starts.read_text().split())


def test_it_asks_its_daemon_nothing_before_that_can_answer(tmp_path):
    """Where two programs start at once, each takes twice as long."""
    socket = tmp_path / "appliance.sock"
    asks = tmp_path / "asks"
    status = ["sh", "-c", f"echo >> {asks}; echo '{{\"pid\": 7}}'"]

    class Daemon:
        pid = 7
        looks = 0

        def poll(self):
            self.looks += 1
            if self.looks == 3:
                assert not asks.exists()
                socket.touch()

    assert demo_command._wait_until_ready(status, Daemon(), socket)
    assert asks.read_text() == "\n"


def test_the_fleet_is_part_of_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["appliance"]
    shipped = {path for pattern in patterns for path in (ROOT / "appliance").glob(pattern)}
    names = {path.name for path in shipped if path.parent.name == "demo_fleet"}
    assert names == {path.name for path in (ROOT / "configs/demo").iterdir()}


def test_a_machines_own_daemon_keeps_its_state(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_command, "SYSTEM_STATE_DIR", tmp_path)
    monkeypatch.setattr(demo_command, "default_state_dir", lambda: tmp_path)
    monkeypatch.setenv("HOME", "/home/anna")
    assert demo_command._find_place() is None
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert demo_command._find_place() == "/home/anna/.local/state/appliance-demo"
