"""Defects 114 to 134 of the original: inputs, the store, the config and the metrics."""

import asyncio
import contextlib
import json
import os
import re
import socket
import struct

import nats
import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.xdist_group("steward_defects_inputs_and_store")

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
inputs:
  tcp: {{listen: "127.0.0.1:0"}}
  socket: {{path: steward.sock}}
  folder: {{path: folder, settle: 1s}}
nodes:
  solo:
    subscribe:
      REQToFile: {{}}
      REQToFileAppend: {{}}
      REQErrorLog: {{}}
      REQCopyFileTo: {{allow_paths: ["{work}/**"]}}
      REQCopyFileFrom: {{allow_paths: ["{work}/**"]}}
"""


@pytest.fixture(scope="module")
def solo(tmp_path_factory):
    root = tmp_path_factory.mktemp("solo")
    with (
        NatsServer() as broker,
        Appliance(CONFIG.format(url=broker.url, work=root), root) as daemon,
    ):
        daemon.broker = broker
        yield daemon


def message(**fields):
    return {"toNode": "solo", "method": "REQToFile", "fileName": "f", "data": ["x"], **fields}


def tell(daemon, raw, pieces=1):
    """Hand a text to the TCP input, in so many writes; its answer."""
    host, _, port = daemon.status()["inputs"]["tcp"]["listen"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a piece is a packet
        size = max(1, len(raw) // pieces)
        for at in range(0, len(raw), size):
            client.sendall(raw[at : at + size])
        client.shutdown(socket.SHUT_WR)
        return json.loads(client.makefile("rb").read())


def test_114_a_text_that_comes_in_many_pieces_is_one_text(solo):
    raw = json.dumps([message(data=["y" * 4000], fileName="pieces")]).encode()
    answer = tell(solo, raw, pieces=100)
    assert len(answer["accepted"]) == 1
    solo.wait_until(lambda _: solo.data("solo", "pieces").exists())
    assert solo.data("solo", "pieces").read_text() == "y" * 4000


def test_115_every_text_is_answered(solo):
    assert tell(solo, b"[nonsense")["problems"]
    assert tell(solo, json.dumps([message()]).encode())["accepted"][0]["id"]


def test_116_one_bad_element_is_named_and_the_others_go(solo):
    answer = tell(solo, json.dumps([message(), message(metod="x"), message()]).encode())
    assert [item["index"] for item in answer["accepted"]] == [0, 2]
    (problem,) = answer["problems"]
    assert (problem["index"], "method" in problem["message"]) == (1, True)


def test_117_files_of_the_folder_are_taken_whole_and_once(solo):
    folder = solo.config_path.parent / "folder"
    raw = json.dumps([message(method="REQToFileAppend", fileName="from-folder")])
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((folder / f"m{number}").open("w")) for number in range(5)]
        for piece in raw:
            for file in files:
                file.write(piece)
                file.flush()  # each makes the folder look again
    solo.wait_until(lambda _: len(list((folder / "done").glob("m?"))) == 5)
    solo.wait_until(
        lambda status: status["outbox"]["pending"] == 0 and status["inbox"]["unfinished"] == 0
    )
    assert solo.data("solo", "from-folder").read_text() == "x" * 5


def test_118_data_is_text_where_it_is_written_as_text(solo):
    answer = tell(
        solo, b"- toNode: solo\n  method: REQToFile\n  fileName: yaml\n  data: plain text\n"
    )
    assert len(answer["accepted"]) == 1
    solo.wait_until(lambda _: solo.data("solo", "yaml").exists())
    assert solo.data("solo", "yaml").read_text() == "plain text"


def commits(daemon):
    """How many commits stand in the store's write-ahead log: frames that end one name the size after it."""
    raw = (daemon.state / "store.db-wal").read_bytes()
    (page_bytes,) = struct.unpack(">I", raw[8:12])
    salt = raw[16:24]
    found = 0
    for at in range(32, len(raw) - 24 - page_bytes + 1, 24 + page_bytes):
        found += raw[at + 8 : at + 16] == salt and raw[at + 4 : at + 8] != bytes(4)
    return found


def file_bytes(daemon):
    return sum(path.stat().st_size for path in daemon.state.glob("*.db"))


