"""A broker with the users that `broker-conf` wrote: all that is declared works, and one node's login opens no more."""

import asyncio
import contextlib
import json
import os

import nats
import nkeys
import pytest

from appliance.bus.nats import NatsBus
from appliance.bus.node_keys import read_user_jwt, write_credentials
from appliance.core.specs import AuthSettings, BrokerSettings, SecretRef
from appliance.errors import BusUnauthorized
from tests.support import forked
from tests.support.appliance import Appliance, settle
from tests.support.nats_login import make_nkey
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

NODES = ("central", "ship1", "ship2")
CONFIG = """
version: 1
broker: {{{broker}, reconnect_wait: 50ms}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
defaults: {{ack: {{timeout: 1s}}}}
roles:
  ship:
    subscribe:
      REQPing: {{}}
      REQCliCommand: {{accept_from: [central], allow_commands: [[echo, "**"]]}}
      REQCliCommandCont: {{accept_from: [central], allow_commands: [[echo, "**"]]}}
      REQCopyFileFrom: {{accept_from: [central], allow_paths: ["{root}/**"]}}
      REQCopyFileTo: {{accept_from: [central], allow_paths: ["{root}/**"]}}
    publish: {{hello: {{to: central, method: REQHello, every: 1s}}}}
nodes:
  central:
    public_keys: [{central}]
    subscribe:
      REQHello: {{}}
      REQErrorLog: {{}}
      REQToFileAppend: {{}}
      REQPong: {{}}
      REQCopyFileTo: {{accept_from: [ship1, ship2]}}
  ship1: {{roles: [ship], public_keys: [{ship1}]}}
  ship2: {{roles: [ship], public_keys: [{ship2}]}}
"""


class Fleet:
    """central and ship1, each with its own key, on a broker that lets each do what the config says."""

    def __init__(self, directory, *, with_jwt=False):
        self.directory = directory
        self.root = directory / "files"
        self.root.mkdir()
        self.seeds = {}
        self.keys = {}
        for node in NODES:
            done = forked.run(
                ["keys", "new", node, "--out", str(directory / f"{node}.nk"), "-o", "json"]
            )
            assert done.returncode == 0, done.stderr
            self.keys[node] = json.loads(done.stdout)["public_key"]
            self.seeds[node] = directory / f"{node}.nk"
        self.with_jwt = with_jwt
        self.daemons = {}

    def text(self, node, url):
        """The config of a node; without a URL of one that has the broker."""
        auth = (
            f"credentials: {{file: {self.directory / node}.creds}}"
            if self.with_jwt
            else f"nkey_seed: {{file: {self.seeds[node]}}}"
        )
        broker = f'servers: ["{url}"], auth: {{{auth}}}' if url else "embedded: {secured: true}"
        return CONFIG.format(broker=broker, root=self.root, **self.keys)

    def broker_conf(self, *options):
        path = self.directory / "fleet.yaml"
        path.write_text(self.text("central", "nats://127.0.0.1:4222"))
        return forked.run(["broker-conf", str(path), *options])

    def run(self, *arguments):
        environment = {**os.environ, "APPLIANCE_STATE_DIR": str(self.daemons["central"].state)}
        return forked.run(arguments, env=environment, timeout=60)

    @contextlib.contextmanager
    def started(self, url="", nodes=("central", "ship1")):
        """Daemons of their own; without a URL the first has a broker that starts with it."""
        with contextlib.ExitStack() as stack:
            for node in nodes:
                daemon = Appliance(
                    self.text(node, url), self.directory / node, args=["--node", node]
                )
                daemon.only_named = True
                self.daemons[node] = stack.enter_context(daemon)
                url = url or daemon.status()["broker"]["server"]
            yield self

    def broker_log(self):
        return (self.daemons["central"].state / "broker" / "nats-server.log").read_text()


def files_of(daemon):
    """What was filed there."""
    return [path for path in daemon.data().rglob("*") if path.is_file()]


def use(fleet):
    """Everything that the config declares, once."""
    done = fleet.run("exec", "ship1", "--", "echo", "hallo")
    assert (done.returncode, done.stdout) == (0, "hallo\n"), done.stderr
    done = fleet.run("exec", "--stream", "ship1", "--", "echo", "in pieces")
    assert (done.returncode, done.stdout) == (0, "in pieces\n"), done.stderr
    done = fleet.run("send", "--to", "ship1", "REQPing", "--wait", "20s")
    assert done.returncode == 0, done.stderr
    source = fleet.root / "source"
    source.write_bytes(os.urandom(3_000_000))
    done = fleet.run("cp", f"ship1:{source}", str(fleet.directory / "fetched"))
    assert done.returncode == 0, done.stderr
    done = fleet.run("cp", str(source), f"ship1:{fleet.root}/brought")
    assert done.returncode == 0, done.stderr
    assert (fleet.root / "brought").read_bytes() == (fleet.directory / "fetched").read_bytes()
    # what is refused there is reported to errorCentral, which central is
    done = fleet.run("exec", "ship1", "--", "true")
    assert done.returncode == 1
    central = fleet.daemons["central"]
    until(lambda: any(b"allow_commands" in path.read_bytes() for path in files_of(central)))
    until(lambda: central.status()["hellos"].get("ship1"))


