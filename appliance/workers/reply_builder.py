"""What comes of a handled message: its reply, messages of the handler's own, copies of relayed answers."""

from __future__ import annotations

from collections.abc import Callable

from appliance.core.message import Message, bytes_to_text, make_reply
from appliance.core.relay import RELAY_METHOD, forward_reply, is_relayed_reply
from appliance.core.specs import AckOn, SubscriberSpec
from appliance.dialect.headers import EXIT_HEADER, header_text
from appliance.errors import RequestInvalid
from appliance.methods.base import DONE, Method, Result
from appliance.outbox.records import OutboxRecord
from appliance.workers.incoming import Incoming
from appliance.workers.replies import final_headers, read_reply_facts, reply_headers
from appliance.workers.reply_policy import ReplyPolicy, bounded_reply
from appliance.workers.reply_writer import ReplyWriter
from appliance.workers.services import WorkerServices


class ReplyBuilder:
    """Makes the outbox records of one subscriber's outcomes. What cannot be sent becomes an error report."""

    def __init__(
        self,
        parts: WorkerServices,
        reply_policy: ReplyPolicy,
        spec: Callable[[], SubscriberSpec],
        method: Callable[[], Method],
    ) -> None:
        self._router = parts.router
        self._store = parts.store
        self._telemetry = parts.telemetry
        self._error_reports = parts.error_reports
        self._desired = parts.desired
        self._reply_policy = reply_policy
        self._spec = spec
        self._method = method
        self.must_send: set[int] = set()
        """Records that are no mere answers: they wait for room in the outbox, however long it takes."""

    def tell_reply(self, work: Incoming) -> None:
        """Let whoever waits for an answer see it."""
        message = work.message
        if message is None:
            return
        if message.is_reply and message.previous_message is not None:
            self._telemetry.reply_received(
                self._spec().node,
                message.from_node,
                self._router.id_of(message.previous_message.id),
                message.id,
                message.method,
                "".join(message.data or ()),
                read_reply_facts(work.headers),
            )

    def of_result(
        self, work: Incoming, message: Message, result: Result, outlet: ReplyWriter | None
    ) -> tuple[OutboxRecord, ...]:
        """Everything that goes out because a message was handled; `outlet` is None where the handler never looked at it."""
        if result is DONE and not message.is_reply:
            return ()
        node = self._spec().node
        if result.report is not None:
            self._error_reports.report(
                node, f"{message.method} {message.id}: {result.report}", method=message.method
            )
        sent = self._sent_messages(result) + self.forwarded(work, message)
        if result.output is None:
            return sent
        has_spoken = outlet is not None and outlet.has_spoken
        if has_spoken and not result.output and work.identity.instance is None:
            # a Go node reads no headers: an empty end would be one more answer to it
            return sent
        headers = final_headers(
            result.exit_status,
            result.stderr,
            is_truncated=result.is_truncated,
            ending=result.ending,
        )
        # the end is a piece of the stream, or it could overtake what it ends
        if outlet is not None and has_spoken:
            headers |= outlet.next_turn()
        reply = make_reply(message, node, bytes_to_text(result.output))
        return sent + self.reply_records(reply, headers)

    def forwarded(self, work: Incoming, reply: Message) -> tuple[OutboxRecord, ...]:
        """The copy of an answer for somebody who asked through this node."""
        node = self._spec().node
        if not is_relayed_reply(reply, node):
            return ()
        found = forward_reply(reply, node, self._relay_specs())
        try:
            if isinstance(found, str):
                raise RequestInvalid(found)
            copy, spec = found
            self._router.check_reply_method(copy.method, allowed=spec.allow_reply_methods)
            headers = reply_headers(work.headers)
            record = self._router.make_record(bounded_reply(copy), headers=headers)
        except RequestInvalid as error:
            self._error_reports.report(
                node,
                f"the answer from {reply.from_node[:60]} is not passed on: {error}",
                method=self._spec().method,
            )
            return ()
        self.must_send.add(record.id)
        return (record,)

    def _relay_specs(self) -> list[SubscriberSpec]:
        return [
            spec
            for spec in self._desired.value.workers.values()
            if isinstance(spec, SubscriberSpec)
            and spec.method == RELAY_METHOD
            and spec.node == self._spec().node
        ]

    def _sent_messages(self, result: Result) -> tuple[OutboxRecord, ...]:
        """Records of what a handler wants sent; what cannot be sent is reported instead."""
        records = []
        for outgoing in result.messages:
            message = outgoing.message._replace(from_node=self._spec().node)
            headers = dict(outgoing.headers) if outgoing.headers else None
            try:
                record = self._router.make_record(
                    message, expires_s=outgoing.expires_s, headers=headers
                )
            except RequestInvalid as error:
                self._error_reports.report(
                    self._spec().node,
                    f"cannot send to {message.to_node[:60]}: {error}",
                    method=self._spec().method,
                )
            else:
                self.must_send.add(record.id)
                records.append(record)
        return tuple(records)

    def reply_records(
        self, reply: Message, headers: dict[str, str] | None
    ) -> tuple[OutboxRecord, ...]:
        """The outbox record of a reply; a reply that cannot be sent is reported instead."""
        try:
            if self._store.is_crowded:
                raise RequestInvalid(
                    "the outbox is nearly full; its last room is for messages handed over here"
                )
            return (self._reply_policy.make_reply_record(reply, headers),)
        except RequestInvalid as error:
            self._error_reports.report(
                self._spec().node,
                f"cannot reply to {reply.to_node[:60]}: {error}",
                method=self._spec().method,
            )
            return ()

    def of_failure(
        self, work: Incoming, message: Message, text: str, outlet: ReplyWriter | None
    ) -> tuple[OutboxRecord, ...]:
        """Where a reply was due and the message is acknowledged already, the sender of ours still gets an answer."""
        if (
            not self._method().info.replies
            or message.is_reply  # nobody waits for the answer to an answer
            or work.ack_on is AckOn.DONE
            or work.identity.instance is None
        ):
            return ()
        reply = make_reply(message, self._spec().node, "")
        headers = {EXIT_HEADER: f"failed: {header_text(text)}"}
        if outlet is not None and outlet.has_spoken:
            headers |= outlet.next_turn()
        return self.reply_records(reply, headers)
