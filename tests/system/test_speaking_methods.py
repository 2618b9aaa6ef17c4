"""Methods that speak while they work, and answers that are commands or go to sockets, through a broker and two daemons."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import time

import cbor2
import nats
import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message
from tests.support.nats_server import NatsServer
from tests.support.programs import ended
from tests.support.waiting import pace_async

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
nodes:
  central:
    compression: none
    subscribe:
      REQToFileAppend: {{}}
      REQErrorLog: {{}}
      REQCliCommand: {{accept_from: [ship1], allow_commands: [[sh, -c, "*"]]}}
      REQCliCommandCont: {{accept_from: [ship1], allow_commands: [[sh, -c, "*"]]}}
      REQToSocket: {{accept_from: [ship1], allow_paths: ["{work}/*"]}}
  ship1:
    compression: none
    subscribe:
      REQCliCommand:
        allow_commands: [[echo, "**"]]
        allow_reply_methods: [REQToFileAppend, REQCliCommand, REQCliCommandCont, REQToSocket]
      REQCliCommandCont: {{allow_commands: [[sh, -c, "*"]]}}
      REQPing: {{}}
      REQTailFile: {{allow_paths: ["{work}/**"]}}
      REQHttpGet: {{allow_urls: ["http://127.0.0.1:1/**"]}}
  goer: {{}}
"""


class Fleet:
    """Central and ship1, a daemon each; `goer` is whoever speaks the wire by himself."""

    def __init__(self, url, work, root):
        self.url, self.work = url, work
        text = CONFIG.format(url=url, work=work)
        self.central = Appliance(text, root / "central", args=["--node", "central"])
        self.ship1 = Appliance(text, root / "ship1", args=["--node", "ship1"])
        self.central.only_named = self.ship1.only_named = True

    def words(self, *words):
        return [*words[:1], "--state-dir", str(self.central.state), "--from", "central", *words[1:]]

    def command(self, *words):
        return [forked.program(), *self.words(*words)]

    def run(self, *words):
        return forked.run(self.words(*words))

    def ask(self, method, *arguments, **fields):
        message = {"from_node": "central", "to_nodes": ["ship1"], "method": method,
                   "method_args": list(arguments), "directory": "d", **fields}  # fmt: skip
        return self.central.follow(message)

    def wait_filed(self, name, content):
        file = self.central.data("d", "ship1", name)
        self.central.wait_until(lambda _: file.exists() and file.read_bytes() == content)

    def errors(self):
        log = self.central.data("errorLog", "errorCentral", "error.log")
        return log.read_text() if log.exists() else ""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    root = tmp_path_factory.mktemp("speaking")
    work = root / "work"
    work.mkdir()
    with NatsServer() as broker:
        fleet = Fleet(broker.url, work, root)
        with fleet.central, fleet.ship1:
            yield fleet


def read_line(process):
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return line


def test_lines_are_shown_while_the_program_runs(fleet):
    go = fleet.work / "go"
    script = f"echo one; echo two >&2; while [ ! -e {go} ]; do sleep 0.02; done; echo three; exit 3"
    words = fleet.command("exec", "--stream", "ship1", "--", "sh", "-c", script)
    with ended(
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ) as shown:
        assert read_line(shown) == "one\n"
        assert shown.poll() is None
        go.touch()
        out, err = shown.communicate(timeout=60)
    assert (out, err) == ("three\n", "two\n")
    assert shown.returncode == 3


def test_a_file_is_followed_until_interrupted(fleet):
    log = fleet.work / "app.log"
    log.write_text("1\n2\n3\n")
    words = fleet.command("tail", "ship1", "-n", "2", str(log))
    with ended(
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ) as shown:
        assert [read_line(shown), read_line(shown)] == ["2\n", "3\n"]
        log.rename(fleet.work / "app.log.1")
        log.write_text("4\n")
        assert read_line(shown) == "4\n"
        shown.send_signal(signal.SIGINT)
        shown.communicate(timeout=60)
    assert shown.returncode == 130

    def has_ended(_):
        with log.open("a") as file:  # it learns that nobody listens when it speaks, as with a pipe
            file.write("5\n")
        return fleet.ship1.worker("ship1.REQTailFile.EventACK_subscriber")["in_flight"] == 0

    fleet.ship1.wait_until(has_ended)


def test_the_end_of_the_time_ends_a_tail_well_and_a_program_with_its_mark(fleet):
    log = fleet.work / "quiet.log"
    log.write_text("last\n")
    done = fleet.run("tail", "ship1", "--for", "3s", "-n", "1", str(log))
    assert (done.returncode, done.stdout, done.stderr) == (0, "last\n", "")
    done = fleet.run(
        "exec", "--stream", "--timeout", "3", "ship1", "--", "sh", "-c", "printf a; sleep 30"
    )
    assert done.stdout == "a"
    assert "was stopped after 3 s" in done.stderr
    assert done.returncode == 124


