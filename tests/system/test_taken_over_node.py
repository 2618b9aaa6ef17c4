"""What somebody can do who has taken over ship1: its key, its login at the broker, all of its machine.

The fleet is the one of `init`, with keys, streams, copies and enrolment; the broker has the users of `broker-conf`, or in a
second one rights for everybody to do everything, written by hand, where all nodes sign. Each row of the table in
docs/taken-over.md is tried in both, and both must come to what stands there.
"""

import asyncio
import contextlib
import json
import re
from pathlib import Path

import cbor2
import nats
import pytest

from appliance.bus.node_keys import make_seed, public_key_of, read_seed, sign
from appliance.core.enrolment import EnrolmentRequest, signed_bytes, write_request
from appliance.delivery.signer import Signer, make_signing_key
from appliance.wire.headers import encode_headers, parse_headers
from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async

TAKEN_OVER = Path(__file__).parents[2] / "docs" / "taken-over.md"
NODES = ("central", "ship1", "ship2")
MORE = """
version: 1
streams: {{keeper: central}}
enrolment: {{node: central, invitations: [{invitation}]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
defaults: {{signatures: {signatures}}}
nodes:
  central:
    public_keys: [{central}]
    subscribe:
      REQCopyFileTo: {{accept_from: [ship1, ship2]}}
      REQRelay: {{relay_to: [ship2], relay_methods: [REQCliCommand], accept_from: [central, ship2]}}
      REQRelayInitial: {{}}
  ship1: {{public_keys: [{ship1}], subscribe: {{REQToFileAppend: {{delivery: jetstream}}}}}}
  ship2:
    public_keys: [{ship2}]
    subscribe:
      REQToFileAppend: {{delivery: jetstream}}
      REQRelay: {{relay_to: [ship1], relay_methods: [REQCliCommand], accept_from: [central]}}
"""
BROKER = """
version: 1
broker: {{servers: ["{url}"], auth: {{nkey_seed: {{file: {seed}}}}}, reconnect_wait: 50ms}}
"""
COMMANDS = "ship2.REQCliCommand.CommandACK"
HELLOS = "central.REQHello.EventNACK"
REPORTS = "central.REQToFileAppend.EventACK"
ERRORS = "errorCentral.REQErrorLog.EventACK"
OWN, ITS = "ship1.REQToFileAppend.EventACK", "ship2.REQToFileAppend.EventACK"
RELAY, BEGIN_RELAY = "ship2.central.REQRelay.EventACK", "central.REQRelayInitial.EventACK"
CONSUMER = OWN.replace(".", "=")
FORGED, ERROR = "forged-by-mallory", "an-error-of-mallorys"


class Fleet:
    """central, ship2 and their broker; ship1 is mallory's."""

    def __init__(self, directory, rights):
        self.directory = directory
        self.rights = rights
        self.is_broad = rights == "broad"
        self.seeds = {name: make_seed() for name in (*NODES, "invitation")}
        self.keys = {name: public_key_of(seed) for name, seed in self.seeds.items()}
        for name, seed in self.seeds.items():
            path = directory / f"{name}.nk"
            path.write_text(seed)
            path.chmod(0o600)

    @contextlib.contextmanager
    def started(self):
        signatures = "require" if self.is_broad else "off"
        more = MORE.format(signatures=signatures, **self.keys)
        whole = self.make_config("whole", more, "nats://127.0.0.1:4222")
        written = forked.run(["broker-conf", str(whole)])
        assert (written.returncode, written.stderr) == (0, "")
        users = ", ".join(
            f'{{nkey: {self.keys[node]}, permissions: {{publish: ">", subscribe: ">"}}}}'
            for node in NODES
        )
        text = f"authorization {{users: [{users}]}}" if self.is_broad else written.stdout
        streams = f'jetstream {{store_dir: "{self.directory}/streams"}}\n'
        with contextlib.ExitStack() as stack:
            self.broker = stack.enter_context(NatsServer(streams + text))
            self.daemons = {}
            for node in ("central", "ship2"):
                config = self.make_config(node, more, self.broker.url)
                daemon = Appliance(
                    None, self.directory / f"{node}-run", args=["--node", node], config_path=config
                )
                daemon.only_named = True
                self.daemons[node] = stack.enter_context(daemon)
            # so are the streams, which central makes
            self.daemons["ship2"].wait_until(lambda status: status["healthy"])
            yield self

    def make_config(self, node, more, url):
        path = self.directory / node
        assert forked.run(["init", str(path)]).returncode == 0
        roles = path / "appliance.yaml"
        roles.write_text(roles.read_text().replace("every: 30s", "every: 1s"))
        (path / "more.yaml").write_text(more)
        seed = self.directory / f"{node}.nk"
        (path / "broker.yaml").write_text(BROKER.format(url=url, seed=seed))
        return path

    def counts(self, node):
        """What was done and what did not count there."""
        status = self.daemons[node].status()
        found = {f"refused: {why}": n for why, n in status["signatures"]["refused"].items()}
        workers = status["nodes"][node]["workers"]
        for word in ("handled", "refused", "repeats", "failed"):
            found[word] = sum(worker.get(word) or 0 for worker in workers)
        return found


