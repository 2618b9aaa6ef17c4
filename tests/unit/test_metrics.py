"""What a scrape shows: every documented name, nothing that grows without bound, no sum that falls."""

import re

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from appliance.core.names import NodeName, Subject, WorkerKey, WorkerKind
from appliance.core.specs import Phase
from appliance.telemetry import metrics
from appliance.telemetry.metrics import Exposition, MetricsFacts, WorkerView, render
from appliance.telemetry.stats import TelemetryCounts, WorkerStats

DOCUMENTED = """
appliance_config_last_reload_successful appliance_config_last_reload_success_timestamp_seconds
appliance_config_reloads_total{result="applied"} appliance_config_reloads_total{result="unchanged"}
appliance_config_reloads_total{result="refused"} appliance_config_reload_duration_seconds_bucket{le="+Inf"}
appliance_config_info{branch="",digest="",dirty="",revision=""} appliance_build_info{version="0.1.0"}
appliance_workers{kind="subscriber",node="ship1",phase="running"}
appliance_workers{kind="publisher",node="ship1",phase="failed"}
appliance_worker_restarts_total{node="ship1",worker="ship1.REQPing.EventACK_subscriber"}
appliance_messages_total{direction="in",node="ship1",result="handled",worker="ship1.REQPing.EventACK_subscriber"}
appliance_messages_total{direction="in",node="ship1",result="failed",worker="ship1.REQPing.EventACK_subscriber"}
appliance_messages_total{direction="in",node="ship1",result="refused",worker="ship1.REQPing.EventACK_subscriber"}
appliance_messages_total{direction="in",node="ship1",result="repeat",worker="ship1.REQPing.EventACK_subscriber"}
appliance_messages_total{direction="in",node="ship1",result="dropped",worker="ship1.REQPing.EventACK_subscriber"}
appliance_messages_total{direction="out",node="ship1",result="sent",worker="ship1.REQPing.EventACK_publisher"}
appliance_messages_total{direction="out",node="ship1",result="acked",worker="ship1.REQPing.EventACK_publisher"}
appliance_messages_total{direction="out",node="ship1",result="missed",worker="ship1.REQPing.EventACK_publisher"}
appliance_messages_total{direction="out",node="ship1",result="dead",worker="ship1.REQPing.EventACK_publisher"}
appliance_messages_in_flight{node="ship1",worker="ship1.REQPing.EventACK_publisher"}
appliance_delivery_seconds_bucket{le="+Inf"} appliance_handler_seconds_bucket{le="+Inf"}
appliance_outbox_messages{state="pending"} appliance_outbox_messages{state="in_flight"}
appliance_outbox_messages{state="dead"} appliance_outbox_oldest_seconds appliance_acks_missed_total
appliance_acks_failed_total appliance_node_last_hello_timestamp_seconds{node="ship2"} appliance_generation
appliance_messages_dropped_total appliance_drain_abandoned_total appliance_broker_connected
appliance_broker_reconnects_total appliance_inputs_messages_total{input="folder",result="accepted"}
appliance_inputs_messages_total{input="tcp",result="refused"}
"""


class Source:
    def __init__(self, **facts):
        self.values = {
            "version": "0.1.0",
            "counts": TelemetryCounts(),
            "run_nodes": ["ship1"],
            "inputs": {("folder", "accepted"): 0, ("tcp", "refused"): 0},
        } | facts

    def facts(self):
        return MetricsFacts(**self.values)


def view(node="ship1", kind=WorkerKind.SUBSCRIBER, **changes):
    key = WorkerKey(NodeName(node), Subject(f"{node}.REQPing.EventACK"), kind)
    return WorkerView(key=key, phase=Phase.RUNNING, **{"stats": WorkerStats(), **changes})


def scrape(exposition):
    body, content_type = render(exposition.collect(), "text/plain")
    assert content_type.startswith("text/plain")
    samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


@pytest.mark.parametrize("name", DOCUMENTED.split())
def test_every_documented_name_is_there_before_anything_happened(name):
    source = Source(workers=[view(), view(kind=WorkerKind.PUBLISHER)], declared_nodes=["ship2"])
    samples = scrape(Exposition(source))
    assert name in samples
    if "info" not in name and "successful" not in name and "running" not in name:
        assert samples[name] == 0


def test_names_are_told_even_without_any_worker():
    body, _ = render(Exposition(Source()).collect(), "text/plain")
    told = set(re.findall(r"^# TYPE (\S+)", body.decode(), re.MULTILINE))
    assert {"appliance_messages_total", "appliance_worker_restarts_total"} <= told


def test_a_stopped_worker_takes_its_labels_along():
    source = Source(workers=[view("ship1"), view("ship2")])
    exposition = Exposition(source)
    assert any("ship2.REQPing" in name for name in scrape(exposition))
    source.values["workers"] = [view("ship1")]
    assert not any("ship2.REQPing" in name for name in scrape(exposition))


def test_sums_hold_what_workers_counted_that_are_gone():
    gone, present = WorkerStats(), WorkerStats()
    gone.dropped, gone.missed, gone.dead = 5, 2, 1
    gone.handler.observe(0.1)
    present.dropped = 1
    samples = scrape(Exposition(Source(workers=[view(stats=present)], gone=gone)))
    assert samples["appliance_messages_dropped_total"] == 6
    assert samples["appliance_acks_missed_total"] == 2
    assert samples["appliance_acks_failed_total"] == 1
    assert samples["appliance_handler_seconds_count"] == 1


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("messages_accepted", "messages_accepted_total"),
        ("drain_abandoned", "drain_abandoned_total"),
        ("error_reports_suppressed", "error_reports_suppressed_total"),
        ("error_reports_lost", "error_reports_lost_total"),
        ("lines_suppressed", "log_lines_suppressed_total"),
        ("last_attempt_at", "config_last_attempt_timestamp_seconds"),
        ("last_reload_success_at", "config_last_reload_success_timestamp_seconds"),
    ],
)
def test_every_count_of_the_daemon_itself_has_its_series(field, name):
    counts = TelemetryCounts()
    setattr(counts, field, 41)
    assert scrape(Exposition(Source(counts=counts)))[f"appliance_{name}"] == 41


