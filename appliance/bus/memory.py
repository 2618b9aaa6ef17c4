"""A broker and its clients within one process, by NATS's rules: for tests in virtual time, and without a network.

What is the same as with nats-server, and held to it by tests that run on both: subjects with wildcards, queue groups,
"no responders", permissions with the server's words, max_payload, messages to oneself, order on a connection, nothing
buffered without a connection, subscriptions confirmed before a new connection is used, and the barrier.

Between client and broker lie two lines, one each way, that move when the event loop turns (`call_soon`), so all of it
works on a loop whose time is virtual, and idle lines hold no timer. What can go wrong on the way is put there by the
test: `policy` drops, doubles, delays and so reorders; `stall` silences a client, `lose` takes its connection.

Not here: accounts, JetStream, `allow_responses`, slow consumers.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from appliance.bus.base import BusMessage, Frame, OnDenied, OnMessages
from appliance.bus.denials import DenialRouter
from appliance.bus.events import BusEvents, Reporter
from appliance.bus.frames import check_subscribe_subject, is_covered, write_frames
from appliance.bus.subscription import NatsSubscription, SubscriptionTable
from appliance.errors import BusUnavailable
from appliance.wire.headers import encode_headers

_CONGESTED_AT_BYTES = 64 * 1024
_SHORT_BREAK_S = 1.0
"""How long a subscription waits for a lost connection to come back before it is given up."""
_MAX_READ_MESSAGES = 512
"""Messages that one read brings at most; a socket's buffer has an end, too."""


class Passage(NamedTuple):
    """One message on its way from the broker to one client; `sender` is "" for the broker's own."""

    sender: str
    receiver: str
    message: BusMessage


Policy = Callable[[Passage], Iterable[float]]
"""Says after how many seconds each copy arrives: ``[0]`` as it should, ``[]`` lost, ``[0, 2]`` doubled and the second
late. A late one is overtaken by those behind it. Whoever wants chance in it seeds it."""


