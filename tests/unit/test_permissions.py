"""The broker's permissions of every node are read off the config: what it declares, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nkeys
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.broker_conf import (
    Login,
    diff_conf,
    find_embedded_logins,
    join_logins,
    make_logins,
    render_conf,
)
from appliance.core.names import NodeName
from appliance.core.permissions import find_permissions
from appliance.core.public_keys import is_user_key
from appliance.core.specs import DesiredState, Permissions, PublisherSpec, SubscriberSpec
from appliance.errors import ConfigInvalid
from tests.support.config_files import load_text
from tests.support.config_strategies import to_yaml
from tests.support.nats_login import make_nkey

REPORTS = "errorCentral.REQErrorLog.EventACK"
METHODS = ("REQPing", "REQHello", "REQToConsole", "REQCliCommand", "REQTailFile")
HEAD = {"version": 1, "broker": {"embedded": True}}


def matches(pattern: str, subject: str) -> bool:
    """NATS's rule for a subject that is allowed."""
    wanted, found = pattern.split("."), subject.split(".")
    for at, token in enumerate(wanted):
        if token == ">":
            return len(found) > at
        if at >= len(found) or token not in ("*", found[at]):
            return False
    return len(wanted) == len(found)


def lets(allowed: Iterable[str], subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in allowed)


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, Any]:
    """Nodes that take some methods from some others, and send where nobody may be."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 7)))]
    names += draw(st.sampled_from(([], ["north.buoy"], ["north.buoy", "south.buoy"])))
    nodes: dict[str, Any] = {}
    for name in names:
        subscribe = {}
        for method in draw(st.lists(st.sampled_from(METHODS), unique=True)):
            senders = (
                st.none()
                | st.just("any")
                | st.lists(st.sampled_from(names), unique=True, min_size=1)
            )
            accept = draw(senders)
            subscribe[method] = {} if accept is None else {"accept_from": accept}
        nodes[name] = {"subscribe": subscribe}
    for name in names:
        to = draw(st.none() | st.sampled_from(names))
        if to is not None:
            nodes[name]["publish"] = {"p": {"to": to, "method": "REQPong"}}
            nodes[to]["subscribe"]["REQPong"] = {"accept_from": "any"}
    return {**HEAD, "nodes": nodes}


def compile_tree(directory: Path, tree: dict[str, Any]) -> DesiredState:
    return load_text(directory, to_yaml(tree)).desired


@settings(max_examples=75, deadline=None)
@given(tree=fleets())
def test_a_node_may_do_what_the_config_declares_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]
) -> None:
    fleet = compile_tree(tmp_path_factory.mktemp("fleet"), tree)
    found = find_permissions(fleet)
    assert set(found) == set(fleet.declared_nodes)
    takers = [spec for spec in fleet.workers.values() if isinstance(spec, SubscriberSpec)]
    sent = {
        (spec.node, spec.subject)
        for spec in fleet.workers.values()
        if isinstance(spec, PublisherSpec)
    }
    for node, allowed in found.items():
        for spec in takers:
            is_own = spec.node == node
            listed = tree["nodes"][spec.node]["subscribe"][spec.method].get("accept_from", "any")
            may_send = listed == "any" or node in listed or (node, spec.subject) in sent
            heard = may_send and spec.wants_ack
            assert lets(allowed.publish, spec.subject) is may_send, (node, spec.subject)
            for answer in (f"{spec.subject}.reply", f"{spec.subject}.reply.1a.2b"):
                assert lets(allowed.publish, answer) is (is_own and spec.wants_ack), (node, answer)
                assert lets(allowed.subscribe, answer) is heard, (node, answer)
            if spec.method == "REQHello":
                told = f"{spec.subject}.reply.1a.refusals"
                assert lets(allowed.publish, told) is is_own
                assert lets(allowed.subscribe, told) is may_send
            grouped = f"{spec.subject} {spec.subject}"
            assert (grouped in allowed.subscribe) is is_own
            assert not lets(allowed.subscribe, spec.subject), "without the group nobody listens"
        assert lets(allowed.publish, REPORTS)
        assert lets(allowed.subscribe, f"{REPORTS}.reply.1a.2b")


def test_what_all_nodes_may_do_is_one_line_however_many_they_are(tmp_path: Path) -> None:
    nodes: dict[str, Any] = {f"n{number}": {"subscribe": {"REQPing": {}}} for number in range(500)}
    found = find_permissions(compile_tree(tmp_path, {**HEAD, "nodes": nodes}))
    assert max(len(one.publish) + len(one.subscribe) for one in found.values()) < 12
    assert "*.REQPing.EventACK" in found[NodeName("n7")].publish
    # one that keeps to itself is not reached by a pattern
    nodes["n3"]["subscribe"]["REQPing"] = {"accept_from": ["n4"]}
    found = find_permissions(compile_tree(tmp_path, {**HEAD, "nodes": nodes}))
    assert lets(found[NodeName("n4")].publish, "n3.REQPing.EventACK")
    assert not lets(found[NodeName("n5")].publish, "n3.REQPing.EventACK")
    assert lets(found[NodeName("n5")].publish, "n6.REQPing.EventACK")


def test_companions_relays_and_bench_are_part_of_it(tmp_path: Path) -> None:
    text = """
