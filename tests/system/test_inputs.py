"""Steward's inputs of a real daemon: delivered, reloaded, killed."""

import json
import os
import random
import socket
import urllib.request

import pytest

from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import at_a_random_moment, until

BASE = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 50ms}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
defaults: {{ack: {{timeout: 500ms}}}}
nodes:
  central: {{subscribe: {{REQPong: {{}}}}}}
  ship1: {{subscribe: {{REQToFileAppend: {{ack: {{on: done}}}}}}}}
"""


@pytest.fixture(scope="module")
def broker():
    with NatsServer() as server:
        yield server


def config(broker, inputs=""):
    return BASE.format(url=broker.url) + (f"inputs: {{{inputs}}}\n" if inputs else "")


def message(text):
    return {"toNode": "ship1", "method": "REQToFileAppend", "directory": "d", "fileName": "f",
            "data": f"{text}\n"}  # fmt: skip


def settled(status):
    return status["outbox"]["pending"] == 0 and status["inbox"]["unfinished"] == 0


def lines(appliance):
    path = appliance.data("d", "ship1", "f")
    return path.read_text().split() if path.exists() else []


def talk(connection, text):
    with connection:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        return json.loads(connection.makefile().read())


def unix(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(path))
    return connection


def tcp(listen):
    host, _, port = listen.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def http(listen, body, content_type="application/json"):
    request = urllib.request.Request(
        f"http://{listen}/", data=body.encode(), headers={"Content-Type": content_type}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def drop(spool, name, messages):
    (spool / ".writing").write_text(json.dumps(messages))
    os.rename(spool / ".writing", spool / name)


ALL = (
    "from: central, socket: {}, tcp: {listen: 127.0.0.1:0}, http: {listen: 127.0.0.1:0},"
    " folder: {path: spool, settle: 10ms}"
)


def test_every_input_delivers_and_answers_and_is_told_in_status_and_metrics(broker, tmp_path):
    with Appliance(config(broker, ALL), tmp_path) as appliance:
        status = appliance.status()["inputs"]
        assert set(status) == {"socket", "tcp", "http", "folder"}
        one = talk(unix(status["socket"]["path"]), json.dumps([message("one"), {"toNode": "x"}]))
        two = talk(tcp(status["tcp"]["listen"]), "- " + json.dumps(message("two")))
        three = http(status["http"]["listen"], json.dumps(message("three")))
        (tmp_path / "spool" / "four.json").write_text(json.dumps([message("four")]))
        answered = tmp_path / "spool" / "done" / "four.json.answer.json"
        until(answered.exists)
        four = json.loads(answered.read_text())
        for answer in (one, two, three, four):
            assert answer["accepted"][0]["from"] == "central"
        assert one["problems"][0]["index"] == 1
        appliance.wait_until(lambda status: settled(status) and len(lines(appliance)) == 4)
        assert sorted(lines(appliance)) == sorted(["one", "two", "three", "four"])
        assert appliance.status()["inputs"]["socket"]["refused"] == 1
        metrics = appliance.request("GET", "/metrics")[1]
        for name in ("socket", "tcp", "http", "folder"):
            wanted = f'appliance_inputs_messages_total{{input="{name}",result="accepted"}} 1.0'
            assert wanted in metrics
    assert not (appliance.state / "steward.sock").exists()


def test_what_the_daemon_alone_can_judge_is_told_by_element_key_and_line(broker, tmp_path):
    bad = [
        message("a") | {"method": "REQToFileApend"},
        message("b") | {"toNode": "no such node"},
        message("c") | {"fileName": "../../etc/passwd"},
        message("d") | {"replyMethod": "REQNone"},
        message("e") | {"toNode": "local", "method": "REQPong", "fileName": "x"},
        message("f") | {"toNode": "", "toNodes": ["ship1", "ship9"]},
    ]
    text = "[\n" + ",\n".join(json.dumps(element) for element in bad) + "\n]"
    with Appliance(config(broker, "from: central, socket: {}"), tmp_path) as appliance:
        answer = talk(unix(appliance.state / "steward.sock"), text)
    found = [(note["index"], note["key"], note["line"]) for note in answer["problems"]]
    assert found == [
        (0, "method", 2),
        (1, "toNode", 3),
        (2, "fileName", 4),
        (3, "replyMethod", 5),
    ]
    assert [(item["index"], item["to"]) for item in answer["accepted"]] == [
        (4, "central"),
        (5, "ship1"),
        (5, "ship9"),
    ]
    assert [(note["index"], note["to"]) for note in answer["warnings"]] == [(5, "ship9")]


def test_inputs_come_move_and_go_with_the_config_and_a_bad_set_changes_nothing(broker, tmp_path):
    with Appliance(config(broker), tmp_path) as appliance:
        assert appliance.status()["inputs"] == {}
        appliance.write_config(config(broker, ALL))
        assert appliance.reload()["result"] == "applied"
        before = appliance.status()["inputs"]
        taken = before["http"]["listen"]
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            for bad in (
                f"tcp: {{listen: 127.0.0.1:{port}}}",
                "folder: {path: missing/spool}",
                "tcp: {listen: 0.0.0.0:0, token: {file: no-such-token}}",
                "socket: {path: /no/such/place.sock}",
            ):
                appliance.write_config(config(broker, bad))
                verdict = appliance.reload()
                assert [problem["code"] for problem in verdict["problems"]] == ["E307"], bad
                assert appliance.status()["inputs"] == before
        assert http(taken, json.dumps([message("still")]))["accepted"]
        with NatsServer() as gone:
            nowhere = gone.url
        appliance.write_config(config(broker, "socket: {}").replace(broker.url, nowhere))
        assert [problem["code"] for problem in appliance.reload()["problems"]] == ["E304"]
        assert http(taken, json.dumps([message("still")]))["accepted"]
        appliance.write_config(config(broker, "socket: {path: other.sock}, max_messages: 1"))
        assert appliance.reload()["result"] == "applied"
        assert set(appliance.status()["inputs"]) == {"socket"}
        two = json.dumps([message("x"), message("y")])
        assert not talk(unix(appliance.state / "other.sock"), two)["accepted"]
        appliance.write_config(config(broker))
        assert appliance.reload()["result"] == "applied"
        # nobody waits for what is in hand there
        until(lambda: not list(appliance.state.glob("*other.sock")))
        with pytest.raises(OSError, match="refused"):
            tcp(taken)


def test_an_input_that_cannot_be_opened_at_the_start_is_said_and_ends_the_start(broker, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        appliance = Appliance(config(broker, f"tcp: {{listen: 127.0.0.1:{port}}}"), tmp_path)
        appliance.spawn()
        assert appliance.process.wait(60) == 69
    assert f"127.0.0.1:{port}: address already in use" in appliance.log()
    assert "Traceback" not in appliance.log()


def put_a_link_in_its_place(directory):
    directory.rmdir()
    try:
        directory.symlink_to("nowhere")
    except FileExistsError:
        return False
    return True


def test_a_file_whose_messages_were_accepted_is_not_sent_again_after_a_kill(broker, tmp_path):
    spool = tmp_path / "spool"
    inputs = "folder: {path: spool, settle: 0s, poll_interval: 50ms}"
    appliance = Appliance(config(broker, inputs), tmp_path)
    with appliance:
        # so that it is accepted and cannot be put away; the folder is looked after meanwhile
        until(lambda: put_a_link_in_its_place(spool / "done"))
        drop(spool, "a.json", [message("once")])
        appliance.wait_until(
            lambda status: status["inputs"]["folder"]["accepted"] == 1 and settled(status)
        )
        appliance.wait_until(lambda status: status["inputs"]["folder"]["error"])
        appliance.kill()
        (spool / "done").unlink()
        appliance.start()
        until((spool / "done" / "a.json").exists)
        answer = json.loads((spool / "done" / "a.json.answer.json").read_text())
        assert answer["warnings"]
        drop(spool, "b.json", [message("next")])
        appliance.wait_until(lambda status: settled(status) and "next" in lines(appliance))
        assert lines(appliance) == ["once", "next"]


def test_files_that_pour_in_while_the_daemon_is_killed_again_and_again_are_sent_once_each(
    broker, tmp_path
):
    spool = tmp_path / "spool"
    chance = random.Random(7)
    inputs = "folder: {path: spool, settle: 0s, poll_interval: 50ms}"
    appliance = Appliance(config(broker, inputs), tmp_path)
    count = 0

    with appliance:
        for _ in range(3):
            wanted = count + 25
            while count < wanted:
                drop(spool, f"{count}.json", [message(f"{count}a"), message(f"{count}b")])
                count += 1
            at_a_random_moment(chance, 0.0, 0.25)  # wherever it stands
            appliance.kill()
            appliance.start()
        until(lambda: len(list((spool / "done").glob("*.answer.json"))) == count)
        appliance.wait_until(settled)
        found = lines(appliance)
        left = [
            name for name in spool.rglob("*.json") if name.parent.name not in ("done", "failed")
        ]
    assert left == []
    assert list((spool / "failed").iterdir()) == []
    assert sorted(found) == sorted(f"{number}{part}" for number in range(count) for part in "ab")
