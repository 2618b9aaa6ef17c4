"""From the merged config to the desired state, or to everything that is wrong with its meaning.

The shape is the schema's business and settled before. Checked here: that names refer to something,
that no two entries want one subject, and that the two ends of every subject agree.

About encodings: receivers read the encoding of each message from its headers, ours and Go nodes
alike, so no mismatch of serialization or compression between two entries can lose a message. What
can be wrong is the belief that a subscription chooses one; W202 and W204 say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from appliance.config.compiler.cross_checks import (
    DEDUPE_WINDOW,
    Expiry,
    SubscriptionIndex,
    check_dedupe_window,
    check_ends,
    check_reports_heard,
    check_signatures,
    check_streams,
    derive_dedupe_window_s,
    find_longest_expiry,
    index_subscriptions,
)
from appliance.config.compiler.expand import Expander, Publication, Subscription, accepted_senders
from appliance.config.compiler.findings import Finding, Findings
from appliance.config.compiler.layers import Tree, as_map, find_origin, find_value, read_section
from appliance.config.compiler.local_checks import (
    NO_ZONES,
    CronCheck,
    ZoneTable,
    check_locally,
    make_known,
    resolve_own,
    tell_missing,
)
from appliance.config.compiler.methods import (
    ArgumentCheck,
    SchemaCheck,
    check_scheduled_arguments,
    read_methods,
)
from appliance.config.compiler.section_checks import (
    check_enrolment,
    check_inputs,
    check_sections,
    check_streams_keeper,
)
from appliance.core.method import MethodTable
from appliance.core.names import (
    ERROR_CENTRAL,
    MethodName,
    NodeName,
    WorkerKey,
    make_kind,
    make_subject,
)
from appliance.core.permissions import find_kept_streams, find_permissions
from appliance.core.settings import Section, parts_of, settings_of
from appliance.core.specs import (
    Delivery,
    DesiredState,
    NodeTraits,
    PublisherSpec,
    Schedule,
    SignaturePolicy,
    SubscriberSpec,
    WorkerSpec,
)
from appliance.core.user_method import UserMethod

MAX_WORKERS = 2_000_000
"""Of all nodes: a role of a few lines that sends from all to all makes as many as there are pairs."""
_MAX_NAMED = 5
"""So many nodes of which the same is to be said are named."""
NODE_PLACEHOLDER = "${node}"
"""Replaced by the own node's name in texts that a node sends or runs; doubled (``$${node}``) it
stands for itself.
"""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The outcome. `desired` is None when a finding is an error."""

    desired: DesiredState | None
    findings: tuple[Finding, ...]


ChooseNodes = Callable[[Sequence[NodeName]], Iterable[str]]
"""Picks the nodes to run from those declared."""


