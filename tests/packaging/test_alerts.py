"""Every alert fires on what it describes, says it in words, and stays quiet otherwise; asked of Prometheus' own tool."""

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

RULES = Path(__file__).parents[2] / "packaging/monitoring/alerts.yaml"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}
AT = 'instance="a:1"'
HANDLED = f'appliance_messages_total{{{AT},worker="w",node="n",direction="in",result="handled"}}'
FAILED = HANDLED.replace("handled", "failed")
PENDING = f'appliance_outbox_messages{{{AT},state="pending"}}'
NOT_RUNNING = f'appliance_workers{{{AT},node="ship1",kind="subscriber",phase="backing_off"}}'
REFUSED = HANDLED.replace("handled", "refused")
SILENT = f'appliance_fleet_nodes{{{AT},state="silent"}}'
HELLO = f'appliance_node_last_hello_timestamp_seconds{{{AT},node="ship1"}}'


def metric(name, labels=""):
    return f"appliance_{name}{{{AT}{labels and ','}{labels}}}"


@dataclass
class Case:
    """Values a minute apart, in promtool's words: `0+2x5` is 0, 2, 4 … 10 and `1x3` is 1, four times."""

    fires: dict[str, str]
    at: str
    summary: str
    quiet: list[tuple[dict[str, str], str]]
    labels: dict[str, str] = field(default_factory=lambda: {"instance": "a:1"})


