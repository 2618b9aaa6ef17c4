"""What a job says of a request, before its messages are accepted."""

from __future__ import annotations

from appliance.api.model import Submitted
from appliance.api.requests import JobRequest, SubmitRequest, carried
from appliance.core.command_options import show_arguments
from appliance.core.file_names import join_parts
from appliance.core.hidden import Hiding
from appliance.core.message import DEFAULT_REPLY_METHOD
from appliance.core.outcome import Outcome
from appliance.errors import HandlerError
from appliance.jobs.ledger import NewMessage
from appliance.jobs.records import JobFacts, TargetFacts, TargetState
from appliance.outbox.texts import plain_text

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
        data_bytes=sum(
            len(item if isinstance(item, str) else item.base64) for item in request.data or ()
        ),
        for_caller=request.for_caller,
        wants_status=job.wants_status,
        is_now=job.is_now,
        batches=job.batches,
    )


def describe_message(request: SubmitRequest, answer: Submitted, batch: int) -> NewMessage:
    """Where one message goes, and whether it was accepted."""
    facts = TargetFacts(
        to=plain_text(answer.to),
        node=answer.from_node or "",
        subject=answer.subject or "",
        via=answer.via or "",
        filed=_find_file(request, answer),
        batch=batch,
    )
    outcome = Outcome(wants_answer=answer.replies, streams=answer.streams)
    if not answer.accepted:
        outcome.reject(plain_text(answer.error or "not accepted"))
    return NewMessage(answer.id, facts, TargetState(outcome=outcome))


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
