"""`appliance bench` beside a running daemon: what it measures, what it refuses, and that nothing of it stays."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from appliance.cli import main
from appliance.daemon.bench.place import LOCK_NAME, PREFIX, YOUNG_S, BenchPlace
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

CONFIG = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 50ms}}
admin: {{listen: 127.0.0.1:0}}
defaults: {{window: 32, compression: none, concurrency: 3, ack: {{on: done}}}}
nodes:
  central: {{subscribe: {{REQErrorLog: {{}}}}}}
  ship1: {{subscribe: {{REQPing: {{}}}}, serialization: gob}}
"""
TIMEOUT_S = 110
ONE_RUN = pytest.mark.xdist_group("bench")  # they share a run
ONE_LOGIN = """
authorization {{ users: [{{user: app, password: secret, permissions: {{
  publish: {{allow: [">"], deny: {publish}}}, subscribe: {{allow: [">"], deny: {subscribe}}}}}}}] }}
"""
WITH_LOGIN = (
    'broker: {{servers: ["{url}"], auth: {{user: app, password: {{env: BENCH_PASSWORD}}}}}}'
)


@pytest.fixture(scope="module")
def broker():
    with NatsServer() as server:
        yield server


@pytest.fixture
def config(tmp_path, broker):
    path = tmp_path / "appliance.yaml"
    path.write_text(CONFIG.format(url=broker.url))
    return path


def start(config, *options, state):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
    command = [sys.executable, "-m", "appliance", "bench", str(config), "--state-dir", str(state)]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ | {"BENCH_PASSWORD": "secret"},
    )


def run(config, *options, state):
    process = start(config, *options, state=state)
    with process:
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, out, err


