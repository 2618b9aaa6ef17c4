"""Whether a subscriber may act on a decoded message. Pure, and asked before any handler runs.

The subject that the broker let the sender publish on decides what is done; the body only has to agree with it.
A body that names another method or node is refused: otherwise the right to publish one subject would be the
right to run every method. Relay fields and previous messages are never acted on here.
"""

from __future__ import annotations

from collections.abc import Set

from appliance.core.copying import COPY_TO, SPOOL_WORD
from appliance.core.message import Message
from appliance.core.names import REPLY_TOKEN, NodeName, SubjectKind, is_node_name
from appliance.core.specs import ANY_SENDER, SubscriberSpec


def find_refusal(
    spec: SubscriberSpec, subject_node: str, message: Message, declared: Set[NodeName]
) -> str | None:
    """Why `message`, which came on the subscriber's subject, is refused; None if it may be handled.

    Args:
        spec: the subscriber.
        subject_node: the node token of its subject (errorCentral for error logs).
        message: what was decoded.
        declared: the nodes that the config names.
    """
    if message.method != spec.method:
        return f"the body names method {message.method[:60]!r} but came on the subject of {spec.method}"
    if message.to_node != subject_node:
        return f"the body is addressed to {message.to_node[:60]!r} but came on a subject of {subject_node}"
    return find_sender_refusal(spec, message.from_node, declared)


def find_sender_refusal(spec: SubscriberSpec, sender: str, declared: Set[NodeName]) -> str | None:
    """Why nothing of `sender` is for a subscriber; None where it takes his messages."""
    if not is_node_name(sender):
        return f"the sender's name {sender[:60]!r} is no node name"
    accept_from = spec.accept_from
    if accept_from is None:
        if sender not in declared:
            return f"sender {sender!r} is not a declared node"
    elif accept_from != ANY_SENDER and sender not in accept_from:
        return f"sender {sender!r} is not in accept_from"
    return None


def is_file_asked_for(spec: SubscriberSpec, message: Message) -> bool:
    """Whether it is a file that this node asked for, from a Go node: that sends it in the name of who asked, whoever else
    `accept_from` lets in. Whether one is waited for under that word is for the method to say.
    """
    arguments = message.method_args or ()
    return (
        message.method == spec.method == COPY_TO
        and message.to_node == message.from_node == spec.node
        and len(arguments) > 2
        and arguments[2].startswith(SPOOL_WORD)
    )


_KINDS = frozenset(SubjectKind)


def is_reply_subject_safe(reply_to: str, subject: str) -> bool:
    """Whether an acknowledgement may be published on a subject that the sender chose.

    ``<subject>.reply`` and below it is what Steward nodes use; an inbox or a subject of any other shape is a
    client's own business. A request subject, something below another node's, or one of the broker's own (``$SYS``,
    ``$JS``) would turn our right to publish there into the sender's.
    """
    own = f"{subject}.{REPLY_TOKEN}"
    if reply_to == own or reply_to.startswith(f"{own}."):
        return True
    return (
        bool(reply_to) and not reply_to.startswith("$") and _KINDS.isdisjoint(reply_to.split("."))
    )
