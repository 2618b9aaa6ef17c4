"""What each node needs of a NATS broker: the subjects it publishes and subscribes, read off the config of the fleet. Pure.

A permission is given for what the config declares and for nothing else: that one node takes a method, and from whom
(`accept_from`), that another has a publisher for it, and what goes beside a message, its acknowledgement. Who may ask a
node may be answered by it because he subscribes what answers arrive as; that is a subscription as any other.

With a login of its own for each node the broker keeps a node from hearing what is another's, from asking whom it may not
ask, and from answering in another's place. Who a message says it is from is still a word in its body: among those who
may send to a subject each can say he is another of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from appliance.core.enrolment import REPLIES, REQUESTS
from appliance.core.names import (
    ERROR_CENTRAL,
    REFUSALS_TOKEN,
    REPLY_TOKEN,
    Category,
    MethodName,
    NodeName,
    make_kind,
    make_subject,
    parse_subject,
)
from appliance.core.specs import (
    ANY_SENDER,
    DesiredState,
    KeptStream,
    Permissions,
    PublisherSpec,
    SubscriberSpec,
    WorkerSpec,
)
from appliance.core.streams import (
    StreamAddress,
    address_of_stream,
    api_prefix,
    begun_subject,
    claim_subject,
    find_stream,
    inbox_subjects,
    name_of_consumer,
)

BENCH_TOKEN = "bench"
"""`appliance bench` measures below ``<node>.bench``."""
ERROR_METHOD = MethodName("REQErrorLog")
HELLO_METHOD = MethodName("REQHello")
MIN_FOLDED = 4
"""So many subjects that differ in the node alone become one with a ``*``."""


class _Grants:
    """What one node may do beside what all may do, as it is found."""

    def __init__(self) -> None:
        self.sends: dict[str, bool] = {}
        """Subjects of requests; whether they are acknowledged."""
        self.takes: dict[str, bool] = {}
        self.keeps: dict[str, StreamAddress] = {}
        """Of the subjects taken those that a stream keeps, with the stream."""
        self.fills: set[StreamAddress] = set()
        """Streams that keep what it sends."""


def find_kept_streams(workers: Iterable[WorkerSpec]) -> tuple[KeptStream, ...]:
    """What of the fleet streams keep, in the order of the subjects."""
    kept = [
        KeptStream(spec.subject, spec.stream)
        for spec in workers
        if isinstance(spec, SubscriberSpec) and find_stream(spec) is not None
    ]
    return tuple(sorted(kept, key=lambda one: one.subject))


def find_keeping(kept: Iterable[KeptStream], node: str) -> Permissions:
    """What a node needs to make the streams, and to change them.

    Whoever may do that may do nearly everything: a stream records each subject that it is told to, and the broker sends on
    what it records to each subject that the stream says.
    """
    addresses = {address_of_stream(one.settings, one.subject) for one in kept}
    words = ("INFO", "CREATE", "UPDATE")
    publish = {
        f"{api_prefix(domain)}.STREAM.{word}.{name}" for name, domain in addresses for word in words
    }
    return Permissions(tuple(sorted(publish)), (inbox_subjects(node),) if addresses else ())


def find_permissions(fleet: DesiredState, *, bench: bool = False) -> dict[NodeName, Permissions]:
    """The permissions of every declared node.

    Args:
        fleet: a config compiled for all of its nodes.
        bench: also what `appliance bench` needs.
    """
    grants: defaultdict[NodeName, _Grants] = defaultdict(_Grants)
    # everybody reports what went wrong, also where this config does not say who hears it
    reports = make_subject(ERROR_CENTRAL, ERROR_METHOD, make_kind(Category.EVENT, wants_ack=True))
    open_to_all: dict[str, bool] = {reports: True}
    for spec in fleet.workers.values():
        stream = find_stream(spec)
        if isinstance(spec, PublisherSpec):
            grants[spec.node].sends[spec.subject] = spec.wants_ack
            if stream is not None:
                grants[spec.node].fills.add(stream)
            continue
        if stream is not None:
            grants[spec.node].keeps[spec.subject] = stream
        grants[spec.node].takes[spec.subject] = spec.wants_ack
        senders = find_senders(spec, fleet.declared_nodes)
        if senders == fleet.declared_nodes:
            open_to_all[spec.subject] = spec.wants_ack
            continue
        for sender in senders:
            grants[sender].sends[spec.subject] = spec.wants_ack
            if stream is not None:
                grants[sender].fills.add(stream)
    fold = _Fold(open_to_all, grants.values())
    found = {
        node: _write(node, grants[node], fold, bench=bench) for node in sorted(fleet.declared_nodes)
    }
    if fleet.enrolment.node is not None:
        keeper = NodeName(fleet.enrolment.node)
        keeps = Permissions((f"{REPLIES}.>",), (f"{REQUESTS} {REQUESTS}",))
        found[keeper] = join_permissions([found[keeper], keeps])
    if fleet.streams.keeper is not None:
        keeper = NodeName(fleet.streams.keeper)
        keeps = find_keeping(find_kept_streams(fleet.workers.values()), keeper)
        found[keeper] = join_permissions([found[keeper], keeps])
    return found


ASKING = Permissions((REQUESTS,), (f"{REPLIES}.>",))
"""What an invitation may: ask to be let in, and hear what is said to that."""


def find_senders(spec: SubscriberSpec, declared: frozenset[NodeName]) -> frozenset[NodeName]:
    """The declared nodes whose messages a subscription takes."""
    if spec.accept_from is None or spec.accept_from == ANY_SENDER:
        return declared
    return spec.accept_from & declared


def join_permissions(of_nodes: Iterable[Permissions]) -> Permissions:
    """Those of a login that several nodes share."""
    found = list(of_nodes)
    return Permissions(
        tuple(sorted({subject for one in found for subject in one.publish})),
        tuple(sorted({subject for one in found for subject in one.subscribe})),
    )


def _write(node: str, granted: _Grants, fold: _Fold, *, bench: bool) -> Permissions:
    publish: set[str] = set()
    subscribe: set[str] = set()
    for subject, wants_ack in granted.takes.items():
        # as a member of the subject's own queue group alone: beside it nobody listens along
        subscribe.add(f"{subject} {subject}")
        if wants_ack:
            publish |= _replies(subject)
        elif _is_hello(subject):
            publish.add(_refusals(subject))
    _add_streams(node, granted, publish, subscribe)
    for subject in fold.fold(granted.sends):
        publish.add(subject)
        # an acknowledged kind ends in ACK, whatever stands for the node
        if not subject.endswith("NACK"):
            subscribe |= _replies(subject)
        elif _is_hello(subject):
            subscribe.add(_refusals(subject))
    if bench:
        for subjects in (publish, subscribe):
            subjects.add(f"{node}.{BENCH_TOKEN}.>")
    return Permissions(tuple(sorted(publish)), tuple(sorted(subscribe)))


def _add_streams(node: str, granted: _Grants, publish: set[str], subscribe: set[str]) -> None:
    """What JetStream needs. Nobody but the keeper of streams may make one, or change it, see `find_keeping`."""
    for subject, (stream, domain) in granted.keeps.items():
        api, consumer = api_prefix(domain), name_of_consumer(subject)
        publish |= {
            f"{api}.CONSUMER.{word}.{stream}.{consumer}" for word in ("INFO", "MSG.NEXT", "DELETE")
        }
        publish |= {
            f"{api}.STREAM.INFO.{stream}",
            f"{api}.STREAM.MSG.GET.{stream}",
            f"{api}.CONSUMER.CREATE.{stream}.{consumer}.{subject}",
            f"$JS.ACK.{stream}.{consumer}.>",
            f"{api}.STREAM.PURGE.{stream}",
            claim_subject(subject, stream, "*"),
            begun_subject(subject, stream, "*"),
        }
        subscribe.add(f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.{consumer}")
    for stream, domain in granted.fills:
        publish.add(f"{api_prefix(domain)}.STREAM.INFO.{stream}")
    if granted.keeps or granted.fills:
        subscribe.add(inbox_subjects(node))


def _replies(subject: str) -> set[str]:
    """Where acknowledgements arrive: at Steward's Go nodes on the first, at ours below it."""
    return {f"{subject}.{REPLY_TOKEN}", f"{subject}.{REPLY_TOKEN}.>"}


