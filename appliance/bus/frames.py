"""Text and bytes of the client protocol: subjects checked, headers written and read, denials understood.

Pure functions. Nothing here trusts the other side: a header block or a status line of any shape gives a value,
because an exception in the reader would take the connection (and with it every subscription) down.

Source: nats.io client protocol (MSG, HMSG, PUB, HPUB, -ERR); nats-server 2.15 for the wording of denials.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from appliance.errors import BusError, SubjectInvalid

MAX_SENT_SUBJECT_BYTES = 512
"""Bound of a subject on the wire: a request subject (255) with reply suffix fits; the server closes at 4,096."""

_PUBLISHABLE = re.compile(r"[^\x00-\x20\x7f*>.]+(?:\.[^\x00-\x20\x7f*>.]+)*").fullmatch
_SUBSCRIBABLE = re.compile(
    r"(?:\*|[^\x00-\x20\x7f*>.]+|>(?!.))(?:\.(?:\*|[^\x00-\x20\x7f*>.]+|>(?!.)))*"
).fullmatch
_QUEUE = re.compile(r"[^\x00-\x20\x7f]+").fullmatch
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_DENIAL = re.compile(
    r"permissions violation for (publish|subscription)(?: with reply of| to) \"([^\"]*)\"(?: using queue \"([^\"]*)\")?",
    re.IGNORECASE,
)

HEADER_LINE = "NATS/1.0"
STATUS_HEADER = "Status"
DESCRIPTION_HEADER = "Description"
MAX_HEADERS = 64
"""More lines than this in one received block are ignored; ours and Steward's use fewer than ten."""


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


@lru_cache(maxsize=256)
def _is_header_name(name: str) -> bool:
    return _HEADER_NAME(name) is not None


def encode_headers(headers: dict[str, str]) -> bytes:
    """Write a header block. Line breaks in a value become spaces, so that a value can never add a line.

    Raises:
        BusError: a name is no header name.
    """
    text = f"{HEADER_LINE}\r\n"
    for name, value in headers.items():
        if not _is_header_name(name):
            raise BusError(f"invalid header name {name[:40]!r}")
        if "\n" in value or "\r" in value:
            value = value.replace("\r", " ").replace("\n", " ")
        text += f"{name}: {value}\r\n"
    return f"{text}\r\n".encode("utf-8", "surrogatepass")


def parse_headers(block: bytes) -> dict[str, str]:
    """Read a received header block as far as it makes sense.

    Of a name given twice the first value counts, as for the peers written in Go; names that differ in case are
    kept apart and left to the wire layer. A status line (``NATS/1.0 503``) gives `Status` and `Description`.
    """
    lines = block.decode("utf-8", "replace").split("\r\n", MAX_HEADERS + 1)
    headers: dict[str, str] = {}
    first = lines[0]
    if len(first) > len(HEADER_LINE):
        status, _, description = first[len(HEADER_LINE) :].strip().partition(" ")
        if status.isdecimal() and len(status) == 3:
            headers[STATUS_HEADER] = status
            if description:
                headers[DESCRIPTION_HEADER] = description.strip()
    for line in lines[1 : MAX_HEADERS + 1]:
        name, colon, value = line.partition(":")
        if colon and name not in headers and _is_header_name(name):
            headers[name] = value.strip()
    return headers


class Denial(NamedTuple):
    """A permission violation, taken apart. `queue` is "" where none was named."""

    is_publish: bool
    subject: str
    queue: str


def parse_denial(text: str) -> Denial | None:
    """Understand the server's text of a permission violation; None where it is another error."""
    found = _DENIAL.search(text)
    if found is None:
        return None
    return Denial(found[1].lower() == "publish", found[2], found[3] or "")
