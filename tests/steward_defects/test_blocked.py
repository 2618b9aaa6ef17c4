"""Defects 53 to 66 of the original: one message, node or stop that blocks everything else."""

import os
import time

import pytest

from tests.steward_defects.fleet import body
from tests.support.appliance import Appliance

pytestmark = pytest.mark.xdist_group("steward_defects_blocked")


def test_053_a_silent_node_holds_up_nobody_else(fleet):
    def act():
        sent = fleet.send("REQToFile", data=["x"], to="mute", ack_timeout=600)
        sent += fleet.send("REQToFile", data=["x"], to="mute", ack_timeout=600)
        sent += fleet.send("REQPing", to="ghost", ack_timeout=600)
        fleet.assert_alive()
        waiting = fleet.pending()
        fleet.drop(*sent)
        return [item["id"] in waiting for item in sent]

    still_waiting, _ = fleet.listen("mute.REQToFile.EventACK", act)
    assert all(still_waiting)


def test_054_a_message_too_large_for_the_broker_becomes_a_dead_letter_and_the_next_one_goes(fleet):
    (large,) = fleet.send("REQToFile", data=[os.urandom(1_500_000).hex()], file_name="large")
    assert '"event":"delivered"' in fleet.ask("REQToFile", data=["small"], file_name="small")
    (letter,) = fleet.wait_dead(large)
    assert "exceeds the broker's limit" in letter["reason"]
    fleet.drop(letter)


@pytest.mark.parametrize("name", ["with blank", "", "a.*", "a..b", "x" * 300])
def test_055_a_name_that_makes_no_subject_is_refused_at_once(fleet, name):
    before = fleet.pending()
    code, _ = fleet.daemon.request(
        "POST",
        "/api/v1/messages",
        [{"from_node": "central", "to_nodes": [name], "method": "REQPing"}],
    )
    assert code in (400, 422)
    assert set(fleet.pending()) <= set(before)


def test_056_a_publisher_that_is_stopped_while_it_is_busy_goes_on_when_it_is_started(fleet):
    def stop():
        return fleet.ask(
            "REQOpProcessStop", "REQToFile", "ship1", "publisher", to="central", file_name="stop"
        )

    messages = [
        {"from_node": "central", "to_nodes": ["ship1"], "method": "REQToFile", "data": ["x"],
         "directory": "many", "file_name": f"f{number}"}
        for number in range(100)
    ]  # fmt: skip
    fleet.daemon.send(*messages)
    assert "stopped" in stop()
    (last,) = fleet.send("REQToFile", data=["x"], file_name="last")
    fleet.assert_alive()
    assert last["id"] in fleet.pending()
    fleet.daemon.reload()
    fleet.settle()
    assert fleet.file("out", "ship1", "last").exists()
    assert all(fleet.file("many", "ship1", f"f{number}").exists() for number in range(100))


def test_057_an_unknown_reply_method_is_a_report_and_blocks_nothing(fleet):
    message = body("ship1", "central", "REQCliCommand", [], method_args=["echo", "x"],
                   reply_method="REQNothing")  # fmt: skip
    assert fleet.publish("ship1.REQCliCommand.CommandACK", message, wait_s=20) is not None
    fleet.error_log("cannot reply to central: unknown method 'REQNothing'")
    fleet.assert_alive()


def test_058_what_is_not_accepted_stays_nowhere(fleet):
    fleet.settle()
    before = fleet.pending(), fleet.dead()
    code, _ = fleet.daemon.request(
        "POST",
        "/api/v1/messages",
        [{"from_node": "central", "to_nodes": ["ship1"], "method": "REQNothing"}],
    )
    assert code == 422
    assert (fleet.pending(), fleet.dead()) == before


IMPATIENT = "from appliance.workers import publisher; publisher.IDLE_RETIRE_S = 0.01"


