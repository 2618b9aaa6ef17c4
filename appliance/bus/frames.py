"""Text and bytes of the client protocol: subjects checked, publishes written, denials understood. Pure functions.

Source: nats.io client protocol (PUB, HPUB, -ERR); nats-server 2.15 for the wording of denials.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from appliance.bus.base import Denial, Frame
from appliance.errors import PayloadTooLarge, SubjectInvalid

MAX_SENT_SUBJECT_BYTES = 512
"""Bound of a subject on the wire: a request subject (255) with reply suffix fits; the server closes at 4,096."""

_PUBLISHABLE = re.compile(r"[^\x00-\x20\x7f*>.]+(?:\.[^\x00-\x20\x7f*>.]+)*").fullmatch
_SUBSCRIBABLE = re.compile(
    r"(?:\*|[^\x00-\x20\x7f*>.]+|>(?!.))(?:\.(?:\*|[^\x00-\x20\x7f*>.]+|>(?!.)))*"
).fullmatch
_QUEUE = re.compile(r"[^\x00-\x20\x7f]+").fullmatch
_DENIAL = re.compile(
    r"permissions violation for (publish|subscription)(?: with reply of| to) \"([^\"]*)\"(?: using queue \"([^\"]*)\")?",
    re.IGNORECASE,
)

_MAX_KNOWN_SUBJECTS = 4096
"""Checked subjects that are remembered: more than one daemon ever sends to, so that nothing grows without end."""


def check_publish_subject(subject: str) -> None:
    """Check a subject that we are about to send to.

    Raises:
        SubjectInvalid: empty tokens, white space, control characters, wildcards, too long, or not encodable.
    """
    if _PUBLISHABLE(subject) is None or not _fits(subject):
        raise SubjectInvalid(subject, _find_reason(subject, wildcards=False))


def check_subscribe_subject(subject: str, queue: str = "") -> None:
    """Check a subject to subscribe, where ``*`` and a last ``>`` may stand for tokens, and its queue group.

    Raises:
        SubjectInvalid: as `check_publish_subject`, or a queue group with white space.
    """
    if _SUBSCRIBABLE(subject) is None or not _fits(subject):
        raise SubjectInvalid(subject, _find_reason(subject, wildcards=True))
    if queue and (_QUEUE(queue) is None or not _fits(queue)):
        raise SubjectInvalid(queue, "a queue group holds no white space and at most 512 bytes")


def is_covered(subject: str, *, by: str) -> bool:
    """Whether every subject that `subject` stands for (itself, if it holds no wildcard) belongs to the pattern `by`."""
    wanted = by.split(".")
    tokens = subject.split(".")
    for index, (want, token) in enumerate(zip(wanted, tokens, strict=False)):
        if want == ">":
            return index == len(wanted) - 1
        if token == ">" or (want != "*" and want != token):
            return False
    return len(wanted) == len(tokens)


def _fits(text: str) -> bool:
    if text.isascii():
        return len(text) <= MAX_SENT_SUBJECT_BYTES
    try:
        return len(text.encode()) <= MAX_SENT_SUBJECT_BYTES
    except UnicodeEncodeError:
        return False


def _find_reason(subject: str, *, wildcards: bool) -> str:
    if not subject:
        return "it is empty"
    if len(subject) > MAX_SENT_SUBJECT_BYTES:
        return f"it exceeds {MAX_SENT_SUBJECT_BYTES} bytes"
    if any(character <= " " or character == "\x7f" for character in subject):
        return "it holds white space or control characters"
    if "" in subject.split("."):
        return "it has an empty token"
    if not wildcards and ("*" in subject or ">" in subject):
        return "it holds a wildcard"
    if wildcards and ("*" in subject or ">" in subject):
        return "a wildcard must be a whole token, and > the last one"
    return f"it is not UTF-8 or exceeds {MAX_SENT_SUBJECT_BYTES} bytes"


def write_frames(
    frames: Sequence[Frame], *, max_payload: int, known: set[str]
) -> tuple[list[bytes], int]:
    """The commands that publish `frames`, in order: pieces to be joined, and bytes of headers and payloads.

    All or nothing: one frame that must not be sent fails them all.

    Args:
        max_payload: bytes of headers and payload that the broker takes in one message.
        known: subjects that were checked before, and how such begin that come once only; the caller keeps it.

    Raises:
        PayloadTooLarge: the server would close the connection over one of them.
        SubjectInvalid: a subject or a reply subject is none that may be sent to.
    """
    pieces: list[bytes] = []
    total_bytes = 0
    for subject, reply_to, block, payload in frames:
        if reply_to:
            if subject not in known:
                check_publish_subject(subject)
                _remember(subject, known)
            # NB: as in `_check_single`, without the cost of a call for each message
            begins, _, token = reply_to.rpartition(".")
            if not (
                begins in known
                and token.isalnum()
                and reply_to.isascii()
                and len(reply_to) <= MAX_SENT_SUBJECT_BYTES
            ):
                _check_single(reply_to, known)
            target = f"{subject} {reply_to}"
        else:
            if subject not in known:
                _check_single(subject, known)
            target = subject
        size = len(block) + len(payload)
        if size > max_payload:
            raise PayloadTooLarge(size, max_payload)
        total_bytes += size
        if block:
            head = f"HPUB {target} {len(block)} {size}\r\n"
            pieces += (head.encode(), block, payload, b"\r\n")
        else:
            pieces += (f"PUB {target} {size}\r\n".encode(), payload, b"\r\n")
    return pieces, total_bytes


def _check_single(subject: str, known: set[str]) -> None:
    """A subject for one answer: its last token is another one each time, what is before it comes again.

    Raises:
        SubjectInvalid: as `check_publish_subject`.
    """
    begins, _, token = subject.rpartition(".")
    if begins in known and (
        token.isalnum() and subject.isascii() and len(subject) <= MAX_SENT_SUBJECT_BYTES
    ):
        return
    check_publish_subject(subject)
    if begins:
        _remember(begins, known)


def _remember(subject: str, known: set[str]) -> None:
    if len(known) >= _MAX_KNOWN_SUBJECTS:
        known.clear()
    known.add(subject)


def parse_denial(text: str) -> Denial | None:
    """Understand the server's text of a permission violation; None where it is another error."""
    found = _DENIAL.match(text)
    if found is None:
        return None
    return Denial(text, found[1].lower() == "publish", found[2], found[3] or "")