def test_several_files_are_followed_each_line_behind_its_file(fleet):
    logs = [fleet.work / "first.log", fleet.work / "second.log"]
    for log in logs:
        log.write_text(f"of {log.name}\n")
    done = fleet.run("tail", "ship1", "--for", "3s", "-n", "1", *map(str, logs))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [f"{log}: of {log.name}" for log in logs]


def test_refusals_are_told(fleet):
    done = fleet.run("tail", "ship1", "/etc/passwd")
    assert done.returncode == 1
    assert "/etc/passwd is not in allow_paths" in done.stderr
    done = fleet.run("exec", "--stream", "ship1", "--", "id")
    assert done.returncode == 1
    assert "is not in allow_commands" in done.stderr


@pytest.mark.parametrize(("option", "name"), [("--file", "../x"), ("--directory", "a/../..")])
def test_a_name_that_no_answer_could_be_filed_under_is_refused_before_the_work(fleet, option, name):
    done = fleet.run("send", "--to", "ship1", option, name, "REQCliCommand", "--", "echo", "x")
    assert done.returncode == 1
    assert "not accepted: '..' is no file or directory name" in done.stderr


def test_a_large_output_arrives_whole_and_in_order(fleet):
    done = fleet.run("exec", "--stream", "ship1", "--", "sh", "-c", "seq 1 200000")
    assert done.returncode == 0
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 200_001))


def test_a_failed_fetch_is_one_error_for_the_asker_and_one_for_the_log(fleet):
    before = fleet.errors().count("REQHttpGet")
    lines = fleet.ask("REQHttpGet", "http://127.0.0.1:1/?token=secret", file_name="page")
    assert "GET http://127.0.0.1:1/: cannot connect" in lines
    fleet.central.wait_until(lambda _: fleet.errors().count("REQHttpGet") > before)
    fleet.central.wait_until(lambda status: not status["inbox"]["unfinished"])
    found = [line for line in fleet.errors().splitlines() if "127.0.0.1:1/" in line]
    assert len(found) == 1
    assert "secret" not in found[0]


@pytest.mark.parametrize("method", ["REQCliCommand", "REQCliCommandCont"])
def test_a_command_as_the_answer_runs_at_the_asker_and_is_filed_there(fleet, method):
    fleet.ask(
        "REQCliCommand", "echo", "the answer", file_name=f"{method}.out",
        reply_method=method, reply_method_args=["sh", "-c", 'printf "got: %s" "{{STEWARD_DATA}}"'],
    )  # fmt: skip
    fleet.wait_filed(f"{method}.out", b"got: the answer\n")
    for daemon in (fleet.central, fleet.ship1):  # nothing goes on between the two
        status = daemon.wait_until(
            lambda status: not status["outbox"]["pending"] + status["inbox"]["unfinished"]
        )
        assert status["outbox"]["dead"] == 0


def test_a_command_as_the_answer_of_a_node_that_does_not_allow_it_is_refused(fleet):
    fleet.central.send({"from_node": "central", "to_nodes": ["ship1"], "method": "REQPing",
                        "reply_method": "REQCliCommand", "file_name": "f",
                        "reply_method_args": ["sh", "-c", f"touch {fleet.work}/refused"]})  # fmt: skip
    fleet.central.wait_until(
        lambda _: "REQCliCommand is not in allow_reply_methods" in fleet.errors()
    )
    assert not (fleet.work / "refused").exists()


def test_an_answer_goes_to_a_socket_of_the_asker(fleet):
    path = fleet.work / "listener"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60)
        fleet.central.send({"from_node": "central", "to_nodes": ["ship1"], "method": "REQCliCommand",
                            "method_args": ["echo", "to the socket"], "reply_method": "REQToSocket",
                            "reply_method_args": [str(path)]})  # fmt: skip
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(60)
            assert connection.makefile().read() == "to the socket\n"


@contextlib.asynccontextmanager
async def goer(fleet):
    """A node of the original: no header of ours, every message acknowledged."""
    client = await nats.connect(fleet.url)
    replies = asyncio.Queue()

    async def take(message):
        if message.headers and message.headers.get("cmp"):
            raise AssertionError("compressed")
        await client.publish(message.reply, b"confirmed from: goer: 5")
        replies.put_nowait(cbor2.loads(message.data))

    try:
        await client.subscribe("goer.REQToFileAppend.EventACK", cb=take)
        await client.flush()

        async def ask(method, *arguments, timeout_s=10):
            message = seed_message(
                "ship1", "goer", method, [], method_args=list(arguments), file_name="f", id=5
            )
            message[14] = timeout_s
            subject = f"ship1.{method}.{'Command' if 'Cli' in method else 'Event'}ACK"
            await client.publish(
                subject,
                cbor2.dumps(message),
                reply=f"{subject}.reply.x",
                headers={"serial": "cbor"},
            )

        yield ask, replies
    finally:
        await client.close()


