"""The script of docs/scripting.md as it stands there: nodes that are away, fail or are unwell afterwards do no harm."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

REPOSITORY = Path(__file__).parents[2]
SCRIPT = re.search(
    r"```sh\n(#!/bin/sh\n.*?)```", (REPOSITORY / "docs/scripting.md").read_text(), re.S
)
SHIPS = [f"ship{number}" for number in range(1, 6)]
CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
roles:
  web:
    subscribe:
      REQCliCommand:
        accept_from: [central]
        allow_commands: [[systemctl, is-active, -q, "*"], [sh, -c, "*", "*", "*", "*"]]
        stop_grace: 200ms
nodes:
  central: {{subscribe: {{REQErrorLog: {{}}, REQToFileAppend: {{}}}}}}
  {ships}
"""
APT = """#!/bin/sh
version=${4#*=}
if [ "$version" = 2 ] && [ -e "$HOME/broken" ]; then echo "disk full" >&2; exit 100; fi
echo "$version" >"$HOME/version"
"""
SYSTEMCTL = """#!/bin/sh
[ "$1" = restart ] && exit 0
! { [ -e "$HOME/unwell" ] && [ "$(cat "$HOME/version")" = 2 ]; }
"""

pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")


class Fleet:
    """Central, and ships with a daemon each, whose programs are doubles that note a version."""

    def __init__(self, url, root):
        self.root = root
        programs = root / "programs"
        programs.mkdir()
        for name, text in (("apt-get", APT), ("systemctl", SYSTEMCTL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        forked.program(programs / "appliance")
        self.path = f"{programs}:{os.environ['PATH']}"
        text = CONFIG.format(
            url=url, ships="\n  ".join(f"{name}: {{roles: [web]}}" for name in SHIPS)
        )
        self.central = self._daemon(text, "central")
        self.ships = {name: self._daemon(text, name) for name in SHIPS}

    def _daemon(self, text, name):
        home = self.root / name
        daemon = Appliance(text, home, args=["--node", name])
        daemon.only_named = True
        daemon.environment = {"HOME": str(home), "PATH": self.path}
        return daemon

    def begin(self, *, broken=(), unwell=()):
        for name in SHIPS:
            home = self.root / name
            (home / "version").write_text("1\n")
            for mark, names in (("broken", broken), ("unwell", unwell)):
                (home / mark).unlink(missing_ok=True)
                if name in names:
                    (home / mark).touch()

    def versions(self):
        return "".join((self.root / name / "version").read_text().strip() for name in SHIPS)

    def upgrade(self):
        assert SCRIPT is not None
        return subprocess.run(
            ["sh", "-c", SCRIPT[1], "upgrade", "@web", "nginx", "2", "1", "nginx"],
            env={**os.environ, "PATH": self.path, "APPLIANCE_STATE_DIR": str(self.central.state)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with NatsServer() as broker:
        fleet = Fleet(broker.url, tmp_path_factory.mktemp("fleet"))
        daemons = [fleet.central, *fleet.ships.values()]
        for daemon in daemons:
            daemon.spawn()
        try:
            for daemon in daemons:
                daemon.wait_ready()
            yield fleet
        finally:
            for daemon in daemons:
                daemon.close()


def test_it_is_about_twenty_lines():
    assert SCRIPT is not None
    assert len([line for line in SCRIPT[1].splitlines() if line and not line.startswith("#")]) <= 20


@pytest.mark.parametrize(
    ("broken", "unwell", "code", "versions", "says"),
    [
        ([], [], 0, "22222", ""),
        (["ship1"], [], 1, "11111", "ship1 failed, the others are as they were"),
        # one of them may fail: the others go on, and it gets the old version again
        ([], ["ship3"], 1, "22122", 'failed: ["ship3"]'),
        # after two nobody else is asked
        (["ship2"], ["ship3"], 1, "21111", 'not asked: ["ship4","ship5"]'),
    ],
)
def test_what_fails_is_taken_back_and_the_rest_left_alone(
    fleet, broken, unwell, code, versions, says
):
    fleet.begin(broken=broken, unwell=unwell)
    done = fleet.upgrade()
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert fleet.versions() == versions


def test_it_does_not_begin_while_a_node_is_away_and_leaves_nothing_waiting(fleet):
    fleet.begin()
    fleet.ships["ship4"].stop()
    try:
        done = fleet.upgrade()
        assert done.returncode == 1
        assert "not begun, not well: ship4" in done.stderr
        assert fleet.versions() == "11111"
        assert fleet.central.status()["outbox"]["pending"] == 0
    finally:
        fleet.ships["ship4"].start()


def test_without_a_daemon_it_does_not_begin(fleet):
    fleet.begin()
    fleet.central.stop()
    try:
        assert fleet.upgrade().returncode == 1
        assert fleet.versions() == "11111"
    finally:
        fleet.central.start()
