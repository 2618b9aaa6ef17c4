"""Data for commands, and commands that come as answers: REQCliCommand and REQCliCommandCont alike."""

from __future__ import annotations

import pytest

from appliance.core.message import CALLER_FILE, Message
from appliance.errors import ArgumentsInvalid, CommandForbidden
from appliance.methods.base import WorkerLine
from appliance.methods.programs.steward import MAX_DATA_BYTES

ECHO = ("bash", "-c", 'printf %s "{{STEWARD_DATA}}"')
ASKED = Message(to_node="ship2", method="REQCliCommand", directory="d", file_name="f.txt", id=3)
FILING = WorkerLine(
    number=1, kind="subscriber", subject="ship1.REQToFileAppend.EventACK", phase="running"
)


@pytest.fixture(params=["REQCliCommand", "REQCliCommandCont"])
def run(request, bench):
    bench.spec_fields["allow_commands"] = None

    async def run(*argv, **fields):
        return await bench.handle(request.param, method_args=argv, **fields)

    run.output = lambda result: result.output or bench.said("stdout")
    run.bench = bench
    return run


async def test_data_stands_where_the_placeholder_does_as_the_bytes_that_were_sent(run):
    result = await run(*ECHO, data=("a b\n", "$HOME `id` ; *\udcff"))
    assert run.output(result) == b"a b\n$HOME `id` ; *\xff"


async def test_the_rest_of_the_environment_stays(run, monkeypatch):
    monkeypatch.setenv("LC_TIME", "blue")
    script = 'echo "$LC_TIME {{STEWARD_DATA}} $APPLIANCE_FROM_NODE"'
    result = await run("bash", "-c", script, data=("x",))
    assert run.output(result) == b"blue x central\n"


async def test_without_the_placeholder_there_is_no_variable(run):
    script = 'echo "[${STEWARD_DATA-unset}]"'
    assert run.output(await run("bash", "-c", script, data=("x\0",))) == b"[unset]\n"


async def test_what_the_data_holds_is_not_obeyed(run, tmp_path):
    victim = tmp_path / "victim"
    for data in (
        f"; touch {victim}",
        f"$(touch {victim})",
        f"`touch {victim}`",
        f"\n touch {victim}",
    ):
        await run("bash", "-c", "echo {{STEWARD_DATA}} {{STEWARD_DATA}}", data=(data,))
    assert not victim.exists()


async def test_commands_are_allowed_as_they_were_sent(run):
    run.bench.spec_fields["allow_commands"] = (ECHO,)
    assert run.output(await run(*ECHO, data=("x",))) == b"x"
    with pytest.raises(CommandForbidden):
        await run("bash", "-c", 'printf %s "$STEWARD_DATA"', data=("x",))


async def test_the_largest_data_that_a_program_can_be_given_is_given(run):
    script = 'data="{{STEWARD_DATA}}"; echo ${#data}'
    result = await run("bash", "-c", script, data=("x" * MAX_DATA_BYTES,))
    assert run.output(result) == b"%d\n" % MAX_DATA_BYTES


@pytest.mark.parametrize(
    ("data", "part"),
    [("x" * (MAX_DATA_BYTES + 1), "exceeds"), ("a\0b", "NUL"), ("\ud800", "no encoding")],
    ids=["long", "nul", "surrogate"],
)
async def test_data_that_no_program_can_be_given_is_refused_with_the_reason(run, data, part):
    with pytest.raises(ArgumentsInvalid, match=part):
        await run(*ECHO, data=(data,))


async def answer(run, *argv, asked=ASKED, **fields):
    return await run(
        *argv,
        from_node="ship2",
        is_reply=True,
        directory="d",
        file_name="f.txt",
        previous_message=asked,
        **fields,
    )


async def test_output_of_an_answer_goes_to_the_own_node_under_the_names_of_the_question(run):
    run.bench.workers = [FILING]
    result = await answer(run, *ECHO, data=("hello",))
    assert result.output is None
    assert run.bench.replies == []
    [outgoing] = result.messages
    message = outgoing.message
    assert (message.to_node, message.method, message.data) == (
        "ship1",
        "REQToFileAppend",
        ("hello",),
    )
    assert not message.is_reply
    assert message.previous_message == ASKED
    filed = await run.bench.handle(
        "REQToFileAppend",
        **{
            name: getattr(message, name)
            for name in ("data", "directory", "file_name", "previous_message")
        },
    )
    assert filed.output is None
    assert run.bench.read("d/ship2/f.txt") == b"hello"


async def test_failure_of_an_answer_is_reported_and_told_to_nobody(run):
    run.bench.workers = [FILING]
    result = await answer(run, "sh", "-c", "echo bad >&2; exit 3")
    assert (result.output, result.messages) == (None, ())
    assert "exit status 3" in result.report
    assert "stderr: bad" in result.report


@pytest.mark.parametrize(
    ("workers", "asked", "part"),
    [
        ([], ASKED, "ship1 does not subscribe REQToFileAppend"),
        (
            [WorkerLine(number=1, kind="publisher", subject=FILING.subject, phase="running")],
            ASKED,
            "does not subscribe",
        ),
        ([FILING], ASKED._replace(file_name=""), "names no file"),
        ([FILING], ASKED._replace(file_name="../x"), "no file or directory name"),
        ([FILING], ASKED._replace(file_name=CALLER_FILE), "named no file"),
    ],
)
async def test_output_that_cannot_be_kept_is_reported(run, workers, asked, part):
    run.bench.workers = workers
    result = await answer(run, "sh", "-c", "echo x; exit 1", asked=asked)
    assert (result.output, result.messages) == (None, ())
    assert part in result.report
    assert "exit status 1" in result.report
