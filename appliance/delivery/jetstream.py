"""Delivery by JetStream: a stream of the broker keeps each message until the node has taken it or done it.

Who sends is done with a message when the broker says that the stream has it; the message's id goes along, so that the
stream knows what is sent again. What the node makes of it later comes as a word of its own, where it is an end that
somebody should know. Who receives pulls (`delivery.pulling`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b

from appliance.bus.base import (
    Bus,
    BusMessage,
    Denial,
    Frame,
    OnDenied,
    OnMessages,
    Subscription,
)
from appliance.bus.batches import Batches
from appliance.bus.jetstream import JetStreamApi, StreamState
from appliance.core.signatures import VALID_S
from appliance.core.specs import Delivery, PublisherSpec, SubscriberSpec
from appliance.core.streams import (
    EXPECTED_STREAM,
    NO_RESPONDERS,
    OTHER_STREAM,
    StreamAddress,
    address_of_stream,
    find_stream,
    read_note,
    read_puback,
    verdict_prefix,
    write_note,
)
from appliance.delivery.base import (
    Answered,
    Confirmation,
    Intake,
    Kept,
    Notes,
    OnAnswers,
    OnVerdict,
)
from appliance.delivery.core import CoreCarrier
from appliance.delivery.pulling import NOTE_KIND, JetStreamIntake
from appliance.delivery.signer import Signer
from appliance.delivery.verifier import Verifier
from appliance.dialect.base import Answer, AnswerKind, Asked, Dialect
from appliance.dialect.headers import header_text
from appliance.errors import BusDenied, BusError, StoreError

_MARK_BYTES = 12
_SECRET_KIND = "stream ids"
"""Of the facts: by what the ids are made that a stream knows messages by. It stays, so that a resend after a restart has
the id that it had."""
_FOR_EVER_S = 10 * 366 * 86_400.0
"""Of a stream without `max_age`; what the receiver remembers bounds it all the same."""


class _StreamWords:
    """Implements `dialect.base.LaneWords`: with the words that the stream reads, and its answers."""

    def __init__(self, dialect: Dialect, stream: StreamAddress, secret: bytes) -> None:
        self._dialect = dialect
        self._secret = secret
        self._stream = stream
        self.not_made = ""
        """Why the stream could not be made when that was tried last."""
        self._expects = EXPECTED_STREAM + stream.name.encode() + b"\r\nNats-Msg-Id: "

    def write_headers(
        self,
        encoding: str,
        instance: str,
        message_id: int,
        headers: Mapping[str, str] | None,
        *,
        taker: str = "",
        attempt: int = 0,
    ) -> bytes:
        """A new attempt is another message to the stream, or it would not be kept.

        The stream takes no second message with an id that it has seen, whoever sends it: so nobody else may know which
        id comes next, or he could have messages of ours thrown away as repeats of his.
        """
        block = self._dialect.write_headers(
            encoding, instance, message_id, headers, taker=taker, attempt=attempt
        )
        named = b"%b-%d-%d" % (instance.encode(), message_id, attempt)
        mark = blake2b(named, digest_size=_MARK_BYTES, key=self._secret).hexdigest()
        # NB: last, where the receiver cuts them off
        return b"%b%b%b\r\n\r\n" % (block[:-2], self._expects, mark.encode())

    def read_answer(self, block: bytes, payload: bytes, asked: Asked) -> Answer:
        """What the stream says; a node that hears the subject itself is heard as ever."""
        if payload.startswith(b"{"):
            said = read_puback(payload)
            if said is not None and said.error is not None:
                if said.error.err_code == OTHER_STREAM:
                    return self._held(
                        "another stream records the subject, whose word counts for nothing"
                    )
                return self._held(f"{said.error.description} ({said.error.err_code})")
            if said is not None and said.is_of(self._stream):
                return Answer(AnswerKind.STORED, detail=f"{said.stream} {said.seq}")
        if not payload and block.startswith(NO_RESPONDERS):
            why = f", and it cannot be made: {self.not_made}" if self.not_made else ""
            return self._held(f"no stream records the subject{why}")
        return self._dialect.read_answer(block, payload, asked)

    def _held(self, why: str) -> Answer:
        return Answer(AnswerKind.HELD, detail=f"stream {self._stream}: {header_text(why)}")


class StreamSecret:
    """By what a daemon makes the ids that streams know its messages by."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        known = next(iter(notes.facts(_SECRET_KIND)), "")
        self._text = known or secrets.token_hex(16)

    @property
    def value(self) -> bytes:
        """The secret."""
        return self._text.encode()

    async def keep(self) -> None:
        """Have it on disk, where it is not yet."""
        if not self._notes.facts(_SECRET_KIND):
            # a full disk only means that a resend after a restart is the receiver's to know
            with contextlib.suppress(StoreError):
                await self._notes.remember(_SECRET_KIND, {self._text: ""})


