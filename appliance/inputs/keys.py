"""The keys of a message in Steward's JSON and YAML, and those that its examples carry besides.

Source: the seed's message struct and the tags of the later generations; keys are found whatever
their case, as the seed's JSON reader does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

MAX_TIME_S = 366 * 86_400
"""The longest time a message may ask for; what the later generation's "no limit" is sent as."""
MAX_TRIES = 1_000_000


class Shape(StrEnum):
    """What the value of a key must be."""

    TEXT = "text"
    TEXTS = "texts"
    DATA = "data"
    SECONDS = "seconds"
    TRIES = "tries"


FIELDS: Mapping[str, tuple[str, Shape]] = {
    "method": ("method", Shape.TEXT),
    "methodArgs": ("method_args", Shape.TEXTS),
    "data": ("data", Shape.DATA),
    "replyMethod": ("reply_method", Shape.TEXT),
    "replyMethodArgs": ("reply_method_args", Shape.TEXTS),
    "ACKTimeout": ("ack_timeout", Shape.SECONDS),
    "retries": ("retries", Shape.TRIES),
    "replyACKTimeout": ("reply_ack_timeout", Shape.SECONDS),
    "replyRetries": ("reply_retries", Shape.TRIES),
    "methodTimeout": ("method_timeout", Shape.SECONDS),
    "replyMethodTimeout": ("reply_method_timeout", Shape.SECONDS),
    "directory": ("directory", Shape.TEXT),
    "fileName": ("file_name", Shape.TEXT),
    "relayViaNode": ("relay_via_node", Shape.TEXT),
    "relayReplyMethod": ("relay_reply_method", Shape.TEXT),
}
"""Keys that become fields of a request, in the order of the wire."""

DESTINATIONS = ("toNode", "toNodes")

IGNORED: Mapping[str, str] = {
    "id": "ids are given here, and told in the answer",
    "fromNode": "the sending node is the one of `inputs.from`, or this appliance's own",
    "commandOrEvent": "the method decides it",
    "operation": "it belongs to a method that is no more; use REQOpProcessStart, -Stop or -List",
    "retryWait": "it is a setting of the publisher (`ack.retry_wait`) and not part of a message",
    "relayOriginalViaNode": "relaying sets it itself; `relayViaNode` asks for it",
    "relayFromNode": "relaying sets it itself; `relayViaNode` asks for it",
    "relayToNode": "relaying sets it itself; `relayViaNode` asks for it",
    "relayOriginalMethod": "relaying sets it itself; `relayViaNode` asks for it",
    "argSignature": "this generation of the protocol has no signatures",
    "isSubPublishedMsg": "it belongs to a later generation of the protocol",
}
"""Keys that change nothing here: told in a warning where they hold something."""

REFUSED: Mapping[str, str] = {
    "isReply": "only an answer carries it",
    "previousMessage": "only an answer carries it",
    "schedule": "no message of this generation can carry a schedule;"
    " let a publish entry of the config produce it (`every:` or `cron:`)",
    "jetstreamToNode": "it belongs to a later generation; name the node in `toNode`",
    "useDetectedShell": "it belongs to a later generation; name the shell in `methodArgs`",
    "methodInstructions": "it belongs to a later generation of the protocol",
    "replyMethodInstructions": "it belongs to a later generation of the protocol",
}
"""Keys that would mean something that cannot be done: an element that fills one is refused."""

KNOWN = (*DESTINATIONS, *FIELDS)
"""Keys that an unknown one may have been meant for."""

BY_LOWER_CASE: Mapping[str, str] = {name.lower(): name for name in (*KNOWN, *IGNORED, *REFUSED)}
