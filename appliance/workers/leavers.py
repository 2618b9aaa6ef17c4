"""Which answers nobody waits for any more, so that who still speaks can be told.

Only who has left is remembered, never who waits: after a restart, or where several daemons share a node's name,
nobody counts as gone and the answer runs to its own end.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.core.message import CALLER_FILE, Message
from appliance.dialect.headers import MORE_HEADER
from appliance.workers.incoming import Incoming

MAX_REMEMBERED = 10_000


class Leavers:
    """Ids of requests whose callers have gone, the newest ones."""

    def __init__(self) -> None:
        self._ids: dict[int, None] = {}

    def left(self, ids: Iterable[int]) -> None:
        """Nobody waits for the answers to these any more."""
        self._ids.update(dict.fromkeys(ids))
        while len(self._ids) > MAX_REMEMBERED:
            del self._ids[next(iter(self._ids))]

    def is_unwanted(self, work: Incoming, message: Message) -> bool:
        """Whether this is a piece of an answer that was for a caller alone, who has gone."""
        request = message.previous_message
        return (
            bool(self._ids)
            and request is not None
            and request.file_name == CALLER_FILE
            and request.id in self._ids
            and message.is_reply
            and MORE_HEADER in work.headers
        )