CASES = {
    "ApplianceDown": Case(
        {metric("build_info", 'job="a",version="1"'): "1x5", f'up{{{AT},job="a"}}': "1x5 0x30"},
        "14m",
        "a:1 does not answer",
        [
            (
                {
                    metric("build_info", 'job="a",version="1"'): "1x5",
                    f'up{{{AT},job="a"}}': "1x5 0x30",
                },
                "9m",
            ),
            ({f'up{{{AT},job="a"}}': "0x30"}, "30m"),  # something else
            (
                {
                    metric("build_info", 'job="a",version="1"'): "1x30",
                    f'up{{{AT},job="a"}}': "1x30",
                    f'up{{{AT},job="node"}}': "0x30",
                },
                "30m",
            ),
        ],
        {"instance": "a:1", "job": "a"},
    ),
    "ApplianceMessagesRefused": Case(
        {REFUSED: "0 0 3x30", REFUSED.replace('"w"', '"x"'): "0x30"},
        "5m",
        "w of a:1 refused 3 messages in 15 minutes",
        [({HANDLED: "0+3x40", FAILED: "0+3x40"}, "9m"), ({REFUSED: "0 0 3x30"}, "25m")],
        {"instance": "a:1", "worker": "w"},
    ),
    "ApplianceInputsRefused": Case(
        {metric("inputs_messages_total", 'input="tcp",result="refused"'): "0 0 3x30"},
        "5m",
        "a:1 refused 3 messages of its input tcp in 15 minutes",
        [({metric("inputs_messages_total", 'input="tcp",result="accepted"'): "0+3x40"}, "9m")],
        {"instance": "a:1", "input": "tcp"},
    ),
    "ApplianceFleetSilent": Case(
        # one was heard and has an alert of its own, two were not heard since the start
        {SILENT: "3x60", HELLO: "60x60", HELLO.replace("ship1", "away"): "0x60"},
        "35m",
        "2 more nodes are silent for a:1",
        [
            ({SILENT: "1x60", HELLO: "60x60"}, "60m"),
            ({SILENT: "1x8 0x60"}, "60m"),
            ({SILENT: "1x60"}, "9m"),
            *(
                ({SILENT.replace("silent", state): "2x60", SILENT: "0x60"}, "60m")
                for state in ("in_sync", "unknown", "behind", "refused")
            ),
        ],
        {"instance": "a:1", "state": "silent"},
    ),
    "ApplianceSecretUnusable": Case(
        {metric("secret_usable", 'place="broker.tls.cert"'): "1 1 0x30"},
        "9m",
        "a:1 cannot use broker.tls.cert",
        [({metric("secret_usable", 'place="broker.tls.cert"'): "1x5 0x2 1x30"}, "20m")],
        {"instance": "a:1", "place": "broker.tls.cert"},
    ),
    "ApplianceSecretExpires": Case(
        # the clock of these tests begins with 1970: thirteen days and an hour
        {metric("secret_expiry_timestamp_seconds", 'place="broker.tls.cert"'): "1134000x180"},
        "2h",
        "broker.tls.cert of a:1 ends in 13d 1h 0m 0s",
        [
            (
                {
                    metric(
                        "secret_expiry_timestamp_seconds", 'place="broker.tls.cert"'
                    ): "1300000x180"
                },
                "2h",
            ),
            # it has ended: that it cannot be used has an alert of its own
            (
                {metric("secret_expiry_timestamp_seconds", 'place="broker.tls.cert"'): "3600x180"},
                "150m",
            ),
        ],
        {"instance": "a:1", "place": "broker.tls.cert"},
    ),
    "ApplianceNodeUndeclared": Case(
        {SILENT.replace("silent", "undeclared"): "2x60", SILENT: "1x60"},
        "16m",
        "2 nodes that are not declared say hello to a:1",
        [({SILENT.replace("silent", "undeclared"): "2x9 0x60"}, "60m"), ({SILENT: "2x60"}, "60m")],
        {"instance": "a:1", "state": "undeclared"},
    ),
    "ApplianceFleetNotInSync": Case(
        {SILENT.replace("silent", "refused"): "2x60", SILENT: "1x60"},
        "16m",
        "2 nodes are refused for a:1",
        [
            ({SILENT.replace("silent", "behind"): "2x9 0x60"}, "60m"),
            *(
                ({SILENT.replace("silent", state): "2x60"}, "60m")
                for state in ("in_sync", "unknown", "silent")
            ),
        ],
        {"instance": "a:1", "state": "refused"},
    ),
    "ApplianceConfigRefused": Case(
        {metric("config_last_reload_successful"): "1 0x9"},
        "4m",
        "a:1 does not run the configuration in its files",
        [
            ({metric("config_last_reload_successful"): "1 0x9"}, "2m"),
            ({metric("config_last_reload_successful"): "1 0 0 1x9"}, "4m"),
        ],
    ),
    "ApplianceConfigReverted": Case(
        {metric("config_reloads_total", 'result="reverted"'): "0 0 1x90"},
        "10m",
        "a:1 went back to its previous configuration",
        [
            ({metric("config_reloads_total", 'result="reverted"'): "0 0 1x90"}, "80m"),
            ({metric("config_reloads_total", 'result="refused"'): "0+1x90"}, "10m"),
        ],
        {"instance": "a:1", "result": "reverted"},
    ),
    "ApplianceBrokerDisconnected": Case(
        {metric("broker_connected"): "1 0x9"},
        "7m",
        "a:1 has no connection to the broker",
        [
            ({metric("broker_connected"): "1 0x9"}, "5m"),
            ({metric("broker_connected"): "1x9"}, "9m"),
        ],
    ),
    "ApplianceBrokerUnsteady": Case(
        {metric("broker_reconnects_total"): "0+1x90"},
        "70m",
        "a:1 lost its broker 60 times in an hour",
        [({metric("broker_reconnects_total"): "0x30 5x60"}, "70m")],
    ),
    "ApplianceWorkersNotRunning": Case(
        {NOT_RUNNING: "1x9", NOT_RUNNING.replace("subscriber", "publisher"): "2x9"},
        "6m",
        "3 workers of ship1 are backing_off",
        [
            ({NOT_RUNNING: "1 1 0x9"}, "6m"),
            ({NOT_RUNNING: "1x9"}, "4m"),
            *(
                ({NOT_RUNNING.replace("backing_off", phase): "3x9"}, "9m")
                for phase in ("running", "starting", "draining", "stopped")
            ),
        ],
        {"instance": "a:1", "node": "ship1", "phase": "backing_off"},
    ),
    "ApplianceWorkerRestarts": Case(
        {metric("worker_restarts_total", 'node="n",worker="w"'): "0+1x30"},
        "20m",
        "worker w was restarted 15 times in 15 minutes",
        [({metric("worker_restarts_total", 'node="n",worker="w"'): "0+1x4 4x30"}, "15m")],
        {"instance": "a:1", "node": "n", "worker": "w"},
    ),
    "ApplianceDeadLetters": Case(
        {metric("outbox_messages", 'state="dead"'): "0 7x5"},
        "2m",
        "a:1 gave up on 7 messages",
        [
            ({metric("outbox_messages", 'state="dead"'): "7 0x5"}, "2m"),
            ({PENDING: "7x5"}, "2m"),
        ],
        {"instance": "a:1", "state": "dead"},
    ),
    "ApplianceStoreUnusable": Case(
        {metric("store_health", 'state="read_only"'): "0 1x9"},
        "4m",
        "the store of a:1 is read_only",
        [
            ({metric("store_health", 'state="read_only"'): "0 1 0x9"}, "4m"),
            *(
                ({metric("store_health", f'state="{state}"'): "1x9"}, "9m")
                for state in ("ok", "behind")
            ),
        ],
        {"instance": "a:1", "state": "read_only"},
    ),
    "ApplianceStoreBehind": Case(
        {metric("store_health", 'state="behind"'): "1x9"},
        "6m",
        "the disk of a:1 does not keep up with its messages",
        [
            ({metric("store_health", 'state="behind"'): "1 1 0x9"}, "9m"),
            ({metric("store_health", 'state="full"'): "1x9"}, "9m"),
        ],
        {"instance": "a:1", "state": "behind"},
    ),
    "ApplianceInboxOrphaned": Case(
        {metric("inbox_messages", 'state="orphaned"'): "2x9"},
        "6m",
        "2 messages that a:1 took in have no worker",
        [
            ({metric("inbox_messages", 'state="orphaned"'): "2 2 0x9"}, "6m"),
            ({metric("inbox_messages", 'state="unfinished"'): "2x9"}, "9m"),
        ],
        {"instance": "a:1", "state": "orphaned"},
    ),
    "ApplianceMessagesHeldUp": Case(
        {metric("messages_waiting", 'reason="silent"'): "20x20"},
        "16m",
        "20 messages of a:1 wait: silent",
        [
            ({metric("messages_waiting", 'reason="silent"'): "20x9 0x10"}, "16m"),
            *(
                ({metric("messages_waiting", f'reason="{reason}"'): "20x20"}, "20m")
                for reason in ("nobody there", "busy", "behind others", "broker away")
            ),
        ],
        {"instance": "a:1", "reason": "silent"},
    ),
    "ApplianceOutboxStuck": Case(
        {metric("outbox_oldest_seconds"): "7200x9"},
        "6m",
        "the oldest message of a:1 waits for 2h 0m 0s",
        [
            ({metric("outbox_oldest_seconds"): "3600x9"}, "9m"),
            ({metric("outbox_oldest_seconds"): "7200 7200 0x9"}, "6m"),
        ],
    ),
    "ApplianceOutboxGrows": Case(
        {PENDING: "11000+100x60"},
        "40m",
        "the outbox of a:1 holds 15000 messages and grows",
        [
            ({PENDING: "11000+100x60"}, "14m"),
            ({PENDING: "20000x60"}, "40m"),
            ({PENDING: "30000-100x60"}, "40m"),
            ({PENDING: "0+100x60"}, "40m"),
        ],
        {"instance": "a:1", "state": "pending"},
    ),
    "ApplianceAcksMissed": Case(
        {metric("acks_missed_total"): "0+120x40"},
        "25m",
        "a:1 misses 2 acknowledgements a second",
        [
            ({metric("acks_missed_total"): "0+30x40"}, "25m"),
            ({metric("acks_missed_total"): "0+120x4 600x40"}, "25m"),
        ],
    ),
    "ApplianceMessagesDropped": Case(
        {metric("messages_dropped_total"): "0 0 3x30"},
        "5m",
        "a:1 could not keep up and dropped messages; their senders resend them",
        [
            ({metric("messages_dropped_total"): "3x30"}, "5m"),
            ({metric("messages_dropped_total"): "0 0 3x30"}, "25m"),
        ],
    ),
    "ApplianceHandlersFail": Case(
        {FAILED: "0+3x40", HANDLED: "0+7x40", HANDLED.replace('"w"', '"x"'): "0+7x40"},
        "25m",
        "w fails 30% of its messages",
        [
            ({FAILED: "0+1x40", HANDLED: "0+9x40"}, "25m"),
            ({FAILED: "0x40", HANDLED: "0x40"}, "25m"),
            ({FAILED: "0+3x40", HANDLED: "0+7x40"}, "9m"),
        ],
        {"instance": "a:1", "worker": "w"},
    ),
    "ApplianceWorkAbandoned": Case(
        {metric("drain_abandoned_total"): "0 0 1x90"},
        "5m",
        "a:1 ended work in hand at a deadline",
        [({metric("drain_abandoned_total"): "1x90"}, "5m")],
    ),
    "ApplianceErrorReportsLost": Case(
        {metric("error_reports_lost_total"): "0 0 1x90"},
        "5m",
        "a:1 lost error reports",
        [({metric("error_reports_lost_total"): "1x90"}, "5m")],
    ),
    "ApplianceAuditIncomplete": Case(
        {metric("audit_entries_total", 'result="unnamed"'): "0 0 3x90"},
        "5m",
        "the audit trail of a:1 does not name all that was asked",
        [
            ({metric("audit_entries_total", 'result="unnamed"'): "3x90"}, "5m"),
            ({metric("audit_entries_total", 'result="summed"'): "0 0 3x90"}, "5m"),
        ],
    ),
    "ApplianceNodeSilent": Case(
        {HELLO: "60x40"},
        "21m",
        "no hello from node ship1 for 20m 0s",
        [
            ({HELLO: "0x40"}, "30m"),  # it never said one here: it may say them elsewhere
            ({HELLO: "1+60x40"}, "30m"),
            ({HELLO: "60x40"}, "14m"),
        ],
        {"instance": "a:1", "node": "ship1"},
    ),
}


