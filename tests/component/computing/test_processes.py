"""One process that computes, a real one: what it is given, what is taken from it, and how it ends."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

import appliance.methods
from appliance.core.message import Message
from appliance.core.names import MethodName, NodeName
from appliance.core.specs import SubscriberSpec
from appliance.errors import ArgumentsInvalid, HandlerError
from appliance.methods.computing.frames import (
    BadOutcome,
    Facts,
    Greeting,
    OrderWriter,
    read_outcome,
)
from appliance.methods.computing.process import HandlerProcess, ProcessEnded
from tests.support.computing import METHOD_PATH
from tests.support.waiting import LONG_S, until, until_async

MODULE = "appliance.methods.spin"
SPEC = SubscriberSpec(
    node=NodeName("ship"),
    subject="ship.REQSpin.EventACK",
    method=MethodName("REQSpin"),
    wants_ack=True,
)
PLENTY = 1024**3


def order(*args: str, data: str = "", module: str = MODULE) -> bytes:
    facts = Facts(node=NodeName("ship"), spec=SPEC, timeout_s=10.0, now=1.7e9)
    message = Message(to_node="ship", from_node="central", method_args=args, data=(data,))
    return OrderWriter(module).encode(message, facts)


def greeting(max_bytes: int = PLENTY) -> Greeting:
    paths = (*appliance.methods.__path__, METHOD_PATH)
    return Greeting(tuple(sys.path), paths, (MODULE,), max_bytes)


@contextlib.asynccontextmanager
async def started(environ=os.environ, hidden=frozenset(), max_bytes=PLENTY):
    process = await HandlerProcess.start(environ, hidden, lambda: greeting(max_bytes))
    try:
        yield process
    finally:
        process.kill()
        await process.end()


async def test_what_a_handler_gives_comes_back_byte_for_byte():
    async with started() as process:
        for text in ("plain", "no text: \udc80\udcff", ""):
            outcome = read_outcome(await process.ask(order("cpu", "0", data=text)))
            expected = f"{process.pid} {text}".encode("utf-8", "surrogateescape")
            assert outcome.output == expected
        sent = read_outcome(await process.ask(order("send", data="\udc80"))).messages
        assert [one.message.data for one in sent] == [("\udc80",)]


async def test_what_a_handler_raises_is_a_refusal_or_a_failure_as_in_the_daemon_itself():
    async with started() as process:
        with pytest.raises(ArgumentsInvalid, match="no, not this"):
            read_outcome(await process.ask(order("fail")))
        with pytest.raises(HandlerError, match="internal error: ValueError: broken"):
            read_outcome(await process.ask(order("break")))
        with pytest.raises(HandlerError, match="message and settings alone"):
            read_outcome(await process.ask(order("reach")))
        with pytest.raises(HandlerError, match="No module named"):
            read_outcome(await process.ask(order(module="appliance.methods.nowhere")))
        assert read_outcome(await process.ask(order("cpu", "0"))).output


async def test_process_has_neither_the_daemons_environment_nor_its_descriptors(tmp_path):
    environ = {**os.environ, "DATABASE_URL": "secret", "LC_MINE": "C", "HOME": str(tmp_path)}
    async with started(environ, frozenset({"HOME"})) as process:
        found = json.loads(read_outcome(await process.ask(order("environment"))).output)
    assert "LC_MINE" in found["names"]
    assert {"DATABASE_URL", "HOME"}.isdisjoint(found["names"])
    # the usual three, the line and the alarm; those of its loop; and the directory that is listed
    assert len(found["fds"]) <= 5 + 3 + 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("die",), "was killed by signal 9"),
        (("exit",), "ended with status 3"),
        (("noise", "large"), "answered with more than"),
    ],
)
async def test_process_that_ends_or_answers_too_much_is_told_as_that_and_gone(words, said):
    async with started() as process:
        with pytest.raises(ProcessEnded, match=said):
            await process.ask(order(*words))
        assert process.ended.is_set()


async def test_answer_that_is_none_is_no_result():
    async with started() as process:
        with pytest.raises(BadOutcome):
            read_outcome(await process.ask(order("noise")))


async def test_result_that_is_too_large_fails_and_the_process_goes_on():
    async with started() as process:
        with pytest.raises(HandlerError, match="larger than"):
            read_outcome(await process.ask(order("flood", str(65 * 1024**2))))
        assert read_outcome(await process.ask(order("flood", "100000"))).output == b"x" * 100_000


async def test_handler_that_wants_more_memory_than_it_may_have_fails_alone():
    async with started(max_bytes=256 * 1024**2) as process:
        with pytest.raises(HandlerError, match="MemoryError"):
            read_outcome(await process.ask(order("grow", str(512 * 1024**2))))
        assert read_outcome(await process.ask(order("grow", "1000"))).output == b"1000"


async def test_memory_that_a_handler_may_not_have_is_told_with_the_name_of_the_bound():
    async with started(max_bytes=256 * 1024**2) as process:
        with pytest.raises(HandlerError, match=r"MemoryError.*limits\.max_process_bytes"):
            read_outcome(await process.ask(order("grow", str(512 * 1024**2))))


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver"])
async def test_handler_may_share_its_work_among_processes_of_its_own(way):
    async with started() as process:
        async with asyncio.timeout(LONG_S):
            assert read_outcome(await process.ask(order("pool", way))).output == b"[1, 2]"


async def test_process_heeds_no_signal_that_is_meant_for_the_daemon():
    async with started() as process:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process.pid, number)
        assert read_outcome(await process.ask(order("cpu", "0"))).output


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGSEGV, None])
async def test_what_a_handler_started_and_left_goes_with_its_process(way):
    async with started() as process:
        helper = int(read_outcome(await process.ask(order("helper"))).output)
        assert not _is_gone(helper)
        if way is None:
            await process.end()
        else:
            os.kill(process.pid, way)
            await process.ended.wait()
        await until_async(lambda: _is_gone(helper))


ISOLATED = """
import asyncio, os, sys
sys.path[:0] = sys.argv[1:]
from tests.component.computing.test_processes import greeting, order
from appliance.methods.computing.frames import read_outcome
from appliance.methods.computing.process import HandlerProcess

