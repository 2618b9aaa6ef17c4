"""`exec` and `tail` against a served facade: what is asked, what is written where, how they exit."""

import json
import os
import pty
import signal
import subprocess

import pytest

from appliance.cli import main
from appliance.core.delivery import DeliveryState, Standing
from tests.support import forked
from tests.support.fake_control import ServedControl
from tests.support.programs import ended


@pytest.fixture
def control(short_dir):
    with ServedControl(short_dir) as served:
        served.control.replies = True
        yield served.control


@pytest.fixture
def run(short_dir, capfdbinary):
    def run_command(*arguments):
        if "--" in arguments:
            at = arguments.index("--")
            arguments = [*arguments[:at], "--state-dir", str(short_dir), *arguments[at:]]
        else:
            arguments = [*arguments, "--state-dir", str(short_dir)]
        code = main(arguments)
        out, err = capfdbinary.readouterr()
        return int(code), out, err.decode("utf-8", "surrogateescape")

    return run_command


def answer_all(control, data, **facts):
    def act(submitted):
        for item in submitted:
            control.deliver(item)
            control.answer(item, data, **facts)

    control.after_submit = act


def test_exec_is_as_if_the_program_ran_here(run, control):
    answer_all(control, "\udcff\x1b[0m", exit_status="3", stderr=b"oh\xff\n")
    code, out, err = run("exec", "ship1", "--timeout", "1500ms", "--", "ls", "-la", "--", "x")
    assert (code, out) == (3, b"\xff\x1b[0m")
    assert err == "oh\udcff\n"
    ((_, request),) = control.calls
    assert (request.method, request.method_args) == ("REQCliCommand", ["ls", "-la", "--", "x"])
    assert (request.for_caller, request.method_timeout) == (True, 2)
    assert (request.directory, request.file_name, request.reply_method) == (None, None, None)


def test_exec_on_several_nodes_tells_whose_line_it_is_and_sums_up(run, control):
    def act(submitted):
        control.answer(submitted[0], "up\n")
        control.answer(submitted[1], "", exit_status="1", stderr=b"down\n")

    control.after_submit = act
    code, out, err = run("exec", "ship1,ship2", "--wait", "5", "--", "uptime")
    assert (code, out) == (1, b"ship1: up\n")
    assert err.splitlines() == [
        "ship2: down",
        "appliance: ship2: exit 1",
        "appliance: 1 of 2 done; 1 failed: ship2",
    ]


def test_a_node_that_is_away_is_told_with_what_can_be_done(run, control):
    control.after_submit = lambda submitted: control.miss(submitted[0])
    code, out, err = run("exec", "ship1", "--wait", "200ms", "--", "uptime")
    assert (code, out) == (3, b"")
    assert "ship1: waiting: nobody there" in err
    assert "forget it: appliance outbox drop --state-dir" in err
    assert "101)" in err
    assert "no answer within 0.2 s (--wait)" in err


def test_a_refusal_is_told_and_is_1(run, control):
    def act(submitted):
        control.die(submitted[0], "refused by the receiver: not in accept_from")

    control.after_submit = act
    code, _, err = run("exec", "ship1", "--", "uptime")
    assert (code, err) == (1, "appliance: ship1: refused: not in accept_from\n")


def test_what_is_not_accepted_is_told_and_is_1(run, control):
    code, _, err = run("exec", "nowhere", "--", "uptime")
    assert (code, err) == (1, "appliance: nowhere: no such node\n")


def test_pieces_are_shown_as_they_come_and_the_method_is_the_streaming_one(run, control):
    def act(submitted):
        (item,) = submitted
        for part in ("a", "b\n"):
            control.answer(item, part, exit_status=None, has_more=True, stream="stdout")
        control.answer(item, "oh", exit_status=None, has_more=True, stream="stderr")
        control.answer(item, "", exit_status="0")

    control.after_submit = act
    assert run("exec", "ship1", "--stream", "--", "x") == (0, b"ab\n", "oh")
    assert control.calls[0][1].method == "REQCliCommandCont"


def test_exec_as_json_tells_all(run, control):
    answer_all(control, "\udcff", exit_status="0", stderr=b"e")
    code, out, _ = run("exec", "ship1", "-o", "json", "--", "x")
    (node,) = json.loads(out)["nodes"]
    assert code == 0
    assert (node["stdout"], node["stderr"], node["exit_status"]) == ({"base64": "/w=="}, "e", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("exec", "ship1", "uptime"), "say where the program begins"),
        (("exec", "ship1", "--"), "name a program after --"),
        (("exec", "--", "uptime"), "NODE"),
        (("exec", "ship1", "--wait", "soon", "--", "uptime"), "--wait"),
        (("tail", "ship1"), "PATH"),
        (("tail", "ship1", "/x", "--for", "48h"), "between 1s and 24h"),
    ],
)
def test_wrong_use_is_64_and_worded(run, control, arguments, said):
    code, _, err = run(*arguments)
    assert code == 64
    assert said in err
    assert control.calls == []


def test_without_a_daemon_it_is_69(capsys, short_dir):
    assert main(["exec", "ship1", "--state-dir", str(short_dir), "--", "x"]) == 69
    assert "no daemon answers" in capsys.readouterr().err


