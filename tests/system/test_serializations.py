"""Nodes of either serialization understand each other, and a Go node would understand what they send."""

import asyncio

import nats
import pytest

from appliance.core.message import bytes_to_text
from appliance.wire.frame import decode_frame
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.wire_cases import load_vectors

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
defaults: {{ack: {{timeout: 5s, retries: 3}}}}
nodes:
  central:
    serialization: {central[0]}
    compression: {central[1]}
    subscribe: {{REQToFile: {{accept_from: ["ship1"]}}, REQToFileAppend: {{}}, REQErrorLog: {{}}}}
  ship1:
    serialization: {ship1[0]}
    compression: {ship1[1]}
    subscribe:
      REQToFile: {{}}
      REQPing: {{}}
      REQCliCommand: {{accept_from: [central], allow_commands: [[cat, "*"]]}}
"""
HEADERS = {
    ("gob", "none"): {},
    ("gob", "zstd"): {"cmp": "z"},
    ("cbor", "none"): {"serial": "cbor"},
    ("cbor", "zstd"): {"serial": "cbor", "cmp": "z"},
}
PLAIN, BINARY = b"any text \xe2\x80\xa6\n", bytes(range(256))


class Pair:
    """Two daemons, one node each, at a broker of their own."""

    def __init__(self, url, directory):
        self.url = url
        self._first = self.render(("gob", "none"), ("gob", "none"))
        self.central = Appliance(self._first, directory / "central", args=["--node", "central"])
        self.ship1 = Appliance(self._first, directory / "ship1", args=["--node", "ship1"])
        self.both = (self.central, self.ship1)
        for daemon in self.both:
            daemon.only_named = True

    def render(self, central, ship1):
        return CONFIG.format(url=self.url, central=central, ship1=ship1)

    def speak(self, central, ship1):
        for daemon in self.both:
            daemon.write_config(self.render(central, ship1))
            assert daemon.reload()["result"] in ("applied", "unchanged")

    def speak_alone(self, daemon, encoding):
        daemon.write_config(self.render(encoding, encoding))
        assert daemon.reload()["result"] == "applied"

    def wait_settled(self, until):
        for daemon in (*self.both, *self.both):
            daemon.wait_until(
                lambda status: (
                    until() and not status["outbox"]["pending"] + status["inbox"]["unfinished"]
                )
            )
            assert daemon.status()["outbox"]["dead"] == 0


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with NatsServer() as broker:
        pair = Pair(broker.url, tmp_path_factory.mktemp("pair"))
        try:
            for daemon in pair.both:
                daemon.spawn()
            for daemon in pair.both:
                daemon.wait_ready()
            yield pair
        finally:
            for daemon in pair.both:
                daemon.close()


async def listen(url, seen):
    client = await nats.connect(url)

    async def note(message):
        seen.append((message.subject, dict(message.headers or {}), message.data))

    await client.subscribe("*.*.*", cb=note)
    await client.flush()
    return client


WAYS = [
    (("gob", "none"), ("gob", "none")),
    (("gob", "zstd"), ("gob", "zstd")),
    (("cbor", "none"), ("cbor", "zstd")),
    (("gob", "none"), ("cbor", "zstd")),
    (("cbor", "none"), ("gob", "zstd")),
]


@pytest.mark.parametrize(("central", "ship1"), WAYS, ids=lambda way: "+".join(way))
async def test_nodes_of_any_two_encodings_command_each_other(pair, tmp_path, central, ship1):
    await asyncio.to_thread(pair.speak, central, ship1)
    seen = []
    client = await listen(pair.url, seen)
    name = "-".join((*central, *ship1))
    for content in (PLAIN, BINARY):
        source = tmp_path / f"{len(content)}"
        source.write_bytes(content)
        await asyncio.to_thread(
            pair.central.send,
            {
                "from_node": "central",
                "to_nodes": ["ship1"],
                "method": "REQCliCommand",
                "method_args": ["cat", str(source)],
                "reply_method": "REQToFile",
                "directory": name,
                "file_name": f"{len(content)}.out",
            },
        )
        answer = pair.central.data(name, "ship1", f"{len(content)}.out")
        await asyncio.to_thread(pair.wait_settled, answer.exists)
        assert answer.read_bytes() == content
    await client.flush()
    await client.close()
    asked = [
        (headers, data) for subject, headers, data in seen if subject.startswith("ship1.REQCli")
    ]
    answered = [
        (headers, data) for subject, headers, data in seen if subject.startswith("central.REQToF")
    ]
    assert [only_encoding(headers) for headers, _ in asked] == [HEADERS[central]] * 2
    as_gob = HEADERS["gob", ship1[1]]
    assert [only_encoding(headers) for headers, _ in answered] == [HEADERS[ship1], as_gob]
    for (headers, data), content in zip(answered, (PLAIN, BINARY), strict=True):
        answer = decode_frame(data, headers)
        assert answer.data == (bytes_to_text(content),)
        assert answer.previous_message.method == "REQCliCommand"


def only_encoding(headers):
    return {key: value for key, value in headers.items() if key in ("serial", "cmp")}


async def test_message_accepted_before_a_swap_goes_out_as_after_it_unless_cbor_cannot_carry_it(
    pair,
):
    await asyncio.to_thread(pair.speak, ("gob", "none"), ("gob", "none"))
    await asyncio.to_thread(pair.ship1.close)
    for number, data in enumerate(("plain", {"base64": "/wD+"})):
        message = {
            "from_node": "central",
            "to_nodes": ["ship1"],
            "method": "REQToFile",
            "directory": "swapped",
            "file_name": f"{number}.txt",
            "data": [data],
        }
        await asyncio.to_thread(pair.central.send, message)
    await asyncio.to_thread(pair.speak_alone, pair.central, ("cbor", "zstd"))
    seen = []
    client = await listen(pair.url, seen)
    await asyncio.to_thread(pair.ship1.start)
    files = [pair.ship1.data("swapped", "ship1", f"{number}.txt") for number in range(2)]
    await asyncio.to_thread(pair.wait_settled, lambda: all(file.exists() for file in files))
    assert [file.read_bytes() for file in files] == [b"plain", b"\xff\x00\xfe"]
    await client.flush()
    await client.close()
    sent = {
        decode_frame(data, headers).file_name: only_encoding(headers)
        for subject, headers, data in seen
        if subject.startswith("ship1.REQToFile.")
    }
    assert sent == {"0.txt": HEADERS["cbor", "zstd"], "1.txt": HEADERS["gob", "zstd"]}


async def test_bare_gob_of_a_go_node_without_any_header_is_obeyed_and_acknowledged(pair):
    await asyncio.to_thread(pair.speak, ("cbor", "none"), ("cbor", "zstd"))
    golden = next(vector for vector in load_vectors() if vector.name == "cli_reply")
    assert (golden.message.to_node, golden.message.method) == ("central", "REQToFileAppend")
    client = await nats.connect(pair.url)
    acknowledged = await client.request("central.REQToFileAppend.EventACK", golden.gob, timeout=60)
    await client.close()
    assert acknowledged.data.startswith(b"confirmed from: central: ")
    file = pair.central.data("cli", "ship1", "uptime.log")
    await asyncio.to_thread(pair.wait_settled, file.exists)
    assert file.read_text() == golden.message.data[0]
