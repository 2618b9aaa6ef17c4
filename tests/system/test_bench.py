"""`appliance bench` beside a running daemon: what it measures, what it refuses, and that nothing of it stays."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.bench.run import LEFT_OVER_S, PREFIX
from appliance.cli import main
from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

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
HEART_BENCH = Path(__file__).resolve().parents[1] / "measure" / "heart_bench.py"
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


def words_and_environment(config, state):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
    words = ["bench", str(config), "--state-dir", str(state)]
    return words, environ | {"BENCH_PASSWORD": "secret"}


def start(config, *options, state):
    words, environment = words_and_environment(config, state)
    return subprocess.Popen(
        [sys.executable, "-m", "appliance", *words, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run(config, *options, state):
    words, environment = words_and_environment(config, state)
    done = forked.run([*words, *options], env=environment, timeout=TIMEOUT_S)
    return done.returncode, done.stdout, done.stderr


def left_over(directory):
    return list(directory.glob(f"{PREFIX}*"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory, broker):
    """One small run beside a daemon on the same broker and with the same state directory."""
    directory = tmp_path_factory.mktemp("bench")
    with Appliance(CONFIG.format(url=broker.url), directory) as daemon:
        before = daemon.status()
        code, out, err = run(
            daemon.config_path, "--node", "ship1", "--count", "100", "--rounds", "2", "-o", "json",
            state=daemon.state,
        )  # fmt: skip
        after = daemon.status()
        assert code == 0, err
        yield json.loads(out), err, before, after, daemon


@ONE_RUN
def test_rate_and_latency_are_measured_round_by_round(measured):
    scenarios = measured[0]["scenarios"]
    assert list(scenarios) == ["window", "single", "paced"]
    assert [item["window"] for item in scenarios.values()] == [32, 1, 32]
    for item in scenarios.values():
        assert item["messages"] == 200
        rates = item["messages_per_second"]
        assert len(rates["rounds"]) == 2
        assert 0 < min(rates["rounds"]) <= rates["median"] <= max(rates["rounds"])
    paced = scenarios["paced"]
    assert paced["asked_per_second"] == 1_000
    latency = paced["latency_seconds"]
    assert latency["count"] == 200
    figures = [latency[name] for name in ("p50", "p90", "p99", "max")]
    assert figures == sorted(figures)
    assert figures[0] > 0


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
def test_it_says_where_it_measures_and_how_far_it_is(measured, broker):
    report, err, *_ = measured
    assert f"measuring on {broker.url} below ship1.bench.>" in err
    assert report["broker"] == {"server": broker.url, "embedded": False}
    assert err.count("round 2/2: ") == 3


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


def test_a_given_rate_is_all_that_is_measured_where_the_state_would_be(config, tmp_path):
    place, outside = tmp_path / "place", tmp_path / "outside"
    young, old, link = (place / f"{PREFIX}{name}" for name in ("young", "old", "link"))
    for path in (place, young, old, outside):
        path.mkdir()
        (path / "file").touch()
    link.symlink_to(outside)
    for path in (old, outside, link):
        os.utime(path, (time.time() - 2 * LEFT_OVER_S,) * 2, follow_symlinks=False)
    code, out, err = run(
        config, "--rate", "400", "--count", "100", "--rounds", "1", "-o", "json",
        state=place / "lib" / "appliance",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads(out)
    (paced,) = report["scenarios"].values()
    assert paced["asked_per_second"] == 400
    assert paced["messages_per_second"]["median"] < 480  # 100 of them take a quarter of a second
    assert report["node"] == "central"  # the first: this host is none
    assert report["state_dir"] == str(place)
    assert set(left_over(place)) == {
        young,
        link,
    }  # what was left long ago is gone, and nothing is new
    assert (outside / "file").exists()
    assert not (place / "lib").exists()


def test_an_embedded_broker_is_started_and_ended(tmp_path):
    config = tmp_path / "appliance.yaml"
    config.write_text("version: 1\nbroker: {embedded: true}\nnodes: {solo: {}}\n")
    code, out, err = run(
        config, "--count", "20", "--rounds", "1", "--window", "1", "--size", "10", state=tmp_path
    )
    assert code == 0, err
    assert "broker    nats://127.0.0.1:" in out
    assert "latency at 1,000 messages/s" in out
    assert max(map(len, out.splitlines())) <= 80 + len(str(tmp_path))
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    "denied",
    [
        {"publish": '["*.bench.*.REQBench.>"]', "subscribe": "[]"},
        {"publish": "[]", "subscribe": '["*.bench.*.REQBench.EventACK"]'},
        {  # denied the wildcard alone, it hears answers on the plain subject
            "publish": "[]",
            "subscribe": '["*.bench.*.REQBench.*.reply", "*.bench.*.REQBench.*.reply.>"]',
        },
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


def test_when_it_is_killed_its_other_side_ends(config, tmp_path):
    with start(config, "--duration", "60s", state=tmp_path) as process:
        wait_for_line(process, "measuring on")
        watched = [os.pidfd_open(pid) for pid in children_of(process.pid)]
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    assert watched
    for ended in watched:
        readable, _, _ = select.select([ended], [], [], TIMEOUT_S)
        os.close(ended)
        assert readable


def test_a_bad_config_is_refused_as_run_refuses_it(tmp_path, capsys):
    config = tmp_path / "appliance.yaml"
    config.write_text(
        "version: 1\nbroker: {embedded: true}\nnodes: {a: {subscribe: {REQPin: {}}}}\n"
    )
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    assert main(["bench", str(config)]) == 78
    assert [signal.getsignal(number) for number in numbers] == before
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
    assert "is more than broker and config allow" in err.replace("\n", " ")
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


def test_the_benchmark_of_the_heart_runs_and_tells_rate_and_processor_time_of_both_sides():
    command = [sys.executable, HEART_BENCH, "--rounds", "1", "--count", "200", "--json"]
    done = subprocess.run(
        [*command, "--only", "heart 256 gob"], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["cases"]["heart 256 gob"]
    assert measured["messages_per_second"] > 0
    assert measured["sender_us"]["loop"] > 0 < measured["receiver_us"]["loop"]
