"""The bus as the workers see it. Implemented over nats-py in `bus.nats`, and nowhere else.

The contract, whatever the client library does:

- `publish` hands the bytes to a live connection or raises; nothing is buffered while disconnected.
- `subscribe` returns only after the broker has confirmed the subscription (a true barrier).
- `on_delivery` is a plain function called on the event loop, in order of arrival, and must not block.
- A permission violation reaches the worker whose subject it names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class Delivery:
    """One incoming message, undecoded. `headers` is empty when it had none; `reply_to` "" when none was given."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]
    reply_to: str


OnDelivery = Callable[[Delivery], None]
OnDenied = Callable[[str], None]
"""Called with the broker's text when it denies the subject."""


class Subscription(Protocol):
    """A live subscription. It survives reconnects and, moved by the bus, a change of broker settings."""

    async def stop_intake(self) -> None:
        """Unsubscribe, wait for the barrier, and return when every message that arrived was handed over."""
        ...

    def set_limit(self, messages: int) -> None:
        """Change how many messages may wait undelivered; beyond it the newest are dropped and counted."""
        ...

    @property
    def dropped(self) -> int:
        """Messages dropped because too many waited."""
        ...


class Bus(Protocol):
    """What workers use."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a live connection now."""
        ...

    @property
    def connection_epoch(self) -> int:
        """Grows with every loss of connection: an attempt whose epoch is old may never have arrived."""
        ...

    @property
    def max_payload(self) -> int:
        """Bytes of payload and headers that the broker takes in one message."""
        ...

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: dict[str, str] | None = None,
        reply_to: str = "",
    ) -> None:
        """Send.

        Raises:
            BusUnavailable: not connected; nothing was sent.
            PayloadTooLarge: payload and headers exceed the broker's max_payload.
            SubjectInvalid: a subject we must not send.
        """
        ...

    async def subscribe(
        self,
        subject: str,
        on_delivery: OnDelivery,
        *,
        queue: str = "",
        limit_messages: int = 16_384,
        on_denied: OnDenied | None = None,
    ) -> Subscription:
        """Subscribe and wait until the broker has it.

        Raises:
            BusUnavailable: no connection came up in time; nothing is subscribed.
            SubjectInvalid: the subject or queue is no valid NATS subject.
        """
        ...

    def on_connected(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every (re)connect; returns a function that ends it."""
        ...

    def on_publish_denied(self, subject: str, callback: OnDenied) -> Callable[[], None]:
        """Call `callback` when the broker denies a publish on `subject`; returns a function that ends it."""
        ...


Waiter = Awaitable[None]