class Mallory:
    """A client with what is ship1's."""

    def __init__(self, fleet, client, denials):
        self.fleet = fleet
        self.client = client
        self.denials = denials
        self.signer = Signer()
        self.signer.key = make_signing_key(read_seed(fleet.seeds["ship1"]))
        self.heard = []

    async def is_denied(self):
        """Whether the broker said no to what was done since the last look."""
        await self.client.flush()
        if self.fleet.is_broad:
            assert not self.denials
            return False
        # which is denied for sure: what the broker says of it comes after whatever it says of the others
        await self.client.publish("elsewhere.at.all", b"")
        await until_async(lambda: any("elsewhere" in text for text in self.denials))
        denied = [text for text in self.denials if "elsewhere" not in text]
        self.denials.clear()
        return bool(denied)

    async def say(self, subject, message, *, signer="", reply="", **more):
        """Publish a message, signed by ship1's key in somebody's name."""
        payload = message if isinstance(message, bytes) else cbor2.dumps(message)
        headers = {"serial": "cbor", **more}
        if signer:
            frame = (subject, reply, encode_headers(headers), payload)
            headers = parse_headers(self.signer.sign_messages([frame], signer)[0][2])
        await self.client.publish(subject, payload, reply=reply, headers=headers)

    async def outcome(self, act, *, at):
        """What comes of it at a node."""
        before = self.fleet.counts(at)
        await act
        if await self.is_denied():
            return "denied"

        def changed():
            now = self.fleet.counts(at)
            # hellos of ship2 come all the time
            return [
                word for word in now if now[word] > before[word] and word not in ("handled",)
            ] or (self.effect() and ["handled"])

        (word, *_) = await until_async(changed, every_s=0.02, tell=self.fleet.daemons[at].log)
        return "can" if word == "handled" else word.replace("failed", "refused")

    def effect(self):
        """Whether something of it lies on the disk of a node, but for what is told of refusals."""
        found = [
            (path, path.read_bytes())
            for daemon in self.fleet.daemons.values()
            for path in daemon.data().rglob("*")
            if path.is_file()
        ]
        return any(
            ERROR.encode() in text or (FORGED.encode() in text and "errorLog" not in str(path))
            for path, text in found
        )

    def forget_effects(self):
        for daemon in self.fleet.daemons.values():
            for path in daemon.data().rglob("*"):
                if path.is_file():
                    path.unlink()

    async def api(self, words, body=None):
        """The answer of JetStream's API, None where it is denied."""
        answer = self.client.request(
            f"$JS.API.{words}", json.dumps(body or {}).encode(), timeout=60
        )
        asked = asyncio.ensure_future(answer)
        await asyncio.sleep(0)
        if await self.is_denied():
            asked.cancel()
            return None
        return json.loads((await asked).data or b"{}")

    async def ask_ship2(self):
        """An honest command of central's is done by ship2."""
        before = self.fleet.daemons["ship2"].worker(f"{COMMANDS}_subscriber")["handled"]
        self.fleet.daemons["central"].send(
            {
                "from_node": "central",
                "to_nodes": ["ship2"],
                "method": "REQCliCommand",
                "method_args": ["echo", "honest"],
            }
        )
        await until_async(
            lambda: (
                self.fleet.daemons["ship2"].worker(f"{COMMANDS}_subscriber")["handled"] > before
            ),
            every_s=0.02,
        )

    async def listen(self, *subjects, queue=""):
        async def hear(message):
            self.heard.append(message)

        return [await self.client.subscribe(one, queue=queue, cb=hear) for one in subjects]


# -- what is tried -----------------------------------------------------------------------------------


def command(frm="central", to="ship2"):
    return seed_message(to, frm, "REQCliCommand", [], method_args=["echo", FORGED])


def report(frm, to="central", **names):
    fields = {"directory": "d", "file_name": "f", **names}
    return seed_message(to, frm, "REQToFileAppend", [FORGED], **fields)


