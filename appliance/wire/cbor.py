"""CBOR as the seed writes and reads it: one array of 25 elements, definite lengths, shortest heads.

Text that is not UTF-8 is carried, not lost. Go's encoder writes the raw bytes of a string into a
CBOR text string without looking; this one writes the same bytes, and the decoder keeps them as
surrogate escapes in the `str` (`core.message.text_to_bytes` gives them back). Appliances therefore
exchange any bytes. A Go receiver refuses a CBOR text that is not UTF-8; `wire.frame` therefore
sends such a message as gob.

Decoding is bounded: nesting by `max_depth`, memory and time by a walk over the heads of large inputs, which refuses
containers where a text belongs and too many values before anything is made of them. Tags, maps, floats, duplicate or
unhashable keys, trailing bytes: all refused. Null for a number or text keeps its zero value and indefinite lengths are
accepted, as in Go.

Source: measurements of cbor2 6.3 (its plain `loads` accepts tags that build arbitrary objects, and
trailing bytes); RFC 8949.
"""

from __future__ import annotations

import io
from typing import Any, NoReturn

import cbor2

from appliance.core.message import Message, Texts
from appliance.errors import DecodeError, EncodeError
from appliance.wire.alike import Stencil
from appliance.wire.base import Serialization
from appliance.wire.layout import (
    FIELD_COUNT,
    MAX_TEXTS,
    MAX_VALUES,
    TEXTS_FIELDS,
    check_encodable,
    message_of_record,
)

_HEAD = b"\x98\x19"
"""An array of 25, as every known encoder writes it."""

_HEAD_AND_END = b"\x98\x1a"
_END = bytes(range(0xE0, 0xF0))
_END_ELEMENT = b"\x50" + _END
"""A 26th element that we append: decoded as the last one it proves that nothing stands between it
and the message.

cbor2's `loads` ignores trailing bytes and its stream decoder, which could tell, takes four times as
long. The proof holds because `_END` does not occur in the input (checked) and overlaps itself
nowhere.
"""

_CHEAP_BYTES = MAX_TEXTS + 16 * 1024
"""Whatever these are, decoding them takes no longer than 2 ms: an array or number for every byte."""

_ARRAY = 4
_CONTAINERS = (_ARRAY, 5, 6)
_KINDS = (
    "an integer",
    "an integer",
    "bytes",
    "text",
    "an array",
    "a map",
    "a tag",
    "a simple value",
)
"""Words for the kinds of values, by the three bits that name them."""

_PIECE_COST = 256
"""What a piece of a text of indefinite length counts for: nobody needs many."""

_INTERNAL_TAGS = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261),
    *(1004, 43000, 55799),
)
"""Tags that cbor2 decodes by itself; each is overridden, all others reach the tag hook."""


def _refuse_tag(*_: object) -> NoReturn:
    raise cbor2.CBORDecodeError("tags are not allowed")


_OPTIONS: dict[str, Any] = {
    "allow_duplicate_keys": False,
    "strict_hashable_types": True,
    "tag_hook": _refuse_tag,
    "semantic_decoders": dict.fromkeys(_INTERNAL_TAGS, _refuse_tag),
}


def encode_cbor(message: Message) -> bytes:
    """Encode as Go does, byte for byte.

    Raises:
        EncodeError: a field's type or range, nesting, or a text with surrogates that stand for no
        byte.
    """
    plain = encode_cbor_utf8(message)
    return _encode_any_bytes(message) if plain is None else plain


def encode_cbor_utf8(message: Message) -> bytes | None:
    """As `encode_cbor`; None for a message that holds text which is not UTF-8.

    Raises:
        EncodeError: a field's type or range, or nesting.
    """
    check_encodable(message)
    try:
        return cbor2.dumps(_record_of(message))
    except UnicodeEncodeError:
        return None
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise EncodeError(f"cannot encode the message: {error}") from error


def encode_cbor_fields(fields: list[object]) -> bytes | None:
    """As `encode_cbor_utf8`, for the 25 values of a message without a previous one that `layout.is_plain` has passed."""
    try:
        return cbor2.dumps(fields)
    except UnicodeEncodeError:
        return None


