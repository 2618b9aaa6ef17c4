"""Every command as it is seen: on a terminal of 80 columns, in a C locale, without a terminal, from afar by TLS."""

import json
import re
import subprocess
import sys

import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.laptop import World
from tests.support.terminal import OnTerminal
from tests.support.waiting import until

CENTRAL = "central-of-the-harbour-office-oslo"
SHIP = "icebreaker-northern-sea-number-0001"
AWAY = "icebreaker-that-is-away-for-years-3"
ROLE = "@vessels-of-the-northern-fleet"
CONFIG = f"""
version: 1
broker: {{{{embedded: {{{{jetstream: true}}}}}}}}
reload: {{{{settle: 1ms, watch: false, poll_interval: 10m, drain_timeout: 1s}}}} # a program outlasts all that is looked at
roles:
  vessels-of-the-northern-fleet:
    subscribe:
      REQCliCommand: {{{{allow_commands: [[sh, -c, "*"], [sleep, "*"]]}}}}
      REQTailFile: {{{{allow_paths: ["{{root}}/**"]}}}}
      REQCopyFileTo: {{{{allow_paths: ["{{root}}/**"]}}}}
      REQCopyFileFrom: {{{{allow_paths: ["{{root}}/**"]}}}}
nodes:
  {CENTRAL}:
    subscribe:
      REQErrorLog: {{{{}}}}
      REQToFileAppend: {{{{}}}}
      REQHello: {{{{}}}}
      REQCopyFileTo: {{{{}}}}
  {SHIP}:
    roles: [vessels-of-the-northern-fleet]
    labels: {{{{site: spitsbergen-longyearbyen-harbour}}}}
    publish: {{{{hello: {{{{to: {CENTRAL}, method: REQHello, every: 30s}}}}}}}}
  {AWAY}: {{{{roles: [vessels-of-the-northern-fleet]}}}}
admin:
  listen: 127.0.0.1:{{port}}
  reading: known
  tls: {{{{cert: {{{{file: server.pem}}}}, key: {{{{file: server.key}}}}, client_ca: {{{{file: clients.pem}}}}}}}}
  tokens:
    - {{{{name: operator, token: {{{{file: operator.token}}}}, scopes: [read, send, reload, config-values]}}}}
  certificates:
    - {{{{name: anna, cn: anna, scopes: [read, send, reload, config-values]}}}}
# {{more}}
"""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Seen:
    """The daemons, and what was asked of them before anybody looks."""

    def __init__(self, world):
        self.world = world
        self.log = self.world.root / "a-log-of-the-bridge"
        self.log.write_text("one\ntwo\n")
        self.read("exec", SHIP, "--", "sh", "-c", "echo said; exit 3")
        self.read("send", "--to", AWAY, "--wait", "1s", "REQCliCommand", "--", "sleep", "1")
        self.read("send", "--to", SHIP, "REQCliCommand", "--", "not", "allowed")
        # NB: it has to outlast all that is looked at, on a slow machine, too
        long = ("--timeout", "2h", "--", "sleep", "7777")
        told = self.read("exec", ROLE, "--detach", "-o", "json", *long)
        self.job = json.loads(told.stdout)["job"]
        until(lambda: f"{SHIP}  taken" in self.read("jobs", "show", self.job).stdout)

    def read(self, *words, context="anna", locale="C"):
        """Without a terminal, from the laptop."""
        laptop = self.world.laptop
        pre = ["-c", context] if context else []
        environment = laptop.environment(LC_ALL=locale)
        del environment["COLUMNS"]
        if context is None:
            environment["APPLIANCE_STATE_DIR"] = str(self.world.daemon.state)
        return forked.run([*pre, *words], env=environment, cwd=laptop.home, timeout=100)

    def see(self, *words):
        """On a terminal, from the laptop: the lines without their colours."""
        laptop = self.world.laptop
        terminal = OnTerminal(
            *("-c", "anna", *words), columns=80, env=laptop.environment(), cwd=laptop.home
        )
        with terminal:
            terminal.wait()
            text = ESCAPE.sub("", terminal.said).replace("\r\n", "\n")
        return [line.rpartition("\r")[2] for line in text.splitlines()]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    directory = tmp_path_factory.mktemp("seen")
    world = World(directory, CONFIG)
    world.daemon.only_named, world.daemon.args = True, ["--node", CENTRAL]
    with world.daemon:
        world.add_contexts()
        url = world.daemon.status()["broker"]["server"]
        text = world.config().partition("admin:")[0]
        text = text.replace("{embedded: {jetstream: true}}", f'{{servers: ["{url}"]}}')
        ship = Appliance(text, directory / "ship", args=["--node", SHIP])
        ship.only_named = True
        with ship:
            yield Seen(world)