def test_120_many_messages_share_a_commit_and_their_room_is_used_again(solo):
    def send(count, text):
        return solo.send(*[{"to_nodes": ["away"], "method": "REQToFile", "data": [text], "file_name": "f"}
                           for _ in range(count)])  # fmt: skip

    def drop(sent):
        ids = [item["id"] for item in sent]
        solo.request("POST", "/api/v1/outbox/drop", {"ids": ids, "pending": True})
        solo.wait_until(lambda status: status["outbox"]["pending"] == 0)

    before = commits(solo)
    sent = send(100, "x")
    assert commits(solo) - before < 20
    drop(sent)
    sizes = []
    for _ in range(4):
        drop(send(500, "x" * 4000))
        sizes.append(file_bytes(solo))
    assert sizes[-1] < 1.5 * sizes[0]


@pytest.fixture(scope="module")
def ended(solo, tmp_path_factory):
    """A daemon that ran, handled a message and was stopped: its state, where it ran, and what was there meanwhile."""
    root = tmp_path_factory.mktemp("ended")
    here, state = root / "here", root / "state"
    here.mkdir()
    text = CONFIG.format(url=solo.broker.url, work=root).replace("solo", "other")
    (root / "c.yaml").write_text(text)
    daemon = Appliance(None, root, config_path=root / "c.yaml")
    daemon.state = state
    before = os.getcwd()
    os.chdir(here)
    try:
        daemon.spawn()
    finally:
        os.chdir(before)
    daemon.wait_ready()
    daemon.follow({"to_nodes": ["other"], "method": "REQToFile", "data": ["x"], "file_name": "f"})
    paths = [state / "appliance.sock", state / "steward.sock"]
    there = [path.exists() for path in paths]
    code = daemon.stop()
    return code, there, [path.exists() for path in paths], list(here.iterdir())


def test_121_no_file_appears_in_the_working_directory(ended):
    assert ended[3] == []


def test_122_a_stop_takes_its_sockets_along(ended):
    code, before, after, _ = ended
    assert (code, before, after) == (0, [True, True], [False, False])


def test_123_wrong_credentials_are_told_at_once_and_healed_without_a_restart(tmp_path):
    with NatsServer("authorization {user: u, password: right}") as broker:
        (tmp_path / "secret").write_text("wrong")
        daemon = Appliance(
            f'version: 1\nbroker: {{servers: ["{broker.url}"], auth: {{user: u, password: {{file: secret}}}}}}\n'
            "nodes: {n: {}}\n",
            tmp_path,
        )
        with contextlib.closing(daemon.start(ready=False)):
            daemon.wait_api()
            (reason,) = daemon.status()["degraded_by"]
            assert "refused the credentials: authorization violation" in reason
            assert reason.partition(": ")[2] in daemon.log()
            (tmp_path / "secret").write_text("right")
            daemon.wait_until(lambda status: status["healthy"])


def test_125_gauges_say_what_runs(solo):
    status, text = solo.status(), solo.request("GET", "/metrics")[1]

    def total(start, *words):
        lines = [line for line in text.splitlines() if line.startswith(start + "{")]
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if all(word in line for word in words)
        )

    running = [item for item in status["nodes"]["solo"]["workers"] if item["phase"] == "running"]
    assert total("appliance_workers", '"running"') == len(running) > 0
    assert total("appliance_build_info", f'version="{status["version"]}"') == 1


def test_126_the_config_is_read_and_never_written(solo):
    before = solo.config_path.read_bytes(), solo.config_path.stat().st_mtime_ns
    solo.config_path.write_bytes(before[0] + b"\nbroken: [")
    assert solo.reload()["result"] == "refused"
    assert solo.config_path.read_bytes() == before[0] + b"\nbroken: ["
    solo.config_path.write_bytes(before[0])
    assert solo.reload()["result"] == "unchanged"
    assert solo.config_path.read_bytes() == before[0]


