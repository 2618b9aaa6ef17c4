"""The exposition: every metric of the appliance, made anew at each scrape from what is there at
that moment.

Nothing is registered, so a restarted worker cannot collide with its predecessor and a stopped
worker's labels vanish by construction. Label values come from the config alone, never from a
message, and the number of series is bounded. Sums over all workers (histograms, missed and failed
acknowledgements, drops) must never fall when a worker goes: the pool keeps what gone workers
counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from appliance.core.delivery import WaitReason
from appliance.core.escape import escape_line
from appliance.core.fleet import NodeState
from appliance.core.names import WorkerKey, WorkerKind
from appliance.core.specs import Phase
from appliance.telemetry.stats import (
    PUBLISHER_COUNTERS,
    SUBSCRIBER_COUNTERS,
    LightHistogram,
    TelemetryCounts,
    WorkerStats,
    totals_of,
)

MAX_LABELLED_WORKERS = 500
"""Workers with series of their own; each has up to seven. A scrape of 3,500 series takes 0.1 s of a
core.
"""
MAX_LABELLED_NODES = 1_000
MAX_LABELLED_SECRETS = 200
MAX_PHASE_NODES = 100
"""Nodes of this daemon with series per kind and phase; each has twelve."""

STORE_STATES = ("ok", "full", "read_only", "damaged", "behind", "broken")
"""How the store can be; the first is well."""

PROCESS_PHASES = ("starting", "idle", "working", "backing_off")

OTHER_REASON = "other"
"""How a wait is counted whose words are of no known kind."""

_RESULT_LABELS = {"repeats": "repeat"}
"""Where the label differs from the counter's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker at the moment of a scrape. `stats` is None while it has never been built."""

    key: WorkerKey
    phase: Phase
    restarts: int = 0
    stats: WorkerStats | None = None
    kept: Mapping[str, int] | None = None
    """Messages that a stream keeps for it, by where they stand; None where none does."""
    kept_oldest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Shown:
    """How a fact is a metric by itself: a number, or numbers by the words of one label; `always` are its only ones."""

    kind: type[GaugeMetricFamily | CounterMetricFamily]
    name: str
    words: str
    label: str = ""
    always: Sequence[str] = ()


def _gauge_of(name: str, words: str) -> Any:
    """A fact that is the gauge of this name, with these words."""
    return field(default=0, metadata={"shown": _Shown(GaugeMetricFamily, name, words)})


def _counter_of(name: str, words: str) -> Any:
    """A fact that is the counter of this name, with these words."""
    return field(default=0, metadata={"shown": _Shown(CounterMetricFamily, name, words)})


def _gauges_of(name: str, words: str, label: str, always: Iterable[str]) -> Any:
    """As `_gauge_of`, by the words of a label."""
    shown = _Shown(GaugeMetricFamily, name, words, label, tuple(map(str, always)))
    return field(default_factory=dict, metadata={"shown": shown})


def _counters_of(name: str, words: str, label: str) -> Any:
    """As `_counter_of`, by the words of a label."""
    shown = _Shown(CounterMetricFamily, name, words, label)
    return field(default_factory=dict, metadata={"shown": shown})


