"""Defects 1 to 17 of the original: what a peer, a neighbour or a page could do that it should not."""

import asyncio
import os
from pathlib import Path

import cbor2
import nats
import pytest
import zstandard

from tests.steward_defects.fleet import body
from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_login import make_certificates, make_nkey
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.xdist_group("steward_defects_security")

PING = "ship1.REQPing.EventACK"
APPEND = "ship1.REQToFileAppend.EventACK"


def check(text, tmp_path):
    """What `appliance check` says of a config."""
    (tmp_path / "c.yaml").write_text(text)
    return forked.run(["check", tmp_path / "c.yaml"])


def test_001_the_right_to_publish_one_subject_runs_that_method_alone(fleet):
    made = fleet.work / "made-by-1"
    message = body(
        "ship1", "central", "REQCliCommand", [], method_args=["sh", "-c", f"touch {made}"]
    )
    assert fleet.publish(PING, message, wait_s=0.3) is None
    fleet.error_log("came on the subject of REQPing")
    assert not made.exists()


def test_002_a_forged_previous_message_makes_no_node_send_anything(fleet):
    previous = body("ghost", "ship1", "REQCliCommand", original_via="ship1", relay_from="ghost",
                    relay_to="central", relay_reply="REQCliCommand", file_name="f", directory="d")  # fmt: skip
    message = body("ship1", "central", "REQToFileAppend", ["x"], is_reply=True, previous=previous,
                   file_name="f", directory="d")  # fmt: skip
    fleet.publish(APPEND, message, wait_s=5)
    fleet.error_log("is not passed on")
    fleet.settle()
    assert "ghost.REQCliCommand" not in str(fleet.daemon.request("GET", "/api/v1/outbox"))


def test_003_a_relay_goes_where_its_subject_says_or_nowhere(fleet):
    message = body("ship8.gateway", "central", "REQRelay", ["x"], original_via="gateway",
                   relay_from="central", relay_to="ship9", original_method="REQToFile")  # fmt: skip
    fleet.publish("ship8.gateway.REQRelay.EventACK", message)
    fleet.error_log("is not the node of the subject")
    fleet.settle()
    assert fleet.daemon.worker("ship9.REQToFile.EventACK_publisher") is None


@pytest.mark.parametrize(
    "fields",
    [{"file_name": "../../outside"}, {"directory": "../..", "file_name": "f"}, {"file_name": "/etc/x"}],
    ids=["name", "directory", "absolute"],
)  # fmt: skip
def test_004_names_in_a_message_never_leave_the_data_directory(fleet, fields):
    before = {path for path in fleet.daemon.state.parent.rglob("*") if path.is_file()}
    fleet.publish(APPEND, body("ship1", "central", "REQToFileAppend", ["evil"], **fields), wait_s=2)
    fleet.settle()
    data = fleet.daemon.state / "data"
    for path in {path for path in fleet.daemon.state.parent.rglob("*") if path.is_file()} - before:
        assert data in path.parents or "evil" not in path.read_text(errors="replace")
    assert not os.path.exists("/etc/x")


def test_005_copies_read_and_write_only_what_the_config_allows(fleet):
    assert "failed" in fleet.ask("REQCopyFileFrom", "/etc/hostname", "central", "/tmp/never-005")
    lines = fleet.ask("REQCopyFileTo", "x", "ship1", "/tmp/never-005", data=["x"])
    assert '"exit_status":"0"' not in lines
    assert not os.path.exists("/tmp/never-005")


def test_006_a_line_break_in_a_name_reaches_no_protocol_line(fleet):
    async def attack():
        heard = []
        client = await nats.connect(fleet.url)

        async def hear(message):
            heard.append(message)

        await client.subscribe("evil.>", cb=hear)
        await client.flush()
        sender = "central\r\nPUB evil.subject 2\r\nhi\r\n"
        message = body("ship1", sender, "REQPing", ["x"], reply_method="REQHello")
        await fleet.exchange(PING, cbor2.dumps(message), wait_s=0.3)
        await client.flush()
        await client.close()
        return heard

    assert asyncio.run(attack()) == []
    fleet.error_log("is no node name")
    fleet.assert_alive()


