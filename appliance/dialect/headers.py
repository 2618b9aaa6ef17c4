"""The headers that appliances write beside Steward's own; Go nodes neither write nor read them.

`appl-id` says who made a message, so that a receiver of ours can know a resend from a repeat. Go nodes send no usable id
(theirs is what an operator typed, or 0). The form is ``<instance>-<id>`` with an optional ``-m``, which tells that
methodTimeout was filled in for the Go side's sake and is not the operator's wish.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

ID_HEADER = "appl-id"
VERSION_HEADER = "appl-v"
"""On a message: its sender understands `WORKING_HEADER`, `BUSY_HEADER` and `FAILED_HEADER`. On an answer: an appliance."""
VERSION = "2"
TAKER_HEADER = "appl-taker"
"""On a resend: the instance of the daemon that said it had taken the message."""
ATTEMPT_HEADER = "appl-attempt"
"""On a message: how often an operator has had it tried anew. What had failed is run again then, and only that."""

BEGUN_ELSEWHERE = b"appl-begun: 1\r\n"
"""A header that a receiver writes, and nobody sends: another daemon of the node had this message of a stream, may have
begun it, and stays away.
"""
JOB_HEADER = "appl-job"
"""On a message: the job of the operator's command that it is part of, for whoever looks at what runs on a node."""

WORKING_HEADER = "appl-working"
"""On an acknowledgement subject: the message is durably taken and waits or runs; the value names the daemon."""
BUSY_HEADER = "appl-busy"
"""On an acknowledgement subject: no room now; the value says after how many milliseconds to send it again."""
REFUSED_HEADER = "appl-refused"
"""On an acknowledgement subject: the receiver refuses the message for the reason given; resending is useless."""
UNDECLARED_HEADER = "appl-undeclared"
"""Beside `REFUSED_HEADER`: no config at the receiver declares the sender, so whatever it sends is refused there."""
FAILED_HEADER = "appl-failed"
"""On an acknowledgement subject: the handler failed, and why."""
DONE_HEADER = "appl-done"
"""On an acknowledgement: the receiver has finished its work and not only taken the message."""
HERE_HEADER = "appl-here"
"""On an acknowledgement subject, of no message: the node has come back to the broker."""
EXIT_HEADER = "appl-exit"
"""On a reply: the exit status of the command; with it the answer is complete."""
STDERR_HEADER = "appl-stderr"
"""On a reply: the end of what the command wrote to stderr, as base64."""
STDERR_CUT_HEADER = "appl-stderr-cut"
"""On a reply: the command wrote more to stderr than its end, which `STDERR_HEADER` has."""
UNWANTED_HEADER = "appl-unwanted"
"""On the acknowledgement of a piece of an answer: nobody waits for the rest, so it need not be made."""
TRUNCATED_HEADER = "appl-truncated"
"""On a reply: output beyond the bound was thrown away where it was made."""
ENDED_HEADER = "appl-ended"
"""On a reply: how the program ended beside its status: ``stopped=<seconds>``, ``held``, ``signal=<number>``, with commas."""
STREAM_HEADER = "appl-stream"
"""On a partial reply: which output it is a piece of, ``stdout`` or ``stderr``."""
PLACE_HEADER = "appl-place"
"""On a partial reply: where in the file it ends, in words of the node's own, by which another request goes on there."""
TURN_HEADER = "appl-turn"
"""``<stream>.<number>``: messages of one stream are sent one after the other, each when the one before it is settled."""
MORE_HEADER = "appl-more"
"""On a reply: more of the same answer follows."""
PROGRESS_HEADER = "appl-progress"
"""On a reply without data: ``<done>/<total>`` bytes of long work."""

HELLO_HEADER = "appl-hello"
"""On a hello: what the node says of its config, see `core.fleet`."""

MAX_REASON_CHARACTERS = 300

_SECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]{1,6})?(e\+[0-9]{2})?")
_INSTANCE = re.compile(r"[0-9a-f]{16}")


class Ending(NamedTuple):
    """How a program ended: stopped after so many seconds, its output still held by what it left behind, by a signal."""

    stopped_after_s: float | None = None
    is_held: bool = False
    signal: int | None = None


PLAIN_END = Ending()


def with_line(block: bytes, line: bytes) -> bytes:
    """A header block, which may be none, with one line more."""
    return (block[:-2] if block else b"NATS/1.0\r\n") + line + b"\r\n"


def write_ending(ending: Ending) -> str:
    """As the header carries it; "" where there is nothing to tell."""
    words = [] if ending.stopped_after_s is None else [f"stopped={ending.stopped_after_s:.9g}"]
    words += ["held"] if ending.is_held else []
    words += [] if ending.signal is None else [f"signal={ending.signal}"]
    return ",".join(words)


def read_ending(text: str | None) -> Ending:
    """What a header says; what is malformed or unknown counts as absent."""
    ending = PLAIN_END
    for word in (text or "")[:200].split(","):
        name, _, value = word.partition("=")
        if word == "held":
            ending = ending._replace(is_held=True)
        elif name == "signal" and value.isascii() and value.isdecimal() and len(value) < 4:
            ending = ending._replace(signal=int(value))
        elif name == "stopped" and _SECONDS.fullmatch(value):
            ending = ending._replace(stopped_after_s=float(value))
    return ending


class Identity(NamedTuple):
    """What the headers of a message say of it. `instance` is None when the sender is no appliance.

    `hears` tells that the sender understands more answers than an acknowledgement, `taker` which daemon said that it
    took the message ("" for none), `attempt` how often an operator has had it tried anew.
    """

    instance: str | None
    message_id: int
    timeout_filled: bool
    hears: bool = False
    taker: str = ""
    attempt: int = 0

    @property
    def is_appliance(self) -> bool:
        """Whether the sender is one; what a stream lends a message of somebody else is no sender's."""
        return self.instance is not None and not self.instance.startswith(LENT_PREFIX)


LENT_PREFIX = "stream-"
"""How the instance begins that stands for a stream, whose numbers tell messages apart that bring no id."""
NOBODY = Identity(None, 0, False)


def parse_identity(headers: Mapping[str, str]) -> Identity:
    """Read the headers; anything malformed counts as absent, since nothing but deduplication hangs on it."""
    text = headers.get(ID_HEADER)
    if text is None or len(text) > 80:
        return NOBODY
    parts = text.split("-")
    if (
        len(parts) not in (2, 3)
        or not _INSTANCE.fullmatch(parts[0])
        or not (parts[1].isascii() and parts[1].isdecimal())
    ):
        return NOBODY
    message_id = int(parts[1])
    if not 0 < message_id < 2**63:
        return NOBODY
    taker = headers.get(TAKER_HEADER, "")
    attempt = headers.get(ATTEMPT_HEADER, "")
    return Identity(
        parts[0],
        message_id,
        len(parts) == 3,
        VERSION_HEADER in headers,
        taker if _INSTANCE.fullmatch(taker) else "",
        int(attempt) if len(attempt) < 8 and attempt.isascii() and attempt.isdecimal() else 0,
    )


def header_text(text: str) -> str:
    """A reason as a header carries it: ASCII without control characters, bounded."""
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = "".join(character if character.isprintable() else "?" for character in plain)
    return plain[:MAX_REASON_CHARACTERS]