async def main():
    process = await HandlerProcess.start(os.environ, frozenset(), greeting)
    print(read_outcome(await process.ask(order("environment"))).output.decode())
    await process.end()

asyncio.run(main())
"""


@pytest.mark.parametrize("flags", [(), ("-I",)])
def test_process_is_as_isolated_from_its_surroundings_as_the_daemon_is(flags):
    command = [sys.executable, *flags, "-c", ISOLATED, os.getcwd()]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONG_S)
    assert json.loads(said.stdout)["isolated"] == len(flags)


async def test_process_that_is_told_to_end_ends_by_itself_and_one_that_hangs_is_killed(tmp_path):
    async with started() as process:
        await process.end()
        assert process.describe_end() == "ended with status 0"
    async with started() as process:
        hanging = asyncio.create_task(process.ask(order("hang", str(begun := tmp_path / "begun"))))
        await until_async(begun.exists)
        process.kill()
        with pytest.raises(ProcessEnded, match="signal 9"):
            await hanging


PARENT = """
import asyncio, os, sys
from tests.component.computing.test_processes import greeting, order
from appliance.methods.computing.frames import read_outcome
from appliance.methods.computing.process import HandlerProcess

async def main():
    process = await HandlerProcess.start(os.environ, frozenset(), greeting)
    idle = await HandlerProcess.start(os.environ, frozenset(), greeting)
    helper = read_outcome(await idle.ask(order("helper"))).output.decode()
    print(process.pid, idle.pid, helper, flush=True)
    await process.ask(order("hang", sys.argv[1]))

asyncio.run(main())
"""


def test_kill_of_the_parent_leaves_no_process_whatever_it_does(tmp_path):
    begun = tmp_path / "begun"
    command = [sys.executable, "-c", PARENT, str(begun)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        everybody = [int(word) for word in parent.stdout.readline().split()]
        until(begun.exists)
        assert not any(map(_is_gone, everybody))
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: all(map(_is_gone, everybody)))


def _is_gone(pid: int) -> bool:
    fields = _stat(pid)
    return fields is None or fields[0] == "Z"


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
