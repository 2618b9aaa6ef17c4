"""`appliance setup allow` writes drop-ins that systemd takes, and every example of the docs has one."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from appliance.cli.app import main
from tests.packaging.conftest import PACKAGING, ROOT, needs

ALL = [
    *("--read", "/home/anna/logs", "--write", "/var/spool/appliance", "--write", "/srv/my data%"),
    *("--write", "/tmp/there", "--group", "adm", "--capability", "cap_net_raw"),
    *("--address", "192.0.2.7", "--address", "2001:db8::/32"),
    *("--runner", "--runner-network"),
]


def allow(directory: Path, *words: str) -> int:
    return main(["setup", "allow", "--directory", str(directory), *words])


def test_it_writes_what_was_asked_and_adds_what_is_asked_later(tmp_path, capsys):
    daemon = tmp_path / "appliance.service.d/allow.conf"
    assert allow(tmp_path, "--write", "/srv/www/", "--group", "adm") == 0
    assert daemon.read_text().splitlines()[1:] == [
        *("[Service]", "ReadWritePaths=-/srv/www", "SupplementaryGroups=adm")
    ]
    assert daemon.stat().st_mode & 0o777 == 0o644
    assert "systemctl daemon-reload && systemctl try-restart appliance.service\n" in (
        capsys.readouterr().out
    )
    assert allow(tmp_path, "--group", "adm", "--group", "ssl-cert", "--runner-network") == 0
    assert daemon.read_text().splitlines()[1:] == [
        *("[Service]", "ReadWritePaths=-/srv/www"),
        *("SupplementaryGroups=adm", "SupplementaryGroups=ssl-cert"),
    ]
    runner = tmp_path / "appliance-runner.service.d/allow.conf"
    assert runner.read_text().splitlines()[1:] == ["[Service]", "IPAddressDeny="]


def test_a_dry_run_prints_and_writes_nothing(tmp_path, capsys):
    assert allow(tmp_path, "--dry-run", *ALL) == 0
    out = capsys.readouterr().out
    assert 'ReadWritePaths="-/srv/my data%%"\n' in out
    assert "ProtectHome=tmpfs\nBindReadOnlyPaths=-/home/anna/logs\n" in out
    assert "BindPaths=-/tmp/there\n" in out
    assert "AmbientCapabilities=CAP_NET_RAW\n" in out
    assert (
        "IPAddressDeny=any\nIPAddressAllow=localhost\n"
        "IPAddressAllow=192.0.2.7/32\nIPAddressAllow=2001:db8::/32\n"
    ) in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--write", "srv"],
        ["--write", "/a\nb"],
        ["--group", "a b"],
        ["--capability", "NET_RAW"],
        ["--address", "nats.example.com"],
    ],
)
def test_what_is_no_wish_is_wrong_use(tmp_path, words):
    assert allow(tmp_path, *words) == 64
    assert list(tmp_path.iterdir()) == []


def test_systemd_takes_all_of_it(tmp_path):
    analyze = needs("systemd-analyze")
    for path in (PACKAGING / "systemd").glob("*.[st]*"):
        (tmp_path / path.name).write_text(
            path.read_text().replace("/usr/bin/appliance", "/bin/true")
        )
    assert allow(tmp_path, *ALL) == 0
    for unit in ("appliance.service", "appliance-runner.service"):
        done = subprocess.run(
            [analyze, "verify", "--man=no", str(tmp_path / unit)],
            capture_output=True,
            text=True,
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        )
        ours = [
            line for line in done.stderr.splitlines() if "appliance" in line or "allow.conf" in line
        ]
        assert (done.returncode, ours) == (0, []), done.stderr


def test_what_the_docs_allow_is_taken_by_the_command(tmp_path):
    texts = [*(ROOT / "docs").glob("*.md"), PACKAGING / "README.md"]
    shown = [
        line.partition("#")[0].split()[3:]
        for path in texts
        for line in re.findall(r"^ +(appliance setup allow .*)$", path.read_text(), re.MULTILINE)
    ]
    assert len(shown) > 6
    for words in shown:
        assert allow(tmp_path, "--dry-run", *words) == 0, words


@pytest.mark.parametrize("name", ["inputs.md", "commands.md", "methods.md"])
def test_docs_with_paths_and_programs_tell_of_the_cage(name):
    assert "appliance setup allow" in (ROOT / "docs" / name).read_text()
