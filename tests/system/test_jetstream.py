"""Messages that a stream of the broker keeps: real daemons, a real nats-server."""

import asyncio
import contextlib
import json
from collections import Counter

import cbor2
import nats
import pytest

from appliance.core.permissions import find_permissions
from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message
from tests.support.config_files import load_text
from tests.support.nats_cluster import Cluster
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

METHOD = "REQToFileAppend"
SUBJECT = f"ship.{METHOD}.EventACK"
STREAM = "appl-ship"
CONSUMER = SUBJECT.replace(".", "=")
CONFIG = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 50ms}}
defaults: {{compression: none, delivery: {delivery}, stream: {{{stream}}}}}
nodes:
  central: {{subscribe: {{REQErrorLog: {{}}}}}}
  other: {{}}
  ship: {{subscribe: {{REQToFileAppend: {{accept_from: [central], ack: {{on: {ack_on}}}}}}}}}
"""


def config(url, *, delivery="jetstream", stream="", ack_on="done"):
    return CONFIG.format(url=url, delivery=delivery, stream=stream, ack_on=ack_on)


@pytest.fixture
def broker(tmp_path):
    with NatsServer(f'jetstream {{store_dir: "{tmp_path}/jetstream"}}') as server:
        yield server


def daemon(tmp_path, name, text, *, node=None, before=""):
    made = Appliance(text, tmp_path / name, args=["--node", node or name])
    made.before = before
    made.only_named = True
    return made


def append(text, file_name="f"):
    return {
        "from_node": "central", "to_nodes": ["ship"], "method": METHOD,
        "data": [text], "directory": "t", "file_name": file_name,
    }  # fmt: skip


def lines_of(*daemons, file_name="f"):
    found = Counter()
    for one in daemons:
        path = one.data("t", "ship", file_name)
        if path.exists():
            found.update(path.read_text().split())
    return found


def api(url, words, body=None):
    """One request of JetStream's API."""

    async def ask():
        client = await nats.connect(url)
        try:
            data = json.dumps(body).encode() if body else b""
            return json.loads((await client.request(f"$JS.API.{words}", data, timeout=60)).data)
        finally:
            await client.close()

    return asyncio.run(ask())


def waiting_in_stream(url):
    return api(url, f"STREAM.INFO.{STREAM}")["state"]["messages"]


def test_the_sender_is_done_when_the_stream_has_it_and_an_absent_node_does_it_once_later(
    broker, tmp_path
):
    text = config(broker.url)
    with daemon(tmp_path, "central", text) as central:
        said = central.follow(append("first\n"))
        assert '"state":"stored"' in said
        for number in range(50):
            central.send(append(f"{number}\n"))
        until(lambda: not central.status()["outbox"]["pending"])
    # the sender is gone by now
    with daemon(tmp_path, "ship", text) as ship:
        until(lambda: len(lines_of(ship)) == 51, tell=ship.log)
        until(lambda: not waiting_in_stream(broker.url))
        assert set(lines_of(ship).values()) == {1}


def test_a_client_that_knows_no_appliance_is_acknowledged_by_the_stream(broker, tmp_path):
    text = config(broker.url)
    with daemon(tmp_path, "ship", text):
        pass

    async def publish():
        client = await nats.connect(broker.url)
        answers = asyncio.Queue()
        await client.subscribe(f"{SUBJECT}.reply", cb=answers.put)
        for number in range(3):
            data = [f"go{number}\n"]
            body = seed_message("ship", "central", METHOD, data, directory="t", file_name="f", id=0)
            await client.publish(
                SUBJECT, cbor2.dumps(body), reply=f"{SUBJECT}.reply", headers={"serial": "cbor"}
            )
            async with asyncio.timeout(60):
                assert json.loads((await answers.get()).data)["stream"] == STREAM
        await client.close()

    asyncio.run(publish())
    with daemon(tmp_path, "ship", text) as ship:
        until(lambda: len(lines_of(ship)) == 3, tell=ship.log)
        until(lambda: not waiting_in_stream(broker.url))
    with daemon(tmp_path, "ship", text) as ship:
        assert lines_of(ship) == Counter(["go0", "go1", "go2"])


