"""The command line on a running daemon, as a person uses it: programs on nodes, messages as bytes, a stop that drains."""

import json
import os
import pty
import signal
import subprocess

import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.programs import ended
from tests.support.waiting import until

CONFIG = """
version: 1
broker: {embedded: true}
reload: {settle: 1ms, watch: false, poll_interval: 10m, drain_timeout: 5m}
roles:
  ship:
    subscribe:
      REQPing: {}
      REQCliCommand:
        accept_from: [central, lonely]
        allow_commands: [[sh, -c, "*"], [no-such-program]]
      REQCliCommandCont: {allow_commands: [[sh, -c, "*"]]}
      REQTailFile: {allow_paths: [LOGS/**]}
nodes:
  central: {subscribe: {REQErrorLog: {}, REQToFileAppend: {ack: {on: done}}, REQPong: {}}}
  lonely: {subscribe: {REQHello: {}}}
  ship1: {roles: [ship]}
  ship2: {roles: [ship]}
  away: {roles: [ship]}
"""
RUN = ["--node", "central", "--node", "lonely", "--node", "ship1", "--node", "ship2"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cli")
    config = CONFIG.replace("LOGS", str(directory / "logs"))
    (directory / "logs").mkdir()
    appliance = Appliance(config, directory, args=RUN)
    appliance.only_named = True
    with appliance:
        yield appliance


@pytest.fixture
def run(daemon):
    def run_command(*arguments, **options):
        environment = {**os.environ, "APPLIANCE_STATE_DIR": str(daemon.state)}
        return forked.run(arguments, env=environment, is_text=False, **options)

    return run_command


def test_a_program_on_one_node_is_as_if_it_ran_here(run, daemon):
    done = run("exec", "ship1", "--", "sh", "-c", r"printf 'a\377\0\n'; echo oh >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"a\xff\0\n", b"oh\n")
    assert not list(daemon.data().rglob("*caller*"))


def test_programs_on_several_nodes_are_told_apart(run):
    done = run("exec", "ship1", "ship2", "--", "sh", "-c", "echo up; printf half")
    assert done.returncode == 0
    lines = sorted(done.stdout.splitlines())
    assert lines == [b"ship1: half", b"ship1: up", b"ship2: half", b"ship2: up"]
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ship1", "--", "no-such-program"], 127, "no-such-program: No such file or directory\n"),
        (["ship1", "--", "rm", "x"], 1, 'appliance: ship1: failed: command ["rm", "x"] from'),
        (["ship1", "--timeout", "1", "--", "sh", "-c", "sleep 9"], 124, ""),
        (["shp1", "--", "sh", "-c", "true"], 1, "did you mean ship1?"),
        (["ship1", "--from", "nobody", "--", "x"], 1, "does not run node 'nobody'"),
        (["ship1", "--from", "lonely", "--", "x"], 1, "add `REQToFileAppend: {}` to nodes.lonely"),
    ],
)
def test_what_goes_wrong_is_said_and_coded(run, arguments, code, said):
    done = run("exec", *arguments)
    assert (done.returncode, said in done.stderr.decode()) == (code, True), done.stderr


def test_output_beyond_the_nodes_bound_is_no_success(run):
    done = run("exec", "ship1", "--", "sh", "-c", "head -c 600000 /dev/zero")
    assert done.returncode == 1
    assert "max_output_bytes" in done.stderr.decode()
    assert len(done.stdout) >= 524_288


def test_a_node_that_is_away_is_silent_and_its_command_can_be_forgotten(run):
    done = run("exec", "away", "--wait", "300ms", "--", "sh", "-c", "true")
    assert done.returncode == 3
    pending = json.loads(run("outbox", "list", "-o", "json").stdout)["records"]
    (record,) = [record for record in pending if record["to"] == "away"]
    assert record["id_text"] == str(record["id"])
    assert f"appliance outbox drop {record['id']}" in done.stderr.decode()
    assert run("outbox", "drop", record["id_text"]).returncode == 0


@pytest.fixture
def start(daemon):
    """Starts a command whose output is read while it runs."""
    started = []

    def start_command(*arguments):
        command = [forked.program(), *arguments]
        environment = {**os.environ, "APPLIANCE_STATE_DIR": str(daemon.state)}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        started.append(process)
        return process

    yield start_command
    for process in started:
        process.kill()
        process.communicate()


def wait_until_idle(daemon, subject):
    name = f"{subject}_subscriber"
    daemon.wait_until(lambda _: daemon.worker(name)["in_flight"] == 0)


def test_a_streamed_program_is_seen_while_it_runs_and_ends_when_nobody_watches(start, daemon):
    process = start(
        *("exec", "ship1", "--stream", "--timeout", "1h", "--"),
        *("sh", "-c", "echo begun; while :; do sleep 0.05; echo on; done"),
    )
    assert process.stdout.readline() == b"begun\n"
    assert daemon.worker("ship1.REQCliCommandCont.CommandACK_subscriber")["in_flight"] == 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"ends there with what comes next" in err
    wait_until_idle(daemon, "ship1.REQCliCommandCont.CommandACK")
    assert daemon.status()["outbox"]["dead"] == 0


