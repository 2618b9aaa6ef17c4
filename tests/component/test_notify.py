"""What the service manager hears of a real daemon, over a real NOTIFY_SOCKET."""

import re
import signal
import socket
import time
from pathlib import Path

import pytest

from appliance.api.status import describe_state
from appliance.service_manager import ServiceManager, take_settings
from tests.support.appliance import Appliance
from tests.support.waiting import LONG_S, until, until_async

CONFIG = """
version: 1
broker: {embedded: true}
reload: {settle: 20ms, watch: %s}
nodes:
  solo: {subscribe: {REQToConsole: {}, %s}}
"""
BAD = "version: 1\nbroker: {embedded: true}\nnodes: {solo: {subscrib: {}}}\n"
WATCHDOG_USEC = 1_000_000


class Ear:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def next(self, timeout_s: float = LONG_S) -> dict[str, str]:
        self._socket.settimeout(timeout_s)
        try:
            text = self._socket.recv(65_536).decode()
        except BlockingIOError:
            raise TimeoutError("nothing waits") from None
        message = dict(line.split("=", 1) for line in text.splitlines())
        self.heard.append(message)
        return message

    def until(self, name: str, value: str | None = None) -> dict[str, str]:
        """The next message that assigns `name`, with this value if one is given."""
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            message = self.next()
            if name in message and value in (None, message[name]):
                return message
        raise AssertionError(f"{name} was never told: {self.heard}")

    def is_silent(self, for_s: float) -> bool:
        try:
            self.next(for_s)
        except TimeoutError:
            return True
        return False

    def forget(self) -> None:
        """Throw away what waits."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(65_536)
        except BlockingIOError:
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def ear(request, short_dir):
    ear = Ear(getattr(request, "param", "") + str(short_dir / "notify"))
    yield ear
    ear.close()


@pytest.fixture
def daemon(ear, short_dir, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", ear.address)
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_USEC))
    daemon = Appliance(CONFIG % ("false", "REQPing: {}"), short_dir / "daemon")
    daemon.spawn()
    yield daemon
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.process.send_signal(signal.SIGCONT)
    daemon.close()


@pytest.mark.parametrize("ear", ["", "@appliance-test"], indirect=True, ids=["path", "abstract"])
def test_service_manager_hears_of_start_reloads_refusal_and_stop(ear, daemon):
    assert ear.next()["STATUS"] == "starting"
    ready = ear.until("READY", "1")
    assert ready["STATUS"].startswith("generation 1, 2 of 2 workers running")
    assert "config applied at" in ready["STATUS"]

    daemon.write_config(CONFIG % ("false", "REQPong: {}"))
    assert daemon.reload()["result"] == "applied"
    reloading = ear.until("RELOADING", "1")
    assert 0 < int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1_000
    assert ear.until("READY")["STATUS"].startswith("generation 2, ")

    daemon.write_config(BAD)
    assert daemon.reload()["result"] == "refused"
    ear.until("RELOADING")
    status = ear.until("READY")["STATUS"]
    assert status.startswith("generation 2, 2 of 2 workers running")
    assert re.search(r"config refused at .*appliance\.yaml:3: E\d+ .*subscrib", status)

    assert daemon.stop() == 0
    stopping = ear.until("STOPPING", "1")
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= 1_000_000


def test_reload_is_over_before_the_one_who_asked_for_it_is_answered(ear, daemon):
    ear.until("READY")
    ear.forget()
    daemon.reload()
    told = []
    while not told or "READY" not in told[-1]:
        told.append(ear.next(0.0))  # all of it is there already
        told = [message for message in told if "WATCHDOG" not in message]
    assert [next(iter(message)) for message in told] == ["RELOADING", "READY"]


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_watchdog_is_fed_by_the_loop_and_starves_while_the_loop_is_blocked(ear, daemon):
    ear.until("READY")
    fed = []
    for _ in range(4):
        ear.until("WATCHDOG", "1")
        fed.append(time.monotonic())
    # half of the interval, with room for a busy machine
    assert (fed[-1] - fed[0]) / 3 < WATCHDOG_USEC / 1e6
    daemon.signal(signal.SIGSTOP)
    until(lambda: is_stopped(daemon.process.pid))
    ear.forget()
    assert ear.is_silent(3 * WATCHDOG_USEC / 1e6)
    daemon.signal(signal.SIGCONT)
    ear.until("WATCHDOG", "1")


def test_what_is_meant_for_the_daemon_alone_is_taken_out_of_what_it_hands_on():
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "PATH": "/bin"}
    take_settings(environment, 1)
    assert environment == {"PATH": "/bin"}


def test_settings_of_another_process_or_of_nonsense_are_ignored():
    environment = {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "400000", "WATCHDOG_PID": "7"}
    settings = take_settings(environment, 8)
    assert (settings.address, settings.watchdog_s) == (None, None)
    assert take_settings({"NOTIFY_SOCKET": "tcp:1"}, 8).address is None
    assert take_settings({"WATCHDOG_USEC": "soon"}, 8).watchdog_s is None
    assert take_settings({"WATCHDOG_USEC": "400000"}, 8).watchdog_s == 0.4


async def test_watchdog_starves_when_the_reconciler_does_not_live(ear):
    environment = {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "40000"}
    lives, asked = True, 0

    def is_alive():
        nonlocal asked
        asked += 1
        return lives

    manager = ServiceManager(
        take_settings(environment, 1), summary=lambda: "state", is_alive=is_alive
    )
    manager.start()
    manager.ready()
    await _until_heard(ear, "WATCHDOG")
    lives, asked = False, 0
    ear.forget()
    await until_async(lambda: asked > 5)
    silent = ear.is_silent(0.0)
    await manager.close()
    assert silent


async def test_a_full_socket_loses_no_readiness(ear):
    manager = ServiceManager(
        take_settings({"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "40000"}, 1),
        summary=lambda: "state",
        is_alive=lambda: False,
    )
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filler.setblocking(False)
    try:
        while True:
            filler.sendto(b"X=1", ear.address)
    except BlockingIOError:
        pass
    manager.start()
    manager.ready()
    ear.forget()
    assert "READY" in await _until_heard(ear, "READY")
    await manager.close()
    filler.close()


async def test_nobody_listening_is_no_trouble(short_dir):
    settings = take_settings({"NOTIFY_SOCKET": str(short_dir / "gone")}, 1)
    manager = ServiceManager(settings, summary=lambda: "state", is_alive=lambda: True)
    manager.start()
    manager.ready()
    manager.stopping()
    await manager.close()


def test_line_names_revision_broker_and_stays_one_line():
    line = describe_state(
        generation=3,
        revision="0123456789abcdef",
        running=1,
        workers=2,
        connected=False,
        result="unchanged",
        at=0.0,
        problems=(),
    )
    assert line.startswith("generation 3 (0123456789ab), 1 of 2 workers running, not connected")


async def _until_heard(ear: Ear, name: str) -> dict[str, str]:
    def look():
        try:
            while name not in (message := ear.next(0.0)):
                pass
        except TimeoutError:
            return None
        return message

    return await until_async(look, tell=lambda: f"{name} was never told: {ear.heard}")