def _let_pass(_passage: Passage) -> Iterable[float]:
    return (0.0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Subjects, with wildcards, as in nats-server's configuration; None allows all that is not denied."""

    publish_allow: Sequence[str] | None = None
    publish_deny: Sequence[str] = ()
    subscribe_allow: Sequence[str] | None = None
    subscribe_deny: Sequence[str] = ()

    def may_publish(self, subject: str) -> bool:
        """Whether a client with these may publish there."""
        return _is_allowed(subject, self.publish_allow, self.publish_deny)

    def may_subscribe(self, subject: str) -> bool:
        """Whether a client with these may subscribe to it, or be sent what was published there."""
        return _is_allowed(subject, self.subscribe_allow, self.subscribe_deny)


def _is_allowed(subject: str, allowed: Sequence[str] | None, denied: Sequence[str]) -> bool:
    if allowed is not None and not any(is_covered(subject, by=pattern) for pattern in allowed):
        return False
    return not any(is_covered(subject, by=pattern) for pattern in denied)


_FREE = Permissions()


def is_heard(subject: str, pattern: str) -> bool:
    """Whether who subscribed `pattern` hears what is published on `subject`."""
    # first what tells most of them apart at a glance: an inbox of its own for each question is heard by one of all
    return subject.startswith(_literal_head(pattern)) and _is_covered(subject, pattern)


@functools.lru_cache(maxsize=20_000)
def _literal_head(pattern: str) -> str:
    """What a subject begins with that belongs to it: all before its first wildcard."""
    return pattern.partition("*")[0].partition(">")[0]


@functools.lru_cache(maxsize=20_000)
def _is_covered(subject: str, pattern: str) -> bool:
    return is_covered(subject, by=pattern)


_Word = Callable[[], None]
"""What one end does when a command, or an answer, that is no message arrives."""


class _Session:
    """One connection as the broker knows it: who subscribed what, and the line to the client."""

    def __init__(self, client: MemoryBus) -> None:
        self.client = client
        self.name = client.name
        self.permissions = client.permissions
        self.subscriptions: dict[str, tuple[str, str]] = {}
        """Subject and queue group by subscription id."""
        self.is_stalled = False
        """Nothing moves on the lines of this connection; the broker has not noticed."""
        self.to_client: deque[tuple[str, BusMessage] | _Word] = deque()
        self._is_read_due = False

    def unsubscribe(self, sid: str) -> None:
        """Take an UNSUB; what is on the line already still arrives."""
        self.subscriptions.pop(sid, None)

    def put(self, item: tuple[str, BusMessage] | _Word) -> None:
        """Append to what the client will read."""
        self.to_client.append(item)
        self.wake()

    def wake(self) -> None:
        """Have the client read in the next turn of the loop."""
        if not self._is_read_due and self.to_client and not self.is_stalled:
            self._is_read_due = True
            asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        self._is_read_due = False
        if self.is_stalled or self.client.session is not self:
            return
        gathered: dict[str, list[BusMessage]] = {}
        for _ in range(min(len(self.to_client), _MAX_READ_MESSAGES)):
            item = self.to_client.popleft()
            if isinstance(item, tuple):
                gathered.setdefault(item[0], []).append(item[1])
                continue
            self._hand_over(gathered)
            item()
        self._hand_over(gathered)
        self.wake()

    def _hand_over(self, gathered: dict[str, list[BusMessage]]) -> None:
        for sid, messages in gathered.items():
            self.client.take(sid, messages)
        gathered.clear()


class MemoryBroker:
    """Routes between the `MemoryBus`es that connect to it. Everything runs on one event loop."""

    def __init__(
        self,
        *,
        rng: random.Random,
        max_payload: int = 1_048_576,
        policy: Policy = _let_pass,
    ) -> None:
        """Up and empty.

        Args:
            rng: chooses which member of a queue group gets a message.
            max_payload: bytes of headers and payload in one message.
        """
        self.max_payload = max_payload
        self.has_streams = False
        self.policy = policy
        self.is_up = True
        self._rng = rng
        self._sessions: list[_Session] = []
        self._waiting: list[Callable[[], None]] = []

    def stop(self) -> None:
        """Go away, as a broker that is killed: every client loses its connection, and cannot come back."""
        self.is_up = False
        for session in tuple(self._sessions):
            session.client.lose("the broker closed the connection")
        self._sessions.clear()

    def start(self) -> None:
        """Come back; clients that wait connect within their `reconnect_wait_s`."""
        self.is_up = True
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def when_up(self, call: Callable[[], None]) -> None:
        """Call now, or at the next `start`."""
        if self.is_up:
            call()
        else:
            self._waiting.append(call)

    def connect(self, session: _Session) -> None:
        """A client is there."""
        self._sessions.append(session)

    def forget(self, session: _Session) -> None:
        """A connection is gone, and the broker has noticed."""
        with suppress(ValueError):
            self._sessions.remove(session)

    def route(self, sender: _Session, frame: Frame) -> None:
        """Take one published message: to every plain subscription, and to one member of each queue group."""
        subject, reply_to, block, payload = frame
        if not sender.permissions.may_publish(subject):
            self._deny(sender, f'Permissions Violation for Publish to "{subject}"')
            return
        groups: dict[str, list[tuple[_Session, str]]] = {}
        found: list[tuple[_Session, str]] = []
        for session in self._sessions:
            for sid, (pattern, queue) in session.subscriptions.items():
                if is_heard(subject, pattern):
                    if not session.permissions.may_subscribe(subject):
                        continue  # below a wildcard that is allowed as a whole
                    if queue:
                        groups.setdefault(queue, []).append((session, sid))
                    else:
                        found.append((session, sid))
        found += [self._rng.choice(members) for members in groups.values()]
        for session, sid in found:
            message = BusMessage(subject, payload, block, reply_to)
            self._pass_on(sender.name, session, sid, message)
        if not found and reply_to:
            self._answer_nobody(sender, subject, reply_to)

    def subscribe(self, session: _Session, sid: str, subject: str, queue: str) -> None:
        """Take a SUB."""
        if session.permissions.may_subscribe(subject):
            session.subscriptions[sid] = (subject, queue)
            return
        group = f' using queue "{queue}"' if queue else ""
        self._deny(session, f'Permissions Violation for Subscription to "{subject}"{group}')

    def _deny(self, session: _Session, text: str) -> None:
        session.put(lambda: session.client.take_error(text))

    def _answer_nobody(self, sender: _Session, subject: str, reply_to: str) -> None:
        for sid, (pattern, queue) in sender.subscriptions.items():
            if not queue and is_heard(reply_to, pattern):
                block = f"NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n".encode()
                self._pass_on("", sender, sid, BusMessage(reply_to, b"", block, ""))
                return

    def _pass_on(self, sender: str, session: _Session, sid: str, message: BusMessage) -> None:
        for delay_s in self.policy(Passage(sender, session.name, message)):
            if delay_s <= 0:
                session.put((sid, message))
            else:
                asyncio.get_running_loop().call_later(delay_s, session.put, (sid, message))


class MemoryBus:
    """Implements `base.Bus` on a `MemoryBroker`. Life: `open` -> use -> `close`."""

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        name: str,
        permissions: Permissions,
        events: BusEvents,
        reconnect_wait_s: float,
    ) -> None:
        """Store only; use `open`."""
        self.name = name
        self.permissions = permissions
        self.session: _Session | None = None
        """The connection as it is now, in use or being prepared."""
        self._broker = broker
        self._reconnect_wait_s = reconnect_wait_s
        self._reporter = Reporter(events)
        self._subscriptions = SubscriptionTable()
        self._denials = DenialRouter(self._subscriptions, self._reporter.report)
        self._sids = itertools.count(1)
        self._known_subjects: set[str] = set()
        self._callbacks: list[Callable[[], None]] = []
        self._connected = asyncio.Event()
        self._connects = 0
        self._epoch = 0
        self._lost_at = 0.0
        self._is_closed = False
        self._commands: deque[Frame | _Word] = deque()
        self._command_bytes = 0
        self._is_write_due = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._pongs: list[asyncio.Future[None]] = []

    @classmethod
    async def open(
        cls,
        broker: MemoryBroker,
        *,
        name: str,
        permissions: Permissions = _FREE,
        events: BusEvents | None = None,
        reconnect_wait_s: float = 0.05,
    ) -> MemoryBus:
        """Connect if the broker is up; otherwise as soon as it is."""
        bus = cls(
            broker,
            name=name,
            permissions=permissions,
            events=events or BusEvents(),
            reconnect_wait_s=reconnect_wait_s,
        )
        bus._lost_at = asyncio.get_running_loop().time()
        bus._connect()
        if broker.is_up:
            await bus._connected.wait()
        return bus

    async def close(self) -> None:
        """Have what was sent taken, and what was under way handed over, unless the line is dead; then go."""
        session = self.session
        if session is not None and self._connected.is_set() and not session.is_stalled:
            with suppress(BusUnavailable):
                await self.barrier()
        self._is_closed = True
        if self.session is not None:
            self._broker.forget(self.session)
            self._drop_session("closed")
        self._subscriptions.clear()

    # What a test does to a client

    def lose(self, reason: str = "connection reset", *, noticed_after_s: float = 0.0) -> None:
        """Take the connection away; what is on its lines is lost. The client connects anew by itself.

        Args:
            noticed_after_s: how long the broker goes on sending to the dead connection, in its queue groups too.
        """
        session = self.session
        if session is None:
            return
        session.is_stalled = True
        if noticed_after_s > 0:
            loop = asyncio.get_running_loop()
            loop.call_later(noticed_after_s, self._broker.forget, session)
        else:
            self._broker.forget(session)
        was_connected = self._connected.is_set()
        self._drop_session(reason)
        if was_connected:
            self._epoch += 1
            self._reporter.report(f"connection to the broker lost: {reason}")
            self._reporter.disconnected()
        self._reconnect_later()

    def stall(self) -> None:
        """Let nothing through on the lines of this client, as if one of both ends was stopped by SIGSTOP."""
        if self.session is not None:
            self.session.is_stalled = True

    def resume(self) -> None:
        """End a `stall`: what waited on the lines goes on."""
        session = self.session
        if session is not None:
            session.is_stalled = False
            session.wake()
            self._write_later()

    # base.Bus

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection with every subscription confirmed."""
        return self._connected.is_set()

    @property
    def connections(self) -> int:
        """How many there were."""
        return self._connects

    @property
    def connection_epoch(self) -> int:
        """Grows with every loss of connection."""
        return self._epoch

    @property
    def max_payload(self) -> int:
        """Bytes of payload and headers that the broker takes in one message."""
        return self._broker.max_payload

    @property
    def has_streams(self) -> bool:
        """Whether it has JetStream."""
        return self._broker.has_streams

    @property
    def is_congested(self) -> bool:
        """Whether senders should await `wait_until_writable` first."""
        return self.is_connected and self._command_bytes > _CONGESTED_AT_BYTES

    async def wait_until_writable(self) -> None:
        """Wait for the next turn of the loop, and then while the line takes no more; see `base.Bus`."""
        epoch = self._epoch
        self._require_connection()
        await asyncio.sleep(0)
        await self._writable.wait()
        if self._epoch != epoch:
            raise BusUnavailable("connection to the broker lost")

    def send(self, frames: Sequence[Frame]) -> None:
        """Hand over all frames or none, now; see `base.Bus`."""
        self._require_connection()
        _, size_bytes = write_frames(
            frames, max_payload=self.max_payload, known=self._known_subjects
        )
        self._commands += frames
        self._command_bytes += size_bytes
        if self._command_bytes > _CONGESTED_AT_BYTES:
            self._writable.clear()
        self._write_later()

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str = "",
    ) -> None:
        """Send one message; see `base.Bus`."""
        block = encode_headers(headers) if headers else b""
        while self.is_congested:
            await self.wait_until_writable()
        self.send([(subject, reply_to, block, payload)])

    async def subscribe(
        self,
        subject: str,
        on_messages: OnMessages,
        *,
        queue: str = "",
        on_denied: OnDenied | None = None,
    ) -> NatsSubscription:
        """Subscribe and return when the broker has it; see `base.Bus`."""
        check_subscribe_subject(subject, queue)
        subscription = NatsSubscription(
            sid=str(next(self._sids)),
            subject=subject,
            queue=queue,
            on_messages=on_messages,
            on_denied=on_denied,
            stop=self._stop_intake,
        )
        self._subscriptions.add(subscription)
        try:
            while not subscription.is_confirmed:
                await self._confirm(subscription)
        finally:
            if not subscription.is_confirmed:
                self._renounce(subscription)
                self._subscriptions.remove(subscription)
        return subscription

    async def barrier(self) -> None:
        """Return when the broker has processed all that was sent before, and what it sent before was handed over.

        Raises:
            BusUnavailable: not connected, or the connection was lost first.
        """
        self._require_connection()
        await self._ping()

    def on_connected(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every (re)connect; returns a function that ends it."""
        self._callbacks.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._callbacks.remove(callback)

        return end

    def on_publish_denied(self, subject: str, callback: OnDenied) -> Callable[[], None]:
        """Call `callback` when the broker denies a publish; see `base.Bus`."""
        return self._denials.on_publish_denied(subject, callback)

    # The lines

    def take(self, sid: str, messages: list[BusMessage]) -> None:
        """Messages of one read arrived for a subscription."""
        subscription = self._subscriptions.by_sid.get(sid)
        if subscription is None:
            return
        try:
            subscription.on_messages(messages)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - one bad callback must not end the reader
            self._reporter.report(
                f"taking messages of {subscription.subject} failed: {type(error).__name__}: {error}"
            )

    def take_error(self, text: str) -> None:
        """An ``-ERR`` line arrived."""
        self._denials.handle(text)

    def _write_later(self) -> None:
        if not self._is_write_due and self._commands:
            self._is_write_due = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._is_write_due = False
        session = self.session
        if session is None or session.is_stalled:
            return
        commands, self._commands = self._commands, deque()
        self._command_bytes = 0
        self._writable.set()
        for command in commands:
            if self.session is not session:
                return  # a policy took the connection
            if isinstance(command, tuple):
                self._broker.route(session, command)
            else:
                command()

    def _command(self, word: _Word) -> None:
        self._commands.append(word)
        self._write_later()

    def _ping(self) -> asyncio.Future[None]:
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session = self.session
        assert session is not None
        self._pongs.append(pong)

        def answer() -> None:
            if not pong.done():
                pong.set_result(None)
            with suppress(ValueError):
                self._pongs.remove(pong)

        self._command(lambda: session.put(answer))
        return pong

    # Connections

    def _reconnect_later(self) -> None:
        if not self._is_closed:
            self._broker.when_up(self._connect_later)

    def _connect_later(self) -> None:
        asyncio.get_running_loop().call_later(self._reconnect_wait_s, self._connect)

    def _connect(self) -> None:
        if self._is_closed or self.session is not None:
            return
        if not self._broker.is_up:
            self._reconnect_later()
            return
        self.session = _Session(self)
        self._broker.connect(self.session)
        self._announce_missing(set())

    def _announce_missing(self, announced: set[str]) -> None:
        """Announce, and look again when that is confirmed: the connection is used when nothing is missing."""
        missing = [
            item
            for item in self._subscriptions.by_sid.values()
            if item.sid not in announced and not item.is_closing
        ]
        if announced and not missing:
            self._adopt()
            return
        for item in missing:
            self._announce(item)

        def confirmed(pong: asyncio.Future[None]) -> None:
            if pong.cancelled() or pong.exception() is not None:
                return
            for item in missing:
                item.is_confirmed = True
            self._announce_missing(announced | {item.sid for item in missing} | {""})

        self._ping().add_done_callback(confirmed)

    def _adopt(self) -> None:
        self._connects += 1
        self._connected.set()
        self._reporter.connected(is_first=self._connects == 1)
        for callback in tuple(self._callbacks):
            self._reporter.call(callback)

    def _drop_session(self, reason: str) -> None:
        self.session = None
        self._connected.clear()
        self._lost_at = asyncio.get_running_loop().time()
        self._commands.clear()
        self._command_bytes = 0
        self._writable.set()
        pongs, self._pongs = self._pongs, []
        for pong in pongs:
            if not pong.done():
                pong.set_exception(BusUnavailable(f"connection to the broker lost: {reason}"))
                pong.exception()  # marks it as seen: nobody may be waiting, and that is no news

    def _require_connection(self) -> None:
        if not self._connected.is_set():
            raise BusUnavailable("not connected to the broker")

    # Subscriptions

    def _announce(self, subscription: NatsSubscription) -> None:
        session = self.session
        assert session is not None
        item = subscription
        item.is_confirmed = False
        self._command(lambda: self._broker.subscribe(session, item.sid, item.subject, item.queue))

    def _renounce(self, subscription: NatsSubscription) -> None:
        session = self.session
        if session is not None:
            self._command(lambda: session.unsubscribe(subscription.sid))

    async def _confirm(self, subscription: NatsSubscription) -> None:
        if not self._connected.is_set():
            # a short break is waited out; in a long one nothing must stand still because of this
            left_s = _SHORT_BREAK_S - (asyncio.get_running_loop().time() - self._lost_at)
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    await self._connected.wait()
            except TimeoutError:
                raise BusUnavailable("not connected to the broker") from None
            return  # the new connection may have it already
        self._announce(subscription)
        with suppress(BusUnavailable):
            await self._ping()
            subscription.is_confirmed = True

    async def _stop_intake(self, subscription: NatsSubscription) -> None:
        if subscription.is_closing:
            return
        subscription.is_closing = True  # from here on no new connection announces it
        try:
            if self.session is not None and not self.session.is_stalled:
                self._renounce(subscription)
                with suppress(BusUnavailable):
                    await self._ping()
        finally:
            self._subscriptions.remove(subscription)
