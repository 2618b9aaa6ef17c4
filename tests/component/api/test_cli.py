"""The real commands against a served facade: what they print where, and how they exit."""

import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from appliance.cli import main
from appliance.cli.verdict_view import uses_colour
from appliance.core import message
from appliance.errors import StoreFull
from tests.support import forked
from tests.support.fake_control import (
    PROBLEM,
    SPAWN,
    UPDATE,
    FakeOutbox,
    ServedControl,
    make_status,
)
from tests.support.programs import ended
from tests.support.terminal import OnTerminal


@pytest.fixture
def served(short_dir):
    with ServedControl(short_dir) as served:
        yield served


@pytest.fixture
def control(served):
    return served.control


@pytest.fixture
def run(short_dir, capsys):
    """Runs a command line against the daemon of `short_dir`: exit code, stdout, stderr."""

    def run_command(*arguments, state_dir=short_dir):
        code = main([*arguments, "--state-dir", str(state_dir)])
        out, err = capsys.readouterr()
        return int(code), out, err

    return run_command


def test_status_exits_by_health(run, control):
    code, out, err = run("status")
    assert (code, err) == (0, "")
    assert out.startswith("● healthy   generation 12")
    assert "\x1b" not in out
    control.answers["status"] = make_status(
        healthy=False, degraded_by=["not connected to the broker"]
    )
    code, out, _ = run("status")
    assert code == 1
    assert "not connected to the broker" in out


def test_status_as_json_is_the_daemons_own(run, control):
    code, out, _ = run("status", "-o", "json")
    assert (code, json.loads(out)) == (0, control.answers["status"])


def test_a_watched_status_is_a_line_per_look_where_there_is_no_terminal(served):
    command = [
        forked.program(),
        "status",
        "--watch",
        "--state-dir",
        str(served.state_dir),
    ]
    with ended(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ) as process:
        assert json.loads(process.stdout.readline())["generation"] == 12
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_a_watched_status_fills_a_terminal_until_it_is_interrupted(served):
    command = [
        forked.program(),
        "status",
        "--watch",
        "--state-dir",
        str(served.state_dir),
    ]
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with ended(
        subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    ) as process:
        os.close(theirs)
        seen = b""
        while b"ship1.REQPing.EventACK" not in seen:
            seen += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how a terminal says that nobody holds its other end
            while part := os.read(ours, 65_536):
                seen += part
        assert process.wait(60) == 0
    os.close(ours)
    assert "● ".encode() in seen
    assert b"\x1b[?1049l" in seen  # the terminal is given back as it was


