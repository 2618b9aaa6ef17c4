"""Rollback, the pin, and trials: ways back to a config that was in force."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 20ms, poll_interval: 100ms, trial: {trial}}}
nodes:
  ship1: {{subscribe: {{REQPing: {{}}, REQToFile: {{}}, {more}}}}}
"""
DENY = """
authorization {
  users: [{user: u, password: p, permissions: {
    subscribe: {deny: ["ship1.REQHello.>"]}, publish: {allow: [">"]}}}]
}
"""


@pytest.fixture
def broker():
    with NatsServer() as server:
        yield server


def text(broker, more="", trial="0s"):
    return CONFIG.format(url=broker.url, more=more, trial=trial)


def subjects(daemon):
    return {
        worker["subject"].split(".")[1] for worker in daemon.status()["nodes"]["ship1"]["workers"]
    }


def applied(daemon, generation):
    return daemon.wait_until(lambda status: status["generation"] == generation)["config"]


def test_a_pin_that_the_disk_does_not_take_is_told_until_it_is_written(broker, tmp_path):
    with Appliance(text(broker), tmp_path) as daemon:
        daemon.write_config(text(broker, "REQPong: {}"))
        applied(daemon, 2)
        (daemon.state / "pin.tmp").mkdir()
        back = forked.run(["rollback", "--state-dir", str(daemon.state)])
        assert back.returncode == 0
        assert "W302 pin-not-kept" in back.stderr
        told = "the pin could not be written: a restart would take what the files say"
        assert told in daemon.status()["degraded_by"]
        (daemon.state / "pin.tmp").rmdir()
        daemon.wait_until(lambda status: status["healthy"])
        assert (daemon.state / "pin.json").exists()


def test_three_reloads_and_back_to_the_first_with_the_broker_down(broker, tmp_path):
    with Appliance(text(broker), tmp_path) as daemon:
        first = applied(daemon, 1)["digest"]
        for number, more in enumerate(["REQToConsole: {}", "REQPong: {}", "REQHello: {}"], start=2):
            daemon.write_config(text(broker, more))
            applied(daemon, number)
        broker.kill()
        code, verdict = daemon.request("POST", "/api/v1/rollback", {"to": "1"})
        assert (code, verdict["result"], verdict["digest"]) == (200, "applied", first)
        assert f"uid {os.getuid()}" in verdict["by"]
        status = daemon.status()
        assert status["config"]["digest"] == first
        assert status["config"]["pinned"]["reason"] == "rollback"
        assert subjects(daemon) == {"REQPing", "REQToFile"}
        # neither a look nor a restart brings back what was rolled back
        again = daemon.reload()
        assert (again["result"], again["problems"][0]["code"]) == ("unchanged", "W301")
        for paths in ((), (str(daemon.config_path),)):
            planned = forked.run(["plan", *paths, "--state-dir", str(daemon.state)])
            assert planned.returncode == 0, paths
            assert "W301" in planned.stderr
        daemon.kill()
        daemon.start(ready=False)
        daemon.wait_api()
        status = daemon.wait_until(lambda status: status["config"]["digest"])
        assert status["config"]["digest"] == first
        assert status["config"]["pinned"]
        # the files change: the pin is over
        daemon.write_config(text(broker, "REQRelayInitial: {}"))
        daemon.wait_until(
            lambda status: status["config"]["digest"] != first and not status["config"]["pinned"]
        )
        assert "REQRelayInitial" in subjects(daemon)