class JetStreamCarrier(CoreCarrier):
    """Implements `base.LaneCarrier`: as by core, with a stream in the node's place."""

    may_repeat = True
    likes_many = True
    may_share = False  # the stream's answers name no message

    def __init__(
        self,
        bus: Bus,
        api: JetStreamApi,
        dialect: Dialect,
        instance: str,
        spec: PublisherSpec,
        signer: Signer,
        verifier: Verifier,
        secret: StreamSecret,
    ) -> None:
        self._secret = secret
        self._stream = address_of_stream(spec.stream, spec.subject)
        self._stream_words = _StreamWords(dialect, self._stream, secret.value)
        super().__init__(bus, dialect, instance, spec, signer, verifier, self._stream_words)
        self._api = api
        self._batches = Batches(asyncio.get_running_loop().time)
        self._epoch = bus.connection_epoch
        self._making: asyncio.Task[None] | None = None
        self._verdicts: Subscription | None = None
        self._on_verdict: OnVerdict | None = None

    async def start(
        self, on_answers: OnAnswers, on_denied: OnDenied, on_verdict: OnVerdict
    ) -> None:
        """See `base.LaneCarrier`. A stream that is there is not looked at; one that is not is made when that shows."""

        def look_at(answers: list[Answered]) -> None:
            if any(answer.kind is AnswerKind.HELD for _, answer in answers):
                self._make_later()
            on_answers(answers)

        await self._secret.keep()
        self._on_verdict = on_verdict
        if self._verdicts is None:
            self._verdicts = await self._bus.subscribe(
                f"{verdict_prefix(self._spec.subject, self._instance)}*",
                self._take_verdicts,
                on_denied=_ignore,
            )
        await super().start(look_at, on_denied, on_verdict)

    def _take_verdicts(self, messages: list[BusMessage]) -> None:
        """What the node made of messages that the stream had: told where it is an end that somebody should know."""
        prefix = verdict_prefix(self._spec.subject, self._instance)
        for message in messages:
            if not message.subject.startswith(prefix):
                continue  # what another stream holds, which its node has had delivered here
            answer = self._answers.read(message)
            number = message.subject.rpartition(".")[2]
            is_end = answer.kind in (AnswerKind.REFUSED, AnswerKind.FAILED)
            if is_end and number.isdecimal() and len(number) < 20 and self._on_verdict is not None:
                self._on_verdict(int(number), answer)

    def _sign(self, frames: list[Frame]) -> list[Frame]:
        """Good for as long as the stream keeps it. The words for the stream stay last, and are nobody's but its own."""
        plain: list[Frame] = []
        for_stream: list[bytes] = []
        for subject, reply_to, block, payload in frames:
            at = block.find(EXPECTED_STREAM)
            plain.append((subject, reply_to, block[:at] + b"\r\n", payload))
            for_stream.append(block[at:])
        kept_s = self._spec.stream.max_age_s or _FOR_EVER_S
        signed = self._signer.sign_messages(plain, self._spec.node, kept_s + VALID_S)
        return [
            (subject, reply_to, block[:-2] + rest, payload)
            for (subject, reply_to, block, payload), rest in zip(signed, for_stream, strict=True)
        ]

    def _hand_over(self, frames: list[Frame]) -> None:
        if self._bus.connection_epoch != self._epoch:
            self._epoch = self._bus.connection_epoch
            self._batches.forget_all()
        self._bus.send(self._batches.prepare(frames, self._bus.max_payload))

    def _take_answers(self, messages: list[BusMessage]) -> None:
        opened: list[BusMessage] = []
        for message in messages:
            answers, alone = self._batches.open(message)
            opened += answers
            if alone:
                with contextlib.suppress(BusError):  # else they are sent again as others are
                    self._bus.send(alone)
        if opened:
            super()._take_answers(opened)

    def _make_later(self) -> None:
        if self._making is None or self._making.done():
            self._making = asyncio.get_running_loop().create_task(
                self._make(), name=f"make the stream {self._stream}"
            )

    async def _make(self) -> None:
        spec = self._spec
        try:
            await self._api.ensure_stream(
                spec.stream, self._stream.name, spec.subject, is_ours=False
            )
        except BusError as error:
            # told with the next message that no stream takes
            self._stream_words.not_made = str(error)
            return
        self._stream_words.not_made = ""
        if self._on_answers is not None:
            self._on_answers([(None, Answer(AnswerKind.HERE))])

    async def close(self) -> None:
        """See `base.LaneCarrier`."""
        if self._making is not None:
            self._making.cancel()
        self._on_verdict = None
        verdicts, self._verdicts = self._verdicts, None
        if verdicts is not None:
            await verdicts.stop_intake()
        await super().close()


