"""Two daemons with `signatures: require` on a broker that lets everybody do everything, and somebody who makes use of it."""

import asyncio
import contextlib
import os

import nats
import pytest

from appliance.bus.node_keys import make_seed, public_key_of
from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async

SEEDS = {node: make_seed() for node in ("central", "ship1")}
CONFIG = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 50ms}}
signing: {{key: {{file: {seed}}}}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
defaults: {{signatures: require, ack: {{timeout: 1s}}}}
nodes:
  central:
    public_keys: [{central}]
    subscribe: {{REQHello: {{}}, REQErrorLog: {{}}, REQToFileAppend: {{}}}}
  ship1:
    public_keys: [{ship1}]
    subscribe:
      REQCliCommand: {{accept_from: [central], allow_commands: [[echo, "**"]]}}
    publish: {{hello: {{to: central, method: REQHello, every: 1h}}}}
"""
SUBJECT = "ship1.REQCliCommand.CommandACK"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    directory = tmp_path_factory.mktemp("signed")
    keys = {node: public_key_of(seed) for node, seed in SEEDS.items()}
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(NatsServer())
        found = {}
        for node, seed in SEEDS.items():
            path = directory / f"{node}.nk"
            path.write_text(seed)
            path.chmod(0o600)
            text = CONFIG.format(url=broker.url, seed=path, **keys)
            daemon = Appliance(text, directory / node, args=["--node", node])
            daemon.only_named = True
            found[node] = stack.enter_context(daemon)
        yield broker, found["central"], found["ship1"]


def run(daemon, *arguments):
    environment = {**os.environ, "APPLIANCE_STATE_DIR": str(daemon.state)}
    return forked.run(arguments, env=environment, timeout=60)


def handled(daemon):
    """What became of the commands there."""
    worker = daemon.worker(f"{SUBJECT}_subscriber")
    return worker["handled"], worker["repeats"], worker["refused"]


def refused(daemon):
    counts = daemon.status()["signatures"]["refused"]
    return {reason: count for reason, count in counts.items() if count}


async def test_only_what_a_node_signed_is_done_and_only_its_own_answer_counts(fleet):
    broker, central, ship1 = fleet
    heard = []

    async def hear(message):
        heard.append(message)

    mallory = await nats.connect(broker.url)
    try:
        await mallory.subscribe(">", cb=hear)
        await mallory.flush()
        answer = await asyncio.to_thread(run, central, "exec", "ship1", "--", "echo", "honest")
        assert (answer.returncode, answer.stdout) == (0, "honest\n")
        await until_async(lambda: any(one.subject == SUBJECT for one in heard))
        (asked,) = [one for one in heard if one.subject == SUBJECT]
        assert asked.headers["appl-sig"].split()[1] == "central"
        plain = {name: text for name, text in asked.headers.items() if name != "appl-sig"}
        assert handled(ship1) == (1, 0, 0)
        for payload, headers in (
            (asked.data, asked.headers),  # again
            (asked.data.replace(b"honest", b"forged"), asked.headers),
            (asked.data.replace(b"honest", b"plain!"), plain),
        ):
            await mallory.publish(SUBJECT, payload, headers=headers, reply=asked.reply)
        await mallory.publish("central.REQHello.EventNACK", b"\xff", headers={"serial": "cbor"})
        await mallory.flush()
        await until_async(lambda: refused(ship1) == {"forged": 1, "unsigned": 1})
        await until_async(lambda: refused(central).get("unsigned") == 1)
        await until_async(lambda: handled(ship1) == (1, 1, 2))
        assert not central.status()["outbox"]["dead"]
        again = await asyncio.to_thread(run, central, "exec", "ship1", "--", "echo", "well")
        assert (again.returncode, again.stdout) == (0, "well\n")
    finally:
        await mallory.close()