def test_all_that_is_declared_works_and_nothing_is_denied(tmp_path):
    fleet = Fleet(tmp_path)
    written = fleet.broker_conf()
    assert (written.returncode, written.stderr) == (0, "")
    with NatsServer(written.stdout) as broker, fleet.started(broker.url):
        use(fleet)
        settle(*fleet.daemons.values())
        for daemon in fleet.daemons.values():
            assert "ermission" not in daemon.log()
            assert daemon.status()["outbox"]["dead"] <= 1
        assert "ermissions Violation" not in broker.log


def test_the_same_by_jwts_of_an_account(tmp_path):
    fleet = Fleet(tmp_path, with_jwt=True)
    for name, prefix in (
        ("account", nkeys.PREFIX_BYTE_ACCOUNT),
        ("operator", nkeys.PREFIX_BYTE_OPERATOR),
    ):
        (tmp_path / f"{name}.nk").write_text(make_nkey(prefix).seed)
    out = tmp_path / "jwt"
    words = ["--format", "jwt", "--account-seed", str(tmp_path / "account.nk")]
    written = fleet.broker_conf(
        *words, "--operator-seed", str(tmp_path / "operator.nk"), "--out", str(out)
    )
    assert written.returncode == 0, written.stderr
    for node in NODES:
        (jwt,) = out.glob(f"{node}-*.jwt")
        made = forked.run(["keys", "creds", str(fleet.seeds[node]), str(jwt)])
        (tmp_path / f"{node}.creds").write_text(made.stdout)
    with NatsServer((out / "resolver.conf").read_text()) as broker, fleet.started(broker.url):
        use(fleet)
        assert "ermissions Violation" not in broker.log


def test_a_jwt_counts_no_more_when_the_config_gives_less_or_nothing(tmp_path):
    fleet = Fleet(tmp_path, with_jwt=True)
    for name, prefix in (
        ("account", nkeys.PREFIX_BYTE_ACCOUNT),
        ("operator", nkeys.PREFIX_BYTE_OPERATOR),
    ):
        (tmp_path / f"{name}.nk").write_text(make_nkey(prefix).seed)
    out, config = tmp_path / "jwt", tmp_path / "jwts.yaml"
    text = fleet.text("central", "nats://127.0.0.1:4222")

    def write(text):
        config.write_text(text)
        words = ["--format", "jwt", "--account-seed", str(tmp_path / "account.nk")]
        words += ["--operator-seed", str(tmp_path / "operator.nk"), "--out", str(out)]
        done = forked.run(["broker-conf", str(config), *words])
        assert done.returncode == 0, done.stderr
        return {path.name: path.read_text() for path in out.iterdir()}

    async def may_log_in(url, node, jwt):
        creds = tmp_path / f"{node}.old"
        creds.write_text(write_credentials(fleet.seeds[node].read_text(), jwt))
        settings = BrokerSettings(
            servers=(url,), auth=AuthSettings(credentials=SecretRef(kind="file", name=str(creds)))
        )
        try:
            bus = await NatsBus.open(settings, name=node, require_connection=True)
        except BusUnauthorized:
            return False
        await bus.close()
        return True

    def may(files, *asked):
        async def ask(url):
            return [await may_log_in(url, node, jwt) for node, jwt in asked]

        with NatsServer(files["resolver.conf"]) as broker:
            return asyncio.run(ask(broker.url))

    def of(files, node):
        return next(text for name, text in files.items() if name.startswith(node))

    first = write(text)
    again = write(text)
    assert [again[name] for name in first if name.endswith(".jwt")] == [
        first[name] for name in first if name.endswith(".jwt")
    ]
    before = [("ship1", of(first, "ship1")), ("ship2", of(first, "ship2"))]
    assert may(again, *before) == [True, True]
    # ship2 is gone; ship1 may ask central for less
    less = text[: text.index("  ship2:")].replace("      REQPong: {}\n", "")
    less = less.replace("accept_from: [ship1, ship2]", "accept_from: [ship1]")
    changed = write(less)
    assert not [name for name in changed if name.startswith("ship2")]
    assert may(changed, *before, ("ship1", of(changed, "ship1"))) == [False, False, True]
    back = write(text)
    assert may(back, *before, ("ship2", of(back, "ship2"))) == [False, False, True]


