"""Do the two ends of every subject agree, and settings that hold only together?

Checked over the whole fleet, whatever nodes run here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from appliance.config.compiler.expand import Base, Publication, Subscription, accepted_senders
from appliance.config.compiler.findings import PLACE, Findings, KeyPath
from appliance.config.compiler.layers import Layer, Tree, as_map, find_origin, find_value
from appliance.config.compiler.local_checks import Known, resolve_own
from appliance.core.durations import format_duration, parse_duration
from appliance.core.message import DEFAULT_REPLY_METHOD
from appliance.core.method import MethodInfo
from appliance.core.names import (
    ERROR_CENTRAL,
    MAX_SUBJECT_BYTES,
    Category,
    MethodName,
    NodeName,
    make_kind,
    make_subject,
)
from appliance.core.public_keys import PUBLIC_KEYS
from appliance.core.specs import (
    ANY_SENDER,
    AckSettings,
    Carried,
    Delivery,
    SignaturePolicy,
    StreamSettings,
)
from appliance.core.streams import address_of_stream
from appliance.core.suggest import shorten
from appliance.errors import SubjectInvalid


@dataclass(frozen=True, slots=True)
class SubjectEnd:
    """The receiving end of one method at one node token.

    Several nodes may share one (errorCentral).
    """

    first: Subscription
    acks: set[bool]
    picky: list[Subscription]
    """Those that name their senders, or an encoding: the others need no look per publisher."""

    @property
    def wants_ack(self) -> bool:
        """The acknowledged subject, where nodes that share a token disagree."""
        return True in self.acks

    @property
    def way(self) -> Carried:
        """How it is carried; where nodes that share a token disagree, the first counts."""
        settings = self.first.resolved.settings
        names = ("signatures", "delivery", "stream")
        return Carried(**{name: settings[name] for name in names if name in settings})


SubscriptionIndex = Mapping[tuple[NodeName, MethodName], SubjectEnd]


def index_subscriptions(subscriptions: Iterable[Subscription]) -> SubscriptionIndex:
    """Subscriptions by the node token of their subject and method."""
    index: dict[tuple[NodeName, MethodName], SubjectEnd] = {}
    for item in subscriptions:
        key = (item.token, item.method)
        end = index.get(key)
        if end is None:
            end = index[key] = SubjectEnd(item, set(), [])
        end.acks.add(item.resolved.wants_ack)
        resolved = item.resolved
        if (resolved.senders, resolved.compression, resolved.serialization) != (None, None, None):
            end.picky.append(item)
    return index


def check_ends(
    findings: Findings,
    subscriptions: Iterable[Subscription],
    publications: Iterable[Publication],
    index: SubscriptionIndex,
    known: Known,
) -> None:
    """Check every destination of every publish entry, and every subject's length."""
    for item in subscriptions:
        info = item.resolved.info
        _check_length(findings, item.path, item.token, info, item.resolved.wants_ack)
    taken: dict[tuple[NodeName, NodeName, MethodName, bool], KeyPath] = {}
    for entry in publications:
        reached = [
            _check_destination(findings, entry, resolve_own(to, entry.node), index, known, taken)
            for to in entry.resolved.to
        ]
        # what reaches nobody has a fault already, and gets no reply either
        if any(reached):
            _check_reply(findings, entry, index, known)


def check_reports_heard(findings: Findings, subscriptions: Iterable[Subscription]) -> None:
    """Warn where commands can fail or be refused and no node of the fleet takes the reports about it."""
    first: Subscription | None = None
    for item in subscriptions:
        if item.resolved.info.subject_node == ERROR_CENTRAL:
            return
        if first is None and item.resolved.info.category is Category.COMMAND:
            first = item
    if first is None:
        return
    findings.add(
        "W206",
        first.path,
        f"{ERROR_CENTRAL} is nobody: no node subscribes REQErrorLog, so what is refused or fails here "
        f"is told in the log of {shorten(first.node)} alone",
        hint="let one node take the reports: `subscribe: {REQErrorLog: {}}`",
        on_key=True,
    )


