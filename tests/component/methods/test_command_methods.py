"""REQCliCommand, REQToConsole and REQOpProcessList."""

from __future__ import annotations

import pytest

from appliance.core.specs import SubscriberSpec
from appliance.errors import ArgumentsInvalid, CommandForbidden
from appliance.methods.base import WorkerLine


@pytest.fixture
def anything(bench):
    bench.spec_fields["allow_commands"] = None
    return bench


async def run(bench, *argv):
    return await bench.handle("REQCliCommand", method_args=argv)


async def test_standard_output_is_the_reply_and_a_quiet_success_reports_nothing(anything):
    result = await run(anything, "printf", "a\\nb")
    assert (result.output, result.exit_status, result.report) == (b"a\nb", 0, None)


async def test_exit_status_and_error_output_are_reported_and_not_mixed_into_the_reply(anything):
    result = await run(anything, "sh", "-c", "echo out; printf 'bad\\033[2J\\377\\n' >&2; exit 3")
    assert (result.output, result.exit_status) == (b"out\n", 3)
    assert result.report is not None
    assert "exit status 3" in result.report
    assert "message 7" in result.report
    assert result.report.endswith("stderr: bad\\x1b[2J\\xff")


async def test_error_output_of_a_success_travels_with_the_answer_and_is_no_error_report(anything):
    result = await run(anything, "sh", "-c", "echo warning >&2")
    assert (result.output, result.exit_status) == (b"", 0)
    assert (result.stderr, result.report) == (b"warning\n", None)


async def test_report_is_bounded_however_much_the_program_says(anything):
    script = "head -c 100000 /dev/zero >&2; exit 3; : " + "x" * 50_000
    result = await run(anything, "sh", "-c", script)
    assert len(result.report) < 8_192 * 4 + 1_000
    assert result.report.endswith("[cut at 8192 bytes]")


async def test_program_that_does_not_exist_gives_an_empty_reply_127_and_a_report(anything):
    result = await run(anything, "no-such-program", "x")
    assert (result.output, result.exit_status) == (b"", 127)
    assert 'command ["no-such-program", "x"]' in result.report
    assert "could not be started: No such file or directory" in result.report


async def test_timeout_is_never_silent(anything):
    anything.timeout_s = 0.3
    result = await run(anything, "sh", "-c", "printf begun; sleep 30")
    assert (result.output, result.ending.stopped_after_s) == (b"begun", 0.3)
    anything.asker_is_appliance = False  # who reads nothing beside the output
    result = await run(anything, "sh", "-c", "printf begun; sleep 30")
    assert result.output == b"begun\n[stopped after 0.3 s]\n"
    assert result.exit_status == 124
    assert "was stopped after 0.3 s" in result.report


async def test_output_is_bounded_by_the_subscribers_spec(anything):
    anything.spec_fields["max_output_bytes"] = 4
    result = await run(anything, "echo", "123456")
    assert (result.output, result.is_truncated) == (b"1234", True)
    anything.asker_is_appliance = False
    result = await run(anything, "echo", "123456")
    assert result.output == b"1234\n [cut at 4 bytes]\n"


async def test_nothing_runs_unless_allowed_and_the_refusal_names_command_and_subscriber(bench):
    marker = bench.root / "ran"
    with pytest.raises(CommandForbidden) as caught:
        await run(bench, "touch", str(marker))
    assert '["touch", ' in str(caught.value)
    assert "allow_commands of ship1.REQCliCommand" in str(caught.value)
    assert not marker.exists()

    bench.spec_fields["allow_commands"] = (("echo", "a*"),)
    assert (await run(bench, "echo", "ab")).output == b"ab\n"
    with pytest.raises(CommandForbidden):
        await run(bench, "echo", "b")


@pytest.mark.parametrize("argv", [(), ("",), ("echo", "a\0b"), ("echo", "\ud800")])
async def test_arguments_no_program_can_be_given_are_refused(anything, argv):
    with pytest.raises(ArgumentsInvalid):
        await run(anything, *argv)
    with pytest.raises(ArgumentsInvalid):
        await anything.handle("REQCliCommand", method_args=None)


async def test_refusal_of_a_hostile_command_is_itself_harmless(bench):
    with pytest.raises(CommandForbidden) as caught:
        await run(bench, "\x1b[2J\n" * 1_000, "\udcff")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


async def test_shell_syntax_is_only_text(anything):
    result = await run(anything, "echo", "$(id)", ";", "|", "&&", "*")
    assert result.output == b"$(id) ; | && *\n"


async def test_command_knows_its_message_and_what_was_handed_on_and_no_more(anything, monkeypatch):
    monkeypatch.setenv("NKEY_SEED", "SUA")
    monkeypatch.setenv("JAVA_HOME", "/jre")
    script = 'echo "$APPLIANCE_MESSAGE_ID $APPLIANCE_FROM_NODE [$NKEY_SEED] [$JAVA_HOME]"'
    assert (await run(anything, "sh", "-c", script)).output == b"7 central [] []\n"
    anything.spec_fields["pass_environment"] = ("JAVA_HOME",)
    assert (await run(anything, "sh", "-c", script)).output == b"7 central [] [/jre]\n"


async def test_console_shows_all_elements_and_no_terminal_obeys_them(bench):
    result = await bench.handle("REQToConsole", data=("one\t", "\x1b]52;c;x\x07", "\r\u202e\udc9b"))
    assert result.output is None
    assert bench.shown == ["one\t\\x1b]52;c;x\\x07\\x0d\\u202e\\x9b\n"]


async def test_console_shows_on_standard_error_if_the_argument_says_so(bench):
    await bench.handle("REQToConsole", method_args=("stderr",), data=("bad\x1b",))
    await bench.handle("REQToConsole", method_args=("stdout",), data=("good",))
    assert bench.shown_on_stderr == ["bad\\x1b\n"]
    assert bench.shown == ["good\n"]


async def test_console_message_without_data_is_an_empty_line(bench):
    await bench.handle("REQToConsole")
    assert bench.shown == ["\n"]


async def test_process_list_has_a_line_per_worker(bench):
    bench.workers = [
        WorkerLine(number=1, kind="subscriber", subject="ship1.REQPing.EventACK", phase="running"),
        WorkerLine(number=2, kind="publisher", subject="central.REQHello.EventNACK", phase="x"),
    ]
    result = await bench.handle("REQOpProcessList")
    date = "2023-11-14T22:13:20Z"
    assert result.output.decode().splitlines() == [
        f"{date}, process: subscriber, id: 1, name: ship1.REQPing.EventACK",
        f"{date}, process: publisher, id: 2, name: central.REQHello.EventNACK",
    ]


def test_default_of_a_subscriber_allows_no_command():
    assert SubscriberSpec.__dataclass_fields__["allow_commands"].default == ()
