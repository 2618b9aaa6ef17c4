"""How many messages that are settled leave a stream at once: by one purge, before they are acknowledged.

A broker that writes everything through (`sync_interval: always`) waits for its disk once for each message that leaves a
work queue. A purge of all of a subject before a place is one such wait, however many it removes.

It removes whatever stands there, in whose hands it may be. So it goes no further than what is known to be settled here,
of which nothing is left out:

- what one asking for messages has brought, with the consumer's numbers following each other and each delivered for the
  first time. An asking lives as long as the consumer does with its leader, and a consumer delivers in the order of the
  stream: between two of them there is no message that another daemon has, or nobody yet.
- the oldest message of the subject that the stream has is one of them, and was stored when that one was: before them
  there is nothing that another daemon has, that was given back or is delivered no more, and it is the same stream.

All of them are acknowledged afterwards, as without a purge: what the broker knows of who has what is right whether there
was one or not.

One thing this cannot see: a consumer whose filter somebody changes and sets back passes over what was stored meanwhile,
never delivers it, and numbers on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any

from appliance.bus.base import Bus, Frame
from appliance.bus.jetstream import JetStreamApi, StoredMessage
from appliance.core.streams import Receipt
from appliance.errors import BusDenied, BusError

ENOUGH = 32
"""Acknowledgements for which a purge is worth asking the broker twice."""
SLOW_S = 0.0002
"""A broker that takes longer for each acknowledgement of many waits for its disk."""
SLOW_ENOUGH = 2
"""So often in a row: once it may have been anything."""
LOOK_EVERY_S, LOOK_APART_S = 60.0, 0.1
"""How often it is looked at where it is quick, and where it may be slow."""
SLOW_FOR_S = 600.0
"""For how long it is taken for slow, before it is looked at again."""
LOOK_AGAIN_S, LOOK_AGAIN_MAX_S = 0.002, 0.064
TIMEOUT_S = 5.0
"""How long acknowledgements wait for it at most."""
PAUSE_S = 1.0
"""For how long there is none where older messages are in other hands."""
PAUSE_AFTER_FAILURE_S = 30.0
MAX_REMEMBERED = 8_192
"""Messages of which it is known that there is nothing between them; behind one that takes its time they are forgotten."""


class Run:
    """Deliveries of which none is left out between the first and the last, the oldest first."""

    def __init__(self, asking: int, first: Receipt) -> None:
        self.asking = asking
        self.last = first
        self.receipts = [first]
        """Of those that are not told as settled."""

    def goes_on_with(self, receipt: Receipt, asking: int) -> bool:
        """Whether between its last and that one there is none."""
        last = self.last
        return (
            asking == self.asking
            and receipt.number == last.number + 1
            and receipt.sequence > last.sequence
        )

    def add(self, receipt: Receipt) -> None:
        """What comes next."""
        self.last = receipt
        self.receipts.append(receipt)

    def take(self, open_: set[str]) -> list[Receipt]:
        """What is settled up to the first that is open, which is it no longer."""
        count = 0
        for receipt in self.receipts:
            if receipt.ack_subject in open_:
                break
            count += 1
        taken = self.receipts[:count]
        del self.receipts[:count]
        return taken


class Runs:
    """What came without a gap, and how far it is settled. Values only."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._open: set[str] = set()
        """Acknowledgement subjects of what is in them and not settled."""
        self._count = 0

    def came(self, receipt: Receipt, asking: int) -> None:
        """A message was delivered, of that asking; 0 where nobody can say of which."""
        if not asking or receipt.delivered != 1:
            return
        if self._count >= MAX_REMEMBERED:
            self.forget()
        self._count += 1
        if self._runs and self._runs[-1].goes_on_with(receipt, asking):
            self._runs[-1].add(receipt)
        else:
            self._runs.append(Run(asking, receipt))
        self._open.add(receipt.ack_subject)

    def settle(self, ack_subjects: Iterable[str]) -> list[list[Receipt]]:
        """These are settled: what now is from the beginning of a run on, of each run for itself, and told once."""
        self._open.difference_update(ack_subjects)
        found: list[list[Receipt]] = []
        while self._runs:
            run = self._runs[0]
            taken = run.take(self._open)
            self._count -= len(taken)
            if taken:
                found.append(taken)
            # the newest may go on
            if run.receipts or len(self._runs) == 1:
                break
            self._runs.popleft()
        return found

    def forget(self) -> None:
        """What came so far leaves one by one: some of it goes to others, or the consumer is not what it was."""
        self._runs.clear()
        self._open.clear()
        self._count = 0