@pytest.mark.parametrize("state", metrics.STORE_STATES)
def test_the_store_is_in_one_state_and_every_state_has_its_series(state):
    samples = scrape(Exposition(Source(store_state=state)))
    health = {name: value for name, value in samples.items() if "store_health" in name}
    assert len(health) == len(metrics.STORE_STATES)
    assert [name for name, value in health.items() if value] == [
        f'appliance_store_health{{state="{state}"}}'
    ]


def test_what_waits_is_counted_by_why_and_what_ended_by_how():
    counts = TelemetryCounts()
    counts.dead_letters["failed"] = 3
    source = Source(
        counts=counts,
        waiting={"nobody there": 7, "other": 1},
        inbox_unfinished=5,
        inbox_orphaned=2,
    )
    samples = scrape(Exposition(source))
    assert samples['appliance_messages_waiting{reason="nobody there"}'] == 7
    assert samples['appliance_messages_waiting{reason="other"}'] == 1
    assert samples['appliance_messages_waiting{reason="silent"}'] == 0
    assert samples['appliance_dead_letters_total{state="failed"}'] == 3
    assert samples['appliance_dead_letters_total{state="expired"}'] == 0
    assert samples['appliance_inbox_messages{state="unfinished"}'] == 5
    assert samples['appliance_inbox_messages{state="orphaned"}'] == 2


def test_events_that_slow_listeners_lost_are_shown():
    assert scrape(Exposition(Source(events_dropped=7)))["appliance_events_dropped_total"] == 7


def test_text_that_nothing_can_encode_does_not_break_the_scrape():
    source = Source(
        workers=[view("ship\udcff")], revision='a"b\nc\\\udc80', declared_nodes=["\ud800"]
    )
    samples = scrape(Exposition(source))
    assert any("ship" in name for name in samples)


def test_the_number_of_series_is_bounded_and_the_rest_is_told():
    workers = [view(f"node{number}") for number in range(metrics.MAX_LABELLED_WORKERS + 50)]
    samples = scrape(Exposition(Source(workers=workers, run_nodes=[w.key.node for w in workers])))
    named = {name for name in samples if name.startswith("appliance_messages_in_flight")}
    assert len(named) == metrics.MAX_LABELLED_WORKERS
    assert samples["appliance_metrics_workers_omitted"] == 50
    phases = {
        name: value for name, value in samples.items() if name.startswith("appliance_workers{")
    }
    assert sum(phases.values()) == len(workers)
    assert len(phases) <= metrics.MAX_PHASE_NODES * 12 + 12


def test_a_worker_that_was_never_built_shows_zeros():
    samples = scrape(Exposition(Source(workers=[view(stats=None)])))
    assert (
        samples[
            'appliance_messages_in_flight{node="ship1",worker="ship1.REQPing.EventACK_subscriber"}'
        ]
        == 0
    )


def test_openmetrics_is_spoken_to_those_who_ask():
    body, content_type = render(
        Exposition(Source()).collect(), "application/openmetrics-text; version=1.0.0"
    )
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_nodes_that_publish_on_one_subject_have_series_of_their_own():
    subject = Subject("central.REQHello.EventNACK")
    views = [
        WorkerView(
            key=WorkerKey(NodeName(node), subject, WorkerKind.PUBLISHER),
            phase=Phase.RUNNING,
            stats=WorkerStats(),
        )
        for node in ("ship1", "ship2")
    ]
    exposition = Exposition(Source(workers=views))
    body, _ = render(exposition.collect(), "text/plain")
    lines = [
        line.rsplit(" ", 1)[0] for line in body.decode().splitlines() if not line.startswith("#")
    ]
    assert len(lines) == len(set(lines))
    body, _ = render(exposition.collect(), "application/openmetrics-text; version=1.0.0")
    # the parser of openmetrics is strict: a series told twice is an error to it
    families = {
        family.name: family for family in openmetrics.text_string_to_metric_families(body.decode())
    }
    nodes = [sample.labels["node"] for sample in families["appliance_worker_restarts"].samples]
    assert nodes == ["ship1", "ship2"]


def test_a_secret_that_the_config_names_is_usable_or_not_and_may_have_an_end():
    secrets = {"admin.token": (False, None), "broker.tls.cert": (True, 2e9)}
    samples = scrape(Exposition(Source(secrets=secrets)))
    assert samples['appliance_secret_usable{place="admin.token"}'] == 0
    assert samples['appliance_secret_usable{place="broker.tls.cert"}'] == 1
    ends = {name for name in samples if name.startswith("appliance_secret_expiry")}
    assert ends == {'appliance_secret_expiry_timestamp_seconds{place="broker.tls.cert"}'}


def test_the_clock_of_a_node_that_signs_has_a_series_where_it_differs():
    samples = scrape(Exposition(Source(skews_s={"ship1": 120.0, "ship2": -45.0})))
    assert samples['appliance_node_clock_skew_seconds{node="ship1"}'] == 120.0
    assert samples['appliance_node_clock_skew_seconds{node="ship2"}'] == -45.0