def compile_settings(
    tree: Tree,
    methods: MethodTable,
    run_nodes: Iterable[str] | ChooseNodes | None,
    *,
    find_cron_error: CronCheck = lambda _text: None,
    zones: ZoneTable = NO_ZONES,
    find_schema_problem: SchemaCheck = lambda _schema: None,
    find_argument_problem: ArgumentCheck = lambda _schema, _texts: None,
) -> Compiled:
    """Check the whole config and build the workers of `run_nodes` (None: of every node).

    A function is asked for the nodes once no error was found; what it raises goes through.

    Names in `run_nodes` that the config does not declare run nothing; choosing them is the caller's
    business.
    """
    findings = Findings()
    # first: entries name methods, those of the config among them
    user_methods = read_methods(findings, tree, methods, find_schema_problem)
    known = make_known(tree, methods, find_cron_error, user_methods, zones)
    if not known.nodes:
        findings.add(
            "E201", ("nodes",), "no node is declared", hint="add `nodes: {NAME: {…}}`", on_key=True
        )
    check_sections(findings, tree)
    check_inputs(findings, tree, known)
    check_enrolment(findings, tree, known)
    check_streams_keeper(tree, known)
    check_locally(findings, tree, known)
    tell_missing(findings, known)
    expander = Expander(tree, known, findings)
    # one more than there may be is enough to know that there are too many
    subscriptions = list(islice(_all(known.nodes, expander.subscriptions), MAX_WORKERS + 1))
    publications = list(_first(_all(known.nodes, expander.publications)))
    if len(subscriptions) + sum(len(item.resolved.to) for item in publications) > MAX_WORKERS:
        message = f"the nodes and roles make more than {MAX_WORKERS:,} workers of it"
        findings.add("E003", ("nodes",), message, on_key=True)
        return Compiled(None, findings.all())
    index = index_subscriptions(subscriptions)
    check_ends(findings, subscriptions, publications, index, known)
    check_streams(
        findings,
        tree,
        subscriptions,
        publications,
        index,
        lambda node: expander.base(node).layers,
    )
    _check_scheduled(findings, publications, user_methods, find_argument_problem)
    _check_unused_roles(findings, known.roles, known.nodes)
    _check_idle_processes(findings, tree, subscriptions, methods)
    check_signatures(
        findings,
        tree,
        subscriptions,
        publications,
        index,
        lambda node: expander.base(node).layers,
    )
    longest = find_longest_expiry(expander.bases(), publications, subscriptions)
    check_dedupe_window(findings, tree, longest)
    chosen = _choose(findings, tuple(map(NodeName, known.nodes)), run_nodes)
    # who hears error reports can be told only of a config that holds together
    if not findings.has_errors:
        check_reports_heard(findings, subscriptions)
    workers = _build_workers(findings, subscriptions, publications, frozenset(chosen), index)
    if findings.has_errors:
        return Compiled(None, findings.all())
    desired = DesiredState(
        run_nodes=chosen,
        declared_nodes=frozenset(NodeName(node) for node in known.nodes),
        traits={
            NodeName(node): read_section(NodeTraits, as_map(tree))
            for node, tree in known.nodes.items()
        },
        workers=workers,
        # for publishers that are made on demand, which no entry describes
        publisher_defaults={node: expander.base(node).defaults for node in chosen},
        subscriber_defaults={node: expander.base(node).subscriber for node in chosen},
        # of the whole fleet: who sends on demand must use the subject that the destination listens on
        declared_acks={key: end.wants_ack for key, end in index.items()},
        declared_ways={
            key: end.way
            for key, end in index.items()
            if end.way.delivery is not Delivery.CORE
            or end.way.signatures is not SignaturePolicy.OFF
        },
        declared_times={
            key: time_s
            for key, end in index.items()
            if (time_s := end.first.resolved.settings.get("method_timeout_s")) is not None
        },
        error_centrals=frozenset(
            item.node for item in subscriptions if item.resolved.info.subject_node == ERROR_CENTRAL
        ),
        hellos=_find_hellos(publications),
        switched_off=_build_switched_off(expander, chosen, workers),
        methods=user_methods,
        **_make_sections(tree, longest),
    )
    has_logins = bool(desired.broker.embedded and desired.broker.embedded.secured)
    # whose broker it is keeps the streams, where nobody is named for it
    keeps = desired.streams.keeper in desired.run_nodes or (
        has_logins and desired.streams.keeper is None
    )
    if has_logins or keeps:
        # for every node there is, whoever runs it
        everywhere = _build_workers(
            findings, subscriptions, publications, desired.declared_nodes, index
        )
        if has_logins:
            rights = find_permissions(replace(desired, workers=everywhere))
            desired = replace(desired, rights=rights)
            _check_logins(findings, desired)
        if keeps:
            desired = replace(desired, kept_streams=find_kept_streams(everywhere.values()))
    return Compiled(desired, findings.all())


_Item = TypeVar("_Item")


def _all(nodes: Iterable[str], expand: Callable[[str], Iterable[_Item]]) -> Iterator[_Item]:
    return (item for node in nodes for item in expand(node))