def test_060_a_message_for_a_publisher_that_is_just_retiring_is_sent(fleet, tmp_path):
    text = f"""
version: 1
broker: {{servers: ["{fleet.url}"]}}
reload: {{settle: 0s, poll_interval: 50ms}}
nodes: {{busy: {{subscribe: {{REQToFileAppend: {{}}}}}}}}
"""
    daemon = Appliance(text, tmp_path)
    daemon.before = IMPATIENT
    with daemon:
        worker = "busy.REQToFileAppend.EventACK_publisher"
        message = {
            "to_nodes": ["busy"],
            "method": "REQToFileAppend",
            "data": ["x"],
            "file_name": "f",
        }
        made: set[str | None] = set()
        sent = 0
        while len(made) <= 5:  # until it did come and go
            daemon.send(message)
            sent += 1
            daemon.wait_until(lambda status: status["outbox"]["pending"] == 0)
            made.add((daemon.worker(worker) or {}).get("since"))
        daemon.wait_until(lambda _: len(daemon.data("busy", "f").read_bytes()) == sent)


def test_061_a_started_hello_subscriber_handles_what_it_gets(fleet):
    assert "started" in fleet.ask("REQOpProcessStart", "REQHello")
    worker = "ship1.REQHello.EventNACK_subscriber"
    fleet.daemon.wait_until(lambda _: (fleet.daemon.worker(worker) or {}).get("phase") == "running")
    fleet.send("REQHello", data=["x"])
    fleet.daemon.wait_until(lambda _: fleet.daemon.worker(worker)["handled"] == 1)
    fleet.daemon.reload()


def test_062_a_failing_error_log_makes_no_storm_of_error_reports(fleet):
    worker = "errorCentral.REQErrorLog.EventACK_subscriber"

    def told():
        found = fleet.daemon.worker(worker)
        return sum(found[name] for name in ("handled", "failed", "refused"))

    fleet.settle()
    before = told(), fleet.daemon.worker(worker)["failed"]
    message = body(
        "errorCentral", "ship1", "REQErrorLog", ["x"], directory="../..", file_name="../e"
    )
    fleet.publish("errorCentral.REQErrorLog.EventACK", message, wait_s=20)
    fleet.daemon.wait_until(lambda _: fleet.daemon.worker(worker)["failed"] == before[1] + 1)
    fleet.assert_alive()
    fleet.settle()
    assert told() == before[0] + 1


def test_063_a_program_whose_children_live_on_delays_no_answer_and_no_stop(tmp_path):
    text = """
version: 1
broker: {embedded: true}
nodes:
  a:
    subscribe:
      REQToFileAppend: {}
      REQCliCommand: {allow_commands: [[sh, -c, "*"]]}
"""
    with Appliance(text, tmp_path) as daemon:
        started = time.monotonic()
        lines = daemon.follow({"from_node": "a", "to_nodes": ["a"], "method": "REQCliCommand", "file_name": "o",
                               "method_timeout": 600, "method_args": ["sh", "-c", "sleep 600 & echo started"]})  # fmt: skip
        assert '"exit_status":"0"' in lines
        assert daemon.stop() == 0
        assert time.monotonic() - started < 60


def test_064_a_copy_that_cannot_be_written_is_answered(fleet):
    (fleet.work / "dir-064").mkdir()
    lines = fleet.ask("REQCopyFileTo", "x", "ship1", f"{fleet.work}/dir-064", data=["x"])
    assert '"unanswered":[]' in lines
    assert '"exit_status":"0"' not in lines


def test_065_a_second_daemon_on_the_same_state_says_so_and_ends(fleet, tmp_path):
    second = Appliance(None, tmp_path, config_path=fleet.daemon.config_path)
    second.state = fleet.daemon.state
    second.spawn()
    assert second.process.wait(60) == 69
    assert "in use by process" in second.log()
    fleet.assert_alive()


def test_066_a_stop_finishes_what_is_in_hand_and_keeps_the_rest(tmp_path):
    text = """
version: 1
broker: {embedded: true}
nodes:
  a: {subscribe: {REQToFile: {}, REQToFileAppend: {}, REQCliCommand: {allow_commands: [[sh, -c, "*"]]}}}
"""
    daemon = Appliance(text, tmp_path)
    with daemon:
        daemon.send(*[
            {"to_nodes": ["a"], "method": "REQToFile", "data": ["x"], "file_name": f"f{number}"}
            for number in range(100)
        ])  # fmt: skip
        assert daemon.stop() == 0
        daemon.start()
        daemon.wait_until(lambda status: status["outbox"]["pending"] == 0)
        daemon.wait_until(
            lambda _: all(daemon.data("a", f"f{number}").exists() for number in range(100))
        )
