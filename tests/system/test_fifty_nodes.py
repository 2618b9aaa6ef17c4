"""Fifty nodes, five of them away, two slow, one failing: asked by role, in batches, with a bound on failures, grouped."""

import json
import os

import pytest

from tests.support import forked
from tests.support.fifty_nodes import AWAY, FAILING, PROGRAM, SHIPS, SLOW, WELL, fifty_nodes

ANSWERED = sorted([*WELL, *SLOW], key=SHIPS.index)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with fifty_nodes(tmp_path_factory.mktemp("fifty")) as central:
        yield central


@pytest.fixture
def run(fleet):
    def run_command(*arguments):
        plain = {"APPLIANCE_STATE_DIR": str(fleet.state), "LC_ALL": "C", "PATH": os.environ["PATH"]}
        return forked.run(arguments, env=plain)

    return run_command


def test_the_fleet_is_asked_in_batches_and_answers_in_groups(run):
    done = run("exec", "@ship", "--batch", "10", "--max-fail", "1", "--group", "--", *PROGRAM)
    assert done.returncode == 1
    blocks = done.stdout.split("\n\n")
    assert len(blocks) == 3
    names, _, answer = blocks[0].rpartition(" (44 nodes):\n")
    assert names.replace(",\n", ", ").split(", ") == ANSWERED
    assert answer == "    restarted"
    assert blocks[1] == "ship13 (exit 2):\n  ! disk full"
    assert blocks[2] == f"{', '.join(AWAY)} (5 nodes, waiting: nobody there):\n"
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    said = done.stderr.splitlines()
    assert said[0] == "appliance: 50 nodes: ship1, ship2, ship3, ship4, ship5 and 45 more"
    assert sum(line.startswith("appliance: batch ") for line in said) == 5
    assert said[-1].startswith("appliance: 44 of 50 done; 1 failed: ship13; 5 silent: ship46")
    # later, from the job, the same
    job = json.loads(run("jobs", "list", "-o", "json").stdout)["jobs"][0]["id"]
    later = run("jobs", "output", job, "--group")
    assert (later.returncode, later.stdout, later.stderr) == (1, done.stdout, "")
    told = json.loads(run("jobs", "output", job, "--group", "-o", "json").stdout)
    assert [len(group["nodes"]) for group in told["groups"]] == [44, 1, 5]
    assert told["summary"]["failed"] == FAILING
    assert told["summary"]["absent"] == AWAY


def test_the_first_failure_leaves_the_other_batches_alone(run, fleet):
    done = run("exec", "@ship", "--batch", "20%", "--max-fail", "0", "-o", "json", "--", *PROGRAM)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["summary"]["not_asked"] == SHIPS[20:]
    assert told["summary"]["failed"] == FAILING
    states = {item["node"]: item for item in told["nodes"]}
    assert states["ship50"]["state"] == "not asked"
    assert states["ship50"]["why"] == "one failed"
    assert (states["ship1"]["batch"], states["ship11"]["batch"], states["ship50"]["batch"]) == (
        1,
        2,
        0,
    )
    waiting = fleet.request("GET", "/api/v1/outbox")[1]["records"]
    assert not {record["to"] for record in waiting} & set(SHIPS[20:45])
    # one call is one job, whatever its batches
    (job,) = told["jobs"]
    shown = run("jobs", "show", job).stdout.splitlines()
    assert [line.strip() for line in shown if "batch" in line] == [
        "batch 1 of 5:",
        "batch 2 of 5:",
    ]
    assert len(shown) == 2 + 2 + 20
    kept = json.loads(run("jobs", "show", job, "-o", "json").stdout)
    assert {node["to"]: node["batch"] for node in kept["nodes"]} == {
        name: 1 if at < 10 else 2 for at, name in enumerate(SHIPS[:20])
    }
    assert kept["batches"] == 5


def test_what_would_be_asked_is_shown_and_nothing_sent(run, fleet):
    before = fleet.status()["outbox"]["pending"]
    done = run(
        "exec",
        "site=oslo",
        "-x",
        "ship1*",
        "--batch",
        "5",
        "--dry-run",
        "-o",
        "json",
        "--",
        "uptime",
    )
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["nodes"] == [ship for ship in SHIPS[1::2] if not ship.startswith("ship1")]
    assert [len(batch) for batch in told["batches"]] == [5, 5, 5, 5]
    shown = run("exec", "@ship", "!ship50", "--dry-run", "--", "sh", "-c", "echo a b")
    assert shown.stdout.startswith(
        "would send REQCliCommand sh -c 'echo a b'\nto 49 nodes:\n  ship1, "
    )
    assert fleet.status()["outbox"]["pending"] == before


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["@shp"], "did you mean @ship?"),
        (["all", "!shp1"], "did you mean ship1?"),
        (["ship[1-9]"], "patterns know * and ? only"),
        (["ship1", "--max-fail", "1"], "goes with --batch"),
        (["ship1", "--batch", "0"], "at least 1"),
        (["ship1", "--batch", "x"], "is no number"),
    ],
)
def test_targets_that_mean_nobody_and_numbers_that_are_none_are_wrong_use(run, targets, words):
    done = run("exec", *targets, "--", "uptime")
    assert done.returncode == 64
    assert words in done.stderr


def test_send_shows_and_tells_what_exec_does_in_the_same_words(run):
    targets = ["--batch", "2", "--max-fail", "0", "--group", "-o", "json"]
    ran = json.loads(run("exec", "ship1*", "-x", "ship19", *targets, "--", *PROGRAM).stdout)
    sent = run("send", "--to", "ship1*", "-x", "ship19", *targets, "REQCliCommand", "--", *PROGRAM)
    assert sent.returncode == 1
    told = json.loads(sent.stdout)
    assert told.keys() == ran.keys() | {"messages"}
    assert told["summary"] == ran["summary"]
    assert [item["to"] for item in told["messages"]] == [item["node"] for item in told["nodes"]]
    assert [item["state"] for item in told["messages"]][-1] == "not asked"

    def of_each(facts):
        own = ("id", "id_text", "seconds", "job")
        return [{key: value for key, value in item.items() if key not in own} for item in facts]

    assert of_each(told["nodes"]) == of_each(ran["nodes"])
    assert told["groups"] == ran["groups"]
    assert {item["node"]: item["stderr"] for item in told["nodes"]}["ship13"] == "disk full\n"


def test_send_in_groups_keeps_quiet_about_each_node(run):
    done = run("send", "--to", "@ship", "--group", "REQCliCommand", "--", *PROGRAM)
    assert done.returncode == 1
    assert " (44 nodes):\n    restarted\n" in done.stdout
    said = done.stderr.splitlines()
    assert said[0].startswith("appliance: 50 nodes: ")
    assert said[1].startswith("44 of 50 done; 1 failed: ship13; 5 silent: ")
    assert all("jobs watch" in line for line in said[2:])


def test_json_lines_tell_what_was_not_asked(run):
    words = ["--to", "ship13,ship14", "--batch", "1", "--max-fail", "0", "-o", "jsonl"]
    done = run("send", *words, "REQCliCommand", "--", *PROGRAM)
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "event": "not_asked",
        "to": "ship14",
        "state": "not asked",
        "why": "one failed",
    }


def test_tail_takes_targets_too(run):
    shown = run("tail", "site=oslo", "-x", "ship?", "--dry-run", "/var/log/syslog")
    assert shown.returncode == 64
    assert "none of them subscribes REQTailFile" in shown.stderr