Seek = Callable[[], Awaitable["JetStreamIntake | None"]]
FIRST_ROOM = 16
"""Messages that a stream is asked for which was found after the subscriber has said how many it has room for."""


class WithRests:
    """Implements `base.Intake`: one, beside which streams are emptied that earlier configs had for the subject.

    `seek` finds one that senders have used and this node knows nothing of.
    """

    def __init__(
        self, main: Intake, rests: Sequence[JetStreamIntake], bus: Bus, seek: Seek | None
    ) -> None:
        self._main = main
        self._rests = [*rests]
        self._bus = bus
        self._seek = seek
        self._on_messages: OnMessages | None = None
        self._end_connected: Callable[[], None] = _nothing
        self._seeking: asyncio.Task[None] | None = None
        self._room = 0

    async def start(self, on_messages: OnMessages, on_denied: OnDenied) -> None:
        """See `base.Intake`. The old streams let go of the subject first: two must not record it."""
        for rest in self._rests:
            await rest.start(on_messages, _ignore)
        await self._main.start(on_messages, on_denied)
        if self._seek is not None:
            self._on_messages = on_messages
            # senders of an older config may have used it while the node was cut off
            self._end_connected = self._bus.on_connected(self._look_for_rest)
            self._look_for_rest()

    def _look_for_rest(self) -> None:
        if self._seeking is None or self._seeking.done():
            self._seeking = asyncio.get_running_loop().create_task(
                self._add_found(), name="seek a forgotten stream"
            )

    async def _add_found(self) -> None:
        assert self._seek is not None
        assert self._on_messages is not None
        # whoever may not ask, or of whom the connection is taken now, asks again with the next one
        with contextlib.suppress(BusError, StoreError):
            rest = await self._seek()
            if rest is not None:
                ended = [one for one in self._rests if one.has_ended]
                # before it starts: a stop that comes meanwhile ends it, too
                self._rests = [*(one for one in self._rests if not one.has_ended), rest]
                await rest.start(self._on_messages, _ignore)
                for one in ended:
                    await one.stop()
                rest.want(self._room or FIRST_ROOM)

    async def stop(self) -> None:
        """See `base.Intake`."""
        self._end_connected()
        if self._seeking is not None:
            self._seeking.cancel()
            await asyncio.wait([self._seeking])
        for rest in self._rests:
            await rest.stop()
        await self._main.stop()

    @property
    def is_asked(self) -> bool:
        """See `base.Intake`."""
        return self._main.is_asked or not all(rest.has_ended for rest in self._rests)

    def update(self, spec: SubscriberSpec) -> None:
        """See `base.Intake`."""
        for intake in (self._main, *self._rests):
            intake.update(spec)

    def want(self, count: int) -> None:
        """See `base.Intake`."""
        self._room = count
        for intake in (self._main, *self._rests):
            intake.want(count)

    async def claim(self, reply_tos: Sequence[str]) -> list[bool]:
        """See `base.Intake`."""
        found: dict[str, bool] = {}
        for intake in (self._main, *self._rests):
            its = [reply_to for reply_to in reply_tos if self._of(reply_to) is intake]
            if its:
                found |= zip(its, await intake.claim(its), strict=True)
        return [found[reply_to] for reply_to in reply_tos]

    def confirm(self, confirmations: Sequence[Confirmation]) -> None:
        """See `base.Intake`."""
        if not self._rests:
            self._main.confirm(confirmations)
            return
        rest_of: list[Confirmation] = []
        for confirmation in confirmations:
            intake = self._of(confirmation.reply_to)
            if intake is self._main:
                rest_of.append(confirmation)
            else:
                intake.confirm([confirmation])
        self._main.confirm(rest_of)

    def _of(self, reply_to: str) -> Intake:
        return next((rest for rest in self._rests if rest.owns(reply_to)), self._main)

    def say_here(self, to: Sequence[str]) -> None:
        """See `base.Intake`."""
        self._main.say_here(to)

    @property
    def kept(self) -> Kept | None:
        """See `base.Intake`. Of the way in force, or else of what is left of another."""
        return self._main.kept or next((rest.kept for rest in self._rests if rest.kept), None)

    @property
    def answers_get_out(self) -> bool:
        """See `base.Intake`."""
        return self._main.answers_get_out

    @property
    def trouble(self) -> str | None:
        """See `base.Intake`."""
        intakes = (self._main, *self._rests)
        return next((found for intake in intakes if (found := intake.trouble)), None)


def _ignore(_: Denial) -> None: ...


