"""Every metric that is documented, scraped from a real daemon: after its start, under load, and after a worker has gone."""

import asyncio
import http.client
import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import cbor2
import nats
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
BROKER = """
no_auth_user: app
authorization { users: [{user: app, password: app, permissions: {
  publish: ">", subscribe: {allow: [">"], deny: ["ship1.REQPong.>"]}}}] }
"""
CONFIG = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 50ms}}
admin: {{listen: "127.0.0.1:{port}"}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m, drain_timeout: 500ms, trial: {trial}}}
limits: {{error_reports_per_minute: 1}}
inputs: {{from: central, socket: {{path: steward.sock}}}}
defaults: {{ack: {{timeout: 400ms, retries: 1}}}}
nodes:
  central:
    subscribe: {{REQHello: {{}}, REQErrorLog: {{}}, REQToFileAppend: {{}}}}
    publish: {{away: {{to: absent, method: REQPing}}}}
  ship1:
    subscribe:
      REQPing: {{}}
      REQCliCommand: {{accept_from: [central], allow_commands: [["true"]]}}
      {more}
    publish: {{hello: {{to: central, method: REQHello, every: 200ms}}}}
  busy: {{subscribe: {{REQCliCommand: {{backlog: 1, concurrency: 1, allow_commands: [[sleep, "*"]]}}}}}}
  absent: {{subscribe: {{REQPing: {{}}}}}}
"""
LEAVER = "REQToConsole: {}"
OF_SECRETS = {"appliance_secret_usable", "appliance_secret_expiry_timestamp_seconds"}
"""There where a config names secrets and certificates, which this one does not: see unit/test_metrics."""
OF_STREAMS = {"appliance_stream_messages", "appliance_stream_oldest_seconds"}
"""There where a subscription is delivered by JetStream: see test_jetstream."""
OF_CLOCKS = {"appliance_node_clock_skew_seconds"}
"""There where a clock differs: see unit/test_metrics."""
ELSEWHERE = OF_SECRETS | OF_STREAMS | OF_CLOCKS
PING = "ship1.REQPing.EventACK_subscriber"
COMMAND = "ship1.REQCliCommand.CommandACK_subscriber"
TIMEOUT_S = 40.0
pytestmark = pytest.mark.xdist_group("metrics")


class Scrape:
    """The samples of one exposition."""

    def __init__(self, text):
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [item for family in self.families.values() for item in family.samples]

    @property
    def names(self):
        """As `# TYPE` lines give them."""
        return set(re.findall(r"^# TYPE (\S+)", self.text, re.MULTILINE))

    def find(self, name, **labels):
        return [
            item.value
            for item in self.samples
            if item.name == name and labels.items() <= item.labels.items()
        ]

    def value(self, name, **labels):
        found = self.find(name, **labels)
        assert found, f"no {name}{labels}"
        return sum(found)

    def moved(self):
        """What is not zero, for a person to read."""
        lines = self.text.splitlines()
        return "\n".join(
            line for line in lines if not line.startswith("#") and not line.endswith(" 0.0")
        )

    def workers(self):
        return {item.labels["worker"] for item in self.samples if "worker" in item.labels}


class Watched(Appliance):
    """A daemon that is scraped."""

    def __init__(self, broker, directory):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.broker = broker
        super().__init__(self.text(), directory, args=["--node", "central,ship1,busy"])
        self.only_named = True

    def text(self, *, more="", trial="0s"):
        return CONFIG.format(url=self.broker.url, port=self.port, more=more, trial=trial)

    def scrape(self):
        code, text = self.request("GET", "/metrics")
        assert code == 200
        return Scrape(text)

    def wait_for(self, predicate):
        """Scrape until it is true of a scrape; returns that."""
        found = self.scrape()

        def look():
            nonlocal found
            found = self.scrape()
            return predicate(found)

        until(look, timeout_s=TIMEOUT_S, every_s=0.02, tell=lambda: found.moved())
        return found

    def wait_moved(self, before, name, **labels):
        """Wait until a value is above that of an earlier scrape."""
        old = before.value(name, **labels)
        return self.wait_for(lambda found: found.value(name, **labels) > old)

    def switch(self, **changes):
        self.write_config(self.text(**changes))
        return self.reload()

    def order(self, *argv, to="ship1"):
        message = {"from_node": "central", "to_nodes": [to], "method": "REQCliCommand"}
        self.send({**message, "method_args": list(argv)})

    def ping(self, to="ship1"):
        self.send({"from_node": "central", "to_nodes": [to], "method": "REQPing"})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with NatsServer(BROKER) as broker, Watched(broker, tmp_path_factory.mktemp("m")) as daemon:
        daemon.at_start = daemon.scrape()
        yield daemon


def publish(daemon, *messages, subject="ship1.REQPing.EventACK"):
    """Bare messages to ship1's REQPing or another, with headers of their own; returns when the broker has them."""

    async def run():
        client = await nats.connect(daemon.broker.url)
        for fields, headers in messages:
            payload = cbor2.dumps(seed_message(subject.split(".")[0], *fields))
            await client.publish(subject, payload, headers={"serial": "cbor", **headers})
        await client.flush()
        await client.close()

    asyncio.run(run())


