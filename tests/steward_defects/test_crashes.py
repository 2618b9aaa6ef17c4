"""Defects 30 to 52 of the original: messages, files and settings that ended the whole node."""

import asyncio
import os
import subprocess
import sys

import pytest

from tests.steward_defects.fleet import body
from tests.support.appliance import Appliance

PONG = "central.REQPong.EventACK"
STOP = "ship1.REQOpProcessStop.CommandACK"


def run(text, tmp_path):
    """Start a daemon that should end by itself: its exit code and its log."""
    daemon = Appliance(text, tmp_path)
    daemon.spawn()
    return daemon.process.wait(30), daemon.log()


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


def test_034_a_followed_file_may_be_removed_and_made_again(fleet):
    path = fleet.work / "rotated.log"
    path.write_text("")
    out = fleet.file("tail", "ship1", "tail.out")
    fleet.send("REQTailFile", str(path), directory="tail", file_name="tail.out", method_timeout=8)

    def write(text):
        with path.open("a") as file:
            file.write(text)

    def heard(text):
        return out.exists() and text in out.read_text()

    fleet.daemon.wait_until(lambda _: write("first\n") or heard("first"))
    path.rename(fleet.work / "rotated.log.1")
    path.write_text("second\n")
    fleet.daemon.wait_until(lambda _: heard("second"))
    fleet.assert_alive()


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


def test_037_clients_that_vanish_while_they_are_accepted_end_no_input(fleet, tmp_path):
    import socket
    import struct

    text = f"""
version: 1
broker: {{servers: ["{fleet.url}"]}}
inputs: {{tcp: {{listen: "127.0.0.1:0"}}}}
nodes: {{solo: {{subscribe: {{REQToFile: {{}}}}}}}}
"""
    with Appliance(text, tmp_path) as daemon:
        port = int(daemon.status()["inputs"]["tcp"]["listen"].rpartition(":")[2])
        for _ in range(50):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.connect(("127.0.0.1", port))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(
                b'[{"toNode": "solo", "method": "REQToFile", "fileName": "f", "data": ["x"]}]'
            )
            client.shutdown(socket.SHUT_WR)
            assert b'"accepted":[{' in client.makefile("rb").read().replace(b" ", b"")


def test_038_a_port_in_use_refuses_the_reload_and_the_node_goes_on(fleet, tmp_path):
    import socket

    def text(admin=""):
        return f'version: 1\n{admin}broker: {{servers: ["{fleet.url}"]}}\nreload: {{settle: 20ms}}\nnodes: {{n: {{}}}}\n'

    with socket.socket() as taken, Appliance(text(), tmp_path) as daemon:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon.write_config(text(f'admin: {{listen: "127.0.0.1:{taken.getsockname()[1]}"}}\n'))
        verdict = daemon.reload()
        assert [problem["code"] for problem in verdict["problems"]] == ["E303"]
        assert daemon.request("GET", "/livez")[0] == 200


def test_039_a_message_for_an_unknown_method_is_refused_and_nothing_ends(fleet):
    code, answer = fleet.daemon.request(
        "POST",
        "/api/v1/messages",
        [{"from_node": "central", "to_nodes": ["ship1"], "method": "REQPng"}],
    )
    assert (code, "did you mean" in str(answer)) == (422, True)
    fleet.assert_alive()


def test_040_metrics_need_no_listener_of_their_own(fleet):
    # they stand on the unix socket whatever becomes of a TCP listener, see 009 and 038
    assert "appliance_build_info" in fleet.daemon.request("GET", "/metrics")[1]


def test_041_a_schedule_of_nothing_is_refused_with_its_place(tmp_path):
    code, log = run(
        "version: 1\nbroker: {embedded: true}\nnodes:\n  a:\n    subscribe: {REQPing: {}}\n"
        "    publish: {p: {to: a, method: REQPing, every: 0s}}\n",
        tmp_path,
    )
    assert code == 78
    assert "appliance.yaml:6:" in log


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


def test_046_a_damaged_store_is_told_and_not_touched(tmp_path):
    text = "version: 1\nbroker: {embedded: true}\nnodes: {n: {}}\n"
    with Appliance(text, tmp_path) as daemon:
        (store,) = [path for path in daemon.state.iterdir() if path.suffix in (".db", ".sqlite")]
    raw = b"this is no database at all" * 500
    store.write_bytes(raw)
    code, log = run(text, tmp_path)
    assert code == 69
    assert "cannot run" in log
    assert store.read_bytes() == raw


def test_048_arguments_that_are_missing_are_named(fleet):
    for method in ("REQCopyFileFrom", "REQTailFile", "REQHttpGet", "REQOpProcessStart"):
        assert '"exit_status":"failed' in fleet.ask(method, method_timeout=1), method
    assert '"event":"refused"' in fleet.ask("REQCopyFileTo")
    fleet.assert_alive()


@pytest.mark.parametrize("value", ["maybe", "off", "2"])
def test_052_a_truth_value_from_the_environment_is_checked_like_any(tmp_path, value):
    (tmp_path / "c.yaml").write_text(
        "version: 1\nbroker: {embedded: true}\nreload: {watch: '${WATCH}'}\nnodes: {n: {}}\n"
    )
    found = subprocess.run([sys.executable, "-m", "appliance", "check", tmp_path / "c.yaml"],
                           env={**os.environ, "WATCH": value}, capture_output=True, text=True, check=False)  # fmt: skip
    assert found.returncode == 78
    assert ":3:17" in found.stdout + found.stderr