def left_over(directory):
    return list(directory.glob(f"{PREFIX}*"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory, broker):
    """One small run beside a daemon on the same broker and with the same state directory."""
    directory = tmp_path_factory.mktemp("bench")
    with Appliance(CONFIG.format(url=broker.url), directory) as daemon:
        before = daemon.status()
        code, out, err = run(
            daemon.config_path, "--node", "ship1", "--count", "300", "--rounds", "2", "-o", "json",
            state=daemon.state,
        )  # fmt: skip
        after = daemon.status()
        assert code == 0, err
        yield json.loads(out), err, before, after, daemon


@ONE_RUN
def test_every_scenario_is_measured_round_by_round(measured):
    report, *_ = measured
    scenarios = report["scenarios"]
    assert list(scenarios) == ["broker", "window", "broker_single", "single", "paced"]
    assert [item["window"] for item in scenarios.values()] == [32, 32, 1, 1, 32]
    for item in scenarios.values():
        assert item["messages"] == item["latency_seconds"]["count"] == 600
        rates = item["messages_per_second"]
        assert len(rates["rounds"]) == 2
        assert 0 < rates["lowest"] <= rates["median"] <= rates["highest"]
        latency = item["latency_seconds"]
        figures = [latency[name] for name in ("min", "p50", "p90", "p99", "p99.9", "max")]
        assert figures == sorted(figures)
        assert sum(band["count"] for band in latency["histogram"]) == 600
        assert min(item["processor_seconds_per_message"].values()) >= 0
    assert 0 < scenarios["window"]["ratio_to_broker"] < 1.5


@ONE_RUN
def test_latency_at_a_rate_counts_from_when_a_message_was_due(measured):
    scenarios = measured[0]["scenarios"]
    assert scenarios["single"]["latency_seconds"]["since"] == "sent"
    paced = scenarios["paced"]
    assert paced["latency_seconds"]["since"] == "due"
    first_round = scenarios["window"]["messages_per_second"]["rounds"][0]
    assert paced["asked_per_second"] == pytest.approx(first_round / 2, rel=0.06)
    assert paced["generator_lateness_seconds"]["p50"] >= 0
    assert isinstance(paced["behind"], bool)


@ONE_RUN
def test_settings_are_those_of_the_node_in_the_config(measured):
    settings = measured[0]["settings"]
    assert settings.pop("payload_bytes") > 256
    assert settings == {
        "size_bytes": 256,
        "window": 32,
        "concurrency": 3,
        "serialization": "gob",
        "compression": "none",
        "ack_on": "done",
    }


@ONE_RUN
def test_every_message_is_handled_once(measured):
    messages = measured[0]["messages"]
    sent = 2 * 3 * (300 + 30) + 1  # and one to see that it goes at all
    assert messages == {
        "handed_over": sent,
        "acknowledged": sent,
        "handled": sent,
        "missed": 0,
        "dead": 0,
        "repeats": 0,
        "refused": 0,
        "lost": 0,
        "doubled": 0,
    }


@ONE_RUN
def test_it_says_where_it_measures_and_how_far_it_is(measured, broker):
    report, err, *_ = measured
    assert f"measuring on {broker.url} below ship1.bench.>" in err
    assert report["subject"].startswith("ship1.bench.")
    assert err.count("round 2/2: ") == 5


@ONE_RUN
def test_the_daemon_beside_it_saw_nothing_of_it(measured):
    _, _, before, after, daemon = measured
    for status in (before, after):
        for changing in ("uptime_seconds", "process"):
            status.pop(changing, None)
    assert after["nodes"] == before["nodes"]
    assert after["outbox"] == before["outbox"]
    assert left_over(daemon.state) == []
    assert left_over(daemon.state.parent) == []


def test_a_given_rate_is_all_that_is_asked_of_the_broker(config, tmp_path):
    code, out, err = run(
        config, "--rate", "400", "--count", "200", "--rounds", "1", "-o", "json", state=tmp_path
    )
    assert code == 0, err
    report = json.loads(out)
    assert list(report["scenarios"]) == ["broker_paced", "paced"]
    for item in report["scenarios"].values():
        assert item["asked_per_second"] == 400
        assert item["messages_per_second"]["median"] < 480  # 200 of them take half a second
    assert report["node"] == "central"  # the first: this host is none


def test_an_embedded_broker_is_started_and_ended(tmp_path):
    config = tmp_path / "appliance.yaml"
    config.write_text("version: 1\nbroker: {embedded: true}\nnodes: {solo: {}}\n")
    code, out, err = run(
        config, "--count", "20", "--rounds", "1", "--window", "1", "--size", "10", state=tmp_path
    )
    assert code == 0, err
    assert "(embedded)" in out
    assert "appliance, window 1 " in out
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    "denied",
    [
        {"publish": '["*.bench.*.REQBench.>"]', "subscribe": "[]"},
        {"publish": "[]", "subscribe": '["*.bench.*.REQBench.EventACK"]'},
        {"publish": "[]", "subscribe": '["*.bench.*.REQBench.*.reply.>"]'},
    ],
    ids=["publish", "subscribe", "subscribe to answers"],
)
def test_denied_subjects_are_named(denied, tmp_path):
    with NatsServer(ONE_LOGIN.format(**denied)) as broker:
        config = tmp_path / "appliance.yaml"
        config.write_text(
            f"version: 1\n{WITH_LOGIN.format(url=broker.url)}\nnodes: {{central: {{}}}}\n"
        )
        code, out, err = run(config, "--count", "50", "--rounds", "1", state=tmp_path)
    assert code == 77, err
    assert (out, "round 1" in err, "measuring" in err) == ("", False, False)
    assert "does not let this login publish and subscribe on central.bench.>" in err
    assert "ermissions violation" in err.lower() or "ermissions Violation" in err
    assert "secret" not in err
    assert left_over(tmp_path) == []


def test_without_a_broker_it_says_so(tmp_path):
    with NatsServer() as broker:
        url = broker.url
    config = tmp_path / "appliance.yaml"
    config.write_text(CONFIG.format(url=url))
    code, out, err = run(config, state=tmp_path)
    assert (code, out) == (69, "")
    assert url.removeprefix("nats://") in err
    assert left_over(tmp_path) == []


