"""What both ends of a stream must agree on: the broker's answer to a message, and where ends of messages are told."""

from __future__ import annotations

import msgspec

from appliance.core.names import REPLY_TOKEN
from appliance.core.streams import StreamAddress

EXPECTED_STREAM = b"Nats-Expected-Stream: "
"""The first of the headers that are for the stream alone; they stand last, and the receiver cuts them off."""
NO_RESPONDERS = b"NATS/1.0 503"
"""How the broker's word begins that nobody is there."""


class _Error(msgspec.Struct):
    description: str = ""
    err_code: int = 0


class PubAck(msgspec.Struct):
    """The broker's answer to a message that a stream was to keep."""

    stream: str = ""
    domain: str = ""
    seq: int = 0
    count: int = 0
    """Of a batch: how many messages it had; the place is the last one's."""
    error: _Error | None = None

    def is_of(self, stream: StreamAddress) -> bool:
        """Whether that stream has the message; where no domain is asked for, the broker's own may have a name."""
        return self.stream == stream.name and stream.domain in ("", self.domain)


read_puback = msgspec.json.Decoder(PubAck).decode
write_puback = msgspec.json.Encoder().encode


def verdict_prefix(subject: str, instance: str) -> str:
    """How the subjects begin on which a sender hears what became of messages that a stream had; the id ends them."""
    return f"{subject}.{REPLY_TOKEN}.{instance}."
