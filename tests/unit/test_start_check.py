"""How a service is started is asked of systemd, and what a start would do is told before it."""

import json
import os

import pytest

from appliance.cli import start_check
from appliance.cli.options import find_own_command
from appliance.cli.start_check import (
    ServiceStart,
    ask_systemd,
    expand_arguments,
    make_environment,
    read_answers,
)

ANSWERS = {
    "ExecStart": [
        [
            "/usr/bin/appliance",
            ["/usr/bin/appliance", "run", "/srv/my fleet", "--node", "${SHIP}"],
            *(False, 0, 0, 0, 0, 0, 0, 0),
        ]
    ],
    "Environment": ["APPLIANCE_CONFIG=/etc/appliance", "A=b=c"],
    "EnvironmentFiles": [["/etc/default/appliance", True]],
    "StateDirectory": ["appliance"],
    "User": "appliance",
    "Group": "appliance",
    "SupplementaryGroups": ["adm"],
    "Conditions": [
        ["ConditionPathExistsGlob", True, False, "/srv/my fleet/*.yaml", 1],
        ["ConditionPathExists", True, False, "/srv/marker", 0],
        ["ConditionPathExists", True, True, "/srv/away", 0],
        ["ConditionVirtualization", True, False, "yes", 0],
    ],
}


def test_the_command_line_of_a_drop_in_counts():
    start = read_answers(ANSWERS)
    assert start == ServiceStart(
        arguments=["run", "/srv/my fleet", "--node", "${SHIP}"],
        environment={"APPLIANCE_CONFIG": "/etc/appliance", "A": "b=c"},
        files=[("/etc/default/appliance", True)],
        state_dir="/var/lib/appliance",
        user="appliance",
        group="appliance",
        groups=["adm"],
        needs=["/srv/my fleet/*.yaml", "/srv/marker"],
    )


def test_a_unit_that_systemd_does_not_know_says_nothing():
    assert read_answers({**ANSWERS, "ExecStart": []}) is None


def test_systemd_is_asked_where_it_runs(tmp_path, monkeypatch):
    busctl = tmp_path / "busctl"
    for kind, names in (("Service", start_check._PROPERTIES), ("Unit", ["Conditions"])):
        lines = [json.dumps({"type": "x", "data": ANSWERS[name]}) for name in names]
        (tmp_path / kind).write_text("\n".join(lines))
    program = f"""
        case "$*" in
            *appliance_2eservice*systemd1.Service*) cat {tmp_path}/Service;;
            *appliance_2eservice*systemd1.Unit*) cat {tmp_path}/Unit;;
        esac
    """
    busctl.write_text(f"#!/bin/sh\n{program}")
    busctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert ask_systemd("appliance.service") is None
    monkeypatch.setattr(start_check, "_RUNNING_SYSTEMD", tmp_path)
    assert ask_systemd("appliance.service") == read_answers(ANSWERS)
    assert ask_systemd("other.service") is None


@pytest.mark.parametrize(
    ("word", "becomes"),
    [
        ("${A}", ["b c"]),
        ("$A", ["b", "c"]),
        ("x${A}y", ["xb cy"]),
        ("$NONE", []),
        ("${NONE}", [""]),
        ("$$A", ["$A"]),
        ("x$A", ["x$A"]),
    ],
)
def test_arguments_are_expanded_as_systemd_does(word, becomes):
    assert expand_arguments([word], {"A": "b c"}) == becomes


def test_later_files_win_over_earlier_ones_and_over_the_unit(tmp_path):
    (tmp_path / "one").write_text("A=1\nB=1\n")
    (tmp_path / "two").write_text("B='2'\n")
    files = [(str(tmp_path / name), True) for name in ("one", "two", "none")]
    given = {"A": "0", "C": "0"}
    start = ServiceStart(arguments=[], environment=given, files=files, state_dir="/var/lib/x")
    found = make_environment(start, {"PATH": "/bin", "APPLIANCE_NODE": "mine"})
    assert found == {
        "A": "1",
        "B": "2",
        "C": "0",
        "PATH": "/bin",
        "STATE_DIRECTORY": "/var/lib/x",
    }


def test_the_program_starts_itself_by_what_it_was_started_with(tmp_path):
    program = tmp_path / "appliance"
    program.touch(mode=0o755)
    assert find_own_command(str(program)) == [str(program)]
    assert find_own_command(str(tmp_path / "__main__.py"))[-2:] == ["-m", "appliance"]
    assert find_own_command("-c")[-2:] == ["-m", "appliance"]


@pytest.mark.parametrize(
    ("needs", "code"), [(["{}/*.yaml"], 66), (["{}/*.yaml", "{}/x"], 0), ([], 0)]
)
def test_a_unit_whose_conditions_do_not_hold_has_nothing_to_start_with(
    tmp_path, monkeypatch, needs, code
):
    """With a drop-in it may run other paths than those of the packages, and say so in its conditions."""
    (tmp_path / "x").touch()
    words = ["run", "/srv/fleet"]
    start = ServiceStart(arguments=words, needs=[text.format(tmp_path) for text in needs])
    monkeypatch.setattr(start_check, "ask_systemd", lambda _: start)
    monkeypatch.setattr(start_check, "find_own_command", lambda: ["true"])
    assert start_check.service_check(["/etc/appliance"]) == code
