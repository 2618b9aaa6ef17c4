"""What a sender sees: delivered, refused, waiting for an absent node, dead; and what survives a restart."""

import pytest

from tests.support.appliance import Appliance

CONFIG = """
version: 1
broker: {embedded: true}
reload: {settle: 1ms, watch: false, poll_interval: 10m}
defaults: {ack: {timeout: 5s, retries: 3}}
nodes:
  central: {subscribe: {REQToFileAppend: {}, REQErrorLog: {}}}
  ship1:
    subscribe:
      REQCliCommand: {accept_from: [central], allow_commands: [[echo, "**"], [sh, -c, "*"], [sleep, "*"]]}
      REQPing: {}
  ship2: {}
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with Appliance(CONFIG, tmp_path_factory.mktemp("delivery")) as appliance:
        yield appliance


def command(*argv, to="ship1", **fields):
    return {"from_node": "central", "to_nodes": [to], "method": "REQCliCommand", "method_args": list(argv),
            "directory": "replies", "file_name": "out.log", **fields}  # fmt: skip


def settled(status):
    return status["outbox"]["pending"] == 0 and status["inbox"]["unfinished"] == 0


def test_a_command_runs_and_its_output_comes_back_as_a_file(daemon):
    daemon.send(command("echo", "one", "two", file_name="echo.log"))
    reply = daemon.data("replies", "ship1", "echo.log")
    daemon.wait_until(lambda status: settled(status) and reply.exists())
    assert reply.read_text() == "one two\n"


def test_output_that_is_not_utf8_comes_back_byte_for_byte(daemon):
    daemon.send(command("sh", "-c", r"printf '\377\000\376'", file_name="bytes.log"))
    reply = daemon.data("replies", "ship1", "bytes.log")
    daemon.wait_until(lambda status: settled(status) and reply.exists())
    assert reply.read_bytes() == b"\xff\x00\xfe"


def test_exit_status_and_stderr_of_a_failed_command_reach_the_error_log(daemon):
    daemon.send(command("sh", "-c", "echo trouble >&2; exit 3", file_name="failed.log"))
    log = daemon.data("errorLog", "errorCentral", "error.log")
    daemon.wait_until(
        lambda status: settled(status) and log.exists() and "trouble" in log.read_text()
    )
    assert "3" in log.read_text()


def test_a_command_that_is_not_allowed_does_not_run_and_says_so(daemon):
    marker = daemon.state / "ran"
    daemon.send(command("touch", str(marker)))
    log = daemon.data("errorLog", "errorCentral", "error.log")
    daemon.wait_until(
        lambda status: settled(status) and log.exists() and "touch" in log.read_text()
    )
    assert not marker.exists()


def test_a_message_to_an_absent_subscriber_waits_and_goes_out_when_one_appears(daemon):
    daemon.send({"from_node": "central", "to_nodes": ["ship2"], "method": "REQToFile",
                 "directory": "d", "file_name": "late.txt", "data": ["late"]})  # fmt: skip
    daemon.wait_until(
        lambda _: (daemon.worker("ship2.REQToFile.EventACK_publisher") or {}).get("missed", 0) >= 2
    )
    assert daemon.status()["outbox"] | {"oldest_seconds": 0} == {
        "pending": 1, "in_flight": 1, "dead": 0, "oldest_seconds": 0,
    }  # fmt: skip
    daemon.write_config(CONFIG.replace("ship2: {}", "ship2: {subscribe: {REQToFile: {}}}"))
    assert daemon.reload()["result"] == "applied"
    daemon.wait_until(settled)
    assert daemon.data("d", "ship2", "late.txt").read_text() == "late"
    daemon.write_config(CONFIG)
    daemon.reload(force=True)


def test_a_refused_message_becomes_a_dead_letter_with_the_receivers_words(daemon):
    daemon.send({**command("echo", "x"), "from_node": "ship2"})
    daemon.wait_until(lambda status: status["outbox"]["dead"] == 1)
    body = daemon.request("GET", "/api/v1/outbox?state=dead")[1]
    [letter] = body["records"] if isinstance(body, dict) else body
    assert "accept_from" in letter["reason"]
    assert daemon.request("POST", "/api/v1/outbox/drop", {})[0] == 200
    assert daemon.status()["outbox"]["dead"] == 0


def test_an_expired_message_becomes_a_dead_letter(daemon):
    daemon.send(
        {"from_node": "central", "to_nodes": ["ship2"], "method": "REQPing", "expires": 0.3}
    )
    daemon.wait_until(lambda status: status["outbox"]["dead"] == 1)
    body = daemon.request("GET", "/api/v1/outbox?state=dead")[1]
    [letter] = body["records"] if isinstance(body, dict) else body
    assert "expired" in letter["reason"]
    daemon.request("POST", "/api/v1/outbox/drop", {})


@pytest.mark.parametrize("is_sent_together", [True, False])
def test_a_message_that_expires_behind_another_becomes_a_dead_letter_too(daemon, is_sent_together):
    """Behind: in the lane while the other one probes, or in the window with it, tried once and waiting for its turn."""
    waiting = {
        "from_node": "central",
        "to_nodes": ["ship2"],
        "method": "REQToConsole",
        "data": ["x"],
    }
    late = {**waiting, "expires": "300ms"}
    if is_sent_together:
        first, _ = daemon.send(waiting, late)
    else:
        [first] = daemon.send(waiting)
        worker = "ship2.REQToConsole.EventACK_publisher"
        daemon.wait_until(lambda _: (daemon.worker(worker) or {}).get("missed", 0) >= 1)
        daemon.send(late)
    daemon.wait_until(lambda status: status["outbox"]["dead"] == 1)
    body = daemon.request("GET", "/api/v1/outbox?state=dead")[1]
    [letter] = body["records"] if isinstance(body, dict) else body
    assert letter["reason"].startswith("expired: no acknowledgement within 0.3 s")
    daemon.request("POST", "/api/v1/outbox/drop", {})
    daemon.request("POST", "/api/v1/outbox/drop", {"ids": [first["id"]], "pending": True})
    daemon.wait_until(settled)  # the report of the dead letter goes its way


def test_a_dropped_message_is_never_sent_again(daemon):
    [dropped, kept] = daemon.send(
        *({"from_node": "central", "to_nodes": ["ship2"], "method": "REQToFile", "directory": "drop",
           "file_name": name, "data": ["x"]} for name in ("dropped.txt", "kept.txt"))
    )  # fmt: skip
    worker = "ship2.REQToFile.EventACK_publisher"
    daemon.wait_until(lambda _: (daemon.worker(worker) or {}).get("missed", 0) >= 2)
    assert kept["accepted"]
    assert (
        daemon.request("POST", "/api/v1/outbox/drop", {"ids": [dropped["id"]], "pending": True})[0]
        == 200
    )
    daemon.write_config(CONFIG.replace("ship2: {}", "ship2: {subscribe: {REQToFile: {}}}"))
    daemon.reload()
    daemon.wait_until(
        lambda status: settled(status) and daemon.data("drop", "ship2", "kept.txt").exists()
    )
    assert not daemon.data("drop", "ship2", "dropped.txt").exists()
    daemon.write_config(CONFIG)
    daemon.reload(force=True)


def test_durations_of_the_api_reach_the_message(daemon):
    fields = ("ack_timeout", "method_timeout", "reply_ack_timeout", "reply_method_timeout")
    [answer] = daemon.send(
        command("echo", "in time", file_name="t.log", **dict.fromkeys(fields, "2s"))
    )
    assert answer["accepted"]
    daemon.wait_until(
        lambda status: settled(status) and daemon.data("replies", "ship1", "t.log").exists()
    )


def test_a_file_name_that_leads_out_is_refused_before_it_is_accepted(daemon):
    code, body = daemon.request(
        "POST",
        "/api/v1/messages",
        [
            {
                "from_node": "central",
                "to_nodes": ["ship1"],
                "method": "REQToFile",
                "file_name": "../x",
            }
        ],
    )
    assert code == 422
    assert "file" in body["messages"][0]["error"]


def test_what_waits_survives_a_kill_and_is_delivered_by_the_next_run(tmp_path):
    appliance = Appliance(CONFIG, tmp_path)
    appliance.start()
    appliance.send({"from_node": "central", "to_nodes": ["ship2"], "method": "REQToFile",
                    "directory": "d", "file_name": "kept.txt", "data": ["kept"]})  # fmt: skip
    appliance.kill()
    appliance.config_path.write_text(
        CONFIG.replace("ship2: {}", "ship2: {subscribe: {REQToFile: {}}}")
    )
    with appliance:
        appliance.wait_until(settled)
        assert appliance.data("d", "ship2", "kept.txt").read_text() == "kept"


def test_a_command_that_a_kill_interrupts_is_reported_and_not_run_again(tmp_path):
    appliance = Appliance(CONFIG, tmp_path)
    appliance.start()
    runs = tmp_path / "runs"
    appliance.send(command("sh", "-c", f"echo run >> {runs}; sleep 30"))
    appliance.wait_until(lambda _: runs.exists())
    appliance.kill()
    with appliance:
        log = appliance.data("errorLog", "errorCentral", "error.log")
        appliance.wait_until(lambda status: settled(status) and log.exists())
        assert "interrupted" in log.read_text()
        assert runs.read_text() == "run\n"


def test_a_second_daemon_on_the_same_state_is_turned_away(daemon, tmp_path):
    second = Appliance(CONFIG, tmp_path)
    second.state = daemon.state
    second.spawn()
    assert second.process.wait(60) == 69
    assert f"in use by process {daemon.process.pid}" in second.log()
    assert daemon.status()["healthy"] in (True, False)


def test_what_was_given_up_is_told_to_error_central(daemon):
    # long enough for the broker to say that nobody is there, however busy the machine is
    (sent,) = daemon.send(command("echo", "never", to="ship2", expires=3.0))
    log = daemon.data("errorLog", "errorCentral", "error.log")
    words = (
        f"gave up message {sent['id']}, REQCliCommand to ship2 on ship2.REQCliCommand.CommandACK: "
    )
    daemon.wait_until(lambda _: log.exists() and words in log.read_text())
    (line,) = [line for line in log.read_text().splitlines() if words in line]
    assert "nobody there" in line.partition(words)[2]


UNHEARD = """
version: 1
broker: {embedded: true}
defaults: {ack: {expires: 1s}}
nodes:
  central: {subscribe: {REQToFileAppend: {}}}
  ship1: {subscribe: {REQCliCommand: {accept_from: [central], allow_commands: [[uptime]]}}}