def test_a_message_that_is_refused_leaves_the_stream_and_is_told(broker, tmp_path):
    text = config(broker.url)
    with (
        daemon(tmp_path, "central", text) as central,
        daemon(tmp_path, "other", text) as other,
        daemon(tmp_path, "ship", text) as ship,
    ):
        other.send({**append("x\n"), "from_node": "other"})
        until(lambda: not waiting_in_stream(broker.url), tell=ship.log)

        def reports():
            found = (path.read_text() for path in central.data().rglob("*.log"))
            return [text for text in found if "other may not send" in text or "refused" in text]

        until(reports, tell=ship.log)
        # and who sent it hears of it, though it was done with it when the stream had it
        until(
            lambda: "sender not accepted" in other.log() or "refused" in other.log(), tell=other.log
        )


def test_a_stream_that_is_full_makes_its_senders_wait_and_says_so(broker, tmp_path):
    text = config(broker.url, stream="max_bytes: 20000")
    with daemon(tmp_path, "central", text) as central:
        for number in range(60):
            central.send(append(f"{number:04d}{'x' * 1000}\n"))

        def waiting():
            lines = central.request("GET", "/api/v1/outbox")[1]
            return [one for one in json.dumps(lines).split('"why"') if "maximum bytes" in one]

        until(waiting, tell=lambda: central.request("GET", "/api/v1/outbox"))
        with daemon(tmp_path, "ship", text) as ship:
            until(lambda: len(lines_of(ship)) == 60, tell=ship.log)
            assert set(lines_of(ship).values()) == {1}


def test_a_stream_that_was_deleted_by_hand_is_made_again_and_nothing_waits_for_ever(
    broker, tmp_path
):
    text = config(broker.url)
    with daemon(tmp_path, "central", text) as central, daemon(tmp_path, "ship", text) as ship:
        central.send(append("before\n"))
        until(lambda: lines_of(ship) == Counter(["before"]), tell=ship.log)
        assert api(broker.url, f"STREAM.DELETE.{STREAM}")["success"]
        for number in range(20):
            central.send(append(f"{number}\n"))
        until(lambda: len(lines_of(ship)) == 21, tell=lambda: central.log() + ship.log())
        assert set(lines_of(ship).values()) == {1}


def test_what_somebody_changes_of_the_stream_is_shown_and_mended(broker, tmp_path):
    text = config(broker.url)
    with daemon(tmp_path, "ship", text):
        found = api(broker.url, f"STREAM.INFO.{STREAM}")["config"]
        assert (found["retention"], found["discard"], found["max_bytes"]) == (
            "workqueue", "new", 256 * 1024**2
        )  # fmt: skip
        api(broker.url, f"STREAM.UPDATE.{STREAM}", {**found, "max_bytes": 1_000_000})
    # looked at every half minute, and at a start
    with daemon(tmp_path, "ship", text) as ship:
        until(
            lambda: api(broker.url, f"STREAM.INFO.{STREAM}")["config"]["max_bytes"] == 256 * 1024**2
        )
        live = config(broker.url, stream="max_bytes: 5000000")
        ship.config_path.write_text(live)
        assert ship.reload()["result"] == "applied"
        until(lambda: api(broker.url, f"STREAM.INFO.{STREAM}")["config"]["max_bytes"] == 5_000_000)


SOON = """
from appliance.core import streams
from appliance.delivery import pulling
streams.ACK_WAIT_S = pulling.ACK_WAIT_S = 10.0
pulling.TELL_EVERY_S = 10.0 / 3
"""
"""A stream gives what a killed daemon had in hand to another one after so many seconds instead of half a minute."""


def share_over_kills(broker, tmp_path, ack_on):
    """What two daemons of a node did of 600 messages while one of them was killed twice: lines of one, and of the other."""
    text = config(broker.url, ack_on=ack_on)
    total = 600
    with (
        daemon(tmp_path, "central", text) as central,
        daemon(tmp_path, "one", text, node="ship", before=SOON) as one,
        daemon(tmp_path, "two", text, node="ship", before=SOON) as two,
    ):
        for number in range(total):
            central.send(append(f"{number}\n"))
            if number in (200, 400):
                one.kill()
            if number == 300:
                one.start()
        until(lambda: not central.status()["outbox"]["pending"])
        one.start()
        until(lambda: not waiting_for_somebody(broker.url), timeout_s=90, tell=two.log)
        until(
            lambda: len(lines_of(one, two)) == total, timeout_s=90, tell=lambda: lines_of(one, two)
        )
        return lines_of(one), lines_of(two)


@pytest.mark.parametrize("ack_on", ["received", "done"])
def test_two_daemons_of_a_node_share_its_messages_and_a_kill_of_one_loses_and_doubles_nothing(
    broker, tmp_path, ack_on
):
    one, two = share_over_kills(broker, tmp_path, ack_on)
    assert {line: count for line, count in (one + two).items() if count != 1} == {}
    assert one
    assert two