def run_promtool(tests, directory):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed here (it is in Debian's package prometheus)")
    file = directory / "tests.yaml"
    file.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests})
    )
    command = [promtool, "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr


def make_test(name, values, at, alerts):
    return {
        "interval": "1m",
        "input_series": [{"series": key, "values": value} for key, value in values.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": alerts}],
    }


def test_every_alert_is_tried_here():
    assert set(CASES) == set(ALERTS)


def make_firing(name):
    case, rule = CASES[name], ALERTS[name]
    said = {"summary": case.summary}
    if "description" in rule["annotations"]:
        text = rule["annotations"]["description"]
        said["description"] = text.replace("{{ $labels.node }}", case.labels.get("node", ""))
    labels = {**case.labels, **rule["labels"]}
    alert = {"exp_labels": labels, "exp_annotations": said}
    return make_test(name, case.fires, case.at, [alert])


# NB: all in one run, for most of what a run costs is its start; it names the alerts that fail


def test_each_fires_on_what_it_describes_and_says_so(tmp_path):
    run_promtool([make_firing(name) for name in CASES], tmp_path)


def test_each_is_quiet_otherwise(tmp_path):
    tests = [make_test(name, values, at, []) for name in CASES for values, at in CASES[name].quiet]
    assert {name for name in CASES if CASES[name].quiet} == set(CASES)
    run_promtool(tests, tmp_path)
