"""Messages that are alike: those of one lane differ in their number and their data, and the rest of their CBOR is the
same bytes again and again. It is written and read once.

Nothing here knows CBOR but the few heads that such a message has. For whatever looks different both ways say None, and
`wire.cbor` does it in full; what they do say is what that would have said.
"""

from __future__ import annotations

from typing import Any

from appliance.core.message import Message, Texts

MAX_REST_BYTES = 512
"""A rest that is larger has arguments that no other message has."""
MAX_KNOWN = 1_024
"""Peers choose their bytes: when there are so many different ones, it begins anew."""

_HEAD = b"\x98\x19"
_NULL = 0xF6
_NUMBER = 0x1A
"""An integer of four bytes, as nearly all numbers in bodies are (`core.message.body_number`)."""
_LEAST_NUMBER, _END_NUMBER = 1 << 16, 1 << 32
_ONE_ELEMENT = 0x81
_FIRST_OF_REST = 4
_TEXT, _TEXT_1, _TEXT_2 = 0x60, 0x78, 0x79


class Stencil:
    """A message encoded up to its number, and from behind its data on."""

    __slots__ = ("_head", "_rest")

    def __init__(self, head: bytes, rest: bytes) -> None:
        self._head = head + b"\x1a"
        self._rest = rest

    @property
    def is_worth_keeping(self) -> bool:
        """Whether there may be other messages like it."""
        return len(self._rest) <= MAX_REST_BYTES

    def fill(self, number: int, data: Texts) -> bytes | None:
        """The whole message; None where it has another form."""
        if (
            type(data) is not tuple
            or len(data) != 1
            or type(number) is not int
            or not _LEAST_NUMBER <= number < _END_NUMBER
        ):
            return None
        text = data[0]
        if type(text) is not str:
            return None
        try:
            raw = text.encode()
        except UnicodeEncodeError:
            return None  # bytes that are no UTF-8, which a Go node takes in gob only
        size = len(raw)
        if size < 24:
            begin = b"\x81%c" % (_TEXT | size)
        elif size < 0x100:
            begin = b"\x81\x78%c" % size
        elif size < 0x1_0000:
            begin = b"\x81\x79" + size.to_bytes(2, "big")
        else:
            return None
        return b"".join((self._head, number.to_bytes(4, "big"), begin, raw, self._rest))


class AlikeReader:
    """Reads messages whose fields behind the data it has seen before."""

    def __init__(self) -> None:
        self._rests: dict[bytes, tuple[Any, ...]] = {}

    def read(self, payload: bytes, number: int | None = None) -> Message | None:
        """The message, with this number in the place of its own; None where it has to be decoded in full."""
        found = _find_texts(payload)
        if found is None:
            return None
        start, stop, at, end = found
        rest = self._rests.get(payload[end:])
        if rest is None:
            return None
        if number is None:
            number = int.from_bytes(payload[stop + 2 : stop + 6], "big")
        try:
            begin = (payload[start:stop].decode(), None, number, (payload[at:end].decode(),))
        except UnicodeDecodeError:
            return None
        return tuple.__new__(Message, begin + rest)

    def learn(self, payload: bytes, message: Message) -> None:
        """Remember what is behind the data of a message that was decoded in full."""
        if message.previous_message is not None:
            return  # it has data of its own, and nests
        found = _find_texts(payload)
        if found is None or len(payload) - found[3] > MAX_REST_BYTES:
            return
        if len(self._rests) >= MAX_KNOWN:
            self._rests.clear()
        self._rests[payload[found[3] :]] = message[_FIRST_OF_REST:]


def _find_texts(payload: bytes) -> tuple[int, int, int, int] | None:
    """Where to_node and the one text of data begin and end; None for a message of another form."""
    if not payload.startswith(_HEAD):
        return None
    try:
        first = payload[2]
        if _TEXT <= first < _TEXT_1:
            start, stop = 3, 3 + first - _TEXT
        elif first == _TEXT_1:
            start, stop = 4, 4 + payload[3]
        else:
            return None
        if (
            payload[stop] != _NULL  # no to_nodes
            or payload[stop + 1] != _NUMBER
            or payload[stop + 6] != _ONE_ELEMENT
        ):
            return None
        at = stop + 7
        first = payload[at]
        if first == _TEXT_2:
            at += 3
            end = at + (payload[at - 2] << 8 | payload[at - 1])
        elif first == _TEXT_1:
            at += 2
            end = at + payload[at - 1]
        elif _TEXT <= first < _TEXT_1:
            at += 1
            end = at + first - _TEXT
        else:
            return None
    except IndexError:
        return None
    return start, stop, at, end