def documented():
    """Name, type and label words of every row of the table."""
    text = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(appliance_\w+)` \| (\w+) \| (.*?) \|", text, re.MULTILINE)
    assert len(rows) > 25
    return {name: (kind, labels) for name, kind, labels in rows}


# -- after the start ---------------------------------------------------------------------------------


def test_every_documented_name_is_there_at_once_and_every_name_is_documented(daemon):
    ours = {name for name in daemon.at_start.names if name.startswith("appliance_")}
    assert ours == set(documented())
    text = (ROOT / "docs/metrics.md").read_text()
    assert all(name in text for name in daemon.at_start.names)


@pytest.mark.parametrize("name", sorted(documented().keys() - ELSEWHERE))
def test_type_labels_and_help_are_as_documented_and_as_prometheus_wants_them(name, daemon):
    kind, words = documented()[name]
    scrape = daemon.at_start
    assert f"# TYPE {name} {kind}\n" in scrape.text
    help_text = re.search(rf"^# HELP {name} (.+)$", scrape.text, re.MULTILINE)[1]
    assert help_text.endswith(".")
    assert name.endswith("_total") == (kind == "counter")
    suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
    if kind == "histogram":
        assert name.endswith("_seconds")
    labels = set(re.findall(r"`(\w+)`", words))
    found = [item for item in scrape.samples if item.name in [name + end for end in suffixes]]
    assert found
    for item in found:
        assert set(item.labels) - {"le"} == labels


def test_every_value_of_a_closed_set_begins_at_zero(daemon):
    scrape = daemon.at_start
    text = (ROOT / "docs/metrics.md").read_text()
    for result in ("applied", "unchanged", "refused", "reverted"):
        assert scrape.find("appliance_config_reloads_total", result=result)
        assert f"`{result}`" in text
    for state in ("pending", "in_flight", "dead"):
        assert scrape.value("appliance_outbox_messages", state=state) >= 0
    for name in ("socket", "tcp", "http", "folder"):
        for result in ("accepted", "refused"):
            assert scrape.value("appliance_inputs_messages_total", input=name, result=result) == 0
    for result in ("handled", "failed", "refused", "repeat", "dropped"):
        found = scrape.find("appliance_messages_total", worker=PING, direction="in", result=result)
        assert found == [0]
    for result in ("missed", "dead"):
        away = "absent.REQPing.EventACK_publisher"
        assert scrape.find("appliance_messages_total", worker=away, result=result) == [0]
    for node in ("central", "ship1", "busy", "absent"):
        assert scrape.find("appliance_node_last_hello_timestamp_seconds", node=node)
    for phase in ("starting", "running", "backing_off", "draining", "stopped", "failed"):
        assert scrape.find("appliance_workers", node="ship1", kind="subscriber", phase=phase)


def test_the_start_is_told(daemon):
    scrape = daemon.at_start
    assert scrape.value("appliance_build_info") == 1
    digest = daemon.status()["config"]["digest"]
    assert scrape.find("appliance_config_info", digest=digest) or daemon.scrape().find(
        "appliance_config_info", digest=digest
    )
    assert scrape.value("appliance_config_last_reload_successful") == 1
    assert scrape.value("appliance_config_reloads_total", result="applied") == 1
    assert scrape.value("appliance_broker_connected") == 1
    assert scrape.value("appliance_metrics_workers_omitted") == 0
    running = scrape.value("appliance_workers", node="ship1", kind="subscriber", phase="running")
    assert running == 2


def test_both_faces_show_the_same(daemon):
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        answer = connection.getresponse()
        scrape = Scrape(answer.read().decode())
    finally:
        connection.close()
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert scrape.names == daemon.scrape().names


# -- under load ----------------------------------------------------------------------------------------


def test_delivered_messages_move_counters_and_histograms(daemon):
    before = daemon.scrape()
    for _ in range(20):
        daemon.ping()
    daemon.order("true")
    after = daemon.wait_for(
        lambda found: (
            found.value("appliance_messages_total", worker=PING, result="handled")
            >= before.value("appliance_messages_total", worker=PING, result="handled") + 20
        )
    )
    to_ship1 = "ship1.REQPing.EventACK_publisher"
    after = daemon.wait_for(
        lambda found: (
            sum(found.find("appliance_messages_total", worker=to_ship1, result="acked")) >= 20
        )
    )
    assert after.value("appliance_messages_total", worker=to_ship1, result="sent") >= 20
    accepted = "appliance_messages_accepted_total"
    assert after.value(accepted) - before.value(accepted) >= 21
    for name in ("appliance_delivery_seconds", "appliance_handler_seconds"):
        after = daemon.wait_for(
            lambda found, name=name: (
                found.value(f"{name}_count") >= before.value(f"{name}_count") + 20
            )
        )
        assert after.value(f"{name}_sum") > before.value(f"{name}_sum")
        assert after.value(f"{name}_bucket", le="+Inf") == after.value(f"{name}_count")
        # shorter than a millisecond is not nothing
        assert after.value(f"{name}_sum") * 1000 % 1 != 0


def test_a_failing_handler_counts_and_its_reports_are_rate_limited(daemon):
    before = daemon.scrape()
    for _ in range(4):
        daemon.order("false")  # not allowed
    daemon.wait_moved(before, "appliance_messages_total", worker=COMMAND, result="failed")
    daemon.wait_moved(before, "appliance_error_reports_suppressed_total")


def test_refused_and_repeated_messages_count_and_strangers_make_no_labels(daemon):
    before = daemon.scrape()
    known = ("central", "REQPing", [])
    publish(
        daemon,
        (("stranger", "REQPing", []), {}),
        (("another", "REQPing", []), {}),
        (known, {"appl-id": "0123456789abcdef-41"}),
        (known, {"appl-id": "0123456789abcdef-41"}),
    )
    daemon.wait_moved(before, "appliance_messages_total", worker=PING, result="repeat")
    after = daemon.wait_for(
        lambda found: (
            found.value("appliance_messages_total", worker=PING, result="refused")
            >= before.value("appliance_messages_total", worker=PING, result="refused") + 2
        )
    )
    assert "stranger" not in after.text
    assert "another" not in after.text


def test_an_absent_node_shows_as_missed_waiting_and_dead(daemon):
    before = daemon.scrape()
    away = {"worker": "absent.REQPing.EventACK_publisher"}
    daemon.send({"from_node": "central", "to_nodes": ["absent"], "method": "REQPing", "expires": 2})
    daemon.wait_moved(before, "appliance_acks_missed_total")
    waiting = daemon.wait_for(
        lambda found: (
            found.value("appliance_outbox_oldest_seconds") > 0.5
            and found.value("appliance_messages_in_flight", **away) > 0
        )
    )
    assert waiting.value("appliance_outbox_messages", state="pending") >= 1
    assert waiting.value("appliance_outbox_messages", state="in_flight") >= 1
    daemon.wait_moved(before, "appliance_acks_failed_total")
    daemon.wait_moved(before, "appliance_messages_total", result="missed", **away)
    daemon.wait_moved(before, "appliance_messages_total", result="dead", **away)
    daemon.wait_moved(before, "appliance_outbox_messages", state="dead")
    daemon.request("POST", "/api/v1/outbox/drop", {"all": True})


def test_a_subscriber_that_cannot_keep_up_turns_away_who_understands_and_drops_the_rest(daemon):
    before = daemon.scrape()
    worker = "busy.REQCliCommand.CommandACK_subscriber"
    for _ in range(12):
        daemon.order("sleep", "0.05", to="busy")
    daemon.wait_moved(before, "appliance_messages_total", worker=worker, result="turned_away")
    publish(daemon, *[(("central", "REQCliCommand", []), {})] * 12, subject=worker.split("_")[0])
    daemon.wait_moved(before, "appliance_messages_total", worker=worker, result="dropped")
    daemon.wait_moved(before, "appliance_messages_dropped_total")


def test_hellos_and_the_fleets_state_are_told(daemon):
    found = daemon.wait_for(
        lambda found: found.value("appliance_node_last_hello_timestamp_seconds", node="ship1") > 0
    )
    said_at = found.value("appliance_node_last_hello_timestamp_seconds", node="ship1")
    assert abs(time.time() - said_at) < 60
    assert found.value("appliance_node_last_hello_timestamp_seconds", node="busy") == 0
    daemon.wait_for(lambda found: found.value("appliance_fleet_nodes") >= 1)


def test_inputs_count_what_they_take_and_refuse(daemon):
    before = daemon.scrape()
    messages = [{"toNodes": ["ship1"], "method": "REQPing"}, {"toNodes": ["ship1"], "method": "No"}]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.state / "steward.sock"))
        client.sendall(json.dumps(messages).encode())
        client.shutdown(socket.SHUT_WR)
        assert b"accepted" in client.recv(65_536)
    name = "appliance_inputs_messages_total"
    daemon.wait_moved(before, name, input="socket", result="accepted")
    daemon.wait_moved(before, name, input="socket", result="refused")


def test_a_broker_that_comes_back_is_counted(daemon):
    before = daemon.scrape()
    daemon.broker.kill()
    daemon.wait_for(lambda found: found.value("appliance_broker_connected") == 0)
    daemon.broker.start()
    daemon.wait_moved(before, "appliance_broker_reconnects_total")
    daemon.wait_for(lambda found: found.value("appliance_broker_connected") == 1)


# -- the config ------------------------------------------------------------------------------------------


def test_a_refused_config_shows_until_the_files_are_good_again(daemon):
    before = daemon.scrape()
    reloads = "appliance_config_reloads_total"
    daemon.write_config("version: 1\nnonsense: true\n")
    assert daemon.reload()["result"] == "refused"
    refused = daemon.scrape()
    assert refused.value("appliance_config_last_reload_successful") == 0
    assert refused.value(reloads, result="refused") > before.value(reloads, result="refused")
    stamp = "appliance_config_last_reload_success_timestamp_seconds"
    attempt = "appliance_config_last_attempt_timestamp_seconds"
    assert refused.value(stamp) == before.value(stamp)
    assert refused.value(attempt) > before.value(attempt)
    assert daemon.switch()["result"] == "unchanged"
    good = daemon.scrape()
    assert good.value("appliance_config_last_reload_successful") == 1
    assert good.value(reloads, result="unchanged") > before.value(reloads, result="unchanged")
    assert good.value(stamp) > refused.value(stamp)


def test_a_set_that_fails_its_trial_counts_restarts_and_is_reverted(daemon):
    before = daemon.scrape()
    denied = "ship1.REQPong.EventACK_subscriber"
    assert daemon.switch(more="REQPong: {}", trial="3s")["result"] == "applied"
    daemon.wait_for(
        lambda found: (
            sum(found.find("appliance_worker_restarts_total", worker=denied)) >= 1
            and found.value("appliance_workers", node="ship1", phase="backing_off") >= 1
        )
    )
    reverted = daemon.wait_moved(before, "appliance_config_reloads_total", result="reverted")
    assert reverted.value("appliance_config_last_reload_successful") == 0
    daemon.switch()
    back = daemon.wait_for(
        lambda found: found.value("appliance_config_last_reload_successful") == 1
    )
    assert denied not in back.workers()
    assert back.value("appliance_generation") > before.value("appliance_generation")
    duration = "appliance_config_reload_duration_seconds_count"
    assert back.value(duration) > before.value(duration)


# -- after a worker has gone -----------------------------------------------------------------------------


def test_a_worker_that_goes_takes_its_labels_along_and_leaves_its_sums(daemon):
    leaver = "ship1.REQToConsole.EventACK_subscriber"
    assert daemon.switch(more=LEAVER)["result"] == "applied"
    before = daemon.scrape()
    assert before.find("appliance_messages_total", worker=leaver, result="handled") == [0]
    lines = {"from_node": "central", "to_nodes": ["ship1"], "method": "REQToConsole"}
    daemon.send(*[{**lines, "data": [f"line {at}"]} for at in range(30)])
    # NB: the status and not a scrape: nobody may have looked at a worker that came and went
    daemon.wait_until(lambda _: daemon.worker(leaver)["handled"] == 30)
    assert daemon.switch()["result"] == "applied"
    after = daemon.scrape()
    assert leaver not in after.workers()
    count = "appliance_handler_seconds_count"
    assert after.value(count) >= before.value(count) + 30
    for name, (kind, labels) in documented().items():
        if kind == "counter" and "worker" not in labels:
            assert after.value(name) >= before.value(name), name


def test_work_that_a_stop_cuts_off_is_counted(daemon):
    more = 'REQCliCommandCont: {ack: {mode: none}, allow_commands: [[sleep, "*"]]}'
    assert daemon.switch(more=more)["result"] in ("applied", "unchanged")
    before = daemon.scrape()
    worker = "ship1.REQCliCommandCont.CommandNACK_subscriber"
    daemon.send(
        {
            "from_node": "central",
            "to_nodes": ["ship1"],
            "method": "REQCliCommandCont",
            "method_args": ["sleep", "60"],
            "method_timeout": 90,
        }
    )
    daemon.wait_for(
        lambda found: sum(found.find("appliance_messages_in_flight", worker=worker)) == 1
    )
    assert daemon.switch()["result"] in ("applied", "unchanged")  # the watch may have been first
    after = daemon.wait_moved(before, "appliance_drain_abandoned_total")
    assert worker not in after.workers()


# -- what asks for them ------------------------------------------------------------------------------------


def test_alerts_and_dashboard_ask_for_what_a_scrape_has(daemon):
    rules = yaml.safe_load((ROOT / "packaging/monitoring/alerts.yaml").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((ROOT / "packaging/monitoring/dashboard.json").read_text())
    asked += [item["expr"] for panel in dashboard["panels"] for item in panel["targets"]]
    asked += [item["expr"] for item in dashboard["annotations"]["list"]]
    scrape = daemon.scrape()
    exposed = {item.name for item in scrape.samples}
    names = set(re.findall(r"\b(?:appliance|process)_\w+", " ".join(asked)))
    assert len(names) > 15
    assert names - exposed == OF_SECRETS
    for text in asked:
        for name, matchers in re.findall(r"\b(appliance_\w+)\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)=", matchers)) - {"instance"}
            known = {label for item in scrape.samples if item.name == name for label in item.labels}
            assert labels <= known, text


def test_prometheus_accepts_a_busy_daemons_exposition(daemon):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed here (it is in Debian's package prometheus)")
    text = daemon.scrape().text
    command = [promtool, "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
