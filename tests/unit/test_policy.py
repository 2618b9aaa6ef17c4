"""`can` answers as the node would, and names the line that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.cli import main

CONFIG = """\
version: 1
broker: {embedded: true}
defaults: {}
methods:
  Restart: {exec: [systemctl, restart, "{args.0}"], args: {prefixItems: [{enum: [web, db]}], items: false, minItems: 1}}
roles:
  managed:
    subscribe:
      REQPing: {}
      REQCliCommand:
        accept_from: [central]
        allow_commands: [[uptime], [systemctl, status, "*"], [echo, "**"]]
      REQTailFile: {accept_from: [central, ship2], allow_paths: [/var/log/*.log, /srv/**]}
      REQHttpGet: {accept_from: [central], allow_urls: ["http://127.0.0.1:8080/status"]}
      Restart: {accept_from: [central]}
nodes:
  central: {subscribe: {REQErrorLog: {}}}
  ship1: {roles: [managed]}
  ship3:
    labels: {site: oslo}
    subscribe:
      REQPing: {accept_from: ["@managed", site=oslo, "c*"]}
      REQCliCommand: {accept_from: ["@managed"], allow_commands: [[uptime]]}
  ship2:
    roles: [managed]
    subscribe:
      REQCliCommand: {allow_commands: any, runner: /run/runner.sock}
      REQCopyFileTo: {accept_from: any, allow_paths: any}
"""


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "fleet.yaml"
    path.write_text(CONFIG)

    def ask(*words: str, sender: str = "central") -> tuple[int, dict]:
        node, method, *arguments = words
        options = ["--config", str(path), "--from", sender, "-o", "json"]
        code = main(["can", node, method, *options, "--", *arguments])
        return code, json.loads(capsys.readouterr().out)

    return ask


@pytest.mark.parametrize(
    ("words", "sender", "line", "item"),
    [
        (("ship1", "REQPing"), "ship2", 9, None),
        (("ship1", "REQCliCommand", "uptime"), "central", 12, 0),
        (("ship1", "REQCliCommand", "echo", "-n", "--", "x"), "central", 12, 2),
        (("ship2", "REQCliCommand", "rm", "-rf", "/"), "central", 27, None),
        (("ship1", "REQTailFile", "/var/log/app.log", "-n", "5"), "ship2", 13, 0),
        (("ship1", "REQTailFile", "/srv/a/b"), "central", 13, 1),
        (("ship1", "REQHttpGet", "http://127.0.0.1:8080/status"), "central", 14, 0),
        (("ship1", "Restart", "web"), "central", 15, None),
        (("ship3", "REQPing"), "ship1", 22, None),
        (("ship3", "REQPing"), "ship3", 22, None),
        (("ship3", "REQCliCommand", "uptime"), "ship2", 23, 0),
        (("ship2", "REQCopyFileTo", "/a", "ship2", "/etc/x"), "anybody", 28, None),
    ],
)
def test_yes_and_where_it_stands(ask, words, sender, line, item):
    code, told = ask(*words, sender=sender)
    assert (code, told["is_allowed"]) == (0, True), told
    assert told["place"].split(":")[-2] == str(line)
    assert told["item"] == item


@pytest.mark.parametrize(
    ("words", "sender", "line", "because"),
    [
        (("ship1", "REQCliCommand", "uptime"), "ship2", 11, "not in accept_from"),
        (("ship1", "REQPing"), "stranger", 9, "not a declared node"),
        (("ship1", "REQCliCommand", "uptime", "-p"), "central", 12, "no pattern"),
        (("ship1", "REQCliCommand", "systemctl", "status", "--host=x"), "central", 12, "no pattern"),
        (("ship1", "REQCliCommand"), "central", None, "no program"),
        (("ship1", "REQTailFile", "/var/log/x/y.log"), "central", 13, "no pattern"),
        (("ship1", "REQTailFile", "/srv/../etc/shadow"), "central", 13, "without . and .."),
        (("ship1", "REQTailFile"), "central", None, "path is missing"),
        (("ship1", "REQHttpGet", "http://127.0.0.1:8080/other"), "central", 14, "no pattern"),
        (("ship1", "REQHttpGet", "file:///etc/passwd"), "central", None, ""),
        (("ship1", "Restart", "mail"), "central", 5, ""),
        (("ship1", "REQCopyFileTo", "/a", "ship1", "/b"), "central", None, "does not subscribe"),
        (("ship3", "REQCliCommand", "uptime"), "central", 23, "not in accept_from"),
        (("shp1", "REQPing"), "central", None, "did you mean ship1?"),
        (("ship1", "REQPng"), "central", None, "did you mean"),
    ],
)  # fmt: skip
def test_no_and_why(ask, words, sender, line, because):
    code, told = ask(*words, sender=sender)
    assert (code, told["is_allowed"]) == (1, False), told
    assert because in told["because"]
    if line is not None:
        assert told["place"].split(":")[-2] == str(line)


def test_the_line_that_lets_the_asker_in_is_named_beside(ask, tmp_path, capsys):
    assert ask("ship3", "REQPing", sender="ship1")[1]["accept_from_place"].split(":")[-2:] == [
        "22",
        "17",
    ]
    assert ask("ship1", "REQPing", sender="ship3")[1]["accept_from_place"] is None
    path = str(tmp_path / "fleet.yaml")
    assert main(["can", "ship3", "REQPing", "--from", "ship1", "--config", path]) == 0
    assert f"{path}:22:17: accept_from names ship1" in capsys.readouterr().out


def test_what_the_node_decides_beside_the_config_is_named(ask):
    assert "runner at /run/runner.sock" in ask("ship2", "REQCliCommand", "reboot")[1]["notes"][0]
    assert "where the path leads" in ask("ship1", "REQTailFile", "/srv/x")[1]["notes"][0]


RELAYS = """\
version: 1
broker: {embedded: true}
nodes:
  central: {subscribe: {REQErrorLog: {}}}
  ops: {}
  gate:
    subscribe:
      REQRelay:
        accept_from: [central, ops]
        relay_to: [ship1]
        relay_methods: [REQCliCommand]
  ship1:
    subscribe:
      REQPing: {}
      REQCliCommand: {accept_from: [gate, central], allow_commands: [[uptime]]}
  ship2: {subscribe: {REQPing: {}}}
"""


def ask_by_relay(tmp_path, capsys, *words, sender="ops", via="gate", output="json"):
    path = tmp_path / "relays.yaml"
    path.write_text(RELAYS)
    node, method, *arguments = words
    options = ["--config", str(path), "--from", sender, "-o", output]
    options += ["--via", via] if via else []
    code = main(["can", node, method, *options, "--", *arguments])
    told = capsys.readouterr().out
    return code, json.loads(told) if output == "json" else told.replace(str(path), "F")


def test_by_way_of_a_relay_every_line_that_lets_it_through_is_named(tmp_path, capsys):
    words = ("ship1", "REQCliCommand", "uptime")
    code, told = ask_by_relay(tmp_path, capsys, *words, output="text")
    assert code == 0
    assert told.splitlines() == [
        "yes: REQCliCommand uptime at ship1 from ops by way of gate: a pattern covers it",
        "  F:15:53: allow_commands, number 1 of its list",
        "  F:15:23: accept_from names gate",
        "  F:10:9: gate passes on to ship1",
        "  F:9:9: accept_from names ops",
        "  F:11:9: relay_methods lets REQCliCommand through",
    ]
    _, told = ask_by_relay(tmp_path, capsys, *words)
    assert [place.split(":")[-2] for place in told["relay_places"]] == ["10", "9", "11"]


@pytest.mark.parametrize(
    ("words", "sender", "via", "line", "because"),
    [
        (("ship1", "REQCliCommand", "reboot"), "ops", "gate", 15, "no pattern covers it"),
        (("ship1", "REQCliCommand", "uptime"), "ship2", "gate", 9, "not in accept_from"),
        (("ship1", "REQPing"), "ops", "gate", 11, "is not in relay_methods"),
        (("ship2", "REQPing"), "ops", "gate", 10, "gate passes nothing on to ship2"),
        (("ship1", "REQPing"), "ops", "ship2", None, "ship2 does not subscribe REQRelay"),
        (("ship1", "REQPing"), "ops", "gat", None, "gat is not declared; did you mean gate?"),
        (("ship1", "REQErrorLog"), "ops", "gate", None, "REQErrorLog cannot be relayed"),
        (("ship1", "REQPin"), "ops", "gate", None, "did you mean REQPing?"),
    ],
)
def test_by_way_of_a_relay_the_line_that_stands_against_it_is_named(
    tmp_path, capsys, words, sender, via, line, because
):
    code, told = ask_by_relay(tmp_path, capsys, *words, sender=sender, via=via)
    assert (code, told["is_allowed"], told["via"]) == (1, False, via)
    assert because in told["because"]
    if line is not None:
        assert told["place"].split(":")[-2] == str(line)


def test_who_asks_without_a_relay_hears_of_those_that_would_let_it_through(tmp_path, capsys):
    code, told = ask_by_relay(
        tmp_path, capsys, "ship1", "REQCliCommand", "uptime", via="", output="text"
    )
    assert code == 1
    assert told.endswith("  by way of gate: yes (--via gate names the lines)\n")
    _, told = ask_by_relay(tmp_path, capsys, "ship1", "REQCliCommand", "uptime", via="")
    assert told["relays"] == ["gate"]
    assert (
        ask_by_relay(tmp_path, capsys, "ship1", "REQCliCommand", "reboot", via="")[1]["relays"]
        == []
    )


def test_by_any_way_it_is_yes_where_one_way_leads_there(tmp_path, capsys):
    words = ("ship1", "REQCliCommand", "uptime")
    assert ask_by_relay(tmp_path, capsys, *words, via="any")[1]["via"] == "gate"
    assert ask_by_relay(tmp_path, capsys, *words, sender="central", via="any")[1]["via"] == ""
    code, told = ask_by_relay(tmp_path, capsys, *words, sender="ship2", via="any")
    assert (code, told["notes"]) == (1, ["nor does it get there by way of another node"])


def test_in_words_it_is_a_line_and_its_place(tmp_path, capsys):
    path = tmp_path / "fleet.yaml"
    path.write_text(CONFIG)
    assert (
        main(["can", "ship1", "REQCliCommand", "--config", str(path), "--", "rm", "-rf", "/"]) == 1
    )
    told = capsys.readouterr().out
    assert told == (
        "no: REQCliCommand rm -rf / at ship1 from central: no pattern covers it\n"
        f"  {path}:12:9: allow_commands\n"
    )


def test_without_a_config_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.delenv("APPLIANCE_CONFIG", raising=False)
    assert main(["can", "ship1", "REQPing"]) == 64
    assert "APPLIANCE_CONFIG" in capsys.readouterr().err
