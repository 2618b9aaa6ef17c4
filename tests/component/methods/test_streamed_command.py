"""REQCliCommandCont against real programs: what comes when, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import pytest

from appliance.errors import CommandForbidden, HandlerError
from appliance.methods.programs import child as _child
from appliance.methods.programs import chunks as _talk
from appliance.methods.programs.chunks import PIECE_BYTES
from tests.component.methods.test_run_command import children, wait_until_gone
from tests.support.waiting import until_still


@pytest.fixture(autouse=True)
def no_zombies_and_no_open_files(anything):
    before, open_files = children(), len(os.listdir("/proc/self/fd"))
    yield
    assert children() <= before
    assert len(os.listdir("/proc/self/fd")) <= open_files


@pytest.fixture
def anything(bench):
    bench.spec_fields["allow_commands"] = None
    return bench


async def run(bench, *argv, **fields):
    return await bench.handle("REQCliCommandCont", method_args=argv, **fields)


async def sh(bench, script, **fields):
    return await run(bench, "sh", "-c", script, **fields)


async def test_lines_are_said_while_the_program_runs_and_its_end_is_the_answers(anything, tmp_path):
    go = tmp_path / "go"
    script = f"echo one; while [ ! -e {go} ]; do sleep 0.01; done; echo two"
    running = asyncio.create_task(sh(anything, script))
    await anything.until(lambda: anything.said() == b"one\n")
    assert not running.done()
    go.touch()
    result = await running
    assert anything.said() == b"one\ntwo\n"
    assert (result.output, result.exit_status, result.report) == (b"", 0, None)


async def test_both_streams_come_marked_and_in_the_order_they_were_written(anything):
    script = "for i in 1 2 3; do echo o$i; sleep 0.05; echo e$i >&2; sleep 0.05; done"
    result = await sh(anything, script)
    assert anything.replies == [
        (stream, f"{stream[3]}{number}\n".encode())
        for number in (1, 2, 3)
        for stream in ("stdout", "stderr")
    ]
    # what was said on stderr was told already, and is no error by itself
    assert (result.stderr, result.report) == (b"", None)


async def test_lines_that_are_there_together_go_out_together(anything):
    await sh(anything, "seq 1 5000")
    assert anything.said() == b"".join(b"%d\n" % number for number in range(1, 5001))
    assert len(anything.replies) <= 10
    assert all(data.endswith(b"\n") for _, data in anything.replies)


async def test_a_line_of_any_length_arrives_whole_in_bounded_pieces(anything):
    await sh(anything, "head -c 1000000 /dev/zero | tr '\\0' x; echo; printf end")
    assert anything.said() == b"x" * 1_000_000 + b"\nend"
    assert max(len(data) for _, data in anything.replies) <= PIECE_BYTES


async def test_a_prompt_is_shown_before_its_line_ends(anything, tmp_path):
    go = tmp_path / "go"
    script = f"printf 'name? '; while [ ! -e {go} ]; do sleep 0.01; done; echo x"
    running = asyncio.create_task(sh(anything, script))
    await anything.until(lambda: anything.said() == b"name? ")
    go.touch()
    await running
    assert anything.replies == [("stdout", b"name? "), ("stdout", b"x\n")]


async def test_bytes_pass_as_they_are(anything):
    raw = bytes(range(256))
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)))"
    await run(anything, sys.executable, "-c", code)
    assert anything.said() == raw


async def test_status_and_the_end_of_stderr_are_reported(anything):
    result = await sh(anything, "seq 1 4000 >&2; echo 'no disk' >&2; exit 3")
    assert (result.output, result.exit_status, result.stderr) == (b"", 3, b"")
    assert "ended with exit status 3" in result.report
    assert result.report.endswith("4000\nno disk")
    assert len(result.report) < 9_000
    assert anything.said("stderr").endswith(b"4000\nno disk\n")


async def test_a_program_that_cannot_start_is_an_error_at_once(anything):
    result = await run(anything, "no-such-program")
    assert (result.output, result.exit_status) == (b"", 127)
    assert result.stderr == b"no-such-program: No such file or directory\n"
    assert "could not be started" in result.report
    assert anything.replies == []


async def test_at_the_time_limit_all_of_it_is_killed_and_the_answer_says_so(anything):
    anything.timeout_s = 0.5
    marker = "31.4159"
    result = await sh(anything, f"printf begun; sleep {marker} & sleep {marker}")
    assert anything.said() == b"begun"
    assert (result.output, result.ending.stopped_after_s) == (b"", 0.5)
    assert result.exit_status == 124
    assert "was stopped after 0.5 s" in result.report
    await wait_until_gone(marker)


async def test_a_program_that_never_stops_talking_is_stopped_too(anything):
    anything.timeout_s = 0.3
    result = await run(anything, "yes")
    assert result.exit_status == 124
    assert (result.output, result.ending.stopped_after_s) == (b"", 0.3)
    assert set(anything.said()) == set(b"y\n")


async def test_a_grandchild_that_holds_the_pipes_delays_nothing_and_loses_nothing(
    anything, monkeypatch
):
    monkeypatch.setattr(_child, "LINGER_S", 0.1)
    started = time.monotonic()
    result = await sh(anything, "sleep 27.18 & seq 1 2000; exit 0")
    assert time.monotonic() - started < 20
    assert anything.said().endswith(b"\n2000\n")
    assert result.exit_status == 0
    await wait_until_gone("27.18")


async def test_a_descendant_that_floods_on_after_the_end_is_ended(anything, monkeypatch):
    monkeypatch.setattr(_child, "MOST_LINGER_S", 0.5)
    started = time.monotonic()
    result = await sh(anything, "echo first; yes & exit 0")
    assert time.monotonic() - started < 20
    assert (result.exit_status, result.ending.is_held) == (0, True)
    assert anything.said().startswith(b"first\n")


async def test_an_absent_listener_stops_the_program_and_costs_no_memory(anything, tmp_path):
    anything.listener = asyncio.Event()
    count = tmp_path / "count"
    code = (
        "import os, sys\n"
        "for number in range(100):\n"
        "    sys.stdout.buffer.write(b'x' * 65535 + b'\\n'); sys.stdout.flush()\n"
        f"    open({str(count)!r}, 'w').write(str(number))\n"
    )
    running = asyncio.create_task(run(anything, sys.executable, "-c", code))
    await anything.until(lambda: count.exists() and count.read_text())
    # it stands still by itself, long before its end
    await until_still(count.read_text, for_s=0.2)
    assert int(count.read_text()) < 6
    anything.listener.set()
    result = await running
    assert result.exit_status == 0
    assert anything.said() == (b"x" * 65_535 + b"\n") * 100


async def test_what_an_absent_listener_missed_comes_with_the_end(anything, monkeypatch):
    monkeypatch.setattr(_talk, "LAST_WORDS_S", 0.05)
    anything.listener = asyncio.Event()
    anything.timeout_s = 0.5
    result = await sh(anything, "echo out; echo err >&2; exit 4")
    assert (result.output, result.stderr, result.exit_status) == (b"out\n", b"err\n", 4)
    assert not result.is_truncated


async def test_what_did_not_fit_by_the_end_is_told_to_be_missing(anything, monkeypatch):
    monkeypatch.setattr(_talk, "LAST_WORDS_S", 0.05)
    anything.listener = asyncio.Event()
    anything.timeout_s = 0.5
    anything.spec_fields["stop_grace_s"] = 0.1
    result = await run(anything, "yes")
    assert result.is_truncated
    assert result.ending.stopped_after_s == 0.5
    assert set(result.output) == set(b"y\n")
    assert len(result.output) < 6 * PIECE_BYTES


async def test_a_requester_who_cannot_be_answered_ends_the_program(anything):
    anything.reply_error = "cannot reply to central: unknown method"
    marker = "16.1803"
    with pytest.raises(HandlerError, match="cannot reply"):
        await sh(anything, f"echo one; sleep {marker}")
    await wait_until_gone(marker)


async def test_cancellation_kills_the_program(anything):
    marker = "14.1421"
    running = asyncio.create_task(sh(anything, f"echo one; sleep {marker}"))
    await anything.until(anything.said)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await wait_until_gone(marker)


async def test_only_allowed_commands_run(bench):
    bench.spec_fields["allow_commands"] = (("echo", "*"),)
    await run(bench, "echo", "a")
    with pytest.raises(CommandForbidden, match=r"allow_commands of ship1\.REQCliCommandCont"):
        await run(bench, "printf", "a")


async def test_many_at_once_do_not_mix(anything):
    results = await asyncio.gather(*(sh(anything, f"exit {number}") for number in range(20)))
    assert [result.exit_status for result in results] == list(range(20))
