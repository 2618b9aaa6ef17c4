"""Makes the outbox records of answers: which methods they may arrive as, and bounds on what a peer chose for them."""

from __future__ import annotations

from collections.abc import Set

from appliance.core.current import Current
from appliance.core.message import Message
from appliance.core.names import MethodName
from appliance.core.specs import SubscriberSpec
from appliance.outbox.records import OutboxRecord
from appliance.workers.reply_pieces import ReplyPieces, Turns
from appliance.workers.services import WorkerServices

MAX_REPLY_ACK_TIMEOUT_S = 600
MAX_REPLY_RETRIES = 100


class ReplyPolicy:
    """Belongs to one subscriber, whose `allow_reply_methods` of the moment counts."""

    def __init__(self, parts: WorkerServices, spec: Current[SubscriberSpec]) -> None:
        self._router = parts.router
        self._spec = spec
        self.pieces = ReplyPieces(parts.bus, parts.router, parts.desired)
        """For answers that are made in another way, as those that are passed on."""

    def make_records(
        self, reply: Message, headers: dict[str, str], turns: Turns, *, to_appliance: bool
    ) -> tuple[OutboxRecord, ...]:
        """The records of a reply, more than one where it is too large for one message.

        Raises:
            AnswerTooLarge: as `ReplyPieces.make`.
            RequestInvalid: as `make_reply_record`.
        """
        return self.pieces.make(
            reply, headers, turns, self.make_reply_record, to_appliance=to_appliance
        )

    def make_reply_record(self, reply: Message, headers: dict[str, str] | None) -> OutboxRecord:
        """The record of a reply that is small.

        Raises:
            RequestInvalid: the asker wants it as a method that is not for answers here, or it cannot be sent.
        """
        self._router.check_reply_method(reply.method, allowed=self._allowed())
        return self._router.make_record(bounded_reply(reply), headers=headers)

    def _allowed(self) -> Set[MethodName] | None:
        return self._spec.value.allow_reply_methods


def bounded_reply(reply: Message) -> Message:
    """A peer chose how long its answer is waited for; without a bound it could hold the window for ever."""
    if reply.ack_timeout_s <= MAX_REPLY_ACK_TIMEOUT_S and reply.retries <= MAX_REPLY_RETRIES:
        return reply
    return reply._replace(
        ack_timeout_s=min(reply.ack_timeout_s, MAX_REPLY_ACK_TIMEOUT_S),
        retries=min(reply.retries, MAX_REPLY_RETRIES),
    )
