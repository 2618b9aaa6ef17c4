"""`exec` with standard input, arguments of any bytes, and what a command is run with: from the shell to the program."""

import asyncio
import json
import subprocess
import time

import nats
import pytest

from appliance.core.message import make_reply
from appliance.wire.frame import decode_frame, encode_frame
from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
nodes:
  central: {{subscribe: {{REQToFileAppend: {{}}, REQErrorLog: {{}}}}}}
  ship1:
    subscribe:
      REQCliCommand: {{allow_commands: any, allow_directories: ["/usr/**"], allow_environment: [GREETING]}}
      REQCliCommandCont: {{allow_commands: any}}
  goer: {{}}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with NatsServer() as broker:
        daemon = Appliance(
            CONFIG.format(url=broker.url),
            tmp_path_factory.mktemp("f"),
            args=["--node", "central", "--node", "ship1"],
        )
        daemon.only_named = True
        daemon.url = broker.url
        with daemon:
            yield daemon


def execute(daemon, *words, stdin=b""):
    command = ["exec", "--state-dir", str(daemon.state), "--from", "central", *words]
    return forked.run(command, input=stdin, is_text=False)


@pytest.mark.parametrize("stream", [[], ["--stream"]], ids=["whole", "stream"])
def test_program_reads_what_comes_on_standard_input_as_the_bytes_it_is(fleet, stream):
    done = execute(fleet, "-i", *stream, "ship1", "--", "cat", stdin=b"a\n\0\xff\xfe")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\n\0\xff\xfe", b"")


def test_without_the_option_a_loop_keeps_its_lines(fleet):
    done = execute(fleet, "ship1", "--", "cat", stdin=b"the loop's\n")
    assert (done.returncode, done.stdout) == (0, b"")
    words = f"{forked.program()} exec --state-dir {fleet.state} --from central"
    script = f'printf "one\\ntwo\\n" | while read name; do {words} ship1 -- echo "$name"; done'
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=60, check=False)
    assert done.stdout == b"one\ntwo\n"


def test_too_much_is_refused_here_before_anything_is_sent(fleet, tmp_path):
    mark = tmp_path / "mark"
    done = execute(fleet, "-i", "ship1", "--", "touch", str(mark), stdin=b"x" * 600_000)
    assert done.returncode == 64
    assert b"more than 524288 bytes" in done.stderr
    assert not mark.exists()


def test_arguments_are_the_bytes_that_were_typed(fleet):
    done = execute(fleet, "ship1", "--", "printf", "%s", b"caf\xe9")
    assert (done.returncode, done.stdout) == (0, b"caf\xe9")


def test_directory_and_variables_are_given_and_refused_as_the_node_lets_them(fleet):
    given = ["--cwd", "/usr/lib", "--env", b"GREETING=caf\xe9"]
    done = execute(fleet, *given, "ship1", "--", "sh", "-c", 'pwd; printf %s "$GREETING"')
    assert (done.returncode, done.stdout) == (0, b"/usr/lib\ncaf\xe9")
    for words, setting in (
        (["--cwd", "/etc"], "allow_directories"),
        (["--env", "PATH=/x"], "allow_environment"),
        (["--user", "root"], "allow_users"),
    ):
        done = execute(fleet, *words, "-o", "json", "ship1", "--", "true")
        assert done.returncode == 1
        assert setting in json.loads(done.stdout)["nodes"][0]["why"]


async def test_pieces_of_a_go_node_are_waited_for_no_longer_than_its_program_can_run(fleet):
    client = await nats.connect(fleet.url)

    async def take(message):
        await client.publish(message.reply, b"confirmed from: goer: 5")
        asked = decode_frame(message.data, dict(message.headers))
        reply = make_reply(asked, "goer", "tick\n")
        payload, headers = encode_frame(reply, "cbor", "none")
        await client.publish("central.REQToFileAppend.EventACK", payload, headers=headers)

    try:
        await client.subscribe("goer.REQCliCommandCont.CommandACK", cb=take)
        await client.flush()
        words = ["--stream", "--timeout", "1s", "--wait", "59s", "goer", "--", "x"]
        began = time.monotonic()
        done = await asyncio.to_thread(execute, fleet, *words)
        assert (done.returncode, done.stdout) == (1, b"tick\n"), done.stderr
        assert b"the exit status is unknown" in done.stderr
        assert time.monotonic() - began < 40
    finally:
        await client.close()


async def test_a_go_node_that_says_nothing_of_a_program_is_told_as_one_and_not_waited_for(fleet):
    """It could not begin it, or it wrote nothing: neither is told by anybody."""
    client = await nats.connect(fleet.url)

    async def take(message):
        await client.publish(message.reply, b"confirmed from: goer: 5")

    try:
        await client.subscribe("goer.REQCliCommandCont.CommandACK", cb=take)
        await client.flush()
        words = ["--stream", "--timeout", "1s", "--wait", "59s", "goer", "--", "x"]
        began = time.monotonic()
        done = await asyncio.to_thread(execute, fleet, *words)
        assert (done.returncode, done.stdout) == (3, b"")
        assert b"a Go node says nothing of a program that writes nothing" in done.stderr
        assert b"it runs" not in done.stderr
        assert time.monotonic() - began < 40
    finally:
        await client.close()


@pytest.mark.parametrize("given", [["--user", "nobody"], ["-i"]], ids=["user", "stdin"])
async def test_a_command_that_a_go_node_could_not_run_as_asked_is_told_as_not_run(fleet, given):
    """It is a program without a name to a Go node, which answers with nothing; an earlier appliance refuses just that."""
    client = await nats.connect(fleet.url)
    heard = []

    async def take(message):
        asked = decode_frame(message.data, dict(message.headers))
        heard.append(asked.method_args[0])
        await client.publish(message.reply, b"confirmed from: goer: 5")
        payload, headers = encode_frame(make_reply(asked, "goer", ""), "cbor", "none")
        await client.publish("central.REQToFileAppend.EventACK", payload, headers=headers)

    try:
        await client.subscribe("goer.REQCliCommand.CommandACK", cb=take)
        await client.flush()
        words = ["--accept-unknown", *given, "-o", "json", "goer", "--", "id"]
        done = await asyncio.to_thread(execute, fleet, *words)
        (found,) = json.loads(done.stdout)["nodes"]
        assert (heard, done.returncode) == ([""], 1), done.stderr
        assert (found["state"], found["exit_status"]) == ("failed", None)
        assert "was not done" in found["why"]
        (job,) = fleet.request("GET", "/api/v1/jobs?limit=1")[1]["jobs"]
        assert (job["counts"]["failed"], job["state"]) == (1, "over")
    finally:
        await client.close()
