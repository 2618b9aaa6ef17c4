"""What comes of a handled message: its reply, messages of the handler's own, copies of relayed answers."""

from __future__ import annotations

import dataclasses

from appliance.core.current import Current
from appliance.core.message import (
    CALLER_FILE,
    Message,
    bounded,
    bytes_to_text,
    make_reply,
    text_to_bytes,
)
from appliance.core.relay import RELAY_METHOD, find_go_relay, forward_reply, is_relayed_reply
from appliance.core.specs import AckOn, SubscriberSpec
from appliance.core.streams import find_stream
from appliance.dialect.headers import (
    EXIT_HEADER,
    MORE_HEADER,
    STREAM_HEADER,
    header_text,
)
from appliance.errors import AnswerTooLarge, RequestInvalid
from appliance.methods.base import DONE, Method, Result
from appliance.outbox.records import OutboxRecord
from appliance.telemetry.messages import MAX_REPLY_CHARACTERS
from appliance.workers.incoming import Incoming
from appliance.workers.relay_marks import RelayMarks
from appliance.workers.replies import (
    MAX_STDERR_BYTES,
    describe_answer,
    final_headers,
    read_reply_facts,
    reply_headers,
)
from appliance.workers.reply_policy import ReplyPolicy, Turns
from appliance.workers.reply_writer import ReplyWriter
from appliance.workers.services import WorkerServices


