"""What a command is given beside its arguments: stdin, a user, a directory, variables; refused unless it is listed."""

from __future__ import annotations

import os
import pwd

import pytest

from appliance.core.command_options import (
    MAX_STDIN_BYTES,
    CommandOptions,
    join_options,
    show_arguments,
)
from appliance.errors import ArgumentsInvalid, CommandForbidden, HandlerError, PathForbidden

NOBODY = "nobody"


@pytest.fixture(params=["REQCliCommand", "REQCliCommandCont"])
def run(request, bench):
    bench.spec_fields["allow_commands"] = None

    async def run(options, *argv, **fields):
        arguments = tuple(join_options(options, argv))
        result = await bench.handle(request.param, method_args=arguments, **fields)
        return (result.output or b"") + bench.said("stdout"), result

    run.bench = bench
    return run


async def test_program_reads_the_bytes_that_were_sent_and_no_more(run):
    out, result = await run(CommandOptions(has_stdin=True), "cat", data=("a\0b\n", "\udcff"))
    assert (out, result.exit_status) == (b"a\0b\n\xff", 0)
    assert (await run(CommandOptions(has_stdin=True), "wc", "-c", data=None))[1].exit_status == 0


async def test_data_without_the_option_is_not_read(run):
    assert (await run(CommandOptions(), "cat", data=("x",)))[0] == b""


async def test_more_than_the_bound_is_refused_before_anything_runs(run, tmp_path):
    mark = tmp_path / "mark"
    options = CommandOptions(has_stdin=True)
    with pytest.raises(ArgumentsInvalid, match=f"exceeds the limit of {MAX_STDIN_BYTES}"):
        await run(options, "touch", str(mark), data=("x" * (MAX_STDIN_BYTES + 1),))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        (CommandOptions(user="root"), "allow_users"),
        (CommandOptions(directory="/tmp"), "allow_directories"),
        (CommandOptions(variables={"LD_PRELOAD": "/x"}), "allow_environment"),
    ],
)
async def test_nothing_is_given_that_is_not_listed_and_the_setting_is_named(
    run, options, setting, tmp_path
):
    mark = tmp_path / "mark"
    with pytest.raises(HandlerError, match=setting) as refused:
        await run(options, "touch", str(mark))
    assert isinstance(refused.value, CommandForbidden | PathForbidden)
    assert not mark.exists()


async def test_listed_directory_is_where_it_runs_and_links_out_of_it_are_not(run, tmp_path):
    inside = tmp_path / "srv"
    (inside / "app").mkdir(parents=True)
    (inside / "out").symlink_to("/etc")
    run.bench.spec_fields["allow_directories"] = (f"{inside}/**",)
    out, _ = await run(CommandOptions(directory=f"{inside}/app"), "pwd")
    assert out.decode().strip() == str(inside / "app")
    with pytest.raises(PathForbidden, match="allow_directories"):
        await run(CommandOptions(directory=f"{inside}/out"), "pwd")
    with pytest.raises(HandlerError, match="no such file"):
        await run(CommandOptions(directory=f"{inside}/none"), "pwd")


async def test_listed_variable_is_given_as_the_bytes_it_holds(run):
    run.bench.spec_fields["allow_environment"] = ("GREETING",)
    options = CommandOptions(variables={"GREETING": "caf\udce9"})
    assert (await run(options, "sh", "-c", 'printf %s "$GREETING"'))[0] == b"caf\xe9"


async def test_listed_user_is_who_it_runs_as(run):
    me = pwd.getpwuid(os.geteuid()).pw_name
    run.bench.spec_fields["allow_users"] = (me, NOBODY)
    out, _ = await run(CommandOptions(user=me), "sh", "-c", "id -un; echo $USER $HOME")
    assert out.decode().split() == [me, me, pwd.getpwnam(me).pw_dir]
    if os.geteuid() == 0:
        found = pwd.getpwnam(NOBODY)
        out, _ = await run(CommandOptions(user=NOBODY), "sh", "-c", "id -u; id -G; id -g")
        user_id, groups, group_id = out.decode().splitlines()[-3:]
        assert (int(user_id), int(group_id)) == (found.pw_uid, found.pw_gid)
        assert "0" not in groups.split()


async def test_user_that_the_machine_does_not_know_is_told(run):
    run.bench.spec_fields["allow_users"] = ("no-such-user",)
    with pytest.raises(HandlerError, match="there is no user no-such-user"):
        await run(CommandOptions(user="no-such-user"), "true")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("", '{"stdin": true, "tty": true}', "cat"), "knows no option 'tty'"),
        (("", "no JSON", "cat"), "no JSON object"),
        (("", "[" * 100_000, "cat"), "no JSON object"),
        (("", '{"stdin": 1}', "cat"), "another type"),
        (("", '{"cwd": "relative"}', "cat"), "absolute"),
        (("", '{"env": {"A=B": "x"}}', "cat"), "no variable's name"),
        (("", '{"env": {"A": "\\u0000"}}', "cat"), "NUL"),
        (("", '{"stdin": true}'), "a program"),
        (("", '{"stdin": true}', ""), "a program"),
    ],
)
async def test_options_that_are_not_known_here_are_refused(bench, arguments, reason):
    bench.spec_fields["allow_commands"] = None
    with pytest.raises(ArgumentsInvalid, match=reason):
        await bench.handle("REQCliCommand", method_args=arguments, data=("x",))


def test_what_a_command_is_given_is_shown_as_it_is_typed_without_the_values_of_variables():
    options = CommandOptions(True, "app", "/srv", {"PASSWORD": "secret"})
    shown = show_arguments(join_options(options, ["psql", "-x"]))
    words = "-i --user app --cwd /srv --env PASSWORD=… -- psql -x"
    assert shown == words.split()
    assert show_arguments(["psql", ""]) == ["psql", ""]
    assert show_arguments(["", "damaged", "x"]) == ["", "damaged", "x"]
