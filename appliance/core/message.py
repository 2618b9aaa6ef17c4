"""The domain message: the 25 fields of Steward's seed generation under Python names, and what is made from one.

Every text may hold bytes that are not UTF-8 (command output, file contents, file names): such bytes stand in the
`str` as surrogate escapes (``\\udc80``…``\\udcff``), which every codec of ours turns back into the same bytes.
`None` and the empty tuple are kept apart, as Go keeps a nil slice from an empty one.

Source: the seed's message struct; times and counts are in seconds and whole tries as there.
"""

from __future__ import annotations

from typing import NamedTuple

Texts = tuple[str, ...] | None


class Message(NamedTuple):
    """One Steward message, in the order of its wire fields. Zero means "not set" for numbers and names.

    A NamedTuple because the order is the wire's order and because building one is on the hot path.
    """

    to_node: str = ""
    to_nodes: Texts = None
    id: int = 0
    data: Texts = None
    method: str = ""
    method_args: Texts = None
    reply_method: str = ""
    reply_method_args: Texts = None
    is_reply: bool = False
    from_node: str = ""
    ack_timeout_s: int = 0
    retries: int = 0
    reply_ack_timeout_s: int = 0
    reply_retries: int = 0
    method_timeout_s: int = 0
    reply_method_timeout_s: int = 0
    directory: str = ""
    file_name: str = ""
    previous_message: Message | None = None
    relay_via_node: str = ""
    relay_original_via_node: str = ""
    relay_from_node: str = ""
    relay_to_node: str = ""
    relay_original_method: str = ""
    relay_reply_method: str = ""


DEFAULT_REPLY_METHOD = "REQToFileAppend"

CALLER_FILE = "@caller"
"""As a request's file name: replies are for whoever waits for them at the asking node, and filed nowhere.

Any node echoes it, since the request rides along with its reply; it is no name that a file could have here.
"""


MAX_BODY_NUMBER = 2**31 - 1
"""A Go node on a 32-bit machine refuses a message with a larger id."""


def body_number(message_id: int) -> int:
    """The number that stands for an id in a message's body, where 32-bit Go nodes must be able to read it; the id itself
    stands in a header.

    What is no larger stays as it is. Ids are times above a counter, so their lowest bits repeat: multiplied, all bits
    count, and two ids share a number as rarely as two random ones.
    """
    if 0 <= message_id <= MAX_BODY_NUMBER:
        return message_id
    return ((message_id * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 33) or 1


def text_to_bytes(text: str) -> bytes:
    """The bytes a message text stands for."""
    return text.encode("utf-8", "surrogateescape")


def bytes_to_text(raw: bytes) -> str:
    """Carry any bytes in a message text; `text_to_bytes` gives the same bytes back."""
    return raw.decode("utf-8", "surrogateescape")


MAX_ASKED_ACK_TIMEOUT_S = 600
MAX_ASKED_RETRIES = 100


def bounded(message: Message) -> Message:
    """What goes out because a peer asked, who chose how long it is waited for: without a bound it could hold a lane's window
    for ever.
    """
    if message.ack_timeout_s <= MAX_ASKED_ACK_TIMEOUT_S and message.retries <= MAX_ASKED_RETRIES:
        return message
    return message._replace(
        ack_timeout_s=min(message.ack_timeout_s, MAX_ASKED_ACK_TIMEOUT_S),
        retries=min(message.retries, MAX_ASKED_RETRIES),
    )


def make_reply(request: Message, node: str, output: str) -> Message:
    """Make the reply that carries `output` from `node` back to the sender of `request`.

    The table of wire section 7: method and arguments come from the request's reply fields (REQToFileAppend by
    default), the request rides along as the previous message with its data removed and its reply method filled
    in: a Go relay passes the answer on as what stands there. The replying node names
    itself rather than trusting the request's `to_node` (they are equal by the time a handler runs, except for
    errorCentral).
    """
    method = request.reply_method or DEFAULT_REPLY_METHOD
    return Message(
        to_node=request.from_node,
        from_node=node,
        data=(output,),
        method=method,
        method_args=request.reply_method_args,
        is_reply=True,
        ack_timeout_s=request.reply_ack_timeout_s,
        retries=request.reply_retries,
        method_timeout_s=request.reply_method_timeout_s,
        directory=request.directory,
        file_name=request.file_name,
        previous_message=request._replace(data=None, reply_method=method),
    )