version: 1
broker: {embedded: true}
nodes:
  central: {subscribe: {REQToFileAppend: {}}}
  hub: {subscribe: {REQRelay: {relay_to: [far], relay_methods: [REQPing], accept_from: [central]}}}
  far: {subscribe: {REQPing: {accept_from: [hub]}, REQCopyFileTo: {accept_from: [hub]}}}
"""
    fleet = load_text(tmp_path, text).desired
    found = find_permissions(fleet, bench=True)
    central, hub = found[NodeName("central")], found[NodeName("hub")]
    assert lets(central.publish, "far.hub.REQRelay.EventACK")
    assert not lets(central.publish, "far.REQPing.EventACK")
    assert lets(hub.publish, "far.REQPing.EventACK")
    assert any(
        lets(hub.publish, f"far.REQCopyFileChunk.{kind}") for kind in ("EventACK", "CommandACK")
    )
    assert "hub.bench.>" in hub.publish
    assert "hub.bench.>" in hub.subscribe
    assert not any(
        "bench" in subject for subject in find_permissions(fleet)[NodeName("hub")].publish
    )


@pytest.mark.parametrize("entry", ["{}", "{accept_from: any}", "{accept_from: [central, ship1]}"])
def test_only_a_node_itself_may_begin_a_relay_of_its_own(tmp_path: Path, entry: str) -> None:
    """Whoever else could send there would have it say what he wants in its name, where nothing is signed."""
    text = f"""
version: 1
broker: {{embedded: true}}
nodes:
  central: {{subscribe: {{REQRelayInitial: {entry}}}}}
  ship1: {{subscribe: {{REQPing: {{}}}}}}
"""
    fleet = load_text(tmp_path, text).desired
    found = find_permissions(fleet)
    subject = "central.REQRelayInitial.EventACK"
    assert lets(found[NodeName("central")].publish, subject)
    assert not lets(found[NodeName("ship1")].publish, subject)
    (spec,) = [spec for spec in fleet.workers.values() if spec.subject == subject]
    assert spec.accept_from == {"central"}


def test_nodes_that_share_a_key_are_one_login_and_two_keys_are_two() -> None:
    permissions = {
        NodeName("a"): Permissions(("p",), ("s",)),
        NodeName("b"): Permissions(("q",), ("s",)),
        NodeName("c"): Permissions(("r",), ("t",)),
    }
    keys = {NodeName("a"): ("UA",), NodeName("b"): ("UA", "UB")}
    both, new = make_logins(permissions, keys)
    assert (both.public_key, both.nodes) == ("UA", ("a", "b"))
    assert both.permissions == Permissions(("p", "q"), ("s",))
    assert (new.public_key, new.nodes, new.permissions.publish) == ("UB", ("b",), ("q",))


def test_between_two_sets_each_key_may_what_it_may_in_either() -> None:
    old = [Login("UA", (NodeName("a"),), Permissions(("p",), ("s",)))]
    new = [
        Login("UA", (NodeName("a"),), Permissions(("q",), ("s",))),
        Login("UB", (NodeName("b"),), Permissions((), ("t",))),
    ]
    both, added = join_logins([old, new])
    assert both == Login("UA", (NodeName("a"),), Permissions(("p", "q"), ("s",)))
    assert added == new[1]


def test_roles_and_labels_of_accept_from_are_the_broker_s_too(tmp_path: Path) -> None:
    text = """
version: 1
broker: {embedded: true}
roles: {watch: {}}
nodes:
  oslo1: {roles: [watch]}
  oslo2: {labels: {site: oslo}}
  bergen1: {labels: {site: bergen}}
  ship: {subscribe: {REQPing: {accept_from: ["@watch", site=oslo]}}}
