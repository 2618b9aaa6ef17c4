"""Messages from callers: who sends them, whether they can be sent at all, and their place in the outbox."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import msgspec

from appliance.api.model import Submitted
from appliance.api.requests import EncodedData, JobRequest, Once, SubmitRequest, carried
from appliance.core.command_options import has_options, show_arguments
from appliance.core.file_names import join_parts, name_parts
from appliance.core.hidden import Hiding
from appliance.core.message import (
    CALLER_FILE,
    DEFAULT_REPLY_METHOD,
    Message,
    make_reply,
    text_to_bytes,
)
from appliance.core.method import PROGRAM_METHODS
from appliance.core.names import ERROR_CENTRAL, MethodName, NodeName
from appliance.core.outcome import Outcome
from appliance.core.relay import RELAY_METHOD, relay_token, wrap
from appliance.core.specs import ANY_SENDER, DesiredState, PublisherSpec, SubscriberSpec
from appliance.core.streams import find_stream
from appliance.core.suggest import find_nearest
from appliance.dialect.headers import JOB_HEADER
from appliance.errors import (
    ArgumentsRefused,
    HandlerError,
    JobCancelled,
    RequestInvalid,
    StoreError,
)
from appliance.jobs.ledger import JobLedger, NewMessage
from appliance.jobs.records import JobFacts, TargetFacts, TargetState
from appliance.outbox.facts import FactChanges
from appliance.outbox.records import FinishItem, OutboxRecord, TakeIn, TakeInResult
from appliance.outbox.store import MessageStore
from appliance.outbox.texts import plain_text
from appliance.reconcile.reconciler import Reconciler
from appliance.telemetry.report import Telemetry
from appliance.workers.router import GO_METHOD_TIMEOUT_S, Router

ANSWER_METHODS = (
    MethodName(DEFAULT_REPLY_METHOD),
    MethodName("REQToConsole"),
    MethodName("REQToFile"),
)
"""Methods that an answer for a caller may arrive as; the answer is shown, so none of them does its work."""

COPY_COMMAND = "cp"
"""Of its jobs each message is about one file."""

FILE_METHODS = frozenset({"REQToFile", "REQToFileAppend"})
"""Methods whose names of files can be judged before anything is accepted."""

AWAITED = "awaited"
"""Of the facts that tell, by message, whose answer in pieces is for a caller alone: none of them outlives the daemon."""
STREAMED_METHODS = frozenset({"REQCliCommandCont", "REQTailFile"})
"""Methods whose answer comes in pieces."""

LOCAL = "local"
"""The word for the own node as a destination."""


class Submission:
    """Turns requests into outbox records. Everything is judged before anything is accepted."""

    def __init__(
        self,
        store: MessageStore,
        router: Router,
        reconciler: Reconciler,
        telemetry: Telemetry,
        hiding: Hiding,
        jobs: JobLedger,
    ) -> None:
        self._hiding = hiding
        self._store = store
        self._jobs = jobs
        self._router = router
        self._reconciler = reconciler
        self._telemetry = telemetry

    async def submit(
        self,
        requests: Sequence[SubmitRequest],
        *,
        atomic: bool = False,
        once: Once | None = None,
        job: JobRequest | None = None,
    ) -> list[Submitted]:
        """Accept messages; answers when they are on disk."""
        answers: list[Submitted] = []
        records: list[OutboxRecord] = []
        job_id = None if job is None else self._id_of(job)
        for request in requests:
            for to_node in request.to_nodes:
                try:
                    if job is not None and job.is_now:
                        self._check_does_not_wait(request, to_node)
                    record = self._make_record(request, to_node, job_id)
                except RequestInvalid as error:
                    code = "arguments" if isinstance(error, ArgumentsRefused) else None
                    # the schema of declared arguments may hold what the config took from the environment
                    text = self._hiding.text(str(error))
                    answers.append(
                        Submitted(to=to_node, accepted=False, error=text, code=code, key=error.key)
                    )
                    continue
                records.append(record)
                answers.append(
                    Submitted(
                        to=record.node if to_node == LOCAL else to_node,
                        accepted=True,
                        id=record.id,
                        from_node=record.node,
                        via=request.relay_via_node,
                        subject=record.subject,
                        replies=self._router.methods[MethodName(request.method)].replies,
                        streams=request.method in STREAMED_METHODS,
                        note=self._note(
                            request,
                            record,
                            record.node if to_node == LOCAL else to_node,
                            is_job=job is not None,
                        ),
                        job=job_id,
                    )
                )
        if atomic and len(records) < len(answers):
            return [_withdraw(answer) for answer in answers]
        if records:
            if job is not None and job_id is not None:
                if not await self._put_job(job_id, job, requests, answers, records):
                    answers = [msgspec.structs.replace(answer, job=None) for answer in answers]
            elif once is None:
                await self._store.put(records, facts=_awaited(requests, answers))
            else:
                # in one commit: neither the mark nor the messages are there without the other
                await self._store.finish([self._mark(once)], records)
            self._telemetry.messages_accepted(len(records))
        return answers

    def longest_time_s(self, requests: Iterable[SubmitRequest]) -> float:
        """How long handlers of these may take that ask for no time of their own, as far as the config here says so."""
        applied = self._reconciler.applied
        times = {} if applied is None else applied.desired.declared_times
        asked = [
            times.get((NodeName(node), MethodName(request.method)), 0.0)
            for request in requests
            if request.method_timeout is None
            for node in request.to_nodes
        ]
        return max(asked, default=0.0)

    def goes_on_with(self, method: str) -> str:
        """The argument by which an answer of a method goes on where it was cut off; "" where it does not."""
        info = self._router.methods.get(MethodName(method))
        return "" if info is None else info.goes_on_with

    async def forget_awaited(self, ids: Iterable[int]) -> None:
        """The answers to these are complete."""
        known = self._store.facts(AWAITED)
        gone = {str(id_): None for id_ in ids if str(id_) in known}
        if gone:
            await self._store.remember(AWAITED, gone)

    async def _put_job(
        self,
        job_id: str,
        job: JobRequest,
        requests: Sequence[SubmitRequest],
        answers: Sequence[Submitted],
        records: Sequence[OutboxRecord],
    ) -> bool:
        """The job is on disk before its messages; that they were accepted, in one commit with them. Whether it is."""
        asked = [request for request in requests for _ in request.to_nodes]
        facts = describe_job(job, requests[0], records[0].node, self._hiding)
        messages = [
            describe_message(request, answer, job)
            for request, answer in zip(asked, answers, strict=True)
        ]
        known = self._jobs.jobs.get(job_id) if job.into else None
        try:
            if known is None:
                kept = await self._jobs.begin(job_id, facts, messages)
                withdraw = partial(self._jobs.withdraw, kept)
            else:
                kept = known
                batch = await self._jobs.extend(kept, facts, messages)
                withdraw = partial(self._jobs.withdraw_batch, batch)
        except StoreError as error:
            # what was asked is worth more than what is kept of it
            self._telemetry.jobs_troubled(f"a job is not kept: {error}")
            await self._store.put(records)
            return False
        if kept.is_cancelled:
            withdraw()
            raise JobCancelled(job_id)
        try:
            await self._store.put(records, facts=self._jobs.facts_with(job_id, job.batch))
        except StoreError:
            withdraw()
            raise
        self._jobs.accepted(kept, job.batch)
        return True

    def _id_of(self, job: JobRequest) -> str:
        if not job.into:
            return self._jobs.new_id()
        kept = self._jobs.jobs.get(job.into)
        if kept is None and job.command == COPY_COMMAND:
            return self._jobs.new_id()  # a copy is worth more than what is kept of it
        if kept is None:
            raise RequestInvalid(f"job {job.into[:40]!r} is not there any more: begin another one")
        if kept.is_cancelled:
            raise JobCancelled(kept.id)
        return kept.id

    async def is_accepted(self, once: Once) -> bool:
        """Whether messages were accepted under this mark."""
        mark = self._mark(once)
        item = TakeIn(
            scope=mark.scope,
            node="",
            method="",
            subject="",
            sender=mark.sender,
            instance=mark.instance,
            message_id=mark.message_id,
            attempt=0,
            payload=b"",
            block=b"",
            reply_to="",
            keep_body=False,
        )
        # asked as a receiver asks about a resend; without a body to keep nothing is written
        ((found, _, _),) = await self._store.take_in([item])
        return found is not TakeInResult.FRESH

    def _mark(self, once: Once) -> FinishItem:
        return FinishItem(
            row_id=None,
            scope=once.source,
            sender="",
            instance=self._store.instance,
            message_id=once.number,
        )

    def _make_record(
        self, request: SubmitRequest, to_node: str, job_id: str | None
    ) -> OutboxRecord:
        node = self.sender(request.from_node, to_node, request.method)
        message = Message(
            to_node=node if to_node == LOCAL else to_node,
            from_node=node,
            data=request.texts(),
            method=request.method,
            method_args=_texts(request.method_args),
            reply_method=request.reply_method or "",
            reply_method_args=_texts(request.reply_method_args),
            # NB: plain numbers; the request's own types do not go on the wire
            ack_timeout_s=int(request.ack_timeout or 0),
            retries=int(request.retries or 0),
            reply_ack_timeout_s=int(request.reply_ack_timeout or 0),
            reply_retries=int(request.reply_retries or 0),
            method_timeout_s=int(request.method_timeout or 0),
            reply_method_timeout_s=int(request.reply_method_timeout or 0),
            directory=carried(request.directory or ""),
            file_name=carried(request.file_name or ""),
            relay_via_node=request.relay_via_node or "",
            relay_reply_method=request.relay_reply_method or "",
        )
        with _about("to_nodes" if message.method in self._router.methods else "method"):
            # asked again by `make_record`: here, so that what is refused is refused for the right field
            self._router.publisher_for(node, message.to_node, message.method)
        if message.method in FILE_METHODS:
            with _about("file_name"):
                check_file_names(message)
        elif not request.for_caller and self._files_answer(message):
            # what could only fail when the answer is there, and the work done
            with _about("file_name"):
                check_file_names(make_reply(message, message.to_node, ""))
        if request.for_caller:
            # before the reply method is checked, which is chosen here
            message = self._for_caller(message)
        if message.reply_method:
            with _about("reply_method"):
                self._router.check_reply_method(message.reply_method)
        if message.relay_via_node:
            with _about("relay_via_node"):
                message = self._relay(message)
        return self._router.make_record(
            message,
            expires_s=request.expires,
            retries=request.retries,
            headers=None if job_id is None else {JOB_HEADER: job_id},
        )

    def _files_answer(self, message: Message) -> bool:
        info = self._router.methods.get(MethodName(message.method))
        reply_method = message.relay_reply_method or message.reply_method or DEFAULT_REPLY_METHOD
        # one without a name is refused where it would be filed, and may be wanted by nobody
        is_named = bool(message.file_name)
        return info is not None and info.replies and is_named and reply_method in FILE_METHODS

    def _for_caller(self, message: Message) -> Message:
        """The message with its answer meant for the one who waits; refused where none could come."""
        applied = self._reconciler.applied
        method = message.reply_method
        if not method and applied:
            method = choose_answer_method(applied.desired, message.from_node, message.to_node)
        return message._replace(reply_method=method, file_name=CALLER_FILE)

    def answer_method(self, node: str, to_node: str) -> MethodName:
        """As which method an answer of `to_node` may come to `node`. Raises RequestInvalid where none may."""
        applied = self._reconciler.applied
        if applied is None:
            raise RequestInvalid("no config is in force")
        return choose_answer_method(applied.desired, node, to_node)

    def _check_does_not_wait(self, request: SubmitRequest, to_node: str) -> None:
        """Refuse for now or never what nobody can take back. Raises RequestInvalid."""
        node = self.sender(request.from_node, to_node, request.method)
        to = node if to_node == LOCAL else to_node
        if self._is_kept(node, to, request):
            with _about("to_nodes"):
                raise RequestInvalid(
                    f"a stream of the broker keeps {request.method} for {to} until it is there (delivery: jetstream): what"
                    " is for now only (--now) cannot go that way"
                )

    def _is_kept(self, node: str, to_node: str, request: SubmitRequest) -> bool:
        """Whether a stream takes it from us, and gives nothing back."""
        if request.method not in self._router.methods or request.relay_via_node:
            return False
        with _about("to_nodes"):
            spec = self._router.publisher_for(node, to_node, request.method)
        return spec.wants_ack and find_stream(spec) is not None

    def _note(
        self, request: SubmitRequest, record: OutboxRecord, to_node: str, *, is_job: bool
    ) -> str | None:
        """What to say of a destination that no config names, or not with this method, since it may exist and may be
        a slip; of an answer that would be lost; and of a time that holds no longer once a stream has it.
        """
        is_late = is_job and request.expires and self._is_kept(record.node, to_node, request)
        notes = [
            f"a stream keeps it for {to_node}, and has bounds of its own: once it is there, --expires ends nothing"
            if is_late
            else None,
            self._destination_note(request, to_node),
            self._answer_note(request, record, to_node),
        ]
        return "; ".join(note for note in notes if note is not None) or None

    def _answer_note(
        self, request: SubmitRequest, record: OutboxRecord, to_node: str
    ) -> str | None:
        """Words for an answer that nobody would take: what was asked is done all the same. Whoever waits for the
        answer himself was refused before.
        """
        applied = self._reconciler.applied
        is_answered = self._router.methods[MethodName(request.method)].replies
        if applied is None or to_node == ERROR_CENTRAL or request.for_caller or not is_answered:
            return None
        method = request.relay_reply_method or request.reply_method or DEFAULT_REPLY_METHOD
        answerer = request.relay_via_node or to_node
        return describe_lost_answer(applied.desired, record.node, answerer, method)

    def _destination_note(self, request: SubmitRequest, to_node: str) -> str | None:
        applied = self._reconciler.applied
        if applied is None or to_node == ERROR_CENTRAL:
            return None
        # told and accepted all the same: another daemon's config may know it
        unknown = describe_unknown(applied.desired, to_node)
        if unknown is not None:
            return f"{unknown}; it waits in the outbox until such a node answers"
        via = request.relay_via_node
        missing = (
            describe_unsubscribed(applied.desired, via, RELAY_METHOD, final=to_node)
            if via
            else describe_unsubscribed(applied.desired, to_node, request.method)
        )
        return missing and f"{missing}; it waits in the outbox until somebody takes it"

    def _relay(self, message: Message) -> Message:
        """The message in the envelope for its via node; what would only fail there is refused here."""
        router = self._router
        # the inner message too, though it is the via node that will send it
        router.publisher_for(message.from_node, message.to_node, message.method)
        if message.relay_reply_method:
            router.check_reply_method(message.relay_reply_method)
        wrapped = wrap(message)
        if isinstance(wrapped, str):
            raise RequestInvalid(wrapped)
        return wrapped

    def sender(self, asked: str | None, to_node: str, method: str) -> NodeName:
        """The sending node: the one asked for, the only one, the one that declares such a publisher, `central`."""
        applied = self._reconciler.applied
        nodes = applied.desired.run_nodes if applied else ()
        if asked:
            if asked not in nodes:
                raise RequestInvalid(
                    f"this appliance does not run node {asked[:60]!r}; it runs {', '.join(nodes)}"
                )
            return NodeName(asked)
        if len(nodes) == 1:
            return nodes[0]
        # who declares such a publisher is meant, rather than any of those that run here
        for spec in applied.desired.workers.values() if applied else ():
            if isinstance(spec, PublisherSpec) and (spec.to_node, spec.method) == (to_node, method):
                return spec.node
        if "central" in nodes:
            return NodeName("central")
        raise RequestInvalid(
            f"say which node sends (--from): this appliance runs {', '.join(nodes[:10])}"
        )


def _texts(items: Sequence[str | EncodedData] | None) -> tuple[str, ...] | None:
    return None if items is None else tuple(map(carried, items))


@contextlib.contextmanager
def _about(key: str) -> Iterator[None]:
    """What is refused inside is refused because of this field of the request."""
    try:
        yield
    except RequestInvalid as error:
        error.key = error.key or key
        raise


def _withdraw(answer: Submitted) -> Submitted:
    """Not accepted, since another one was refused."""
    if not answer.accepted:
        return answer
    return Submitted(to=answer.to, accepted=False, error="another message was refused")


def check_file_names(message: Message) -> None:
    """Refuse at once what the receiver could only refuse. Raises RequestInvalid."""
    try:
        name_parts(message, message.to_node)
    except HandlerError as error:
        raise RequestInvalid(str(error)) from error


def choose_answer_method(desired: DesiredState, node: str, to_node: str) -> MethodName:
    """The method of `node` that takes an answer from `to_node`.

    Raises:
        RequestInvalid: there is none; the text says what to add to the config.
    """
    found = list(_answer_specs(desired, node))
    for spec in found:
        if accepts(spec, to_node, desired):
            return spec.method
    if not found:
        raise RequestInvalid(
            f"no answer could come back: {node} subscribes none of {', '.join(ANSWER_METHODS)};"
            f" add `{ANSWER_METHODS[0]}: {{}}` to nodes.{node}.subscribe"
        )
    unknown = describe_unknown(desired, to_node)
    if unknown is not None:
        raise RequestInvalid(f"no answer could come back: {unknown}; add it to `nodes`")
    raise RequestInvalid(
        f"no answer could come back: {found[0].method} of {node} takes nothing from {to_node};"
        f" add {to_node} to its accept_from"
    )


def accepts(spec: SubscriberSpec, sender: str, desired: DesiredState) -> bool:
    """Whether a subscriber takes messages of a node."""
    if spec.accept_from is None:
        return sender in desired.declared_nodes
    return spec.accept_from == ANY_SENDER or sender in spec.accept_from


def describe_unknown(desired: DesiredState, node: str) -> str | None:
    """Words for a node that no config names; None where it is declared."""
    if node in desired.declared_nodes:
        return None
    nearest = find_nearest(node, sorted(desired.declared_nodes))
    hint = f" (did you mean {nearest}?)" if nearest else ""  # a sentence that goes on
    return f"{node[:60]!r} is not declared{hint}"


def describe_lost_answer(
    desired: DesiredState, node: str, answerer: str, method: str
) -> str | None:
    """Words for an answer that `node` would not take from `answerer`; None where it does."""
    spec = next(
        (
            spec
            for spec in desired.workers.values()
            if isinstance(spec, SubscriberSpec) and (spec.node, spec.method) == (node, method)
        ),
        None,
    )
    if spec is None:
        return f"its answer will find nobody here: {node} does not subscribe {method}"
    if accepts(spec, answerer, desired):
        return None
    place = "`nodes`" if spec.accept_from is None else f"accept_from of {method}"
    return f"its answer will be refused here: add {answerer[:60]} to {place}"


def describe_unsubscribed(
    desired: DesiredState, node: str, method: str, *, final: str | None = None
) -> str | None:
    """Words for a declared node that no config has subscribe the method, or pass messages on to `final`; another
    daemon's config may know it better than ours.
    """
    token = relay_token(final, node) if final else node
    if node not in desired.declared_nodes or (token, method) in desired.declared_acks:
        return None
    onward = f" that leads to {final}" if final else ""
    return f"the config here names no {method} of {node}{onward}"


def _answer_specs(desired: DesiredState, node: str) -> Iterator[SubscriberSpec]:
    specs = {
        spec.method: spec
        for spec in desired.workers.values()
        if isinstance(spec, SubscriberSpec) and spec.node == node and spec.method in ANSWER_METHODS
    }
    return (specs[method] for method in ANSWER_METHODS if method in specs)


def _awaited(requests: Sequence[SubmitRequest], answers: Sequence[Submitted]) -> FactChanges:
    """Facts of the messages whose answers in pieces are for whoever asks."""
    asked = [request for request in requests for _ in request.to_nodes]
    return {
        (AWAITED, str(answer.id)): "1"
        for request, answer in zip(asked, answers, strict=True)
        if request.for_caller and answer.streams and answer.id is not None
    }


# What a job says of a request, before its messages are accepted.

_FILING = frozenset({"REQToFile", "REQToFileAppend"})
MAX_ARGUMENT_CHARACTERS = 4_096
"""Of one argument as it is shown; what is sent is whole."""
MAX_ARGUMENTS = 256


def describe_job(job: JobRequest, request: SubmitRequest, node: str, hiding: Hiding) -> JobFacts:
    """Who asked for what; without the values that nobody may see."""
    args = [
        _plain(hiding.text(argument))[:MAX_ARGUMENT_CHARACTERS]
        for argument in show_arguments(list(map(carried, request.method_args or ())))[
            :MAX_ARGUMENTS
        ]
    ]
    return JobFacts(
        command=job.command,
        by=job.by,
        node=node,
        method=request.method,
        args=args,
        data_bytes=sum(len(text_to_bytes(carried(item))) for item in request.data or ()),
        for_caller=request.for_caller,
        wants_status=job.wants_status,
        is_now=job.is_now,
        batches=job.batches,
    )


def describe_message(request: SubmitRequest, answer: Submitted, job: JobRequest) -> NewMessage:
    """Where one message goes, and whether it was accepted."""
    facts = TargetFacts(
        to=plain_text(answer.to),
        node=answer.from_node or "",
        subject=answer.subject or "",
        via=answer.via or "",
        filed=_find_file(request, answer),
        batch=job.batch,
        file=_find_copied(request) if job.into and job.command == COPY_COMMAND else "",
        time_s=float(request.method_timeout or GO_METHOD_TIMEOUT_S),
    )
    outcome = Outcome(
        wants_answer=answer.replies,
        streams=answer.streams,
        for_appliances=request.method in PROGRAM_METHODS and has_options(request.method_args or ()),
    )
    if not answer.accepted:
        outcome.reject(plain_text(answer.error or "not accepted"))
    return NewMessage(answer.id, facts, TargetState(outcome=outcome))


def _find_copied(request: SubmitRequest) -> str:
    return plain_text(carried(request.method_args[0])) if request.method_args else ""


def _plain(text: str) -> str:
    """What JSON carries."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _find_file(request: SubmitRequest, answer: Submitted) -> str:
    """Where its answer lies below the state directory; "" where no file method files it."""
    method = request.relay_reply_method or request.reply_method or DEFAULT_REPLY_METHOD
    if request.for_caller or not answer.replies or method not in _FILING:
        return ""
    try:
        parts = join_parts(
            carried(request.directory or ""), answer.to, carried(request.file_name or "")
        )
    except HandlerError:
        return ""
    return plain_text("/".join(("data", *parts)))
