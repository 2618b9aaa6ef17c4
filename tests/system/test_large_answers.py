"""Answers larger than what the broker takes in one message come whole and in order, or fail; none is cut in silence."""

import asyncio
import contextlib
import hashlib
import json
import random
import sys

import cbor2
import nats
import pytest

from appliance.wire.frame import decode_frame
from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message
from tests.support.nats_server import NatsServer

MAX_PAYLOAD = 65_536
LARGE = 300_000
CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
nodes:
  central:
    subscribe:
      REQToFileAppend: {{}}
      REQToFile: {{}}
      REQToConsole: {{}}
      REQErrorLog: {{}}
  ship1:
    subscribe:
      REQCliCommand: {{accept_from: [central, via, goer], allow_commands: any, max_output_bytes: 8000000}}
      REQCliCommandCont: {{allow_commands: any}}
      REQHttpGet: {{allow_urls: ["http://127.0.0.1:1/**"]}}
  via:
    subscribe:
      REQToFileAppend: {{}}
      REQRelay: {{relay_to: [ship1], relay_methods: [REQCliCommand]}}
  goer: {{}}
"""
NOISE = "import os,sys,random; sys.{stream}.buffer.write(random.Random(7).randbytes({size}))"


def noise(size, stream="stdout"):
    return [sys.executable, "-c", NOISE.format(size=size, stream=stream)]


def digest_of(size):
    return hashlib.sha256(random.Random(7).randbytes(size)).hexdigest()


class Fleet:
    def __init__(self, url, root):
        self.url = url
        text = CONFIG.format(url=url)
        self.central = Appliance(text, root / "central", args=["--node", "central"])
        self.ship1 = Appliance(text, root / "ship1", args=["--node", "ship1", "--node", "via"])
        self.central.only_named = self.ship1.only_named = True

    def exec(self, *words):
        """What the command wrote as bytes, with its exit status."""
        return forked.run(["exec", "--state-dir", str(self.central.state), *words], is_text=False)

    def ask(self, *arguments, **fields):
        message = {"from_node": "central", "to_nodes": ["ship1"], "method": "REQCliCommand",
                   "method_args": list(arguments), "directory": "d", **fields}  # fmt: skip
        return [json.loads(line) for line in self.central.follow(message).splitlines()]

    def errors(self):
        log = self.central.data("errorLog", "errorCentral", "error.log")
        return log.read_text() if log.exists() else ""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    with NatsServer(f"max_payload: {MAX_PAYLOAD}") as broker:
        fleet = Fleet(broker.url, root)
        with fleet.central, fleet.ship1:
            yield fleet


def test_output_far_larger_than_a_message_is_shown_whole_with_its_exit_status(fleet):
    done = fleet.exec("ship1", "--", *noise(3_000_000))
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).hexdigest() == digest_of(3_000_000)


def test_output_that_packs_well_is_shown_whole_however_large_it_is_unpacked(fleet):
    done = fleet.exec("ship1", "--", "head", "-c", "7000000", "/dev/zero")
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout) == 7_000_000


def test_long_error_output_is_shown_whole(fleet):
    script = [*noise(LARGE, "stderr")]
    script[-1] += "; sys.stdout.write('out'); sys.stdout.flush(); sys.exit(3)"
    done = fleet.exec("ship1", "--", *script)
    assert (done.returncode, done.stdout) == (3, b"out")
    # what follows on standard error are words of ours, if any
    assert hashlib.sha256(done.stderr[:LARGE]).hexdigest() == digest_of(LARGE)


def test_arguments_that_take_the_room_of_an_answer_do_not_keep_it_from_coming(fleet):
    argument = random.Random(1).randbytes(25_000).hex()
    done = fleet.exec("ship1", "--", "echo", argument)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == argument + "\n"


@pytest.mark.parametrize("via", ["", "via"])
def test_filed_answer_that_fits_no_message_is_filed_whole(fleet, via):
    name = f"large{via}"
    extra = {"relay_via_node": via} if via else {}
    lines = fleet.ask(*noise(LARGE), file_name=name, **extra)
    replies = [line for line in lines if line["event"] == "reply"]
    assert len(replies) > 1
    assert replies[-1]["exit_status"] == "0"
    file = fleet.central.data("d", "ship1", name)
    fleet.central.wait_until(lambda _: file.exists() and file.stat().st_size >= LARGE)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest_of(LARGE)


def test_answer_on_the_console_that_fits_no_message_is_shown_whole_on_its_lines(fleet):
    script = f"print('begin-of-it' + 'x' * {LARGE} + 'end-of-it')"
    fleet.ask(sys.executable, "-c", script, reply_method="REQToConsole")
    fleet.central.wait_until(lambda _: "end-of-it" in fleet.central.log())
    log = fleet.central.log_path.read_text()
    shown = log[log.index("begin-of-it") : log.index("end-of-it")]
    assert shown == "begin-of-it" + "x" * LARGE


def test_answer_that_would_replace_a_file_and_fits_no_message_fails_and_leaves_the_file(fleet):
    fleet.ask("echo", "small", reply_method="REQToFile", file_name="kept")
    file = fleet.central.data("d", "ship1", "kept")
    fleet.central.wait_until(lambda _: file.exists())
    lines = fleet.ask(*noise(LARGE), reply_method="REQToFile", file_name="kept")
    [reply] = [line for line in lines if line["event"] == "reply"]
    assert reply["exit_status"].startswith("failed: the answer takes ")
    assert "REQToFile" in reply["exit_status"]
    assert file.read_text() == "small\n"
    fleet.central.wait_until(lambda _: "cannot come in pieces" in fleet.errors())


def test_reason_of_a_failure_empties_no_file_that_an_answer_would_replace(fleet):
    fleet.ask("echo", "small", reply_method="REQToFile", file_name="kept2")
    file = fleet.central.data("d", "ship1", "kept2")
    fleet.central.wait_until(lambda _: file.exists())
    lines = fleet.ask("", reply_method="REQToFile", file_name="kept2")
    [reply] = [line for line in lines if line["event"] == "reply"]
    assert reply["exit_status"].startswith("failed: ")
    assert file.read_text() == "small\n"


@contextlib.asynccontextmanager
async def goer(fleet, method):
    """A node of the original: asks, acknowledges whatever comes, and keeps it."""
    client = await nats.connect(fleet.url)
    replies = asyncio.Queue()

    async def take(message):
        await client.publish(message.reply, b"confirmed from: goer: 5")
        replies.put_nowait(message)

    async def ask(*arguments):
        asked = seed_message("ship1", "goer", "REQCliCommand", [], method_args=list(arguments),
                             file_name="f", id=5, reply_method=method)  # fmt: skip
        subject = "ship1.REQCliCommand.CommandACK"
        await client.publish(
            subject,
            cbor2.dumps(asked),
            reply=f"{subject}.reply.x",
            headers={"serial": "cbor"},
        )

    try:
        await client.subscribe(f"goer.{method}.EventACK", cb=take)
        await client.flush()
        yield ask, replies
    finally:
        await client.close()


async def test_a_node_of_the_original_gets_the_pieces_as_plain_messages_in_order(fleet):
    async with goer(fleet, "REQToFileAppend") as (ask, replies):
        await ask(sys.executable, "-c", f"print('é' * {LARGE // 2}, end='')")
        found = ""
        async with asyncio.timeout(60):
            while len(found) < LARGE // 2:
                message = await replies.get()
                reply = decode_frame(message.data, dict(message.headers or {}))
                assert (reply.method, reply.is_reply) == ("REQToFileAppend", True)
                found += "".join(reply.data)
        assert found == "é" * (LARGE // 2)


async def test_a_node_of_the_original_gets_no_part_of_what_would_replace_a_file(fleet):
    async with goer(fleet, "REQToFile") as (ask, replies):
        await ask(sys.executable, "-c", NOISE.format(size=LARGE, stream="stdout"))
        await asyncio.to_thread(
            fleet.central.wait_until, lambda _: fleet.errors().count("cannot come in pieces") >= 1
        )
        await ask("echo", "small")
        message = await asyncio.wait_for(replies.get(), 20)
        assert b"small" in message.data or message.headers.get("cmp") == "z"


def test_send_tells_a_cut_beside_the_output_and_by_its_exit_status(fleet):
    words = ["send", "--state-dir", str(fleet.central.state), "--from", "central", "-o", "json"]
    done = forked.run(
        [*words, "--to", "ship1", "REQCliCommand", "--", "head", "-c", "9000000", "/dev/zero"]
    )
    facts = json.loads(done.stdout)
    assert any(reply.get("truncated") for reply in facts["messages"][0]["replies"])
    assert done.returncode == 1
