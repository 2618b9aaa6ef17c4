"""What the two sides of a benchmark agree on, and the lines between them: JSON over the pipes of the child process."""

from __future__ import annotations

from typing import Literal

import msgspec

from appliance.core.names import Category, MethodName, NodeName, Subject, make_kind, make_subject
from appliance.core.specs import (
    AckOn,
    AckSettings,
    BrokerSettings,
    LimitSettings,
    PublisherSpec,
    StateSettings,
    SubscriberSpec,
)

METHOD = MethodName("REQBench")
BARE_TOKEN = "BARE"


class BenchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that both sides are made from. Secrets are named in it and not contained."""

    token: str
    """Random; makes every subject the benchmark's own."""
    below: str
    """The declared node whose name all subjects begin with."""
    broker: BrokerSettings
    server_urls: tuple[str, ...]
    limits: LimitSettings
    state: StateSettings
    ack: AckSettings
    ack_on: AckOn
    concurrency: int
    window: int
    serialization: str
    compression: str

    @property
    def receiver(self) -> NodeName:
        """The node that receives."""
        return NodeName(f"{self.below}.bench.{self.token}")

    @property
    def sender(self) -> NodeName:
        """The node that sends; it subscribes to nothing of its own."""
        return NodeName(f"{self.receiver}-sender")

    @property
    def pattern(self) -> str:
        """All subjects, as a broker's permissions would name them."""
        return f"{self.below}.bench.>"

    @property
    def subject(self) -> Subject:
        """What the messages go to."""
        return make_subject(self.receiver, METHOD, make_kind(Category.EVENT, wants_ack=True))

    @property
    def bare_subject(self) -> str:
        """What the yardstick's messages go to."""
        return f"{self.receiver}.{BARE_TOKEN}"

    @property
    def subscriber(self) -> SubscriberSpec:
        """The receiving worker."""
        return SubscriberSpec(
            node=self.receiver,
            subject=self.subject,
            method=METHOD,
            wants_ack=True,
            ack_on=self.ack_on,
            concurrency=self.concurrency,
            accept_from=frozenset({self.sender}),
        )

    def publisher(self, window: int) -> PublisherSpec:
        """The sending worker."""
        return PublisherSpec(
            node=self.sender,
            subject=self.subject,
            to_node=self.receiver,
            method=METHOD,
            wants_ack=True,
            ack=self.ack,
            window=window,
            serialization=self.serialization,
            compression=self.compression,
            entry="bench",
        )


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiving side has done so far."""

    handled: int = 0
    failed: int = 0
    refused: int = 0
    repeats: int = 0
    dropped: int = 0
    cpu_s: float = 0.0
    loop_cpu_s: float = 0.0


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the receiving side: it is ready, asked for its facts, or at its end for a reason."""

    kind: Literal["ready", "facts", "denied", "failed"]
    text: str = ""
    facts: Facts | None = None
