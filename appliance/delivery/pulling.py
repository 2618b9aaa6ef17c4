"""The way in from a stream: pulls from the durable consumer of a subject, which all daemons of the node share.

As much is asked for as the subscriber has room for, and acknowledged as `ack.on` says. While a message is in hand the
broker is told so, else it goes to the next daemon.

A message that is delivered again may be in the hands of another daemon of the node, or of one that died and comes back.
So it is claimed first, see `claims`, as is what a daemon finds on its disk when it starts, and everything that must not be
begun twice and is acknowledged when it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from appliance.bus.base import Bus, BusMessage, Denial, Frame, OnDenied, OnMessages, Subscription
from appliance.bus.jetstream import ConsumerState, JetStreamApi, new_inbox
from appliance.core.names import REPLY_TOKEN
from appliance.core.specs import AckOn, SignaturePolicy, SubscriberSpec
from appliance.core.streams import (
    ACK_WAIT_S,
    EXPECTED_STREAM,
    MAX_DELIVER,
    Receipt,
    StreamAddress,
    describe_harm,
    is_work_queue,
    name_of_consumer,
    read_receipt,
    verdict_prefix,
    write_note,
)
from appliance.delivery.base import Confirmation, Kept, Notes
from appliance.delivery.claims import Claim, Claims, pause_s
from appliance.delivery.core import CoreIntake, must_have_key
from appliance.delivery.gathering import Gathering
from appliance.delivery.removal import Purge, Removal, Tempo
from appliance.delivery.signer import Signer
from appliance.dialect.base import Answer, AnswerKind, Dialect
from appliance.dialect.headers import (
    BEGUN_ELSEWHERE,
    LENT_PREFIX,
    header_text,
    with_line,
)
from appliance.errors import BusError, BusUnavailable, StoreError
from appliance.wire.headers import parse_headers
from appliance.wire.signature import cut_behind

MAX_PULLED = 1_024
"""Messages that may be on their way from a stream to one subscriber."""
MAX_PULLED_BYTES = 8 * 1024 * 1024
PULL_EXPIRES_S, PULL_HEARTBEAT_S = 30.0, 5.0
LOOK_S = 1.0
RESYNC_S = 30.0
"""How often stream and consumer are compared with what the config asks for."""
REPAIR_FIRST_S, REPAIR_MAX_S = 0.2, 10.0
REFUSED_PAUSE_S = 1.0
"""After how long a broker is asked again that refused what it was asked for, once is no pause: a consumer may have moved."""
REFUSED_AND_TOLD = 3
"""So often in a row, and it is the worker's trouble."""
TELL_EVERY_S = ACK_WAIT_S / 3
KEPT_LOOK_S = 5.0
"""How old what is told of the stream's content may be."""
RECENT_ACKS = 4_096
NOTE_KIND = "stream"
"""Of the facts that tell which streams record a subject of ours: what is left there is fetched whatever the config says."""

_NANOSECONDS = 1_000_000_000
_ACK = b"+ACK"


