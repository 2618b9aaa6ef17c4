"""Makes the outbox records of answers: as which methods they may arrive, within which bounds, and in how many messages.

An answer that is too large for one message goes in pieces, with the headers of one that is said while the work goes on.
How large a message may be is the broker's word, and what the node that asked will decode its config's; both are looked at
when the answer is made. Where an answer replaces what was there (REQToFile) pieces of it would be worse than none: it
fails, and the one who asked is told.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

from appliance.core.current import Current
from appliance.core.message import CALLER_FILE, Message, bounded, bytes_to_text, text_to_bytes
from appliance.core.names import MethodName
from appliance.core.specs import SubscriberSpec
from appliance.dialect.headers import MORE_HEADER, STREAM_HEADER, TURN_HEADER
from appliance.errors import AnswerTooLarge
from appliance.outbox.records import OutboxRecord
from appliance.workers.services import WorkerServices

PIECE_BYTES = 512 * 1024
WHOLE_BYTES = 1_048_576
"""What appliances show of one answer, however well it packs; a Go node has no such bound."""
LEAST_PIECE_BYTES = 512
"""With less room than this a broker is none for answers."""
_HEADERS_BYTES = 512
"""What a message of ours has in headers beside those of an answer, generously."""
_SPARE_BYTES = 1_536
"""By how much a piece may outgrow its data: in another serialization than the empty answer, or where it does not pack."""

MakeRecord = Callable[[Message, dict[str, str] | None], OutboxRecord]


class Turns:
    """Numbers the messages of one stream, which are sent one after the other."""

    def __init__(self, stream: str = "") -> None:
        self._stream = stream
        """Random; made for an answer that comes in pieces, which most do not."""
        self._number = 0

    @property
    def have_begun(self) -> bool:
        """Whether anything has gone out in this stream."""
        return self._number > 0

    def take(self) -> dict[str, str]:
        """Headers that put a message behind those before it."""
        self._stream = self._stream or secrets.token_hex(6)
        self._number += 1
        return {TURN_HEADER: f"{self._stream}.{self._number}"}


class ReplyPolicy:
    """Belongs to one subscriber, whose `allow_reply_methods` of the moment counts."""

    def __init__(self, services: WorkerServices, spec: Current[SubscriberSpec]) -> None:
        self._bus = services.bus
        self._router = services.router
        self._desired = services.desired
        self._spec = spec

    def make_records(
        self, reply: Message, headers: dict[str, str], turns: Turns, *, to_appliance: bool
    ) -> tuple[OutboxRecord, ...]:
        """The records of a reply, as many as it needs.

        Raises:
            AnswerTooLarge, RequestInvalid: as `split`, and as `make_reply_record`.
        """
        return self.split(reply, headers, turns, self.make_reply_record, to_appliance=to_appliance)

    def make_reply_record(self, reply: Message, headers: dict[str, str] | None) -> OutboxRecord:
        """The record of a reply that is small.

        Raises:
            RequestInvalid: the asker wants it as a method that is not for answers here, or it cannot be sent.
        """
        allowed = self._spec.value.allow_reply_methods
        self._router.check_reply_method(reply.method, allowed=allowed)
        return self._router.make_record(bounded(reply), headers=headers)

    def split(
        self,
        reply: Message,
        headers: dict[str, str],
        turns: Turns,
        make_record: MakeRecord,
        *,
        to_appliance: bool,
    ) -> tuple[OutboxRecord, ...]:
        """The records of a message that may be too large for one, in the order in which they go.

        `headers` are those of the whole: what tells how it ended goes with the last piece. `turns` is the stream that
        the answer continues, or a new one.

        Raises:
            AnswerTooLarge: it fits no message, and may not come in pieces.
            RequestInvalid: as `make_record`.
        """
        may_split = self.may_split(reply, to_appliance=to_appliance)
        # NB: characters are no more than bytes, so what is short in them is counted in no other way
        is_long = to_appliance and sum(map(len, reply.data or ())) > WHOLE_BYTES
        if not (may_split and is_long):
            record = make_record(reply, headers or None)
            if self._fits(record):
                return (record,)
        reply = self._with_short_request(reply, headers, make_record)
        if not may_split:
            record = make_record(reply, headers or None)
            if self._fits(record):
                return (record,)
            raise AnswerTooLarge(_why_whole(reply, _size(record), self._room_bytes))
        return tuple(self._make_pieces(reply, headers, turns, make_record))

    def may_split(self, reply: Message, *, to_appliance: bool) -> bool:
        """Whether what arrives in pieces is the same as the whole."""
        asked = reply.previous_message
        if to_appliance and asked is not None and asked.file_name == CALLER_FILE:
            return True  # shown, and not handled
        # by way of a relay it arrives as another method at last
        methods = {reply.method, asked.relay_reply_method if asked is not None else ""} - {""}
        infos = [self._router.methods.get(MethodName(method)) for method in methods]
        return all(info is not None and info.adds_up for info in infos)

    @property
    def _room_bytes(self) -> int:
        limits = self._desired.value.limits
        return min(self._bus.max_payload, limits.max_message_bytes)

    def _fits(self, record: OutboxRecord) -> bool:
        return _size(record) <= self._room_bytes

    def _with_short_request(
        self, reply: Message, headers: dict[str, str], make_record: MakeRecord
    ) -> Message:
        """Without the arguments of the request beside it where they take the room of the answer: nobody reads them there."""
        asked = reply.previous_message
        if asked is None or not asked.method_args:
            return reply
        empty = make_record(reply._replace(data=("",)), headers or None)
        if _size(empty) <= self._room_bytes // 2:
            return reply
        return reply._replace(previous_message=asked._replace(method_args=None))

    def _make_pieces(
        self, reply: Message, headers: dict[str, str], turns: Turns, make_record: MakeRecord
    ) -> Iterator[OutboxRecord]:
        empty = make_record(reply._replace(data=("",)), headers or None)
        limit = min(
            PIECE_BYTES,
            self._room_bytes - _size(empty) - _SPARE_BYTES,
            self._desired.value.limits.max_decompressed_bytes // 2,
        )
        if limit < LEAST_PIECE_BYTES:
            raise AnswerTooLarge(_why_no_room(reply, self._room_bytes))
        data = b"".join(map(text_to_bytes, reply.data or ()))
        more = {STREAM_HEADER: headers.get(STREAM_HEADER, "stdout"), MORE_HEADER: "1"}
        first_turn = {TURN_HEADER: headers[TURN_HEADER]} if TURN_HEADER in headers else None
        for piece, is_last in _cut(data, limit):
            turn = first_turn or turns.take()
            first_turn = None
            said = {**headers, **turn} if is_last else {**more, **turn}
            yield make_record(reply._replace(data=(bytes_to_text(piece),)), said)


def _size(record: OutboxRecord) -> int:
    headers = record.headers or {}
    block_bytes = sum(len(name) + len(value) + 4 for name, value in headers.items())
    return len(record.payload) + block_bytes + _HEADERS_BYTES


def _cut(data: bytes, limit: int) -> Iterator[tuple[bytes, bool]]:
    """Pieces of at most `limit` bytes, none of which ends within a character, and whether each is the last."""
    begin = 0
    while len(data) - begin > limit:
        end = begin + limit
        while end > begin + limit - 4 and data[end] & 0xC0 == 0x80:
            end -= 1
        if data[end] & 0xC0 == 0x80:
            end = begin + limit  # no text at all
        yield data[begin:end], False
        begin = end
    yield data[begin:], True


def _why_whole(reply: Message, size: int, room_bytes: int) -> str:
    return (
        f"the answer takes {size} bytes and a message {room_bytes}: it cannot come in pieces as"
        f" {reply.method}, which replaces what was there (REQToFileAppend adds to it)"
    )


def _why_no_room(reply: Message, room_bytes: int) -> str:
    return f"a message of {room_bytes} bytes has no room for an answer to {reply.to_node[:60]}"
