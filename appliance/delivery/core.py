"""Delivery by core NATS: each send has a reply token of its own below ``<subject>.reply.``, and the node answers there.

One wildcard subscription of a lane hears all answers. Tokens are random, so that nobody can acknowledge what he was not
sent, and those of earlier sends stay valid until the record is settled: a late answer still says what it says.

Where the broker denies that subscription, answers are heard as Steward's nodes hear them: on ``<subject>.reply`` itself,
which all senders of the subject share. There an answer is for the record whose number it repeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence

from appliance.bus.base import (
    Bus,
    BusMessage,
    Denial,
    Frame,
    OnDenied,
    OnMessages,
    Subscription,
)
from appliance.core.message import body_number
from appliance.core.names import ERROR_CENTRAL, REFUSALS_TOKEN, REPLY_TOKEN, is_for_refusals
from appliance.core.signatures import FAULT_WORDS, Fault
from appliance.core.specs import PublisherSpec, SignaturePolicy, SubscriberSpec
from appliance.delivery.base import (
    Answered,
    Confirmation,
    Flight,
    Intake,
    Notes,
    OnAnswers,
    OnVerdict,
)
from appliance.delivery.signer import Signer
from appliance.delivery.verifier import Verifier
from appliance.dialect.base import Answer, AnswerKind, Dialect, LaneWords
from appliance.dialect.headers import header_text
from appliance.errors import (
    BusError,
    BusUnavailable,
    DecodeError,
    EncodeError,
    PayloadTooLarge,
)
from appliance.wire.frame import encoding_name, frame_headers, transcode
from appliance.wire.signature import MAX_LINE_BYTES

DENIAL_COMES_WITHIN_S = 5.0
"""An answer that the broker has not denied by then has got out."""
FIRST_TOKENS, MAX_TOKENS_AT_ONCE = 4, 256
"""Made in one go: the first of a lane, of which a broadcast begins thousands for a message each, and later ones."""
TOKEN_BYTES = 8
MAX_TOKENS = 64
"""Sends of one record that may still be answered: the newest ones."""
_WORDS_OF_THE_BROKER = frozenset({AnswerKind.NOBODY, AnswerKind.STORED, AnswerKind.HELD})
"""Which it cannot sign."""
_WORDS_FOR_ALL = frozenset({AnswerKind.BUSY, AnswerKind.HERE})
"""Which end nothing, and are said before anybody is proved to have asked."""
_FRAME_SPARE_BYTES = 16
"""What the broker counts beside payload and headers, generously."""


class CoreDelivery:
    """Implements `base.DeliveryMode`."""

    def __init__(
        self,
        bus: Bus,
        dialect: Dialect,
        instance: str,
        _notes: Notes,
        signer: Signer,
        verifier: Verifier,
    ) -> None:
        self._bus = bus
        self._dialect = dialect
        self._instance = instance
        self._signer = signer
        self._verifier = verifier

    def make_carrier(self, spec: PublisherSpec) -> CoreCarrier:
        """See `base.DeliveryMode`."""
        return CoreCarrier(
            self._bus, self._dialect, self._instance, spec, self._signer, self._verifier
        )

    def make_intake(
        self, spec: SubscriberSpec, on_answers_denied: OnDenied, *, begins_once: bool
    ) -> CoreIntake:
        """See `base.DeliveryMode`. A resend names the daemon that has begun it."""
        return CoreIntake(self._bus, self._dialect, spec, on_answers_denied, self._signer)

    def with_rests(self, main: Intake, _spec: SubscriberSpec, *, begins_once: bool) -> Intake:
        """See `base.DeliveryMode`. Nothing lies anywhere but with its senders."""
        return main


MODE = CoreDelivery
"""See `modes`."""


class AnswerReader:
    """What answers say, and whether it is really said by the node that is asked."""

    def __init__(
        self,
        dialect: Dialect,
        words: LaneWords,
        spec: PublisherSpec,
        signer: Signer,
        verifier: Verifier,
    ) -> None:
        self.spec = spec
        self.words = words
        self.asked = dialect.asked(spec.to_node, spec.method)
        self._dialect = dialect
        self._signer = signer
        self._verifier = verifier

    def read(self, message: BusMessage) -> Answer:
        """What an answer says, checked where the spec says so."""
        if self.spec.signatures is SignaturePolicy.OFF:
            return self.words.read_answer(message.block, message.payload, self.asked)
        return self.read_checked(message)

    def read_checked(self, message: BusMessage) -> Answer:
        """What an answer says, if it is really said by the node that it names."""
        opened = self._verifier.open_answer(message)
        fault = opened.fault
        name = self._dialect.read_name(message.payload)
        if fault is None and opened.signer and opened.signer != name:
            fault = self._verifier.count(Fault.OTHER_SENDER)
        if fault is None:
            answer = self.words.read_answer(opened.block, message.payload, self.asked)
            if answer.kind in _WORDS_OF_THE_BROKER:
                return answer
            is_for_all = self.spec.to_node == ERROR_CENTRAL and name is not None
            if is_for_all and not self._verifier.may_hear_reports(name or ""):
                # whoever may answer there could keep everybody's reports from being heard
                fault = self._verifier.count(Fault.OTHER_SENDER)
            elif opened.signer:
                # who signs what he sends heeds no word about what only looks like his
                signs = self._signer.key is not None and answer.kind not in _WORDS_FOR_ALL
                if signs and not opened.is_for(self.spec.node):
                    fault = self._verifier.count(Fault.NOT_ASKED)
            else:
                fault = self._verifier.find_unsigned_fault(
                    name or self.spec.to_node, self.spec.signatures
                )
            if fault is None:
                return answer
        said = header_text(message.payload[:200].decode("utf-8", "replace"))
        return Answer(AnswerKind.FOREIGN, detail=f"{said!r}: {FAULT_WORDS[fault]}")


class Tokens:
    """Which record an answer is for: its subject ends with a token of one send."""

    def __init__(self, subject: str) -> None:
        self.prefix = f"{subject}.{REPLY_TOKEN}.{secrets.token_hex(6)}."
        self.flights: dict[str, Flight] = {}
        self.fresh: list[str] = []
        self._at_once = FIRST_TOKENS

    def fill(self) -> None:
        """Make fresh ones."""
        size = 2 * TOKEN_BYTES
        raw = secrets.token_hex(TOKEN_BYTES * self._at_once)
        self._at_once = min(2 * self._at_once, MAX_TOKENS_AT_ONCE)
        self.fresh += [raw[at : at + size] for at in range(0, len(raw), size)]


class Shared:
    """Which record an answer on the reply subject is for that all senders share: it repeats the number in its body."""

    def __init__(self, subject: str) -> None:
        self.reply_to = f"{subject}.{REPLY_TOKEN}"
        self._flights: dict[int, Flight] = {}
        self._unanswered: dict[int, None] = {}
        """Numbers of what was sent, in order."""

    def add(self, flight: Flight) -> None:
        """It is sent now."""
        number = body_number(flight.record.id)
        self._flights[number] = flight
        self._unanswered.pop(number, None)
        self._unanswered[number] = None

    def forget(self, flight: Flight) -> None:
        """Nothing is waited for any more."""
        number = body_number(flight.record.id)
        self._flights.pop(number, None)
        self._unanswered.pop(number, None)

    def find(self, kind: AnswerKind, number: int | None) -> Flight | None:
        """Whose answer it is that repeats this number; None where it is not for us."""
        if kind is AnswerKind.NOBODY:
            # the broker names no message, but says it in the order in which they were sent
            number = next(iter(self._unanswered), None)
        elif number is not None:
            # an appliance repeats the id itself
            number = body_number(number)
        flight = None if number is None else self._flights.get(number)
        if number is not None and flight is not None:
            self._unanswered.pop(number, None)
        return flight


class CoreCarrier:
    """Implements `base.LaneCarrier`."""

    may_repeat = False
    likes_many = False
    may_share = True
    """Whether the shared reply subject will do where no other is allowed."""

    def __init__(
        self,
        bus: Bus,
        dialect: Dialect,
        instance: str,
        spec: PublisherSpec,
        signer: Signer,
        verifier: Verifier,
        words: LaneWords | None = None,
    ) -> None:
        """`words` are those of the dialect, unless something else than the node reads them."""
        self._signer = signer
        self._bus = bus
        self._dialect = dialect
        self._answers = AnswerReader(dialect, words or dialect, spec, signer, verifier)
        self._instance = instance
        self._spec = spec
        self._encoding = encoding_name(spec.serialization, spec.compression)
        self._tokens = Tokens(spec.subject)
        self._subscription: Subscription | None = None
        self._here: Subscription | None = None
        self._refusals: Subscription | None = None
        self._refusals_to = ""
        """The reply subject of what asks for no acknowledgement; "" where refusals are not heard."""
        self._shared: Shared | None = None
        """Where no reply subject of our own is allowed."""
        self._on_answers: OnAnswers | None = None
        self._on_denied: OnDenied | None = None
        self._end_denials: Callable[[], None] = _nothing

    async def start(
        self, on_answers: OnAnswers, on_denied: OnDenied, _on_verdict: OnVerdict
    ) -> None:
        """See `base.LaneCarrier`. What needs no acknowledgement needs no subscription."""
        must_have_key(self._signer, self._spec.signatures)
        self._on_answers, self._on_denied = on_answers, on_denied
        self._end_denials = self._bus.on_publish_denied(self._spec.subject, self._on_publish_denied)
        if self._spec.wants_ack:
            await self.listen()

    @property
    def hears(self) -> bool:
        """See `base.LaneCarrier`."""
        return self._subscription is not None

    async def listen(self) -> None:
        """See `base.LaneCarrier`."""
        if self._here is None:
            # NB: a broker that denies it takes only this sign from the lane
            self._here = await self._bus.subscribe(
                here_subject(self._spec.subject), self._take_answers, on_denied=_ignore
            )
        if self._subscription is None:
            self._subscription = await self._hear()

    async def hear_refusals(self) -> None:
        """See `base.LaneCarrier`."""
        if self._refusals is not None:
            return
        self._refusals_to = f"{self._tokens.prefix}{REFUSALS_TOKEN}"

        def do_without(_: Denial) -> None:
            self._refusals_to = ""

        self._refusals = await self._bus.subscribe(
            self._refusals_to, self._take_answers, on_denied=do_without
        )

    async def _hear(self) -> Subscription:
        denials: list[Denial] = []
        is_starting = True

        def note(denial: Denial) -> None:
            if is_starting:
                denials.append(denial)
            elif self._on_denied is not None:
                self._on_denied(denial)  # the lane starts anew, and comes by here

        own = await self._bus.subscribe(
            f"{self._tokens.prefix}*", self._take_answers, on_denied=note
        )
        is_starting = False
        if not denials:
            return own
        await own.stop_intake()
        if not self.may_share:
            raise BusUnavailable(denials[0].text)
        shared = self._shared = Shared(self._spec.subject)

        def give_up(_: Denial) -> None:
            # in the words about the one that should be allowed
            if self._on_denied is not None:
                self._on_denied(denials[0])

        return await self._bus.subscribe(
            shared.reply_to, self._take_shared_answers, on_denied=give_up
        )

    def update(self, spec: PublisherSpec) -> None:
        """See `base.LaneCarrier`."""
        # these raise, for an encoding that there is not and for want of a key, before anything has changed
        frame_headers(spec.serialization, spec.compression)
        must_have_key(self._signer, spec.signatures)
        self._encoding = encoding_name(spec.serialization, spec.compression)
        self._spec = self._answers.spec = spec

    def send(self, flights: Sequence[Flight]) -> list[tuple[Flight, str]]:
        """See `base.LaneCarrier`."""
        if not self._bus.is_connected:
            raise BusUnavailable("not connected to the broker")
        unsendable: list[tuple[Flight, str]] = []
        frames: list[Frame] = []
        wants_ack = self._spec.wants_ack
        wanted, instance = self._encoding, self._instance
        write_headers = self._answers.words.write_headers
        room_bytes = self._bus.max_payload - _FRAME_SPARE_BYTES
        signs = self._spec.signatures is not SignaturePolicy.OFF
        if signs:
            room_bytes -= MAX_LINE_BYTES
        tokens, shared = self._tokens, self._shared
        prefix, by_token, fresh = tokens.prefix, tokens.flights, tokens.fresh
        for flight in flights:
            record = flight.record
            try:
                if record.encoding != wanted:
                    record.payload, record.encoding = transcode(
                        record.payload, record.encoding, wanted
                    )
                block = write_headers(
                    record.encoding,
                    instance,
                    record.id,
                    record.headers,
                    taker=record.taker,
                    attempt=record.attempt,
                )
            except (BusError, EncodeError, DecodeError) as error:
                unsendable.append((flight, str(error)))
                continue
            payload = record.payload
            # the broker would close the connection over it, and with that lose what others have under way
            if len(payload) + len(block) > room_bytes:
                too_large = PayloadTooLarge(len(payload) + len(block), self._bus.max_payload)
                unsendable.append((flight, str(too_large)))
                continue
            reply_to = self._refusals_to
            if shared is not None and (wants_ack or record.wants_ack):
                shared.add(flight)
                reply_to = shared.reply_to
            elif wants_ack or record.wants_ack:
                if not fresh:
                    tokens.fill()
                token = fresh.pop()
                flight.tokens.append(token)
                if len(flight.tokens) > MAX_TOKENS:
                    by_token.pop(flight.tokens.pop(0), None)
                # earlier tokens stay valid: a late answer to an earlier send settles the record as well
                by_token[token] = flight
                reply_to = prefix + token
            frames.append((record.subject, reply_to, block, payload))
        if signs:
            frames = self._sign(frames)
        if frames:
            # all at once: one write to the socket for the whole batch
            self._hand_over(frames)
        return unsendable

    def _sign(self, frames: list[Frame]) -> list[Frame]:
        return self._signer.sign_messages(frames, self._spec.node)

    def _hand_over(self, frames: list[Frame]) -> None:
        self._bus.send(frames)

    def forget(self, flights: Sequence[Flight]) -> None:
        """See `base.LaneCarrier`."""
        pop = self._tokens.flights.pop
        for flight in flights:
            tokens = flight.tokens
            for token in tokens:
                pop(token, None)
            tokens.clear()
        if self._shared is not None:
            for flight in flights:
                self._shared.forget(flight)

    async def close(self) -> None:
        """See `base.LaneCarrier`."""
        # first: what still arrives while it unsubscribes has no owner any more
        self._on_answers = self._on_denied = None
        self._end_denials()
        subscriptions = (self._subscription, self._here, self._refusals)
        self._subscription = self._here = self._refusals = None
        for subscription in subscriptions:
            if subscription is not None:
                await subscription.stop_intake()

    def _on_publish_denied(self, denial: Denial) -> None:
        # what is below the subject are answers to it, which are another worker's
        if denial.subject == self._spec.subject and self._on_denied is not None:
            self._on_denied(denial)

    def _take_answers(self, messages: list[BusMessage]) -> None:
        if self._on_answers is None:
            return
        at, find, reader = len(self._tokens.prefix), self._tokens.flights.get, self._answers
        answers: list[Answered]
        if self._spec.signatures is SignaturePolicy.OFF:
            asked, read = reader.asked, reader.words.read_answer
            answers = [
                (find(message.subject[at:]), read(message.block, message.payload, asked))
                for message in messages
            ]
        else:
            checked = reader.read_checked
            answers = [(find(message.subject[at:]), checked(message)) for message in messages]
        self._on_answers(answers)

    def _take_shared_answers(self, messages: list[BusMessage]) -> None:
        """Answers to everybody who sends to the subject; what is not for us says nothing here."""
        if self._on_answers is None or self._shared is None:
            return
        answers: list[Answered] = []
        for message in messages:
            answer = self._answers.read(message)
            number = self._dialect.read_number(message.payload)
            flight = self._shared.find(answer.kind, number)
            if flight is not None:
                answers.append((flight, answer))
        if answers:
            self._on_answers(answers)


class CoreIntake:
    """Implements `base.Intake`: a subscription in the queue group of its own subject."""

    def __init__(
        self,
        bus: Bus,
        dialect: Dialect,
        spec: SubscriberSpec,
        on_answers_denied: OnDenied,
        signer: Signer,
    ) -> None:
        self._signer = signer
        self._bus = bus
        self._dialect = dialect
        self._spec = spec
        self._on_answers_denied = on_answers_denied
        self._mono = asyncio.get_running_loop().time
        self._is_denied = False
        self._tried_mono: float | None = None
        """When the first answer after the newest denial went out."""
        self._subscription: Subscription | None = None
        self._end_denials: Callable[[], None] = _nothing

    async def start(self, on_messages: OnMessages, on_denied: OnDenied) -> None:
        """See `base.Intake`."""
        must_have_key(self._signer, self._spec.signatures)
        self._end_denials = self._bus.on_publish_denied(self._spec.subject, self._on_publish_denied)
        self._subscription = await self._bus.subscribe(
            self._spec.subject,
            on_messages,
            queue=self._spec.subject,
            on_denied=on_denied,
        )

    is_asked = False
    kept = None

    def update(self, spec: SubscriberSpec) -> None:
        """See `base.Intake`."""
        self._spec = spec

    def want(self, count: int) -> None:
        """See `base.Intake`. Messages come when they are sent."""

    async def claim(self, reply_tos: Sequence[str]) -> list[bool]:
        """See `base.Intake`. Nobody else was given them."""
        return [True] * len(reply_tos)

    @property
    def trouble(self) -> str | None:
        """See `base.Intake`."""
        return None

    def confirm(self, confirmations: Sequence[Confirmation]) -> None:
        """See `base.Intake`."""
        node, write = self._spec.node, self._dialect.write_answer
        frames: list[Frame] = []
        to_sign: list[Frame] = []
        signs = self._spec.signatures is not SignaturePolicy.OFF
        for reply_to, message_id, answer, to_appliance, asker in confirmations:
            block, payload = write(answer, node, message_id, to_appliance=to_appliance)
            if signs and block:
                to_sign.append((reply_to, asker, block, payload))
            else:
                frames.append((reply_to, "", block, payload))
        if to_sign:
            frames += self._signer.sign_answers(to_sign, node)
        if not frames or not self._bus.is_connected:
            return  # the senders ask again
        if self._is_denied and self._tried_mono is None:
            self._tried_mono = self._mono()
        try:
            self._bus.send(frames)
        except BusUnavailable:
            return
        except BusError:
            # peers choose their reply subjects: one that must not be sent to keeps nobody else from being answered
            for frame in frames:
                with contextlib.suppress(BusError):
                    self._bus.send([frame])

    def say_here(self, to: Sequence[str]) -> None:
        """See `base.Intake`."""
        if not self._spec.wants_ack:
            return  # who sends here waits for nothing, and hears nothing
        here = Answer(AnswerKind.HERE)
        subjects = [here_subject(self._spec.subject), *(f"{begins}here" for begins in to)]
        self.confirm([Confirmation(subject, 0, here, True) for subject in subjects])

    def _on_publish_denied(self, denial: Denial) -> None:
        # a greeting that is denied keeps nobody from hearing what became of his messages, nor does a word to a stranger
        is_courtesy = denial.subject in (
            self._spec.subject,
            here_subject(self._spec.subject),
        ) or is_for_refusals(denial.subject)
        if not is_courtesy:
            self._on_answers_denied(denial)
            self._is_denied = True
            self._tried_mono = None

    @property
    def answers_get_out(self) -> bool:
        """See `base.Intake`. The broker says nothing of what it lets through, but soon of what it does not."""
        if not self._is_denied:
            return True
        tried = self._tried_mono
        return tried is not None and self._mono() - tried > DENIAL_COMES_WITHIN_S

    async def stop(self) -> None:
        """See `base.Intake`."""
        self._end_denials()
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.stop_intake()


def must_have_key(signer: Signer, policy: SignaturePolicy) -> None:
    """Raises BusUnavailable where nothing would count that is said: it is tried again, and the key may be there then."""
    if policy is SignaturePolicy.REQUIRE and signer.key is None:
        raise BusUnavailable("`signatures: require`, and there is no key to sign with")


def here_subject(subject: str) -> str:
    """Where a node that is back says so to whoever sends to a subject of its; of the same form as reply subjects."""
    return f"{subject}.{REPLY_TOKEN}.here.here"


def _nothing() -> None: ...


def _ignore(_: Denial) -> None: ...
