"""What goes into the packages besides the program: recipes, units, alert rules, scripts."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from appliance.core.names import NodeName, Subject, WorkerKey, WorkerKind
from appliance.core.specs import Phase
from appliance.telemetry.counts import TelemetryCounts
from appliance.telemetry.metrics import Exposition, MetricsFacts, WorkerView, render
from appliance.telemetry.stats import WorkerStats

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
UNITS = sorted((PACKAGING / "systemd").iterdir())


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed here")
    return found


@pytest.mark.parametrize("name", ["appliance", "appliance-broker"])
def test_recipe_names_files_that_exist(name):
    recipe = yaml.safe_load((PACKAGING / f"nfpm/{name}.yaml").read_text())
    assert recipe["name"] == name
    sources = [item["src"] for item in recipe["contents"] if "src" in item]
    for format_ in recipe.get("overrides", {}).values():
        sources += format_["scripts"].values()
    ours = [source for source in sources if source.startswith("@HERE@")]
    assert ours
    for source in ours:
        assert (PACKAGING / source.removeprefix("@HERE@/")).is_file(), source


def test_no_live_configuration_is_shipped():
    recipe = yaml.safe_load((PACKAGING / "nfpm/appliance.yaml").read_text())
    below_etc = {item["dst"]: item["type"] for item in recipe["contents"] if "/etc/" in item["dst"]}
    assert below_etc == {
        "/etc/appliance": "dir",
        "/etc/appliance/conf.d": "dir",
        "/etc/appliance/appliance.yaml.example": "config|noreplace",
        "/etc/appliance/runner.allow.example": "config|noreplace",
    }


def test_example_is_a_good_config(tmp_path):
    config = tmp_path / "appliance.yaml"
    shutil.copy(PACKAGING / "files/appliance.yaml.example", config)
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "check", str(config)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout


def test_units_pass_systemds_own_check(tmp_path):
    analyze = needs("systemd-analyze")
    for unit in UNITS:
        # the program is not installed where the test runs
        text = unit.read_text().replace("/usr/bin/appliance", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    command = [analyze, "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "appliance" in line]
    assert done.returncode == 0, done.stderr
    assert ours == []


def test_daemons_unit_is_exposed_to_2_at_most():
    analyze = needs("systemd-analyze")
    unit = PACKAGING / "systemd/appliance.service"
    command = [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_unit_keeps_what_the_daemon_relies_on():
    unit = (PACKAGING / "systemd/appliance.service").read_text()
    for line in (
        "Type=notify",
        "ExecStartPre=-/usr/bin/appliance check /etc/appliance",
        "ExecReload=/usr/bin/appliance reload",
        "RestartPreventExitStatus=78",
        "StateDirectory=appliance",
    ):
        assert line in unit.splitlines()


class _Source:
    """The facts of a daemon that has one worker of each kind and has heard from a node."""

    def facts(self):
        workers = [
            WorkerView(
                key=WorkerKey(NodeName("n"), Subject("n.REQPing.EventACK"), kind),
                phase=Phase.RUNNING,
                stats=WorkerStats(),
            )
            for kind in WorkerKind
        ]
        return MetricsFacts(
            version="1",
            counts=TelemetryCounts(),
            digest="d",
            run_nodes=["n"],
            declared_nodes=["n"],
            workers=workers,
            last_hello_at={"n": 1.0},
        )


def _exposition() -> bytes:
    return render(Exposition(_Source()).collect(), "text/plain")[0]


def test_alerts_and_dashboard_ask_for_metrics_that_exist():
    exposed = set(re.findall(r"^(appliance_\w+)", _exposition().decode(), re.MULTILINE))
    rules = yaml.safe_load((PACKAGING / "monitoring/alerts.yaml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert len(expressions) > 10
    dashboard = json.loads((PACKAGING / "monitoring/dashboard.json").read_text())
    expressions += [item["expr"] for panel in dashboard["panels"] for item in panel["targets"]]
    expressions += [item["expr"] for item in dashboard["annotations"]["list"]]
    asked = set(re.findall(r"\bappliance_\w+", " ".join(expressions)))
    assert asked - exposed == set()


def test_prometheus_accepts_the_alerts():
    promtool = needs("promtool")
    rules = PACKAGING / "monitoring/alerts.yaml"
    done = subprocess.run([promtool, "check", "rules", str(rules)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_the_exposition():
    promtool = needs("promtool")
    done = subprocess.run([promtool, "check", "metrics"], input=_exposition(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_scripts_are_shell_that_parses():
    scripts = [*(PACKAGING / "scripts").iterdir(), PACKAGING / "files/check-config"]
    for script in (*scripts, PACKAGING / "build", PACKAGING / "verify"):
        shell = "bash" if script.read_text().startswith("#!/usr/bin/env bash") else "sh"
        done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, f"{script.name}: {done.stderr}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    done = subprocess.run(
        [
            *(sys.executable, str(PACKAGING / "manual.py")),
            *(str(root), "1.2.3", str(PACKAGING / "CHANGELOG.md")),
        ],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root


def _page(root: Path, name: str) -> str:
    return gzip.decompress((root / f"usr/share/man/{name}.gz").read_bytes()).decode()


def test_every_command_has_a_page_and_every_key_a_paragraph(written):
    pages = {path.name for path in (written / "usr/share/man/man1").iterdir()}
    assert {"appliance.1.gz", "appliance-run.1.gz", "appliance-reload.1.gz"} <= pages
    assert ".SH EXIT STATUS" in _page(written, "man1/appliance.1")
    assert "\\-\\-all\\-nodes" in _page(written, "man1/appliance-run.1")
    config = _page(written, "man5/appliance.yaml.5")
    for key in ("broker.embedded", "nodes.NODE.subscribe", "state.dir", "reload.max_cancel"):
        assert f"\\fB{key}\\fR" in config.replace("\\-", "-")


def test_pages_are_roff_without_a_complaint(written):
    groff = needs("groff")
    for page in sorted((written / "usr/share/man").rglob("*.gz")):
        command = [groff, "-man", "-Kutf8", "-Tutf8", "-ww", "-z"]  # as man(1) does
        done = subprocess.run(
            command, input=gzip.decompress(page.read_bytes()), capture_output=True
        )
        assert done.stderr == b"", page.name


def test_completion_is_shell_that_parses(written):
    share = written / "usr/share"
    files = {
        "bash": share / "bash-completion/completions/appliance",
        "zsh": share / "zsh/vendor-completions/_appliance",
        "fish": share / "fish/vendor_completions.d/appliance.fish",
    }
    for shell, file in files.items():
        assert "rollback" in file.read_text()
        if shutil.which(shell):
            done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_commands_options_and_values(written):
    file = written / "usr/share/bash-completion/completions/appliance"
    script = f"""
        source {file}
        try() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _appliance; echo "${{COMPREPLY[*]}}"; }}
        try appliance rel
        try appliance run --all
        try appliance run --log-level w
        try appliance outbox dr
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["reload", "--all-nodes", "warning", "drop"]
