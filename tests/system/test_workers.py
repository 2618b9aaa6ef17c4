"""`workers: N`: one daemon on several processes for a method that computes. Real daemons, processes, a real nats-server."""

import os
import random
import signal
from collections import Counter

import pytest

from tests.support.appliance import Appliance, settle
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

CONFIG = """
version: 1
workers: {workers}
broker: {{servers: ["{url}"]}}
reload: {{poll_interval: 50ms, settle: 0, drain_timeout: 1m}}
nodes:
  central: {{subscribe: {{REQToFileAppend: {{accept_from: [ship]}}, REQErrorLog: {{}}}}}}
  ship: {{subscribe: {{REQSpin: {{accept_from: [central], delivery: {delivery}, ack: {{on: {ack_on}}}}}}}}}
"""


class Fleet:
    """A daemon whose ship computes for its central, which files the answers."""

    def __init__(self, url, directory, *, workers=2, delivery="core", ack_on="done"):
        self.facts = {"url": url, "delivery": delivery, "ack_on": ack_on}
        self.daemon = Appliance(self.text(workers), directory / "daemon")
        self.daemon.first = "tests.support.computing.added"
        self.ran = directory / "ran"

    def text(self, workers):
        return CONFIG.format(workers=workers, **self.facts)

    def resize(self, workers):
        self.daemon.config_path.write_text(self.text(workers))
        assert self.daemon.reload()["result"] in ("applied", "unchanged")

    def send(self, *args, texts, timeout_s=None):
        """One message for each text, which it is answered with."""
        asked = {
            "from_node": "central", "to_nodes": ["ship"], "method": "REQSpin", "method_args": list(args),
            "directory": "t", "file_name": "f", "method_timeout": timeout_s,
        }  # fmt: skip
        self.daemon.send(*[{**asked, "data": [f"{text}\n"]} for text in texts])

    def answers(self):
        """How often each text was answered."""
        path = self.daemon.data("t", "ship", "f")
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(line.split()[1] for line in lines if " " in line)

    def processes(self):
        return self.daemon.status()["processes"]

    def pids(self):
        return [one["pid"] for one in self.processes() if one["pid"] is not None]


@pytest.fixture
def broker(tmp_path):
    with NatsServer(f'jetstream {{store_dir: "{tmp_path}/jetstream"}}') as server:
        yield server


@pytest.mark.parametrize(
    ("delivery", "ack_on"), [("core", "received"), ("core", "done"), ("jetstream", "done")]
)
def test_kills_of_processes_and_other_numbers_of_them_under_load_lose_and_double_nothing(
    broker, tmp_path, delivery, ack_on
):
    fleet = Fleet(broker.url, tmp_path, workers=1, delivery=delivery, ack_on=ack_on)
    with fleet.daemon:
        texts = [f"m{number}" for number in range(240)]
        killed = 0
        for at in range(0, len(texts), 30):
            fleet.send("cpu", "0.01", texts=texts[at : at + 30])
            fleet.resize((4, 2, 1, 4, 2)[at // 30 % 5])
            working = [one["pid"] for one in fleet.processes() if one["phase"] == "working"]
            if working:
                os.kill(random.choice(working), signal.SIGKILL)
                killed += 1
            until(lambda at=at: len(fleet.answers()) >= at, tell=fleet.daemon.log)
        settle(fleet.daemon)
        assert killed >= 4
        assert fleet.answers() == dict.fromkeys(texts, 1)
        until(lambda: len(fleet.pids()) == 1)  # the last of the numbers above
        status = fleet.daemon.status()
        assert status["outbox"]["dead"] == 0
        assert status["healthy"], status["degraded_by"]


def test_kill_of_the_daemon_leaves_no_process_and_the_next_one_does_what_was_in_hand(
    broker, tmp_path
):
    fleet = Fleet(broker.url, tmp_path)
    texts = [f"m{number}" for number in range(20)]
    with fleet.daemon:
        fleet.send("cpu", "0.05", texts=texts)
        fleet.send("hang", str(tmp_path / "hangs"), texts=["hangs"], timeout_s=3)
        until((tmp_path / "hangs").exists)
        pids = fleet.pids()
        assert len(pids) == 2
        fleet.daemon.kill()
        until(lambda: not any(map(_is_alive, pids)))
        fleet.daemon.start()
        settle(fleet.daemon)
        assert fleet.answers() == dict.fromkeys(texts, 1)


def test_handler_that_hangs_costs_its_process_and_a_stop_waits_for_what_computes(broker, tmp_path):
    fleet = Fleet(broker.url, tmp_path)
    daemon = fleet.daemon
    with daemon:
        until(lambda: [one["phase"] for one in fleet.processes()] == ["idle", "idle"])
        fleet.send("hang", str(tmp_path / "hangs"), texts=["hangs"], timeout_s=1)
        until((tmp_path / "hangs").exists)
        fleet.send("cpu", "0", texts=["other"])
        until(lambda: fleet.answers()["other"])
        errors = daemon.data("errorLog", "errorCentral", "error.log")
        until(lambda: errors.exists() and "did not end in time" in errors.read_text())
        until(lambda: len(fleet.pids()) == 2)
        assert sum(one["restarts"] for one in fleet.processes()) == 1
        metrics = daemon.request("GET", "/metrics")[1]
        assert 'appliance_processes{phase="idle"}' in metrics
        assert "appliance_process_restarts_total 1.0" in metrics
        assert "appliance_process_waiting 0.0" in metrics
        fleet.send("die-once", str(tmp_path / "deaths"), texts=["dies"])
        until(lambda: fleet.answers()["dies"])
        assert (tmp_path / "deaths").read_text().split() == ["dies", "dies"]
        fleet.send("die", texts=["poison"])
        until(lambda: "3 processes ended while it ran" in errors.read_text(), tell=daemon.log)
        fleet.send("cpu", "0.5", str(fleet.ran), texts=["last"])
        until(lambda: any("REQSpin" in (one["doing"] or "") for one in fleet.processes()))
        pids = fleet.pids()
        assert daemon.stop(90.0) == 0
        assert fleet.ran.read_text() == "last\n\n"
        until(lambda: not any(map(_is_alive, pids)))


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
