"""JetStream's own API, asked over the bus: makes streams and consumers what a config asks for, and says what is.

No client library is between: a stream's settings go back to the broker with everything in them that we do not know, and
there is no second connection with a login of its own.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from appliance.bus.base import Bus, BusMessage, Denial, Frame, Subscription
from appliance.bus.batches import Batches
from appliance.core.specs import StreamSettings
from appliance.core.streams import (
    NO_RESPONDERS,
    Config,
    Count,
    Json,
    api_prefix,
    consumer_config,
    consumer_differences,
    describe_drift,
    describe_harm,
    differences,
    fixed_config,
    inbox_subjects,
    name_of_consumer,
    recorded_subjects,
    stream_config,
    with_subjects,
    without_subjects,
)
from appliance.errors import BusDenied, BusUnavailable, StreamRefused

API_TIMEOUT_S = 5.0
"""A cluster that chooses a leader answers nothing meanwhile."""
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE = 10037
_STREAM_IN_USE = 10058
_CONSUMER_EXISTS = 10148
OUR_MARK = {"appliance": "1"}
"""The metadata of streams and consumers that we have made."""


class StreamState(NamedTuple):
    """A stream as it is: its settings and what it holds."""

    config: Config
    state: Config
    created: str


class ConsumerState(NamedTuple):
    """A consumer as it is."""

    config: Config
    waiting: int
    """Messages not delivered yet."""
    in_hand: int
    """Delivered and not acknowledged."""
    redelivered: int
    """Of these the ones that were delivered more than once."""
    floor: int
    """Everything up to this place in the stream is acknowledged."""
    deliveries: int
    """So many there were."""
    paused_until: str
    """When it delivers again, as the broker writes it, where somebody has it deliver nothing; "" where it does."""


class StoredMessage(NamedTuple):
    """A message of a stream."""

    sequence: int
    stored_ns: int | None
    """When it was stored, since the epoch; None where what the broker says cannot be read."""


def _nanoseconds_of(moment: str) -> int | None:
    """RFC 3339 with nanoseconds, as Go writes it, in nanoseconds since the epoch."""
    try:
        whole, _, fraction = moment.rstrip("Z").partition(".")
        seconds = round(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        return seconds * 1_000_000_000 + int(f"{fraction:0<9.9}")
    except ValueError:
        return None


def new_inbox(node: str) -> str:
    """How the subjects begin at which a node hears what it asked for; what comes after the node cannot be guessed."""
    return f"{inbox_subjects(node)[:-1]}{secrets.token_hex(8)}"


class _StreamSettings(msgspec.Struct):
    name: str
    subjects: list[str] | None = None


class _StreamHolds(msgspec.Struct):
    messages: Count = 0
    bytes: Count = 0
    last_seq: Count = 0
    subjects: dict[str, Count] | None = None


class _StreamInfo(msgspec.Struct):
    config: _StreamSettings
    created: str
    state: _StreamHolds = msgspec.field(default_factory=_StreamHolds)


class _Place(msgspec.Struct):
    stream_seq: Count = 0
    consumer_seq: Count = 0


class _ConsumerInfo(msgspec.Struct):
    config: dict[str, Any]
    num_pending: Count = 0
    num_ack_pending: Count = 0
    num_redelivered: Count = 0
    ack_floor: _Place = msgspec.field(default_factory=_Place)
    delivered: _Place = msgspec.field(default_factory=_Place)
    paused: bool = False


class _Message(msgspec.Struct):
    seq: Count
    time: str = ""
    data: bytes = b""


class _Found(msgspec.Struct):
    message: _Message


Shape = TypeVar("Shape")


def _read(found: Json, shape: type[Shape], words: str) -> Shape:
    """What an answer of the API says, of the shape that it must have.

    Raises:
        BusUnavailable: it has another one.
    """
    try:
        return msgspec.convert(found, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BusUnavailable(f"the broker's answer on {words} cannot be read: {error}") from error


Question = tuple[str, bytes, bytes]
"""Subject, header block and body of a request."""


Counts = Callable[[BusMessage], bool]
"""Whether an answer is one of whoever was asked."""


class _Asked:
    """Questions that were sent together, until all are answered."""

    def __init__(self, count: int, batches: Batches | None, counts: Counts) -> None:
        self.batches = batches
        self._counts = counts
        self.answers: list[BusMessage | None] = [None] * count
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open = count

    def answer(self, at: int, message: BusMessage) -> None:
        """One of them is answered."""
        if self.answers[at] is None and self._counts(message):
            self.answers[at] = message
            self._open -= 1
            if not self._open and not self.ended.done():
                self.ended.set_result(None)

    def deny(self, denial: Denial) -> None:
        """The broker takes one of them, or its answer, no further."""
        if not self.ended.done():
            self.ended.set_exception(BusDenied(denial.text))


class JetStreamApi:
    """Requests of one node to one domain and their answers; nothing is subscribed before the first request."""

    def __init__(self, bus: Bus, node: str, domain: str = "") -> None:
        self._bus = bus
        self.domain = domain
        self.prefix = api_prefix(domain)
        """How the subjects of the API begin."""
        self._inbox = new_inbox(node)
        self._tokens = 0
        self._waiting: dict[str, tuple[_Asked, int]] = {}
        self._subscription: Subscription | None = None
        self._subscribing = asyncio.Lock()
        self._denied = ""

    async def request(
        self,
        subject: str,
        body: bytes = b"",
        *,
        block: bytes = b"",
        timeout_s: float = API_TIMEOUT_S,
    ) -> BusMessage:
        """Ask, and wait for the one answer.

        Raises:
            BusUnavailable: the broker is away, nobody answers in time, or it denies the question or the answer.

        Cancellation: the answer is ignored.
        """
        (answer,) = await self.request_all([(subject, block, body)], timeout_s=timeout_s)
        if answer is None:
            raise BusUnavailable(f"no answer of the broker on {subject}")
        return answer

    async def request_all(
        self,
        questions: Sequence[Question],
        *,
        timeout_s: float = API_TIMEOUT_S,
        batches: Batches | None = None,
        counts: Counts = bool,
    ) -> list[BusMessage | None]:
        """Ask all at once, and wait for an answer to each; None for those that are not answered in time.

        With `batches` they are messages for one stream, which may go as one. Where others may answer, too, `counts` tells
        their answers apart.

        Raises:
            BusUnavailable: the broker is away, or it denies one of the questions or the answers.

        Cancellation: the answers are ignored.
        """
        await self._listen()
        asked = _Asked(len(questions), batches, counts)
        frames: list[Frame] = []
        for at, (subject, block, body) in enumerate(questions):
            self._tokens += 1
            token = f"{self._inbox}.{self._tokens}"
            self._waiting[token] = asked, at
            frames.append((subject, token, block, body))
        endings = [self._bus.on_publish_denied(subject, asked.deny) for subject, _, _ in questions]
        try:
            max_payload = self._bus.max_payload
            self._bus.send(frames if batches is None else batches.prepare(frames, max_payload))
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await asked.ended
        finally:
            for end in endings:
                end()
            for _, token, _, _ in frames:
                del self._waiting[token]
        return asked.answers

    async def _listen(self) -> None:
        async with self._subscribing:
            if self._denied:
                subscription, self._subscription, self._denied = self._subscription, None, ""
                if subscription is not None:
                    await subscription.stop_intake()
            if self._subscription is None:
                self._subscription = await self._bus.subscribe(
                    f"{self._inbox}.*", self._take, on_denied=self._on_denied
                )
            if self._denied:
                raise BusDenied(self._denied)

    def _on_denied(self, denial: Denial) -> None:
        self._denied = denial.text
        for asked, _ in self._waiting.values():
            asked.deny(denial)

    def _take(self, messages: list[BusMessage]) -> None:
        for message in messages:
            found = self._waiting.get(message.subject)
            if found is None:
                continue
            asked, at = found
            if asked.batches is None:
                asked.answer(at, message)
                continue
            answers, alone = asked.batches.open(message)
            for answer in answers:
                if answer.subject in self._waiting:
                    asked.answer(self._waiting[answer.subject][1], answer)
            if alone:
                with suppress(BusUnavailable):  # else nobody answers, and that is told
                    self._bus.send(alone)

    async def ask(self, words: str, body: Config | None = None) -> Json:
        """One request of the API, such as ``STREAM.INFO.<name>``.

        Raises:
            BusUnavailable: the broker is away or denies it, or has no JetStream.
            StreamRefused: JetStream says no.
        """
        data = json.dumps(body).encode() if body else b""
        answer = await self.request(f"{self.prefix}.{words}", data)
        if answer.block.startswith(NO_RESPONDERS):
            where = f"no domain {self.domain}" if self.domain else "no JetStream"
            raise BusUnavailable(f"the broker reaches {where} for this user")
        try:
            found = json.loads(answer.payload)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise BusUnavailable(f"the broker's answer on {words} cannot be read")
        error = found.get("error")
        if isinstance(error, dict):
            code = error.get("err_code", 0)
            raise StreamRefused(
                f"JetStream refuses {words}",
                str(error.get("description", error.get("code", "")))[:200],
                code if isinstance(code, int) else 0,
            )
        return found

    # -- streams ----------------------------------------------------------------------------------

    async def find_stream(self, name: str) -> StreamState | None:
        """A stream as it is; None where there is none of that name. Raises as `ask`."""
        words = f"STREAM.INFO.{name}"
        try:
            found = await self.ask(words)
        except StreamRefused as error:
            if error.code == STREAM_NOT_FOUND:
                return None
            raise
        read = _read(found, _StreamInfo, words)
        if read.config.name != name:
            raise BusUnavailable(f"the broker's answer on {words} is about another stream")
        return StreamState(found["config"], found.get("state", {}), read.created)

    async def count_of(self, name: str, subject: str) -> int:
        """How many messages of a subject a stream holds, those that are delivered no more included. Raises as `ask`."""
        words = f"STREAM.INFO.{name}"
        try:
            found = await self.ask(words, {"subjects_filter": subject})
        except StreamRefused as error:
            if error.code == STREAM_NOT_FOUND:
                return 0
            raise
        return (_read(found, _StreamInfo, words).state.subjects or {}).get(subject, 0)

    async def ensure_stream(
        self, settings: StreamSettings, name: str, *subjects_kept: str, is_ours: bool
    ) -> tuple[StreamState, str]:
        """Make the stream, or make it what the config asks for; what was not so, in words.

        Only the subject's own node (`is_ours`) changes limits: a sender whose config is older must not undo them. Where
        another one keeps the streams the broker denies it, which is no trouble while the subjects are recorded.

        Raises as `ask`.
        """
        recorded = [one for kept in subjects_kept for one in recorded_subjects(kept, name)]
        wanted = stream_config(settings, name)
        found = await self.find_stream(name)
        if found is None:
            made = {
                **wanted,
                **fixed_config(settings),
                "subjects": recorded,
                "metadata": OUR_MARK,
                "allow_atomic": True,  # brokers that know no batches know no such word, and take none
            }
            try:
                await self.ask(f"STREAM.CREATE.{name}", made)
            except StreamRefused as error:
                # another daemon was quicker, by a config of its own
                if error.code != _STREAM_IN_USE:
                    raise
            found = await self.find_stream(name)
            if found is None:
                raise BusUnavailable(f"the stream {name} is gone as soon as it is made")
        subjects = with_subjects(found.config.get("subjects") or (), recorded)
        drift = differences(wanted, found.config) if is_ours else {}
        denied = ""
        if drift or subjects != list(found.config.get("subjects") or ()):
            changed = {**found.config, **drift, "subjects": subjects}
            try:
                await self.ask(f"STREAM.UPDATE.{name}", changed)
            except BusUnavailable as error:
                if not set(recorded).issubset(found.config.get("subjects") or ()):
                    raise
                denied = f": {error}"
        told = describe_drift("stream", name, drift, found.config) + denied if drift else ""
        harm = describe_harm(settings, name, found.config) if is_ours else ""
        return found, "; ".join(filter(None, (harm, told)))

    async def release_subjects(self, name: str, *released: str) -> StreamState | None:
        """Have a stream record subjects no longer; None where there is no such stream. Raises as `ask`."""
        found = await self.find_stream(name)
        if found is None:
            return None
        recorded: Sequence[str] = found.config.get("subjects") or ()
        subjects = without_subjects(recorded, released)
        if subjects != list(recorded):
            await self.ask(f"STREAM.UPDATE.{name}", {**found.config, "subjects": subjects})
        return found

    async def drop_subject(self, name: str, subject: str) -> None:
        """Have a stream forget a subject with all that it holds of it. Raises as `ask`."""
        found = await self.find_stream(name)
        if found is None:
            return
        gone = recorded_subjects(subject, name)
        for one in gone:
            await self.ask(f"STREAM.PURGE.{name}", {"filter": one})
        await self.release_subjects(name, *gone)

    async def purge(self, name: str, subject: str, before: int) -> None:
        """Have a stream forget what it holds of a subject before a place. Raises as `ask`."""
        await self.ask(f"STREAM.PURGE.{name}", {"filter": subject, "seq": before})

    async def last_of(self, name: str, subject: str) -> tuple[int, bytes] | None:
        """Place and body of the last message of a subject; None where there is none. Raises as `ask`."""
        found = await self._find_message(name, {"last_by_subj": subject})
        return None if found is None else (found.seq, found.data)

    async def _find_message(self, name: str, which: Config) -> _Message | None:
        words = f"STREAM.MSG.GET.{name}"
        try:
            found = await self.ask(words, which)
        except StreamRefused as error:
            if error.code in (NO_MESSAGE, STREAM_NOT_FOUND):
                return None
            raise
        return _read(found, _Found, words).message

    async def delete_stream(self, name: str) -> None:
        """Delete a stream and all that it holds. Raises as `ask`."""
        await self.ask(f"STREAM.DELETE.{name}")

    # -- consumers --------------------------------------------------------------------------------

    async def find_consumer(self, stream: str, subject: str) -> ConsumerState | None:
        """The durable consumer of a subject as it is; None where there is none. Raises as `ask`."""
        words = f"CONSUMER.INFO.{stream}.{name_of_consumer(subject)}"
        try:
            found = await self.ask(words)
        except StreamRefused as error:
            if error.code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                return None
            raise
        read = _read(found, _ConsumerInfo, words)
        return ConsumerState(
            read.config,
            read.num_pending,
            read.num_ack_pending,
            read.num_redelivered,
            read.ack_floor.stream_seq,
            read.delivered.consumer_seq,
            str(read.config.get("pause_until", "?"))[:40] if read.paused else "",
        )

    async def ensure_consumer(self, stream: str, subject: str, concurrency: int) -> str:
        """Make the durable consumer of a subject, or make it what it has to be; what was not so, in words.

        Raises as `ask`.
        """
        wanted = consumer_config(subject, concurrency)
        found = await self.find_consumer(stream, subject)
        words = f"CONSUMER.CREATE.{stream}.{name_of_consumer(subject)}.{subject}"
        if found is None:
            made = {**wanted, "name": name_of_consumer(subject), "metadata": OUR_MARK}
            try:
                await self.ask(words, {"stream_name": stream, "config": made, "action": "create"})
            except StreamRefused as error:
                if error.code != _CONSUMER_EXISTS:  # another daemon of this node was quicker
                    raise
            return ""
        drift = consumer_differences(wanted, found.config)
        if not drift:
            return ""
        changed = {**found.config, **drift}
        await self.ask(words, {"stream_name": stream, "config": changed, "action": "update"})
        return describe_drift("consumer", name_of_consumer(subject), drift, found.config)

    async def first_of(self, stream: str, subject: str, sequence: int = 1) -> StoredMessage | None:
        """The first message of a subject from a place on; None where there is none. Raises as `ask`."""
        asked = {"seq": max(1, sequence), "next_by_subj": subject}
        found = await self._find_message(stream, asked)
        return None if found is None else StoredMessage(found.seq, _nanoseconds_of(found.time))

    async def stored_at(self, stream: str, subject: str, sequence: int) -> float | None:
        """When the first message of a subject from a place on was stored; None where there is none. Raises as `ask`."""
        found = await self.first_of(stream, subject, sequence)
        if found is None or found.stored_ns is None:
            return None
        return found.stored_ns / 1_000_000_000

    async def delete_consumer(self, stream: str, subject: str) -> None:
        """Forget a durable consumer, if it is there. Raises as `ask`."""
        try:
            await self.ask(f"CONSUMER.DELETE.{stream}.{name_of_consumer(subject)}")
        except StreamRefused as error:
            if error.code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                raise

    async def close(self) -> None:
        """Hear nothing more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.stop_intake()