def test_a_watcher_that_is_killed_is_noticed_too(start, daemon):
    process = start(
        *("exec", "ship2", "--stream", "--timeout", "1h", "--"),
        *("sh", "-c", "while :; do echo on; sleep 0.05; done"),
    )
    assert process.stdout.readline() == b"on\n"
    process.kill()
    wait_until_idle(daemon, "ship2.REQCliCommandCont.CommandACK")


def test_streamed_output_comes_whole_and_in_order(run):
    program = "seq 1 20000; echo oh >&2; exit 5"
    done = run("exec", "ship1", "--stream", "--", "sh", "-c", program)
    assert (done.returncode, done.stderr) == (5, b"oh\n")
    assert done.stdout.splitlines() == [b"%d" % number for number in range(1, 20_001)]


def test_a_file_is_followed_from_its_last_lines_on_until_nobody_looks(start, daemon):
    file = daemon.state.parent / "logs" / "a.log"
    file.write_text("".join(f"{number}\n" for number in range(30)))
    process = start("tail", "ship1", "-n", "2", str(file))
    assert [process.stdout.readline() for _ in range(2)] == [b"28\n", b"29\n"]
    with file.open("a") as log:
        log.write("new\n")
        log.flush()
        assert process.stdout.readline() == b"new\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130

        def ended(_):
            log.write("more\n")
            log.flush()
            return daemon.worker("ship1.REQTailFile.EventACK_subscriber")["in_flight"] == 0

        daemon.wait_until(ended)


def test_a_file_on_several_nodes_ends_with_its_time(run, daemon):
    file = daemon.state.parent / "logs" / "b.log"
    file.write_text("line\n")
    done = run("tail", "ship1", "ship2", str(file), "--for", "3s")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == [b"ship1: line", b"ship2: line"]


def test_a_file_that_may_not_be_seen_is_refused(run):
    done = run("tail", "ship1", "/etc/passwd")
    assert done.returncode == 1
    assert "/etc/passwd is not in allow_paths" in done.stderr.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_request_to_follow_is_taken_back_however_the_one_who_follows_ends(start, run, number):
    process = start("tail", "away", "/var/log/x")
    assert b"waiting: nobody there" in process.stderr.readline()
    process.send_signal(number)
    process.wait(60)
    until(lambda: json.loads(run("outbox", "list", "-o", "json").stdout)["records"] == [])
    assert json.loads(run("outbox", "list", "--dead", "-o", "json").stdout)["records"] == []


def test_a_request_to_follow_that_nobody_took_is_taken_back(start, run):
    process = start("tail", "away", "/var/log/x")
    assert b"waiting: nobody there" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"the request was taken back" in err
    assert json.loads(run("outbox", "list", "-o", "json").stdout)["records"] == []


def test_on_a_terminal_what_a_node_writes_cannot_command_it(daemon):
    master, slave = pty.openpty()
    command = [
        *(forked.program(), "exec", "ship1"),
        *("--state-dir", str(daemon.state), "--", "sh", "-c", r"printf '\033[31mred\n'"),
    ]
    with ended(subprocess.Popen(command, stdout=slave, stderr=slave)) as process:
        os.close(slave)
        assert process.wait(60) == 0
    assert os.read(master, 1_000) == b"\\x1b[31mred\r\n"
    os.close(master)


def test_a_name_that_is_no_node_is_noted_and_its_message_accepted(run):
    done = run("send", "--to", "shp1", "--wait", "0", "REQPing", "-o", "json")
    (message,) = json.loads(done.stdout)["messages"]
    assert done.returncode == 0
    assert message["note"].startswith("'shp1' is not declared (did you mean ship1?)")
    assert run("outbox", "drop", message["id_text"]).returncode == 0


def test_a_first_interrupt_says_that_it_drains_and_the_status_that_it_stops(tmp_path):
    appliance = Appliance(CONFIG.replace("LOGS", str(tmp_path)), tmp_path, args=RUN)
    appliance.only_named = True
    with appliance:
        done = appliance.request(
            "POST",
            "/api/v1/messages",
            {
                "to_nodes": ["ship1"],
                "from_node": "central",
                "method": "REQCliCommand",
                "method_args": ["sh", "-c", "sleep 600"],
                "method_timeout": 600,
            },
        )
        assert done[0] == 202
        name = "ship1.REQCliCommand.CommandACK_subscriber"
        appliance.wait_until(lambda _: appliance.worker(name)["in_flight"] == 1)
        appliance.signal(signal.SIGINT)
        status = appliance.wait_until(lambda status: status["stopping"])
        assert (status["healthy"], status["degraded_by"]) == (False, [])
        assert "a second Ctrl-C stops at once" in appliance.log()
        appliance.signal(signal.SIGINT)
        # the command in hand has ten minutes, and draining five
        assert appliance.process.wait(60) == 0