class _Group:
    """Settled messages of one run, without a gap, whose acknowledgements wait for a purge."""

    def __init__(self, receipts: list[Receipt], acks: list[Frame]) -> None:
        self.receipts = receipts
        self.acks = acks


class Tempo:
    """Whether the broker takes so long for each that leaves the stream that they are to leave it together."""

    def __init__(
        self, api: JetStreamApi, stream: str, subject: str, mono: Callable[[], float]
    ) -> None:
        self._api = api
        self._stream = stream
        self._subject = subject
        self._mono = mono
        self._slow_until_mono = 0.0
        self._slow_count = 0
        """How often in a row it took long."""
        self._due_mono = 0.0

    @property
    def is_slow(self) -> bool:
        """Whether it was when it was looked at last."""
        return self._mono() < self._slow_until_mono

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        return not self.is_slow and self._mono() >= self._due_mono

    async def look(self, acks: Sequence[Frame]) -> None:
        """See how long it takes for acknowledgements that were just sent: it answers one when it has done those before."""
        ack_subject, _, _, word = acks[-1]
        began = self._mono()
        try:
            await self._api.request(ack_subject, word, timeout_s=TIMEOUT_S)
            acknowledged = self._mono()
            # a question waits for no acknowledgement, and is as long on the way
            await self._api.first_of(self._stream, self._subject)
        except BusError:
            self._due_mono = self._mono() + PAUSE_AFTER_FAILURE_S
            return
        now = self._mono()
        took_s = (acknowledged - began) - (now - acknowledged)
        self._slow_count = self._slow_count + 1 if took_s > len(acks) * SLOW_S else 0
        self._due_mono = now + (LOOK_APART_S if self._slow_count else LOOK_EVERY_S)
        if self._slow_count >= SLOW_ENOUGH:
            self._slow_until_mono = now + SLOW_FOR_S
            self._slow_count = 0

    def begin_anew(self) -> None:
        """It may be another broker, or the same with other settings."""
        self._slow_until_mono = self._due_mono = 0.0
        self._slow_count = 0


class Purge:
    """Has the stream let go of what it holds of the subject up to a place, if that is known to be settled."""

    def __init__(
        self,
        bus: Bus,
        api: JetStreamApi,
        stream: str,
        subject: str,
        acked: Collection[tuple[float, Frame]],
    ) -> None:
        """`acked` are the newest acknowledgements, with the moments when they were said."""
        self._bus = bus
        self._api = api
        self._stream = stream
        self._subject = subject
        self._acked = acked

    async def remove(self, settled: Sequence[Receipt]) -> bool:
        """Remove all up to the last of what is settled without a gap; whether there was nothing else before it.

        Raises:
            BusError: the broker is away or denies it.
        """
        stored = {StoredMessage(one.sequence, one.stored_ns) for one in settled}
        asked_by = self._bus.connections
        # NB: from here to the purge nothing is waited for. It must not go to another broker than that answer came from
        if not await self._begins_with(stored) or self._bus.connections != asked_by:
            return False
        await self._api.purge(self._stream, self._subject, settled[-1].sequence + 1)
        return True

    async def _begins_with(self, stored: set[StoredMessage]) -> bool:
        """Whether the oldest that the stream has of the subject is one of these, when what was acknowledged before is gone.

        Raises:
            BusError: the broker is away or denies it.
        """
        wait_s = LOOK_AGAIN_S
        while True:
            oldest = await self._api.first_of(self._stream, self._subject)
            if oldest in stored:
                return True
            if oldest is None or not self._was_acknowledged(oldest):
                return False
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LOOK_AGAIN_MAX_S)

    def _was_acknowledged(self, message: StoredMessage) -> bool:
        place = f".{message.sequence}."
        stored = f".{message.stored_ns}."
        return any(
            place in ack and stored in ack and word.startswith(b"+")
            for _, (ack, _, _, word) in self._acked
        )


