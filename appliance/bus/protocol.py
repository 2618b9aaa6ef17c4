"""The client protocol on an authenticated connection: what goes out, what comes in, and the barrier between.

`bus.handshake` connects and logs in with nats-py and then hands its transport to a `Wire`. From there nats-py has no
part: its read loop dies of a reply subject that is not UTF-8, its flush overtakes the command it should flush, its
errors are lower-cased and its subscriptions cost a task switch per message. A `Wire` lives for one connection; when
that is lost, `bus.nats` makes a new one.

The one idea to read it: commands are appended to one list in the order of the calls. The first messages of a turn (of what
one read brings about, or else of the event loop) are written at once, everything else of it together at its end. A PING is
a command like any other, so its PONG proves that everything before it was processed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from appliance.bus.base import BusMessage, Frame
from appliance.bus.frames import write_frames
from appliance.bus.parser import FrameParser
from appliance.bus.subscription import NatsSubscription
from appliance.errors import BusUnavailable

_WRITE_AT_BYTES = 64 * 1024
"""Commands waiting beyond this are written at once rather than at the end of the loop's turn."""


@dataclass(slots=True, kw_only=True)
class WireEvents:
    """What a `Wire` tells its owner. None of them may block."""

    on_lost: Callable[[Wire, str], None]
    """Exactly once per wire: the connection is gone, with the reason in words."""
    on_error: Callable[[str], None]
    """The text of an ``-ERR`` line in its own case."""
    on_failure: Callable[[str], None]
    """A callback of a subscription raised: which, and what."""
    on_info: Callable[[Wire, bytes], None]
    """The JSON of an INFO line that came later than the first."""


