"""Each point of the checklist: what is good, what is bad, and what would mend it."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.checklist import (
    DaemonFacts,
    FileFacts,
    Grade,
    Point,
    check_broker,
    check_clock,
    check_daemon,
    check_keys,
    check_listeners,
    check_proof,
    check_readers,
    check_rights,
    check_room,
    check_source,
    check_writers,
    count_grades,
    worst_of,
)
from appliance.core.names import NodeName
from appliance.core.specs import DesiredState
from tests.support.config_files import load_text
from tests.support.nats_login import make_nkey

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR
ROOT = frozenset({0})


def fleet(directory: Path, text: str) -> DesiredState:
    head = "" if "broker:" in text else "broker: {embedded: true}\n"
    return load_text(directory, f"version: 1\n{head}{text}").desired


def only(points: object) -> Point:
    (point,) = points  # type: ignore[misc]
    assert isinstance(point, Point)
    return point


@pytest.mark.parametrize(
    ("facts", "grade"),
    [
        (FileFacts("/etc/a.yaml", FILE | 0o644), Grade.OK),
        (FileFacts("/etc/a.yaml", FILE | 0o646), Grade.BAD),
        (FileFacts("/etc", DIRECTORY | 0o777), Grade.BAD),
        (FileFacts("/tmp", DIRECTORY | stat.S_ISVTX | 0o777), Grade.OK),
        (FileFacts("/etc/a.yaml", FILE | 0o644, user_id=1000), Grade.BAD),
        (FileFacts("/etc/a.yaml", FILE | 0o664), Grade.OK),  # a group of nobody else
        (FileFacts("/etc/a.yaml", FILE | 0o664, group=("anna",)), Grade.BAD),
        (FileFacts("/etc/a.yaml", FILE | 0o644, group=("anna",)), Grade.OK),
        (FileFacts("/etc", DIRECTORY | 0o775, group=("anna",)), Grade.BAD),
        (FileFacts("/etc/a.yaml", error="Permission denied"), Grade.UNKNOWN),
        (FileFacts("/etc/a.yaml", error="No such file or directory"), Grade.UNKNOWN),
    ],
)
def test_who_may_change_a_file_is_seen(facts: FileFacts, grade: Grade) -> None:
    point = check_writers("config", [FileFacts("/", DIRECTORY | 0o755), facts], ROOT, "the config")
    assert point.grade is grade
    assert (facts.path in point.text) is (grade is not Grade.OK)
    assert (point.remedy == "ask as root") is ("ermission" in facts.error)


@pytest.mark.parametrize(
    ("mode", "grade"),
    [(0o600, Grade.OK), (0o640, Grade.OK), (0o644, Grade.BAD), (0o602, Grade.BAD)],
)
def test_a_secret_that_everybody_may_read_is_bad(mode: int, grade: Grade) -> None:
    point = check_readers("secrets", [FileFacts("/etc/key", FILE | mode)], "secrets")
    assert point.grade is grade


def test_users_of_the_group_of_a_secret_are_named() -> None:
    facts = [FileFacts("/etc/key", FILE | 0o640, group=("anna", "ben"))]
    point = check_readers("secrets", facts, "secrets")
    assert (point.grade, "(anna, ben)" in point.text) == (Grade.WARNING, True)
    facts = [FileFacts("/etc/key", FILE | 0o600, group=("anna",))]
    assert check_readers("secrets", facts, "secrets").grade is Grade.OK


@pytest.mark.parametrize(
    ("broker", "way", "login"),
    [
        ("{servers: ['nats://10.0.0.1']}", Grade.BAD, Grade.BAD),
        ("{servers: ['nats://10.0.0.1'], tls: {ca: {file: ca.pem}}}", Grade.OK, Grade.BAD),
        ("{servers: ['tls://n.example.com'], auth: {token: {env: T}}}", Grade.OK, Grade.OK),
        ("{servers: ['nats://127.0.0.1', 'nats://localhost']}", Grade.OK, Grade.BAD),
        ("{servers: ['nats://127.0.0.1', 'nats://n.example.com']}", Grade.BAD, Grade.BAD),
    ],
)
def test_the_way_to_the_broker_and_the_login(
    tmp_path: Path, broker: str, way: Grade, login: Grade
) -> None:
    found = fleet(tmp_path, f"broker: {broker}\nnodes: {{a: {{}}}}\n")
    points = {point.name: point.grade for point in check_broker(found.broker)}
    assert points == {"broker": way, "login": login}


@pytest.mark.parametrize(("secured", "login"), [("true", Grade.OK), ("false", Grade.WARNING)])
def test_an_embedded_broker_is_nobody_elses_when_it_is_secured(
    tmp_path: Path, secured: str, login: Grade
) -> None:
    found = fleet(tmp_path, f"broker: {{embedded: {{secured: {secured}}}}}\nnodes: {{a: {{}}}}\n")
    points = {point.name: point.grade for point in check_broker(found.broker)}
    assert points == {"broker": Grade.OK, "login": login}
    assert check_keys(found).grade is Grade.OK


def test_nodes_without_a_key_or_with_anothers_are_named(tmp_path: Path) -> None:
    one, two = make_nkey().public, make_nkey().public
    servers = "broker: {servers: ['tls://n']}\n"

    def ask(nodes: str) -> Point:
        return check_keys(fleet(tmp_path, f"{servers}nodes: {nodes}\n"))

    assert ask(f"{{a: {{public_keys: [{one}]}}, b: {{public_keys: [{two}]}}}}").grade is Grade.OK
    missing = ask(f"{{a: {{public_keys: [{one}]}}, b: {{}}}}")
    assert (missing.grade, missing.text.rsplit(": ", 1)[1]) == (Grade.WARNING, "b")
    shared = ask(f"{{a: {{public_keys: [{one}]}}, b: {{public_keys: [{one}]}}}}")
    assert (shared.grade, shared.text.rsplit(": ", 1)[1]) == (Grade.WARNING, "a and b")


def test_at_a_broker_of_its_own_the_nodes_of_other_machines_count(tmp_path: Path) -> None:
    entry = "subscribe: {REQCliCommand: {accept_from: [b], allow_commands: [[uptime]]}}"

    def ask(more: str) -> DesiredState:
        nodes = f"nodes: {{a: {{{entry}}}, b: {{{more}}}}}\n"
        found = fleet(tmp_path, f"broker: {{embedded: {{secured: true}}}}\n{nodes}")
        return replace(found, run_nodes=(NodeName("a"),))

    found = ask("")
    assert check_keys(found).text == "they have no login at the daemon's own broker: b"
    assert only(check_proof(found)).text.endswith("REQCliCommand of a")
    found = ask(f"public_keys: [{make_nkey().public}]")
    assert check_keys(found).grade is Grade.OK
    assert check_keys(found).text == "1 node with a key of its own"


@pytest.mark.parametrize(
    ("entry", "warned"),
    [
        ("REQCliCommand: {accept_from: [a], allow_commands: [[uptime]]}", set()),
        ("REQCliCommand: {accept_from: [a], allow_commands: any}", {"rights"}),
        ("REQCliCommand: {allow_commands: [[uptime]]}", {"askers"}),
        ("REQCliCommand: {accept_from: any, allow_commands: [[uptime]]}", {"askers"}),
        ('REQCliCommand: {accept_from: [a], allow_commands: [[/bin/sh, "**"]]}', {"shells"}),
        ("REQCliCommand: {accept_from: [a], allow_commands: [[sh, -c, uptime]]}", set()),
        ("REQTailFile: {accept_from: [a], allow_paths: any}", {"rights"}),
        ("REQTailFile: {allow_paths: [/var/log/**]}", {"askers"}),
        ("REQPing: {}", set()),
    ],
)
def test_what_is_more_than_a_list_of_rights_is_warned_of(
    tmp_path: Path, entry: str, warned: set[str]
) -> None:
    found = fleet(tmp_path, f"nodes: {{a: {{}}, b: {{subscribe: {{{entry}}}}}}}\n")
    points = list(check_rights(found))
    assert {point.name for point in points} == {"rights", "shells", "askers"}
    assert {point.name for point in points if point.grade is Grade.WARNING} == warned
    assert all("of b" in point.text for point in points if point.name in warned)


def test_many_of_a_kind_are_counted(tmp_path: Path) -> None:
    nodes = ", ".join(
        f"n{i}: {{subscribe: {{REQCliCommand: {{allow_commands: any}}}}}}" for i in range(9)
    )
    (rights,) = (
        point
        for point in check_rights(fleet(tmp_path, f"nodes: {{{nodes}}}\n"))
        if point.name == "rights"
    )
    assert rights.text.endswith(" and 4 more")


def test_a_listener_beyond_this_machine_in_clear_is_warned_of(tmp_path: Path) -> None:
    here = fleet(tmp_path, "admin: {listen: '127.0.0.1:1'}\nnodes: {a: {}}\n")
    assert only(check_listeners(here)).grade is Grade.OK
    text = "admin: {listen: '0.0.0.0:1', token: {env: T}}\ninputs: {http: {listen: '[::]:2', token: {env: T}}}\n"
    point = only(check_listeners(fleet(tmp_path, f"{text}nodes: {{a: {{}}}}\n")))
    assert point.grade is Grade.WARNING
    assert "admin.listen 0.0.0.0:1, inputs.http.listen [::]:2" in point.text
    tls = "admin: {listen: '0.0.0.0:1', token: {env: T}, tls: {cert: {file: c}, key: {file: k}}}\n"
    assert only(check_listeners(fleet(tmp_path, f"{tls}nodes: {{a: {{}}}}\n"))).grade is Grade.OK


def test_commits_that_nobody_signed_are_warned_of(tmp_path: Path) -> None:
    assert check_source(fleet(tmp_path, "nodes: {a: {}}\n")).grade is Grade.OK
    git = "config: {source: git}\nnodes: {a: {}}\n"
    assert check_source(fleet(tmp_path, git)).grade is Grade.WARNING
    key = "ssh-ed25519 " + "A" * 68
    signed = f"config: {{source: git, signed_by: ['{key}']}}\nnodes: {{a: {{}}}}\n"
    assert check_source(fleet(tmp_path, signed)).grade is Grade.OK
    # the daemon may have been told, where the config is not
    told = check_source(fleet(tmp_path, git), "/etc/appliance/signers")
    assert (told.grade, "/etc/appliance/signers" in told.text) == (Grade.OK, True)


def test_the_daemon_is_told_as_it_answers() -> None:
    well = DaemonFacts("1.0", 998, True, ())
    assert {point.grade for point in check_daemon(well, "", "1.0")} == {Grade.OK}
    ill = well._replace(user_id=0, is_healthy=False, degraded_by=("no broker",))
    grades = {point.name: point.grade for point in check_daemon(ill, "", "1.1")}
    assert grades == {"user": Grade.WARNING, "daemon": Grade.BAD, "version": Grade.WARNING}
    away = only(check_daemon(None, "nobody answers", "1.0"))
    assert (away.grade, away.text) == (Grade.UNKNOWN, "nobody answers")
    unseen = {
        point.name: point.grade for point in check_daemon(well._replace(user_id=None), "", "1.0")
    }
    assert unseen["user"] is Grade.UNKNOWN


def test_clock_and_room() -> None:
    assert [check_clock(kept).grade for kept in (True, False, None)] == [
        Grade.OK,
        Grade.WARNING,
        Grade.UNKNOWN,
    ]
    gib = 1024**3
    assert check_room(10 * gib, 100 * gib, "/var").grade is Grade.OK
    assert check_room(gib // 2, 100 * gib, "/var").grade is Grade.BAD
    # a small disk has little to spare
    assert check_room(gib // 2, 4 * gib, "/var").grade is Grade.OK
    read_only = check_room(10 * gib, 100 * gib, "/var", is_read_only=True)
    assert read_only.grade is Grade.BAD
    assert "the file system of /var is read-only" in read_only.text


def test_the_worst_point_counts() -> None:
    points = [
        Point("a", Grade.OK, ""),
        Point("b", Grade.WARNING, ""),
        Point("c", Grade.UNKNOWN, ""),
    ]
    assert worst_of(points) is Grade.WARNING
    assert worst_of([]) is Grade.OK
    assert count_grades(points) == {
        Grade.OK: 1, Grade.UNKNOWN: 1, Grade.WARNING: 1, Grade.BAD: 0,
    }  # fmt: skip


def test_who_has_something_done_signs_it(tmp_path: Path) -> None:
    keys = {name: make_nkey().public for name in ("central", "ship")}
    text = f"""
