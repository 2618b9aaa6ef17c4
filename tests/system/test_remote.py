"""The command line from a laptop: every command that asks a daemon, over TLS, by token and by certificate."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from appliance.cli.app import make_app
from appliance.cli.server_options import talks_to_daemon
from tests.support import forked
from tests.support.laptop import TEMPORARY, World
from tests.support.waiting import until

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("remote"))
    with made.daemon:
        made.add_contexts()
        yield made


@pytest.fixture
def run(world):
    return world.laptop.run


# -- every command --------------------------------------------------------------------------------

COMMANDS = {
    "status": (["status"], 0, "ship1"),
    "status json": (["status", "-o", "json"], 0, '"nodes"'),
    "plan": (["plan"], 0, "no change"),
    "reload": (["reload"], 0, "unchanged"),
    "history": (["history"], 0, "applied"),
    "history show": (["history", "show", "1"], 0, "record 1"),
    "fleet status": (["fleet", "status"], 0, ""),
    "outbox list": (["outbox", "list"], 0, "nothing is pending"),
    "outbox retry": (["outbox", "retry", "--all"], 0, "0"),
    "outbox drop": (["outbox", "drop", "--all-dead"], 0, "0"),
    "inbox list": (["inbox", "list"], 0, "nothing is unfinished"),
    "methods": (["methods"], 0, "REQPing"),
    "methods NAME": (["methods", "REQCliCommand"], 0, "REQCliCommand"),
    "send": (["send", "--to", "ship1", "REQCliCommand", "--", "sh", "-c", "echo sent"], 0, "sent"),
    "exec": (["exec", "ship1", "--", "sh", "-c", "echo done"], 0, "done"),
    "exec fails": (["exec", "ship1", "--", "sh", "-c", "exit 7"], 7, ""),
    "exec --stream": (["exec", "ship1", "--stream", "--", "sh", "-c", "echo piece"], 0, "piece"),
    "jobs": (["jobs"], 0, ""),
    "context test": (["context", "test", "operator"], 0, "we are operator"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_does_on_a_laptop_what_it_does_beside_the_daemon(run, name):
    words, code, shown = COMMANDS[name]
    done = run(*words)
    assert done.returncode == code, done.stderr
    assert shown in done.stdout + done.stderr


def test_options_stand_before_the_command_or_behind_it(run, world):
    token = world.directory / "operator.token"
    options = [
        "--server",
        world.laptop.url,
        "--token-file",
        str(token),
        "--ca",
        str(world.authority.pem),
    ]
    for words in (["status", *options], [*options, "status"], ["history", *options, "show", "1"]):
        done = run(*words, context=None)
        assert done.returncode == 0, done.stderr
    environ = {
        "APPLIANCE_SERVER": world.laptop.url,
        "APPLIANCE_TOKEN": "secret-of-operator",
        "APPLIANCE_CA": str(world.authority.pem),
    }
    assert run("status", context=None, environ=environ).returncode == 0


def test_a_plan_is_of_the_files_on_the_laptop(run, world):
    config = world.laptop.home / "appliance.yaml"
    for name in ("server.pem", "server.key", "clients.pem"):
        assert not (world.laptop.home / name).exists()
    config.write_text(world.config(TEMPORARY))
    done = run("plan", "appliance.yaml")
    # what they name beside them lies at the daemon
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    config.write_text(world.config(TEMPORARY).replace("REQPing: {}", "REQPing: {concurrency: 3}"))
    done = run("plan", "appliance.yaml")
    assert done.returncode == 2, done.stderr
    assert "concurrency" in done.stdout
    assert "settings" not in done.stdout
    config.write_text("nodes: [")
    done = run("plan", "appliance.yaml")
    assert done.returncode == 78
    assert "appliance.yaml" in done.stderr
    done = run("plan", "not-here.yaml")
    assert done.returncode == 78
    assert "not-here.yaml" in done.stderr


def test_files_are_copied_from_and_to_the_laptop(run, world):
    (world.laptop.home / "note").write_bytes(b"from the laptop" * 100_000)
    there = world.root / "ship1" / "note"
    done = run("cp", "note", f"ship1:{there}")
    assert done.returncode == 0, done.stderr
    assert there.read_bytes() == b"from the laptop" * 100_000
    done = run("cp", f"ship1:{there}", "back")
    assert done.returncode == 0, done.stderr
    assert (world.laptop.home / "back").read_bytes() == b"from the laptop" * 100_000


def test_a_file_is_followed(run, world):
    path = world.root / "ship1" / "log"
    path.write_text("one\ntwo\n")
    done = run("tail", "ship1", str(path), "--for", "3s")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n"), done.stderr


def read_table():
    """From docs/remote.md: each command with the scope that it takes; "none" for those that ask no server."""
    text = (REPOSITORY / "docs/remote.md").read_text()
    section = text.partition("## Which commands")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", section, re.M)
    return {
        command: (scope.strip("`"), where)
        for commands, scope, where in rows
        for command in re.findall(r"`(.+?)`", commands)
    }


TABLE = read_table()
WORDS_BEHIND = {
    "explain": ["E001"],
    "keys new": ["x"],
    "keys show": ["x"],
    "keys creds": ["x", "y"],
    "keys rotate": ["x"],
    "enrol": ["ship9", "--server", "tls://127.0.0.1:1", "--invitation", "x"],
    "nodes accept": ["ship9", "--into", "x.yaml"],
    "nodes reject": ["ship9"],
    "can": ["a", "b", "--from", "c"],
    "runner": ["--allow", "x"],
    **{word: ["x"] for word in ("run", "check", "validate", "init", "bench", "broker-conf")},
    "send": ["--to", "ship1", "REQPing"],
    "exec": ["ship1", "--", "true"],
    "tail": ["ship1", "/x"],
    "cp": ["ship1:/etc/hostname", "x"],
    "ps": ["ship1"],
    "history show": ["latest"],
    "outbox drop": ["--all-dead"],
    "outbox retry": ["--all"],
    "inbox drop": ["--all"],
    "fleet wait": ["--timeout", "1s"],
    **{f"jobs {word}": ["JOB"] for word in ("show", "watch", "output", "cancel", "retry")},
}


@pytest.fixture(scope="module")
def a_job(world):
    """The id of a job that is there."""
    told = world.laptop.run("exec", "ship1", "-o", "json", "--", "sh", "-c", "true")
    return json.loads(told.stdout)["job"]


def test_the_table_names_every_command_and_which_ask_a_server():
    asking, alone = set(), set()

    def walk(app, *names):
        for command in app.registered_commands:
            name = command.name or command.callback.__name__.replace("_", "-")
            if command.hidden:
                continue
            of = asking if talks_to_daemon(command.callback) else alone
            of.add(" ".join([*names, name]))
        for group in app.registered_groups:
            below = group.typer_instance
            name = group.name or below.info.name
            callback = below.registered_callback and below.registered_callback.callback
            if callback is not None and talks_to_daemon(callback):
                asking.add(name)
            walk(below, *names, name)

    walk(make_app())
    assert {name for name, (scope, _) in TABLE.items() if scope != "none"} == asking
    assert {name for name, (scope, _) in TABLE.items() if scope == "none"} == alone | {"validate"}


@pytest.mark.parametrize(
    "command",
    [name for name, (scope, _) in TABLE.items() if scope == "none" and "context" not in name],
)
def test_what_works_on_its_own_machine_alone_says_so(run, command):
    done = run(*command.split(), *WORDS_BEHIND.get(command, []))
    assert done.returncode == 64
    assert "works on this machine alone" in done.stderr.replace("\n", " ")


# -- rights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "scope"),
    [
        (name, scope)
        for name, (scope, _) in TABLE.items()
        # one of them looks first who asks to be let in, and here nobody does
        if scope in ("send", "reload") and name != "nodes reject"
    ],
)
def test_what_one_may_not_do_names_the_scope_that_is_missing(run, command, scope, a_job):
    words = [a_job if word == "JOB" else word for word in WORDS_BEHIND.get(command, [])]
    done = run(*command.split(), *words, context="watcher")
    assert done.returncode == 77
    (line,) = done.stderr.splitlines()
    assert f"lacks the scope {scope}" in line
    assert "watcher" in line


def test_a_certificate_lacks_the_scopes_that_it_was_not_given(run):
    done = run("reload", context="anna")
    assert done.returncode == 77
    assert "anna lacks the scope reload" in done.stderr


@pytest.mark.parametrize("command", [name for name, (scope, _) in TABLE.items() if scope == "read"])
def test_who_may_look_may_do_what_needs_no_more(run, command, a_job):
    words = [a_job if word == "JOB" else word for word in WORDS_BEHIND.get(command, [])]
    done = run(*command.split(), *words, context="watcher")
    assert done.returncode != 77, done.stderr
    assert "scope" not in done.stderr


def test_a_certificate_is_enough_to_look_and_to_send(run):
    assert run("status", context="anna").returncode == 0
    done = run("exec", "ship1", "--", "sh", "-c", "echo hers", context="anna")
    assert (done.returncode, done.stdout) == (0, "hers\n")
    done = run("context", "test", "anna", context=None)
    assert "we are anna, and may: read, send" in done.stdout


def test_the_history_names_who_asked(run, world):
    text = world.config(TEMPORARY).replace("REQPong: {}", "REQPong: {concurrency: 2}")
    assert run("reload").returncode == 0
    world.daemon.write_config(text)
    until(lambda: world.daemon.status()["config"]["last_attempt"]["result"] == "applied")
    done = run("rollback", "--force")
    assert done.returncode == 0, done.stderr
    assert "token operator, from 127.0.0.1" in run("history").stdout
    world.daemon.write_config(world.config(TEMPORARY))
    until(lambda: world.daemon.status()["config"]["pinned"] is None)


def test_nothing_of_a_token_is_written_anywhere(run, world):
    run("status")
    run("reload", context="watcher")
    world.laptop.run("status", context="nobody")
    told = [
        world.daemon.log(),
        json.dumps(world.daemon.status()),
        run("history", "-o", "json").stdout,
    ]
    told += [run("context", "list").stdout, run("context", "show", "operator").stdout]
    told.append((world.laptop.home / "config/appliance/contexts.yaml").read_text())
    assert not re.search("secret-of", "".join(told))
    kept = world.laptop.home / "config/appliance/tokens/operator"
    assert kept.stat().st_mode & 0o777 == 0o600


# -- what goes wrong ------------------------------------------------------------------------------


def fails(run, *words, code, says, **options):
    done = run(*words, **options)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert re.search(says, line), line


def test_each_thing_that_keeps_one_from_the_daemon_has_words_of_its_own(run, world, tmp_path):
    port = world.port
    options = {"context": None}
    ca = ["--ca", str(world.authority.pem)]
    (tmp_path / "wrong").write_text("wrong")
    says = "the certificate of https://127.0.0.1:[0-9]+ is not trusted: .*--ca"
    fails(run, "--server", world.laptop.url, "status", code=69, says=says, **options)
    fails(
        *(run, "--server", f"https://127.0.0.2:{port}", *ca, "status"),
        code=69,
        says="nobody listens there|for another name than 127.0.0.2",
        **options,
    )
    fails(
        *(run, "--server", world.laptop.url, *ca, "status"),
        code=77,
        says=r"does not know who asks: .*scope read.*none was given \(--token-file",
        **options,
    )
    fails(
        *(
            run,
            "--server",
            world.laptop.url,
            *ca,
            "--token-file",
            str(tmp_path / "wrong"),
            "status",
        ),
        code=77,
        says="does not know who asks: the token is none of this daemon",
        **options,
    )
    fails(
        *(run, "--server", f"http://127.0.0.1:{port}", "status"),
        code=69,
        says=f"perhaps it is https://127.0.0.1:{port}|the connection .* broke",
        **options,
    )
    fails(
        *(run, "--server", "https://no-such-host.invalid:1", "status"),
        code=69,
        says="no address is known for no-such-host.invalid",
        **options,
    )
    fails(run, "--token-file", "/nowhere", "status", code=64, says="cannot read the token")
    fails(run, "status", context="nobody", code=64, says="no context 'nobody'")
    other = world.authority.issue("anna")
    files = ["--cert", str(other.cert), "--key", str(other.key)]
    fails(
        *(run, "--server", world.laptop.url, *ca, *files, "status"),
        code=69,
        says="does not take our certificate: unknown ca|broke.*may not take our certificate",
        **options,
    )


def test_a_server_that_speaks_no_tls_or_is_no_appliance_is_told_as_such(run, world):
    # Python's own server is near enough to any other
    with subprocess.Popen(
        ["python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=world.laptop.home,
    ) as process:
        assert process.stdout is not None
        port = re.search(r"port (\d+)", process.stdout.readline()).group(1)
        try:
            fails(
                *(run, "--server", f"https://127.0.0.1:{port}", "status"),
                code=69,
                says="speaks no TLS; perhaps it is http://",
                context=None,
            )
            done = run("--server", f"http://127.0.0.1:{port}", "status", context=None)
            assert done.returncode == 69, done.stderr
            assert "no appliance" in done.stderr
        finally:
            process.terminate()


def test_an_expired_certificate_is_told_on_both_sides_and_a_renewed_one_taken_live(run, world):
    good = world.authority.issue("ship1")
    world.renew(world.authority.issue("ship1", days=-1))

    def troubled():
        secrets = world.daemon.status()["secrets"]
        return "expired" in (secrets["admin.tls.cert"].get("error") or "")

    try:
        until(troubled)
        # what cannot be used is not taken: the one before goes on
        assert run("status").returncode in (0, 1)
    finally:
        world.renew(good)
    serial = ssl.PEM_cert_to_DER_cert(good.cert.read_text())

    def is_served():
        context = ssl.create_default_context(cafile=str(world.authority.pem))
        with (
            socket.create_connection(("127.0.0.1", world.port)) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped,
        ):
            return wrapped.getpeercert(binary_form=True) == serial

    until(is_served, timeout_s=30.0)
    assert run("status").returncode == 0


def test_a_stream_of_a_token_that_is_taken_away_ends_with_words_and_77(run, world):
    path = world.root / "ship1" / "followed"
    path.write_text("begun\n")
    done: dict[str, object] = {}
    following = start(world, "temporary", "tail", "ship1", str(path))
    try:
        assert following.stdout.readline() == "begun\n"
        world.daemon.write_config(world.config())
        out, err = following.communicate(timeout=60)
        done.update(out=out, err=err, code=following.returncode)
    finally:
        following.kill()
        world.daemon.write_config(world.config(TEMPORARY))
    assert done["code"] == 77, done
    assert "does not let us in any more: the token is none of this daemon" in str(done["err"])


@pytest.mark.parametrize(
    "words",
    [
        ["exec", "ship1", "--stream", "--", "sh", "-c", "echo $$; exec sleep 60"],
        ["status", "--watch"],
    ],
)
def test_a_daemon_that_goes_away_in_the_middle_is_told(run, world, words):
    following = start(world, "operator", *words)
    try:
        line = following.stdout.readline()
        assert line
        world.daemon.signal(signal.SIGKILL)
        if line.strip().isdecimal():
            # without a unit nothing ends with the daemon what it started
            os.kill(int(line), signal.SIGKILL)
        out, err = following.communicate(timeout=60)
    finally:
        following.kill()
        world.daemon.kill()
        world.daemon.start()
    assert following.returncode == 69, (out, err)
    assert re.search("went away|broke|nobody listens|no daemon answers", err.splitlines()[-1])


def start(world, context, *words):
    return subprocess.Popen(
        [forked.program(), "-c", context, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=world.laptop.environment(PYTHONUNBUFFERED="1"),
        cwd=world.laptop.home,
    )
