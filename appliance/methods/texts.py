"""Small texts that several methods write the same way."""

from __future__ import annotations

from appliance.core.escape import escape_line
from appliance.core.message import Message, text_to_bytes
from appliance.errors import ArgumentsInvalid

LOG_ROTATE_BYTES = 16 * 1024 * 1024
"""hello.log and error.log are moved aside at this size; one predecessor is kept."""

_SHOWN_CHARACTERS = 200


def join_data(message: Message) -> bytes:
    """All data elements one after the other, as the bytes they stand for.

    Raises:
        ArgumentsInvalid: a text cannot be written as bytes (only an input of our own side can bring
        one).
    """
    try:
        return b"".join(text_to_bytes(text) for text in message.data or ())
    except UnicodeEncodeError:
        raise ArgumentsInvalid("the data holds characters that no encoding can carry") from None


def shorten(text: str) -> str:
    """Text from a message, short and harmless, for a line of ours."""
    line = escape_line(text)
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"


def mark_cut(output: bytes, max_bytes: int) -> bytes:
    """With a last line that says where it was cut: for whoever reads no headers."""
    gap = b"" if not output or output.endswith(b"\n") else b"\n"
    return output + gap + b" [cut at %d bytes]\n" % max_bytes