def _first(publications: Iterable[Publication]) -> Iterator[Publication]:
    """As many as there may be; they stand for a publisher per destination."""
    count = 0
    for item in publications:
        yield item
        count += len(item.resolved.to)
        if count > MAX_WORKERS:
            return


def _choose(
    findings: Findings,
    declared: tuple[NodeName, ...],
    run_nodes: Iterable[str] | ChooseNodes | None,
) -> tuple[NodeName, ...]:
    if callable(run_nodes):
        # NB: a config that is refused is refused for its own problems, before any choice.
        run_nodes = () if findings.has_errors else run_nodes(declared)
    wanted = set(declared if run_nodes is None else run_nodes)
    return tuple(node for node in declared if node in wanted)


def _make_sections(tree: Tree, longest: Expiry) -> dict[str, Any]:
    """The settings of the daemon itself, as keyword arguments of `DesiredState`."""
    sections: dict[str, Any] = {
        part.attr: read_section(part.spec, as_map(find_value(tree, part.keys)))
        for part in parts_of(DesiredState)
        if isinstance(part, Section)
    }
    if find_value(tree, DEDUPE_WINDOW) is None:
        window_s = derive_dedupe_window_s(longest)
        sections["state"] = replace(sections["state"], dedupe_window_s=window_s)
    return sections


