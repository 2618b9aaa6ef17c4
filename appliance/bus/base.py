"""The bus as the workers see it. `bus.nats` implements it on a broker, `bus.memory` within one process.

The contract, whatever carries it:

- `send` and `publish` hand the bytes to a live connection or raise; nothing is buffered while disconnected.
- `subscribe` returns only after the broker has confirmed the subscription (a true barrier).
- Messages come in lists: `on_messages` is a plain function called on the event loop with all messages that one read
  brought for its subscription, in order of arrival. It must not block.
- A permission violation reaches the worker whose subject it names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from appliance.wire.headers import parse_headers


class BusMessage(msgspec.Struct, gc=False, eq=False):
    """One incoming message, undecoded.

    `block` is the header block as it came, b"" when there was none; `reply_to` is "" when none was given. In
    subjects, bytes that are no UTF-8 stand as surrogates: sending to such a subject is refused.

    NB: a struct, because there is one for every message: it is made twice as fast as an object with slots.
    """

    subject: str
    payload: bytes
    block: bytes = b""
    reply_to: str = ""
    _headers: dict[str, str] | None = None
    origin: tuple[str, int] | None = None
    """What tells it from all others where its sender does not: who lends the number, and the number."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The header block, read at the first look."""
        headers = self._headers
        if headers is None:
            headers = self._headers = parse_headers(self.block) if self.block else {}
        return headers


Frame = tuple[str, str, bytes, bytes]
"""One outgoing message: subject, reply subject ("" for none), header block (b"" for none), payload."""

OnMessages = Callable[[list[BusMessage]], None]
"""Takes the messages that one read brought for a subscription, in order; the list is the callee's."""


class Denial(NamedTuple):
    """The broker does not allow something, and says so after the call has returned."""

    text: str
    """The broker's words."""
    is_publish: bool
    subject: str
    """What was denied: the subject as published (an answer's is that of the asker's reply), or as subscribed."""
    queue: str = ""
    """The queue group that was asked for, "" where none was named."""


OnDenied = Callable[[Denial], None]


class Subscription(Protocol):
    """A live subscription. It survives reconnects and, moved by the bus, a change of broker settings."""

    async def stop_intake(self) -> None:
        """Unsubscribe, wait for the barrier, and return when every message that arrived was handed over."""
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
    def connections(self) -> int:
        """How many there were: another number is another connection, perhaps to another broker, also where none was lost."""
        ...

    @property
    def max_payload(self) -> int:
        """Bytes of payload and headers that the broker takes in one message."""
        ...

    @property
    def has_streams(self) -> bool:
        """Whether the server that one is connected to has JetStream; a login may not be allowed to use it."""
        ...

    @property
    def is_congested(self) -> bool:
        """Whether senders should await `wait_until_writable` before they send more; False without a connection."""
        ...

    async def wait_until_writable(self) -> None:
        """Let the event loop turn once, then wait while the socket takes no more.

        Raises:
            BusUnavailable: not connected, or the connection was lost meanwhile.
        """
        ...

    def send(self, frames: Sequence[Frame]) -> None:
        """Hand over all frames, in order, now; they are written at the end of the event loop's turn.

        It does not wait, so whoever sends much looks at `is_congested` between batches.

        Raises:
            BusUnavailable: not connected; nothing was sent.
            PayloadTooLarge: payload and headers of a frame exceed the broker's max_payload; nothing was sent.
            SubjectInvalid: a frame's subject or reply subject must not be sent to; nothing was sent.
        """
        ...

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str = "",
    ) -> None:
        """Send one message, waiting first while the socket takes no more.

        Raises:
            BusUnavailable: not connected; nothing was sent.
            PayloadTooLarge: payload and headers exceed the broker's max_payload.
            SubjectInvalid: a subject we must not send.
        """
        ...

    async def subscribe(
        self,
        subject: str,
        on_messages: OnMessages,
        *,
        queue: str = "",
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
        """Call `callback` when the broker denies a publish on `subject`, on `<subject>.reply` or below that.

        The latter two are answers to messages of `subject`: `Denial.subject` tells which. They are also reported to the
        bus's owner, once a minute whatever their tokens. Returns a function that ends it.
        """
        ...