def test_tail_asks_for_the_file_and_passes_its_bytes(run, control):
    def act(submitted):
        (item,) = submitted
        control.answer(item, "line\n", exit_status=None, has_more=True, stream="stdout")
        control.answer(item, "", exit_status="0")

    control.after_submit = act
    assert run("tail", "ship1", "/var/log/x", "-n", "5", "--for", "10m") == (0, b"line\n", "")
    # what the daemon forgets of it when we have gone may be told by then, too
    (_, request), *_ = control.calls
    assert (request.method, request.method_args) == ("REQTailFile", ["/var/log/x", "-n", "5"])
    assert (request.method_timeout, request.expires, request.for_caller) == (600, 660.0, True)


def test_tail_of_several_nodes_tells_whose_line_it_is(run, control):
    answer_all(control, "line\n", exit_status="0")
    code, out, _ = run("tail", "ship1", "ship2", "/var/log/x")
    assert (code, out) == (0, b"ship1: line\nship2: line\n")


def test_interrupted_it_says_what_goes_on(short_dir, control):
    def act(submitted):
        control.deliver(submitted[0])
        control.answer(submitted[0], "begun\n", exit_status=None, has_more=True, stream="stdout")

    control.after_submit = act
    command = [
        forked.program(),
        "exec",
        "ship1",
        "ship2",
        "--state-dir",
        str(short_dir),
        "--",
        "x",
    ]
    with ended(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ) as process:
        assert process.stdout.readline() == b"ship1: begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = err.decode().splitlines()
    assert lines[0] == (
        "appliance: ship1: the command was taken there: it runs, or will when its turn comes, until its time is"
        " over; its answer is not shown"
    )
    assert lines[1].startswith(
        "appliance: ship2: not acknowledged yet; the command stays in the outbox"
    )
    assert lines[1].endswith(f"outbox drop --state-dir {short_dir} 102)")


def test_on_a_terminal_control_characters_are_escaped(short_dir, control):
    answer_all(control, "\x1b[31mred\udcff\n")
    master, slave = pty.openpty()
    command = [
        forked.program(),
        "exec",
        "ship1",
        "--state-dir",
        str(short_dir),
        "--",
        "x",
    ]
    with ended(subprocess.Popen(command, stdout=slave, stderr=subprocess.PIPE)) as process:
        os.close(slave)
        assert process.wait(60) == 0
    assert os.read(master, 1000) == b"\\x1b[31mred\\xff\r\n"
    os.close(master)


def test_a_daemon_that_stops_is_no_node_without_an_answer(run, control):
    def act(submitted):
        control.answer(submitted[0], "begun", exit_status=None, has_more=True, stream="stdout")
        control.events.close_listeners()

    control.after_submit = act
    code, out, err = run("exec", "ship1", "--", "x")
    assert (code, out) == (69, b"begun")
    assert "stopped in the middle" in err
    assert "no answer within" not in err


def test_a_tail_outlives_the_message_that_asks_for_it_so_that_none_dies(run, control):
    code, _, err = run("tail", "ship1", "--for", "1s", "/var/log/x")
    assert code == 3
    assert "the request was taken back" in err
    ((_, request),) = [call for call in control.calls if call[0] == "submit"]
    assert request.expires > request.method_timeout
    assert "outbox_drop" in [call[0] for call in control.calls]


def test_a_batch_is_one_request_for_all_of_its_nodes(run, control):
    answer_all(control, "up\n")
    code, _, err = run("exec", "ship1,ship2", "ship3", "--batch", "2", "--", "uptime")
    assert code == 0
    asked = [request.to_nodes for what, request in control.calls if what == "submit"]
    assert asked == [["ship1", "ship2"], ["ship3"]]
    assert err.splitlines() == [
        "appliance: batch 1 of 2: 2 nodes: ship1, ship2",
        "appliance: batch 2 of 2: 1 node: ship3",
    ]


def test_silence_counts_as_failure_where_somebody_is_there_and_not_where_nobody_is(run, control):
    def act(submitted):
        for item in submitted:
            control.miss(item) if item.to == "ship1" else control.deliver(item)

    control.after_submit = act
    control.stands = {"ship1": Standing(DeliveryState.WAITING, "nobody there")}
    once = ("--batch", "1", "--max-fail", "0", "--wait", "300ms", "-o", "json", "--", "uptime")
    code, out, _ = run("exec", "ship1", "ship2", "ship3", "--wait-for-absent", *once)
    assert code == 1
    summary = json.loads(out)["summary"]
    assert summary["silent"] == ["ship1", "ship2"]
    assert summary["absent"] == ["ship1"]
    assert summary["not_asked"] == ["ship3"]


def test_raw_bytes_reach_the_terminal_as_they_are(daemon_terminal):
    shown = daemon_terminal("exec", "ship1", "--raw", "--", "x")
    assert b"\x1b[31mred" in shown
    assert b"\x1b[31mred" not in daemon_terminal("exec", "ship1", "--", "x")


@pytest.fixture
def daemon_terminal(control, short_dir):
    """What a command shows on a terminal."""
    answer_all(control, "\x1b[31mred\n")

    def show(*arguments):
        at = arguments.index("--")
        words = [*arguments[:at], "--state-dir", str(short_dir), *arguments[at:]]
        ours, theirs = pty.openpty()
        code = subprocess.run(
            [forked.program(), *words], stdout=theirs, stdin=theirs, timeout=60
        ).returncode
        os.close(theirs)
        shown = os.read(ours, 65_536)
        os.close(ours)
        assert code == 0
        return shown

    return show
