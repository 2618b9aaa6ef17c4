"""From an invitation to a node that is let in, and to another key for it: by commands, a commit, and nothing beside."""

import asyncio
import json
import os

import nats
import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.waiting import until

CONFIG = """\
version: 1
broker: {broker}
reload: {{settle: 1ms, poll_interval: 100ms}}
# who may ask
enrolment: {{node: central, invitations: [{invitation}]}}
roles:
  ship:
    subscribe:
      REQCliCommand: {{accept_from: [central], allow_commands: [[echo, "**"]]}}
nodes:
  central:
    subscribe:
      REQErrorLog: {{}}  # what went wrong
      REQToFileAppend: {{}}
"""


class World:
    """central with a broker of its own, and a machine that is not known yet."""

    def __init__(self, directory):
        self.directory = directory
        self.invitation = directory / "invitation.nk"
        self.key = self.run("keys", "new", "invitation", "--out", self.invitation, "-o", "json")[
            "public_key"
        ]
        text = CONFIG.format(broker="{embedded: {secured: true}}", invitation=self.key)
        self.central = Appliance(text, directory / "central", args=["--node", "central"])
        self.central.only_named = True
        self.central.start()
        self.url = self.central.status()["broker"]["server"]

    def command(self, *words):
        environment = {**os.environ, "APPLIANCE_STATE_DIR": str(self.central.state)}
        return forked.run([str(word) for word in words], env=environment, timeout=60)

    def run(self, *words):
        environment = {key: value for key, value in os.environ.items() if key[:10] != "APPLIANCE_"}
        if hasattr(self, "central"):
            environment["APPLIANCE_STATE_DIR"] = str(self.central.state)
        done = forked.run([str(word) for word in words], env=environment, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "json" in words else done.stdout

    def enrol(self, node, *options, out=None, invitation=None):
        return self.command(
            *("enrol", node, "--server", self.url, "-o", "json"),
            *("--invitation", invitation or self.invitation),
            *("--out", out or self.directory / f"{node}.nk", *options),
        )

    def node(self, node, seed):
        """Its daemon, with the config as central has it and the way in that is its own."""
        auth = (
            f'servers: ["{self.url}"], auth: {{nkey_seed: {{file: {seed}}}}}, reconnect_wait: 50ms'
        )
        text = self.central.config_path.read_text().replace("embedded: {secured: true}", auth)
        daemon = Appliance(text, self.directory / node, args=["--node", node])
        daemon.only_named = True
        return daemon


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    found = World(tmp_path_factory.mktemp("enrolment"))
    yield found
    found.central.close()


def test_a_node_asks_is_accepted_by_a_change_of_the_config_and_logs_in(world):
    asked = world.enrol("ship1")
    told = json.loads(asked.stdout)
    assert (asked.returncode, told["result"]) == (0, "pending"), asked.stderr
    seed = world.directory / "ship1.nk"
    assert seed.stat().st_mode & 0o777 == 0o600
    (pending,) = world.run("nodes", "pending", "-o", "json")["requests"]
    assert pending["fingerprint"] == told["fingerprint"]
    config = world.central.config_path
    before = config.read_text()
    patch = world.run("nodes", "accept", "ship1", config, "--role", "ship")
    assert config.read_text() == before  # nothing is let in behind its back
    assert json.loads(world.enrol("ship1").stdout)["result"] == "pending"
    assert world.run("nodes", "accept", "ship1", config, "--role", "ship", "--write") == patch
    changed = config.read_text().splitlines()
    assert [line for line in changed if line not in before.splitlines()] == [
        f"  ship1: {{roles: [ship], public_keys: [{told['public_key']}]}}"
    ]
    assert changed[: len(before.splitlines())] == before.splitlines()
    waited = world.enrol("ship1", "--wait", "30s")
    assert waited.returncode == 0, waited.stderr
    assert json.loads(waited.stdout)["result"] == "accepted", waited.stderr
    assert world.run("nodes", "pending", "-o", "json")["requests"] == []
    with world.node("ship1", seed):
        done = world.command("exec", "ship1", "--", "echo", "hallo")
        assert (done.returncode, done.stdout) == (0, "hallo\n"), done.stderr


def test_another_key_for_a_known_name_is_told_and_needs_its_fingerprint(world):
    told = json.loads(world.enrol("ship2").stdout)
    world.run("nodes", "accept", "ship2", world.central.config_path, "--write")
    assert json.loads(world.enrol("ship2", "--wait", "30s").stdout)["result"] == "accepted"
    other = json.loads(world.enrol("ship2", out=world.directory / "other.nk").stdout)
    assert other["result"] == "pending"
    (shown,) = world.run("nodes", "pending", "-o", "json")["requests"]
    assert shown["warnings"] == ["this node has another key already"]
    assert "beware" in world.central.log()
    refused = world.command("nodes", "accept", "ship2", world.central.config_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--fingerprint" in refused.stderr
    wrong = ["--fingerprint", told["fingerprint"]]
    assert world.command("nodes", "accept", "ship2", world.central.config_path, *wrong).returncode
    assert "1 turned away" in world.run("nodes", "reject", "ship2")
    again = world.enrol("ship2", out=world.directory / "other.nk")
    assert (again.returncode, json.loads(again.stdout)["result"]) == (1, "rejected")
    world.enrol("ship4")
    assert world.central.status()["enrolment"]["pending"] == 1
    assert "1 new node asks to be let in" in world.run("status")
    assert "appliance_enrolment_pending 1.0" in world.central.request("GET", "/metrics")[1]
    assert "1 turned away" in world.run("nodes", "reject", "--all")


@pytest.mark.parametrize(
    ("verb", "subject"),
    [
        ("subscribe", "enrolment.request"),  # hear who asks
        ("subscribe", ">"),
        ("publish", "central.REQToFileAppend.EventACK"),
        ("publish", "errorCentral.REQErrorLog.EventACK"),
        ("publish", "enrolment.reply.UABC.1"),  # tell others that they are let in
        ("publish", "$SYS.REQ.SERVER.PING"),
    ],
)
async def test_an_invitation_opens_nothing_but_the_question(world, verb, subject):
    denied = asyncio.Queue()

    async def on_error(error):
        denied.put_nowait(str(error))

    client = await nats.connect(world.url, nkeys_seed=str(world.invitation), error_cb=on_error)
    try:
        await (client.publish(subject, b"x") if verb == "publish" else client.subscribe(subject))
        async with asyncio.timeout(60):
            assert subject.lower() in (await denied.get()).lower()
    finally:
        await client.close()


def test_what_is_no_invitation_is_told_as_such(world):
    stranger = world.directory / "stranger.nk"
    world.run("keys", "new", "stranger", "--out", stranger)
    done = world.enrol("ship9", invitation=stranger)
    assert done.returncode == 77
    assert "invitation" in done.stderr


def test_a_node_changes_its_key_without_a_gap(world):
    config, seed = world.central.config_path, world.directory / "ship3.nk"
    old = json.loads(world.enrol("ship3").stdout)["public_key"]
    world.run("nodes", "accept", "ship3", config, "--role", "ship", "--write")
    world.enrol("ship3", "--wait", "30s")
    with world.node("ship3", seed) as daemon:
        rotate = ("keys", "rotate", "ship3", daemon.config_path, "--seed", seed, "--write")
        assert "already" in world.command(*rotate, "--finish").stderr  # there is nothing to finish
        begun = world.command(*rotate)
        assert begun.returncode == 0, begun.stderr
        assert world.command(*rotate).returncode == 0  # said twice it is the same rotation
        new = world.run("keys", "show", f"{seed}.next").strip()
        # the broker does not know it yet
        assert world.command(*rotate, "--finish").returncode == 1
        assert world.run("keys", "show", seed).strip() == old
        central = config.read_text()
        config.write_text(central.replace(old, f"{old}, {new}"))
        assert world.command("reload").returncode == 0
        finished = world.command(*rotate, "--finish")
        assert finished.returncode == 0, finished.stderr
        assert world.run("keys", "show", seed).strip() == new
        assert f"public_keys: [{new}]" in daemon.config_path.read_text()
        # the running daemon goes over to it by itself, so that the old one can go
        until(lambda: "secret" in daemon.log() and daemon.status()["broker"]["reconnects"] >= 0)
        config.write_text(central.replace(old, new))
        assert world.command("reload").returncode == 0
        done = world.command("exec", "ship3", "--", "echo", "still here")
        assert (done.returncode, done.stdout) == (0, "still here\n"), done.stderr
