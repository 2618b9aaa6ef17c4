"""Relaying: a message that reaches its node by way of another one, and the answer's way back. Pure.

The seed's path, with our checks: the asking node sends REQRelay on ``<final>.<via>.REQRelay.EventACK``; the via node
checks that the body agrees with that subject, and that its config allows the method, and sends the original to the
final node in its own name; the answer comes to the via node, which files it like any answer and sends a copy on to
the asker. Data is kept on the way (the original destroys it).

So that the asker knows which question an answer belongs to, the via node hangs a note on the relayed message: a
previous message with the asker's own number. Every node echoes it, Go nodes too, since the whole request rides along
with a reply. A via node that has a key signs what it asks, in the same note: so it knows an answer to what it has asked,
and a node behind it sends nobody what he has not asked for. It need not remember anything for that, and any daemon of the
node may be the one that the answer comes to.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from appliance.core.admission import find_sender_refusal
from appliance.core.message import (
    DEFAULT_REPLY_METHOD,
    Message,
    body_number,
    bounded,
    text_to_bytes,
)
from appliance.core.names import NodeName, is_node_name
from appliance.core.specs import ANY_METHOD, SubscriberSpec

RELAY_METHOD = "REQRelay"
UNRELAYABLE = frozenset({"REQRelay", "REQRelayInitial", "REQErrorLog", "REQCopyFileFrom"})
"""Relays of relays would loop, error reports have a way of their own, and the original reads a copied file at the
asking node, which REQCopyFileTo with data does as well.
"""


def relay_token(final: str, via: str) -> str:
    """The node token of the subject that a via node hears a final node's messages on."""
    return f"{final}.{via}"


def wrap(message: Message) -> Message | str:
    """The REQRelay message that carries `message` to its `relay_via_node`; a text says why there is none."""
    via, final = message.relay_via_node, message.to_node
    if not is_node_name(via):
        return f"relayViaNode {via[:60]!r} is no node name"
    if message.method in UNRELAYABLE:
        return f"{message.method} cannot be relayed"
    return message._replace(
        to_node=relay_token(final, via),
        to_nodes=None,
        method=RELAY_METHOD,
        relay_via_node="",
        relay_original_via_node=via,
        relay_from_node=message.from_node,
        relay_to_node=final,
        relay_original_method=message.method,
    )


def unwrap(message: Message, spec: SubscriberSpec) -> Message | str:
    """What the via node sends to the final node; a text says why nothing."""
    via, final, method = spec.node, message.relay_to_node, message.relay_original_method
    if not is_node_name(final) or message.to_node != relay_token(final, via):
        return f"relayToNode {final[:60]!r} is not the node of the subject that the message came on"
    if message.relay_original_via_node != via:
        return f"relayOriginalViaNode is {message.relay_original_via_node[:60]!r} and not {via}"
    # else the answer would go to somebody who has not asked
    if message.relay_from_node != message.from_node:
        return f"relayFromNode is {message.relay_from_node[:60]!r} and not the sender"
    if message.is_reply or message.previous_message is not None:
        return "an answer is not relayed as a request"
    if method in UNRELAYABLE:
        return f"{method} cannot be relayed"
    if spec.relay_methods != ANY_METHOD and method not in spec.relay_methods:
        return f"{method[:60]} is not in relay_methods"
    note = Message(
        id=body_number(message.id),  # the final node may be a Go node
        to_node=final,
        directory=message.directory,
        file_name=message.file_name,
    )
    # its asker chose how long its acknowledgement is waited for, and others' messages wait behind it
    return bounded(message)._replace(
        to_node=final, from_node=via, method=method, previous_message=note, id=0
    )


_MARK = b"steward-appliance/relay/1\0"


def marked_bytes(asked: Message) -> bytes:
    """What a via node signs of a message that it passes on: whatever decides where the answer goes, and as what.

    The same for the message as it goes out and as it rides along with its answer, whichever node sends that.
    """
    note = asked.previous_message
    texts = (
        asked.from_node,
        asked.to_node,
        asked.relay_from_node,
        asked.relay_original_method,
        asked.relay_reply_method,
        asked.reply_method or DEFAULT_REPLY_METHOD,
        asked.directory,
        asked.file_name,
        str(note.id if note is not None else 0),
        *(asked.reply_method_args or ()),
    )
    parts = [text_to_bytes(text) for text in texts]
    return _MARK + b"".join(b"%d:%b" % (len(part), part) for part in parts)