@dataclass(slots=True, kw_only=True)
class MetricsFacts:
    """Everything a scrape shows; who knows a part of it fills that in.

    What is a metric by itself says so; the others are shown below.
    """

    version: str
    counts: TelemetryCounts
    generation: int = _gauge_of("generation", "Number of the config set in force.")
    digest: str = ""
    revision: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    run_nodes: Sequence[str] = ()
    workers: Sequence[WorkerView] = ()
    broker_connected: bool = _gauge_of("broker_connected", "1 while connected to the broker.")
    broker_reconnects: int = _counter_of("broker_reconnects", "Connections after the first.")
    outbox_pending: int = 0
    outbox_in_flight: int = 0
    outbox_dead: int = 0
    outbox_oldest_s: float = _gauge_of(
        "outbox_oldest_seconds", "Age of the oldest pending message."
    )
    jobs_open: int = _gauge_of(
        "jobs_open", "Jobs of the command line of which something is still to come."
    )
    jobs_bytes: int = _gauge_of("jobs_bytes", "What all jobs that are kept take, outputs included.")
    enrolment_pending: int = _gauge_of("enrolment_pending", "New nodes that ask to be let in.")
    enrolment_turned_away: int = _counter_of(
        "enrolment_turned_away",
        "Requests of new nodes that were none, came too fast or found no room.",
    )
    waiting: Mapping[str, int] = _gauges_of(
        "messages_waiting",
        "Messages in the outbox that wait, by the reason.",
        "reason",
        (*WaitReason, OTHER_REASON),
    )
    inbox_unfinished: int = 0
    inbox_orphaned: int = 0
    """Of the unfinished ones those that no worker takes."""
    store_state: str = STORE_STATES[0]
    declared_nodes: Iterable[str] = ()
    last_hello_at: Mapping[str, float] = field(default_factory=dict)
    fleet_states: Mapping[str, int] = _gauges_of(
        "fleet_nodes",
        "Nodes that say hello here, by how their config stands to the one here.",
        "state",
        NodeState,
    )
    events_dropped: int = _counter_of("events_dropped", "Events that slow listeners lost.")
    inputs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Messages by input and result."""
    secrets: Mapping[str, tuple[bool, float | None]] = field(default_factory=dict)
    """By the place in the config that names it: whether it can be used, and until when."""
    signatures_refused: Mapping[str, int] = _counters_of(
        "signatures_refused",
        "Messages and answers that did not count because of their signature, by the reason.",
        "reason",
    )
    audit_entries: Mapping[str, int] = _counters_of(
        "audit_entries",
        "Of the audit trail: entries, what a sum tells, of that what it does not name, and what was lost.",
        "result",
    )
    skews_s: Mapping[str, float] = field(default_factory=dict)
    """By how much clocks of nodes that sign are ahead of ours."""
    processes: Mapping[str, int] = _gauges_of(
        "processes", "Processes for methods that compute, by phase.", "phase", PROCESS_PHASES
    )
    process_restarts: int = _counter_of(
        "process_restarts",
        "Processes for methods that compute that ended and were started again.",
    )
    process_waiting: int = _gauge_of(
        "process_waiting", "Messages of methods that compute that wait for a process."
    )
    gone: WorkerStats = field(default_factory=WorkerStats)
    """What workers that are no more have counted."""

    def total(self) -> WorkerStats:
        """What all workers have counted, those that are gone included: it never falls."""
        total = WorkerStats()
        total.add(self.gone)
        for view in self.workers:
            if view.stats is not None:
                total.add(view.stats)
        return total


class MetricsSource(Protocol):
    """Who knows the facts."""

    def facts(self) -> MetricsFacts:
        """The facts of this moment. Called on the event loop; must not block."""
        ...


class Exposition:
    """Makes the metric families of one source."""

    def __init__(self, source: MetricsSource) -> None:
        self._source = source
        self._process = ProcessCollector(registry=None)

    def collect(self) -> list[Metric]:
        """All families, complete and independent of later changes. Called on the event loop."""
        facts = self._source.facts()
        total = facts.total()
        families: list[Metric] = [
            *_plain_families(facts),
            *_config_families(facts),
            *_worker_families(facts),
            *_total_families(facts, total),
            *_fleet_families(facts),
            *_secret_families(facts),
            *_signature_families(facts),
            *_store_families(facts),
        ]
        return families

    def traffic(self) -> dict[str, object]:
        """What all workers, those that are gone included, counted together. Called on the event loop."""
        facts = self._source.facts()
        total = facts.total()
        return {
            "accepted": facts.counts.messages_accepted,
            **{name: getattr(total, name) for name in (*SUBSCRIBER_COUNTERS, *PUBLISHER_COUNTERS)},
            "in_flight": sum(
                view.stats.in_flight for view in facts.workers if view.stats is not None
            ),
            "delivery_seconds": total.delivery.as_json(),
            "handler_seconds": total.handler.as_json(),
        }

    def process_families(self) -> list[Metric]:
        """Memory, CPU and descriptors of the process; reads files, so not on the event loop."""
        return list(self._process.collect())


class _Collected:
    """What the encoder of prometheus-client takes for a registry."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(families: Sequence[Metric], accept: str) -> tuple[bytes, str]:
    """The body of a scrape and its content type, as the scraper's Accept header asks.

    Runs in a thread: rendering thousands of series takes longer than the event loop may stand.
    """
    encoder, content_type = choose_encoder(accept)
    return encoder(_Collected(families)), content_type


def _label(value: str) -> str:
    """Safe as a label: a lone surrogate would break the whole scrape."""
    return escape_line(value)[:300]


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"appliance_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"appliance_{name}", text, value=value)