def _check_destination(
    findings: Findings,
    entry: Publication,
    to: NodeName,
    index: SubscriptionIndex,
    known: Known,
    taken: dict[tuple[NodeName, NodeName, MethodName, bool], KeyPath],
) -> bool:
    """Whether somebody at the destination subscribes the method."""
    resolved = entry.resolved
    info = resolved.info
    special = known.special.get(to)
    if to not in known.nodes and special != info.name:
        return False  # told as an unknown node
    path = find_origin(entry.layers, ("to",)) or entry.path
    if info.subject_node is not None and to != info.subject_node:
        findings.add(
            "E206",
            path,
            f"nobody subscribes {info.name} under the name {shorten(to)}",
            hint=f"write `to: {info.subject_node}`: {info.name} goes to whoever subscribes it",
        )
        return False
    key = (entry.node, to, info.name, resolved.wants_ack)
    if key in taken and taken[key] != entry.path:
        findings.add(
            "E205",
            entry.path,
            f"another entry already publishes {info.name} from {entry.node} to {to}: {PLACE}",
            hint="one publisher per subject: join the two, or let them differ in `to`",
            also=taken[key],
            on_key=True,
        )
        return False
    # before the rest is checked: an entry that is faulty holds its subject all the same
    taken[key] = entry.path
    if not _check_length(findings, entry.path, to, info, resolved.wants_ack):
        return False
    end = index.get((to, info.name))
    if end is None:
        findings.add(
            "E206",
            path,
            f"{shorten(to)} does not subscribe {info.name}",
            hint=f"add `subscribe: {{{info.name}: {{}}}}` to {to}"
            if special is None
            else f"let one node subscribe {info.name}",
        )
        return False
    _check_agreement(findings, entry, to, end)
    return True


def _check_agreement(findings: Findings, entry: Publication, to: NodeName, end: SubjectEnd) -> None:
    resolved = entry.resolved
    method = resolved.info.name
    if resolved.wants_ack not in end.acks:
        ours, theirs = ("required", "none") if resolved.wants_ack else ("none", "required")
        findings.add(
            "E207",
            find_origin(entry.layers, ("ack", "mode")) or entry.path,
            f"acknowledgement is {ours} here, but {theirs} where {to} subscribes {method} "
            f"({PLACE})",
            hint="the two stand on different subjects and never meet; give both one `ack.mode`",
            also=end.first.path,
            on_key=True,
        )
        return
    for item in end.picky:
        # that one stands on the other subject, and hears nothing of this
        if item.resolved.wants_ack != resolved.wants_ack:
            continue
        accepted = accepted_senders(item.resolved, item.node)
        if accepted not in (None, ANY_SENDER) and entry.node not in accepted:
            findings.add(
                "E208",
                find_origin(entry.layers, ("to",)) or entry.path,
                f"{to} does not accept {method} from {entry.node} ({PLACE})",
                hint=f"add {entry.node} to `accept_from` there",
                also=find_origin(item.layers, ("accept_from",)) or item.path,
            )
        for field in ("compression", "serialization"):
            believed = getattr(item.resolved, field)
            used = getattr(resolved.settings, field)
            if believed is not None and believed != used:
                findings.add(
                    "W204",
                    find_origin(entry.layers, (field,)) or entry.path,
                    f"{to} subscribes {method} with {field} {believed}, this sends {used} "
                    f"({PLACE})",
                    hint="it is read all the same; drop the setting on the subscription",
                    also=find_origin(item.layers, (field,)),
                )


def _check_reply(
    findings: Findings, entry: Publication, index: SubscriptionIndex, known: Known
) -> None:
    info = entry.resolved.info
    if not info.replies:
        return
    method = MethodName(entry.resolved.reply_method or DEFAULT_REPLY_METHOD)
    if method in known.methods and (entry.node, method) not in index:
        findings.add(
            "W205",
            find_origin(entry.layers, ("reply_method",)) or entry.path,
            f"replies come as {method}, which {entry.node} does not subscribe",
            hint=f"add `subscribe: {{{method}: {{}}}}` to {entry.node}",
            on_key=True,
        )


