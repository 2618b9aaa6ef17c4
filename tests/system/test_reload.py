"""A running daemon follows its config: live, whole, and unmoved by a bad one."""

import json
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.appliance import PLAIN_COMMAND, Appliance
from tests.support.waiting import pace, until

BASE = """
version: 1
broker: {embedded: true}
reload: {settle: 1ms, watch: false, poll_interval: 10m}
nodes:
  central: {subscribe: {REQErrorLog: {}, REQToFileAppend: {}}}
  ship1: {subscribe: {REQPing: {}}}
"""
WITH_CONSOLE = BASE.replace("{REQPing: {}}", "{REQPing: {}, REQToConsole: {}}")
CONSOLE = "ship1.REQToConsole.EventACK_subscriber"
BATTERY = sorted((Path(__file__).parent.parent / "configs_bad").glob("*.yaml"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with Appliance(BASE, tmp_path_factory.mktemp("reload")) as appliance:
        yield appliance


@pytest.fixture
def appliance(daemon):
    daemon.write_config(BASE)
    assert daemon.reload()["result"] in ("applied", "unchanged")
    return daemon


def metric(appliance, name):
    text = appliance.request("GET", "/metrics")[1]
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is not in the metrics"
    return float(found.group(1))


def picture(appliance):
    """Everything a refused config must not change: generation, workers with their start times and counters."""
    status = appliance.status()
    return status["generation"], status["nodes"], status["outbox"]


def test_an_edit_is_followed_without_being_asked(appliance):
    def watched(text):
        return text.replace("watch: false", "watch: true")

    appliance.write_config(watched(BASE))
    assert appliance.reload()["result"] == "applied"
    appliance.write_config(watched(WITH_CONSOLE))
    appliance.wait_until(lambda _: (appliance.worker(CONSOLE) or {}).get("phase") == "running")
    appliance.write_config(watched(BASE))
    appliance.wait_until(lambda _: appliance.worker(CONSOLE) is None)


def test_only_what_changed_is_touched(appliance):
    ping = appliance.worker("ship1.REQPing.EventACK_subscriber")
    appliance.write_config(WITH_CONSOLE)
    verdict = appliance.reload()
    assert [(a["action"], a["worker"]) for a in verdict["actions"]] == [("spawn", CONSOLE)]
    assert appliance.worker("ship1.REQPing.EventACK_subscriber")["since"] == ping["since"]


def test_the_same_content_is_unchanged_and_clears_an_earlier_refusal(appliance):
    generation = appliance.status()["generation"]
    appliance.write_config(BASE + "nonsense: 1\n")
    assert appliance.reload()["result"] == "refused"
    assert metric(appliance, "appliance_config_last_reload_successful") == 0
    appliance.write_config(BASE)
    assert appliance.reload()["result"] == "unchanged"
    assert metric(appliance, "appliance_config_last_reload_successful") == 1
    status = appliance.status()
    assert status["generation"] == generation
    assert status["config"]["last_attempt"]["problems"] == []


def test_a_set_that_would_cancel_most_workers_needs_force(appliance):
    emptied = BASE.replace("{REQErrorLog: {}, REQToFileAppend: {}}", "{}").replace(
        "{REQPing: {}}", "{}"
    )
    before = picture(appliance)
    appliance.write_config(emptied)
    verdict = appliance.reload()
    assert verdict["result"] == "refused"
    assert [problem["code"] for problem in verdict["problems"]] == ["E302"]
    assert picture(appliance) == before
    assert appliance.reload(force=True)["result"] == "applied"
    assert all(not node["workers"] for node in appliance.status()["nodes"].values())


def test_a_setting_that_needs_a_restart_is_refused_by_name(appliance):
    before = picture(appliance)
    appliance.write_config(BASE.replace("{embedded: true}", "{embedded: true, port: 45999}"))
    verdict = appliance.reload()
    (problem,) = verdict["problems"]
    assert (verdict["result"], problem["path"]) == ("refused", "broker.port")
    assert problem["file"].endswith("appliance.yaml")
    assert problem["excerpt"][problem["column"] - 1 :].startswith("45999")
    assert picture(appliance) == before


def test_a_listener_is_moved_live_and_a_busy_one_refuses_the_whole_set(appliance):
    def listening(port):
        return BASE + f'admin: {{listen: "127.0.0.1:{port}"}}\n'

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        before = picture(appliance)
        appliance.write_config(
            listening(busy.getsockname()[1]).replace("REQPing: {}", "REQPong: {}")
        )
        verdict = appliance.reload()
        (problem,) = verdict["problems"]
        assert (verdict["result"], problem["code"]) == ("refused", "E303")
        assert (problem["line"], problem["excerpt"][:5]) == (8, "admin")
        assert picture(appliance) == before
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    appliance.write_config(listening(port))
    assert appliance.reload()["result"] == "applied"
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(
            f"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        assert b"200" in connection.recv(4096).split(b"\r\n")[0]


def test_admin_and_an_input_exchange_their_ports_in_one_set(appliance):
    def serving(admin, tcp, http=0):
        listening = f'tcp: {{listen: "127.0.0.1:{tcp}"}}, http: {{listen: "127.0.0.1:{http}"}}'
        return BASE + (
            f'admin: {{listen: "127.0.0.1:{admin}"}}\ninputs: {{from: central, {listening}}}\n'
        )

    def who_listens(port):
        if appliance.status()["inputs"]["tcp"]["listen"] == f"127.0.0.1:{port}":
            return "tcp"
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(
                b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            return "admin" if b" 200 " in connection.recv(4096) else "?"

    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        first, second = one.getsockname()[1], two.getsockname()[1]
    appliance.write_config(serving(first, second))
    assert appliance.reload()["result"] == "applied"
    assert [who_listens(port) for port in (first, second)] == ["admin", "tcp"]
    with socket.create_server(("127.0.0.1", 0)) as busy:
        appliance.write_config(serving(second, first, http=busy.getsockname()[1]))
        assert appliance.reload()["result"] == "refused"
        assert [who_listens(port) for port in (first, second)] == ["admin", "tcp"]
    appliance.write_config(serving(second, first))
    assert appliance.reload()["result"] == "applied"
    assert [who_listens(port) for port in (first, second)] == ["tcp", "admin"]


def test_every_bad_config_of_the_battery_changes_nothing(appliance):
    assert len(BATTERY) >= 60
    before = picture(appliance)
    directory = appliance.config_path.parent
    for path in BATTERY:
        text = path.read_text() if _is_text(path) else None
        if text is None:
            appliance.config_path.write_bytes(path.read_bytes())
        else:
            appliance.write_config(text)
        verdict = appliance.reload()
        if verdict["result"] == "refused":
            assert verdict["problems"], path.name
            assert picture(appliance) == before, path.name
        else:  # a battery file that only warns is a valid config of its own: put the base back
            raise AssertionError(f"{path.name} was {verdict['result']}")
    assert directory.exists()


def _is_text(path):
    try:
        path.read_text()
    except UnicodeDecodeError:
        return False
    return True


def test_every_verdict_is_in_the_history(appliance):
    appliance.write_config(WITH_CONSOLE)
    appliance.reload()
    appliance.write_config("version: 2\n")
    appliance.reload()
    body = appliance.request("GET", "/api/v1/history")[1]
    records = body["records"] if isinstance(body, dict) else body
    assert [record["result"] for record in records[:2]] == ["refused", "applied"]
    assert records[0]["problems"]
    assert records[1]["actions"][0]["worker"] == CONSOLE
    assert json.dumps(records)


def test_a_burst_of_ten_hups_is_one_look(appliance):
    appliance.write_config(BASE.replace("settle: 1ms", "settle: 1s"))
    assert appliance.reload()["result"] == "applied"
    before = metric(appliance, 'appliance_config_reloads_total{result="unchanged"}')
    for _ in range(10):
        appliance.signal(signal.SIGHUP)
    appliance.wait_until(
        lambda _: metric(appliance, 'appliance_config_reloads_total{result="unchanged"}') > before
    )
    appliance.reload()
    assert metric(appliance, 'appliance_config_reloads_total{result="unchanged"}') == before + 2


def catches_hup(pid):
    found = re.search(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(found.group(1), 16) & 1)


def test_hups_from_the_first_second_of_life_on_are_survived(tmp_path):
    appliance = Appliance(BASE, tmp_path, command=PLAIN_COMMAND)
    appliance.spawn()
    try:
        # what stands before is the interpreter's own start, which no program can guard
        until(lambda: catches_hup(appliance.process.pid), every_s=0.001)
        started = time.monotonic()
        for number in range(200):
            appliance.signal(signal.SIGHUP)
            pace(started + number * 0.004)
        appliance.wait_ready()
        unchanged = 'appliance_config_reloads_total{result="unchanged"}'
        appliance.wait_until(lambda _: metric(appliance, unchanged) >= 1)
        # those that came after the start are looks of their own, however many it was quick enough for
        before = metric(appliance, unchanged)
        appliance.reload()
        assert metric(appliance, unchanged) > before
    finally:
        assert appliance.stop() == 0