class Wire(asyncio.Protocol):
    """One live connection. Owned by `NatsBus`; every method is called on its event loop.

    `subscriptions` is the bus's own table, shared by the old and the new wire while settings change.
    """

    def __init__(
        self,
        *,
        server: str,
        max_payload: int,
        subscriptions: Mapping[str, NatsSubscription],
        events: WireEvents,
    ) -> None:
        self.server = server
        self.max_payload = max_payload
        self.has_streams = False
        """Whether the server says that it has JetStream."""
        self.keep_alive: object = None
        """Whatever must not be collected while the transport is in use (the client that opened it)."""
        self.announced: set[str] = set()
        """Ids of subscriptions that were sent on this wire."""
        self.messages_in = 0
        self.was_heard = False
        """Whether any byte came since the owner last cleared it: a liveness sign beside the PONG."""
        self.is_congested = False
        """Publishers must wait: the socket takes no more, or this turn of the loop has sent enough."""
        self._subscriptions = subscriptions
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._lost_reason: str | None = None
        self._known_subjects: set[str] = set()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._is_write_due = False
        self._is_reading = False
        """Whether a read is being handled, which ends with a write of what is left."""
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._closed = asyncio.Event()
        self._pongs: deque[asyncio.Future[None]] = deque()
        self._parser = FrameParser(self._deliver, self._handle_control)

    # Sending

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone; it never comes back on this wire."""
        return self._lost_reason is not None

    @property
    def lost_reason(self) -> str | None:
        """Why the connection is gone; None while it is there."""
        return self._lost_reason

    def take_over(self, transport: asyncio.Transport, leftover: bytes) -> None:
        """Become the protocol of `transport`; `leftover` was read by the one before and not used."""
        self._transport = transport
        transport.set_protocol(self)
        # the loss was told to the protocol before us, so nobody would tell it again
        if transport.is_closing():
            self._lose("the connection closed during login")
            return
        transport.resume_reading()
        if leftover:
            self.data_received(leftover)

    def publish(self, frames: Sequence[Frame]) -> None:
        """Send messages, in order: at once, or with the others at the end of this turn of the loop.

        Raises:
            BusUnavailable, PayloadTooLarge, SubjectInvalid: as `base.Bus.send`; nothing was sent.
        """
        if self._lost_reason is not None:
            raise BusUnavailable(f"not connected to the broker: {self._lost_reason}")
        pieces, size_bytes = write_frames(
            frames, max_payload=self.max_payload, known=self._known_subjects
        )
        self._out += pieces
        self._out_bytes += size_bytes
        if not self._is_write_due:
            self._write_out()  # NB: what else this turn has to do may take long, and somebody waits for these
            self._write_at_end_of_turn()
        elif self._out_bytes > _WRITE_AT_BYTES:
            self._write_out()
            # the end of this turn is still to come, and with it the end of the congestion
            self._is_write_due = self.is_congested = True

    async def wait_until_writable(self) -> None:
        """Wait for the next turn of the loop, and then while the socket takes no more.

        Raises:
            BusUnavailable: the connection was lost meanwhile.
        """
        await asyncio.sleep(0)
        await self._can_write.wait()
        if self._lost_reason is not None:
            raise BusUnavailable(f"not connected to the broker: {self._lost_reason}")

    def announce(self, subscription: NatsSubscription) -> None:
        """Send SUB, once per wire; unconfirmed until a `barrier` that follows."""
        if subscription.sid in self.announced:
            return
        self.announced.add(subscription.sid)
        subscription.is_confirmed = False
        queue = f" {subscription.queue}" if subscription.queue else ""
        self._send(f"SUB {subscription.subject}{queue} {subscription.sid}\r\n".encode())

    def renounce(self, subscription: NatsSubscription) -> None:
        """Send UNSUB if the subscription was announced here; messages in flight are still handed over."""
        if subscription.sid in self.announced:
            self.announced.discard(subscription.sid)
            self._send(f"UNSUB {subscription.sid}\r\n".encode())

    async def barrier(self) -> None:
        """Return when the broker has processed all that was sent before, and what it sent before was handed over.

        Raises:
            BusUnavailable: the connection was lost first.
        """
        await self.ping()

    def ping(self) -> asyncio.Future[None]:
        """Send PING; the future is done at its PONG, or holds BusUnavailable when the connection is lost."""
        pong = self._loop.create_future()
        if self._lost_reason is not None:
            pong.set_exception(BusUnavailable(f"not connected to the broker: {self._lost_reason}"))
            pong.exception()  # marks it as seen, as in _lose
            return pong
        self._pongs.append(pong)
        self._send(b"PING\r\n")
        return pong

    def drop(self, reason: str) -> None:
        """Give the connection up at once; what is not yet written is discarded."""
        transport = self._transport
        self._lose(reason)
        if transport is not None:
            transport.abort()

    def close(self) -> None:
        """Write what is queued and close; not reported as a loss."""
        self._write_out()
        # the owner knows; a loss that is reported would have it connect anew
        self._events.on_lost = _ignore_loss
        self._lose("closed")
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self, timeout_s: float) -> None:
        """Wait until the transport is gone; after `timeout_s` it is cut off."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()

    def _send(self, command: bytes) -> None:
        if self._lost_reason is not None:
            return
        self._out.append(command)
        self._out_bytes += len(command)
        if not self._is_write_due:
            self._write_at_end_of_turn()

    def _write_at_end_of_turn(self) -> None:
        self._is_write_due = True
        if not self._is_reading:
            self._loop.call_soon(self._write_out)

    def _write_out(self) -> None:
        self._is_write_due = False
        self.is_congested = not self._can_write.is_set()
        if self._out and self._lost_reason is None and self._transport is not None:
            data = b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self._transport.write(data)  # NB: may call pause_writing

    # asyncio.Protocol

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self.is_congested = True
        self._can_write.clear()

    def resume_writing(self) -> None:
        """The transport's buffer has emptied."""
        self.is_congested = False
        self._can_write.set()

    def eof_received(self) -> None:
        """The server closed its side; the transport closes itself after this."""

    def connection_lost(self, error: Exception | None) -> None:
        """The transport is gone."""
        self._closed.set()
        self._lose(
            str(error) or type(error).__name__ if error else "the broker closed the connection"
        )

    def _lose(self, reason: str) -> None:
        if self._lost_reason is not None:
            return
        self._lost_reason = reason
        self._out.clear()
        # nobody must wait for a socket that is gone: who waits sees the reason and raises
        self._can_write.set()
        while self._pongs:
            pong = self._pongs.popleft()
            if not pong.done():
                pong.set_exception(BusUnavailable(f"connection to the broker lost: {reason}"))
                pong.exception()  # marks it as seen: nobody may be waiting, and that is no news
        self._events.on_lost(self, reason)

    # Receiving

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket; whatever they are, this does not raise."""
        self.was_heard = True
        self._is_reading = True
        try:
            self._parser.feed(data)
        except ValueError as error:
            self.drop(f"the broker sent what is no NATS protocol: {error}")
        finally:
            self._is_reading = False
        if self._is_write_due:
            self._write_out()

    def _deliver(self, sid: str, messages: list[BusMessage]) -> None:
        self.messages_in += len(messages)
        subscription = self._subscriptions.get(sid)
        if subscription is None:
            return
        try:
            subscription.on_messages(messages)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - one bad callback must not end the reader
            self._events.on_failure(
                f"taking messages of {subscription.subject} failed: {type(error).__name__}: {error}"
            )

    def _handle_control(self, line: bytes) -> None:
        word = line[:5].upper().split(b" ")[0]
        if word == b"PING":
            self._send(b"PONG\r\n")
        elif word == b"PONG":
            if self._pongs:
                pong = self._pongs.popleft()
                if not pong.done():
                    pong.set_result(None)
        elif word == b"-ERR":
            self._events.on_error(line[5:].decode("utf-8", "replace").strip(" '"))
        elif word == b"INFO":
            self._events.on_info(self, line[5:])
        elif word != b"+OK":
            raise ValueError(f"unknown command {line[:20]!r}")


def _ignore_loss(_wire: Wire, _reason: str) -> None:
    """A wire that its owner closed has nothing to report."""
