"""The audit trail as a chain: each line holds the hash of the one before it, so that none can be changed, taken out or
put in unseen. Pure.

A line is JSON: `number` counts from 1, `at` is RFC 3339, `by` the one who asked and `from` whence, `asked` the request,
`what` what it was about (names and numbers, never texts of messages), `outcome` what was answered, `previous` the SHA-256 of
the line before, as it stands in the file without its end. What the chain cannot show is that its end was cut off: the
daemon says number and hash of its last line in the log, when it starts, moves on to a new file and stops.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from appliance.core.audit_room import Sender
from appliance.core.escape import escape_json

BEGINNING = "0" * 64
"""`previous` of the very first line."""
MAX_LINE_BYTES = 65_536


class Trail(Protocol):
    """Where entries go."""

    def note(
        self,
        *,
        by: str,
        asked: str,
        what: Mapping[str, Any],
        outcome: object,
        sender: Sender | None = None,
        **more: Any,
    ) -> None:
        """Enter something that happened now. Never waits, never raises.

        `sender` is whose room it takes; None for what the daemon says of the trail itself.
        """
        ...


class NoTrail(Trail):
    """Implements `Trail` for whoever keeps none."""


class Head(NamedTuple):
    """The last line of a chain."""

    number: int = 0
    digest: str = BEGINNING


class Link(msgspec.Struct, frozen=True):
    """What of a line makes the chain."""

    number: int
    previous: str


class Break(NamedTuple):
    """Where a chain does not hold, and why."""

    file: str
    line: int
    why: str


class Verified(NamedTuple):
    """What a look at a whole trail came to."""

    entries: int
    first: int
    head: Head
    breaks: tuple[Break, ...]
    holds: bool
    """Whether the head that was asked for is part of it."""


_LINK_BYTES = 110
"""What number and predecessor take of a line."""
_ESCAPED_BYTES = 6
_ASCII = bytes(range(128))


def line_size(facts: Mapping[str, Any]) -> int:
    """Bytes that these facts take as a line, at most."""
    try:
        line = msgspec.json.encode(facts, enc_hook=str)
    except UnicodeEncodeError:
        line = msgspec.json.encode(_encodable(facts), enc_hook=str)
    return len(line) + _LINK_BYTES + (_ESCAPED_BYTES - 1) * len(line.translate(None, _ASCII))


def make_line(head: Head, facts: Mapping[str, Any]) -> tuple[bytes, Head]:
    """The next line of a chain, without its end, and the head that it becomes."""
    entry = {"number": head.number + 1, **facts, "previous": head.digest}
    try:
        line = msgspec.json.encode(entry, enc_hook=str)
    except UnicodeEncodeError:
        line = msgspec.json.encode(_encodable(entry), enc_hook=str)
    if not line.isascii() or b"\x7f" in line:
        # peers choose names, and the file is looked at with whatever is at hand
        line = escape_json(line.decode()).encode()
    if len(line) >= MAX_LINE_BYTES and facts.get("what"):
        # as two lines it would break the chain for whoever reads it
        return make_line(head, {**facts, "what": {"left_out_bytes": len(line)}})
    return line, Head(head.number + 1, digest_of(line))


def _encodable(value: object) -> object:
    """Bytes of a peer's name that are no UTF-8 stand as surrogates in a text: here as `\\udcef`, as Python writes them."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list | tuple) else value


def digest_of(line: bytes) -> str:
    """The hash of a line."""
    return hashlib.sha256(line).hexdigest()


def read_link(line: bytes) -> Link | None:
    """Number and predecessor of a line; None where it is none."""
    try:
        return msgspec.json.decode(line, type=Link)
    except (msgspec.MsgspecError, RecursionError):
        return None


def verify(files: Iterable[tuple[str, Iterable[bytes]]], asked: str = "") -> Verified:
    """Go along a trail, the oldest file first.

    The first line of the oldest file may have a predecessor that is gone: old files are given up in time.

    Args:
        files: names, and lines without their ends.
        asked: the digest of a line that must be there; "" for none.
    """
    head: Head | None = None
    entries = first = 0
    breaks: list[Break] = []
    holds = not asked
    for name, lines in files:
        for number, line in enumerate(lines, 1):
            link = read_link(line)
            if link is None:
                breaks.append(Break(name, number, "is no entry"))
                continue
            if head is None:
                first = link.number
            elif link.previous != head.digest:
                breaks.append(Break(name, number, "is not what followed the line before it"))
            elif link.number != head.number + 1:
                breaks.append(Break(name, number, f"has number {link.number} after {head.number}"))
            head = Head(link.number, digest_of(line))
            holds |= head.digest == asked
            entries += 1
    return Verified(entries, first, head or Head(), tuple(breaks), holds)
