"""Which of a node's daemons has a message of a stream: claims, small messages in the same stream that only one can write.

A broker that hears nothing of a message gives it to the next daemon, which cannot know what the first one has made of
it. So whoever takes what must not be begun twice says so first, and what comes a second time is looked up:

| the daemon that had it ended        | who remembers         | who may do it                                     |
|-------------------------------------|-----------------------|---------------------------------------------------|
| before its claim was stored         | nobody                | whoever gets it next                              |
| claimed, not on its disk            | the claim             | that daemon, or another one when it stays away    |
| on its disk, not begun              | the claim, its row    | the same: its row goes on when it is back         |
| begun, no outcome on its disk       | the claim, its row    | the same: files go on where they were; a command  |
|                                     |                       | is not run again by either, but reported          |
| outcome on its disk, not acknowledged | the claim, its memory | that daemon acknowledges; another one when it   |
|                                     | of ids                | stays away: then it is done twice                 |

Who *stays away* has not been heard of a message for `TAKEOVER_S` since another daemon first asked. Until then whoever
gets the message gives it back, with growing pauses, and in one of them the daemon that comes back is given it.

There are two kinds of claims. One is written before a message is begun, and thrown away when all before it is
acknowledged. The other is written when a message is delivered again and by a daemon that finds it on its disk, and stays
as long as the stream keeps anything: a daemon that comes back after weeks learns from it that its rows are another's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from enum import Enum

from appliance.bus.base import BusMessage
from appliance.bus.batches import Batches
from appliance.bus.jetstream import JetStreamApi, Question
from appliance.core.streams import (
    EXPECTED_STREAM,
    NO_RESPONDERS,
    OTHER_STREAM,
    PubAck,
    Receipt,
    StreamAddress,
    begun_subject,
    claim_subject,
    read_puback,
)
from appliance.errors import BusUnavailable

TAKEOVER_S = 300.0
"""How long a daemon that has begun a message may be away before another one takes it over."""
PAUSE_FIRST_S, PAUSE_MAX_S = 1.0, 10.0
AT_ONCE = 128
"""Claims that are written together."""
MAX_AWAY = 8_192
"""Messages of daemons that are away whose times are kept."""

_WRONG_LAST_SEQUENCE = 10071


class Claim(Enum):
    """Whose a delivered message is."""

    OURS = "ours"
    TAKEN_OVER = "taken over"
    """Ours now; the daemon that had it may have begun it."""
    ANOTHERS = "another's"
    """Or nobody can say now: it is to be delivered again later."""


class Claims:
    """Those of one subject, as one daemon writes and reads them."""

    def __init__(
        self, api: JetStreamApi, instance: str, subject: str, mono: Callable[[], float]
    ) -> None:
        self._api = api
        self._instance = instance
        self._subject = subject
        self._mono = mono
        self._batches = Batches(mono)
        self._asked_mono: dict[int, float] = {}
        """When a message, by its place, was first found to be another daemon's."""
        self._newest = 0
        """Place of the newest claim that may be thrown away one day; 0 where there is none."""
        self._thrown_before = 0

    # -- before a message is taken in -------------------------------------------------------------

    async def of_deliveries(self, receipts: Sequence[Receipt], life: str) -> list[Claim]:
        """Claim what was delivered, all of one stream.

        Raises:
            BusUnavailable: the broker is away or denies it.
        """
        found: list[Claim] = []
        for at in range(0, len(receipts), AT_ONCE):
            some = receipts[at : at + AT_ONCE]
            owners = await self._begin(some, life)
            # one may have been delivered twice meanwhile
            again = {
                receipt.sequence: (receipt, owner)
                for receipt, owner in zip(some, owners, strict=True)
                if receipt.delivered > 1 or owner != self._instance
            }
            whose = (self._delivered_again(one, life, owner) for one, owner in again.values())
            said = dict(zip(again, await asyncio.gather(*whose), strict=True))
            found += [said.get(receipt.sequence, Claim.OURS) for receipt in some]
        return found

    async def _begin(self, receipts: Sequence[Receipt], life: str) -> list[str | None]:
        """The first to claim each; None where that cannot be found out now."""
        stream = receipts[0].stream
        subjects = [begun_subject(self._subject, stream, _name(life, one)) for one in receipts]
        # what is delivered again may be claimed, and a batch is refused for one that is
        batches = self._batches if all(one.delivered == 1 for one in receipts) else None
        said = await self._write(stream, [(subject, 0) for subject in subjects], batches)
        owners: list[str | None] = []
        for subject, ack in zip(subjects, said, strict=True):
            if ack is None:
                owners.append(None)
            elif ack.error is None:
                self._newest = max(self._newest, ack.seq)
                owners.append(self._instance)
            else:
                found = await self._api.last_of(stream, subject)
                is_taken = ack.error.err_code == _WRONG_LAST_SEQUENCE
                # taken and gone: it is acknowledged. Not taken: the stream has no room, and gets none unless messages go
                nobody = None if is_taken else self._instance
                owners.append(nobody if found is None else _text(found[1]))
        return owners

    async def _delivered_again(self, receipt: Receipt, life: str, begun_by: str | None) -> Claim:
        """Whose a message is that another daemon may have, or have had."""
        if begun_by is None:
            return Claim.ANOTHERS
        subject = claim_subject(self._subject, receipt.stream, _name(life, receipt))
        last, owner = 0, begun_by
        kept = await self._api.last_of(receipt.stream, subject)
        if kept is not None:
            last, owner = kept[0], _text(kept[1])
        ours = Claim.OURS if begun_by == self._instance else Claim.TAKEN_OVER
        if owner == self._instance and kept is not None:
            return ours
        if owner != self._instance and not self._stays_away(receipt.sequence):
            return Claim.ANOTHERS
        (ack,) = await self._write(receipt.stream, [(subject, last)])
        if ack is None or (ack.error is not None and ack.error.err_code == _WRONG_LAST_SEQUENCE):
            return Claim.ANOTHERS  # somebody else was quicker; that is told by the next delivery
        self._asked_mono.pop(receipt.sequence, None)
        return ours

    def _stays_away(self, sequence: int) -> bool:
        now = self._mono()
        since = self._asked_mono.setdefault(sequence, now)
        if len(self._asked_mono) > MAX_AWAY:
            del self._asked_mono[next(iter(self._asked_mono))]
        return now - since >= TAKEOVER_S

    # -- what is found on the own disk ------------------------------------------------------------

    async def of_rows(self, receipts: Sequence[tuple[Receipt, str]]) -> list[bool]:
        """Which messages that this daemon had taken in, with the life of their stream, no other one has taken over.

        Raises:
            BusUnavailable: the broker is away or denies it, or does not answer.
        """
        found: list[bool] = []
        for at in range(0, len(receipts), AT_ONCE):
            some = receipts[at : at + AT_ONCE]
            subjects = [
                claim_subject(self._subject, receipt.stream, _name(life, receipt))
                for receipt, life in some
            ]
            said = await self._write(some[0][0].stream, [(subject, 0) for subject in subjects])
            for (receipt, _), subject, ack in zip(some, subjects, said, strict=True):
                if ack is None:
                    raise BusUnavailable("no answer of the broker to a claim")
                found.append(ack.error is None or await self._has(receipt.stream, subject))
        return found

    async def _has(self, stream: str, subject: str) -> bool:
        # forgotten, it is as old as the stream keeps anything; or it has no room, and the message is in our hands alone
        found = await self._api.last_of(stream, subject)
        return found is None or _text(found[1]) == self._instance

    # -- throwing away ----------------------------------------------------------------------------

    def begin_stream(self, last: int) -> None:
        """From now on it is about another stream; claims of an earlier run may stand there up to this place."""
        self._newest, self._thrown_before = last, 0
        self._asked_mono.clear()

    @property
    def newest(self) -> int:
        """Place of the newest claim that is to be thrown away when nothing is in hand any more; 0 for none."""
        return self._newest

    async def throw_away(self, stream: str, before: int) -> None:
        """Have the stream forget the claims of messages that were begun, before a place; all before it is acknowledged.

        Raises:
            BusError: the broker is away, or refuses it.
        """
        if before > self._thrown_before and self._newest:
            pattern = begun_subject(self._subject, stream, "*")
            newest, self._newest = (
                self._newest,
                0,
            )  # where it is refused, the next claim has it tried again
            await self._api.purge(stream, pattern, before)
            self._newest = max(self._newest, newest)
            self._thrown_before = before
            if before > self._newest:
                self._newest = 0

    # -- writing ----------------------------------------------------------------------------------

    async def _write(
        self, stream: str, claims: Sequence[tuple[str, int]], batches: Batches | None = None
    ) -> list[PubAck | None]:
        """Write each where the last of its subject stands at the place given; what the stream said, None for nothing.

        Another one that records the subject (of another domain, behind a leaf node) takes no claim, and is not heard.
        """
        body = self._instance.encode()
        address = StreamAddress(stream, self._api.domain)
        expected = EXPECTED_STREAM + stream.encode()
        line = b"Nats-Expected-Last-Subject-Sequence"
        questions: list[Question] = [
            (subject, b"NATS/1.0\r\n%b\r\n%b: %d\r\n\r\n" % (expected, line, last), body)
            for subject, last in claims
        ]
        answers = await self._api.request_all(
            questions, batches=batches, counts=lambda answer: _is_of(_read(answer), address)
        )
        return [None if answer is None else _read(answer) for answer in answers]


def _is_of(said: PubAck | None, stream: StreamAddress) -> bool:
    if said is None:
        return False
    if said.error is not None:
        return said.error.err_code != OTHER_STREAM
    return said is _NOBODY or said.is_of(stream)


def pause_s(receipt: Receipt) -> float:
    """After how long a message that is another's is to be delivered again."""
    pause = min(PAUSE_FIRST_S * 2.0 ** min(max(receipt.delivered - 2, 0), 16), PAUSE_MAX_S)
    # in step with how the daemons ask, it would always be the same one's turn
    return pause * random.uniform(0.5, 1.0)


def _name(life: str, receipt: Receipt) -> str:
    return f"{life}-{receipt.sequence}"


def _text(body: bytes) -> str:
    return body.decode("ascii", "replace")


_NOBODY = PubAck()
"""There is no such stream any more, and nobody else to have the message."""


def _read(answer: BusMessage) -> PubAck | None:
    if answer.block.startswith(NO_RESPONDERS):
        return _NOBODY
    return read_puback(answer.payload)