def with_mark(message: Message, mark: str) -> Message:
    """A message to be passed on with its mark in the note."""
    note = message.previous_message
    assert note is not None
    return message._replace(previous_message=note._replace(method_args=(mark,)))


def mark_of(asked: Message) -> str:
    """The mark of a question that rides along with an answer; "" where it has none."""
    note = asked.previous_message
    arguments = (note.method_args if note is not None else None) or ("",)
    return arguments[0]


def find_go_relay(reply: Message) -> str:
    """The Go node that has passed an answer on to the node that it came to; "" where none has.

    It sends the copy in the name of who answered: the request that rides along tells whose that request was, and for whom.
    """
    asked = reply.previous_message
    if asked is None or asked.from_node == reply.to_node or asked.relay_from_node != reply.to_node:
        return ""
    is_right = reply.from_node == asked.to_node == asked.relay_to_node
    return asked.from_node if is_right else ""


def is_answer_of(from_node: str, asked: str, *, to: str, via: str, relayed_by: str = "") -> bool:
    """Whether an answer that `from_node` sends, and that says that `asked` was asked, is one of `to`.

    The node on the way has looked that who answered is who was asked: so it passes on no answer of one node behind it in
    another's place, and one that it passes on for this node is none of that one. A Go node on the way passes it on as
    it came (`relayed_by`).
    """
    if not via:
        return from_node == to
    return asked == to and (from_node == via or (from_node == to and relayed_by == via))


def is_relayed_reply(reply: Message, node: str) -> bool:
    """Whether an answer that came to `node` belongs to somebody who asked through it."""
    asked = reply.previous_message
    return (
        reply.is_reply
        and asked is not None
        and asked.relay_original_via_node == node
        and bool(asked.relay_from_node)
        and asked.relay_from_node != node
    )


def forward_reply(
    reply: Message, node: str, specs: Sequence[SubscriberSpec], declared: Set[NodeName]
) -> tuple[Message, SubscriberSpec] | str:
    """The copy of an answer for the one who asked through `node`, and the entry that lets it; a text says why not.

    Nothing that a peer puts into a previous message is trusted beyond the config: the answer must come from the
    node that a REQRelay entry of ours relays to, and go to one whom that entry accepts questions from.

    Args:
        reply: an answer for which `is_relayed_reply` holds.
        node: the via node.
        specs: its REQRelay subscribers.
        declared: the nodes that the config names.
    """
    asked = reply.previous_message
    assert asked is not None
    final, asker = reply.from_node, asked.relay_from_node
    # all of it comes from a peer: it must agree with who really sent this, and with what we sent
    if asked.from_node != node or asked.to_node != final or asked.relay_to_node != final:
        return "the answer is not from the node that the question was relayed to"
    spec = next(
        (
            spec
            for spec in specs
            if spec.subject.startswith(f"{relay_token(final, node)}.REQRelay.")
        ),
        None,
    )
    if spec is None:
        return f"nothing is relayed to {final[:60]}"
    if asked.relay_original_method not in spec.relay_methods and spec.relay_methods != ANY_METHOD:
        return f"{asked.relay_original_method[:60]} is not in relay_methods"
    note = asked.previous_message
    method = asked.relay_reply_method or asked.reply_method or DEFAULT_REPLY_METHOD
    original = asked._replace(
        id=note.id if note is not None else 0,
        reply_method=asked.reply_method or DEFAULT_REPLY_METHOD,
        previous_message=None,
        relay_via_node="",
        relay_original_via_node="",
    )
    refusal = find_sender_refusal(spec, asker, declared)
    if refusal is not None:
        return refusal
    copy = reply._replace(
        to_node=asker,
        from_node=node,
        method=method,
        # as the asker wished it, whatever the answer says
        method_args=asked.reply_method_args,
        directory=asked.directory,
        file_name=asked.file_name,
        id=0,
        previous_message=original,
    )
    return copy, spec
