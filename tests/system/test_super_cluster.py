"""A fleet whose nodes are at clusters that gateways join: one broker, with distance inside."""

from collections import Counter

import pytest

from tests.support.appliance import Appliance
from tests.support.super_cluster import SuperCluster
from tests.support.waiting import until

STREAM = "appl-ship"
CONFIG = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 50ms}}
defaults: {{compression: none, ack: {{timeout: 1s}}}}
nodes:
  central:
    subscribe:
      REQToFile: {{accept_from: [ship]}}
      REQToConsole: {{accept_from: [ship]}}
  ship:
    subscribe:
      REQToFileAppend: {{accept_from: [central], delivery: jetstream, stream: {{placement: {{cluster: north}}}}}}
      REQCliCommand: {{accept_from: [central], allow_commands: [[echo, "*"]]}}
"""


@pytest.fixture
def broker(tmp_path):
    with SuperCluster(tmp_path / "js") as broker:
        yield broker


def daemon(tmp_path, broker, node, cluster):
    text = CONFIG.format(url=broker.url(cluster))
    made = Appliance(text, tmp_path / f"{node}-{cluster}", args=["--node", node])
    made.only_named = True
    return made


def append(number):
    return {
        "from_node": "central", "to_nodes": ["ship"], "method": "REQToFileAppend",
        "data": [f"{number}\n"], "directory": "t", "file_name": "f",
    }  # fmt: skip


def file(number):
    return {
        "from_node": "ship", "to_nodes": ["central"], "method": "REQToFile",
        "data": ["text"], "directory": "t", "file_name": f"f{number}",
    }  # fmt: skip


def echo(word):
    return {
        "from_node": "central", "to_nodes": ["ship"], "method": "REQCliCommand",
        "method_args": ["echo", word], "reply_method": "REQToConsole",
    }  # fmt: skip


def lines_of(ship):
    path = ship.data("t", "ship", "f")
    return Counter(path.read_text().split() if path.exists() else ())


def filed_at(central):
    directory = central.data("t", "central")
    return len(list(directory.iterdir())) if directory.exists() else 0


def test_what_is_sent_to_a_cluster_that_is_cut_off_waits_and_is_done_once(tmp_path, broker):
    with (
        daemon(tmp_path, broker, "ship", "north") as ship,
        daemon(tmp_path, broker, "central", "south") as central,
    ):
        assert '"there' in central.follow(echo("there"))
        central.send(*[append(number) for number in range(50)])
        until(lambda: len(lines_of(ship)) == 50, tell=central.log)
        assert broker.cluster_of(STREAM, "south") == "north"
        broker.cut("north")
        ids = [sent["id"] for sent in central.send(*[append(number) for number in range(50, 100)])]
        assert len(ids) == 50
        central.send(echo("late"))
        central.wait_until(lambda status: status["outbox"]["pending"] == 51)
        broker.mend("north")
        until(lambda: len(lines_of(ship)) == 100, tell=central.log)
        central.wait_until(lambda status: not status["outbox"]["pending"])
        assert set(lines_of(ship).values()) == {1}
        assert central.status()["outbox"]["dead"] == 0
        handled = "ship.REQCliCommand.CommandACK_subscriber"
        until(lambda: ship.worker(handled)["handled"] == 2, tell=ship.log)


def test_a_node_that_two_clusters_have_is_served_from_the_near_one_while_that_is_there(
    tmp_path, broker
):
    with (
        daemon(tmp_path, broker, "central", "south") as far,
        daemon(tmp_path, broker, "ship", "north") as ship,
    ):
        with daemon(tmp_path, broker, "central", "north") as near:
            ship.send(*[file(number) for number in range(20)])
            until(lambda: filed_at(near) == 20, tell=ship.log)
            assert filed_at(far) == 0
        ship.send(*[file(number) for number in range(20, 40)])
        until(lambda: filed_at(far) == 20, tell=ship.log)
        ship.wait_until(lambda status: not status["outbox"]["pending"])