def test_127_an_empty_variable_is_as_good_as_none(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("version: 1\nbroker: {embedded: true}\nnodes: {n: {}}\n")
    names = ("CONFIG", "STATE_DIR", "NODE", "LOG_LEVEL", "LOG_FORMAT", "SIGNED_BY")
    found = forked.run(
        ["run", config, "--all-nodes", "--state-dir", "/dev/null/x"],
        env={**os.environ, **{f"APPLIANCE_{name}": "" for name in names}},
    )
    # it got as far as its state directory, which is none
    assert found.returncode not in (0, 64, 78)
    assert "/dev/null/x" in found.stderr


def test_128_a_worker_that_cannot_run_is_tried_again_and_says_why(tmp_path):
    deny = 'authorization {users: [{user: u, password: p, permissions: {subscribe: {deny: ["n.REQToFile.>"]}}}]}'
    with NatsServer(deny) as broker:
        (tmp_path / "secret").write_text("p")
        text = (
            f'version: 1\nbroker: {{servers: ["{broker.url}"], auth: {{user: u, password: {{file: secret}}}}}}\n'
            "nodes: {n: {subscribe: {REQToFile: {}, REQPing: {}}}}\n"
        )
        with Appliance(text, tmp_path) as daemon:
            worker = "n.REQToFile.EventACK_subscriber"
            daemon.wait_until(lambda _: daemon.worker(worker)["restarts"] >= 1)
            daemon.wait_until(lambda _: "ermission" in (daemon.worker(worker)["last_error"] or ""))
            assert daemon.worker("n.REQPing.EventACK_subscriber")["phase"] == "running"


def test_129_an_unknown_compression_is_a_config_error_with_its_place(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "version: 1\nbroker: {embedded: true}\ndefaults: {compression: lz}\nnodes: {n: {}}\n"
    )
    found = forked.run(["check", tmp_path / "c.yaml"])
    assert found.returncode == 78
    assert "c.yaml:3:25" in found.stdout + found.stderr


def levels(path):
    return {line.split()[1] for line in path.read_text().splitlines() if line[:2] == "20"}


def test_130_the_log_level_holds_for_everything_above_it(solo, tmp_path):
    absent = message(toNode="away", method="REQToFileAppend")  # its lane is nobody else's here
    [row] = tell(solo, json.dumps([absent]).encode())["accepted"]
    solo.wait_until(lambda _: {"INFO", "WARNING"} <= levels(solo.log_path))
    solo.request("POST", "/api/v1/outbox/drop", {"ids": [row["id"]], "pending": True})
    assert "DEBUG" not in levels(solo.log_path)
    text = 'version: 1\nbroker: {servers: ["nats://127.0.0.1:1"]}\nnodes: {n: {subscribe: {REQPing: {}}}}\n'
    quiet = Appliance(text, tmp_path, args=["--log-level=warning"])
    quiet.spawn()
    try:
        quiet.wait_api()
        quiet.wait_until(lambda _: levels(quiet.log_path))
    finally:
        quiet.close()
    assert levels(quiet.log_path) <= {"WARNING", "ERROR"}


def test_131_times_carry_their_zone_and_reports_the_message_they_are_about(solo):
    answer = tell(
        solo, json.dumps([message(method="REQCopyFileTo", methodArgs=["x", "solo", "/x"])]).encode()
    )
    number = answer["accepted"][0]["id_text"]
    log = solo.data("errorLog", "errorCentral", "error.log")
    solo.wait_until(lambda _: log.exists() and number in log.read_text())
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}"
    lines = [line for line in log.read_text().splitlines() if number in line]
    assert re.match(rf"{stamp}\+00:00, node: solo, REQCopyFileTo", lines[0])
    assert re.match(rf"{stamp}Z ", solo.log_path.read_text())


def test_132_a_file_larger_than_any_message_is_copied(solo):
    source, target = (solo.config_path.parent / name for name in ("large", "copied"))
    source.write_bytes(os.urandom(5_000_000))
    lines = solo.follow({"to_nodes": ["solo"], "method": "REQCopyFileFrom", "file_name": "o",
                         "method_args": [str(source), "solo", str(target)]})  # fmt: skip
    assert '"exit_status":"0"' in lines
    assert target.read_bytes() == source.read_bytes()


def dead(daemon):
    records = daemon.request("GET", "/api/v1/outbox?state=dead")[1]["records"]
    return {record["id"]: record["reason"] for record in records}


def test_133_no_retry_at_all_can_be_asked_for(solo):
    async def count():
        client = await nats.connect(solo.broker.url)
        heard = []

        async def hear(item):
            heard.append(item)

        await client.subscribe("mute.REQToFile.EventACK", cb=hear)
        await client.flush()
        (sent,) = await asyncio.to_thread(solo.send, {"to_nodes": ["mute"], "method": "REQToFile", "data": ["x"],
                                                      "file_name": "f", "retries": 0, "ack_timeout": 1})  # fmt: skip
        await asyncio.to_thread(solo.wait_until, lambda _: sent["id"] in dead(solo))
        await client.close()
        return len(heard)

    assert asyncio.run(count()) == 1


def test_134_a_message_expires_and_can_be_taken_back(solo):
    wanted = {"to_nodes": ["gone"], "method": "REQToFile", "data": ["x"], "file_name": "f"}
    (short, long) = solo.send({**wanted, "expires": "1s"}, wanted)
    solo.request("POST", "/api/v1/outbox/drop", {"ids": [long["id"]], "pending": True})
    solo.wait_until(lambda status: status["outbox"]["pending"] == 0)
    assert "expired" in dead(solo)[short["id"]]
    assert long["id"] not in dead(solo)