async def command_as_central(m):
    return await m.outcome(m.say(COMMANDS, command()), at="ship2")


async def command_signed_as_central(m):
    return await m.outcome(m.say(COMMANDS, command(), signer="central"), at="ship2")


async def command_as_itself(m):
    return await m.outcome(m.say(COMMANDS, command("ship1"), signer="ship1"), at="ship2")


async def command_central(m):
    subject = COMMANDS.replace("ship2", "central")
    await m.say(subject, command("ship2", "central"), signer="ship1", reply=f"{subject}.reply.a.b")
    return "denied" if await m.is_denied() else "nobody listens"


async def report_as_ship2(m):
    return await m.outcome(m.say(REPORTS, report("ship2"), signer="ship1"), at="central")


async def hello_as_ship2(m):
    message = seed_message("central", "ship2", "REQHello", [FORGED], directory="x", file_name="y")
    return await m.outcome(m.say(HELLOS, message), at="central")


async def error_as_ship2(m):
    message = seed_message("errorCentral", "ship2", "REQErrorLog", [ERROR])
    return await m.outcome(m.say(ERRORS, message), at="central")


async def report_outside(m):
    message = report("ship1", directory="../../..")
    return await m.outcome(m.say(REPORTS, message, signer="ship1"), at="central")


async def copy_to_central(m):
    (subject,) = {
        worker["subject"]
        for worker in m.fleet.daemons["central"].status()["nodes"]["central"]["workers"]
        if worker["subject"].startswith("central.REQCopyFileTo.")
    }
    words = ["ship1", "central", str(m.fleet.directory / "x")]
    message = seed_message("central", "ship1", "REQCopyFileTo", [FORGED], method_args=words)
    return await m.outcome(m.say(subject, message, signer="ship1"), at="central")


def to_relay(asker, to="ship2.central", method="REQRelay"):
    """A command for ship2, to be passed on by central."""
    message = command(asker, to)
    message[4] = method
    message[20:24] = ["central", asker, "ship2", "REQCliCommand"]
    return message


async def relay_as_itself(m):
    return await m.outcome(m.say(RELAY, to_relay("ship1"), signer="ship1"), at="central")


async def relay_as_ship2(m):
    """Who may have it relayed; signed by ship1's key as ship1's."""
    return await m.outcome(m.say(RELAY, to_relay("ship2"), signer="ship1"), at="central")


async def relay_for_ship2(m):
    """The sender itself, with another node to answer to."""
    message = to_relay("ship1")
    message[21] = "ship2"
    return await m.outcome(m.say(RELAY, message, signer="ship1"), at="central")


async def begin_relay_as_central(m):
    message = to_relay("central", "central", "REQRelayInitial")
    return await m.outcome(m.say(BEGIN_RELAY, message), at="central")


async def answer_unasked(m):
    """As if central had asked ship1 something by way of ship2."""
    request = command("ship2", "ship1")
    request[16:18] = ["d", "f"]
    request[20:24] = ["ship2", "central", "ship1", "REQCliCommand"]
    message = seed_message("ship2", "ship1", "REQToFileAppend", [FORGED])
    message[8], message[16], message[17], message[18] = True, "d", "f", request
    await m.say(ITS, message, signer="ship1")
    assert not await m.is_denied()
    told = "nobody has asked that by way of this node"
    log = m.fleet.daemons["central"].data("errorLog", "errorCentral", "error.log")
    await until_async(lambda: log.exists() and told in log.read_text(), every_s=0.02)
    (file,) = [file for node in m.fleet.daemons.values() for file in node.data().rglob("f")]
    assert file.is_relative_to(m.fleet.daemons["ship2"].data())
    return "not passed on"


async def take_an_id_of_ship2(m):
    """So that a message of ship2's with that id counts as one that is done."""
    saying = m.say(REPORTS, report("ship2"), signer="ship1", **{"appl-id": f"{'0' * 16}-1-m"})
    return await m.outcome(saying, at="central")


async def bring_again(m):
    """What central said to ship2, heard and sent once more."""
    await m.listen(COMMANDS)
    if await m.is_denied():
        return "denied"
    await m.ask_ship2()
    await until_async(lambda: m.heard)
    one = m.heard[0]
    again = m.client.publish(COMMANDS, one.data, reply=one.reply, headers=one.headers)
    return await m.outcome(again, at="ship2")


