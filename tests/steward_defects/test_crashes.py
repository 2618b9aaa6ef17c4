"""Defects 30 to 52 of the original: messages, files and settings that ended the whole node."""

import asyncio
import json
import os
import socket
import struct

import pytest

from tests.steward_defects.fleet import body
from tests.support import forked
from tests.support.appliance import Appliance

pytestmark = pytest.mark.xdist_group("steward_defects_crashes")

PONG = "central.REQPong.EventACK"
STOP = "ship1.REQOpProcessStop.CommandACK"


SOLO = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m, drain_timeout: 100ms}}
inputs: {{tcp: {{listen: "127.0.0.1:0"}}, folder: {{path: folder}}}}
nodes: {{solo: {{subscribe: {{REQToFile: {{}}, REQToFileAppend: {{}}, REQTailFile: {{allow_paths: ["{root}/*"]}}}}}}}}
"""
GOOD = '[{"toNode": "solo", "method": "REQToFileAppend", "fileName": "early", "data": ["x"]}]'
BEFORE_THE_START = {
    "1-bad": "[nonsense",
    "2-good": GOOD,
    "3-bad": GOOD.replace("Append", "Apend"),
    "4-bad": "",
    "5-good": GOOD,
}


@pytest.fixture(scope="module")
def solo(fleet, tmp_path_factory):
    """A daemon whose state directory is yet to be made, with files in the folder before it starts."""
    root = tmp_path_factory.mktemp("solo")
    (root / "folder").mkdir()
    for name, text in BEFORE_THE_START.items():
        (root / "folder" / name).write_text(text)
    daemon = Appliance(SOLO.format(url=fleet.url, root=root), root)
    daemon.state = root / "not" / "yet" / "there"
    with daemon:
        yield daemon


def tell(daemon, raw):
    """Hand a text to the TCP input; its answer."""
    port = int(daemon.status()["inputs"]["tcp"]["listen"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        return json.loads(client.makefile("rb").read())


def try_config(daemon, text):
    """What a reload says of a config that stands there for a moment."""
    before = daemon.config_path.read_text()
    daemon.write_config(text)
    verdict = daemon.reload()
    daemon.write_config(before)
    daemon.reload()
    return verdict["problems"]


def test_030_a_method_that_nobody_knows_ends_nothing(fleet):
    message = body("ship1", "central", "REQNothing", ["x"])
    assert fleet.publish("ship1.REQPing.EventACK", message, wait_s=0.3) is None
    fleet.error_log("the body names method 'REQNothing'")
    fleet.assert_alive()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_031_a_stop_with_too_few_arguments_is_answered_with_what_is_wrong(fleet, count):
    words = ["REQPing", "ship1"][:count]
    assert "must hold method, node and kind" in fleet.ask("REQOpProcessStop", *words)
    fleet.assert_alive()


def test_032_a_pong_that_answers_nothing_is_no_crash(fleet):
    before = fleet.daemon.worker(f"{PONG}_subscriber")
    fleet.publish(PONG, body("central", "ship1", "REQPong", [""], file_name="f"), wait_s=5)
    fleet.daemon.wait_until(
        lambda _: (
            sum(fleet.daemon.worker(f"{PONG}_subscriber")[name] for name in ("handled", "failed"))
            > before["handled"] + before["failed"]
        )
    )
    fleet.assert_alive()


def test_033_a_source_that_cannot_be_looked_at_is_a_plain_failure(fleet):
    (fleet.work / "plain").write_text("x")
    lines = fleet.ask("REQCopyFileFrom", f"{fleet.work}/plain/below", "ship1", f"{fleet.work}/033")
    assert '"exit_status":"failed' in lines
    fleet.assert_alive()


def test_034_a_followed_file_may_be_removed_and_made_again(solo):
    # not on the fleet, where others would wait for the end of it
    path = solo.config_path.parent / "rotated.log"
    path.write_text("")
    out = solo.data("tail", "solo", "tail.out")
    solo.send({
        "from_node": "solo", "to_nodes": ["solo"], "method": "REQTailFile", "method_args": [str(path)],
        "directory": "tail", "file_name": "tail.out", "method_timeout": 60,
    })  # fmt: skip

    def write(text):
        with path.open("a") as file:
            file.write(text)

    def heard(text):
        return out.exists() and text in out.read_text()

    solo.wait_until(lambda _: write("first\n") or heard("first"))
    path.rename(path.with_name("rotated.log.1"))
    path.write_text("second\n")
    solo.wait_until(lambda _: heard("second"))
    assert solo.request("GET", "/livez")[0] == 200


def test_035_a_file_that_cannot_be_opened_is_a_plain_failure(fleet):
    assert '"exit_status":"failed' in fleet.ask("REQTailFile", str(fleet.work), method_timeout=1)
    fleet.assert_alive()


def test_036_an_idle_node_just_waits(fleet, tmp_path):
    text = f'version: 1\nbroker: {{servers: ["{fleet.url}"]}}\nnodes: {{idle: {{}}}}\n'
    with Appliance(text, tmp_path) as daemon:
        for _ in range(3):
            assert daemon.request("GET", "/metrics")[0] == 200
        assert daemon.status()["healthy"]
        assert daemon.stop() == 0


def test_037_clients_that_vanish_while_they_are_accepted_end_no_input(solo):
    port = int(solo.status()["inputs"]["tcp"]["listen"].rpartition(":")[2])
    for _ in range(50):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.connect(("127.0.0.1", port))
    assert len(tell(solo, GOOD.replace("early", "late").encode())["accepted"]) == 1


def test_038_a_port_in_use_refuses_the_reload_and_the_node_goes_on(solo):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        admin = f'admin: {{listen: "127.0.0.1:{taken.getsockname()[1]}"}}\n'
        problems = try_config(solo, solo.config_path.read_text() + admin)
    assert [problem["code"] for problem in problems] == ["E303"]
    assert solo.request("GET", "/livez")[0] == 200


def test_039_a_message_for_an_unknown_method_is_refused_and_nothing_ends(fleet):
    code, answer = fleet.daemon.request(
        "POST",
        "/api/v1/messages",
        [{"from_node": "central", "to_nodes": ["ship1"], "method": "REQPng"}],
    )
    assert (code, "did you mean" in str(answer)) == (422, True)
    fleet.assert_alive()


def test_040_a_metrics_port_in_use_at_the_start_is_told_in_a_line(fleet, tmp_path):
    # they stand on the unix socket too, which needs no port
    assert "appliance_build_info" in fleet.daemon.request("GET", "/metrics")[1]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = f'version: 1\nadmin: {{listen: "{address}"}}\nbroker: {{servers: ["{fleet.url}"]}}\nnodes: {{n: {{}}}}\n'
        daemon = Appliance(text, tmp_path)
        daemon.spawn()
        assert daemon.process.wait(60) == 69
    assert daemon.log().splitlines()[-1] == f"appliance: {address}: address already in use"


@pytest.mark.parametrize("schedule", ["every: 0s", "every: -1s", "cron: '0 0 30 2 *'"])
def test_041_a_schedule_of_nothing_is_refused_with_its_place(solo, schedule):
    text = solo.config_path.read_text().rstrip().removesuffix("}}")
    entry = f", publish: {{p: {{to: solo, method: REQToFile, {schedule}}}}}}}}}\n"
    (problem,) = try_config(solo, text + entry)
    assert (problem["line"], problem["column"] > 90) == (6, True)


def test_042_bytes_that_are_no_message_end_nothing(fleet):
    for raw in (b"", b"\x00", b"\xff" * 100, os.urandom(500), b"\x98\x19"):
        asyncio.run(fleet.exchange("ship1.REQPing.EventACK", raw))
    fleet.error_log("undecodable")
    fleet.assert_alive()


def test_043_a_copy_of_nothing_is_a_plain_failure(fleet):
    lines = fleet.ask(
        "REQCopyFileFrom", f"{fleet.work}/not-there", "ship1", f"{fleet.work}/043", "-5"
    )
    assert '"exit_status":"failed' in lines
    fleet.assert_alive()


def test_044_a_message_to_oneself_for_a_method_that_is_not_subscribed_waits(fleet):
    (sent,) = fleet.send("REQPing", to="local")
    assert sent["accepted"]
    fleet.assert_alive()
    pending = fleet.daemon.request("GET", "/api/v1/outbox")[1]["records"]
    assert sent["id"] in [record["id"] for record in pending]
    fleet.daemon.request("POST", "/api/v1/outbox/drop", {"ids": [sent["id"]], "pending": True})


def test_045_files_that_are_no_messages_harm_none_of_those_beside_them(solo):
    folder = solo.config_path.parent / "folder"

    def names(where):
        return {path.name for path in (folder / where).glob("?-*") if path.name in BEFORE_THE_START}

    solo.wait_until(lambda _: len(names("done") | names("failed")) == len(BEFORE_THE_START))
    assert names("done") == {"2-good", "5-good"}
    solo.wait_until(
        lambda _: (
            solo.data("solo", "early").exists() and solo.data("solo", "early").read_text() == "xx"
        )
    )


def test_046_a_damaged_store_is_told_and_not_touched(fleet, tmp_path):
    name = "store.db"
    assert (fleet.daemon.state / name).exists()
    daemon = Appliance("version: 1\nbroker: {embedded: true}\nnodes: {n: {}}\n", tmp_path)
    daemon.state.mkdir(mode=0o700)
    raw = b"this is no database at all" * 500
    (daemon.state / name).write_bytes(raw)
    daemon.spawn()
    assert daemon.process.wait(60) == 69
    assert "cannot run" in daemon.log()
    assert (daemon.state / name).read_bytes() == raw


def test_047_a_state_directory_that_is_not_there_is_made(solo):
    assert solo.state.is_dir()
    assert solo.send({"to_nodes": ["solo"], "method": "REQToFile", "file_name": "f"})[0]["accepted"]


def test_048_arguments_that_are_missing_are_named(fleet):
    for method in ("REQCopyFileFrom", "REQTailFile", "REQHttpGet", "REQOpProcessStart"):
        assert '"exit_status":"failed' in fleet.ask(method, method_timeout=1), method
    assert '"event":"refused"' in fleet.ask("REQCopyFileTo")
    fleet.assert_alive()


def test_050_a_shell_that_nobody_knows_is_not_run(solo):
    answer = tell(solo, GOOD.replace("{", '{"useDetectedShell": true, ').encode())
    assert answer["accepted"] == []
    assert "name the shell in `methodArgs`" in answer["problems"][0]["message"]


def test_052_truth_values_from_the_environment_are_checked_like_any(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "version: 1\nbroker:\n  embedded: ${EMBEDDED}\nreload:\n  watch: ${WATCH}\n"
        "inputs:\n  atomic: ${ATOMIC}\nnodes: {n: {}}\n"
    )

    def check(embedded, watch, atomic):
        values = {"EMBEDDED": embedded, "WATCH": watch, "ATOMIC": atomic}
        return forked.run(["check", config], env={**os.environ, **values})

    found = check("2", "maybe", "off")
    assert found.returncode == 78
    assert all(f"c.yaml:{place}" in found.stdout for place in ("3:13", "5:10", "7:11"))
    assert check("true", "false", "true").returncode == 0
    # and "false" is false: with `true` a broker is there, now none is
    found = check("false", "false", "false")
    assert (found.returncode, found.stdout.count(" error ")) == (78, 1)
    assert "no broker" in found.stdout