def test_007_a_sender_that_no_config_knows_and_a_foreign_address_are_refused(fleet):
    before = fleet.daemon.worker(f"{PING}_subscriber")["refused"]
    assert fleet.publish(PING, body("ship1", "pirate", "REQPing", ["x"]), wait_s=0.3) is None
    assert fleet.publish(PING, body("ship2", "central", "REQPing", ["x"]), wait_s=0.3) is None
    assert fleet.daemon.worker(f"{PING}_subscriber")["refused"] == before + 2


def test_008_no_stranger_can_acknowledge_in_the_receivers_place(fleet):
    subject = "mute.REQToFile.EventACK"

    async def forge():
        async with fleet.client() as client:
            heard = asyncio.Queue()
            await client.subscribe(subject, cb=heard.put)
            await client.flush()
            (sent,) = await asyncio.to_thread(
                fleet.send, "REQToFile", data=["x"], to="mute", ack_timeout=60
            )
            async with asyncio.timeout(60):
                message = await heard.get()
            for reply in (f"{subject}.reply", f"{subject}.reply.x.y", f"{message.reply}0",
                          f"{message.reply.rpartition('.')[0]}.0123456789abcdef"):  # fmt: skip
                await client.publish(reply, b"confirmed from: mute: 0")
            await client.flush()
            await asyncio.to_thread(fleet.assert_alive)  # what was forged has been seen by now
            still_there = sent["id"] in await asyncio.to_thread(fleet.pending)
            await message.respond(b"confirmed from: mute: 0")
            await client.flush()
            return still_there

    assert asyncio.run(forge())
    fleet.settle()  # the true one counts


def listening(pid):
    """Ports that a process listens on."""
    inodes = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and parts[9] in inodes:
                ports.append(int(parts[1].rpartition(":")[2], 16))
    return ports


def test_009_nothing_listens_that_the_config_does_not_name(fleet):
    assert listening(fleet.daemon.process.pid) == []
    code, _ = fleet.daemon.request("GET", "/debug/pprof/")
    assert code == 404


INPUTS = """
version: 1
broker: {{servers: ["{url}"]}}
inputs: {{http: {{listen: "127.0.0.1:0"}}, tcp: {{listen: "127.0.0.1:0"}}}}
nodes: {{mother: {{subscribe: {{REQToFile: {{}}}}}}}}
"""


@pytest.fixture(scope="module")
def inputs(fleet, tmp_path_factory):
    with Appliance(INPUTS.format(url=fleet.url), tmp_path_factory.mktemp("inputs")) as daemon:
        yield daemon