TABLES = {
    "status": (CENTRAL, "REQToFileAppend"),
    "ps": (SHIP, "JOB", "sleep 7777"),
    "jobs": ("JOB", "sleep 7777", "anna"),
    "outbox list": ("nobody there",),
    "outbox list --dead": ("no dead letters",),
    "inbox list": ("nothing is unfinished",),
    "fleet status": ("behind", "longyearbyen"),
    "history": ("applied",),
    "methods": ("REQCliCommand",),
    "jetstream list": ("no stream",),
    "nodes pending": ("no node asks",),
    "context list": ("anna",),
}
"""What is shown in columns, with what must be there whole."""


@pytest.mark.parametrize("command", TABLES)
def test_at_80_columns_a_table_fits_and_what_one_goes_on_with_is_whole(seen, command):
    lines = seen.see(*command.split())
    # our own words are prose, which a terminal folds
    assert max(len(line) for line in lines if not line.startswith("appliance: ")) <= 80
    text = "\n".join(lines)
    for word in TABLES[command]:
        found = seen.job if word == "JOB" else word
        assert found in text or found in re.sub(r"\s+", "", text)


COMMANDS = [
    *TABLES,
    f"exec {ROLE} --dry-run -- sleep 1",
    f"exec {ROLE} --group --wait 5s -- sh -c true",
    f"exec {AWAY} --now -- sleep 1",
    f"exec {SHIP} -- sh",
    f"send --to {SHIP} --wait 5s REQCliCommand -- sh -c true",
    f"send --to {SHIP} REQNo",
    f"tail {SHIP} LOG --for 1s",
    f"tail {SHIP} /etc/shadow --for 1s",
    f"cp {SHIP}:LOG ./",
    f"cp -r {SHIP}:LOG* {AWAY},{SHIP}:LOG.copies/ --wait 1s",
    f"cp {SHIP}:/etc/shadow ./",
    "jobs show JOB",
    "jobs output zzz",
    "jobs retry JOB",
    "outbox retry 1",
    "outbox drop 1",
    "inbox drop 1",
    "fleet wait --timeout 1s",
    "history show 1",
    "plan",
    "reload",
    "rollback",
    "methods REQCliCommand",
    "context show anna",
    "context test anna",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_terminal_there_are_words_and_nothing_for_a_screen(seen, command):
    words = command.replace("LOG", str(seen.log)).replace("JOB", seen.job).split()
    done = seen.read(*words)
    said = done.stdout + done.stderr
    assert said.strip() or words[0] in ("cp", "exec", "tail")
    assert not re.search("[\x1b\r\b\x00]", said)
    assert "Traceback" not in said
    assert "internal error" not in said
    assert done.returncode not in (70, 77)


ANSWERS = [
    "status",
    "ps",
    "jobs list",
    "jobs show JOB",
    "outbox list",
    "outbox list --dead",
    "inbox list",
    "fleet status",
    "history",
    "history show 1",
    "methods",
    "plan",
    "nodes pending",
    "jetstream list",
]


def shape_of(value):
    """What stays the same while time passes."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(item) for item in value]
    if isinstance(value, str):
        return re.sub("[0-9]+", "0", value)
    return 0 if isinstance(value, int | float) and not isinstance(value, bool) else value


@pytest.mark.parametrize("command", ANSWERS)
def test_machines_are_told_the_same_from_here_by_certificate_and_by_token(seen, command):
    words = [*command.replace("JOB", seen.job).split(), "-o", "json"]
    here, afar, by_token = (
        shape_of(json.loads(seen.read(*words, context=context).stdout))
        for context in (None, "anna", "operator")
    )
    assert here == afar == by_token


def test_the_first_word_of_a_command_line_needs_no_terminal_and_no_locale(seen):
    """The real program, once: what is forked in tests has read its locale before."""
    environment = {**seen.world.laptop.environment(), "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "appliance", "-c", "anna", "jobs"]
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=seen.world.laptop.home,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert seen.job.encode() in done.stdout
    assert done.stdout.isascii()
