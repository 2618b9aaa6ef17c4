"""Workers started and stopped from afar: shown as drift, kept over a restart, cleared by the next reload."""

import pytest

from tests.support.appliance import Appliance

CONFIG = """
version: 1
broker: {embedded: true}
reload: {settle: 1ms, watch: false, poll_interval: 10m, overrides: clear}
nodes:
  central:
    subscribe: {REQToFile: {}, REQToFileAppend: {}, REQErrorLog: {}}
    publish: {beat: {to: ship1, method: REQToConsole, every: 1h, data: [beat]}}
  ship1:
    subscribe:
      REQOpProcessList: {accept_from: [central]}
      REQOpProcessStart: {accept_from: [central]}
      REQOpProcessStop: {accept_from: [central]}
      REQToConsole: {}
      REQPing: {}
      REQCliCommand: {enabled: false, accept_from: [central], allow_commands: [[echo, "**"]]}
"""
PING = "ship1.REQPing.EventACK_subscriber"
COMMAND = "ship1.REQCliCommand.CommandACK_subscriber"
HELLO = "ship1.REQHello.EventNACK_subscriber"


@pytest.fixture
def daemon(tmp_path):
    with Appliance(CONFIG, tmp_path) as appliance:
        yield appliance


def ask(daemon, method, *arguments):
    """Send to ship1 and return what it answered."""
    return daemon.follow(
        {"from_node": "central", "to_nodes": ["ship1"], "method": method, "method_args": list(arguments),
         "directory": "op", "file_name": "op.log"}
    )  # fmt: skip


def phase(daemon, name):
    worker = daemon.worker(name)
    return worker and worker["phase"]


def test_a_stopped_worker_is_drift_until_the_next_reload(daemon):
    assert "stopped, against the config" in ask(
        daemon, "REQOpProcessStop", "REQPing", "ship1", "subscriber"
    )
    status = daemon.wait_until(lambda status: phase(daemon, PING) == "stopped")
    assert [(item["worker"], item["action"], item["by"]) for item in status["overrides"]] == [
        (PING, "stopped", "central")
    ]
    assert status["healthy"]
    assert daemon.worker(PING)["override"] == "stopped"
    plan = daemon.request("GET", "/api/v1/plan")[1]
    assert [(item["action"], item["worker"]) for item in plan["actions"]] == [("spawn", PING)]
    assert plan["overrides"][0]["worker"] == PING
    verdict = daemon.reload()
    assert (verdict["result"], verdict["generation"]) == ("applied", status["generation"])
    assert phase(daemon, PING) == "running"
    assert daemon.status()["overrides"] == []
    assert daemon.reload()["result"] == "unchanged"


def test_an_entry_that_is_switched_off_is_started_with_its_settings(daemon):
    assert phase(daemon, COMMAND) is None
    assert "beside the config" in ask(daemon, "REQOpProcessStart", "REQCliCommand")
    daemon.wait_until(lambda status: phase(daemon, COMMAND) == "running")
    assert "hello" in ask(daemon, "REQCliCommand", "echo", "hello")
    assert "runs already" in ask(daemon, "REQOpProcessStart", "REQCliCommand")
    assert len(daemon.status()["overrides"]) == 1
    assert "stopped" in ask(daemon, "REQOpProcessStop", "REQCliCommand", "ship1", "subscriber")
    daemon.wait_until(lambda status: phase(daemon, COMMAND) is None and not status["overrides"])


def test_overrides_outlive_a_crash_and_stand_until_the_config_changes(daemon):
    ask(daemon, "REQOpProcessStop", "REQPing", "ship1", "subscriber")
    ask(daemon, "REQOpProcessStart", "REQHello")
    daemon.wait_until(lambda status: phase(daemon, HELLO) == "running")
    daemon.kill()
    daemon.start()
    daemon.wait_until(
        lambda status: phase(daemon, HELLO) == "running" and phase(daemon, PING) == "stopped"
    )
    daemon.write_config(CONFIG.replace("overrides: clear", "overrides: keep"))
    assert daemon.reload()["generation"] == 2
    assert phase(daemon, PING) == "stopped"
    daemon.write_config(CONFIG.replace("every: 1h", "every: 2h"))
    assert daemon.reload()["generation"] == 3
    daemon.wait_until(lambda status: not status["overrides"])
    daemon.wait_until(lambda status: phase(daemon, PING) == "running")
    assert phase(daemon, HELLO) is None


def test_a_publisher_is_stopped_at_the_node_that_sends(daemon):
    words = ask(daemon, "REQOpProcessStop", "REQToConsole", "ship1", "publisher")
    assert "runs no publisher of REQToConsole for ship1" in words  # it is central's, not ship1's
    daemon.send(
        {
            "from_node": "ship1",
            "to_nodes": ["central"],
            "method": "REQToFile",
            "data": ["x"],
            "file_name": "f",
        }
    )
    daemon.wait_until(lambda status: status["outbox"]["pending"] == 0)
    words = ask(daemon, "REQOpProcessStop", "REQToFile", "central", "publisher")
    assert "runs no publisher" in words  # made on demand: there is nothing declared to stop


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("REQOpProcessStop", ["REQOpProcessStart", "ship1", "subscriber"], "nobody could start it again"),
        ("REQOpProcessStop", ["REQPing"], "must hold method, node and kind"),
        ("REQOpProcessStop", ["REQPing", "ship1", "both"], "subscriber or publisher"),
        ("REQOpProcessStop", ["REQNothing", "ship1", "subscriber"], "unknown method"),
        ("REQOpProcessStop", ["REQHello", "ship1", "subscriber"], "runs no subscriber"),
        ("REQOpProcessStart", ["REQNothing"], "unknown method"),
        ("REQOpProcessStart", ["REQRelay"], "declare it in the config"),
        ("REQOpProcessStart", [], "must hold the method"),
        ("REQOpProcessStart", ["REQPing"], "runs already"),
    ],
)  # fmt: skip
def test_senseless_requests_are_answered_with_what_is_wrong(shared, method, arguments, words):
    assert words in ask(shared, method, *arguments)
    assert shared.status()["overrides"] == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Appliance(CONFIG, tmp_path_factory.mktemp("overrides")) as appliance:
        yield appliance
