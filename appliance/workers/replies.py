"""What rides on a reply in headers: written on one side, read on the other. Go nodes neither write nor read it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from appliance.core.message import CALLER_FILE, Message
from appliance.core.outcome import AnswerFacts
from appliance.dialect.headers import (
    ENDED_HEADER,
    EXIT_HEADER,
    MORE_HEADER,
    PLACE_HEADER,
    PROGRESS_HEADER,
    STDERR_CUT_HEADER,
    STDERR_HEADER,
    STREAM_HEADER,
    TRUNCATED_HEADER,
    TURN_HEADER,
    Ending,
    read_ending,
    write_ending,
)
from appliance.telemetry.messages import NO_FACTS, ReplyFacts
from appliance.workers.incoming import Incoming

MAX_STDERR_BYTES = 16_384
"""Of a command's stderr in a header: its end, where the reason mostly stands."""
_REPLY_HEADERS = frozenset(
    {
        *(EXIT_HEADER, STDERR_HEADER, STDERR_CUT_HEADER, TRUNCATED_HEADER, ENDED_HEADER),
        *(STREAM_HEADER, MORE_HEADER, PROGRESS_HEADER, TURN_HEADER, PLACE_HEADER),
    }
)
MAX_PLACE_CHARACTERS = 200
_STREAMS = frozenset({"stdout", "stderr"})


def final_headers(
    exit_status: int | None,
    stderr: bytes,
    *,
    is_truncated: bool = False,
    ending: Ending | None = None,
) -> dict[str, str]:
    """Headers of the reply that completes an answer."""
    headers = {}
    if exit_status is not None:
        headers[EXIT_HEADER] = str(exit_status)
    if stderr:
        headers[STDERR_HEADER] = base64.b64encode(stderr[-MAX_STDERR_BYTES:]).decode()
    if len(stderr) > MAX_STDERR_BYTES:
        headers[STDERR_CUT_HEADER] = "1"
    if is_truncated:
        headers[TRUNCATED_HEADER] = "1"
    said = "" if ending is None else write_ending(ending)
    if said:
        headers[ENDED_HEADER] = said
    return headers


def read_reply_facts(headers: Mapping[str, str]) -> ReplyFacts:
    """What the headers of a reply say; what is malformed counts as absent."""
    if not headers:
        return NO_FACTS
    stream = headers.get(STREAM_HEADER)
    return ReplyFacts(
        exit_status=headers.get(EXIT_HEADER),
        stderr=_read_stderr(headers.get(STDERR_HEADER)),
        stream=stream if stream in _STREAMS else None,
        has_more=MORE_HEADER in headers,
        is_truncated=TRUNCATED_HEADER in headers,
        is_stderr_cut=STDERR_CUT_HEADER in headers,
        ending=read_ending(headers.get(ENDED_HEADER)),
        progress=_read_progress(headers.get(PROGRESS_HEADER)),
        place=headers.get(PLACE_HEADER, "")[:MAX_PLACE_CHARACTERS],
    )


def describe_answer(facts: ReplyFacts, *, is_cut: bool) -> AnswerFacts:
    """What of it counts for what became of the question."""
    stopped_after_s, is_held, number = facts.ending
    return AnswerFacts(
        exit_status=facts.exit_status,
        has_more=facts.has_more,
        tells_stream=facts.stream is not None,
        is_cut=is_cut,
        is_truncated=facts.is_truncated,
        is_stderr_cut=facts.is_stderr_cut,
        is_held=is_held,
        stopped_after_s=stopped_after_s,
        signal=number,
    )


def reply_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Of the headers of a reply those that a copy for somebody else carries, too."""
    return {name: value for name, value in headers.items() if name in _REPLY_HEADERS}


def is_for_caller_only(work: Incoming, message: Message) -> bool:
    """Whether a reply is to be shown to whoever waits, and not to be handled: progress, or the asker wished so."""
    if not message.is_reply or message.previous_message is None:
        return False
    if message.previous_message.file_name == CALLER_FILE:
        return True
    headers = work.headers
    is_empty = not any(message.data or ())
    return is_empty and bool(headers) and (PROGRESS_HEADER in headers or work.is_last_of_stream)


def _read_stderr(text: str | None) -> bytes:
    if text is None or len(text) > 2 * MAX_STDERR_BYTES:
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _read_progress(text: str | None) -> tuple[int, int] | None:
    if text is None or len(text) > 40:
        return None
    done, slash, total = text.partition("/")
    if not slash or not (
        done.isascii() and done.isdecimal() and total.isascii() and total.isdecimal()
    ):
        return None
    # what is shown is made of these two: more than all of it would be shown as a bar without end
    return (int(done), int(total)) if int(done) <= int(total) else None
