"""Names of nodes, methods and subjects; the only code that joins or splits the parts of a subject.

A request's subject is ``<node>.<Method>.<Kind>`` with kinds CommandACK, CommandNACK, EventACK, EventNACK.
A node name may hold inner dots, so a subject is split from its right end.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple, NewType

from appliance.errors import SubjectInvalid

NodeName = NewType("NodeName", str)
MethodName = NewType("MethodName", str)
Subject = NewType("Subject", str)

MAX_SUBJECT_BYTES = 255
"""Bound of a subject we build or accept (product contract; nats-server itself closes at 4 KiB)."""

ERROR_CENTRAL = NodeName("errorCentral")
"""The node token that error reports are addressed to, whoever subscribes to it (a constant of the Go original)."""

REPLY_TOKEN = "reply"
"""Acknowledgements travel below ``<subject>.reply``, where deployed broker permissions expect them."""
REFUSALS_TOKEN = "refusals"
"""How the reply subject ends of a message that asks for no acknowledgement: only a refusal is told there."""

NODE_PATTERN = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
METHOD_PATTERN = r"[A-Za-z0-9_-]+"
MAX_LABEL_CHARACTERS = 63
"""Of a label of a node and of its value, both of the characters of node names."""
_ENDS_FOR_REFUSALS = f".{REFUSALS_TOKEN}"
_NODE = re.compile(NODE_PATTERN)
_METHOD = re.compile(METHOD_PATTERN)


_KINDS = frozenset({"CommandACK", "CommandNACK", "EventACK", "EventNACK"})
ENROLMENT_TOKEN = "enrolment"
"""Below it new nodes ask to be let in, and are answered."""


class Category(StrEnum):
    """First half of a subject's kind. It has no effect of its own, but it is part of the address."""

    COMMAND = "Command"
    EVENT = "Event"


class SubjectKind(StrEnum):
    """Last token of a request's subject."""

    COMMAND_ACK = "CommandACK"
    COMMAND_NACK = "CommandNACK"
    EVENT_ACK = "EventACK"
    EVENT_NACK = "EventNACK"

    @property
    def wants_ack(self) -> bool:
        """Whether a message on such a subject is acknowledged."""
        return self in (SubjectKind.COMMAND_ACK, SubjectKind.EVENT_ACK)


class WorkerKind(StrEnum):
    """The two kinds of workers."""

    SUBSCRIBER = "subscriber"
    PUBLISHER = "publisher"


class WorkerKey(NamedTuple):
    """Identity of one worker: at no instant do two workers share a key."""

    node: NodeName
    subject: Subject
    kind: WorkerKind

    @property
    def name(self) -> str:
        """The worker's name as shown everywhere: subject, underscore, kind."""
        return f"{self.subject}_{self.kind}"


class SubjectParts(NamedTuple):
    """A request subject taken apart."""

    node: NodeName
    method: MethodName
    kind: SubjectKind


def is_node_name(text: str) -> bool:
    """Whether `text` may name a node."""
    return _NODE.fullmatch(text) is not None and len(text) <= 200


def find_taken(node: str) -> str | None:
    """Below whose subjects those of a node of this name would lie: whoever may send or listen there could do so here."""
    tokens = node.split(".")
    if tokens[0] == "_INBOX":
        return "what is asked of the broker"
    if tokens[0] == ENROLMENT_TOKEN:
        return "what new nodes ask"
    at = next((at for at, token in enumerate(tokens) if token in _KINDS), None)
    return None if at is None else ".".join(tokens[: at + 1])


def is_for_refusals(reply_to: str) -> bool:
    """Whether a reply subject asks for refusals only."""
    return reply_to.endswith(_ENDS_FOR_REFUSALS)


def is_method_name(text: str) -> bool:
    """Whether `text` may name a method."""
    return _METHOD.fullmatch(text) is not None and len(text) <= 100


def make_kind(category: Category, *, wants_ack: bool) -> SubjectKind:
    """Join category and acknowledgement into the subject's last token."""
    return SubjectKind(f"{category}{'ACK' if wants_ack else 'NACK'}")


def make_subject(node: str, method: str, kind: SubjectKind) -> Subject:
    """Build a request subject.

    Raises:
        SubjectInvalid: a part is no valid name, or the whole exceeds 255 bytes.
    """
    subject = f"{node}.{method}.{kind}"
    if not is_node_name(node):
        raise SubjectInvalid(
            subject, "the node name may hold letters, digits, '_', '-' and inner dots only"
        )
    if not is_method_name(method):
        raise SubjectInvalid(subject, "the method name may hold letters, digits, '_' and '-' only")
    if len(subject) > MAX_SUBJECT_BYTES:
        raise SubjectInvalid(
            subject, f"{len(subject)} bytes exceed the limit of {MAX_SUBJECT_BYTES}"
        )
    return Subject(subject)


def parse_subject(subject: str) -> SubjectParts:
    """Take a request subject apart.

    Raises:
        SubjectInvalid: it is not ``<node>.<Method>.<Kind>``.
    """
    parts = subject.rsplit(".", 2)
    if len(parts) != 3 or not is_node_name(parts[0]) or not is_method_name(parts[1]):
        raise SubjectInvalid(subject, "not of the form <node>.<Method>.<Kind>")
    try:
        kind = SubjectKind(parts[2])
    except ValueError:
        raise SubjectInvalid(subject, f"unknown kind {parts[2][:20]!r}") from None
    return SubjectParts(NodeName(parts[0]), MethodName(parts[1]), kind)
