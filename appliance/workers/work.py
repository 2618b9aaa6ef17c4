"""One message on its way through a subscriber, and the decision whether it may enter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.bus.base import BusMessage
from appliance.core.admission import find_refusal, is_reply_subject_safe
from appliance.core.message import Message
from appliance.core.specs import AckOn, DesiredState, SubscriberSpec
from appliance.errors import DecodeError
from appliance.methods.base import FilePosition, Handler
from appliance.wire.frame import WireLimits, decode_frame
from appliance.workers.identity import (
    MORE_HEADER,
    NOBODY,
    TURN_HEADER,
    Identity,
    parse_identity,
)

WorkKey = tuple[str, str, int]


@dataclass(slots=True, eq=False)
class Work:
    """One message between admission and the end of its handling.

    `handler` and `ack_on` are those in force when it was taken, so a swap never changes a message in hand.
    `row_id` names its body in the inbox, None where none is kept. `payload` is dropped once stored.
    """

    message: Message
    identity: Identity
    ack_on: AckOn
    handler: Handler
    payload: bytes
    headers: Mapping[str, str]
    reply_tos: list[str] = field(default_factory=list)
    row_id: int | None = None
    is_taken: bool = False
    is_unwanted: bool = False
    """Whether nobody here wants what it brought, nor what would follow it."""
    resume: FilePosition | None = None
    size_bytes: int = 0

    @property
    def is_last_of_stream(self) -> bool:
        """Whether this reply completes an answer that came in pieces."""
        return TURN_HEADER in self.headers and MORE_HEADER not in self.headers

    @property
    def key(self) -> WorkKey | None:
        """What a resend of the same message has in common with it; None when the sender gives no usable id."""
        if self.identity.instance is None:
            return None
        return (self.message.from_node, self.identity.instance, self.identity.message_id)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a delivery was not admitted; `sender` is "" when it could not even be read."""

    sender: str
    identity: Identity
    reason: str


def wire_limits(fleet: DesiredState) -> WireLimits:
    """The decoder's bounds as the config sets them."""
    limits = fleet.limits
    return WireLimits(
        max_message_bytes=limits.max_message_bytes,
        max_decompressed_bytes=limits.max_decompressed_bytes,
        max_depth=limits.max_depth,
    )


def admit(
    delivery: BusMessage,
    spec: SubscriberSpec,
    subject_node: str,
    handler: Handler,
    fleet: DesiredState,
    limits: WireLimits,
) -> Work | Refusal:
    """Decode and check one delivery."""
    headers = delivery.headers
    identity = parse_identity(headers) if headers else NOBODY
    try:
        message = decode_frame(delivery.payload, headers, limits)
    except DecodeError as error:
        return Refusal("", identity, f"undecodable: {error}")
    refusal = find_refusal(spec, subject_node, message, fleet.declared_nodes)
    if (
        refusal is None
        and delivery.reply_to
        and not is_reply_subject_safe(delivery.reply_to, spec.subject)
    ):
        refusal = "its reply subject is a request subject"
    if refusal is not None:
        return Refusal(message.from_node, identity, refusal)
    work = Work(message, identity, spec.ack_on, handler, delivery.payload, headers)
    work.size_bytes = len(delivery.payload)
    if delivery.reply_to:
        work.reply_tos.append(delivery.reply_to)
    return work