def waiting_for_somebody(url):
    found = api(url, f"CONSUMER.INFO.{STREAM}.{CONSUMER}")
    return found["num_pending"] + found["num_ack_pending"]


def test_a_node_that_moves_to_another_machine_goes_on_where_it_was(broker, tmp_path):
    text = config(broker.url)
    with daemon(tmp_path, "central", text) as central:
        with daemon(tmp_path, "old", text, node="ship") as old:
            central.send(append("1\n"))
            until(lambda: lines_of(old) == Counter("1"), tell=old.log)
            until(lambda: not waiting_in_stream(broker.url))
        central.send(append("2\n"))
        until(lambda: waiting_in_stream(broker.url) == 1)
        with daemon(tmp_path, "new", text, node="ship") as new:
            until(lambda: lines_of(new) == Counter("2"), tell=new.log)


def test_reloads_between_core_and_jetstream_lose_and_double_nothing(broker, tmp_path):
    texts = [config(broker.url, delivery=delivery) for delivery in ("core", "jetstream")]
    with Appliance(texts[0], tmp_path / "all") as both:
        number = 0
        for turn in range(8):
            for _ in range(40):
                both.send(append(f"{number}\n"))
                number += 1
            both.config_path.write_text(texts[(turn + 1) % 2])
            assert both.reload()["result"] == "applied"
        until(lambda: len(lines_of(both)) == number, timeout_s=90, tell=both.log)
        until(lambda: not both.status()["outbox"]["pending"], tell=both.log)
        assert set(lines_of(both).values()) == {1}
        assert both.status()["outbox"]["dead"] == 0


def test_without_jetstream_the_worker_says_so_in_the_brokers_words(tmp_path):
    with NatsServer() as server:
        text = config(server.url)
        with daemon(tmp_path, "central", text) as central:
            central.send(append("1\n"))
            ship = daemon(tmp_path, "ship", text)
            with contextlib.closing(ship.start(ready=False)):
                ship.wait_api()

                def said():
                    # it answers before its first set is in force, and has no nodes till then
                    workers = ship.status()["nodes"].get("ship", {"workers": []})["workers"]
                    return [one for one in workers if "JetStream" in (one["last_error"] or "")]

                until(said, tell=ship.log)
                assert central.status()["outbox"]["pending"] == 1


LOGINS = """
version: 1
broker: {{servers: ["{url}"], auth: {{user: {user}, password: {{env: THE_PASSWORD}}}}}}
defaults: {{delivery: jetstream}}
streams: {{keeper: central}}
nodes:
  central: {{subscribe: {{REQErrorLog: {{}}}}}}
  ship: {{subscribe: {{REQToFileAppend: {{accept_from: [central], ack: {{on: done}}}}}}}}
"""


def test_the_permissions_that_broker_conf_writes_are_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_PASSWORD", "p")
    fleet = load_text(tmp_path, LOGINS.format(url="nats://127.0.0.1:4222", user="x")).desired
    users = [
        {
            "user": node,
            "password": "p",
            "permissions": {
                "publish": {"allow": list(allowed.publish)},
                "subscribe": {"allow": list(allowed.subscribe)},
            },
        }
        for node, allowed in find_permissions(fleet).items()
    ]
    with NatsServer(
        f'jetstream {{store_dir: "{tmp_path}/jetstream"}}\nauthorization {{users: {json.dumps(users)}}}'
    ) as server:
        texts = {name: LOGINS.format(url=server.url, user=name) for name in ("central", "ship")}
        with daemon(tmp_path, "central", texts["central"]) as central:
            central.send(append("1\n"), append("2\n"))  # the stream is not there yet
            until(lambda: not central.status()["outbox"]["pending"], tell=central.log)
            with daemon(tmp_path, "ship", texts["ship"]) as ship:
                until(lambda: lines_of(ship) == Counter("12"), tell=ship.log)
                ship.kill()
                central.send(append("3\n"))
                ship.start()
                until(lambda: lines_of(ship) == Counter("123"), tell=ship.log)
            assert "iolation" not in central.log() + ship.log()