def _nothing() -> None: ...


class JetStreamDelivery:
    """Implements `base.Mode`."""

    def __init__(
        self,
        bus: Bus,
        dialect: Dialect,
        instance: str,
        notes: Notes,
        signer: Signer,
        verifier: Verifier,
    ) -> None:
        self._bus = bus
        self._dialect = dialect
        self._instance = instance
        self._notes = notes
        self._signer = signer
        self._verifier = verifier
        self._secret = StreamSecret(notes)
        self._apis: dict[tuple[str, str], JetStreamApi] = {}
        self._looking: dict[tuple[JetStreamApi, str], asyncio.Future[StreamState | None]] = {}
        self._may_not_look: set[JetStreamApi] = set()

    def _api(self, node: str, domain: str) -> JetStreamApi:
        return self._apis.setdefault((node, domain), JetStreamApi(self._bus, node, domain))

    def make_carrier(self, spec: PublisherSpec) -> JetStreamCarrier:
        """See `base.DeliveryMode`."""
        api = self._api(spec.node, spec.stream.domain)
        return JetStreamCarrier(
            self._bus,
            api,
            self._dialect,
            self._instance,
            spec,
            self._signer,
            self._verifier,
            self._secret,
        )

    def make_intake(
        self,
        spec: SubscriberSpec,
        on_answers_denied: OnDenied,
        *,
        begins_once: bool,
        rest: StreamAddress | None = None,
    ) -> JetStreamIntake:
        """See `base.DeliveryMode`. With `rest` one that empties that."""
        stream = rest or address_of_stream(spec.stream, spec.subject)
        return JetStreamIntake(
            self._bus,
            self._api(spec.node, stream.domain),
            self._dialect,
            self._instance,
            spec,
            on_answers_denied,
            self._notes,
            stream,
            self._signer,
            begins_once=begins_once,
            is_rest=rest is not None,
        )

    def with_rests(self, main: Intake, spec: SubscriberSpec, *, begins_once: bool) -> Intake:
        """An intake with those beside it that empty other streams of the subject, where there are any."""
        stream = find_stream(spec)
        known = [note for key in self._notes.facts(NOTE_KIND) if (note := read_note(key))]
        rests = [
            self.make_intake(spec, _ignore, begins_once=begins_once, rest=rest)
            for subject, rest in known
            if subject == spec.subject and rest != stream
        ]
        seek = None
        if spec.delivery is Delivery.CORE and spec.wants_ack:
            seek = partial(self._seek, spec, begins_once)
        return WithRests(main, rests, self._bus, seek) if rests or seek else main

    async def _seek(self, spec: SubscriberSpec, begins_once: bool) -> JetStreamIntake | None:
        """What empties the stream of the subject, where senders had it keep messages that nobody here knows of: by a config
        that this node never ran with, or before its state directory was lost.

        Raises:
            BusError, StoreError: that cannot be found out, or kept.
        """
        stream = address_of_stream(spec.stream, spec.subject)
        note = write_note(spec.subject, stream)
        if not self._bus.has_streams or note in self._notes.facts(NOTE_KIND):
            return None
        api = self._api(spec.node, stream.domain)
        # on core it need not be allowed: asked at every connection, it would fill the broker's log with violations
        if api in self._may_not_look:
            return None
        try:
            found = await self._look_at(api, stream)
        except BusDenied:
            self._may_not_look.add(api)
            return None
        if found is None or found.config.get("retention") != "workqueue":
            return None
        is_recorded = spec.subject in (found.config.get("subjects") or ())
        if not is_recorded and await api.stored_at(stream.name, spec.subject, 1) is None:
            return None
        # first: a restart while it is emptied goes on with it
        await self._notes.remember(NOTE_KIND, {note: ""})
        return self.make_intake(spec, _ignore, begins_once=begins_once, rest=stream)

    async def _look_at(self, api: JetStreamApi, stream: StreamAddress) -> StreamState | None:
        """The stream as it is; asked for once though all workers of a node begin together.

        Raises:
            BusError: it cannot be found out.
        """
        key = api, stream.name
        while (looking := self._looking.get(key)) is not None:
            await asyncio.wait([looking])
            # of whoever asked and was stopped meanwhile there is no answer: the next one asks
            if not looking.cancelled():
                return looking.result()
        looking = self._looking[key] = asyncio.get_running_loop().create_future()
        try:
            found = await api.find_stream(stream.name)
        except BusError as error:
            looking.set_exception(error)
            looking.exception()  # told to whoever waits, if anybody does
            raise
        else:
            looking.set_result(found)
            return found
        finally:
            looking.cancel()
            del self._looking[key]


MODE = JetStreamDelivery
"""See `modes`."""