def wait_for_line(process, words):
    """Read the diagnostics until a line holds these words."""
    seen = ""
    for line in process.stderr:
        seen += line
        if words in line:
            return
    raise AssertionError(f"no {words!r} in: {seen}")


def test_a_broker_that_goes_on_the_way_ends_it(tmp_path):
    with NatsServer() as broker:
        config = tmp_path / "appliance.yaml"
        config.write_text(CONFIG.format(url=broker.url))
        with start(config, "--duration", "60s", state=tmp_path) as process:
            wait_for_line(process, "measuring on")
            broker.kill()
            _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 69, err
    assert "lost on the way" in err
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing(number, config, tmp_path):
    with start(config, "--duration", "60s", state=tmp_path) as process:
        wait_for_line(process, "measuring on")
        assert len(left_over(tmp_path)) == 1
        children = children_of(process.pid)
        process.send_signal(number)
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + number, err
    assert out == ""
    assert "nothing of it is left" in err
    assert left_over(tmp_path) == []
    assert children
    assert not [pid for pid in children if is_alive(pid)]


def test_when_it_is_killed_its_other_side_ends_and_the_next_run_clears_up(config, tmp_path):
    with start(config, "--duration", "60s", state=tmp_path) as process:
        wait_for_line(process, "measuring on")
        children = children_of(process.pid)
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    until(lambda: not any(map(is_alive, children)))
    (left,) = left_over(tmp_path)
    place = BenchPlace(tmp_path)
    try:
        assert left_over(tmp_path) == [place.path]
        assert left != place.path
    finally:
        place.close()


def test_what_another_run_holds_is_left_alone(tmp_path):
    first = BenchPlace(tmp_path)
    young = tmp_path / f"{PREFIX}young"
    young.mkdir()
    old = tmp_path / f"{PREFIX}old"
    old.mkdir()
    os.utime(old, (time.time() - 2 * YOUNG_S,) * 2)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / LOCK_NAME).touch()
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(outside)
    second = BenchPlace(tmp_path)
    assert set(left_over(tmp_path)) == {first.path, young, link, second.path}
    second.close()
    first.close()
    assert set(left_over(tmp_path)) == {young, link}
    assert (outside / LOCK_NAME).exists()


def test_a_state_directory_that_is_not_there_yet_is_measured_where_it_would_be(tmp_path):
    place = BenchPlace(tmp_path / "var" / "lib" / "appliance")
    assert place.path.parent == tmp_path
    assert not place.is_other_disk
    place.close()
    assert list(tmp_path.iterdir()) == []


def test_a_bad_config_is_refused_as_run_refuses_it(tmp_path, capsys):
    config = tmp_path / "appliance.yaml"
    config.write_text(
        "version: 1\nbroker: {embedded: true}\nnodes: {a: {subscribe: {REQPin: {}}}}\n"
    )
    assert main(["bench", str(config)]) == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert "REQPing" in said.err


@pytest.mark.parametrize(
    "options",
    [
        ["--count", "10", "--duration", "1s"],
        ["--duration", "1h"],
        ["--count", "0"],
        ["--rate", "0"],
        ["--window", "0"],
        ["--serialization", "json"],
        ["--node", "central,ship1"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_64(options, tmp_path, capsys):
    config = tmp_path / "appliance.yaml"
    config.write_text(CONFIG.format(url="nats://127.0.0.1:1"))
    assert main(["bench", str(config), *options]) == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert options[0] in said.err


def test_messages_larger_than_their_way_allows_are_wrong_use(config, tmp_path):
    code, out, err = run(config, "--size", "2000000", state=tmp_path)
    assert (code, out) == (64, ""), err
    assert "--size 2000000: a message of" in err
    assert "the broker takes, 1048576" in err.replace("\n", " ")
    assert left_over(tmp_path) == []


def children_of(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
    return []


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