class Pulls:
    """What the broker is asked for, and what of it is still to come."""

    def __init__(self, bus: Bus, subject: str, inbox: str, mono: Callable[[], float]) -> None:
        """It is asked on `subject` and answers below `inbox`, each asking under its number."""
        self._bus = bus
        self._mono = mono
        self.subject = subject
        self.inbox = inbox
        self.count = 0
        self.room = 0
        """Messages that there is room for."""
        self.heard_mono = 0.0
        """When anything of it came."""
        self.denied: str | None = None
        """In the broker's words, where it does not let us ask."""
        self._asked = 0
        """Messages that the broker was asked for and has not sent."""
        self._first_counted = 1
        """The first asking that is part of it: what becomes of earlier ones was given up."""
        self.one_by_one = False
        """Whether it is to be known by which asking a message came: one follows the other, at the price of a round trip."""
        self.only = 0
        """The asking by which everything comes that comes; 0 where that is not known."""
        self._sure_mono = 0.0
        """Until then something may come by one that was given up."""
        self._refusals = 0
        """How often in a row the broker refused."""
        self._refused = ""
        """In the broker's words, why."""
        self._from_mono = 0.0
        """When it may be asked again."""

    def ask(self) -> None:
        """Ask for as much as there is room for, not for a few at a time.

        Daemons are served in turns, each as often as it has asked: who kept many askings open would get most of what is
        another's, and give it back again and again. So there is one while nothing comes.
        """
        room = min(self.room, MAX_PULLED)
        wanted = room - self._asked
        rest = 0 if self.one_by_one and room == MAX_PULLED else room // 4
        if wanted <= 0 or self._asked > rest or self._mono() < self._from_mono:
            return
        is_alone = self.one_by_one and not self._asked and self._mono() >= self._sure_mono
        self.count += 1
        self.only = self.count if is_alone else 0
        body = {
            "batch": wanted,
            "max_bytes": MAX_PULLED_BYTES,
            # the broker serves who has asked for longest: daemons that ask in step would not take turns
            "expires": round(PULL_EXPIRES_S * random.uniform(0.5, 1.0) * _NANOSECONDS),
            "idle_heartbeat": round(PULL_HEARTBEAT_S * _NANOSECONDS),
        }
        frame = (self.subject, f"{self.inbox}.{self.count}", b"", json.dumps(body).encode())
        with contextlib.suppress(BusUnavailable):
            self._bus.send([frame])
            self._asked += wanted
            self.heard_mono = self._mono()

    def wake(self) -> None:
        """Have the consumer look whether it has something for us: after a purge it may stand still until it hears anything.

        An asking that has ended when it comes is heard, and served nothing. Another daemon may be the one that waits.
        """
        frame = (self.subject, f"{self.inbox}.wake", b"", b'{"batch": 1, "expires": 1}')
        with contextlib.suppress(BusUnavailable):
            self._bus.send([frame])

    def deny(self, denial: Denial) -> None:
        """The broker does not let us ask; what comes next says that it does again."""
        self.denied = denial.text

    def hear(self, now: float) -> None:
        """Something of it has come."""
        self.heard_mono, self.denied = now, None

    def refuse(self, words: str) -> None:
        """The broker ended what it was asked for, and not because its time was over."""
        self.give_up()
        self._refusals += 1
        self._refused = words
        if self._refusals > 1:
            self._from_mono = self._mono() + REFUSED_PAUSE_S

    def serve(self) -> None:
        """The broker does what it was asked for."""
        self._refusals, self._refused, self._from_mono = 0, "", 0.0

    @property
    def trouble(self) -> str | None:
        """Why nothing can come, in the broker's words; None where it may."""
        if self._refusals >= REFUSED_AND_TOLD:
            return f"the broker refuses to deliver: {self._refused}"
        return self.denied

    def came(self, count: int) -> None:
        """So many of them have come, or come no more."""
        self._asked = max(0, self._asked - count)

    @property
    def has_more(self) -> bool:
        """Whether something that was asked for has not come yet."""
        return self._asked > 0

    def is_of_it(self, subject: str) -> bool:
        """Whether a word on this subject is about an asking that counts."""
        number = subject.rpartition(".")[2]
        return number.isdecimal() and self._first_counted <= int(number[:18]) <= self.count

    def is_silent(self, now: float) -> bool:
        """Whether nothing came for so long that the asking must be lost."""
        return bool(self._asked) and now - self.heard_mono > 2.5 * PULL_HEARTBEAT_S

    def give_up(self) -> None:
        """Ask anew: nothing is known of what was asked for so far."""
        self._asked = 0
        self.only = 0
        self._sure_mono = self._mono() + PULL_EXPIRES_S + PULL_HEARTBEAT_S
        self._first_counted = self.count + 1