async def gather(replies, text):
    """Replies until their data is this."""
    found = []
    async with asyncio.timeout(60):
        while "".join(found) != text:
            reply = await replies.get()
            assert (reply[4], reply[8], reply[0], reply[9]) == (
                "REQToFileAppend",
                True,
                "goer",
                "ship1",
            )
            assert reply[18][4] in ("REQCliCommandCont", "REQTailFile")
            found += reply[3]
    return found


async def test_a_node_of_the_original_gets_plain_replies_and_no_empty_one_at_the_end(fleet):
    async with goer(fleet) as (ask, replies):
        await ask(
            "REQCliCommandCont",
            "sh",
            "-c",
            "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three",
        )
        assert await gather(replies, "one\ntwo\nthree\n") == ["one\n", "two\n", "three\n"]
        await ask("REQCliCommandCont", "sh", "-c", "echo next")
        # were there an empty reply behind the last one, it would come first
        assert (await replies.get())[3] == ["next\n"]


async def test_a_node_of_the_original_follows_a_file_from_its_end(fleet):
    log = fleet.work / "seed.log"
    log.write_text("old\n")
    async with goer(fleet) as (ask, replies):
        await ask("REQTailFile", str(log), timeout_s=3)
        written, seen = [], ""
        async with asyncio.timeout(60):
            while not seen:
                written.append(f"new {len(written)}\n")
                with log.open("a") as file:
                    file.write(written[-1])
                with contextlib.suppress(asyncio.QueueEmpty):
                    seen = "".join(replies.get_nowait()[3])
                await pace_async(time.monotonic() + 0.05)
        assert "old" not in seen
        assert seen in "".join(written)


def test_a_daemon_that_dies_with_its_programs_says_that_they_were_interrupted(fleet):
    log = fleet.work / "long.log"
    log.touch()
    request = {
        "from_node": "central",
        "to_nodes": ["ship1"],
        "method_timeout": 600,
        "directory": "d",
        "file_name": "i",
    }
    fleet.central.send(
        {**request, "method": "REQTailFile", "method_args": [str(log)]},
        {
            **request,
            "method": "REQCliCommandCont",
            "method_args": ["sh", "-c", "echo begun; exec sleep 5.4321"],
        },
    )
    workers = [
        f"ship1.{method}_subscriber"
        for method in ("REQTailFile.EventACK", "REQCliCommandCont.CommandACK")
    ]
    for worker in workers:
        fleet.ship1.wait_until(
            lambda _, worker=worker: fleet.ship1.worker(worker)["in_flight"] == 1
        )
    fleet.wait_filed("i", b"begun\n")
    fleet.ship1.kill()
    fleet.ship1.start()
    for method in ("REQTailFile", "REQCliCommandCont"):
        fleet.central.wait_until(
            lambda _, method=method: any(
                method in line and "interrupted" in line for line in fleet.errors().splitlines()
            )
        )
    for worker in workers:
        assert fleet.ship1.worker(worker)["in_flight"] == 0


def test_a_daemon_that_stops_ends_its_tails_at_once_and_says_so(fleet):
    log = fleet.work / "stop.log"
    log.touch()
    fleet.central.send(
        {
            **{"from_node": "central", "to_nodes": ["ship1"], "method": "REQTailFile"},
            **{"method_args": [str(log)], "method_timeout": 600},
        }
    )
    worker = "ship1.REQTailFile.EventACK_subscriber"
    fleet.ship1.wait_until(lambda _: fleet.ship1.worker(worker)["in_flight"] == 1)
    begun = time.monotonic()
    assert fleet.ship1.stop() == 0
    assert time.monotonic() - begun < 20  # and not reload.drain_timeout
    fleet.ship1.start()
    fleet.central.wait_until(lambda _: "ended early: the node stops" in fleet.errors())
    assert fleet.ship1.worker(worker)["in_flight"] == 0


def test_the_methods_are_described_for_whoever_asks(fleet):
    described = {item["name"]: item for item in fleet.central.status()["methods"]}
    assert described.keys() >= {"REQCliCommandCont", "REQTailFile", "REQHttpGet", "REQToSocket"}
    assert described["REQTailFile"]["usage"] == "PATH [-n COUNT]"
