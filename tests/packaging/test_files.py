"""What goes into the packages besides the program: recipes, units, alert rules, scripts."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

from appliance.api.page import load_page
from appliance.core.names import NodeName, Subject, WorkerKey, WorkerKind
from appliance.core.specs import Phase
from appliance.telemetry.metrics import Exposition, MetricsFacts, WorkerView, render
from appliance.telemetry.stats import TelemetryCounts, WorkerStats
from tests.packaging.conftest import PACKAGING, needs

UNITS = sorted((PACKAGING / "systemd").glob("*.[st]*"))


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


def test_the_page_is_part_of_the_wheel_and_stays_in_the_bundle():
    project = tomllib.loads((PACKAGING.parent / "pyproject.toml").read_text())
    program = PACKAGING.parent / "appliance"
    patterns = project["tool"]["setuptools"]["package-data"]["appliance"]
    files = [path.relative_to(program) for path in (program / "page").iterdir()]
    assert len(files) > 10
    for path in files:
        assert any(path.match(pattern) for pattern in patterns), path
        assert path.suffix in (".html", ".css", ".js", ".svg"), (
            path
        )  # the bundle leaves out *.c, *.pyi …
    assert set(load_page()) == {path.name for path in files}


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


def test_every_word_of_the_recipe_is_filled_in():
    build = (PACKAGING / "build").read_text()
    for recipe in (PACKAGING / "nfpm").iterdir():
        for word in set(re.findall(r"@[A-Z]+@", recipe.read_text())):
            assert f"s|{word}|" in build, f"{recipe.name}: {word}"


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


@pytest.mark.parametrize(
    ("unit", "drop_in"),
    [
        ("appliance.service", "commands-by-runner.conf"),
        ("appliance-runner.service", "runner-with-fewer-rights.conf"),
    ],
)
def test_drop_ins_pass_systemds_own_check(tmp_path, unit, drop_in):
    analyze = needs("systemd-analyze")
    for path in UNITS:
        text = path.read_text().replace("/usr/bin/appliance", "/bin/true")
        (tmp_path / path.name).write_text(text)
    (tmp_path / f"{unit}.d").mkdir()
    shutil.copy(PACKAGING / "systemd/examples" / drop_in, tmp_path / f"{unit}.d")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    ours = [line for line in done.stderr.splitlines() if "appliance" in line or ".conf" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


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
        "ConditionPathExistsGlob=|/var/lib/appliance/history/?*",
        "SystemCallFilter=@setuid",
        "MemoryMax=2G",
        "TasksMax=1024",
        "LimitCORE=0",
    ):
        assert line in unit.splitlines()


@pytest.mark.parametrize("unit", ["appliance.service", "appliance-runner.service"])
def test_nothing_that_a_unit_started_outlives_it(unit):
    lines = (PACKAGING / "systemd" / unit).read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    # the control group, which no child leaves by a session of its own, ends with the main process
    assert found["KillMode"] == "mixed"
    assert found["LimitCORE"] == "0"
    assert not {"SendSIGKILL", "Delegate"} & found.keys()


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
            inputs={("tcp", "refused"): 0},
            secrets={"broker.tls.cert": (True, 1.0)},
            audit_entries={"unnamed": 0},
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


def test_every_panel_shows_appliances_alone():
    """What every program exposes (`up`, `process_…`) is joined with what ours do: "All" means all jobs of a Prometheus."""
    dashboard = json.loads((PACKAGING / "monitoring/dashboard.json").read_text())
    rules = yaml.safe_load((PACKAGING / "monitoring/alerts.yaml").read_text())
    asked = [item["expr"] for panel in dashboard["panels"] for item in panel["targets"]]
    asked += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    foreign = [text for text in asked if re.search(r"\b(up|process_\w+|python_\w+|go_\w+)\b", text)]
    assert len(foreign) == 4
    for text in foreign:
        assert re.search(r"and on \(job, instance\) .*appliance_build_info", text), text


def test_the_numbers_of_the_fleet_are_in_rules_and_dashboard():
    for name in ("alerts.yaml", "dashboard.json"):
        assert "appliance_fleet_nodes" in (PACKAGING / "monitoring" / name).read_text()


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
    names = ("build", "image", "lock", "repository", "verify")
    by_hand = [*(PACKAGING / name for name in names), *PACKAGING.glob("verify-*")]
    for script in (*scripts, *by_hand, *(PACKAGING / "oldest").glob("[bp]*")):
        shell = "bash" if "bash" in script.read_text().partition("\n")[0] else "sh"
        done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, f"{script.name}: {done.stderr}"