def test_jwts_that_end_are_made_anew_in_time_and_not_before(tmp_path):
    fleet = Fleet(tmp_path, with_jwt=True)
    account, out, config = tmp_path / "account.nk", tmp_path / "jwt", tmp_path / "jwts.yaml"
    account.write_text(make_nkey(nkeys.PREFIX_BYTE_ACCOUNT).seed)
    config.write_text(fleet.text("central", "nats://127.0.0.1:4222"))

    def write(*more):
        words = ["--format", "jwt", "--account-seed", str(account), "--out", str(out), *more]
        done = forked.run(["broker-conf", str(config), *words])
        assert done.returncode == 0, done.stderr
        found = {path.name: read_user_jwt(path.read_text()) for path in out.glob("*.jwt")}
        return done.stderr, {name: (jwt.issued_at, jwt.expires_at) for name, jwt in found.items()}

    _, endless = write()
    said, first = write("--expires", "2160h")
    assert "the first JWT ends on" in said
    assert "without an end count on" in said
    assert {end for _, end in endless.values()} == {None}
    assert {end - issued for issued, end in first.values()} == {90 * 86_400}
    said, again = write("--expires", "3600h")
    assert again == first  # more than half of it is left
    assert "count on" not in said
    assert write("--expires", "4800h")[1] != first
    said, shorter = write("--expires", "1h")
    assert {end - issued for issued, end in shorter.values()} == {3_600}
    refused = forked.run(["broker-conf", str(config), "--expires", "2160h"])
    assert refused.returncode == 64


def test_the_broker_that_starts_with_central_has_the_same_users(tmp_path):
    fleet = Fleet(tmp_path)
    with fleet.started():
        use(fleet)
        settle(*fleet.daemons.values())
        for daemon in fleet.daemons.values():
            assert "ermission" not in daemon.log()
        denied = [line for line in fleet.broker_log().splitlines() if "Violation" in line]
        # which nodes give up when it is denied: whether the broker still delivers
        assert all("LOOPBACK" in line for line in denied)


def test_nodes_come_and_go_while_the_broker_runs(tmp_path):
    fleet = Fleet(tmp_path)
    with fleet.started(nodes=("central",)):
        central = fleet.daemons["central"]
        broker = central.status()["broker"]
        pid = (central.state / "broker" / "nats-server.pid").read_text()
        text = central.config_path.read_text()
        made = forked.run(
            ["keys", "new", "ship3", "--out", str(tmp_path / "ship3.nk"), "-o", "json"]
        )
        key = json.loads(made.stdout)["public_key"]
        come = text + f"  ship3: {{roles: [ship], public_keys: [{key}]}}\n"
        auth = f"auth: {{nkey_seed: {{file: {tmp_path / 'ship3.nk'}}}}}"
        for_ship3 = come.replace(
            "embedded: {secured: true}", f'servers: ["{broker["server"]}"], {auth}'
        )
        ship3 = Appliance(for_ship3, tmp_path / "ship3", args=["--node", "ship3"])
        ship3.only_named = True
        ship3.start(ready=False)
        try:
            until(lambda: "uthorization" in ship3.log())
            central.config_path.write_text(come)
            fleet.run("reload")
            done = fleet.run("exec", "ship3", "--", "echo", "hallo")
            assert (done.returncode, done.stdout) == (0, "hallo\n"), done.stderr
            central.config_path.write_text(text)
            fleet.run("reload", "--force")
            until(lambda: not ship3.status()["broker"]["connected"])
        finally:
            ship3.close()
        assert (central.state / "broker" / "nats-server.pid").read_text() == pid
        assert central.status()["broker"] == broker


def attacks(subjects):
    return pytest.mark.parametrize(("verb", "subject"), subjects)


@pytest.fixture(scope="module", params=["broker-conf", "embedded"])
def secured(request, tmp_path_factory):
    """The broker of a fleet, and the seed of ship1, which somebody has stolen."""
    fleet = Fleet(tmp_path_factory.mktemp("secured"))
    seed = str(fleet.seeds["ship1"])
    if request.param == "embedded":
        with fleet.started(nodes=("central",)):
            yield fleet.daemons["central"].status()["broker"]["server"], seed
        return
    with NatsServer(fleet.broker_conf().stdout) as broker:
        yield broker.url, seed