def test_without_a_name_it_is_the_set_before_and_force_takes_the_files_again(broker, tmp_path):
    with Appliance(text(broker), tmp_path) as daemon:
        first = applied(daemon, 1)["digest"]
        daemon.write_config(text(broker, "REQHello: {}"))
        second = applied(daemon, 2)["digest"]
        assert daemon.request("POST", "/api/v1/rollback")[1]["digest"] == first
        assert daemon.reload(force=True)["digest"] == second
        assert daemon.status()["config"]["pinned"] is None
        records = daemon.request("GET", "/api/v1/history")[1]["records"]
        # whoever looks first sees the edit: the watch, or on a slow machine the look at intervals
        assert [(item["trigger"].replace("poll", "watch"), item["digest"]) for item in records] == [
            ("request", second), ("rollback", first), ("watch", second), ("start", first),
        ]  # fmt: skip
        diff = daemon.request("GET", f"/api/v1/history/{records[1]['number']}")[1]["diff"]
        assert "-  ship1: {subscribe: {REQPing: {}, REQToFile: {}, REQHello: {}}}" in diff
        assert "+  ship1: {subscribe: {REQPing: {}, REQToFile: {}, }}" in diff


def test_a_set_that_is_not_there_is_named_and_nothing_changes(broker, tmp_path):
    with Appliance(text(broker), tmp_path) as daemon:
        code, answer = daemon.request("POST", "/api/v1/rollback")
        assert (code, answer["error"]) == (400, "no set was in force before this one")
        code, answer = daemon.request("POST", "/api/v1/rollback", {"to": "nine"})
        assert "no record of 'nine'" in answer["error"]
        daemon.write_config(text(broker, "REQNothing: {}"))
        daemon.wait_until(lambda status: status["config"]["last_attempt"]["result"] == "refused")
        number = daemon.request("GET", "/api/v1/history")[1]["records"][0]["number"]
        code, answer = daemon.request("POST", "/api/v1/rollback", {"to": str(number)})
        assert (code, "were not kept" in answer["error"]) == (400, True)
        assert daemon.status()["config"]["pinned"] is None


LOADED = """
version: 1
broker: {{servers: ["{url}"], auth: {{user: u, password: {{file: secret}}}}}}
reload: {{settle: 20ms, poll_interval: 100ms, trial: 1s}}
nodes:
  source: {{}}
  ship1: {{subscribe: {{REQPing: {{}}, REQToFile: {{}}, REQToFileAppend: {{ack: {{on: {ack_on}}}}}, {more}}}}}
"""
RATE, SECONDS = 500, 4.0