def _check_length(
    findings: Findings, path: KeyPath, node: NodeName, info: MethodInfo, wants_ack: bool
) -> bool:
    try:
        make_subject(node, info.name, make_kind(info.category, wants_ack=wants_ack))
    except SubjectInvalid:
        findings.add(
            "E213",
            path,
            f"the subject {node[:20]}….{info.name} is longer than {MAX_SUBJECT_BYTES} bytes",
            hint="shorten the node's name",
            on_key=True,
        )
        return False
    return True


# Settings that keep a promise only together.
#
# *Handled once* needs two: a sender resends a message until its `ack.expires`, and the receiver must know its id for
# as long. So the memory of ids (`state.dedupe_window`) follows the longest `ack.expires` of the whole fleet unless
# somebody sets it, and a number that is set must not be shorter. A signed message that a stream keeps is good for as long as
# the stream keeps it (`stream.max_age`), so its id is remembered for as long, or who has a copy could bring it again.

RETRY_ALLOWANCE_S = 3_600.0
"""Ids outlive the last resend by this: time for an operator to retry what has just become a dead letter."""
_LEAST_EXPIRY_S = AckSettings().expires_s
DEDUPE_WINDOW = ("state", "dedupe_window")
_EXPIRES = ("ack", "expires")
_MAX_AGE = ("stream", "max_age")


class Expiry(NamedTuple):
    """The longest time that a message of the fleet may come again, by which setting, and where that is written (None: the
    default).
    """

    seconds: float
    origin: KeyPath | None
    setting: str = "ack.expires"


def find_longest_expiry(
    bases: Iterable[Base],
    publications: Iterable[Publication],
    subscriptions: Iterable[Subscription] = (),
) -> Expiry:
    """Over all publishers that are declared, all that may be made on demand, and all streams of signed messages."""
    longest = Expiry(0.0, None)
    for base in bases:
        if base.defaults.ack.expires_s > longest.seconds:
            longest = Expiry(base.defaults.ack.expires_s, find_origin(base.layers, _EXPIRES))
    for entry in publications:
        if entry.resolved.settings.ack.expires_s > longest.seconds:
            # NB: what an entry inherits stands in its node's base, which was seen above
            longest = Expiry(
                entry.resolved.settings.ack.expires_s, find_origin(entry.layers, _EXPIRES)
            )
    for item in subscriptions:
        settings = item.resolved.settings
        max_age_s = settings.get("stream", StreamSettings()).max_age_s
        if (
            settings.get("delivery") is Delivery.JETSTREAM
            and settings.get("signatures", SignaturePolicy.OFF) is not SignaturePolicy.OFF
            and max_age_s > longest.seconds
        ):
            longest = Expiry(max_age_s, find_origin(item.layers, _MAX_AGE), "stream.max_age")
    return longest


def check_dedupe_window(findings: Findings, tree: Tree, longest: Expiry) -> None:
    """Refuse a `state.dedupe_window` that was set shorter than a resend may come."""
    written = find_value(tree, DEDUPE_WINDOW)
    if written is None:
        return
    try:
        window_s = parse_duration(written)
    except ValueError:
        return  # told as a bad duration
    if window_s >= longest.seconds:
        return
    window, expires = format_duration(window_s), format_duration(longest.seconds)
    name = f"`{longest.setting}`"
    where = f"{name} at {PLACE}" if longest.origin else f"{name}, which nothing sets,"
    findings.add(
        "E242",
        DEDUPE_WINDOW,
        f"ids are remembered for {window}, but {where} lets messages come again for {expires}: "
        f"what comes in between would be handled twice",
        hint=f"drop `dedupe_window`, which then is {format_duration(derive_dedupe_window_s(longest))}, "
        f"or shorten {name}",
        also=longest.origin,
    )


