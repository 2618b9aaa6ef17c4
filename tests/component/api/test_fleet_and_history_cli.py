"""`fleet`, `history` and `rollback` against a served facade: who is named, what is said of a set, and how they exit."""

import datetime

import pytest

from appliance.cli import main
from tests.support.fake_control import PROBLEM, SPAWN, ServedControl, make_status

NOW = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
DIGEST = make_status()["config"]["digest"]


@pytest.fixture
def control(short_dir):
    with ServedControl(short_dir) as served:
        yield served.control


@pytest.fixture
def run(short_dir, control, capsys):
    def run_command(*arguments):
        code = main([*arguments, "--state-dir", str(short_dir)])
        return int(code), *capsys.readouterr()

    return run_command


def node(name, state, **facts):
    heard = {"applied": DIGEST, "revision": "c0ffee1234567", "dirty": False, "version": "0.1.0"}
    return {"node": name, "state": state, "last_hello_at": NOW, "problems": 0, **heard, **facts}


def say(control, *nodes, **config):
    status = make_status(fleet=list(nodes))
    status["config"] |= {"revision": "c0ffee1234567", "dirty": False} | config
    control.answers["status"] = status


GO_NODE = {"node": "goer", "state": "unknown", "last_hello_at": NOW}
NOT_YET = {"node": "late", "state": "unknown", "last_hello_at": None}


@pytest.mark.parametrize(
    ("nodes", "code"),
    [
        ([node("ship1", "in_sync")], 0),
        ([node("ship1", "in_sync"), node("ship2", "behind"), node("ship3", "silent")], 1),
        ([node("ship1", "refused"), node("ship2", "silent")], 1),
        ([node("ship1", "in_sync"), node("ship2", "silent")], 3),
        ([node("ship1", "in_sync"), GO_NODE], 0),
    ],
)
def test_the_fleets_status_exits_by_the_worst_and_names_who_is_not_in_sync(
    run, control, nodes, code
):
    say(control, *nodes)
    status, out, _ = run("fleet", "status")
    assert status == code
    named = [line.split()[0] for line in out.splitlines()[1:-1]]
    assert named == [item["node"] for item in nodes if item["state"] != "in_sync"]


def test_what_a_node_runs_and_why_it_refused_stand_beside_it(run, control):
    say(control, node("ship1", "refused", problems=3, first_problem="E204 a.yaml:3:4 no"),
        node("ship2", "behind", dirty=True), GO_NODE, NOT_YET)  # fmt: skip
    _, out, _ = run("fleet", "status")
    refused, behind, goer, late, summary = out.splitlines()[1:]
    assert "E204 a.yaml:3:4 no (and 2 more)" in refused
    assert "c0ffee1234-dirty" in behind
    assert "says hello, but not which config" in goer
    assert ("not heard yet" in late, "never" in late) == (True, True)
    said = "1 behind, 1 refused, 1 says hello, but not which config, 1 not heard yet"
    assert summary == f"4 nodes: {said}"


def test_a_node_that_is_behind_and_refuses_nothing_has_a_reason_too(run, control):
    say(
        control,
        node("pulls", "behind", applied="sha256:1", desired="sha256:1"),
        node("pins", "behind", applied="sha256:1", desired="sha256:2"),
    )
    pulls, pins = run("fleet", "status")[1].splitlines()[1:3]
    assert pulls.endswith("its files are others than here")
    assert pins.endswith("its files are not in force there")


def wait(run, *words):
    return run("fleet", "wait", "--timeout", "0", *words)


def test_a_wait_ends_when_all_run_the_revision_that_is_asked_for(run, control):
    say(control, node("ship1", "in_sync"), node("ship2", "in_sync"))
    assert wait(run, "--rev", "c0ffee") == (0, "all 2 nodes run it\n", "")
    assert wait(run, "--rev", "beef")[0] == 1
    say(control, node("ship1", "in_sync"), node("ship2", "in_sync", dirty=True))
    code, out, _ = wait(run, "--rev", "c0ffee")
    assert (code, out.splitlines()[-1]) == (1, "1 of 2 nodes run it")