def test_colour_is_for_terminals_and_for_those_who_want_it(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert uses_colour(Terminal())
    assert not uses_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not uses_colour(Terminal())


@pytest.mark.parametrize("command", ["plan", "status", "history"])
def test_a_locale_without_arrows_and_dots_still_gets_its_answer(served, control, command):
    control.answers["plan"] = {
        "result": "no change",
        "actions": [UPDATE],
        "problems": [],
        "summary": {},
    }
    done = subprocess.run(
        [sys.executable, "-m", "appliance", command, "--state-dir", str(served.state_dir)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["plan"], ["reload"], ["send", "--to", "ship1", "REQPing"], ["outbox", "list"], ["history"],
     ["outbox", "retry", "--all"], ["history", "show", "1"]],
)  # fmt: skip
def test_without_a_daemon_every_command_exits_69_and_says_where_it_looked(
    run, short_dir, arguments
):
    code, out, err = run(*arguments)
    assert (code, out) == (69, "")
    assert f"no daemon answers on {short_dir}/appliance.sock" in err


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["status", "--nonsense"], ["send"], ["send", "REQPing"], ["send", "--to", "a", "M", "--wait", "soon"],
     ["send", "--to", "a", "M", "--data", "@/nonexistent"], ["outbox", "retry"], ["outbox", "drop", "x"],
     ["outbox", "drop", "5", "--all-dead"], ["run"], ["run", "x", "--node", "a", "--all-nodes"],
     ["run", "x", "--log-level", "loud"], ["plan", "--against", "x"], ["status", "-o", "yaml"]],
)  # fmt: skip
def test_a_usage_error_is_64(run, served, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (64, "")
    assert "Error:" in err


def test_plan_exits_2_with_changes_and_shows_them(run, control):
    control.answers["plan"] = {
        "result": "changes",
        "actions": [SPAWN, UPDATE],
        "problems": [],
        "summary": {"keep": 3},
    }
    code, out, _ = run("plan")
    assert code == 2
    assert out.splitlines() == [
        "+ spawn  ship1.REQPing.EventACK_subscriber  on ship1",
        "~ update ship2.REQPing.EventACK_subscriber  on ship2",
        "           concurrency: 16 → 4",
        "",
        "1 spawn, 1 update, 3 kept",
    ]
    assert run("plan", "--node", "ship2")[1].count("ship1") == 0
    assert run("plan", "--node", "ship3") == (
        64,
        "",
        "appliance: no node 'ship3' here; it runs ship1\n",
    )


def test_plan_names_settings_and_times_as_the_config_writes_them(run, control):
    fields = {
        "schedule.every_s": [5.0, 90.0],
        "ack.timeout_s": [5.0, None],
        "schedule.cron": [None, "* * * * *"],
    }
    control.answers["plan"] = {
        "result": "changes",
        "actions": [UPDATE | {"fields": fields}],
        "problems": [],
        "summary": {},
    }
    shown = [line.strip() for line in run("plan")[1].splitlines()]
    assert "every: 5s → 1m30s" in shown
    assert "ack.timeout: 5s → null" in shown
    assert 'cron: null → "* * * * *"' in shown


def test_plan_names_the_node_of_each_action_where_the_daemon_runs_several(run, control):
    control.answers["plan"] = {
        "result": "changes",
        "actions": [UPDATE],
        "problems": [],
        "summary": {},
        "settings": {"admin.listen": [None, "127.0.0.1:9100"]},
    }
    line = "~ update ship2.REQPing.EventACK_subscriber"
    assert run("plan")[1].splitlines()[0] == line
    control.answers["status"] = make_status(nodes={"ship1": {}, "ship2": {}})
    shown = run("plan")[1].splitlines()
    assert shown[0] == f"{line}  on ship2"
    assert '~ settings admin.listen: null → "127.0.0.1:9100"' in shown


def test_status_of_a_node_that_is_not_here_is_a_usage_error(run, served):
    for more in ([], ["-o", "json"], ["--watch"]):
        code, out, err = run("status", "--node", "ship1,nosuch", *more)
        assert (code, out) == (64, "")
        assert err == "appliance: no node 'nosuch' here; it runs ship1\n"
    assert run("status", "--node", "ship1")[0] == 0


def test_plan_of_nothing_exits_0_and_of_a_bad_config_78(run, control):
    assert run("plan")[:2] == (0, "no change, 3 kept\n")
    # whoever has just edited the files hears that they are in force already
    in_force = make_status()["config"]["digest"]
    control.answers["plan"] |= {"digest": in_force}
    said = "no change, 3 kept: these files are in force as generation 12, applied "
    code, out, _ = run("plan")
    assert (code, out[: len(said)]) == (0, said)
    control.answers["plan"] |= {"digest": "sha256:another"}
    assert run("plan")[:2] == (0, "no change, 3 kept\n")
    control.answers["plan"] = {
        "result": "refused",
        "actions": [],
        "problems": [PROBLEM],
        "summary": {},
    }
    code, out, err = run("plan", "some.yaml")
    assert code == 78
    assert "ships.yaml:14:11" in err
    assert "refused" in out
    assert control.calls[-1] == ("plan", [os.path.abspath("some.yaml")])


def test_plan_sends_the_files_that_whoever_asks_can_read(run, control, tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("version: 1\n")
    assert run("plan", str(path))[0] == 0
    assert control.calls[-1] == ("plan_given", {str(path): b"version: 1\n"}, False, True)


def test_reload_tells_what_was_done(run, control):
    control.answers["reload"] = {
        "result": "applied", "generation": 13, "problems": [], "actions": [SPAWN], "duration_seconds": 0.25,
        "failed": {"x": "no such file"}, "drain": {"finished": 2, "handed_back": 0, "abandoned": 0},
    }  # fmt: skip
    code, out, err = run("reload", "--force")
    assert code == 0
    assert "applied: generation 13, 1 spawned, in 0.250 s; drained: 2 finished\n" in out
    assert "x does not run yet and is tried again: no such file" in err
    assert control.calls == [("reload", True, "request")]


def test_a_refused_reload_prints_every_problem_as_check_does_and_exits_78(run, control):
    control.answers["reload"] = {
        "result": "refused",
        "generation": 12,
        "problems": [PROBLEM],
        "actions": [],
    }
    code, out, err = run("reload")
    assert (code, out) == (78, "refused: generation 12 stays in force\n")
    assert "14 |           REQPng: {}" in err
    assert "hint: did you mean REQPing?" in err
    code, out, _ = run("reload", "-o", "json")
    assert (code, json.loads(out)["problems"]) == (78, [PROBLEM])


def test_an_unchanged_reload_exits_0(run, served):
    assert run("reload")[:2] == (0, "unchanged: generation 12 stays in force\n")


def test_send_shows_progress_on_stderr_and_replies_on_stdout(run, control):
    control.replies = True

    def after(submitted):
        control.miss(submitted[1])
        for item in submitted:
            control.deliver(item)
            control.answer(item, f"{item.to} is up\n")

    control.after_submit = after
    code, out, err = run("send", "--to", "ship1,ship2", "REQCliCommand", "uptime")
    assert code == 0
    assert out == "ship1:\n    ship1 is up\nship2:\n    ship2 is up\n"
    assert "ship1  taken (delivered in 3 ms)" in err
    assert "ship2  waiting: nobody there" in err
    assert err.endswith("2 of 2 done\n")
    assert control.calls[-1][1].method_args == ["uptime"]


def test_arguments_that_begin_with_a_dash_go_after_two_dashes(served, control, capsys):
    place = ["--state-dir", str(served.state_dir), "--wait", "0"]
    assert main(["send", "--to", "ship1", "REQCliCommand", "uptime", "-p", *place]) == 64
    assert control.calls == []
    assert "go after --" in capsys.readouterr().err
    assert main(["send", "--to", "ship1", *place, "REQCliCommand", "--", "uptime", "-p"]) == 0
    assert control.calls[0][1].method_args == ["uptime", "-p"]
    capsys.readouterr()


def test_what_send_sends(run, control, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    code, _, _ = run(
        "send", "--to", "ship1", "--to", "ship2", "REQToFile", "--from", "central", "--data", "text",
        "--data", f"@{tmp_path}/binary", "--wait", "0", "--timeout", "1m", "--ack-timeout", "250ms",
        "--retries", "5", "--expires", "1h", "--file", "f", "--directory", "d", "--reply-method", "REQToConsole",
    )  # fmt: skip
    assert code == 0
    sent = control.calls[0][1]
    assert (sent.to_nodes, sent.from_node, sent.method) == (
        ["ship1", "ship2"],
        "central",
        "REQToFile",
    )
    assert sent.texts() == ("text", "\udcff\x00")
    assert (sent.method_timeout, sent.ack_timeout, sent.retries, sent.expires) == (60, 1, 5, 3600.0)
    assert (sent.directory, sent.file_name, sent.reply_method) == ("d", "f", "REQToConsole")


def test_a_reply_is_filed_under_its_method_if_nothing_else_is_said(run, control):
    run("send", "--to", "ship1", "REQCliCommand", "uptime", "--wait", "0")
    sent = control.calls[0][1]
    assert (sent.directory, sent.file_name) == ("replies", "REQCliCommand.log")


@pytest.mark.parametrize(
    ("happens", "code", "said"),
    [
        (
            lambda control, item: control.die(item, "refused by the receiver: no"),
            1,
            "ship1  refused: no",
        ),
        (lambda control, item: control.die(item, "expired"), 1, "ship1  expired"),
        (
            lambda control, item: control.die(item, "failed: disk full"),
            1,
            "ship1  failed: disk full",
        ),
        (
            lambda control, item: control.miss(item),
            3,
            "1 silent: ship1; what waits stays in the outbox",
        ),
        (lambda control, item: control.deliver(item), 0, "1 of 1 done"),
    ],
)
def test_send_exits_by_what_became_of_it(run, control, happens, code, said):
    control.after_submit = lambda submitted: happens(control, submitted[0])
    found, _, err = run("send", "--to", "ship1", "REQPing", "--wait", "1s")
    assert found == code
    assert said in err


def test_a_node_that_is_not_accepted_has_failed_whether_followed_or_not(run, served):
    for wait in ("0", "200ms"):
        code, _, err = run("send", "--to", "nowhere", "REQPing", "--wait", wait)
        assert code == 1
        assert "not accepted: no such node" in err


def test_send_in_json_and_json_lines(run, control):
    control.after_submit = lambda submitted: control.deliver(submitted[0])
    code, out, err = run("send", "--to", "ship1", "REQPing", "-o", "json")
    assert (code, err) == (0, "")
    assert json.loads(out)["messages"][0]["state"] == "taken"
    _, out, _ = run("send", "--to", "ship1", "REQPing", "-o", "jsonl")
    assert [json.loads(line)["event"] for line in out.splitlines()] == [
        "accepted",
        "delivered",
        "end",
    ]


def test_a_full_store_is_said_in_words(run, control):
    control.raises = StoreFull("the disk is full")
    code, _, err = run("send", "--to", "ship1", "REQPing")
    assert (code, err) == (1, "appliance: the disk is full\n")


def test_the_outbox_is_listed_retried_and_dropped(run, control):
    assert run("outbox", "list")[:2] == (0, "nothing is pending\n")
    control.records = [
        {"id": 5, "from": "central", "to": "ship1", "method": "REQPing", "attempts": 4, "bytes": 99,
         "accepted_at": "2026-01-01T00:00:00Z", "reason": "no acknowledgement\x1b[2J"}
    ]  # fmt: skip
    _, out, _ = run("outbox", "list", "--dead")
    assert out.split("\n")[1].split()[:4] == ["5", "central", "ship1", "REQPing"]
    assert "no acknowledgement\\x1b[2J" in out
    assert run("outbox", "retry", "--all")[:2] == (
        0,
        "7 messages to be tried again: what had failed runs again, what was done is not done twice\n",
    )
    assert run("outbox", "drop", "5", "#6")[:2] == (0, "2 messages dropped\n")
    assert control.calls[-1] == ("outbox_drop", [5, 6], False)
    assert run("outbox", "drop", "--all-dead")[0] == 0
    assert control.calls[-1] == ("outbox_drop", None, True)


RECORD = {
    "id": 1_764_362_125_123_456_789, "id_text": "1764362125123456789", "from": "central",
    "to": "a-ship-with-a-rather-long-name", "method": "REQAMethodOfOnesOwnWithALongName", "attempts": 0, "bytes": 99,
    "accepted_at": "2026-01-01T00:00:00Z", "age_seconds": 3.2, "state": "waiting", "why": "denied: Permissions Violation",
}  # fmt: skip


def at_80_columns(served, *arguments):
    with OnTerminal(*arguments, state_dir=served.state_dir, columns=80) as terminal:
        assert terminal.wait() == 0
        lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.said).splitlines()
    assert max(map(len, lines)) <= 80
    return lines


@pytest.mark.parametrize(
    ("dead", "changes", "why"),
    [
        ([], {}, "waiting: denied: Permissions Violation"),
        ([], {"why": ""}, "waiting"),
        (["--dead"], {"reason": "failed: disk full"}, "failed: disk full"),
        (["--dead"], {"reason": "expired after 1 s: nobody there"}, "expired after 1 s: nobody there"),
        (["--dead"], {"reason": "no acknowledgement after 4 tries"}, "failed: no acknowledgement after 4 tries"),
    ],
)  # fmt: skip
def test_on_80_columns_the_outbox_shows_whole_ids_and_why(served, control, dead, changes, why):
    control.records = [RECORD | changes]
    header, first, *rest = at_80_columns(served, "outbox", "list", *dead)
    assert header.split() == ["ID", "TO", "METHOD", "AGE", "WHY"]
    assert first.split()[0] == RECORD["id_text"]
    _, to, method, age, begun = first.split(maxsplit=4)
    assert (to, method, age) == ("a-ship…g-name", "REQAMe…ngName", "3")
    assert begun.startswith("s  ")
    assert " ".join([begun[1:].strip(), *map(str.strip, rest)]) == why


def test_a_program_that_reads_the_outbox_gets_every_column_whole(run, control):
    control.records = [RECORD]
    _, out, _ = run("outbox", "list")
    assert RECORD["to"] in out
    assert out.rstrip().endswith("waiting: denied: Permissions Violation")
    found = json.loads(run("outbox", "list", "-o", "json")[1])["records"]
    assert (found[0]["state"], found[0]["why"]) == ("waiting", "denied: Permissions Violation")


def test_the_outbox_of_a_daemon_of_an_earlier_version_is_listed(run, control):
    control.records = [{"id": 5, "from": "a", "to": "b", "method": "REQPing", "last_error": "ack"}]
    assert run("outbox", "list")[1].split("\n")[1].split()[-1] == "ack"


ORPHAN = {
    "id": 7, "from": "shore", "node": "boat", "method": "REQCliCommand", "taken_at": "2026-01-01T00:00:00Z",
    "age_seconds": 7_300.0, "state": "orphaned", "why": "no worker takes REQCliCommand on boat", "bytes": 99,
}  # fmt: skip


def test_the_inbox_is_listed_and_dropped(run, served, control):
    assert run("inbox", "list")[:2] == (0, "nothing is unfinished\n")
    control.records = [
        ORPHAN,
        ORPHAN | {"id": 8, "state": "working", "why": "", "from": "x\x1b[2J"},
    ]
    _, out, _ = run("inbox", "list")
    assert "orphaned: no worker takes REQCliCommand on boat" in out
    assert "x\\x1b[2J" in out
    assert json.loads(run("inbox", "list", "-o", "json")[1])["records"][0]["why"] == ORPHAN["why"]
    header, first, *_ = at_80_columns(served, "inbox", "list")
    assert header.split() == ["ID", "FROM", "METHOD", "AGE", "STATE"]
    assert first.split()[:6] == ["7", "shore", "REQCliCommand", "2", "h", "orphaned:"]
    assert run("inbox", "drop", "--all")[:2] == (0, "7 messages dropped\n")
    assert control.calls[-1] == ("inbox_drop", None)
    assert run("inbox", "drop", "7")[:2] == (0, "1 message dropped\n")
    assert control.calls[-1] == ("inbox_drop", [7])


def test_what_a_worker_has_in_hand_is_not_dropped_from_the_inbox_and_that_is_said(run, control):
    control.held = 1
    assert run("inbox", "drop", "7", "8")[:2] == (
        1,
        "1 message dropped; 1 in the hands of a worker stays\n",
    )
    assert run("inbox", "drop", "7")[:2] == (
        1,
        "0 messages dropped; 1 in the hands of a worker stays\n",
    )


def test_nothing_is_dropped_from_the_inbox_unless_it_is_named(served, control, capsys):
    place = ["--state-dir", str(served.state_dir)]
    assert main(["inbox", "drop", *place]) == 64
    assert main(["inbox", "drop", "7", "--all", *place]) == 64
    assert control.calls == []
    capsys.readouterr()


def test_the_history_is_listed_and_shown(run, control):
    control.records = [
        {"number": 2, "at": 1_767_225_600.0, "generation": 2, "result": "refused", "digest": "sha256:ab",
         "revision": None, "trigger": "watch", "problems": [PROBLEM], "actions": []},
        {"number": 1, "at": 1_767_225_500.0, "generation": 1, "result": "applied", "digest": "sha256:cd",
         "revision": "0123456789abcdef", "trigger": "start", "problems": [], "actions": [SPAWN]},
    ]  # fmt: skip
    _, out, _ = run("history")
    assert 'E021 unknown method "REQPng"' in out
    assert "1 spawned" in out
    code, out, _ = run("history", "show", "1")
    assert code == 0
    assert "+ spawn  ship1.REQPing.EventACK_subscriber" in out
    assert "git 0123456789abcdef" in out
    assert run("history", "show", "9")[0] == 1
    assert json.loads(run("history", "-o", "json")[1])["records"] == control.records


def test_the_history_counts_errors_and_names_them_before_warnings(run, control):
    warning = PROBLEM | {"severity": "warning", "code": "W003"}
    control.records = [
        {"number": 2, "at": 1_767_225_600.0, "generation": 2, "result": "refused", "digest": "sha256:ab",
         "revision": None, "trigger": "watch", "problems": [warning, PROBLEM, warning], "actions": []},
    ]  # fmt: skip
    row = run("history")[1]
    assert "E021" in row
    assert "W003" not in row
    assert " more" not in row


@pytest.mark.parametrize("command", ["drop", "retry"])
def test_an_id_that_is_no_message_is_said_and_exits_1(run, control, monkeypatch, command):
    async def nothing(*_, **__):
        return 0

    monkeypatch.setattr(FakeOutbox, command, nothing)
    assert run("outbox", command, "99") == (1, "", "appliance: no such message\n")


def test_a_demo_where_another_daemon_runs_fails_as_its_own_daemon_does(served, tmp_path, capfd):
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        "version: 1\nbroker: {servers: [nats://127.0.0.1:9]}\nnodes: {ship1: {}, ship2: {}}\n"
    )
    code = main(["demo", str(fleet), "--once", "--state-dir", str(served.state_dir)])
    out, err = capfd.readouterr()
    assert code not in (0, None)
    assert "appliance send" not in out
    assert str(served.state_dir) in err


def test_an_unknown_variable_is_warned_of(run, served, monkeypatch):
    monkeypatch.setenv("APPLIANCE_STATEDIR", "/x")
    code, _, err = run("status")
    assert (code, err) == (0, "appliance: unknown environment variable: APPLIANCE_STATEDIR\n")


def test_the_environment_names_the_daemon_and_the_flag_wins(served, short_dir, capsys, monkeypatch):
    monkeypatch.setenv("APPLIANCE_STATE_DIR", str(short_dir))
    assert main(["status"]) == 0
    assert main(["status", "--state-dir", "/nonexistent"]) == 69
    capsys.readouterr()


def test_a_state_directory_with_a_long_path_works(short_dir, run):
    long = short_dir.joinpath(*["d" * 60] * 3)
    long.mkdir(parents=True)
    with ServedControl(long):
        assert run("status", state_dir=long)[0] == 0


def test_a_bug_is_one_line_and_exit_70(run, monkeypatch, capsys):
    def break_down(_flag):
        raise KeyError("oops")

    monkeypatch.setattr("appliance.cli.daemon_commands.connect", break_down)
    assert run("status")[0::2] == (
        70,
        "appliance: internal error: KeyError: 'oops' (--debug shows where)\n",
    )
    assert main(["--debug", "status"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_the_version_and_the_help_exit_0(capsys):
    assert main(["--version"]) == 0
    # the tests run compiled as well: packaging/verify-compiled
    form = "" if message.__file__.endswith(".py") else " (compiled)"
    assert capsys.readouterr().out == f"appliance 0.1.0{form}\n"
    assert main(["--help"]) == 0
    assert "rollback" in capsys.readouterr().out


def test_the_flags_of_run_become_options_of_the_daemon(monkeypatch, capsys):
    import appliance.daemon

    taken = []
    monkeypatch.setattr(appliance.daemon, "run_daemon", lambda options: taken.append(options) or 0)
    monkeypatch.setenv("APPLIANCE_NODE", "ship1")
    monkeypatch.setenv("APPLIANCE_LOG_FORMAT", "json")
    monkeypatch.setenv("APPLIANCE_CONFIG", "a:b")
    assert main(["run"]) == 0
    assert (
        main(
            [
                "run",
                "c",
                "--node",
                "ship2",
                "--node",
                "ship3",
                "--log-level",
                "debug",
                "--state-dir",
                "s",
            ]
        )
        == 0
    )
    assert main(["run", "c", "--all-nodes"]) == 0
    first, second, third = taken
    assert (first.paths, first.nodes, first.log_format, first.state_dir) == (
        ("a", "b"),
        ("ship1",),
        "json",
        None,
    )
    assert (second.paths, second.nodes, second.log_level, second.state_dir) == (
        ("c",),
        ("ship2", "ship3"),
        "debug",
        "s",
    )
    assert (third.nodes, third.all_nodes) == ((), True)
    assert third.default_state_dir