def post(daemon, raw, **headers):
    import http.client

    address = daemon.status()["inputs"]["http"]["listen"]
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("POST", "/", raw, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_010_a_web_page_cannot_use_the_http_input(inputs):
    message = b'[{"toNode": "mother", "method": "REQToFile", "fileName": "f", "data": ["x"]}]'
    assert post(inputs, message)[0] == 200
    assert post(inputs, message, Origin="https://evil.example")[0] == 403
    assert post(inputs, message, **{"Content-Type": "text/plain"})[0] in (400, 403, 415)
    assert post(inputs, message, Host="evil.example")[0] in (403, 421)


def test_011_listeners_beyond_loopback_need_a_token(tmp_path):
    found = check(
        INPUTS.format(url="nats://127.0.0.1:4222").replace("127.0.0.1:0", "0.0.0.0:0"), tmp_path
    )
    assert found.returncode == 78
    assert found.stdout.count("E240") + found.stderr.count("E240") == 2


def test_012_a_private_ca_and_an_nkey_go_together(tmp_path):
    certificates, nkey = make_certificates(tmp_path), make_nkey()
    (tmp_path / "seed").write_text(nkey.seed)
    login = f"authorization {{ users: [{{ nkey: {nkey.public} }}] }}"
    with NatsServer(certificates.server_config() + login, scheme="tls") as broker:
        text = f"""
version: 1
broker:
  servers: ["{broker.url}"]
  tls: {{ca: {{file: "{certificates.ca}"}}}}
  auth: {{nkey_seed: {{file: seed}}}}
nodes: {{central: {{}}}}
"""
        with Appliance(text, tmp_path) as daemon:
            assert daemon.status()["broker"]["connected"]


def test_013_inner_fields_from_an_operator_are_not_sent(inputs):
    code, answer = post(
        inputs, b'[{"toNode": "mother", "method": "REQToFile", "fileName": "f", "isReply": true}]'
    )
    assert (code, "isReply" in answer) == (400, True)
    code, answer = post(
        inputs,
        b'[{"toNode": "mother", "method": "REQToFile", "fileName": "f", "relayFromNode": "x"}]',
    )
    assert code == 200
    assert "relayFromNode" in answer


def test_014_the_content_of_messages_stands_in_no_log(fleet):
    fleet.ask("REQToFile", data=["top-secret-014"], file_name="s.txt")
    fleet.ask("REQToFile", data=["top-secret-014"], file_name="../s.txt")
    fleet.settle()
    assert "top-secret-014" not in fleet.daemon.log_path.read_text(errors="replace")
    log = fleet.file("errorLog", "errorCentral", "error.log")
    assert not log.exists() or "top-secret-014" not in log.read_text()


def test_015_what_a_peer_prints_cannot_command_a_terminal(fleet):
    fleet.ask("REQToConsole", data=["\x1b[2J\x07shown-015\x9b"])
    fleet.daemon.wait_until(lambda _: "shown-015" in fleet.daemon.log())
    assert "\x1b" not in fleet.daemon.log()


BOMB_BYTES = 500_000_000


def make_bomb(stated):
    """A message whose data is zeros, compressed; its frame states its size or does not."""
    message = cbor2.dumps(body("ship1", "central", "REQToFileAppend", ["MARK"]))
    before, after = message.split(b"\x64MARK")
    before += b"\x7a" + BOMB_BYTES.to_bytes(4, "big")
    size = len(before) + BOMB_BYTES + len(after)
    compress = zstandard.ZstdCompressor(level=1).compressobj(**({"size": size} if stated else {}))
    parts = [compress.compress(before)]
    parts += [compress.compress(bytes(1_000_000)) for _ in range(BOMB_BYTES // 1_000_000)]
    return b"".join([*parts, compress.compress(after), compress.flush()])


@pytest.mark.parametrize("stated", [True, False], ids=["size stated", "size not stated"])
def test_016_a_small_message_cannot_become_a_large_one(fleet, stated):
    bomb = make_bomb(stated)
    assert len(bomb) < 100_000
    refused = fleet.daemon.worker(f"{APPEND}_subscriber")["refused"]
    asyncio.run(fleet.exchange(APPEND, bomb, headers={"cmp": "z"}))
    fleet.daemon.wait_until(
        lambda _: fleet.daemon.worker(f"{APPEND}_subscriber")["refused"] == refused + 1
    )
    facts = Path(f"/proc/{fleet.daemon.process.pid}/status").read_text().splitlines()
    peak = next(line for line in facts if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 300_000
    fleet.assert_alive()


def test_017_invented_names_make_no_metrics_and_no_entries(fleet):
    for number in range(150):
        fleet.publish(
            "central.REQHello.EventNACK", body("central", f"invented{number}", "REQHello", ["x"])
        )
    fleet.assert_alive()
    assert "invented" not in fleet.daemon.request("GET", "/metrics")[1]
    status = fleet.daemon.status()
    # the operator sees that somebody says hello whom no config declares, in a bounded number and as that alone
    strangers = [one for one in status.pop("fleet") if "invented" in one["node"]]
    assert len(strangers) <= 100
    assert {one["state"] for one in strangers} <= {"undeclared"}
    assert "invented" not in str(status)