@contextlib.contextmanager
def load(url):
    """An independent client that sends lines to ship1 all the while; the pipe says how many in the end."""
    words = ["ship1", "source", str(RATE), str(SECONDS)]
    command = [sys.executable, "-m", "tests.support.bare_publisher", url, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_set_whose_worker_is_denied_goes_back_by_itself_and_nothing_is_lost(tmp_path):
    with NatsServer(DENY) as broker:
        (tmp_path / "secret").write_text("p")

        def config(more, ack_on="received"):
            return LOADED.format(url=broker.url, more=more, ack_on=ack_on)

        lines = tmp_path / "state/data/load/ship1/lines.log"
        login = broker.url.replace("nats://", "nats://u:p@")
        with Appliance(config(""), tmp_path) as daemon, load(login) as publisher:
            first = applied(daemon, 1)["digest"]
            daemon.wait_until(lambda status: lines.exists())
            # a worker under load is swapped, another is denied
            daemon.write_config(config("REQHello: {}", ack_on="done"))
            trial = daemon.wait_until(lambda status: status["config"]["on_trial"])["config"][
                "on_trial"
            ]
            assert trial["baseline"] == first
            assert 0 < trial["ends_in_seconds"] <= 1
            sent = 0
            while daemon.status()["config"]["digest"] != first:
                assert publisher.poll() is None, "the load ended before the trial did"
                sent += 1
                daemon.send({"to_nodes": ["ship1"], "from_node": "source", "method": "REQToFile", "data": [str(sent)],
                             "file_name": f"{sent}.txt"})  # fmt: skip
            status = daemon.wait_until(
                lambda status: (
                    status["outbox"]["pending"] == 0 and status["inbox"]["unfinished"] == 0
                )
            )
            assert all(
                daemon.data("ship1", f"{number}.txt").exists() for number in range(1, sent + 1)
            )
            assert status["generation"] == 3
            attempt = status["config"]["last_attempt"]
            assert (attempt["result"], attempt["trigger"]) == ("reverted", "trial")
            assert attempt["problems"][0]["code"] == "E310"
            assert "REQHello" in attempt["problems"][0]["message"]
            assert status["config"]["pinned"]["reason"] == "trial"
            assert subjects(daemon) == {"REQPing", "REQToFile", "REQToFileAppend"}
            records = daemon.request("GET", "/api/v1/history")[1]["records"]
            assert [item["result"] for item in records] == ["reverted", "applied", "applied"]
            assert [item["action"] for item in records[0]["actions"]] == ["cancel", "swap"]
            # after the trial, and at once: a poll or a resync would come after half a minute
            assert 1.0 <= records[0]["at"] - records[1]["at"] < 20.0
            # another look changes nothing about it: the files hold what did not work
            assert daemon.reload()["result"] == "unchanged"
            told = "the last config was taken back after its trial: E310 ship1.REQHello"
            assert [text for text in daemon.status()["degraded_by"] if text.startswith(told)]
            exposition = daemon.request("GET", "/metrics")[1]
            assert "appliance_config_last_reload_successful 0.0" in exposition
            assert 'appliance_config_reloads_total{result="reverted"} 1.0' in exposition
            assert 'appliance_config_reloads_total{result="applied"} 2.0' in exposition
            total = int(publisher.communicate()[0])
            daemon.wait_until(lambda status: len(lines.read_text().split()) >= total)
            assert sorted(map(int, lines.read_text().split())) == list(range(total))
            assert total == RATE * SECONDS
            daemon.write_config(config("REQPong: {}"))
            daemon.wait_until(lambda status: status["generation"] == 4)
            daemon.wait_until(lambda status: status["config"]["on_trial"])
            daemon.wait_until(lambda status: status["config"]["on_trial"] is None)
            assert daemon.status()["config"]["pinned"] is None
            assert "REQPong" in subjects(daemon)


def test_a_hang_up_does_not_end_a_pin(broker, tmp_path):
    with Appliance(text(broker), tmp_path) as daemon:
        first = applied(daemon, 1)["digest"]
        daemon.write_config(text(broker, "REQHello: {}"))
        applied(daemon, 2)
        daemon.request("POST", "/api/v1/rollback")
        daemon.signal(signal.SIGHUP)
        daemon.wait_until(lambda status: status["config"]["last_attempt"]["trigger"] == "signal")
        assert daemon.status()["config"]["digest"] == first


SECURED = """
version: 1
broker: {{embedded: {{secured: true}}}}
reload: {{settle: 20ms, poll_interval: 100ms}}
nodes:
  ship1: {{subscribe: {{REQPing: {{}}, REQToFile: {{}}, {more}}}}}
"""


def test_a_broker_of_ones_own_that_takes_no_users_refuses_an_edit_and_blocks_no_way_back(tmp_path):
    with Appliance(SECURED.format(more="REQPong: {}"), tmp_path) as daemon:
        first = applied(daemon, 1)["digest"]
        daemon.write_config(SECURED.format(more="REQHello: {}"))
        applied(daemon, 2)
        # as a full disk does: what says who is let in cannot be written
        conf = daemon.state / "broker/nats-server.conf"
        # what the set before allowed has ended: the broker took both sets, then the new one alone
        log = daemon.state / "broker/nats-server.log"
        daemon.wait_until(lambda _: log.read_text().count("Reloaded server configuration") >= 2)
        assert "REQPong" not in conf.read_text()
        conf.unlink()
        conf.mkdir()
        daemon.write_config(SECURED.format(more="REQToConsole: {}"))
        verdict = daemon.reload()
        assert [one["code"] for one in verdict["problems"]] == ["E304"]
        code, verdict = daemon.request("POST", "/api/v1/rollback")
        assert (code, verdict["result"], verdict["digest"]) == (200, "applied", first)
        # until it can be written, the broker denies what it does not know
        daemon.wait_until(lambda status: not status["healthy"])
        conf.rmdir()
        daemon.wait_until(lambda status: status["healthy"])
        assert "REQPong" in subjects(daemon)
