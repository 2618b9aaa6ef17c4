"""What the recipes for systemd say is tried on the package's own unit."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging/systemd/appliance.service"
TEXT = (ROOT / "docs/systemd.md").read_text()
NOT_HERE = ("not executable", "Command 'man ")
"""Of the program and its manual, which only the package brings."""


def verify(directory, name):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here")
    done = subprocess.run(
        ["systemd-analyze", "verify", f"./{name}"],
        cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if name in line or ".conf" in line]
    return [line for line in told if not any(words in line for words in NOT_HERE)]


def test_the_template_is_the_unit_with_places_of_its_own(tmp_path):
    [command] = re.findall(
        r"^    (sed -e .*) > /etc/systemd/system/appliance@\.service$", TEXT, re.M
    )
    assert command.endswith(" /usr/lib/systemd/system/appliance.service")
    command = command.replace("/usr/lib/systemd/system/appliance.service", str(UNIT))
    made = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    (tmp_path / "appliance@ship2.service").write_text(made)
    assert verify(tmp_path, "appliance@ship2.service") == []
    shared = [
        line for line in made.splitlines()
        if re.search(r"/appliance\b|Directory=appliance\b", line) and "%i" not in line
    ]  # fmt: skip
    assert shared == []
    assert "ExecReload=/usr/bin/appliance reload --state-dir /var/lib/appliance-%i" in made


def test_every_drop_in_is_one_that_systemd_reads(tmp_path):
    shutil.copy(UNIT, tmp_path)
    folder = tmp_path / "appliance.service.d"
    folder.mkdir()
    blocks = re.findall(r"```ini\n(.*?)```", TEXT, re.S)
    assert len(blocks) >= 3
    for number, block in enumerate(blocks):
        (folder / f"{number}.conf").write_text(block)
    assert verify(tmp_path, "appliance.service") == []