@attacks(
    [
        ("publish", "ship2.REQCliCommand.CommandACK"),  # command another ship
        ("publish", "ship2.REQCopyFileTo.CommandACK"),  # write there
        ("publish", "ship2.REQCliCommand.CommandACK.reply.1a2b.3c4d"),  # answer in its place
        (
            "publish",
            "central.REQToFileAppend.EventACK.reply.1a2b.3c4d",
        ),  # acknowledge in central's place
        ("publish", "errorCentral.REQErrorLog.EventACK.reply.1a2b.3c4d"),
        ("publish", "central.REQCliCommand.CommandACK"),  # command central
        ("publish", "central.REQCopyFileTo.EventACK.reply.1a2b.3c4d"),
        ("publish", "enrolment.reply.UABC.1"),  # tell a new node that it is let in
        ("subscribe", "enrolment.request"),  # hear who asks
        ("subscribe", "central.>"),
        ("publish", "$SYS.REQ.SERVER.PING"),
        ("publish", "$JS.API.STREAM.CREATE.all"),
        ("subscribe", ">"),
        ("subscribe", "*.REQCliCommand.CommandACK"),
        ("subscribe", "ship2.REQCliCommand.CommandACK"),  # read along
        ("subscribe", "ship2.REQCliCommand.CommandACK.reply.>"),
        ("subscribe", "central.REQToFileAppend.EventACK"),  # read all answers
        ("subscribe", "errorCentral.REQErrorLog.EventACK"),
        ("subscribe", "ship1.REQCliCommand.CommandACK"),  # beside its own group
    ]
)
async def test_the_login_of_one_node_opens_nothing_that_is_anothers(secured, verb, subject):
    url, seed = secured
    denied = asyncio.Queue()

    async def on_error(error):
        denied.put_nowait(str(error))

    client = await nats.connect(url, nkeys_seed=seed, error_cb=on_error)
    try:
        if verb == "publish":
            await client.publish(subject, b"x")
        else:
            await client.subscribe(subject)
        async with asyncio.timeout(60):
            told = await denied.get()
        assert "permissions violation" in told.lower()
        assert subject.lower() in told
    finally:
        await client.close()


async def test_what_is_left_to_a_stolen_login_is_what_the_node_may(secured):
    """Among them a hello, which can say that it is of another node that may send there, too."""
    url, seed = secured
    denied = asyncio.Queue()

    async def on_error(error):
        denied.put_nowait(str(error))

    client = await nats.connect(url, nkeys_seed=seed, error_cb=on_error)
    try:
        for subject in (
            "central.REQHello.EventNACK",
            "central.REQToFileAppend.EventACK",
            "errorCentral.REQErrorLog.EventACK",
            "ship1.REQCliCommand.CommandACK.reply.1a2b.3c4d",
            "elsewhere.at.all",  # what the broker says of it comes after whatever it says of the others
        ):
            await client.publish(subject, b"x")
        async with asyncio.timeout(60):
            assert "elsewhere.at.all" in await denied.get()
        assert denied.empty()
    finally:
        await client.close()


async def test_nobody_is_let_in_without_a_key_of_the_config(secured, tmp_path):
    url, _ = secured
    stranger = tmp_path / "stranger.nk"
    stranger.write_text(make_nkey().seed)
    for auth in (
        AuthSettings(),
        AuthSettings(nkey_seed=SecretRef(kind="file", name=str(stranger))),
    ):
        settings = BrokerSettings(servers=(url,), auth=auth)
        with pytest.raises(BusUnauthorized, match=r"(?i)authorization|credentials"):
            await NatsBus.open(settings, name="stranger", require_connection=True)


def test_what_a_change_would_change_is_shown_before_it_is_made(tmp_path):
    fleet = Fleet(tmp_path)
    path = tmp_path / "conf"
    path.write_text(fleet.broker_conf().stdout)
    same = fleet.broker_conf("--against", str(path))
    assert (same.returncode, same.stdout) == (0, "")
    config = tmp_path / "other.yaml"
    text = fleet.text("central", "nats://127.0.0.1:4222")
    config.write_text(text.replace("REQPing: {}", "REQPing: {accept_from: [central]}"))
    other = forked.run(["broker-conf", str(config), "--against", str(path)])
    assert other.returncode == 2
    assert '-          "ship2.REQPing.EventACK"' in other.stdout
    assert "REQCliCommand" not in "".join(
        line for line in other.stdout.splitlines() if line[:1] in "+-"
    )


def test_a_seed_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "ship1.nk"
    made = forked.run(["keys", "new", "ship1", "--out", str(path)])
    assert made.returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
    seed = path.read_text()
    assert seed.strip() not in made.stdout + made.stderr
    shown = forked.run(["keys", "show", str(path)])
    assert shown.stdout.strip() in made.stdout
    again = forked.run(["keys", "new", "ship1", "--out", str(path)])
    assert again.returncode == 1
    assert "there already" in again.stderr
    assert path.read_text() == seed
    path.write_text("no seed at all")
    wrong = forked.run(["keys", "show", str(path)])
    assert wrong.returncode == 65
    assert "no seed at all" not in wrong.stderr