class InHand:
    """Deliveries that are not acknowledged yet, and what was said of the newest others."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}
        """When the broker was last told of one that is not acknowledged yet, by its acknowledgement subject."""
        self.acked: deque[tuple[float, Frame]] = deque(maxlen=RECENT_ACKS)

    def words_due(self, now: float) -> list[Frame]:
        """What the broker is told of those that it has not heard of for a while."""
        due = [ack for ack, told in self.told.items() if now - told >= TELL_EVERY_S]
        self.told.update(dict.fromkeys(due, now))
        return [(ack, "", b"", b"+WPI") for ack in due]

    def words_again(self, now: float) -> list[Frame]:
        """What is said again when the connection was lost upon it."""
        return [frame for at, frame in self.acked if now - at < ACK_WAIT_S]


class Upkeep:
    """Has a stream and the consumer of a subject be as the config asks, and says what keeps them from it."""

    def __init__(
        self,
        api: JetStreamApi,
        spec: SubscriberSpec,
        notes: Notes,
        stream: StreamAddress,
        claims: Claims,
        mono: Callable[[], float],
        *,
        is_rest: bool,
    ) -> None:
        self._api = api
        self._spec = spec
        self._notes = notes
        self._note = write_note(spec.subject, stream)
        self._stream = stream.name
        self._claims = claims
        self._mono = mono
        self._is_rest = is_rest
        self.has_ended = False
        """Whether what it was to empty is empty: it asks for nothing more, and lets the stream be."""
        self.life = ""
        """Tells this stream from another of its name; part of the numbers it lends."""
        self.trouble: str | None = None
        self.is_ours_alone = False
        """Whether nobody else needs what the stream keeps of the subject: a purge takes nothing from others then."""
        self._harm = ""
        """What is wrong with the stream and stays so, whoever changes what."""
        self._is_change_ours = False
        """Whether what the next look mends is a change of the config, and nobody else's."""
        self._due_mono = 0.0
        self._delay_s = REPAIR_FIRST_S

    def update(self, spec: SubscriberSpec) -> None:
        """New limits are the stream's in a moment."""
        if (spec.stream, spec.concurrency) != (self._spec.stream, self._spec.concurrency):
            self.look_now()
            self._is_change_ours = True
        self._spec = spec

    def look_now(self) -> None:
        """Nothing is known of them any more."""
        self._due_mono = 0.0

    def look_soon(self) -> None:
        """Something may be wrong; asked for again and again it waits longer while it stays so."""
        self._due_mono = min(self._due_mono, self._mono() + self._delay_s)

    async def begin(self) -> None:
        """Have both as they should be for the first time; what is otherwise then, the config may have changed meanwhile.

        Raises:
            BusError: the broker is away, or refuses it.
        """
        await self.ensure()
        self.trouble = self._harm or None

    async def ensure(self) -> str | None:
        """Have both as they should be; what differs and cannot be changed.

        Raises:
            BusError: the broker is away, or refuses it.
        """
        drift = await (self._release() if self._is_rest else self._ensure())
        self._due_mono = self._mono() + RESYNC_S
        return drift or None

    async def _release(self) -> str:
        # what is sent from here on goes another way
        spec, name = self._spec, self._stream
        found = await self._api.release_subjects(name, spec.subject)
        self.life = "" if found is None else _life_of(found.created)
        self.is_ours_alone = found is not None and is_work_queue(found.config)
        if found is not None:
            # senders may have had it keep messages though this node never asked for any
            await self._api.ensure_consumer(name, spec.subject, spec.concurrency)
        return ""

    async def _ensure(self) -> str:
        spec, name = self._spec, self._stream
        # from here on messages may lie there for us, whatever the config says later
        if self._note not in self._notes.facts(NOTE_KIND):
            try:
                await self._notes.remember(NOTE_KIND, {self._note: ""})
            except StoreError as error:
                raise BusUnavailable(str(error)) from error
        found, drift = await self._api.ensure_stream(spec.stream, name, spec.subject, is_ours=True)
        self._harm = describe_harm(spec.stream, name, found.config)
        self.is_ours_alone = is_work_queue(found.config)
        life = _life_of(found.created)
        if life != self.life:
            self.life = life
            self._claims.begin_stream(int(found.state.get("last_seq", 0)))
        return await self._api.ensure_consumer(name, spec.subject, spec.concurrency) or drift

    async def look(self, now: float) -> None:
        """Mend what is not as it should be, if it is time to look at it."""
        if now < self._due_mono:
            return
        try:
            async with asyncio.timeout(RESYNC_S):
                drift = await self.ensure()
        except (BusError, TimeoutError) as error:
            self.trouble = str(error) or "the broker does not answer"
            self._delay_s = min(self._delay_s * 2, REPAIR_MAX_S)
            self._due_mono = self._mono() + self._delay_s
        else:
            self.trouble = (self._harm or None) if self._is_change_ours else drift
            self._is_change_ours = False
            self._delay_s = REPAIR_FIRST_S

    async def end_rest(self) -> None:
        """Once a stream that is not the config's any more holds nothing for us, it is forgotten."""
        subject = self._spec.subject
        with contextlib.suppress(BusError, StoreError):
            found = await self._api.find_consumer(self._stream, subject)
            if found is not None and (found.waiting or found.in_hand):
                return
            if await self._api.count_of(self._stream, subject):
                # the consumer is gone, and is made anew; or what is left was delivered too often, and stays to be seen
                self.has_ended = found is not None
                self.look_now()
                return
            if found is not None:
                await self._api.delete_consumer(self._stream, subject)
            await self._notes.remember(NOTE_KIND, {self._note: None})
            self.trouble = None
            self.has_ended = True


