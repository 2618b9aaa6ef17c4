"""Do the streams that a config asks for hold together? Checked over the whole fleet, whatever nodes run here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from appliance.config.compiler.cross_checks import SubscriptionIndex
from appliance.config.compiler.expand import Publication, Subscription
from appliance.config.compiler.findings import PLACE, Findings, KeyPath
from appliance.config.compiler.layers import Layer, Tree, as_map, find_origin, find_value
from appliance.config.compiler.local_checks import resolve_own
from appliance.core.names import MethodName, NodeName, make_kind, make_subject
from appliance.core.specs import Delivery, StreamSettings
from appliance.core.streams import address_of_stream
from appliance.errors import SubjectInvalid


def check_streams(
    findings: Findings,
    tree: Tree,
    subscriptions: Iterable[Subscription],
    publications: Iterable[Publication],
    index: SubscriptionIndex,
    layers_below: Callable[[str], tuple[Layer, ...]],
) -> None:
    """Bounds, replicas, streams that would overlap, and senders that expect another way."""
    broker = as_map(tree.get("broker"))
    servers = len(broker.get("servers") or ()) or 1
    seen: dict[str, tuple[StreamSettings, Subscription]] = {}
    ways: dict[tuple[NodeName, MethodName], tuple[str, KeyPath]] = {}
    is_asked = False
    for item in subscriptions:
        settings = item.resolved.settings
        is_kept = settings.get("delivery") is Delivery.JETSTREAM
        stream = settings.get("stream") or StreamSettings()
        name = _stream_of(item, stream) if is_kept else ""
        _check_one_way(findings, item, name, ways)
        if not is_kept:
            continue

        def origin(*keys: str, item: Subscription = item) -> KeyPath:
            layers = (*layers_below(item.node), *item.layers)
            return find_origin(layers, keys) or find_origin(layers, ("delivery",)) or item.path

        if not is_asked:
            is_asked = True
            _check_broker(findings, broker, origin)
        known = seen.get(name)
        if known is None:
            seen[name] = (stream, item)
            if not (stream.max_age_s or stream.max_bytes):
                findings.add(
                    "W260",
                    origin("stream"),
                    f"the stream {name} has no bound: neither `max_age` nor `max_bytes`",
                    hint="a node that never comes back fills the broker's disk; set one of them",
                )
            # the servers of another domain are not those that this config names
            if stream.replicas > servers and not stream.domain:
                findings.add(
                    "W261",
                    origin("stream", "replicas"),
                    f"{stream.replicas} replicas of the stream {name}, and `broker` names {servers} "
                    f"server{'s' if servers != 1 else ''}",
                    hint="a stream has at most as many replicas as its cluster has servers",
                )
        elif known[0] != stream:
            findings.add(
                "E261",
                origin("stream"),
                f"the stream {name} is wanted with other settings elsewhere ({PLACE})",
                hint="one stream has one set of settings: write them in `defaults` or a role, or name two streams",
                also=find_origin(
                    (*layers_below(known[1].node), *known[1].layers), ("stream", "name")
                ),
            )
    _check_senders(findings, publications, index)


def _stream_of(item: Subscription, stream: StreamSettings) -> str:
    info = item.resolved.info
    try:
        kind = make_kind(info.category, wants_ack=item.resolved.wants_ack)
        return str(address_of_stream(stream, make_subject(item.token, info.name, kind)))
    except SubjectInvalid:
        return stream.name  # told as too long


def _check_one_way(
    findings: Findings,
    item: Subscription,
    name: str,
    ways: dict[tuple[NodeName, MethodName], tuple[str, KeyPath]],
) -> None:
    """Several nodes may stand behind one subject (errorCentral): one stream records it, or none."""
    path = find_origin(item.layers, ("delivery",)) or item.path
    known = ways.setdefault((item.token, item.method), (name, path))
    if known[0] != name:
        findings.add(
            "E262",
            path,
            f"{item.token}.{item.method} is kept by {name or 'no stream'} here, and by {known[0] or 'no stream'} "
            f"elsewhere ({PLACE})",
            hint="give all nodes that subscribe it one `delivery` and one stream",
            also=known[1],
        )


def _check_broker(findings: Findings, broker: Tree, origin: Callable[..., KeyPath]) -> None:
    embedded = broker.get("embedded")
    if embedded is True or (isinstance(embedded, dict) and embedded.get("jetstream") is not True):
        findings.add(
            "E260",
            origin("delivery"),
            "`delivery: jetstream`, and the embedded broker has no JetStream",
            hint="write `broker: {embedded: {jetstream: true}}`",
        )


def _check_senders(
    findings: Findings, publications: Iterable[Publication], index: SubscriptionIndex
) -> None:
    """The receiver says how a subject is carried: an entry that says otherwise believes what is not so."""
    for entry in publications:
        written = find_value(_own(entry), ("delivery",))
        if written is None:
            continue
        for to in entry.resolved.to:
            end = index.get((resolve_own(to, entry.node), entry.resolved.info.name))
            if end is None or written == end.way.delivery:
                continue
            findings.add(
                "E263",
                find_origin(entry.layers, ("delivery",)) or entry.path,
                f"`delivery: {written}` here, but {end.way.delivery} where {to} subscribes "
                f"{entry.resolved.info.name} ({PLACE})",
                hint="a sender by core takes no stream's word for an acknowledgement; the subscription says how its "
                "messages are carried, so drop the setting here",
                also=find_origin(end.first.layers, ("delivery",)) or end.first.path,
            )
            break


def _own(entry: Publication) -> Tree:
    merged: dict[str, object] = {}
    for _, layer in entry.layers:
        merged.update(layer)
    return merged
