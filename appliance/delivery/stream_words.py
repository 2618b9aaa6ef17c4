"""What both ends of a stream must agree on: what is for the stream alone, and where ends of messages are told."""

from __future__ import annotations

from appliance.core.names import REPLY_TOKEN

EXPECTED_STREAM = b"Nats-Expected-Stream: "
"""The first of the headers that are for the stream alone; they stand last, and the receiver cuts them off."""


def verdict_prefix(subject: str, instance: str) -> str:
    """How the subjects begin on which a sender hears what became of messages that a stream had; the id ends them."""
    return f"{subject}.{REPLY_TOKEN}.{instance}."
