"""How a lane's messages are carried and confirmed, as publishers and subscribers see it.

`LaneCarrier` is the way out of one lane, `Intake` the way into one subscription. Both work on lists: all records that
may go now, all messages of one read. Which answers mean what is the dialect's; when to send again is the publisher's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from appliance.bus.base import OnDenied, OnMessages
from appliance.core.specs import PublisherSpec, SubscriberSpec
from appliance.dialect.base import Answer
from appliance.dialect.headers import TURN_HEADER
from appliance.outbox.records import OutboxRecord


class FlightPhase(Enum):
    """Where a record between its first send and its settlement stands."""

    IDLE = "idle"
    """Waits for its (next) send."""
    AWAITING = "awaiting"
    """Sent; an answer may come until `due_mono`."""
    WORKING = "working"
    """The receiver said that it has it and works; another word is due until `due_mono`."""
    SETTLED = "settled"
    """It has left the outbox, or is about to."""


class Flight:
    """One record in a publisher's hands.

    `due_mono` is when it is to be looked at again: the end of the wait for an answer, or the time of the next send.
    """

    __slots__ = (
        "by_seed",
        "due_mono",
        "is_done",
        "is_unwanted",
        "phase",
        "record",
        "sent_mono",
        "stored_as",
        "stream",
        "tokens",
        "unanswered",
        "was_absent",
    )

    def __init__(self, record: OutboxRecord) -> None:
        self.record = record
        self.tokens: list[str] = []
        """The reply tokens of all its sends: a late answer to an earlier one counts as well."""
        self.phase = FlightPhase.IDLE
        self.due_mono = 0.0
        self.sent_mono = 0.0
        self.unanswered = 0
        """Sends in a row without an answer."""
        self.was_absent = False
        self.is_done = False
        self.is_unwanted = False
        self.by_seed = False
        """Taken by a node that does not say that it is an appliance, as Go nodes do not."""
        self.stored_as = ""
        """The stream that keeps it and its place there."""
        turn = record.headers.get(TURN_HEADER) if record.headers else None
        self.stream = turn.rpartition(".")[0] if turn else ""


Answered = tuple[Flight | None, Answer]
"""An answer and the record it is for; None where it is for none in hand (settled already, or `HERE`)."""
OnAnswers = Callable[[list[Answered]], None]
OnVerdict = Callable[[int, Answer], None]
"""Told of the end of a message, by its id, that left the outbox long ago: a stream had it."""


class LaneCarrier(Protocol):
    """The way out of one lane."""

    async def start(
        self, on_answers: OnAnswers, on_denied: OnDenied, on_verdict: OnVerdict
    ) -> None:
        """Be ready to send and to hear answers.

        Raises:
            BusUnavailable: the broker is away or denies it.
        """
        ...

    @property
    def may_repeat(self) -> bool:
        """Whether a message that is sent again is known again on the way, whoever it is for."""
        ...

    @property
    def likes_many(self) -> bool:
        """Whether many messages that are sent at once cost less than one after the other, so that it is worth a wait."""
        ...

    @property
    def hears(self) -> bool:
        """Whether answers are heard: always where the destination acknowledges, else once `listen` was called."""
        ...

    async def listen(self) -> None:
        """Hear answers though the destination gives none: the broker says when nobody is there.

        Raises:
            BusUnavailable: the broker is away.
        """
        ...

    async def hear_refusals(self) -> None:
        """Hear who refuses what asks for no acknowledgement. A broker that denies this takes only this; twice is once.

        Raises:
            BusUnavailable: the broker is away.
        """
        ...

    def update(self, spec: PublisherSpec) -> None:
        """Follow changed settings, the encoding among them.

        Raises:
            EncodeError, BusUnavailable: there is no such encoding, or no key to sign with; nothing has changed.
        """
        ...

    def send(self, flights: Sequence[Flight]) -> list[tuple[Flight, str]]:
        """Send all of them, in order; those that cannot be sent at all come back with the reason.

        Raises:
            BusUnavailable: not connected; nothing was sent.
        """
        ...

    def forget(self, flights: Sequence[Flight]) -> None:
        """Their records are settled or given back; answers to them mean nothing any more."""
        ...

    async def close(self) -> None:
        """Hear nothing more."""
        ...


class Confirmation(NamedTuple):
    """An answer to one message: to the subject that it named, about the id that its body holds.

    `asker` is who is proved to have sent the message, "" where nobody is. The signature of an answer names him, or a copy
    of somebody's message with something changed in it would bring him a refusal of his own.
    """

    reply_to: str
    message_id: int
    answer: Answer
    to_appliance: bool
    asker: str = ""


class Kept(NamedTuple):
    """What a stream keeps for one subscription, as it was a moment ago."""

    stream: str
    waiting: int
    """Messages that no daemon of the node has been given yet."""
    in_hand: int
    """Those that one has been given, and that are not acknowledged."""
    redelivered: int
    """Of these the ones that were given more than once."""
    parked: int
    """Messages that are delivered no more, as far as this daemon has heard."""
    oldest_at: float | None = None
    """When the oldest of all was stored, in seconds since the epoch; None where there is none, or it is not known."""


class Intake(Protocol):
    """The way into one subscription."""

    async def start(self, on_messages: OnMessages, on_denied: OnDenied) -> None:
        """Subscribe; on return the broker has it.

        Raises:
            BusError: the broker is away or the subject is none.
        """
        ...

    def update(self, spec: SubscriberSpec) -> None:
        """Follow changed settings."""
        ...

    @property
    def is_asked(self) -> bool:
        """Whether messages come only as they are asked for, with `want`."""
        ...

    def want(self, count: int) -> None:
        """There is room for so many more messages than have been handed over."""
        ...

    async def claim(self, reply_tos: Sequence[str]) -> list[bool]:
        """Which of these messages, left by an earlier run, are still this daemon's to finish.

        Raises:
            BusError: that cannot be found out now.
        """
        ...

    @property
    def trouble(self) -> str | None:
        """What keeps messages from coming in, in words; None where nothing is known to."""
        ...

    @property
    def kept(self) -> Kept | None:
        """What a stream keeps for the subscription; None where none does."""
        ...

    def confirm(self, confirmations: Sequence[Confirmation]) -> None:
        """Answer senders, in order. Without a connection nothing is said, and they ask again."""
        ...

    def say_here(self, to: Sequence[str]) -> None:
        """Tell all who send here that the node is there; `to` are how the reply subjects of known ones begin."""
        ...

    @property
    def answers_get_out(self) -> bool:
        """Whether the broker lets answers through as far as is known; False from a denial until some went out."""
        ...

    async def stop(self) -> None:
        """Unsubscribe; on return every message that arrived has been handed over."""
        ...


class Notes(Protocol):
    """Small durable facts of the ways themselves."""

    def facts(self, kind: str) -> Mapping[str, str]:
        """What is remembered of a kind."""
        ...

    async def remember(self, kind: str, changes: Mapping[str, str | None]) -> None:
        """Change some; None forgets one.

        Raises:
            StoreError: the disk takes nothing now.
        """
        ...


class DeliveryMode(Protocol):
    """How messages get out and in; `delivery.core` is the first way."""

    def make_carrier(self, spec: PublisherSpec) -> LaneCarrier:
        """The way out of a publisher's lane."""
        ...

    def make_intake(
        self, spec: SubscriberSpec, on_answers_denied: OnDenied, *, begins_once: bool
    ) -> Intake:
        """The way into a subscription.

        Args:
            on_answers_denied: told when the broker keeps our answers from going out.
            begins_once: whether what a daemon has begun is no other one's to begin while it may come back.
        """
        ...


class Mode(DeliveryMode, Protocol):
    """One mode of several, which `delivery.modes` puts together."""

    def with_rests(self, main: Intake, spec: SubscriberSpec, *, begins_once: bool) -> Intake:
        """`main` with whatever else fetches what this mode holds for the subject under an earlier config."""
        ...