def test_a_command_that_a_stream_keeps_is_told_as_that_and_nowhere_as_one_that_runs(
    broker, tmp_path
):
    text = config(broker.url).replace("REQToFileAppend: {accept", "REQCliCommand: {accept")
    text = text.replace("REQErrorLog: {}", "REQErrorLog: {}, REQToFileAppend: {}")
    with daemon(tmp_path, "central", text) as central:

        def run(*words):
            return forked.run([*words[:1], "--state-dir", str(central.state), *words[1:]])

        done = run("exec", "ship", "--wait", "5s", "--", "uptime")
        assert done.returncode == 3
        assert "a stream of the broker keeps the command for the node" in done.stderr
        assert "was taken there" not in done.stderr
        done = run("exec", "ship", "--now", "--", "uptime")
        assert done.returncode == 1
        assert "for now only (--now) cannot go that way" in done.stderr
        assert waiting_in_stream(broker.url) == 1
        done = run("exec", "ship", "--detach", "--expires", "1h", "--", "uptime")
        assert "--expires ends nothing" in done.stderr
        job = done.stdout.strip()
        until(lambda: "stored" in run("jobs", "show", job).stdout)
        done = run("jobs", "cancel", job)
        assert (done.returncode, "keeps it until the node takes it" in done.stdout) == (1, True)


def test_what_waits_is_told_and_what_nobody_asks_for_any_more_is_taken_away_on_demand(
    broker, tmp_path
):
    text = config(broker.url) + "reload: {max_cancel: 100%}\n"
    with daemon(tmp_path, "ship", text) as ship, daemon(tmp_path, "central", text) as central:
        worker = ship.status()["nodes"]["ship"]["workers"][0]

        def kept():
            return ship.status()["nodes"]["ship"]["workers"][0].get("kept", {})

        until(lambda: kept().get("stream") == STREAM, tell=ship.log)
        assert kept()["waiting"] == 0
        assert "appliance_stream_messages" in ship.request("GET", "/metrics")[1]
        listed = ship.request("GET", "/api/v1/streams")[1]["streams"]
        assert [(one["stream"], one["subject"], one["is_wanted"]) for one in listed] == [
            (STREAM, worker["subject"], True)
        ]
        assert ship.request("POST", "/api/v1/streams/prune", {})[1] == {"streams": []}
        ship.kill()
        central.send(append("1\n"))
        until(lambda: waiting_in_stream(broker.url) == 1)
        without = text.replace("  ship: {subscribe", "  ship: {}\n  gone: {subscribe")
        ship.config_path.write_text(without)
        ship.start()
        # somebody has deleted the consumer: the messages are there all the same
        api(broker.url, f"CONSUMER.DELETE.{STREAM}.{worker['subject'].replace('.', '=')}")
        (left,) = ship.request("GET", "/api/v1/streams")[1]["streams"]
        assert (left["waiting"], left["is_wanted"]) == (1, False)
        pruned = ship.request("POST", "/api/v1/streams/prune", {})[1]["streams"]
        assert [(one["messages"], one["is_pruned"]) for one in pruned] == [(1, False)]
        assert waiting_in_stream(broker.url) == 1
        pruned = ship.request("POST", "/api/v1/streams/prune", {"force": True})[1]["streams"]
        assert [one["is_pruned"] for one in pruned] == [True]
        assert "error" in api(broker.url, f"STREAM.INFO.{STREAM}")
        assert ship.request("GET", "/api/v1/streams")[1] == {"streams": []}


def test_the_embedded_broker_keeps_messages_over_a_kill_of_all(tmp_path):
    text = """
version: 1
broker: {embedded: {jetstream: true}}
defaults: {delivery: jetstream}
nodes:
  central: {}
  ship: {subscribe: {REQToFileAppend: {accept_from: [central], ack: {on: done}}}}
"""
    central = daemon(tmp_path, "all", text, node="central")
    with central:
        assert '"state":"stored"' in central.follow(append("1\n"))
        written = (central.state / "broker" / "nats-server.conf").read_text()
        assert "sync_interval: always" in written
        central.kill()
        central.args = ["--node", "central", "--node", "ship"]
        central.start()
        until(lambda: lines_of(central) == Counter("1"), tell=central.log)


def test_a_cluster_whose_leader_is_killed_loses_and_doubles_nothing(tmp_path):
    with Cluster(tmp_path) as cluster:
        servers = '", "'.join(cluster.urls)
        text = config(servers, stream="replicas: 3", ack_on="received")
        with daemon(tmp_path, "ship", text) as ship, daemon(tmp_path, "central", text) as central:
            cluster.wait_whole(STREAM)
            for number in range(300):
                central.send(append(f"{number}\n"))
                if number == 150:
                    victim = cluster.leader(STREAM)
                    assert victim is not None
                    victim.kill()
            until(lambda: not central.status()["outbox"]["pending"], tell=central.log)
            until(lambda: len(lines_of(ship)) == 300, timeout_s=90, tell=ship.log)
            assert set(lines_of(ship).values()) == {1}
