"""Defects 99 to 113 of the original: methods that did not do what they say."""

import json
import os
import stat
import time

import pytest

from tests.steward_defects.fleet import body

pytestmark = pytest.mark.xdist_group("steward_defects_methods")


def replies(lines):
    """The pieces of an answer."""
    found = [json.loads(line) for line in lines.splitlines()]
    return [item for item in found if item["event"] == "reply"]


def test_099_a_page_is_fetched_within_its_seconds_and_a_failure_is_told_once(fleet):
    assert '"data":"page"' in fleet.ask("REQHttpGet", f"{fleet.page}/here", method_timeout=10)
    fleet.settle()
    worker = "errorCentral.REQErrorLog.EventACK_subscriber"
    before = fleet.daemon.worker(worker)["handled"]
    assert '"exit_status":"failed' in fleet.ask("REQHttpGet", f"{fleet.page}/missing")
    fleet.settle()
    assert fleet.daemon.worker(worker)["handled"] == before + 1


def test_100_data_for_a_command_leaves_its_environment_and_arguments_as_they_are(fleet):
    lines = fleet.ask("REQCliCommand", "sh", "-c", 'echo "$PATH|{{STEWARD_DATA}}"', data=["given"])
    path, _, given = replies(lines)[0]["data"].strip().rpartition("|")
    assert (path, given) == (os.environ["PATH"], "given")
    too_large = fleet.ask(
        "REQCliCommand", "sh", "-c", "echo {{STEWARD_DATA}}", data=["x" * 200_000]
    )
    assert '"exit_status":"failed' in too_large


def test_101_a_failing_command_answers_with_its_status_and_its_errors(fleet):
    (reply,) = replies(fleet.ask("REQCliCommand", "sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (reply["data"], reply["stderr"], reply["exit_status"]) == ("out\n", "err\n", "3")
    (late,) = replies(
        fleet.ask("REQCliCommand", "sh", "-c", "echo begun; sleep 30", method_timeout=3)
    )
    assert late["exit_status"] == "124"
    assert late["data"].startswith("begun\n")


def test_102_the_time_limit_ends_a_command_and_all_it_started(fleet):
    mark = fleet.work / "pid-102"
    fleet.ask("REQCliCommand", "sh", "-c", f"sleep 60 & echo $! > {mark}; wait", method_timeout=3)
    pid = int(mark.read_text())
    fleet.daemon.wait_until(lambda _: not os.path.exists(f"/proc/{pid}") or "Z" in state_of(pid))


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_103_a_long_command_ends_with_its_program_in_order_and_whole(fleet):
    started = time.monotonic()
    script = "for n in 1 2 3 4 5; do echo $n; done; head -c 100000 /dev/zero | tr '\\0' x; echo; echo end"
    got = replies(fleet.ask("REQCliCommandCont", "sh", "-c", script, method_timeout=60))
    assert time.monotonic() - started < 30
    text = "".join(item["data"] for item in got)
    assert text == "1\n2\n3\n4\n5\n" + "x" * 100_000 + "\nend\n"
    assert got[-1]["exit_status"] == "0"
    assert '"exit_status":"failed' in fleet.ask("REQCliCommandCont", "no-such-program")


def test_104_an_answer_names_the_path_as_text(fleet):
    lines = fleet.ask("REQCopyFileTo", "x", "ship1", f"{fleet.work}/named-104", data=["x"])
    assert f"{fleet.work}/named-104" in replies(lines)[0]["data"]


def test_105_a_copy_is_told_when_it_is_there_and_not_before(fleet):
    source = fleet.work / "source-105"
    source.write_text("x")
    fleet.ask("REQCopyFileFrom", str(source), "ship1", f"{fleet.work}/target-105")
    assert (fleet.work / "target-105").exists()
    lines = fleet.ask("REQCopyFileFrom", str(source), "ship1", "/forbidden/target-105")
    assert '"exit_status":"failed' in lines


def test_106_output_and_pages_are_bounded_and_say_so(fleet):
    (reply,) = replies(
        fleet.ask("REQCliCommand", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
    )
    assert (len(reply["data"]), reply["truncated"]) == (524_288, True)
    assert "cut" in fleet.ask("REQHttpGet", f"{fleet.page}/large")


def test_107_a_followed_file_is_let_go_when_its_time_is_over(fleet):
    path = fleet.work / "followed-107"
    path.write_text("x\n")

    def holds():
        folder = f"/proc/{fleet.daemon.process.pid}/fd"
        names = []
        for name in os.listdir(folder):
            try:
                names.append(os.readlink(f"{folder}/{name}"))
            except OSError:
                continue
        return str(path) in names

    fleet.send("REQTailFile", str(path), method_timeout=4)
    fleet.daemon.wait_until(lambda _: holds())
    fleet.daemon.wait_until(lambda _: not holds())


def test_108_a_ping_without_a_file_is_answered_and_writes_over_nothing(fleet):
    assert '"event":"reply"' in fleet.ask(
        "REQPing", file_name="", directory="", reply_method="REQPong"
    )
    kept = fleet.file("out", "ship1", "kept")
    fleet.ask("REQToFile", data=["mine"], file_name="kept")
    fleet.ask("REQPing", file_name="kept", reply_method="REQPong")
    fleet.settle()
    assert kept.read_text().startswith("mine")


def test_109_logs_of_hellos_and_errors_do_not_grow_without_end(fleet):
    log = fleet.file("hello-messages", "ship1", "hello.log")
    fleet.publish("central.REQHello.EventNACK", body("central", "ship1", "REQHello", ["x"]))
    fleet.wait_for(log)
    with log.open("ab") as file:
        file.truncate(200 * 1024 * 1024)  # sparse: as if it had grown for years
    fleet.publish("central.REQHello.EventNACK", body("central", "ship1", "REQHello", ["after"]))
    # it is moved aside, and for a moment there is none
    fleet.daemon.wait_until(lambda _: log.exists() and log.stat().st_size < 1024 * 1024)


def test_110_data_goes_into_the_socket(fleet):
    import socket

    path = str(fleet.work / "socket-110")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(60)
        fleet.send("REQToSocket", path, data=["into it"])
        connection, _ = server.accept()
        with connection:
            assert connection.makefile().read() == "into it"


@pytest.mark.parametrize("method", ["REQOpProcessStop", "REQOpProcessStart", "REQOpProcessList"])
def test_111_the_methods_that_operate_a_node_cannot_be_stopped_from_afar(fleet, method):
    assert "nobody could start it again" in fleet.ask(
        "REQOpProcessStop", method, "ship1", "subscriber"
    )


def test_112_signs_in_an_argument_are_plain_text_in_errors(fleet):
    fleet.ask("REQOpProcessStart", "%s%d{}%n")
    assert "%s%d{}%n" in fleet.error_log("%s%d{}%n")


def test_113_a_file_is_replaced_whole_with_a_mode_that_runs_nothing(fleet):
    fleet.ask("REQToFile", data=["one"], file_name="whole")
    file = fleet.file("out", "ship1", "whole")
    fleet.wait_for(file)
    before = file.stat()
    fleet.ask("REQToFile", data=["two"], file_name="whole")
    fleet.wait_for(file, "two")
    assert file.stat().st_ino != before.st_ino
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
