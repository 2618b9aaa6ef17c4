"""`tail` goes on where it was, whatever ends meanwhile: every line once, in order, and what happened on stderr."""

import os
import signal
import subprocess
import threading

import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.programs import ended
from tests.support.waiting import until

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
nodes:
  central: {{subscribe: {{REQErrorLog: {{}}, REQToFileAppend: {{}}}}}}
  ship1: {{subscribe: {{{tail}REQPing: {{}}}}}}
"""
TAIL = "REQTailFile: {{accept_from: [central], allow_paths: ['{logs}/**']}}, "


class Lines:
    """A process whose lines are read as they come."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out, self.err = [], []
        for pipe, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            threading.Thread(target=self._read, args=(pipe, lines), daemon=True).start()

    @staticmethod
    def _read(pipe, lines):
        for line in pipe:
            lines.append(line.decode().rstrip("\n"))

    def tell(self):
        return f"{self.out}\n{self.err}"


@pytest.fixture
def world(tmp_path):
    with NatsServer() as broker:
        logs = tmp_path / "logs"
        logs.mkdir()
        text = CONFIG.format(url=broker.url, tail=TAIL.format(logs=logs))
        central = Appliance(text, tmp_path / "central", args=["--node", "central"])
        ship = Appliance(text, tmp_path / "ship", args=["--node", "ship1"])
        central.only_named = ship.only_named = True
        with central, ship:
            yield broker, central, ship, logs


def test_tail_goes_on_over_the_ends_of_daemons_workers_and_files(world):
    broker, central, ship, logs = world
    log = logs / "app.log"
    log.write_text("line 0\n")
    written = 1

    def write(count=3):
        nonlocal written
        with open(log, "a") as file:
            for _ in range(count):
                file.write(f"line {written}\n")
                written += 1

    command = [forked.program(), "tail", "--state-dir", str(central.state)]
    tail = Lines([*command, "ship1", str(log), "--for", "5m"])
    with ended(tail.process) as process:

        def all_came():
            until(lambda: len(tail.out) >= written, tell=tail.tell)

        all_came()
        # the node's daemon stops in order, and the file is rotated meanwhile
        write()
        ship.stop()
        write()
        os.rename(log, f"{log}.1")
        write()
        ship.start()
        all_came()
        assert any("ended early" in line and "goes on where it was" in line for line in tail.err)
        # it is killed
        write()
        ship.kill()
        write()
        ship.start()
        write()
        all_came()
        assert any("interrupted" in line for line in tail.err)
        # a reload takes the worker away and brings it back
        usual = ship.config_path.read_text()
        ship.write_config(usual.replace(TAIL.format(logs=logs), ""))
        assert ship.reload()["result"] == "applied"
        write()
        ship.write_config(usual)
        assert ship.reload()["result"] == "applied"
        all_came()
        # the broker goes away, and comes back
        broker.stop()
        write()
        broker.start()
        all_came()
        # the daemon that is asked is killed
        central.kill()
        write()
        central.start()
        all_came()
        assert any("goes on where it was" in line and "daemon" in line for line in tail.err)
        write()
        all_came()
        assert tail.out == [f"line {number}" for number in range(written)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130

    # none of the tails that were cut off goes on for nobody: it ends with what comes next
    def is_idle(status):
        write(1)
        return status["inbox"]["unfinished"] == 0

    ship.wait_until(is_idle)
