"""Nodes are chosen by the config in force: names, patterns, roles, labels; a reload is followed, no worker moves."""

import pytest

from tests.support.appliance import Appliance

CONFIG = """
version: 1
broker: {embedded: true}
reload: {settle: 1ms, watch: false, poll_interval: 10m}
roles:
  edge:
    subscribe: {REQCliCommand: {allow_commands: [[echo, "**"]]}}
    publish: {hello: {to: central, method: REQHello, every: 1h}}
  hub: {}
nodes:
  central:
    roles: [hub]
    subscribe: {REQHello: {}, REQToFileAppend: {}, REQErrorLog: {}}
  ship1: {roles: [edge], labels: {site: oslo, tier: "${TIER}"}}
  ship2: {roles: [edge], labels: {site: rome}}
  ship10: {roles: [edge]}
  elsewhere: {}
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    daemon = Appliance(CONFIG, tmp_path_factory.mktemp("targets"))
    daemon.environment = {"TIER": "backbone-of-gold"}
    with daemon:
        yield daemon


def choose(daemon, *targets, **asked):
    return daemon.request("POST", "/api/v1/targets", {"targets": list(targets), **asked})


def chosen(daemon, *targets, **asked):
    code, answer = choose(daemon, *targets, **asked)
    assert code == 200, answer
    return answer["nodes"]


def test_nodes_are_chosen_by_what_is_in_force(daemon):
    assert chosen(daemon, "ship*") == ["ship1", "ship2", "ship10"]
    assert chosen(daemon, "@edge", "!site=oslo") == ["ship2", "ship10"]
    assert chosen(daemon, "all", exclude=["@edge"]) == ["central", "elsewhere"]
    assert chosen(daemon, "tier=backbone-*") == ["ship1"]
    assert chosen(daemon, "local", "ship1", from_node="central") == ["central", "ship1"]
    assert chosen(daemon, "all", "!local", "!elsewhere", from_node="ship2") == [
        "central",
        "ship1",
        "ship10",
    ]


def test_a_node_that_matches_and_takes_other_methods_only_is_left_out_and_told(daemon):
    _, answer = choose(daemon, "all", method="REQCliCommand")
    # of a node whose subscriptions nobody wrote down, nobody knows
    assert answer["nodes"] == ["elsewhere", "ship1", "ship2", "ship10"]
    assert answer["left_out"] == [
        {"node": "central", "why": "the config here names no REQCliCommand of central"}
    ]
    _, answer = choose(daemon, "central", "shp1", "@edge", method="REQCliCommand")
    assert answer["nodes"] == ["central", "shp1", "ship1", "ship2", "ship10"]
    assert answer["notes"] == [
        "the config here names no REQCliCommand of central",
        "'shp1' is not declared (did you mean ship1?)",
    ]
    code, answer = choose(daemon, "@edge", method="REQTailFile")
    assert (code, answer["error"]) == (
        400,
        "3 nodes match, and none of them subscribes REQTailFile",
    )


def test_what_means_no_node_is_refused(daemon):
    code, answer = choose(daemon, "@edg")
    assert code == 400
    assert answer["error"] == 'no node has the role "edg"; did you mean @edge?'
    assert choose(daemon)[0] == 400
    assert choose(daemon, "ship[12]")[0] == 400


def test_the_fleet_tells_its_roles_and_labels_and_nothing_of_the_environment(daemon):
    code, answer = daemon.request("GET", "/api/v1/targets")
    assert code == 200
    by_name = {item["node"]: item for item in answer["nodes"]}
    assert list(by_name) == ["central", "elsewhere", "ship1", "ship2", "ship10"]
    assert by_name["ship1"]["roles"] == ["edge"]
    assert by_name["ship1"]["labels"] == {"site": "oslo", "tier": "${TIER}"}
    standing = next(item for item in daemon.status()["fleet"] if item["node"] == "ship1")
    assert standing["roles"] == ["edge"]
    assert standing["labels"] == {"site": "oslo", "tier": "${TIER}"}


def test_a_changed_label_is_in_force_after_a_reload_that_moves_no_worker(daemon):
    daemon.write_config(CONFIG.replace("site: rome", "site: oslo"))
    try:
        _, plan = daemon.request("GET", "/api/v1/plan")
        assert (plan["result"], plan["actions"]) == ("changes", [])
        assert plan["settings"] == {"nodes.ship2.labels.site": ["rome", "oslo"]}
        assert chosen(daemon, "site=oslo") == ["ship1"]
        verdict = daemon.reload()
        assert (verdict["result"], verdict["actions"]) == ("applied", [])
        assert chosen(daemon, "site=oslo") == ["ship1", "ship2"]
    finally:
        daemon.write_config(CONFIG)
        daemon.reload()
