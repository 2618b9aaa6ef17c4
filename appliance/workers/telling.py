"""Telling the senders of messages that take longer that somebody works on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from appliance.delivery.base import Confirmation, Intake
from appliance.dialect.base import Answer, AnswerKind
from appliance.workers.incoming import Incoming

TELL_AFTER_S = 0.25
"""What is done sooner needs no word that it is being worked on."""
TELL_LOOK_S = 0.25
TELL_EVERY_MIN_S, TELL_EVERY_MAX_S = 0.3, 10.0


class Telling:
    """Of one subscriber; only appliances are told."""

    def __init__(self, intake: Intake, instance: str, mono: Callable[[], float]) -> None:
        self._intake = intake
        self._answer = Answer(AnswerKind.WORKING, detail=instance)
        self._mono = mono
        self._works: dict[Incoming, None] = {}
        self._has_some = asyncio.Event()

    def add(self, work: Incoming, said: list[Confirmation] | None = None) -> None:
        """From now on, until it is removed; with `said` a first word goes there at once."""
        if not work.identity.hears:
            return
        message = work.message
        asked_s = float(message.ack_timeout_s) if message is not None else 1.0
        work.tell_every_s = min(TELL_EVERY_MAX_S, max(TELL_EVERY_MIN_S, asked_s / 3))
        delay_s = min(TELL_AFTER_S, work.tell_every_s)
        if said is not None:
            said += self._words(work)
            delay_s = work.tell_every_s
        work.tell_due_mono = self._mono() + delay_s
        self._works[work] = None
        self._has_some.set()

    def add_unacknowledged(self, works: Iterable[Incoming]) -> None:
        """Their commit takes its time: who has no acknowledgement yet hears that somebody is there."""
        for work in works:
            if work.reply_tos and work not in self._works:
                self.add(work)

    def remove(self, concluded: Iterable[tuple[Incoming, object, object]]) -> None:
        """These have come to their end."""
        if self._works:
            for work, _, _ in concluded:
                self._works.pop(work, None)

    async def run(self) -> None:
        """Tell, again and again, until cancelled."""
        while True:
            await self._has_some.wait()
            await asyncio.sleep(TELL_LOOK_S)
            now = self._mono()
            said: list[Confirmation] = []
            for work in self._works:
                if now >= work.tell_due_mono:
                    work.tell_due_mono = now + work.tell_every_s
                    said += self._words(work)
            if said:
                self._intake.confirm(said)
            if not self._works:
                self._has_some.clear()

    def _words(self, work: Incoming) -> list[Confirmation]:
        # the newest reply subject is the one that is listened to
        return [
            Confirmation(reply_to, work.message_id, self._answer, True, work.signer)
            for reply_to in work.reply_tos[-1:]
        ]
