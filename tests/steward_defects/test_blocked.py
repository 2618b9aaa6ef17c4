"""Defects 53 to 66 of the original: one message, node or stop that blocks everything else."""

import os
import time

import pytest

from tests.support.appliance import Appliance


def drop(fleet, *sent):
    fleet.daemon.request(
        "POST", "/api/v1/outbox/drop", {"ids": [item["id"] for item in sent], "pending": True}
    )


def test_053_a_silent_node_holds_up_nobody_else(fleet):
    sent = [*fleet.send("REQPing", to="ghost"), *fleet.send("REQPing", to="ghost")]
    started = time.monotonic()
    fleet.assert_alive()
    assert (
        time.monotonic() - started < 4
    )  # the silent node's acknowledgement would be waited for 5 s
    drop(fleet, *sent)


def test_054_a_message_too_large_for_the_broker_becomes_a_dead_letter_and_the_next_one_goes(fleet):
    (large,) = fleet.send("REQToFile", data=[os.urandom(1_500_000).hex()], file_name="large")
    fleet.daemon.wait_until(lambda status: status["outbox"]["dead"] == 1)
    (letter,) = fleet.daemon.request("GET", "/api/v1/outbox?state=dead")[1]["records"]
    assert letter["id"] == large["id"]
    assert "exceeds the broker's limit" in letter["reason"]
    assert '"event":"delivered"' in fleet.ask("REQToFile", data=["small"], file_name="small")
    fleet.daemon.request("POST", "/api/v1/outbox/drop")


@pytest.mark.parametrize("name", ["with blank", "", "a.*", "a..b", "x" * 300])
def test_055_a_name_that_makes_no_subject_is_refused_at_once(fleet, name):
    code, _ = fleet.daemon.request(
        "POST",
        "/api/v1/messages",
        [{"from_node": "central", "to_nodes": [name], "method": "REQPing"}],
    )
    assert code in (400, 422)
    assert fleet.daemon.status()["outbox"]["pending"] == 0


def test_056_a_publisher_that_is_stopped_while_it_is_busy_goes_on_when_it_is_started(tmp_path):
    text = """
version: 1
broker: {embedded: true}
reload: {settle: 20ms}
nodes:
  a:
    subscribe: {REQOpProcessStop: {}, REQToFileAppend: {}}
    publish: {files: {to: b, method: REQToFile}}
  b: {subscribe: {REQToFile: {}}}
"""
    with Appliance(text, tmp_path) as daemon:

        def message(name):
            return {
                "from_node": "a",
                "to_nodes": ["b"],
                "method": "REQToFile",
                "data": ["x"],
                "file_name": name,
            }

        for number in range(200):
            daemon.send(message(f"f{number}"))
        daemon.follow({"from_node": "a", "to_nodes": ["a"], "method": "REQOpProcessStop", "file_name": "o",
                       "method_args": ["REQToFile", "b", "publisher"]})  # fmt: skip
        daemon.send(message("last"))
        daemon.reload()
        daemon.wait_until(lambda status: status["outbox"]["pending"] == 0)
        daemon.wait_until(lambda _: daemon.data("b", "last").exists())
        assert all(daemon.data("b", f"f{number}").exists() for number in range(200))


def test_057_an_unknown_reply_method_is_a_report_and_blocks_nothing(fleet):
    from tests.steward_defects.fleet import body

    message = body(
        "ship1",
        "central",
        "REQCliCommand",
        [],
        method_args=["echo", "x"],
        reply_method="REQNothing",
    )
    assert fleet.publish("ship1.REQCliCommand.CommandACK", message, wait_s=5) is not None
    fleet.error_log("cannot reply to central: unknown method 'REQNothing'")
    fleet.assert_alive()


def test_058_what_is_not_accepted_stays_nowhere(fleet):
    fleet.settle()
    fleet.daemon.request(
        "POST",
        "/api/v1/messages",
        [{"from_node": "central", "to_nodes": ["ship1"], "method": "REQNothing"}],
    )
    status = fleet.daemon.status()
    assert (status["outbox"]["pending"], status["outbox"]["dead"]) == (0, 0)


def test_061_a_started_hello_subscriber_handles_what_it_gets(tmp_path):
    text = """
version: 1
broker: {embedded: true}
nodes:
  a:
    subscribe: {REQOpProcessStart: {}, REQToFileAppend: {}}
    publish: {hello: {to: b, method: REQHello, every: 200ms}}
  b: {subscribe: {REQHello: {}}}
"""
    with Appliance(text, tmp_path) as daemon:
        lines = daemon.follow({"from_node": "a", "to_nodes": ["a"], "method": "REQOpProcessStart",
                               "method_args": ["REQHello"], "file_name": "o"})  # fmt: skip
        assert "started" in lines
        daemon.wait_until(lambda _: daemon.worker("a.REQHello.EventNACK_subscriber"))
        daemon.send({"from_node": "b", "to_nodes": ["a"], "method": "REQHello", "data": ["x"]})
        daemon.wait_until(
            lambda _: daemon.worker("a.REQHello.EventNACK_subscriber")["handled"] == 1
        )


def test_062_a_failing_error_log_makes_no_storm_of_error_reports(fleet):
    from tests.steward_defects.fleet import body

    worker = "errorCentral.REQErrorLog.EventACK_subscriber"
    fleet.settle()
    before = fleet.daemon.worker(worker)
    fleet.publish("errorCentral.REQErrorLog.EventACK",
                  body("errorCentral", "ship1", "REQErrorLog", ["x"], directory="../..", file_name="../e"))  # fmt: skip
    fleet.assert_alive()
    fleet.settle()
    after = fleet.daemon.worker(worker)
    assert (
        after["handled"]
        + after["failed"]
        + after["refused"]
        - sum(before[name] for name in ("handled", "failed", "refused"))
        <= 1
    )


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
                               "method_args": ["sh", "-c", "sleep 60 & echo started"]})  # fmt: skip
        assert "started" in lines
        assert daemon.stop() == 0
        assert time.monotonic() - started < 15


def test_064_a_copy_that_cannot_be_written_is_answered(fleet):
    (fleet.work / "dir-064").mkdir()
    lines = fleet.ask("REQCopyFileTo", "x", "ship1", f"{fleet.work}/dir-064", data=["x"])
    assert '"unanswered":[]' in lines
    assert '"exit_status":"0"' not in lines


def test_065_a_second_daemon_on_the_same_state_says_so_and_ends(fleet, tmp_path):
    second = Appliance(None, tmp_path, config_path=fleet.daemon.config_path)
    second.state = fleet.daemon.state
    second.spawn()
    assert second.process.wait(30) == 69
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
        for number in range(300):
            daemon.send(
                {"to_nodes": ["a"], "method": "REQToFile", "data": ["x"], "file_name": f"f{number}"}
            )
        assert daemon.stop() == 0
        daemon.start()
        daemon.wait_until(lambda status: status["outbox"]["pending"] == 0)
        daemon.wait_until(
            lambda _: all(daemon.data("a", f"f{number}").exists() for number in range(300))
        )