def make_stencil(fields: list[Any]) -> Stencil | None:
    """What messages have in common that differ from this one in number and data only; for values as `encode_cbor_fields`
    takes them. None where a Go node could not read them.
    """
    try:
        head = _HEAD + cbor2.dumps(fields[0]) + cbor2.dumps(fields[1])
        return Stencil(head, cbor2.dumps(fields[4:])[1:])  # without the head of an array of 21
    except UnicodeEncodeError:
        return None


def _record_of(message: Message) -> list[object]:
    record: list[object] = list(message)
    if message.previous_message is not None:
        record[18] = _record_of(message.previous_message)
    return record


def decode_cbor(data: bytes, *, max_depth: int = 16, max_values: int = MAX_VALUES) -> Message:
    """Decode one message.

    Args:
        max_depth: arrays inside one another; a message with texts needs two, each previous message
        one more.
        max_values: numbers and texts, however nested; looked at in large inputs only.

    Raises:
        DecodeError: anything that is not exactly one message.
    """
    if len(data) > _CHEAP_BYTES:
        _refuse_dear(data, max_depth, max_values)
    try:
        if data[:2] == _HEAD and _END not in data:
            record = _loads_strict(data, max_depth)
        else:
            record = _decode_stream(data, max_depth)
    except (
        cbor2.CBORError,
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        raise DecodeError(f"not CBOR of a message: {_shorten(error)}") from error
    return message_of_record(record)


def _refuse_dear(data: bytes, max_depth: int, max_values: int) -> None:
    """Walk over the heads of a large input as far as it could be dear to decode.

    What is no message, or a list of millions, is refused before anything is made of it: a frame of a hundred bytes
    can unpack to it. What else is wrong is the decoder's to tell, which stops where it finds it.

    Raises:
        DecodeError: an array, map or tag where none belongs, or too many values.
    """
    walk = _Walk(data, max_values)
    try:
        pos = walk.pass_record(0, max_depth)
    except IndexError:
        return  # cut short
    if pos < walk.is_cheap_from:
        raise DecodeError("bytes after the message")


class _Walk:
    """Passes over values without making them. Positions beyond `is_cheap_from` mean that the walk is over."""

    def __init__(self, data: bytes, max_values: int) -> None:
        self._data = data
        self.is_cheap_from = len(data) - _CHEAP_BYTES
        self._max_values = max_values
        self._left = max_values

    def pass_record(self, pos: int, depth: int) -> int:
        """One message; `depth` is how many arrays may be inside one another from here on."""
        if depth < 1:
            raise DecodeError("arrays inside one another deeper than the limit")
        data = self._data
        if data[pos] >> 5 != _ARRAY:
            raise DecodeError(f"a message must be an array, not {_KINDS[data[pos] >> 5]}")
        count, pos = self._read_argument(pos)
        if count is not None and count != FIELD_COUNT:
            raise DecodeError(f"an array of {count} elements where a message has {FIELD_COUNT}")
        self._spend(FIELD_COUNT)
        for name in Message._fields:
            if pos >= self.is_cheap_from:
                return pos
            major = data[pos] >> 5
            if major not in _CONTAINERS:
                pos = self._pass_scalar(pos)
            elif major == _ARRAY and name in TEXTS_FIELDS:
                pos = self._pass_texts(pos, name)
            elif major == _ARRAY and name == "previous_message":
                pos = self.pass_record(pos, depth - 1)
            else:
                raise DecodeError(
                    f"field {name} holds {_KINDS[major]}, which does not belong there"
                )
        return pos if count is not None else pos + 1

    def _pass_texts(self, pos: int, name: str) -> int:
        data, is_cheap_from = self._data, self.is_cheap_from
        count, pos = self._read_argument(pos)
        if count is None:
            count = MAX_TEXTS + 1  # as many as come before the end
        elif count > MAX_TEXTS:
            raise DecodeError(f"field {name} holds {count} texts, more than {MAX_TEXTS}")
        else:
            self._spend(count)
        for _ in range(count):
            if pos >= is_cheap_from:
                return pos
            first = data[pos]
            if 0x60 <= first < 0x78:  # a short text, the common case
                pos += first - 0x5F
            elif first == 0x78:
                pos += 2 + data[pos + 1]
            elif first == 0xFF:
                return pos + 1
            elif first >> 5 in _CONTAINERS:
                raise DecodeError(f"field {name} must hold texts only, not {_KINDS[first >> 5]}")
            else:
                pos = self._pass_scalar(pos)
        return pos

    def _pass_scalar(self, pos: int) -> int:
        major = self._data[pos] >> 5
        argument, pos = self._read_argument(pos)
        if major not in (2, 3):
            return pos
        if argument is not None:
            return pos + argument
        while (
            pos < self.is_cheap_from and self._data[pos] != 0xFF
        ):  # pieces of an indefinite length
            self._spend(_PIECE_COST)
            argument, pos = self._read_argument(pos)
            pos += argument or 0
        return pos + 1

    def _read_argument(self, pos: int) -> tuple[int | None, int]:
        """What a head says beside the kind, None for an indefinite length; and where it ends."""
        argument = self._data[pos] & 0x1F
        pos += 1
        if argument < 24:
            return argument, pos
        if argument > 27:
            return None, pos
        size = 1 << (argument - 24)
        return int.from_bytes(self._data[pos : pos + size], "big"), pos + size

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise DecodeError(f"more than {self._max_values} values in the CBOR of a message")


def _loads_strict(data: bytes, max_depth: int) -> object:
    framed = b"".join((_HEAD_AND_END, data[2:], _END_ELEMENT))
    try:
        record = cbor2.loads(framed, max_depth=max_depth, immutable=True, **_OPTIONS)
    except cbor2.CBORDecodeError:
        # NB: decoding with the error handler costs half as much again, so only what needs it pays
        # for it
        record = cbor2.loads(
            framed, max_depth=max_depth, immutable=True, str_errors="surrogateescape", **_OPTIONS
        )
    if record[25] != _END:
        raise DecodeError("bytes after the message")
    return record[:25]


def _decode_stream(data: bytes, max_depth: int) -> object:
    """The general way, for heads that are legal but unusual."""
    stream = io.BytesIO(data)
    decoder = cbor2.CBORDecoder(
        stream, max_depth=max_depth, str_errors="surrogateescape", **_OPTIONS
    )
    record = decoder.decode(immutable=True)
    if stream.tell() != len(data):
        raise DecodeError("bytes after the message")
    return record


def _shorten(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__


# Our own encoder, for messages that hold bytes which are no UTF-8: cbor2 refuses to write them.


def _encode_any_bytes(message: Message) -> bytes:
    parts: list[bytes] = [_HEAD]
    for value in message:
        if value is None:
            parts.append(b"\xf6")
        elif isinstance(value, bool):
            parts.append(b"\xf5" if value else b"\xf4")
        elif isinstance(value, int):
            parts.append(_head(0x00, value) if value >= 0 else _head(0x20, -1 - value))
        elif isinstance(value, str):
            parts.append(_encode_text(value))
        elif isinstance(value, Message):
            parts.append(_encode_any_bytes(value))
        else:
            parts.append(_encode_texts(value))
    return b"".join(parts)


def _encode_texts(texts: Texts) -> bytes:
    assert texts is not None
    return _head(0x80, len(texts)) + b"".join(map(_encode_text, texts))


def _encode_text(text: str) -> bytes:
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EncodeError("a text holds a surrogate that stands for no byte") from error
    return _head(0x60, len(raw)) + raw


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major | value,))
    if value < 0x100:
        return bytes((major | 24, value))
    if value < 0x1_0000:
        return bytes((major | 25,)) + value.to_bytes(2, "big")
    if value < 0x1_0000_0000:
        return bytes((major | 26,)) + value.to_bytes(4, "big")
    return bytes((major | 27,)) + value.to_bytes(8, "big")


def _begins_cbor(first: int) -> bool:
    """With the head of an array, which as gob's first length is none."""
    return first >> 5 == _ARRAY


SERIALIZATION = Serialization(
    "cbor",
    encode_cbor,
    encode_cbor_utf8,
    encode_cbor_fields,
    make_stencil,
    decode_cbor,
    _begins_cbor,
)
"""See `codecs`."""
