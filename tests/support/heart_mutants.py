"""Hearts with one deliberate defect each: whoever checks interleavings must notice them, or proves nothing."""

from __future__ import annotations

import contextlib

from appliance.bus.base import BusMessage
from appliance.errors import BusUnavailable
from appliance.outbox.records import TakeIn, TakeInResult, Taken
from tests.support.heart_checks import CONFIRMED
from tests.support.heart_world import Line
from tests.support.memory_store import MemoryStore, SeenKey


class AcknowledgesFirst(Line):
    """Acknowledges what it hears before anything is committed, in the name of the subscriber."""

    def before_handing_over(self, message: BusMessage) -> None:
        """Answer at once."""
        number = message.headers.get("appl-id", "").split("-")
        if ".reply." in message.subject or not message.reply_to or len(number) < 2:
            return
        node = message.subject.partition(".")[0]
        answer = CONFIRMED + f"{node}: {number[1]}".encode()
        with contextlib.suppress(BusUnavailable):
            self.send([(message.reply_to, "", b"", answer)])


class RemembersNothing(MemoryStore):
    """Takes every message for a new one."""

    def _take(self, item: TakeIn, taken_now: set[SeenKey]) -> Taken:
        self.disk.seen.clear()
        self.disk.row_of.clear()
        taken_now.clear()
        taken = super()._take(item, taken_now)
        return taken._replace(result=TakeInResult.FRESH)
