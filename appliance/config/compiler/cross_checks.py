"""Do the two ends of every subject agree? Checked over the whole fleet, whatever nodes run here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appliance.config.compiler.expand import Publication, Subscription, accepted_senders
from appliance.config.compiler.findings import PLACE, Findings, KeyPath
from appliance.config.compiler.layers import find_origin
from appliance.config.compiler.local_checks import Known, resolve_own
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
from appliance.core.specs import ANY_SENDER, Carried
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
