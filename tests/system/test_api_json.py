"""The JSON of the API is a contract: the keys of every answer, their order and kinds, as `tests/vectors/api.json` has them.

What differs from run to run is made alike: numbers are 0, times, digests, ids and places words. With
`WRITE_VECTORS` in the environment the file is written anew.
"""

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.appliance import Appliance

VECTORS = Path(__file__).parents[1] / "vectors" / "api.json"
HEAD = """
version: 1
broker: {embedded: true}
reload: {settle: 1ms, watch: false, poll_interval: 10m}
inputs:
  socket: {path: inputs.sock}
  tcp: {listen: "127.0.0.1:0"}
  folder: {path: FOLDER}
methods:
  Say: {exec: [echo, "{args.0}"], args: {type: array, items: {type: string, format: hostname}}}
"""
CONFIG = f"""{HEAD}
nodes:
  central:
    subscribe:
      REQToFile: {{}}
      REQToFileAppend: {{}}
      REQErrorLog: {{}}
      REQHello: {{}}
      REQCopyFileTo: {{accept_from: [ship1]}}
    publish: {{beat: {{to: ship1, method: REQToConsole, every: 1h, data: [beat]}}}}
  ship1:
    labels: {{site: oslo}}
    subscribe:
      REQOpProcessStop: {{accept_from: [central]}}
      REQPing: {{}}
      Say: {{}}
      REQToConsole: {{}}
      REQCliCommand: {{accept_from: [central], allow_commands: [[echo, "**"], ["false"], [sleep, "**"]]}}
      REQCopyFileTo: {{allow_paths: ["FOLDER/**"]}}
    publish: {{hello: {{to: central, method: REQHello, every: 1h}}}}
"""
CHANGED = f"""{HEAD}
log: {{level: debug}}
nodes:
  central:
    subscribe:
      REQToFile: {{concurrency: 3}}
      REQToFileAppend: {{}}
      REQErrorLog: {{}}
      REQCopyFileTo: {{accept_from: [ship1]}}
  ship1:
    subscribe:
      REQPing: {{}}
      REQPong: {{}}
      REQToConsole: {{}}
      REQOpProcessStop: {{accept_from: [central]}}
      REQCopyFileTo: {{allow_paths: ["FOLDER/**"]}}
"""
BROKEN = CONFIG.replace("REQPing: {", "REQPng: {")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00")
VARIABLE = (
    (re.compile(r"sha256:[0-9a-f]{64}|\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<token>"),
    (TIME, "<time>"),
    (re.compile(r"\b\d{10,}\b"), "<number>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<address>"),
    (re.compile(r"\(uid \d+\)"), "(uid)"),
)
UNSORTED = {"degraded_by", "last_error", "text"}
"""Words of the moment."""


def alike(value, name="", directory=""):
    """A value without what differs from run to run."""
    if isinstance(value, dict):
        if name == "workers":  # what each of them drained
            return {}
        if "next_at" in value and "died_at" not in value:
            value = value | {"state": "<state>", "why": "<why>"}  # where it stands is of the moment
        return {key: alike(item, key, directory) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if name in UNSORTED:
            return []
        return [alike(item, name, directory) for item in value if not is_chance(item)]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return type(value)()
    if name in ("token", "path") and "/" not in value:
        return f"<{name}>"
    if name == "by":
        return "<user>"
    if name in UNSORTED | {"id_text", "previous_id_text", "message_id_text"}:
        return f"<{name}>"
    value = value.replace(directory, "<directory>")
    for pattern, word in VARIABLE:
        value = pattern.sub(word, value)
    return value


def is_chance(item):
    """Whether a record or a worker is there only when the machine is slow, or quick."""
    if not isinstance(item, dict):
        return False
    is_pending = "next_at" in item and "died_at" not in item
    return (is_pending and item["to"] not in ("nowhere", "shp1")) or "errorCentral" in item.get(
        "subject", ""
    )


def lines_of(text):
    """The first line of every kind, without those that only a slow machine sees."""
    lines = [json.loads(line) for line in text.splitlines()]
    slow = {"waits", "sent", "working"} | (set() if "nowhere" in text else {"missed"})
    return {line["event"]: line for line in reversed(lines) if line["event"] not in slow}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Every answer of a daemon that has been through a lot, by what was asked."""
    directory = tmp_path_factory.mktemp("api")
    folder = directory / "folder"
    folder.mkdir()
    found = {}

    def config(text):
        return text.replace("FOLDER", str(folder))

    with Appliance(config(CONFIG), directory) as daemon:

        def ask(name, verb, path, body=None):
            found[name] = daemon.request(verb, f"/api/v1{path}", body)

        def follow(name, *, wait_s=20.0, **message):
            message = {"from_node": "central", "to_nodes": ["ship1"], **message}
            found[name] = lines_of(daemon.follow(message, wait_s))

        follow(
            "follow a command", method="REQCliCommand", method_args=["echo", "hi"], for_caller=True
        )
        follow(
            "follow one that fails", method="REQCliCommand", method_args=["false"], for_caller=True
        )
        follow(
            "follow one refused there", method="REQCliCommand", method_args=["rm"], for_caller=True
        )
        follow("follow one rejected here", method="Say", method_args=["no host"])
        follow("follow one to nobody", to_nodes=["nowhere"], method="REQPing", wait_s=1.0)
        found["submit"] = daemon.request(
            "POST",
            "/api/v1/messages",
            [
                {"from_node": "central", "to_nodes": ["ship1", "shp1"], "method": "REQPing"},
                {"from_node": "nobody", "to_nodes": ["ship1"], "method": "REQPing"},
                {
                    "from_node": "central",
                    "to_nodes": ["ship1"],
                    "method": "REQPing",
                    "expires": "1ms",
                },
            ],
        )
        ask("submit nothing good", "POST", "/messages", {"to_nodes": ["x"], "method": "REQPng"})
        daemon.wait_until(lambda status: status["outbox"]["dead"] == 1)
        daemon.wait_until(lambda status: status["hellos"])
        ask("outbox", "GET", "/outbox")
        ask("outbox dead", "GET", "/outbox?state=dead")
        ask("methods", "GET", "/methods")
        ask("fleet", "GET", "/targets")
        chosen = {"targets": ["all", "site=oslo", "shp1", "!local"], "method": "REQPing"}
        ask("targets", "POST", "/targets", {**chosen, "from_node": "central"})
        ask("targets that are none", "POST", "/targets", {"targets": ["site=osl"]})
        ask("traffic", "GET", "/traffic")
        ask("access", "GET", "/access")
        ask(
            "copy to a node",
            "POST",
            "/copies",
            {"to_node": "ship1", "path": f"{folder}/x", "name": "x"},
        )
        ask("copy from a node", "POST", "/copies", {"from_node": "ship1"})
        ask("copy refused", "POST", "/copies", {"from_node": "shp1"})
        daemon.follow(
            {"from_node": "central", "to_nodes": ["ship1"], "method": "REQOpProcessStop"}
            | {"method_args": ["REQPing", "ship1", "subscriber"]},
            2.0,
        )
        daemon.wait_until(lambda status: len(status["overrides"]) == 1)
        daemon.wait_until(lambda status: status["inbox"]["unfinished"] == 0)
        ask("status", "GET", "/status")
        daemon.write_config(config(CHANGED))
        ask("plan", "GET", "/plan")
        ask("plan forced", "GET", "/plan?force=true")
        daemon.write_config(config(BROKEN))
        ask("plan refused", "GET", "/plan")
        ask("reload refused", "POST", "/reload")
        # a hello tells of it when it comes: neither the quick nor the slow one is a fault
        daemon.wait_until(lambda status: status["fleet"][0]["state"] == "refused")
        ask("status refused", "GET", "/status")
        daemon.write_config(config(CHANGED))
        ask("reload applied", "POST", "/reload", {"force": True})
        ask("reload unchanged", "POST", "/reload")
        ask("rollback", "POST", "/rollback", {"force": True})
        ask("rollback to nothing", "POST", "/rollback", {"to": "g99"})
        daemon.wait_until(lambda status: status["fleet"][0]["state"] == "in_sync")
        ask("status pinned", "GET", "/status")
        ask("plan pinned", "GET", "/plan")
        ask("history", "GET", "/history?limit=2")
        ask("history record", "GET", "/history/2")
        ask("outbox retry", "POST", "/outbox/retry", {})
        ask("outbox drop", "POST", "/outbox/drop", {"ids": ["1"]})
        command = {"method": "REQCliCommand", "method_args": ["sleep", "600"]}
        daemon.send({"from_node": "central", "to_nodes": ["ship1"], **command})
        daemon.wait_until(lambda status: daemon.request("GET", "/api/v1/inbox")[1]["records"])
        ask("inbox", "GET", "/inbox")
        ask("inbox drop", "POST", "/inbox/drop", {"all": True})
    return {name: alike(value, "", str(directory)) for name, value in found.items()}


def test_every_answer_is_as_it_was(answers):
    # NB: texts are compared, for the order of the keys is what a reader of -o json sees too
    texts = {name: json.dumps(answer) for name, answer in answers.items()}
    if "WRITE_VECTORS" in os.environ:
        lines = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in texts.items())
        VECTORS.write_text(f"{{\n{lines}\n}}\n")
    wanted = json.loads(VECTORS.read_text())
    assert list(texts) == list(wanted)
    for name, text in texts.items():
        assert text == json.dumps(wanted[name]), f"{name}: {text}"