"""
    found = find_permissions(load_text(tmp_path, text).desired)
    asking = {node for node in found if lets(found[node].publish, "ship.REQPing.EventACK")}
    assert asking == {"oslo1", "oslo2"}


SECURED = "version: 1\nbroker: {embedded: {secured: true}}\n"


def test_the_daemon_of_a_secured_broker_may_what_its_nodes_may(tmp_path: Path) -> None:
    text = SECURED + "nodes: {a: {subscribe: {REQPing: {}}}, b: {subscribe: {REQPong: {}}}}\n"
    loaded = load_text(tmp_path, text, run_nodes=["a"])
    own, *others = find_embedded_logins(loaded.desired, "UD")
    assert others == []
    assert (own.public_key, own.nodes) == ("UD", ("a",))
    assert own.permissions == find_permissions(load_text(tmp_path, text).desired)[NodeName("a")]
    nobody = replace(loaded.desired, run_nodes=())
    assert "publish: {deny: [" in render_conf(find_embedded_logins(nobody, "UD"))


def test_who_cannot_log_in_at_a_secured_broker_is_told(tmp_path: Path) -> None:
    key = make_nkey().public
    text = SECURED + f"nodes: {{a: {{}}, b: {{}}, c: {{public_keys: [{key}]}}}}\n"
    loaded = load_text(tmp_path, text, run_nodes=["a"])
    told = [(problem.code, problem.path) for problem in loaded.warnings]
    assert [place for code, place in told if code == "W280"] == ["nodes.b"]
    many = ", ".join(f"n{number}: {{}}" for number in range(100))
    loaded = load_text(tmp_path, text.replace("b: {}", many), run_nodes=["a"])
    (one,) = (problem for problem in loaded.warnings if problem.code == "W280")
    assert one.message.endswith("n0, n1, n10, n11, n12 and 95 more")
    # a daemon that runs all of them needs no keys
    assert "W280" not in {problem.code for problem in load_text(tmp_path, text).warnings}


def test_a_login_without_any_right_is_written_as_one_that_may_nothing() -> None:
    logins = make_logins({NodeName("a"): Permissions((), ())}, {NodeName("a"): ("UA",)})
    # NB: nats-server reads an empty list as one that allows everything
    assert 'publish: {deny: [\n          ">"' in render_conf(logins)


def test_a_difference_is_told_as_diff_does() -> None:
    assert diff_conf("a\n", "a\n", "conf") == ""
    assert diff_conf("a\n", "b\n", "conf").splitlines()[-2:] == ["-a", "+b"]


def test_a_mistyped_public_key_is_seen() -> None:
    key = make_nkey().public
    assert is_user_key(key)
    for at in range(1, len(key)):
        assert not is_user_key(key[:at] + ("A" if key[at] != "A" else "B") + key[at + 1 :])
    account = make_nkey(nkeys.PREFIX_BYTE_ACCOUNT).public
    assert not account.startswith("U")


def test_a_stream_of_another_domain_is_asked_for_there_and_acknowledged_as_any(
    tmp_path: Path,
) -> None:
    text = to_yaml(
        HEAD
        | {
            "nodes": {
                "central": {},
                "ship": {
                    "delivery": "jetstream",
                    "stream": {"domain": "shore"},
                    "subscribe": {"REQToConsole": {"accept_from": ["central"]}},
                },
            }
        }
    ).replace("embedded: true", "embedded: {jetstream: true}")
    found = find_permissions(load_text(tmp_path, text).desired)
    consumer = "ship=REQToConsole=EventACK"
    ship = found[NodeName("ship")].publish
    assert f"$JS.shore.API.CONSUMER.MSG.NEXT.appl-ship.{consumer}" in ship
    assert f"$JS.ACK.appl-ship.{consumer}.>" in ship
    assert "$JS.shore.API.STREAM.INFO.appl-ship" in found[NodeName("central")].publish
    every = [one for node in found.values() for one in node.publish]
    assert not [one for one in every if one.startswith("$JS.API.")]


STREAMS = """
version: 1
broker: {embedded: {jetstream: true}}
nodes:
  central: {subscribe: {REQErrorLog: {}}}
  ship1: {delivery: jetstream, subscribe: {REQPing: {}}}
  ship2: {delivery: jetstream, subscribe: {REQPing: {}, REQToConsole: {}}}
"""


def makes_streams(allowed: Permissions) -> bool:
    return any(
        lets(allowed.publish, f"$JS.API.STREAM.{verb}.{name}")
        for verb in ("CREATE", "UPDATE", "DELETE")
        for name in ("appl-ship1", "appl-ship2", "other")
    )


def test_no_node_makes_streams_but_the_one_that_keeps_them_all(tmp_path: Path) -> None:
    """Whoever may make one reads what he likes, and sends where he likes, with the broker's own rights."""
    found = find_permissions(load_text(tmp_path, STREAMS).desired)
    assert not any(map(makes_streams, found.values()))
    kept = load_text(tmp_path, STREAMS + "streams: {keeper: central}\n").desired
    found = find_permissions(kept)
    assert [node for node, allowed in found.items() if makes_streams(allowed)] == ["central"]
    central = found[NodeName("central")]
    for name in ("appl-ship1", "appl-ship2"):
        assert lets(central.publish, f"$JS.API.STREAM.UPDATE.{name}")
    assert "_INBOX.appl.central.>" in central.subscribe
    assert {one.subject for one in kept.kept_streams} == {
        "ship1.REQPing.EventACK",
        "ship2.REQPing.EventACK",
        "ship2.REQToConsole.EventACK",
    }


def test_the_daemon_of_a_secured_broker_keeps_the_streams_unless_another_node_does(
    tmp_path: Path,
) -> None:
    secured = STREAMS.replace("jetstream: true", "jetstream: true, secured: true")
    fleet = load_text(tmp_path, secured, run_nodes=["central"]).desired
    (own,) = find_embedded_logins(fleet, "UD")
    assert lets(own.permissions.publish, "$JS.API.STREAM.CREATE.appl-ship2")
    fleet = load_text(
        tmp_path, secured + "streams: {keeper: ship1}\n", run_nodes=["central"]
    ).desired
    (own,) = find_embedded_logins(fleet, "UD")
    assert not makes_streams(own.permissions)


def test_who_keeps_the_streams_is_a_node(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="nobody"):
        load_text(tmp_path, STREAMS + "streams: {keeper: nobody}\n")