def test_the_daemon_that_is_asked_must_run_it_too(run, control):
    say(control, node("ship1", "in_sync"), revision="beef")
    code, out, _ = wait(run, "--rev", "c0ffee")
    assert (code, "(here)" in out) == (1, True)
    refused = {"result": "refused", "at": NOW, "problems": [PROBLEM]}
    say(control, node("ship1", "in_sync"), last_attempt=refused)
    code, out, _ = wait(run)
    assert (code, PROBLEM["message"] in out) == (1, True)


def test_nodes_that_never_tell_their_config_are_named_and_not_waited_for(run, control):
    say(control, node("ship1", "in_sync"), GO_NODE)
    code, out, err = wait(run)
    assert (code, out) == (0, "the only node runs it\n")
    assert err.endswith("goer\n")
    say(control, node("ship1", "in_sync"), NOT_YET)
    assert wait(run)[0] == 3  # whether it runs it nobody knows
    assert run("fleet", "status")[0] == 3
    say(control, node("ship1", "in_sync"), GO_NODE)
    assert run("fleet", "status")[0] == 0


def test_where_nobody_says_hello_a_wait_is_no_success(run, control):
    say(control)
    code, out, err = wait(run)
    assert (code, out) == (1, "")
    assert "no node says hello here" in err
    assert run("fleet", "status")[0] == 0


def record(**facts):
    return {"number": 3, "at": NOW, "generation": 2, "result": "applied", "digest": DIGEST, "trigger": "watch",
            "revision": "c0ffee1234567", "branch": "main", "dirty": True, "actions": [SPAWN], "problems": [],
            "duration_seconds": 0.25, "drain": {"finished": 4, "handed_back": 1, "abandoned": 0}} | facts  # fmt: skip


def test_a_record_tells_who_and_what_and_of_which_commit_and_what_was_drained(run, control):
    control.records = [
        record(trigger="rollback", by="anna (uid 1000)", author="Bert <b@example.com>")
    ]
    _, out, _ = run("history")
    assert "c0ffee1234-dirty" in out
    assert "rollback by anna (uid 1000)" in out
    _, out, _ = run("history", "show", "2")
    assert out.startswith("record 3   ")
    assert "git c0ffee1234567 (main, files differ from it) by Bert <b@example.com>" in out
    assert "applied: generation 2, 1 spawned, in 0.250 s; drained: 4 finished, 1 handed back" in out


def test_a_refused_and_a_reverted_record_say_so_and_name_no_exit_code(run, control):
    control.records = [record(result="reverted", problems=[PROBLEM | {"code": "E310"}])]
    _, out, err = run("history", "show", "2")
    assert "reverted: generation 2" in out
    assert ("E310" in out, "exit" in out, err) == (True, False, "")
    control.records = [record(result="refused", problems=[PROBLEM], actions=[], revision=None)]
    _, out, _ = run("history", "show", "2")
    assert "refused: generation 2 stayed in force" in out
    _, out, _ = run("history")
    assert "GIT" not in out


def test_a_rollback_says_that_it_is_pinned(run, control):
    control.answers["reload"] |= {"result": "applied", "pinned": True}
    code, out, _ = run("rollback", "--to", "g1")
    assert (code, out.splitlines()[-1]) == (0, "pinned until the files change, or `appliance reload --force`")  # fmt: skip
    assert control.calls[-1] == ("rollback", "g1", False)


def test_the_fleet_is_shown_with_labels_where_there_are_any(run, control):
    say(
        control,
        node("ship1", "behind", labels={"site": "oslo", "tier": "edge"}),
        node("s2", "behind"),
    )
    _, out, _ = run("fleet", "status")
    assert "LABELS" in out
    assert "site=oslo" in out
    say(control, node("ship1", "behind"))
    assert "LABELS" not in run("fleet", "status")[1]
