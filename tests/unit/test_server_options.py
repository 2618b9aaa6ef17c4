"""Which daemon a command talks to, and what it brings there."""

import errno
import os
import re
from pathlib import Path

import pytest
import typer
import typer.main

from appliance.cli.app import load_command
from appliance.cli.contexts import (
    Context,
    Contexts,
    ContextsUnusable,
    contexts_path,
    read_contexts,
    write_contexts,
)
from appliance.cli.remote_way import ServerInvalid, ServerUrl, check_token, parse_server
from appliance.cli.server_options import ServerOptions, choose

URL = "https://ship1.example:8090"
NOTHING = ServerOptions()


@pytest.fixture
def home(tmp_path):
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def keep(home, current=None, **contexts):
    write_contexts(contexts_path(home), Contexts(current, contexts))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://ship1:8090", ServerUrl(True, "ship1", 8090)),
        ("https://ship1", ServerUrl(True, "ship1", 443)),
        ("https://[2001:db8::1]:8090/", ServerUrl(True, "2001:db8::1", 8090)),
        ("http://127.0.0.1:8090", ServerUrl(False, "127.0.0.1", 8090)),
        ("http://[::1]:8090", ServerUrl(False, "::1", 8090)),
        ("http://localhost:8090", ServerUrl(False, "localhost", 8090)),
    ],
)
def test_a_server_is_named_by_its_url(text, url):
    assert parse_server(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "ship1:8090",
        "ship1",
        "",
        "https://",
        "ftp://ship1",
        "https://ship1:port",
        "https://ship1:99999",
        "https://user:secret@ship1:8090",
        "https://ship1:8090/api",
        "https://ship1:8090/?token=x",
        "https://ship1\n:8090/x",
        "http://ship1:8090",
        "http://localhost.evil.example:8090",
        "http://10.0.0.1:8090",
    ],
)
def test_what_is_no_server_or_sends_the_token_in_the_clear_is_refused_and_quotes_no_password(text):
    with pytest.raises(ServerInvalid) as refused:
        parse_server(text)
    assert "secret" not in str(refused.value)


def test_plain_http_to_another_machine_must_be_said():
    assert parse_server("http://ship1:80", may_be_plain=True) == ServerUrl(False, "ship1", 80)


@pytest.mark.parametrize(
    "raw", [b"", b" \n", b"two\nlines", b"\xff", "für".encode(), b"x" * 70_000]
)
def test_a_token_that_is_none_is_refused_and_not_quoted(raw):
    with pytest.raises(ServerInvalid) as refused:
        check_token(raw, "the file")
    assert "two" not in str(refused.value)


def test_white_space_around_a_token_is_no_part_of_it():
    assert check_token(b"  secret\r\n", "the file") == "secret"


# -- which daemon ---------------------------------------------------------------------------------


def test_without_a_word_it_is_the_daemon_of_this_machine(home):
    assert isinstance(choose(NOTHING, None, home), Path)


def test_a_flag_wins_over_the_environment_and_that_over_the_current_context(home):
    keep(home, "prod", prod=Context(server="https://prod:1"), lab=Context(server="https://lab:1"))
    assert choose(NOTHING, None, home).url.host == "prod"
    environ = {**home, "APPLIANCE_CONTEXT": "lab"}
    assert choose(NOTHING, None, environ).url.host == "lab"
    assert choose(ServerOptions(server=URL), None, environ).url.host == "ship1.example"
    assert choose(ServerOptions(context="prod"), None, environ).url.host == "prod"
    assert choose(NOTHING, Path("/state"), environ) == Path("/state")


@pytest.mark.parametrize("name", ["APPLIANCE_STATE_DIR", "APPLIANCE_CONFIG", "STATE_DIRECTORY"])
def test_what_the_environment_says_of_this_machine_wins_over_the_current_context(home, name):
    keep(home, "prod", prod=Context(server=URL))
    state_dir = Path("/state") if name == "APPLIANCE_STATE_DIR" else None
    assert isinstance(choose(NOTHING, state_dir, {**home, name: "/state"}), Path)


def test_the_name_local_is_this_machine_whatever_is_in_use(home):
    keep(home, "prod", prod=Context(server=URL))
    assert isinstance(choose(ServerOptions(context="local"), None, home), Path)


@pytest.mark.parametrize(
    ("given", "state_dir", "environ"),
    [
        (ServerOptions(context="a", server=URL), None, {}),
        (ServerOptions(server=URL), Path("/state"), {}),
        (NOTHING, None, {"APPLIANCE_SERVER": URL, "APPLIANCE_CONTEXT": "a"}),
        (NOTHING, Path("/state"), {"APPLIANCE_SERVER": URL, "APPLIANCE_STATE_DIR": "/state"}),
    ],
)
def test_two_daemons_at_once_are_refused(home, given, state_dir, environ):
    with pytest.raises(typer.BadParameter):
        choose(given, state_dir, {**home, **environ})


def test_a_context_that_is_not_there_is_told_with_the_one_that_was_meant(home):
    keep(home, None, production=Context(server=URL))
    with pytest.raises(ContextsUnusable, match="did you mean production"):
        choose(ServerOptions(context="prodution"), None, home)


# -- what is brought ------------------------------------------------------------------------------


