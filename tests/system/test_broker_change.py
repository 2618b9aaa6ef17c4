"""Brokers come, go and change under a running daemon; what was accepted arrives."""

import pytest

from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

CONFIG = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 50ms}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m, max_cancel: "100%"}}
nodes:
  alpha: {{publish: {{lines: {{to: {to}, method: REQToFileAppend}}}}}}
  {to}: {{subscribe: {{REQToFileAppend: {{}}}}}}
"""


@pytest.fixture
def first():
    with NatsServer() as server:
        yield server


def line(text, to="beta"):
    return {"from_node": "alpha", "to_nodes": [to], "method": "REQToFileAppend", "directory": "d",
            "file_name": "f", "data": [text + "\n"]}  # fmt: skip


def settled(status):
    return status["outbox"]["pending"] == 0 and status["inbox"]["unfinished"] == 0


def test_messages_are_accepted_at_once_while_the_broker_is_away_and_delivered_after(
    first, tmp_path
):
    with Appliance(CONFIG.format(url=first.url, to="beta"), tmp_path) as appliance:
        first.kill()
        appliance.wait_until(lambda status: not status["broker"]["connected"])
        answers = appliance.send(*(line(f"{number}") for number in range(100)))
        assert all(answer["accepted"] for answer in answers)
        assert appliance.status()["outbox"]["pending"] == 100
        first.start()
        appliance.wait_until(settled)
        lines = appliance.data("d", "beta", "f").read_text().split()
        assert sorted(lines, key=int) == [str(number) for number in range(100)]


def test_a_daemon_starts_without_a_broker_and_works_when_one_appears(first, tmp_path):
    first.kill()
    appliance = Appliance(CONFIG.format(url=first.url, to="beta"), tmp_path)
    appliance.start(ready=False)
    try:
        appliance.wait_api()
        assert appliance.request("GET", "/readyz")[0] == 503
        first.start()
        appliance.wait_ready()
        appliance.send(line("hello"))
        appliance.wait_until(settled)
        assert appliance.data("d", "beta", "f").read_text() == "hello\n"
    finally:
        assert appliance.stop() == 0


def test_another_broker_is_taken_over_live(first, tmp_path):
    with (
        NatsServer() as second,
        Appliance(CONFIG.format(url=first.url, to="beta"), tmp_path) as appliance,
    ):
        appliance.send(line("before"))
        appliance.write_config(CONFIG.format(url=second.url, to="beta"))
        assert appliance.reload()["result"] == "applied"
        first.kill()
        appliance.send(line("after"))
        appliance.wait_until(settled)
        assert appliance.status()["broker"]["server"] == second.url
        assert appliance.data("d", "beta", "f").read_text().split() == ["before", "after"]


def test_a_broker_that_cannot_be_reached_refuses_the_whole_set(first, tmp_path):
    with Appliance(CONFIG.format(url=first.url, to="beta"), tmp_path) as appliance:
        generation = appliance.status()["generation"]
        with NatsServer() as gone:
            nowhere = gone.url
        appliance.write_config(CONFIG.format(url=nowhere, to="beta"))
        verdict = appliance.reload()
        assert [problem["code"] for problem in verdict["problems"]] == ["E304"]
        appliance.send(line("still here"))
        appliance.wait_until(settled)
        assert appliance.status()["generation"] == generation


def test_a_set_without_the_node_that_runs_is_refused(first, tmp_path):
    appliance = Appliance(
        CONFIG.format(url=first.url, to="beta"), tmp_path, args=["--node", "beta"]
    )
    appliance.only_named = True
    with appliance:
        appliance.write_config(CONFIG.format(url=first.url, to="gamma"))
        verdict = appliance.reload()
        assert [problem["code"] for problem in verdict["problems"]] == ["E305"]
        assert appliance.worker("beta.REQToFileAppend.EventACK_subscriber")["phase"] == "running"