def _is_hello(subject: str) -> bool:
    return subject.split(".")[-2] == HELLO_METHOD


def _refusals(subject: str) -> str:
    """Where a node learns that whoever hears its hellos does not declare it (any more)."""
    return f"{subject}.{REPLY_TOKEN}.*.{REFUSALS_TOKEN}"


class _Fold:
    """Writes a pattern in place of all subjects of the fleet that differ in the node alone, where all are allowed.

    Else each login of a fleet of a thousand nodes would name every one of them. No login hears what else a pattern
    would reach, so nothing more is carried.
    """

    def __init__(self, open_to_all: Iterable[str], grants: Iterable[_Grants]) -> None:
        self._open = frozenset(open_to_all)
        families: defaultdict[str, set[str]] = defaultdict(set)
        for subject in self._open.union(
            *(granted.sends for granted in grants), *(granted.takes for granted in grants)
        ):
            families[_pattern(subject)].add(subject)
        self._families = {
            pattern: subjects
            for pattern, subjects in families.items()
            if len(subjects) >= MIN_FOLDED
        }
        self._folded: frozenset[str] = frozenset()
        """Of those open to all: the same for every node, so found once."""
        self._folded = frozenset(self._fold(self._open))

    def fold(self, own: Iterable[str]) -> frozenset[str] | set[str]:
        """What is open to all and the subjects in `own`."""
        beside = frozenset(own) - self._open
        return self._fold(beside) if beside else self._folded

    def _fold(self, subjects: frozenset[str]) -> set[str]:
        found = self._folded | set(subjects)
        for pattern in {_pattern(subject) for subject in subjects}:
            family = self._families.get(pattern, set())
            # one that is missing must stay out of reach
            if family and all(one in subjects or one in self._open for one in family):
                found = (found - family) | {pattern}
        return set(found)


def _pattern(subject: str) -> str:
    """The subject with a ``*`` for each token of the node's name."""
    node, method, kind = parse_subject(subject)
    return ".".join([*("*" for _ in node.split(".")), method, kind])
