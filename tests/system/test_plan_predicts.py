"""What `plan` says is what a reload then does, and its exit code says which of the three it is."""

import pytest

from tests.support import forked
from tests.support.appliance import Appliance

BASE = """
version: 1
broker: {embedded: true}
reload: {settle: 1ms, watch: false, poll_interval: 10m}
nodes:
  central:
    subscribe: {REQErrorLog: {}, REQToFileAppend: {}, REQPong: {}}
    publish: {pings: {to: ship1, method: REQPing}}
  ship1: {subscribe: {REQPing: {}, REQToConsole: {}}}
"""
EDITS = {
    "spawn": BASE.replace("REQToConsole: {}", "REQToConsole: {}, REQToFile: {}"),
    "cancel": BASE.replace(", REQToConsole: {}", ""),
    "update": BASE.replace("REQToConsole: {}", "REQToConsole: {concurrency: 3}"),
    "swap": BASE.replace("REQToConsole: {}", "REQToConsole: {ack: {on: done}}"),
    "all at once": BASE.replace("REQToConsole: {}", "REQToFile: {}")
    .replace("method: REQPing", "method: REQPing, compression: none")
    .replace("REQPong: {}", "REQPong: {method_timeout: 3s}"),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with Appliance(BASE, tmp_path_factory.mktemp("plans")) as appliance:
        yield appliance


def plan(daemon, *args):
    done = forked.run(["plan", *args, "--state-dir", str(daemon.state)])
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", EDITS)
def test_the_reload_does_what_the_plan_said(daemon, name):
    daemon.write_config(BASE)
    daemon.reload()
    candidate = daemon.config_path.with_name("candidate.yml.txt")
    candidate.write_text(EDITS[name])
    predicted = daemon.request("GET", f"/api/v1/plan?path={candidate}")[1]
    assert predicted["result"] == "changes"
    daemon.write_config(EDITS[name])
    done = daemon.reload()
    assert done["actions"] == predicted["actions"]
    assert {action["action"] for action in done["actions"]} >= (
        {name} if name != "all at once" else set()
    )
    assert daemon.request("GET", "/api/v1/plan")[1]["result"] == "no change"


def test_the_exit_code_tells_no_change_changes_and_refused(daemon, tmp_path):
    daemon.write_config(BASE)
    daemon.reload()
    assert plan(daemon)[0] == 0
    changed, broken = tmp_path / "changed.yaml", tmp_path / "broken.yaml"
    changed.write_text(EDITS["swap"])
    broken.write_text(BASE + "nonsense: 1\n")
    code, out, _ = plan(daemon, str(changed))
    assert code == 2
    assert "ship1.REQToConsole.EventACK" in out
    assert plan(daemon, str(broken))[0] == 78
    assert plan(daemon, str(changed), "--against", str(changed))[0] == 0
    assert plan(daemon, str(changed), "--against", str(daemon.config_path))[0] == 2


def test_a_plan_names_settings_beside_the_workers(daemon, tmp_path):
    daemon.write_config(BASE)
    daemon.reload()
    changed = tmp_path / "changed.yaml"
    changed.write_text(BASE + 'admin: {listen: "127.0.0.1:0"}\n')
    code, out, _ = plan(daemon, str(changed))
    assert code == 2
    assert "admin.listen" in out


def test_without_a_daemon_the_plan_says_so(daemon, tmp_path):
    done = forked.run(["plan", "--state-dir", str(tmp_path)])
    assert done.returncode == 69