class Removal:
    """Acknowledges what is settled of one intake: at once, or when the stream has let go of it."""

    def __init__(
        self,
        tempo: Tempo,
        purge: Purge,
        mono: Callable[[], float],
        send: Callable[[list[Frame]], None],
        wake: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], None],
    ) -> None:
        """With `wake` the consumer looks whether it has something for us; `spawn` runs what waits for the broker."""
        self.tempo = tempo
        self._purge = purge
        self._mono = mono
        self._send = send
        self._wake = wake
        self._spawn = spawn
        self.runs = Runs()
        self._groups: deque[_Group] = deque()
        self._is_asking = False
        self._has_ended = False
        self._due_mono = 0.0
        """When the next purge may be."""

    def acknowledge(self, acks: Sequence[Frame], ended: Sequence[str] = ()) -> None:
        """Acknowledge settled messages, at once or when the stream has let go of them.

        `ended` are the acknowledgement subjects of those of which the broker was told that they have come to a bad end.
        """
        if not self.tempo.is_slow:
            # what came while it was slow and is settled now would be taken for open when it is slow again
            self.runs.forget()
            self._send(list(acks))
            if len(acks) >= ENOUGH and self.tempo.is_due:
                self._ask(self._look(acks))
            return
        found = self.runs.settle([*(ack[0] for ack in acks), *ended])
        left = {ack[0]: ack for ack in acks}
        for receipts in found if self._mono() >= self._due_mono else ():
            mine = [left[one.ack_subject] for one in receipts if one.ack_subject in left]
            # beside one that is under way a few wait, too: what comes meanwhile goes together
            if len(mine) < ENOUGH and not self._is_asking:
                continue
            self._groups.append(_Group(receipts, mine))
            for ack in mine:
                del left[ack[0]]
        if left:
            self._send(list(left.values()))
        if self._groups:
            self._ask(self._remove_all())

    def begin_anew(self) -> None:
        """It may be another broker, or the same with other settings."""
        self.runs.forget()
        self.tempo.begin_anew()

    def end(self) -> None:
        """Acknowledge what waits; there are no more purges."""
        self._has_ended = True
        self._due_mono = float("inf")
        groups, self._groups = self._groups, deque()
        self._send([ack for group in groups for ack in group.acks])

    def _ask(self, asking: Coroutine[Any, Any, None]) -> None:
        """One at a time: what comes meanwhile waits for it, or is not asked."""
        if self._is_asking or self._has_ended:
            asking.close()
            return
        self._is_asking = True
        self._spawn(asking, "have the stream let go of messages of")

    async def _look(self, acks: Sequence[Frame]) -> None:
        try:
            await self.tempo.look(acks)
        finally:
            self._is_asking = False

    async def _remove_all(self) -> None:
        try:
            while self._groups:
                group = self._groups.popleft()
                try:
                    if len(group.acks) >= ENOUGH and self._mono() >= self._due_mono:
                        await self._remove(group.receipts)
                finally:
                    self._send(group.acks)
                    self._wake()
        finally:
            self._is_asking = False

    async def _remove(self, settled: Sequence[Receipt]) -> None:
        pause_s = 0.0
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if not await self._purge.remove(settled):
                    pause_s = PAUSE_S
        except BusDenied:
            pause_s = SLOW_FOR_S
        except (BusError, TimeoutError):
            pause_s = PAUSE_AFTER_FAILURE_S
        if pause_s:
            self._due_mono = max(self._due_mono, self._mono() + pause_s)