def _check_logins(findings: Findings, desired: DesiredState) -> None:
    """Who runs elsewhere gets in by a key of his own."""
    keyless = [
        node
        for node in sorted(desired.declared_nodes.difference(desired.run_nodes))
        if not desired.traits[node].public_keys
    ]
    if keyless:
        more = len(keyless) - _MAX_NAMED
        names = ", ".join(keyless[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        findings.add(
            "W280",
            ("nodes", keyless[0]),
            f"without `public_keys`, and so without a login at the embedded broker: {names}",
            hint=f"on its machine: appliance enrol {keyless[0]}, or: appliance keys new {keyless[0]}",
            on_key=True,
        )


def _check_idle_processes(
    findings: Findings, tree: Tree, subscriptions: Iterable[Subscription], methods: MethodTable
) -> None:
    """Processes are asked for, and nothing for them to do."""
    count = tree.get("workers")
    if not isinstance(count, int) or count <= 1:
        return
    computing = {name for name, info in methods.items() if info.computes}
    if not any(item.method in computing for item in subscriptions):
        findings.add(
            "W262",
            ("workers",),
            f"no node subscribes to a method that computes: there is nothing for {count} processes to do",
            hint="programs and file methods use all cores anyway",
        )


def _check_unused_roles(findings: Findings, roles: Tree, nodes: Tree) -> None:
    used = {role for node in nodes.values() for role in as_map(node).get("roles") or ()}
    for role in roles:
        if role not in used:
            findings.add("W201", ("roles", role), f'role "{role}" is used by no node', on_key=True)


def _check_scheduled(
    findings: Findings,
    publications: Iterable[Publication],
    user_methods: Mapping[MethodName, UserMethod],
    find_problem: ArgumentCheck,
) -> None:
    for entry in publications:
        method = user_methods.get(entry.resolved.info.name)
        schedule = entry.resolved.schedule
        if method is None or schedule is None:
            continue
        path = find_origin(entry.layers, ("method_args",)) or entry.path
        texts = tuple(_fill(text, entry.node) for text in schedule.method_args)
        check_scheduled_arguments(findings, path, method, texts, find_problem)


def _build_workers(
    findings: Findings,
    subscriptions: Iterable[Subscription],
    publications: Iterable[Publication],
    run_nodes: frozenset[NodeName],
    index: SubscriptionIndex,
) -> dict[WorkerKey, WorkerSpec]:
    """Specs of the nodes to run.

    Nothing is built once an error is known: the config will be refused anyway.
    """
    workers: dict[WorkerKey, WorkerSpec] = {}
    if findings.has_errors:
        return workers
    for item in subscriptions:
        if item.node in run_nodes:
            subscriber = make_subscriber(item)
            workers[subscriber.key] = subscriber
    for entry in publications:
        if entry.node in run_nodes:
            for to in entry.resolved.to:
                publisher = make_publisher(entry, resolve_own(to, entry.node), index)
                workers[publisher.key] = publisher
    return workers


HELLO_METHOD = "REQHello"


def _find_hellos(
    publications: Iterable[Publication],
) -> dict[NodeName, dict[NodeName, float | None]]:
    """Who says hello to whom, over the whole fleet."""
    found: dict[NodeName, dict[NodeName, float | None]] = {}
    for entry in publications:
        schedule = entry.resolved.schedule
        if entry.resolved.info.name == HELLO_METHOD and schedule is not None:
            for to in entry.resolved.to:
                to = resolve_own(to, entry.node)
                found.setdefault(to, {})[entry.node] = schedule.every_s
    return found


def _build_switched_off(
    expander: Expander, run_nodes: Iterable[NodeName], workers: Mapping[WorkerKey, WorkerSpec]
) -> dict[WorkerKey, SubscriberSpec]:
    """What entries with `enabled: false` would be: an operator may start them beside the config."""
    specs = (make_subscriber(item) for node in run_nodes for item in expander.switched_off(node))
    return {spec.key: spec for spec in specs if spec.key not in workers}


def make_subscriber(item: Subscription) -> SubscriberSpec:
    """The spec of one subscription."""
    resolved = item.resolved
    info = resolved.info
    settings = dict(resolved.settings)
    for name in _FILLED & settings.keys():
        settings[name] = _fill(settings[name], item.node)
    if settings.get("definition") is not None:
        settings["definition"] = settings["definition"].for_node(item.node)
    kind = make_kind(info.category, wants_ack=resolved.wants_ack)
    return SubscriberSpec(
        node=item.node,
        subject=make_subject(item.token, item.method, kind),
        method=item.method,
        wants_ack=resolved.wants_ack,
        accept_from=accepted_senders(resolved, item.node),
        **settings,
    )


def make_publisher(
    entry: Publication, to: NodeName, index: SubscriptionIndex | None = None
) -> PublisherSpec:
    """The spec of one destination of a publish entry; how it is carried is the receiver's to say."""
    resolved = entry.resolved
    end = (index or {}).get((to, resolved.info.name))
    way = resolved.settings if end is None else end.way
    kind = make_kind(resolved.info.category, wants_ack=resolved.wants_ack)
    return PublisherSpec.of_settings(
        resolved.settings,
        way,
        node=entry.node,
        subject=make_subject(to, resolved.info.name, kind),
        to_node=to,
        method=resolved.info.name,
        wants_ack=resolved.wants_ack,
        schedule=_fill_schedule(resolved.schedule, entry.node) if resolved.schedule else None,
        entry=entry.name,
    )


def _fill(value: Any, node: NodeName) -> Any:
    """A text, or texts however deep, with the own node's name in place."""
    if isinstance(value, tuple):
        return tuple(_fill(item, node) for item in value)
    if value is None or NODE_PLACEHOLDER not in value:
        return value
    parts = value.split("$" + NODE_PLACEHOLDER)
    return NODE_PLACEHOLDER.join(part.replace(NODE_PLACEHOLDER, node) for part in parts)


def _filled(spec: type) -> frozenset[str]:
    return frozenset(setting.attr for setting in settings_of(spec) if setting.fills_node)


_FILLED = _filled(SubscriberSpec)
_FILLED_OF_SCHEDULES = _filled(Schedule)


def _fill_schedule(schedule: Schedule, node: NodeName) -> Schedule:
    texts = {name: _fill(getattr(schedule, name), node) for name in _FILLED_OF_SCHEDULES}
    return replace(schedule, **texts)
