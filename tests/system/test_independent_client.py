"""A client that knows only the wire (plain nats-py, cbor2, zstandard) talks to a node of ours."""

import asyncio

import cbor2
import nats
import pytest
import zstandard

from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message
from tests.support.nats_server import NatsServer

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
limits: {{max_message_bytes: 500000, max_decompressed_bytes: 1000000}}
nodes:
  central: {{}}
  ship1:
    subscribe:
      REQToFileAppend: {{ack: {{on: done}}}}
      REQPing: {{}}
"""
SUBJECT = "ship1.REQToFileAppend.EventACK"
WORKER = f"{SUBJECT}_subscriber"


def append(data, **fields):
    fields = {"directory": "logs", "file_name": "log.txt", "id": 7, **fields}
    return seed_message("ship1", "central", "REQToFileAppend", data, **fields)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with NatsServer() as broker:
        text = CONFIG.format(url=broker.url)
        with Appliance(text, tmp_path_factory.mktemp("ship1")) as appliance:
            appliance.url = broker.url
            yield appliance


async def exchange(node, payload, headers, *, subject=SUBJECT, timeout_s=60.0):
    """Publish with a reply subject of our own; the answer, or None when there is none in time."""
    client = await nats.connect(node.url)
    try:
        answers = asyncio.Queue()
        subscription = await client.subscribe(f"{subject}.reply.client.1", cb=answers.put)
        await client.flush()
        await client.publish(subject, payload, reply=f"{subject}.reply.client.1", headers=headers)
        try:
            async with asyncio.timeout(timeout_s):
                return (await answers.get()).data.decode()
        except TimeoutError:
            return None
        finally:
            await subscription.unsubscribe()
    finally:
        await client.close()


async def test_a_seed_layout_append_is_confirmed_and_the_file_is_right(node):
    payload = cbor2.dumps(append(["first\n", "second\n"], file_name="plain.txt"))
    assert await exchange(node, payload, {"serial": "cbor"}) == "confirmed from: ship1: 7"
    assert node.data("logs", "ship1", "plain.txt").read_bytes() == b"first\nsecond\n"


async def test_the_same_with_zstd(node):
    payload = zstandard.compress(cbor2.dumps(append(["packed\n"], file_name="zstd.txt", id=8)))
    answer = await exchange(node, payload, {"serial": "cbor", "cmp": "z"})
    assert answer == "confirmed from: ship1: 8"
    assert node.data("logs", "ship1", "zstd.txt").read_bytes() == b"packed\n"


async def test_bytes_that_are_not_utf8_arrive_unharmed(node):
    marker = b"X" * 6
    payload = cbor2.dumps(append([marker.decode()], file_name="binary.bin")).replace(
        marker, b"a\xff\x00\xfe\x80b"
    )
    assert await exchange(node, payload, {"serial": "cbor"}) == "confirmed from: ship1: 7"
    assert node.data("logs", "ship1", "binary.bin").read_bytes() == b"a\xff\x00\xfe\x80b"


def nested(depth):
    message = None
    for _ in range(depth):
        outer = append(["x"])
        outer[18] = message
        message = outer
    return cbor2.dumps(message)


HOSTILE = {
    "garbage": (b"\xff\x00garbage", {"serial": "cbor"}),
    "cut short": (cbor2.dumps(append(["x"]))[:-3], {"serial": "cbor"}),
    "24 fields": (cbor2.dumps(append(["x"])[:24]), {"serial": "cbor"}),
    "a map": (cbor2.dumps({"ToNode": "ship1"}), {"serial": "cbor"}),
    "unknown compression": (cbor2.dumps(append(["x"])), {"serial": "cbor", "cmp": "q"}),
    "zstd bomb": (
        zstandard.compress(cbor2.dumps(append(["\0" * 3_000_000]))),
        {"serial": "cbor", "cmp": "z"},
    ),
    "oversized": (cbor2.dumps(append(["x" * 900_000])), {"serial": "cbor"}),
    "too deep": (nested(200), {"serial": "cbor"}),
    "foreign method": (
        cbor2.dumps(seed_message("ship1", "central", "REQCliCommand", [], method_args=["id"])),
        {"serial": "cbor"},
    ),
    "foreign node": (
        cbor2.dumps(seed_message("ship2", "central", "REQToFileAppend", ["x"], file_name="f")),
        {"serial": "cbor"},
    ),
    "undeclared sender": (
        cbor2.dumps(seed_message("ship1", "pirate", "REQToFileAppend", ["x"], file_name="f")),
        {"serial": "cbor"},
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_message_is_refused_and_counted_and_the_node_goes_on(node, name):
    payload, headers = HOSTILE[name]
    before = node.worker(WORKER)
    assert await exchange(node, payload, headers, timeout_s=0.3) is None
    node.wait_until(lambda _: node.worker(WORKER)["refused"] == before["refused"] + 1)
    good = cbor2.dumps(append(["after\n"], file_name=f"after {name}.txt"))
    assert await exchange(node, good, {"serial": "cbor"}) == "confirmed from: ship1: 7"
    assert node.worker(WORKER)["handled"] == before["handled"] + 1


async def test_nobody_can_have_a_command_sent_in_the_answering_nodes_name(node):
    client = await nats.connect(node.url)
    try:
        heard = []

        async def hear(message):
            heard.append(message)

        await client.subscribe("central.REQCliCommand.*", cb=hear)
        ping = seed_message("ship1", "central", "REQPing", ["x"], reply_method="REQCliCommand")
        ping[7] = ["touch", "anything"]
        before = node.worker("ship1.REQPing.EventACK_subscriber")["handled"]
        await client.publish(
            "ship1.REQPing.EventACK", cbor2.dumps(ping), headers={"serial": "cbor"}
        )
        await client.flush()
        node.wait_until(
            lambda _: node.worker("ship1.REQPing.EventACK_subscriber")["handled"] == before + 1
        )
        await client.flush()
        assert heard == []
    finally:
        await client.close()


async def test_ids_forged_on_one_subject_swallow_nothing_on_another(node):
    headers = {"serial": "cbor", "appl-id": "0123456789abcdef-77"}
    ping = seed_message("ship1", "central", "REQPing", ["x"], id=77)
    subject = "ship1.REQPing.EventACK"
    assert await exchange(node, cbor2.dumps(ping), headers, subject=subject)
    payload = cbor2.dumps(append(["real\n"], file_name="not swallowed.txt", id=77))
    assert await exchange(node, payload, headers) == "confirmed from: ship1: 77"
    assert node.data("logs", "ship1", "not swallowed.txt").read_text() == "real\n"


async def test_a_small_frame_that_claims_millions_of_texts_is_refused(node):
    before = node.worker(WORKER)["refused"]
    message = append(["x"])
    message[3] = [None] * 900_000
    payload = zstandard.compress(cbor2.dumps(message))
    assert await exchange(node, payload, {"serial": "cbor", "cmp": "z"}, timeout_s=0.2) is None
    node.wait_until(lambda _: node.worker(WORKER)["refused"] == before + 1)


async def test_a_path_that_leads_out_is_not_confirmed_and_writes_nothing(node):
    payload = cbor2.dumps(append(["x"], directory="../../..", file_name="escaped.txt"))
    assert await exchange(node, payload, {"serial": "cbor"}, timeout_s=0.5) is None
    assert not list(node.state.parent.parent.glob("**/escaped.txt"))


async def test_an_acknowledgement_is_never_published_on_a_request_subject(node):
    client = await nats.connect(node.url)
    try:
        heard = []

        async def hear(message):
            heard.append(message)

        subscription = await client.subscribe("central.REQCliCommand.CommandACK", cb=hear)
        await client.flush()
        await client.publish(
            SUBJECT,
            cbor2.dumps(append(["x"])),
            reply="central.REQCliCommand.CommandACK",
            headers={"serial": "cbor"},
        )
        await client.flush()
        good = cbor2.dumps(append(["later"], file_name="later.txt"))
        assert await exchange(node, good, {"serial": "cbor"}) == "confirmed from: ship1: 7"
        assert heard == []
        await subscription.unsubscribe()
    finally:
        await client.close()
