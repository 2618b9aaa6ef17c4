"""Which messages are surely new, told on the event loop without a round through the writer's thread.

Ids grow, so one above all that are remembered of its sender was never seen. Whatever may have been is looked up exactly,
by the writer.

NB: this reads what the writer's thread changes. A message that is being finished just now may be missed; who finishes it
still has it in hand, and asks about no message that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from appliance.outbox.dedupe import Dedupe
from appliance.outbox.inbox import Inbox
from appliance.outbox.records import TakeIn

IdKey = tuple[str, str, int]
"""Sender, instance, id."""


class Newness:
    """Of one store."""

    def __init__(self, dedupe: Dedupe, inbox: Inbox) -> None:
        self._dedupe = dedupe
        self._inbox = inbox

    def are_surely_new(self, scope: str, ids: Iterable[IdKey | None]) -> bool:
        """Whether none of these was ever seen; None stands for a message without a usable id, of which nothing is
        remembered.
        """
        unfinished, senders = self._inbox.unfinished, self._dedupe.senders
        last_name = last_instance = ""
        highest = -1
        rows: Mapping[int, int] = {}
        for key in ids:
            if key is None:
                continue
            name, instance, message_id = key
            if instance != last_instance or name != last_name:  # mostly all are of one sender
                last_name, last_instance = name, instance
                whose = (scope, name, instance)
                rows = unfinished.get(whose) or {}
                sender = senders.get(whose)
                highest = -1 if sender is None else sender.highest
            if message_id <= highest or message_id in rows:
                return False
        return True

    def needs_no_commit(self, items: Sequence[TakeIn]) -> bool:
        """Whether nothing has to be written for any of them: no body is to be kept, and each is new and another."""
        scope = items[0].scope
        keys: list[IdKey] = []
        for item in items:
            # its body must be on disk before anybody is told
            if item.keep_body or item.scope != scope:
                return False
            if item.instance is not None:
                keys.append((item.sender, item.instance, item.message_id))
        return len(set(keys)) == len(keys) and self.are_surely_new(scope, keys)