def _histogram(name: str, text: str, histogram: LightHistogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(
        f"appliance_{name}", text, buckets=histogram.buckets(), sum_value=histogram.sum
    )


def _plain_families(facts: MetricsFacts) -> Iterator[Metric]:
    for item in fields(facts):
        shown: _Shown | None = item.metadata.get("shown")
        if shown is None:
            continue
        name, value = f"appliance_{shown.name}", getattr(facts, item.name)
        if not shown.label:
            yield shown.kind(name, shown.words, value=float(value))
            continue
        family = shown.kind(name, shown.words, labels=[shown.label])
        for word in shown.always or value:
            family.add_metric([str(word)], value.get(word, 0))
        yield family


def _config_families(facts: MetricsFacts) -> list[Metric]:
    counts = facts.counts
    build = GaugeMetricFamily("appliance_build_info", "The running program.", labels=["version"])
    build.add_metric([_label(facts.version)], 1)
    config = GaugeMetricFamily(
        "appliance_config_info",
        "The config set in force; `dirty` tells whether it differs from its commit.",
        labels=["digest", "revision", "branch", "dirty"],
    )
    dirty = "" if facts.dirty is None else str(facts.dirty).lower()
    config.add_metric(
        [_label(facts.digest), _label(facts.revision or ""), _label(facts.branch or ""), dirty], 1
    )
    reloads = CounterMetricFamily(
        "appliance_config_reloads", "Looks at the config, by verdict.", labels=["result"]
    )
    for result, count in sorted(counts.reloads.items()):
        reloads.add_metric([result], count)
    return [
        build,
        config,
        _gauge(
            "config_last_reload_successful",
            "1 while the last look at the config was not refused or taken back.",
            float(counts.last_reload_successful),
        ),
        _gauge(
            "config_last_reload_success_timestamp_seconds",
            "When a config set was last applied or found unchanged.",
            counts.last_reload_success_at,
        ),
        _gauge(
            "config_last_attempt_timestamp_seconds",
            "When the config was last looked at.",
            counts.last_attempt_at,
        ),
        reloads,
        _histogram(
            "config_reload_duration_seconds",
            "From the look to the set in force, of applied sets.",
            counts.reload_duration,
        ),
    ]


def _worker_families(facts: MetricsFacts) -> list[Metric]:
    restarts = CounterMetricFamily(
        "appliance_worker_restarts",
        "Restarts of a worker after a failure.",
        labels=["node", "worker"],
    )
    messages = CounterMetricFamily(
        "appliance_messages",
        "Messages of a worker by direction and result; sent counts every attempt.",
        labels=["node", "worker", "direction", "result"],
    )
    in_flight = GaugeMetricFamily(
        "appliance_messages_in_flight",
        "Messages being handled, or sent and not settled.",
        labels=["node", "worker"],
    )
    kept = GaugeMetricFamily(
        "appliance_stream_messages",
        "Messages that a stream of the broker keeps for a subscription, as of some seconds ago.",
        labels=["node", "worker", "state"],
    )
    oldest = GaugeMetricFamily(
        "appliance_stream_oldest_seconds",
        "How long ago the oldest message that a stream keeps for a subscription was stored.",
        labels=["node", "worker"],
    )
    shown = facts.workers[:MAX_LABELLED_WORKERS]
    blank = WorkerStats()
    for view in shown:
        # NB: two nodes of one daemon may publish on one subject, and their workers then share a name
        node, name = _label(view.key.node), _label(view.key.name)
        if view.kept is not None:
            for state, count in view.kept.items():
                kept.add_metric([node, name, state], count)
            oldest.add_metric([node, name], view.kept_oldest_s)
        stats = view.stats or blank
        restarts.add_metric([node, name], view.restarts)
        in_flight.add_metric([node, name], stats.in_flight)
        is_publisher = view.key.kind is WorkerKind.PUBLISHER
        direction = "out" if is_publisher else "in"
        for result in PUBLISHER_COUNTERS if is_publisher else SUBSCRIBER_COUNTERS:
            label = _RESULT_LABELS.get(result, result)
            messages.add_metric([node, name, direction, label], getattr(stats, result))
    omitted = _gauge(
        "metrics_workers_omitted",
        "Workers beyond the bound, which have no series of their own.",
        len(facts.workers) - len(shown),
    )
    return [_phase_family(facts), restarts, messages, in_flight, kept, oldest, omitted]


def _phase_family(facts: MetricsFacts) -> Metric:
    family = GaugeMetricFamily(
        "appliance_workers", "Workers by node, kind and phase.", labels=["node", "kind", "phase"]
    )
    named = list(dict.fromkeys(facts.run_nodes))[:MAX_PHASE_NODES]
    counts = {
        (node, kind.value, phase.value): 0
        for node in named
        for kind in WorkerKind
        for phase in Phase
    }
    known = set(named)
    for view in facts.workers:
        node = view.key.node if view.key.node in known else "other"
        place = (node, view.key.kind.value, view.phase.value)
        counts[place] = counts.get(place, 0) + 1
    for (node, kind_name, phase_name), count in counts.items():
        family.add_metric([_label(node), kind_name, phase_name], count)
    return family


def _secret_families(facts: MetricsFacts) -> list[Metric]:
    usable = GaugeMetricFamily(
        "appliance_secret_usable",
        "1 where a secret or certificate that the config names can be used, 0 where it cannot.",
        labels=["place"],
    )
    expiry = GaugeMetricFamily(
        "appliance_secret_expiry_timestamp_seconds",
        "When a certificate or login that the config names ends.",
        labels=["place"],
    )
    for place, (is_usable, expires_at) in list(facts.secrets.items())[:MAX_LABELLED_SECRETS]:
        usable.add_metric([_label(place)], float(is_usable))
        if expires_at is not None:
            expiry.add_metric([_label(place)], expires_at)
    return [usable, expiry]


def _signature_families(facts: MetricsFacts) -> list[Metric]:
    skew = GaugeMetricFamily(
        "appliance_node_clock_skew_seconds",
        "By how much the clock of a node that signs is ahead of ours, where that is more than a moment.",
        labels=["node"],
    )
    for node, ahead_s in list(facts.skews_s.items())[:MAX_LABELLED_NODES]:
        skew.add_metric([_label(node)], ahead_s)
    return [skew]


def _total_families(facts: MetricsFacts, total: WorkerStats) -> list[Metric]:
    inputs = CounterMetricFamily(
        "appliance_inputs_messages",
        "Messages that came by an input, by result; a text refused as a whole counts as one.",
        labels=["input", "result"],
    )
    for (name, result), count in facts.inputs.items():
        inputs.add_metric([name, result], count)
    return [
        inputs,
        *(_counter(*one) for counts in (facts.counts, total) for one in totals_of(counts)),
        _histogram(
            "delivery_seconds",
            "From the sending of a message to its acknowledgement.",
            total.delivery,
        ),
        _histogram("handler_seconds", "Run time of handlers.", total.handler),
    ]


def _store_families(facts: MetricsFacts) -> list[Metric]:
    health = GaugeMetricFamily(
        "appliance_store_health",
        "How the store of the state directory is: 1 for the state that holds.",
        labels=["state"],
    )
    for state in STORE_STATES:
        health.add_metric([state], float(state == facts.store_state))
    inbox = GaugeMetricFamily(
        "appliance_inbox_messages",
        "Messages taken in and not finished, and of these those that no worker takes.",
        labels=["state"],
    )
    inbox.add_metric(["unfinished"], facts.inbox_unfinished)
    inbox.add_metric(["orphaned"], facts.inbox_orphaned)
    dead = CounterMetricFamily(
        "appliance_dead_letters",
        "Messages that became dead letters, by how they ended.",
        labels=["state"],
    )
    for state, count in facts.counts.dead_letters.items():
        dead.add_metric([state], count)
    return [health, inbox, dead]


def _fleet_families(facts: MetricsFacts) -> list[Metric]:
    outbox = GaugeMetricFamily(
        "appliance_outbox_messages", "Messages in the outbox by state.", labels=["state"]
    )
    outbox.add_metric(["pending"], facts.outbox_pending)
    outbox.add_metric(["in_flight"], facts.outbox_in_flight)
    outbox.add_metric(["dead"], facts.outbox_dead)
    hellos = GaugeMetricFamily(
        "appliance_node_last_hello_timestamp_seconds",
        "When a declared node last said hello to us; 0 if never.",
        labels=["node"],
    )
    for node in sorted(facts.declared_nodes)[:MAX_LABELLED_NODES]:
        hellos.add_metric([_label(node)], facts.last_hello_at.get(node, 0.0))
    return [outbox, hellos]