def derive_dedupe_window_s(longest: Expiry) -> float:
    """How long ids are remembered where nobody says so, in seconds."""
    return max(_LEAST_EXPIRY_S, longest.seconds) + RETRY_ALLOWANCE_S


# Do the streams that a config asks for hold together?


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


# Can what a config wants signed be signed, and checked?

SHOWN_NODES = 5
_KEYS_TO_SIGN_WITH = (
    ("signing", "key"),
    ("broker", "auth", "nkey_seed"),
    ("broker", "auth", "credentials"),
)
_SIGNATURES = ("signatures",)


def check_signatures(
    findings: Findings,
    tree: Tree,
    subscriptions: Iterable[Subscription],
    publications: Iterable[Publication],
    index: SubscriptionIndex,
    layers_below: Callable[[str], tuple[Layer, ...]],
) -> None:
    """A key to sign with, keys to check with where nothing else counts, and ids that tell what came before."""
    nodes = as_map(tree.get("nodes"))
    keyed = {NodeName(name) for name, node in nodes.items() if as_map(node).get(PUBLIC_KEYS)}
    declared = frozenset(map(NodeName, nodes))
    without: dict[KeyPath, set[NodeName]] = {}
    first: KeyPath | None = None
    for item in subscriptions:
        policy = item.resolved.settings.get("signatures", SignaturePolicy.OFF)
        if policy is SignaturePolicy.OFF:
            continue
        layers = (*layers_below(item.node), *item.layers)
        origin = find_origin(layers, _SIGNATURES) or item.path
        first = first or origin
        if item.resolved.settings.get("dedupe") is False:
            findings.add(
                "E248",
                find_origin(layers, ("dedupe",)) or item.path,
                f"messages of {item.method} are signed, and `dedupe: false` forgets which have come: whoever has a "
                "copy of one could have it done again",
                hint="drop `dedupe`, or write `signatures: off`",
            )
        if policy is SignaturePolicy.REQUIRE:
            missing = (_peers(item) & declared) - keyed
            if missing:
                without.setdefault(origin, set()).update(missing)
    for entry in publications:
        if entry.node in keyed:
            continue
        for to in entry.resolved.to:
            end = index.get((resolve_own(to, entry.node), entry.resolved.info.name))
            if end is not None and end.way.signatures is SignaturePolicy.REQUIRE:
                layers = (*layers_below(end.first.node), *end.first.layers)
                origin = find_origin(layers, _SIGNATURES) or end.first.path
                without.setdefault(origin, set()).add(entry.node)
    for origin, names in without.items():
        _tell_without(findings, origin, names)
    if first is not None and not any(find_value(tree, keys) for keys in _KEYS_TO_SIGN_WITH):
        findings.add(
            "E250",
            first,
            "messages are to be signed, and the config names no key to sign with",
            hint="log in by one (`broker: {auth: {nkey_seed: …}}`), or write `signing: {key: {file: …}}`",
        )


def _peers(item: Subscription) -> Set[NodeName]:
    """Whose signatures are needed for a subscription as far as it names them: its own node's, and those of senders."""
    accepted = accepted_senders(item.resolved, item.node)
    if accepted is None or accepted == ANY_SENDER:
        return {item.node}
    return accepted | {item.node}


def _tell_without(findings: Findings, origin: KeyPath, names: Set[NodeName]) -> None:
    shown = ", ".join(map(shorten, sorted(names)[:SHOWN_NODES]))
    more = f" and {len(names) - SHOWN_NODES} more" if len(names) > SHOWN_NODES else ""
    have = "has" if len(names) == 1 else "have"
    findings.add(
        "E249",
        origin,
        f"`signatures: require`, and {shown}{more} {have} no `public_keys`: nothing that they say would count",
        hint="`appliance keys new NODE`, and its public key into the config; a Go node cannot sign: `prefer` lets it "
        "in unsigned",
    )