"""


def test_reports_that_nobody_takes_end_as_a_number_and_no_dead_letter(tmp_path):
    with Appliance(UNHEARD, tmp_path) as appliance:
        appliance.send(command("reboot"))

        def lost() -> bool:
            text = appliance.request("GET", "/metrics")[1]
            return "\nappliance_error_reports_lost_total 0.0\n" not in str(text)

        appliance.wait_until(lambda status: lost() and status["outbox"]["pending"] == 0)
        dead = appliance.request("GET", "/api/v1/outbox?state=dead")[1]["records"]
        assert dead == []


def test_a_broker_of_its_own_that_finds_no_room_is_waited_for_and_keeps_nobody_from_sending(
    tmp_path,
):
    text = UNHEARD.replace("expires: 1s", "expires: 1h").replace("true", "{secured: true}")
    daemon = Appliance(text, tmp_path)
    blocking = daemon.state / "broker/nats-server.pid/x"
    blocking.mkdir(parents=True)
    try:
        daemon.start(ready=False)
        daemon.wait_api()
        status = daemon.wait_until(lambda status: status["generation"])
        words = "not connected to the broker: the embedded broker ended at start: Could not write pidfile"
        assert status["degraded_by"][0].startswith(words)
        assert status["broker"]["error"] in status["degraded_by"][0]
        daemon.send(command("uptime"))
        blocking.rmdir()
        blocking.parent.rmdir()
        reply = daemon.data("replies", "ship1", "out.log")
        daemon.wait_until(lambda status: status["healthy"] and reply.exists())
    finally:
        daemon.close()
