"""Whatever `check` accepts the daemon runs, and what it refuses the daemon refuses with the same codes."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.config.loader import load_desired
from appliance.errors import ConfigInvalid
from appliance.methods.registry import METHOD_TABLE
from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.config_strategies import slightly_broken_configs, to_yaml, valid_configs

SEED = "version: 1\nbroker: {embedded: true}\nnodes: {central: {subscribe: {REQPing: {}}}}\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with Appliance(SEED, tmp_path_factory.mktemp("generated")) as appliance:
        yield appliance


def check_codes(path):
    """What `check` says: the sorted codes of all errors, or None when it accepts."""
    try:
        load_desired([path], environ=os.environ, methods=METHOD_TABLE)
    except ConfigInvalid as error:
        return sorted(problem.code for problem in error.problems)
    return None


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=st.one_of(valid_configs(), slightly_broken_configs()))
def test_a_generated_config_meets_the_same_verdict_in_check_and_in_a_running_daemon(daemon, tree):
    tree = (
        {**tree, "reload": {**(tree.get("reload") or {}), "settle": "10ms"}}
        if isinstance(tree, dict)
        else tree
    )
    daemon.write_config(to_yaml(tree))
    expected = check_codes(daemon.config_path)
    verdict = daemon.reload(force=True)
    codes = sorted(problem["code"] for problem in verdict["problems"])
    if expected is not None:
        assert (verdict["result"], codes) == ("refused", expected)
        return
    if verdict["result"] == "refused":  # valid, but not for a daemon that runs already
        assert set(codes) <= {"E301", "E303", "E304"}, codes
        return
    assert verdict["result"] in ("applied", "unchanged")
    assert verdict["result"] == "unchanged" or verdict["failed"] == {}
    workers = [worker for node in daemon.status()["nodes"].values() for worker in node["workers"]]
    assert {worker["phase"] for worker in workers if worker.get("declared", True)} <= {"running"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (SEED, 0),
        (SEED + "nonsense: 1\n", 78),
        (SEED.replace("central", "central: {}\n  central"), 78),
        ("", 78),
    ],
)
def test_check_and_run_end_with_the_same_exit_code(tmp_path, text, code):
    appliance = Appliance(text, tmp_path)
    checked = forked.run(["check", str(appliance.config_path)])
    assert checked.returncode == code, checked.stdout + checked.stderr
    if code == 0:
        with appliance:
            assert appliance.stop() == 0
        return
    appliance.spawn()
    assert appliance.process.wait(60) == code
    codes = [
        word
        for word in (checked.stdout + checked.stderr).split()
        if word[:1] == "E" and word[1:].isdigit()
    ]
    assert codes
    assert all(word in appliance.log() for word in codes)