class Stock:
    """What a stream keeps for a subject, as the broker said last; claims of what it keeps no more are thrown away."""

    def __init__(self, api: JetStreamApi, stream: str, subject: str, claims: Claims) -> None:
        self._api = api
        self._stream = stream
        self._subject = subject
        self._claims = claims
        self._due_mono = 0.0
        self.parked = 0
        """Messages that are delivered no more."""
        self.paused_until = ""
        """Until when the consumer delivers nothing, because somebody has paused it; "" where it is not."""
        self.kept: Kept | None = None

    def look_now(self, _: list[BusMessage]) -> None:
        """The broker says of some that they were delivered as often as they may be; how many there are is asked for."""
        self._due_mono = 0.0

    async def look(self, now: float, *, has_in_hand: bool) -> None:
        """Ask what there is, if it is time to; an answer that does not come fails nothing."""
        newest = self._claims.newest
        # claims that nothing in hand needs any more take up room of the stream
        if now < self._due_mono and (has_in_hand or not newest):
            return
        self._due_mono = now + KEPT_LOOK_S
        stream, subject = self._stream, self._subject
        with contextlib.suppress(BusError):
            found = await self._api.find_consumer(stream, subject)
            if found is None:
                return
            self.paused_until = found.paused_until
            await self._count_parked(found)
            is_empty = not (found.waiting or found.in_hand)
            if newest:
                # of what is acknowledged; none is newer than what there was before the look
                with contextlib.suppress(BusError):
                    before = newest + 1 if is_empty else found.floor + 1
                    await self._claims.throw_away(stream, before)
            oldest_at = None
            if not is_empty:
                oldest_at = await self._api.stored_at(stream, subject, found.floor + 1)
            self.kept = Kept(
                stream, found.waiting, found.in_hand, found.redelivered, self.parked, oldest_at
            )

    async def _count_parked(self, found: ConsumerState) -> None:
        """What the stream holds of the subject and the consumer neither delivers nor waits for."""
        parked = await self._api.count_of(self._stream, self._subject)
        parked -= found.waiting + found.in_hand
        # of what came or went between the two looks nothing is known
        if parked <= 0 or await self._api.find_consumer(self._stream, self._subject) == found:
            self.parked = max(parked, 0)