async def answer_as_ship2(m):
    """That a command was refused, before ship2 has said anything."""
    await m.say(f"{COMMANDS}.reply.1a2b.3c4d", b"refused by: ship2: 1: no")
    if await m.is_denied():
        return "denied"

    async def refuse(message):
        for block in (b"NATS/1.0\r\nappl-refused: no\r\n\r\n",):
            frame = (message.reply, "", block, b"refused by: ship2: 1: no")
            (signed,) = m.signer.sign_answers([frame], "ship2")
            headers = parse_headers(signed[2])
            await m.client.publish(message.reply, signed[3], headers=headers)

    await m.client.subscribe(COMMANDS, cb=refuse)
    await m.client.flush()
    found = await m.outcome(m.ask_ship2(), at="central")
    assert m.fleet.daemons["central"].status()["outbox"]["dead"] == 0
    return found


async def refuse_as_central(m):
    """That ship2 is no node of the fleet any more."""
    told = b"refused by: central: 0: not declared"
    headers = {"appl-refused": "not declared", "appl-undeclared": "1"}
    await m.client.publish(f"{HELLOS}.reply.1a.refusals", told, headers=headers)
    if await m.is_denied():
        return "denied"
    await m.listen(HELLOS)
    await m.client.flush()
    await until_async(lambda: m.heard)
    refusal = m.client.publish(m.heard[0].reply, told, headers=headers)
    return await m.outcome(refusal, at="ship2")


async def read_along(m):
    subjects = (">", "central.>", "ship2.>", COMMANDS, f"{COMMANDS}.reply.>", REPORTS, ERRORS)
    denied = []
    for subject in (*subjects, "_INBOX.>", "enrolment.request", "$JS.EVENT.>"):
        await m.listen(subject)
        denied.append(await m.is_denied())
    assert len(set(denied)) == 1, denied
    return "denied" if denied[0] else "can"


async def take_from_ship2(m):
    """What is for ship2, by its queue group."""
    (taking,) = await m.listen(COMMANDS, queue=COMMANDS)
    if await m.is_denied():
        return "denied"
    while not m.heard:
        await m.ask_ship2()
        await m.client.flush()
    await taking.unsubscribe()
    await m.client.flush()
    central = m.fleet.daemons["central"]
    await until_async(lambda: not central.status()["outbox"]["pending"], every_s=0.02)
    assert central.status()["outbox"]["dead"] == 0
    return "can delay"


async def ask_the_broker(m):
    await m.client.publish("$SYS.REQ.SERVER.PING", b"", reply="ship1.answer")
    return "denied" if await m.is_denied() else "nobody listens"


async def touch_streams_of_ship2(m):
    its = f"appl-ship2.{ITS.replace('.', '=')}"
    answers = [
        await m.api(words, {"no_wait": True} if "NEXT" in words else None)
        for words in (
            "STREAM.LIST",
            "STREAM.MSG.GET.appl-ship2",
            "STREAM.PURGE.appl-ship2",
            "STREAM.UPDATE.appl-ship2",
            f"CONSUMER.INFO.{its}",
            f"CONSUMER.MSG.NEXT.{its}",
            f"CONSUMER.CREATE.{its}.{ITS}",
            f"CONSUMER.DELETE.{its}",
            "STREAM.DELETE.appl-ship2",
        )
    ]
    await m.client.publish(f"{ITS}.claim.appl-ship2.1", b"1" * 16)
    claim = await m.is_denied()
    if all(answer is None for answer in answers) and claim:
        return "denied"
    assert None not in answers
    return "can"


async def make_streams_record(m):
    """What others are told, or have it sent on in the broker's name."""
    words = {"name": "appl-ship1", "subjects": ["central.>"], "storage": "memory"}
    sends_on = {"src": OWN, "dest": COMMANDS}
    for name in ("appl-ship1", "mallory", "appl-ship3"):
        for verb in ("CREATE", "UPDATE"):
            wanted = {**words, "name": name, "republish": sends_on}
            answer = await m.api(f"STREAM.{verb}.{name}", wanted)
            if m.fleet.is_broad and name == "mallory" and verb == "CREATE":
                assert "error" not in answer
                assert "error" not in await m.api("STREAM.DELETE.mallory")
                return "can"
            assert m.fleet.is_broad or answer is None
    return "denied"


async def deliver_to_ship2(m):
    """A command that lies in ship1's own stream, asked for in ship2's name."""
    made = {"durable_name": CONSUMER, "filter_subject": OWN, "ack_policy": "explicit"}
    words = f"CONSUMER.CREATE.appl-ship1.{CONSUMER}.{OWN}"

    assert "error" not in await m.api(words, {"stream_name": "appl-ship1", "config": made})
    await m.say(OWN, command())
    next_one = f"$JS.API.CONSUMER.MSG.NEXT.appl-ship1.{CONSUMER}"
    return await m.outcome(m.client.publish(next_one, b"1", reply=COMMANDS), at="ship2")