class ReplyBuilder:
    """Makes the outbox records of one subscriber's outcomes. What cannot be sent becomes an error report."""

    def __init__(
        self,
        services: WorkerServices,
        reply_policy: ReplyPolicy,
        spec: Current[SubscriberSpec],
        method: Current[Method],
    ) -> None:
        self._router = services.router
        self._store = services.store
        self._telemetry = services.telemetry
        self._error_reports = services.error_reports
        self._desired = services.desired
        self._is_appliance = services.peers.is_appliance
        self._jobs = services.jobs
        self._reply_policy = reply_policy
        self._relay_marks = RelayMarks(services.signer, services.desired)
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
            facts = read_reply_facts(work.headers)
            if work.not_filed:
                facts = dataclasses.replace(facts, not_filed=work.not_filed)
            self._telemetry.reply_received(
                self._spec.value.node,
                message.from_node,
                self._router.id_of(message.previous_message.id),
                message.id,
                message.method,
                "".join(message.data or ()),
                facts,
                asked=message.previous_message.to_node,
                relayed_by=find_go_relay(message),
            )

    def tell_not_filed(self, work: Incoming, message: Message, why: str) -> None:
        """An answer is here and cannot be filed: the job that asked for it is not to name a place where nothing lies."""
        work.not_filed = why
        request = message.previous_message
        if request is not None:
            relayed_by = find_go_relay(message)
            self._jobs.not_filed(
                request.id, message.from_node, why, asked=request.to_node, relayed_by=relayed_by
            )

    def file_reply(self, work: Incoming, message: Message) -> None:
        """Keep an answer with the job that asked for it, whether or not anybody waits for it."""
        request = message.previous_message
        if request is None or not self._jobs.knows(request.id):
            return
        facts = read_reply_facts(work.headers)
        data = "".join(message.data or ())
        is_shown = request.file_name == CALLER_FILE
        instance = work.identity.instance
        self._jobs.answered(
            request.id,
            message.from_node,
            # what is filed is whole there
            describe_answer(facts, is_cut=is_shown and len(data) > MAX_REPLY_CHARACTERS),
            [(facts.stream or "stdout", text_to_bytes(data)), ("stderr", facts.stderr)],
            None if instance is None else f"{instance}-{work.identity.message_id}",
            asked=request.to_node,
            relayed_by=find_go_relay(message),
        )

    def of_result(
        self, work: Incoming, message: Message, result: Result, outlet: ReplyWriter | None
    ) -> tuple[OutboxRecord, ...]:
        """Everything that goes out because a message was handled; `outlet` is None where the handler never looked at it.

        Raises:
            AnswerTooLarge: the output fits no message, and may not come in pieces.
        """
        if result is DONE and not message.is_reply:
            return ()
        node = self._spec.value.node
        if result.report is not None:
            self._error_reports.report(
                node, f"{message.method} {message.id}: {result.report}", method=message.method
            )
        sent = self._sent_messages(result) + self.forwarded(work, message)
        if result.output is None:
            return sent
        has_spoken = outlet is not None and outlet.has_spoken
        if has_spoken and not result.output and not work.identity.is_appliance:
            # a Go node reads no headers: an empty end would be one more answer to it
            return sent
        turns = outlet.turns if outlet is not None else Turns()
        stderr, said = self._long_stderr(work, message, result.stderr, turns)
        headers = final_headers(
            result.exit_status,
            stderr,
            is_truncated=result.is_truncated,
            ending=result.ending,
        )
        # the end is a piece of the stream, or it could overtake what it ends
        if turns.have_begun:
            headers |= turns.take()
        reply = make_reply(message, node, bytes_to_text(result.output))
        to_appliance = work.identity.instance is not None
        return sent + said + self.reply_records(reply, headers, turns, to_appliance=to_appliance)

    def _long_stderr(
        self, work: Incoming, message: Message, stderr: bytes, turns: Turns
    ) -> tuple[bytes, tuple[OutboxRecord, ...]]:
        """What of stderr goes in a header, and records of the rest: whoever waits at an appliance is told all of it.

        Not what is filed: there pieces of stderr would stand among those of the output.
        """
        is_shown = work.identity.instance is not None and message.file_name == CALLER_FILE
        if len(stderr) <= MAX_STDERR_BYTES or not is_shown:
            return stderr, ()
        headers = turns.take() | {MORE_HEADER: "1", STREAM_HEADER: "stderr"}
        reply = make_reply(message, self._spec.value.node, bytes_to_text(stderr))
        return b"", self.reply_records(reply, headers, turns, to_appliance=True)

    def forwarded(self, work: Incoming, reply: Message) -> tuple[OutboxRecord, ...]:
        """The copy of an answer for somebody who asked through this node."""
        node = self._spec.value.node
        if not is_relayed_reply(reply, node):
            return ()
        desired = self._desired.value
        found = forward_reply(reply, node, self._relay_specs(), desired.declared_nodes)
        try:
            if isinstance(found, str):
                raise RequestInvalid(found)
            copy, spec = found
            assert reply.previous_message is not None
            if not self._relay_marks.is_asked(reply.previous_message, node):
                raise RequestInvalid("nobody has asked that by way of this node")
            self._router.check_reply_method(copy.method, allowed=spec.allow_reply_methods)
            records = self._reply_policy.split(
                bounded(copy),
                reply_headers(work.headers),
                Turns(work.stream),
                lambda reply, headers: self._router.make_record(reply, headers=headers),
                to_appliance=self._is_appliance(copy.to_node),
            )
        except (RequestInvalid, AnswerTooLarge) as error:
            self._error_reports.report(
                node,
                f"the answer from {reply.from_node[:60]} is not passed on: {error}",
                method=self._spec.value.method,
            )
            return ()
        self.must_send.update(record.id for record in records)
        return records

    def _relay_specs(self) -> list[SubscriberSpec]:
        return [
            spec
            for spec in self._desired.value.workers.values()
            if isinstance(spec, SubscriberSpec)
            and spec.method == RELAY_METHOD
            and spec.node == self._spec.value.node
        ]

    def _sent_messages(self, result: Result) -> tuple[OutboxRecord, ...]:
        """Records of what a handler wants sent; what cannot be sent is reported instead."""
        records: list[OutboxRecord] = []
        for outgoing in result.messages:
            message = outgoing.message._replace(from_node=self._spec.value.node)
            if self._spec.value.method == RELAY_METHOD:
                message = self._relay_marks.marked(message)
            headers = dict(outgoing.headers) if outgoing.headers else None
            expires_s = outgoing.expires_s

            def make(
                text: Message, headers: dict[str, str] | None, expires_s: float | None = expires_s
            ) -> OutboxRecord:
                return self._router.make_record(text, expires_s=expires_s, headers=headers)

            try:
                made = self._reply_policy.split(
                    message, headers or {}, Turns(), make, to_appliance=False
                )
            except (RequestInvalid, AnswerTooLarge) as error:
                self._error_reports.report(
                    self._spec.value.node,
                    f"cannot send to {message.to_node[:60]}: {error}",
                    method=self._spec.value.method,
                )
            else:
                self.must_send.update(record.id for record in made)
                records += made
        return tuple(records)

    def reply_records(
        self,
        reply: Message,
        headers: dict[str, str],
        turns: Turns | None = None,
        *,
        to_appliance: bool,
    ) -> tuple[OutboxRecord, ...]:
        """The outbox records of a reply, mostly one; a reply that cannot be sent is reported instead.

        Raises:
            AnswerTooLarge: it fits no message, and may not come in pieces.
        """
        try:
            if self._store.is_crowded:
                raise RequestInvalid(
                    "the outbox is nearly full; its last room is for messages handed over here"
                )
            return self._reply_policy.make_records(
                reply, headers, turns or Turns(), to_appliance=to_appliance
            )
        except RequestInvalid as error:
            self._error_reports.report(
                self._spec.value.node,
                f"cannot reply to {reply.to_node[:60]}: {error}",
                method=self._spec.value.method,
            )
            return ()

    def of_failure(
        self, work: Incoming, message: Message, text: str, outlet: ReplyWriter | None
    ) -> tuple[OutboxRecord, ...]:
        """Where a reply was due and the message is acknowledged already, the sender of ours still gets an answer."""
        if (
            not self._method.value.info.replies
            or message.is_reply  # nobody waits for the answer to an answer
            # heard with the acknowledgement, unless a stream has given that already
            or (work.ack_on is AckOn.DONE and find_stream(self._spec.value) is None)
            or not work.identity.is_appliance
        ):
            return ()
        reply = make_reply(message, self._spec.value.node, "")
        turns = outlet.turns if outlet is not None else Turns()
        return self.failure_records(reply, text, turns)

    def failure_records(self, reply: Message, text: str, turns: Turns) -> tuple[OutboxRecord, ...]:
        """An empty reply that tells an appliance why there is no other."""
        headers = {EXIT_HEADER: f"failed: {header_text(text)}"}
        # the end of a stream is shown and not handled: it empties no file that it would replace
        if turns.have_begun or not self._reply_policy.may_split(reply, to_appliance=True):
            headers |= turns.take()
        try:
            return self.reply_records(reply, headers, turns, to_appliance=True)
        except AnswerTooLarge:
            return ()  # with its request beside it not even this fits; errorCentral was told why
