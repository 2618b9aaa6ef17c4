"""The records a publisher has in flight, found by id and by the reply token of any of their attempts.

Tokens of earlier attempts stay valid until the record is settled: a late acknowledgement still says that the message
arrived. They are random, so that nobody can acknowledge what he was not sent.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator

from appliance.outbox.records import OutboxRecord
from appliance.workers.identity import TURN_HEADER

TOKENS_AT_ONCE = 128
TOKEN_BYTES = 8


class InFlight:
    """One record between its first send and its settlement. `due_mono` is the ack deadline or the retry time."""

    __slots__ = (
        "awaiting_ack",
        "due_mono",
        "epoch",
        "failures",
        "is_done",
        "is_unwanted",
        "record",
        "sent_mono",
        "stream",
        "tokens",
    )

    def __init__(self, record: OutboxRecord) -> None:
        self.record = record
        self.tokens: list[str] = []
        self.awaiting_ack = False
        self.due_mono = 0.0
        self.sent_mono = 0.0
        self.epoch = -1
        self.failures = 0
        self.is_done = False
        self.is_unwanted = False
        turn = record.headers.get(TURN_HEADER) if record.headers else None
        self.stream = turn.rpartition(".")[0] if turn else ""


class Window:
    """All flights of one publisher."""

    def __init__(self) -> None:
        self._by_id: dict[int, InFlight] = {}
        self._by_token: dict[str, InFlight] = {}
        self._fresh_tokens: list[str] = []
        self._streams: dict[str, deque[InFlight]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[InFlight]:
        return iter(self._by_id.values())

    def __contains__(self, flight: InFlight) -> bool:
        return self._by_id.get(flight.record.id) is flight

    def add(self, record: OutboxRecord) -> InFlight:
        """Take a record in."""
        flight = self._by_id[record.id] = InFlight(record)
        if flight.stream:
            self._streams.setdefault(flight.stream, deque()).append(flight)
        return flight

    def has_to_wait(self, flight: InFlight) -> bool:
        """Whether an earlier message of its stream is not settled yet."""
        return bool(flight.stream) and self._streams[flight.stream][0] is not flight

    def issue_token(self, flight: InFlight) -> str:
        """A token for the next attempt."""
        if not self._fresh_tokens:
            size = 2 * TOKEN_BYTES
            raw = secrets.token_hex(TOKEN_BYTES * TOKENS_AT_ONCE)
            self._fresh_tokens = [raw[at : at + size] for at in range(0, len(raw), size)]
        token = self._fresh_tokens.pop()
        flight.tokens.append(token)
        self._by_token[token] = flight
        return token

    def find(self, token: str) -> InFlight | None:
        """The flight an answer belongs to; None when its record is settled, or the token is not ours."""
        return self._by_token.get(token)

    def forget(self, flight: InFlight) -> bool:
        """The record is settled or given back; whether that lets another one of its stream go."""
        known = self._by_id.pop(flight.record.id, None)
        for token in flight.tokens:
            self._by_token.pop(token, None)
        if known is None or not flight.stream:
            return False
        waiting = self._streams[flight.stream]
        was_first = waiting[0] is flight
        waiting.remove(flight)
        if not waiting:
            del self._streams[flight.stream]
        return was_first and bool(waiting)