def test_a_token_of_the_environment_goes_where_no_other_is_named(home, tmp_path):
    (tmp_path / "token").write_text("of the context\n")
    token_file = str(tmp_path / "token")
    keep(home, None, prod=Context(server=URL, token_file=token_file), bare=Context(server=URL))
    environ = {**home, "APPLIANCE_TOKEN": "of-the-environment"}
    assert choose(ServerOptions(context="bare"), None, environ).token == "of-the-environment"
    assert choose(ServerOptions(server=URL), None, environ).token == "of-the-environment"
    (tmp_path / "token").write_text("of-the-context\n")
    assert choose(ServerOptions(context="prod"), None, environ).token == "of-the-context"


def test_nothing_of_the_current_context_goes_to_another_server(home, tmp_path):
    (tmp_path / "token").write_text("secret")
    keep(home, "prod", prod=Context(server=URL, token_file=str(tmp_path / "token"), ca="/ca.pem"))
    server = choose(ServerOptions(server="https://other:1"), None, home)
    assert (server.token, server.ca) == (None, None)


def test_an_option_wins_over_what_the_context_names(home, tmp_path):
    (tmp_path / "token").write_text("mine")
    keep(home, "prod", prod=Context(server=URL, token_file="/gone", ca="/ca.pem"))
    server = choose(ServerOptions(token_file=tmp_path / "token", ca=Path("/x.pem")), None, home)
    assert (server.token, server.ca) == ("mine", Path("/x.pem"))


def test_a_token_never_shows_in_what_is_printed_of_a_server(home):
    server = choose(ServerOptions(server=URL), None, {**home, "APPLIANCE_TOKEN": "hush"})
    assert "hush" not in repr(server)


# -- the file of contexts -------------------------------------------------------------------------


def test_contexts_are_read_as_they_were_written_and_are_for_the_user_alone(home):
    path = contexts_path(home)
    contexts = Contexts(
        "it's: #1",
        {
            "it's: #1": Context(server=URL, ca='/a "b"\\c/ü.pem', insecure_http=True),
            "true": Context(server=URL, cert="/1", key="/2", token_file="/3"),
        },
    )
    write_contexts(path, contexts)
    assert read_contexts(path) == contexts
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_without_a_file_there_are_none(home):
    assert read_contexts(contexts_path(home)) == Contexts()


@pytest.mark.parametrize("place", ["/dev/null", "/nonexistent"])
def test_a_home_that_is_none_holds_none(place):
    assert read_contexts(contexts_path({"HOME": place})) == Contexts()


def test_in_a_home_of_somebody_else_there_are_none_of_mine(home, monkeypatch):
    # what `runuser -u` and `setpriv` leave in HOME
    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    assert read_contexts(contexts_path(home)) == Contexts()


def test_a_file_of_mine_that_cannot_be_read_is_told(home, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    keep(home, "prod", prod=Context(server=URL))
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ContextsUnusable, match="Permission denied"):
        read_contexts(contexts_path(home))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "no file of contexts"),
        ("contexts: [a]", "is a map"),
        ("contexts: {a: {}}", "names no server"),
        ("contexts: {a: {server: x, tokn_file: y}}", "did you mean token_file"),
        ("contexts: {a: {server: [x]}}", "names no server"),
        ("contexts: {a: {server: x, insecure_http: maybe}}", "wrong kind"),
        ("current: b\ncontexts: {a: {server: x}}", "no context 'b'"),
        ("contexts: {", "not valid YAML"),
        ("a: b", "no file of contexts"),
    ],
)
def test_a_file_of_contexts_that_is_none_is_told_with_its_name(home, text, words):
    path = contexts_path(home)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ContextsUnusable, match=words):
        read_contexts(path)


def test_a_file_of_contexts_that_others_may_write_is_refused(home):
    keep(home, None, prod=Context(server=URL))
    contexts_path(home).chmod(0o666)
    with pytest.raises(ContextsUnusable, match="others may write it"):
        read_contexts(contexts_path(home))


# -- every command --------------------------------------------------------------------------------

OF_THIS_MACHINE = {"run", "bench", "demo", "service-check", "doctor", "audit show", "audit verify"}


def commands(group, prefix=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        if not hasattr(command, "commands") or command.invoke_without_command:
            yield prefix + name, command


def test_every_command_that_talks_to_a_daemon_takes_a_server():
    for name, command in commands(load_command()):
        options = {opt for item in command.params for opt in item.opts}
        asks = any("--state-dir" in item.opts and not item.hidden for item in command.params)
        is_taught = {"--server", "--context", "--ca", "--token-file"} <= options
        assert is_taught is (asks and name not in OF_THIS_MACHINE) or name == "context add"


def test_every_command_finds_its_daemon_in_the_one_place_that_knows_servers():
    folder = Path(__file__).parents[2] / "appliance" / "cli"
    makers = {path.name for path in folder.glob("*.py") if "ApiClient(" in path.read_text()}
    # a start asks the daemon it replaces, the doctor that of the machine it looks at; a context is tried by its name
    of_this_machine = {"start_check.py", "doctor_command.py"}
    assert makers == {"server_options.py", "context_commands.py"} | of_this_machine


def test_a_command_that_takes_a_server_asks_it_and_reads_no_state_directory():
    folder = Path(__file__).parents[2] / "appliance" / "cli"
    for path in folder.glob("*.py"):
        text = path.read_text()
        if re.search(r": StateDirOption\b", text):
            assert "connect(" in text, path.name
            assert "find_state_dir(" not in text, path.name
