"""What install, upgrade and purge do, told by the scripts of both kinds of package against a system of stand-ins."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import PACKAGING, needs
from tests.support import forked

CONFIG = "version: 1\nbroker: {embedded: true}\nnodes: {ship1: {subscribe: {REQPing: {}}}}\n"
UPGRADES = {"deb-postinst": ["configure", "0.1.0"], "rpm-post": ["2"]}


class Machine:
    """A directory that stands for the root of a machine whose service manager writes down what it is asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.asked_path = root / "asked"
        for name in ("bin", "etc/appliance", "lib/appliance", "run/systemd/system"):
            (root / name).mkdir(parents=True)
        self.asked_path.touch()
        for name in (
            *("systemctl", "deb-systemd-invoke", "deb-systemd-helper", "dpkg-query"),
            *("systemd-sysusers", "install", "chown"),
        ):
            self.program(name, f'echo "{name} $*" >>{self.asked_path}')
        self.program("stat", "echo appliance")
        # the package's user is of the machine that is tried here, and may be of the one that tries it, too
        user = "from appliance.cli import start_check; start_check._USER = 'appliance-here'"
        forked.program(self.bin / "appliance", before=user)
        self.program("check", "exit 0")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    @property
    def asked(self) -> str:
        return self.asked_path.read_text()

    def run(self, script: str, *arguments: str, check: str | None = None):
        """A script of the packages, with every path of the machine below our root."""
        text = (PACKAGING / script).read_text()
        places = {
            "/usr/lib/appliance/check-config": check or str(self.bin / "check"),
            "/usr/bin/appliance": str(self.bin / "appliance"),
            "/var/lib/appliance": str(self.root / "lib/appliance"),
            "/etc/": f"{self.root}/etc/",
            "/run/systemd/system": str(self.root / "run/systemd/system"),
        }
        pattern = "|".join(map(re.escape, places))
        path = self.root / Path(script).name
        # NB: in one pass: what was put in holds such paths, too
        path.write_text(re.sub(pattern, lambda found: places[found[0]], text))
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        command = ["sh", str(path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    def check_config(self):
        return self.run("files/check-config")

    def write(self, name: str, text: str) -> None:
        path = self.root / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "machine")


@pytest.mark.parametrize("script", UPGRADES)
def test_an_upgrade_restarts_the_daemon_and_the_runner(machine, script):
    done = machine.run(f"scripts/{script}", *UPGRADES[script])
    assert done.returncode == 0, done.stderr
    assert re.search("try-restart appliance.service appliance-runner.service", machine.asked)


@pytest.mark.parametrize("script", UPGRADES)
def test_an_upgrade_that_is_refused_restarts_neither_and_says_so(machine, script):
    machine.program("check", "exit 78")
    done = machine.run(f"scripts/{script}", *UPGRADES[script])
    assert done.returncode == 0
    assert "restart" not in machine.asked
    assert "NOT RESTARTED" in done.stderr


@pytest.mark.parametrize("script", UPGRADES)
def test_a_runner_without_a_daemon_is_restarted_too(machine, script):
    ask = f'echo "systemctl $*" >>{machine.asked_path}; case $1 in is-active) exit 3;; esac'
    machine.program("systemctl", ask)
    assert machine.run(f"scripts/{script}", *UPGRADES[script]).returncode == 0
    assert re.search("try-restart appliance-runner.service", machine.asked)
    assert "restart appliance.service" not in machine.asked


@pytest.mark.parametrize("script", UPGRADES)
@pytest.mark.parametrize(("verdict", "is_said"), [("78", True), ("66", False), ("0", False)])
def test_an_upgrade_of_a_stopped_daemon_tells_of_a_refused_configuration(
    machine, script, verdict, is_said
):
    machine.program("systemctl", "case $1 in is-active) exit 3;; esac")
    machine.program("check", f"exit {verdict}")
    done = machine.run(f"scripts/{script}", *UPGRADES[script])
    assert done.returncode == 0
    assert ("is refused by this version" in done.stderr) is is_said


def test_the_runner_ends_and_starts_anew_with_the_daemon_it_serves():
    lines = (PACKAGING / "systemd/appliance-runner.service").read_text().splitlines()
    assert "PartOf=appliance.service" in lines
    assert "Before=appliance.service" in lines  # so that it ends after it


def test_purge_takes_configuration_and_state(machine):
    (machine.root / "lib/appliance/data/.hidden").mkdir(parents=True)
    machine.write("appliance/appliance.yaml", CONFIG)
    done = machine.run("scripts/deb-postrm", "purge")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (machine.root / "lib/appliance").exists()
    assert not (machine.root / "etc/appliance").exists()


def test_purge_empties_what_a_link_names_and_takes_the_link(machine):
    elsewhere = machine.root / "disk"
    (machine.root / "lib/appliance").rename(elsewhere)
    (elsewhere / "store.db").touch()
    (machine.root / "lib/appliance").symlink_to(elsewhere)
    assert machine.run("scripts/deb-postrm", "purge").returncode == 0
    assert not (machine.root / "lib/appliance").is_symlink()
    assert list(elsewhere.iterdir()) == []


def test_purge_empties_a_disk_of_its_own_leaves_others_and_succeeds(machine):
    unshare = needs("unshare")
    state = machine.root / "lib/appliance"
    (machine.root / "etc/appliance/conf.d").mkdir()
    probe = subprocess.run([unshare, "-rm", "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {probe.stderr}")
    script = f"""
        mount -t tmpfs x {state}; touch {state}/store.db; mkdir {state}/share
        mount -t tmpfs x {state}/share; touch {state}/share/theirs
        mount -t tmpfs x {machine.root}/etc/appliance/conf.d
        sh {machine.root}/deb-postrm purge || exit 1
        ls -R {state}
    """
    machine.run("scripts/deb-postrm", "abort-upgrade")  # writes it with our paths
    done = subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "store.db" not in done.stdout
    assert "theirs" in done.stdout
    assert f"{state} stays" in done.stderr


def test_nothing_to_run_is_told_by_66(machine):
    assert machine.check_config().returncode == 66


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("default/appliance", "NAME=ship\\\n1"),
        ("sysconfig/appliance", "# NAME=x\n NAME = 'ship1' "),
    ],
)
def test_the_services_environment_is_read_as_systemd_reads_it(machine, place, text):
    machine.write("appliance/appliance.yaml", CONFIG)
    machine.write(place, text.replace("NAME", "APPLIANCE_NODE"))
    done = machine.check_config()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("node", ["gone", ""])
def test_a_configuration_without_the_machines_node_is_refused_as_a_start_refuses_it(machine, node):
    machine.write("appliance/conf.d/nodes.yml", CONFIG.replace("ship1", "nobody-is-called-so"))
    machine.write("default/appliance", f"APPLIANCE_NODE={node}\n")
    done = machine.check_config()
    assert done.returncode == 78
    assert "is no declared node" in done.stderr or "is not declared" in done.stderr


def test_what_the_asker_has_in_his_environment_is_nothing_to_the_service(machine, monkeypatch):
    monkeypatch.setenv("APPLIANCE_NODE", "ship1")
    monkeypatch.setenv("SUBJECT", "REQPing")
    machine.write("appliance/appliance.yaml", CONFIG)
    assert machine.check_config().returncode == 78


def test_both_packages_ask_before_they_restart():
    for name in UPGRADES:
        text = (PACKAGING / "scripts" / name).read_text()
        asks = text.index("if /usr/lib/appliance/check-config; then\n", text.index("is-active"))
        assert asks < text.index("try-restart appliance.service")
    assert shutil.which("sh")