async def put_into_ship2s_stream(m):
    return await m.outcome(m.say(ITS, report("central", "ship2")), at="ship2")


async def ask_as_ship2(m):
    """To be let in, by another key."""
    seed = make_seed()
    request = EnrolmentRequest("ship2", public_key_of(seed))
    asked = write_request(request, "nonce", sign(seed, signed_bytes(request, "nonce")))
    await m.client.publish("enrolment.request", asked)
    if await m.is_denied():
        return "denied"
    central = m.fleet.daemons["central"]
    await until_async(lambda: central.status()["enrolment"]["pending"], every_s=0.02)
    await until_async(lambda: "beware" in central.log(), every_s=0.02)
    return "an operator decides"


async def let_in_a_stranger(m):
    """Tell a new node that it was accepted: it tries to log in then, and is not."""
    await m.client.publish("enrolment.reply.UABC.1", b"{}")
    return "denied" if await m.is_denied() else "can"


async def flood(m):
    """Ten thousand hellos; central goes on."""
    message = seed_message("central", "ship1", "REQHello", ["x" * 100])
    for _ in range(10_000):
        await m.say(HELLOS, message)
    assert not await m.is_denied()
    await m.ask_ship2()
    assert m.fleet.daemons["central"].status()["healthy"]
    return "can"


ROWS = {
    "have another ship run a command, in central's name": command_as_central,
    "the same, with a signature in central's name": command_signed_as_central,
    "the same in its own name, signed": command_as_itself,
    "have central run a command": command_central,
    "have central relay a command to ship2": relay_as_itself,
    "the same, as a node that may": relay_as_ship2,
    "the same, with the answer for a node that may": relay_for_ship2,
    "begin a relay in central's name": begin_relay_as_central,
    "have ship2 relay an answer to central that nobody asked for": answer_unasked,
    "bring a command of central's to ship2 again": bring_again,
    "answer central in ship2's place": answer_as_ship2,
    "tell ship2 that it is no node any more": refuse_as_central,
    "read what others say, are told, and answer": read_along,
    "take ship2's messages away, by its queue group": take_from_ship2,
    "file a report at central as ship2": report_as_ship2,
    "take an id that a message of ship2's is going to have": take_an_id_of_ship2,
    "say hello as ship2": hello_as_ship2,
    "report an error as ship2": error_as_ship2,
    "write a file at central outside of its data": report_outside,
    "copy a file to central that nobody asked for": copy_to_central,
    "put a message of central's into ship2's stream": put_into_ship2s_stream,
    # deletes it where it can, and it is made again within half a minute
    "read, empty, change or delete ship2's stream, or claim its messages": touch_streams_of_ship2,
    "have a stream record what others say, or send to others": make_streams_record,
    "have its own stream deliver a command to ship2": deliver_to_ship2,
    "ask to be let in as ship2, by another key": ask_as_ship2,
    "tell a new machine that it is let in": let_in_a_stranger,
    "ask the broker who is connected": ask_the_broker,
    "send as much as the broker carries": flood,
}


@pytest.fixture(scope="module", params=["written", "broad"])
def fleet(request, tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("taken"), request.param).started() as found:
        yield found
        # whatever was tried, the trail of each is whole: one look at the end goes over all of it
        for daemon in found.daemons.values():
            done = forked.run(["audit", "verify", "--state-dir", daemon.state])
            assert done.returncode == 0, done.stdout + done.stderr


def told_in_docs():
    """The outcomes that the table says: what is tried, and both."""
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| `(.+?)` \|$", TAKEN_OVER.read_text(), re.MULTILINE)
    return {what: {"written": written, "broad": broad} for what, written, broad in rows}


def test_the_table_tells_all_that_is_tried():
    assert list(told_in_docs()) == list(ROWS)


@pytest.mark.parametrize("what", ROWS)
async def test_a_node_that_was_taken_over_can_do_what_the_table_says_and_no_more(fleet, what):
    denials = []

    async def on_error(error):
        if "ermissions" in str(error):
            denials.append(str(error))

    seed = str(fleet.directory / "ship1.nk")
    client = await nats.connect(
        fleet.broker.url, nkeys_seed=seed, error_cb=on_error, inbox_prefix=b"_INBOX.appl.ship1"
    )
    try:
        mallory = Mallory(fleet, client, denials)
        mallory.forget_effects()
        assert await ROWS[what](mallory) == told_in_docs()[what][fleet.rights]
    finally:
        await client.close()