broker: {{servers: ["tls://b:4222"]}}
signing: {{key: {{file: seed.nk}}}}
nodes:
  central: {{public_keys: [{keys["central"]}], subscribe: {{REQErrorLog: {{}}}}}}
  ship:
    public_keys: [{keys["ship"]}]
    subscribe: {{REQPing: {{}}, REQCliCommand: {{accept_from: [central], allow_commands: [[uptime]], signatures: off}}}}
"""
    point = only(check_proof(fleet(tmp_path, text)))
    assert (point.grade, point.name) == (Grade.WARNING, "signatures")
    assert point.text.endswith("REQCliCommand of ship")
    point = only(check_proof(fleet(tmp_path, text.replace("off", "require"))))
    assert point.grade is Grade.OK
    alone = "broker: {embedded: true}\nnodes: {a: {subscribe: {REQCliCommand: {allow_commands: [[uptime]]}}}}\n"
    assert only(check_proof(fleet(tmp_path, alone))).grade is Grade.OK


def test_one_node_is_named_that_makes_the_streams(tmp_path: Path) -> None:
    text = f"""
broker: {{servers: ["tls://b:4222"]}}
nodes: {{a: {{public_keys: [{make_nkey().public}], delivery: jetstream, subscribe: {{REQPing: {{}}}}}}}}
"""
    _, point = check_proof(fleet(tmp_path, text))
    assert (point.name, point.grade) == ("streams", Grade.WARNING)
    assert only(check_proof(fleet(tmp_path, text + "streams: {keeper: a}\n"))).name == "signatures"
