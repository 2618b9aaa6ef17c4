"""How a service is started is asked of systemd, and what a start would do is told before it."""

import json
import os

import pytest

from appliance.cli import start_check
from appliance.cli.own_program import find_own_command
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
    )


def test_a_unit_that_systemd_does_not_know_says_nothing():
    assert read_answers({**ANSWERS, "ExecStart": []}) is None


def test_systemd_is_asked_where_it_runs(tmp_path, monkeypatch):
    busctl = tmp_path / "busctl"
    lines = [json.dumps({"type": "x", "data": ANSWERS[name]}) for name in start_check._PROPERTIES]
    (tmp_path / "answers").write_text("\n".join(lines))
    busctl.write_text(
        f'#!/bin/sh\ncase "$*" in *appliance_2eservice*) cat {tmp_path}/answers;; esac\n'
    )
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
