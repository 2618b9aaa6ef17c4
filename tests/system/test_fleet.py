"""Fifty nodes, three that refuse the config and two that are off: the fleet view names those five."""

import json

import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

REFUSING = ["ship45", "ship46", "ship47"]
OFF = ["ship48", "ship49"]
NODES = [f"ship{number}" for number in range(50)]


def text(url, *, every="500ms", more=""):
    roles = "".join(f"  {name}: {{roles: [ship]}}\n" for name in NODES)
    return f"""
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 20ms}}
roles:
  ship:
    subscribe: {{REQPing: {{}}}}
    publish: {{hello: {{to: central, method: REQHello, every: {every}, data: ["Hello\\n"]}}}}
nodes:
  central: {{subscribe: {{REQHello: {{}}, REQErrorLog: {{}}{more}}}}}
{roles}"""


class Fleet:
    def __init__(self, daemons, url):
        self.daemons, self.url = daemons, url

    def write(self, name, content):
        self.daemons[name].write_config(content)

    def command(self, *words):
        found = forked.run(["fleet", *words, "--state-dir", self.daemons["central"].state])
        return found.returncode, found.stdout

    def states(self):
        return {item["node"]: item["state"] for item in self.daemons["central"].status()["fleet"]}


@pytest.fixture
def fleet(tmp_path):
    with NatsServer() as broker:
        content = text(broker.url)
        parts = {
            "central": ["central"],
            "most": [name for name in NODES if name not in REFUSING + OFF],
            **{name: [name] for name in REFUSING},
        }
        daemons = {}
        for name, nodes in parts.items():
            daemon = Appliance(content, tmp_path / name)
            daemon.only_named = True
            daemon.args = [word for node in nodes for word in ("--node", node)]
            daemons[name] = daemon
        try:
            for daemon in daemons.values():
                daemon.start()
            yield Fleet(daemons, broker.url)
        finally:
            for daemon in daemons.values():
                daemon.close()


def test_the_nodes_that_are_not_in_sync_are_named_and_no_others(fleet):
    central = fleet.daemons["central"]
    central.wait_until(
        lambda status: sorted(fleet.states().values()) == ["in_sync"] * 48 + ["silent"] * 2
    )
    assert fleet.command("status")[0] == 3
    newer = text(fleet.url, more=", REQPong: {}")
    for name in ("central", "most"):
        fleet.write(name, newer)
    for name in REFUSING:
        fleet.write(name, newer.replace("REQPing: {}", "REQPing: {retires: 3}"))
    expected = dict.fromkeys(NODES, "in_sync") | dict.fromkeys(REFUSING, "refused")
    expected |= dict.fromkeys(OFF, "silent")
    central.wait_until(lambda status: fleet.states() == expected)
    code, shown = fleet.command("status")
    assert code == 1
    assert [line.split()[0] for line in shown.splitlines()[1:-1]] == REFUSING + OFF
    assert "E101" in shown
    assert "50 nodes: 45 in sync, 3 refused, 2 silent" in shown
    code, found = fleet.command("wait", "--timeout", "1s", "-o", "json")
    assert (code, json.loads(found)["missing"]) == (1, REFUSING + OFF)
    _, exposition = central.request("GET", "/metrics")
    assert 'appliance_fleet_nodes{state="refused"} 3.0' in exposition
    # a refused config changed nothing; the mended one is in force, and the wait ends with it
    for name in REFUSING:
        fleet.write(name, newer)
    central.wait_until(lambda status: sorted(set(fleet.states().values())) == ["in_sync", "silent"])
    assert fleet.command("wait", "--timeout", "0")[0] == 3


SMALL = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 20ms}}
nodes:
  central: {{subscribe: {{REQHello: {{}}, REQErrorLog: {{}}}}}}
  ship1: {{publish: {{hello: {{to: central, method: REQHello, every: 200ms}}}}}}
"""
REMOVED = "  ship2: {publish: {hello: {to: central, method: REQHello, every: 200ms}}}\n"


def test_a_removed_node_that_still_runs_is_seen_by_the_operator_and_learns_it(tmp_path):
    with NatsServer() as broker:
        small = SMALL.format(url=broker.url)
        central = Appliance(small + REMOVED, tmp_path / "central", args=["--node", "central"])
        ships = [
            Appliance(small + REMOVED, tmp_path / name, args=["--node", name])
            for name in ("ship1", "ship2")
        ]
        for daemon in (central, *ships):
            daemon.only_named = True
        ship1, ship2 = ships
        with central, ship1, ship2:
            both = Fleet({"central": central}, broker.url)
            central.wait_until(
                lambda _: both.states() == dict.fromkeys(("ship1", "ship2"), "in_sync")
            )
            central.write_config(small)
            ship1.write_config(small)
            central.wait_until(
                lambda _: both.states() == {"ship1": "in_sync", "ship2": "undeclared"}
            )
            code, shown = both.command("status")
            # it is none of this fleet any more: nothing waits for it
            assert code == 0
            assert "ship2  undeclared" in shown
            assert "no config here declares it" in shown
            assert "2 nodes: 1 in sync, 1 undeclared" in shown
            assert both.command("wait", "--timeout", "0")[0] == 0
            _, exposition = central.request("GET", "/metrics")
            assert 'appliance_fleet_nodes{state="undeclared"} 1.0' in exposition
            trouble = (
                "worker central.REQHello.EventNACK_publisher: central refuses what ship2 sends: "
                "its config does not declare ship2 (any more)"
            )
            status = ship2.wait_until(lambda status: trouble in status["degraded_by"])
            assert not status["healthy"]
            assert ship1.status()["healthy"]
            assert central.status()["healthy"]
            # however often it says hello, it is told of once; errorCentral hears nothing of it
            sent = ship2.worker("central.REQHello.EventNACK_publisher")["sent"]
            ship2.wait_until(
                lambda _: ship2.worker("central.REQHello.EventNACK_publisher")["sent"] > sent + 5
            )
            assert central.log().count("hello of a node that is not declared") == 1
            assert "message refused" not in central.log()
            assert ship2.log().count("this node is not declared there") == 1
            central.write_config(small + REMOVED)
            central.wait_until(lambda _: both.states()["ship2"] != "undeclared")
            ship2.wait_until(lambda status: status["healthy"])
            assert "this node is declared there again" in ship2.log()