class JetStreamIntake:
    """Implements `base.Intake`: pulls from the durable consumer of the subject.

    A delivery's reply subject, as the subscriber sees it, holds all that an acknowledgement needs, also after a restart:
    ``<subject>.reply.stream .<life of the stream>/<instance of the sender>/<the broker's acknowledgement subject>``, the
    latter with ``/`` for the dots. The blank is what no subject holds that comes over the wire: else a sender could name
    such a one, and have any message of the stream acknowledged.
    """

    def __init__(
        self,
        bus: Bus,
        api: JetStreamApi,
        dialect: Dialect,
        instance: str,
        spec: SubscriberSpec,
        on_answers_denied: OnDenied,
        notes: Notes,
        stream: StreamAddress,
        signer: Signer,
        *,
        begins_once: bool,
        is_rest: bool,
    ) -> None:
        """With `is_rest` it empties the stream, which is not the config's any more."""
        self._begins_once = begins_once
        self._dialect = dialect
        self._bus = bus
        self._spec = spec
        self._is_rest = is_rest
        self._stream = stream.name
        # of the same form as a sender's
        self._prefix = f"{spec.subject}.{REPLY_TOKEN}.stream ."
        """How the reply subjects begin that stand for deliveries of a stream."""
        self._signer = signer
        self._plain = CoreIntake(bus, dialect, spec, on_answers_denied, signer)
        """Answers messages that came by core, under another config."""
        mono = self._mono = asyncio.get_running_loop().time
        self._consumer = f"{stream.name}.{name_of_consumer(spec.subject)}"
        next_subject = f"{api.prefix}.CONSUMER.MSG.NEXT.{self._consumer}"
        self._pulls = Pulls(bus, next_subject, new_inbox(spec.node), mono)
        self._claims = Claims(api, instance, spec.subject, mono)
        self._upkeep = Upkeep(api, spec, notes, stream, self._claims, mono, is_rest=is_rest)
        self._stock = Stock(api, stream.name, spec.subject, self._claims)
        self._in_hand = InHand()
        self._removal = Removal(
            Tempo(api, stream.name, spec.subject, mono),
            Purge(bus, api, stream.name, spec.subject, self._in_hand.acked),
            mono,
            self._send,
            self._pulls.wake,
            self._spawn,
        )
        self._on_messages: OnMessages = _nothing
        self._gathering = Gathering(lambda messages: self._on_messages(messages))
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = bus.connections
        self._end_denials: Callable[[], None] = _nothing

    # -- life -------------------------------------------------------------------------------------

    async def start(self, on_messages: OnMessages, on_denied: OnDenied) -> None:
        """See `base.Intake`. Nothing comes before `want`."""
        must_have_key(self._signer, self._spec.signatures)
        try:
            await self._upkeep.begin()
        except BusError as error:
            if not self._is_rest:
                raise
            # what is left there keeps nothing else from coming in
            self._upkeep.trouble = str(error)
        self._on_messages = on_messages
        self._subscriptions.append(
            await self._bus.subscribe(f"{self._pulls.inbox}.*", self._take, on_denied=on_denied)
        )
        advisory = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{self._consumer}"
        # what is denied here is a word of the broker less, and nothing else
        self._subscriptions.append(
            await self._bus.subscribe(advisory, self._stock.look_now, on_denied=_nothing)
        )
        self._end_denials = self._bus.on_publish_denied(self._pulls.subject, self._pulls.deny)
        self._spawn(self._watch(), "watch the stream of")

    async def stop(self) -> None:
        """See `base.Intake`."""
        self._pulls.room = 0
        self._removal.end()
        self._end_denials()
        for task in self._tasks:
            task.cancel()
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.stop_intake()
        self._gathering.end()
        self._in_hand.told.clear()

    @property
    def has_ended(self) -> bool:
        """Whether what it was to empty is empty."""
        return self._upkeep.has_ended

    @property
    def kept(self) -> Kept | None:
        """See `base.Intake`."""
        return self._stock.kept

    def _spawn(self, coroutine: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.get_running_loop().create_task(
            coroutine, name=f"{what} {self._spec.key.name}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def answers_get_out(self) -> bool:
        """See `base.Intake`."""
        return self._plain.answers_get_out

    @property
    def trouble(self) -> str | None:
        """See `base.Intake`."""
        parked, trouble = self._stock.parked, self._upkeep.trouble
        if trouble is None and self._stock.paused_until:
            return (
                f"somebody has paused the consumer {name_of_consumer(self._spec.subject)} of the stream "
                f"{self._stream}: it delivers nothing until {self._stock.paused_until}"
            )
        if trouble is None and parked:
            return (
                f"{parked} messages of the stream {self._stream} were delivered {MAX_DELIVER} times and are "
                "delivered no more"
            )
        return trouble or self._pulls.trouble

    # -- pulling ----------------------------------------------------------------------------------

    is_asked = True

    def update(self, spec: SubscriberSpec) -> None:
        """See `base.Intake`."""
        self._upkeep.update(spec)
        self._spec = spec
        self._plain.update(spec)

    def want(self, count: int) -> None:
        """See `base.Intake`."""
        self._pulls.room = count
        self._pull()

    def _pull(self) -> None:
        if self._subscriptions and not self._upkeep.has_ended:
            self._pulls.one_by_one = self._removal.tempo.is_slow and self._upkeep.is_ours_alone
            self._pulls.ask()

    def _take(self, messages: list[BusMessage]) -> None:
        """Everything of one read: messages, and what the broker says of the asking."""
        now, pulls, life = self._mono(), self._pulls, self._upkeep.life
        pulls.hear(now)
        fresh: list[BusMessage] = []
        again: list[BusMessage] = []
        subject, prefix, lender = self._spec.subject, self._prefix, LENT_PREFIX + life
        stream = self._stream
        in_hand, sender_of = self._in_hand.told, self._dialect.sender_of
        # what is begun here must be begun nowhere else, whatever becomes of this daemon
        claims_all = self._begins_once and self._spec.ack_on is AckOn.DONE
        is_last = True
        runs, asking = self._removal.runs, pulls.only
        for message in messages:
            receipt = read_receipt(message.reply_to) if message.reply_to else None
            if receipt is None or message.subject != subject or receipt.stream != stream:
                self._take_status(message)
                continue
            ack, is_last = receipt.ack_subject, receipt.is_last
            in_hand[ack] = now
            runs.came(receipt, asking)
            block = message.block
            at = block.find(EXPECTED_STREAM)
            if at > 0:
                block = block[:at] + b"\r\n"
            # from here on what stands behind a signature is from this daemon
            block = cut_behind(block)
            taken = BusMessage(
                subject,
                message.payload,
                block,
                f"{prefix}{life}/{sender_of(block)}/{ack.replace('.', '/')}",
                origin=(lender, receipt.sequence),
            )
            (fresh if receipt.delivered == 1 and not claims_all else again).append(taken)
        if again:
            self._spawn(self._take_claimed(again), "claim messages of")
        taken_count = len(fresh) + len(again)
        if taken_count:
            pulls.serve()
        pulls.came(taken_count)
        pulls.room = max(0, pulls.room - taken_count)
        if fresh:
            # with one at a time the next one comes when this one is acknowledged
            has_more = not is_last and pulls.has_more and self._spec.concurrency > 1
            self._gathering.add(fresh, has_more=has_more)
        self._pull()

    def _take_status(self, message: BusMessage) -> None:
        block = message.block
        if not block.startswith(b"NATS/1.0 ") or message.payload:
            return
        headers = parse_headers(block)
        left = headers.get("Nats-Pending-Messages", "")
        status, description = headers.get("Status", ""), headers.get("Description", "")
        is_counted = self._pulls.is_of_it(message.subject)
        is_full = bool(left) and "MaxBytes" in description
        is_served = is_full or status in ("100", "404", "408")
        if is_counted and is_served:
            self._pulls.serve()
        if status == "100":
            return
        if is_counted and left.isdecimal() and len(left) < 10:
            self._pulls.came(int(left))
        elif is_counted and not left:
            # of another kind than the end of one asking: everything is looked at anew
            self._pulls.refuse(f"{status} {description}".strip()[:200])
        if not is_served:
            self._upkeep.look_soon()

    # -- claims -----------------------------------------------------------------------------------

    async def _take_claimed(self, messages: list[BusMessage]) -> None:
        """Deliveries of which another daemon may have had the message, or may get it later."""
        receipts = [_receipt_of(message.reply_to) for message in messages]
        try:
            claims = await self._claims.of_deliveries(receipts, self._upkeep.life)
        except BusError:
            self._removal.runs.forget()
            for receipt in receipts:
                # delivered once more in a while
                self._in_hand.told.pop(receipt.ack_subject, None)
            return
        mine: list[BusMessage] = []
        given_back: list[Frame] = []
        for message, receipt, claim in zip(messages, receipts, claims, strict=True):
            if claim is Claim.ANOTHERS:
                self._in_hand.told.pop(receipt.ack_subject, None)
                given_back.append((receipt.ack_subject, "", b"", _nak(pause_s(receipt))))
                continue
            if claim is Claim.TAKEN_OVER:
                message.block = with_line(message.block, BEGUN_ELSEWHERE)
            mine.append(message)
        if given_back:
            self._removal.runs.forget()
            self._send(given_back)
        if mine:
            self._on_messages(mine)

    async def claim(self, reply_tos: Sequence[str]) -> list[bool]:
        """See `base.Intake`. What came by core is ours."""
        prefix = self._prefix
        kept = [reply_to for reply_to in reply_tos if reply_to.startswith(prefix)]
        receipts = [
            (_receipt_of(reply_to), reply_to[len(prefix) :].partition("/")[0]) for reply_to in kept
        ]
        of_kept = dict(zip(kept, await self._claims.of_rows(receipts), strict=True))
        return [of_kept.get(reply_to, True) for reply_to in reply_tos]

    # -- acknowledging ----------------------------------------------------------------------------

    def confirm(self, confirmations: Sequence[Confirmation]) -> None:
        """See `base.Intake`."""
        now = self._mono()
        frames: list[Frame] = []
        acks: list[Frame] = []
        ended: list[str] = []
        plain: list[Confirmation] = []
        prefix, in_hand, acked = self._prefix, self._in_hand.told, self._in_hand.acked
        for confirmation in confirmations:
            if not confirmation.reply_to.startswith(prefix):
                plain.append(confirmation)
                continue
            ack = _ack_subject(confirmation.reply_to)
            kind = confirmation.answer.kind
            if kind is AnswerKind.WORKING:
                in_hand[ack] = now
                frames.append((ack, "", b"", b"+WPI"))
                continue
            in_hand.pop(ack, None)
            frame = (ack, "", b"", _word(confirmation.answer))
            acked.append((now, frame))
            if kind is AnswerKind.REFUSED or kind is AnswerKind.FAILED:
                frames += self._verdict(confirmation)
                ended.append(ack)
            elif kind is not AnswerKind.BUSY:
                acks.append(frame)
                continue
            else:
                self._removal.runs.forget()
            frames.append(frame)
        if plain:
            self._plain.confirm(plain)
        self._send(frames)
        if acks or ended:
            self._removal.acknowledge(acks, ended)

    def _verdict(self, confirmation: Confirmation) -> list[Frame]:
        """The end of a message, for the appliance that sent it, if it is there."""
        _, message_id, answer, _, asker = confirmation
        instance = confirmation.reply_to[len(self._prefix) :].split("/", 2)[1]
        if not instance:
            return []
        spec = self._spec
        block, payload = self._dialect.write_answer(
            answer, spec.node, message_id, to_appliance=True
        )
        subject = f"{verdict_prefix(spec.subject, instance)}{message_id}"
        if spec.signatures is SignaturePolicy.OFF:
            return [(subject, "", block, payload)]
        return self._signer.sign_answers([(subject, asker, block, payload)], spec.node)

    def _send(self, frames: list[Frame]) -> None:
        if frames:
            with contextlib.suppress(BusError):  # said again after the next connect
                self._bus.send(frames)

    def owns(self, reply_to: str) -> bool:
        """Whether this is a delivery of its stream."""
        if not reply_to.startswith(self._prefix):
            return False
        receipt = read_receipt(_ack_subject(reply_to))
        return receipt is not None and receipt.stream == self._stream

    def say_here(self, to: Sequence[str]) -> None:
        """See `base.Intake`. Nobody waits for the node: the stream has taken what it was sent."""

    # -- watching ---------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Keep the asking going, the broker told of what is in hand, and stream and consumer as they should be."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._bus.is_connected:
                continue
            now = self._mono()
            if self._bus.connections != self._connections:
                self._connections = self._bus.connections
                self._pulls.give_up()
                self._removal.begin_anew()
                self._send(self._in_hand.words_again(now))
                self._upkeep.look_now()
            elif self._pulls.is_silent(now):
                self._pulls.give_up()
                self._upkeep.look_now()
            await self._upkeep.look(now)
            if self._upkeep.trouble:
                # a consumer that somebody had changed may have passed over messages between two that came
                self._removal.runs.forget()
            await self._stock.look(now, has_in_hand=bool(self._in_hand.told))
            self._send(self._in_hand.words_due(self._mono()))
            self._pull()
            if self._is_rest and not self._in_hand.told:
                await self._upkeep.end_rest()
                if self.has_ended:
                    # NB: looked after any longer, stream and consumer would be made anew, and record what goes by core
                    return


def _ack_subject(reply_to: str) -> str:
    """Where the broker takes what is said of a delivery."""
    return reply_to.rpartition(".")[2].split("/", 2)[2].replace("/", ".")


def _receipt_of(reply_to: str) -> Receipt:
    """Which delivery of which stream the subscriber sees under this reply subject."""
    receipt = read_receipt(_ack_subject(reply_to))
    assert receipt is not None  # it was one when the reply subject was made
    return receipt


def _word(answer: Answer) -> bytes:
    """What the broker is told of a delivery."""
    kind = answer.kind
    if kind is AnswerKind.BUSY:
        return _nak(answer.wait_ms / 1_000)
    if kind is AnswerKind.REFUSED or kind is AnswerKind.FAILED:
        return f"+TERM {kind.value}: {header_text(answer.detail)}".encode()
    return _ACK


def _nak(delay_s: float) -> bytes:
    return b'-NAK {"delay": %d}' % round(delay_s * _NANOSECONDS)


def _life_of(created: str) -> str:
    return hashlib.sha256(created.encode()).hexdigest()[:12]


def _nothing(*_: object) -> None: ...
