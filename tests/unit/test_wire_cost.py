"""What it costs to refuse a small frame that unpacks to much: less than reading what may come in, and no memory.

Cost is processor time, compared with that of the dearest message that is let in, so the machine's speed is no part of it.
"""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard

from appliance.core.message import Message
from appliance.errors import DecodeError
from appliance.wire.cbor import encode_cbor
from appliance.wire.frame import decode_frame
from appliance.wire.gob import encode_gob
from appliance.wire.layout import MAX_TEXTS
from tests.support import gob_streams as gob

CBOR, GOB = {"serial": "cbor", "cmp": "z"}, {"cmp": "z"}
MILLIONS = 4_100_000
FIELDS_BEFORE_DATA = b"\x98\x19\x60\xf6\x00"
FULL_LIST = Message(data=("x" * 60,) * MAX_TEXTS)
FOUR_LISTS = Message._make(
    ("",) * MAX_TEXTS if name in ("to_nodes", "data", "method_args", "reply_method_args") else value
    for name, value in Message()._asdict().items()
)


def head(major: int, count: int) -> bytes:
    return bytes([major << 5 | 26]) + count.to_bytes(4, "big")


def in_data(raw: bytes) -> bytes:
    """A message whose field `data` is `raw`."""
    rest = encode_cbor(Message())
    assert rest.startswith(FIELDS_BEFORE_DATA + b"\xf6")
    return FIELDS_BEFORE_DATA + raw + rest[len(FIELDS_BEFORE_DATA) + 1 :]


def chain_of_lists(depth: int) -> Message:
    message = Message(data=("x",) * 20_000)
    for _ in range(depth - 1):
        message = Message(data=("x",) * 20_000, previous_message=message)
    return message


SKIPPED_LISTS = gob.struct_type(64, ("Colour", 65)) + gob.slice_type(65, 66) + gob.slice_type(66, 2)
MANY_TYPES = b"".join(
    gob.struct_type(64 + number, *[(f"F{number}x{field}", 2) for field in range(16)])
    for number in range(128)
)
ATTACKS: dict[str, tuple[dict[str, str], Callable[[], bytes]]] = {
    "empty arrays for the first field": (
        CBOR,
        lambda: b"\x98\x19" + head(4, MILLIONS) + b"\x80" * MILLIONS,
    ),
    "empty arrays for texts": (CBOR, lambda: in_data(head(4, MILLIONS) + b"\x80" * MILLIONS)),
    "arrays of empty arrays": (
        CBOR,
        lambda: in_data(head(4, 60) + (head(4, MAX_TEXTS) + b"\x80" * MAX_TEXTS) * 60),
    ),
    "numbers for texts": (CBOR, lambda: in_data(head(4, MILLIONS) + b"\x00" * MILLIONS)),
    "empty texts": (CBOR, lambda: in_data(head(4, MILLIONS) + b"\x60" * MILLIONS)),
    "a quarter of a million arrays": (CBOR, lambda: in_data(head(4, 260_000) + b"\x80" * 260_000)),
    "a map": (CBOR, lambda: in_data(head(5, MILLIONS // 2) + b"\x00" * MILLIONS)),
    "arrays of no told length": (CBOR, lambda: in_data(b"\x9f" + b"\x80" * MILLIONS + b"\xff")),
    "texts of no told length": (CBOR, lambda: in_data(b"\x9f" + b"\x60" * MILLIONS + b"\xff")),
    "a text in millions of pieces": (
        CBOR,
        lambda: in_data(b"\x81\x7f" + b"\x60" * MILLIONS + b"\xff"),
    ),
    "arrays inside one another": (CBOR, lambda: in_data(b"\x81" * MILLIONS)),
    "tags inside one another": (CBOR, lambda: in_data(b"\xc6" * MILLIONS)),
    "an array after the message": (
        CBOR,
        lambda: encode_cbor(Message()) + head(4, MILLIONS) + b"\x80" * MILLIONS,
    ),
    "four full lists": (CBOR, lambda: encode_cbor(FOUR_LISTS)),
    "four full lists, then no text": (CBOR, lambda: encode_cbor(FOUR_LISTS)[:-1] + b"\x00"),
    "a chain of messages with lists": (CBOR, lambda: encode_cbor(chain_of_lists(14))),
    "nothing but zeros": (CBOR, lambda: bytes(4_000_000)),
    "gob: four full lists": (GOB, lambda: encode_gob(FOUR_LISTS)),
    "gob: a chain of messages with lists": (GOB, lambda: encode_gob(chain_of_lists(14))),
    "gob: lists of a field that nobody knows": (
        GOB,
        lambda: SKIPPED_LISTS + gob.value(64, b"\x01" + gob.uint(260_000) + bytes(260_001)),
    ),
    "gob: numbers of a field that nobody knows": (
        GOB,
        lambda: (
            gob.struct_type(64, ("Colour", 65))
            + gob.slice_type(65, 2)
            + gob.value(64, b"\x01" + gob.uint(4_000_000) + bytes(4_000_001))
        ),
    ),
    "gob: types without end": (GOB, lambda: MANY_TYPES + gob.value(64, b"\0")),
    "gob: fields without end": (
        GOB,
        lambda: gob.struct_type(64, *[("", 2)] * 2_048) + gob.value(64, b"\0"),
    ),
    "gob: nothing but zeros": (GOB, lambda: bytes(4_000_000)),
}


def compress(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(raw)


FULL_LIST_PAYLOAD = compress(encode_cbor(FULL_LIST))


def costs_s(*frames: tuple[bytes, dict[str, str]]) -> list[float]:
    """Processor time to read or refuse each frame: the least of some tries, in turns, as a machine is not always as busy."""
    tries: list[list[float]] = [[] for _ in frames]
    for _ in range(5):
        for found, (payload, headers) in zip(tries, frames, strict=True):
            before = time.process_time()
            with contextlib.suppress(DecodeError):
                decode_frame(payload, headers)
            found.append(time.process_time() - before)
    return [min(found) for found in tries]


@pytest.mark.parametrize("name", ATTACKS)
def test_refusing_a_small_frame_costs_about_as_much_as_reading_one_full_list_at_most(name: str):
    assert decode_frame(FULL_LIST_PAYLOAD, CBOR) == FULL_LIST
    headers, make_raw = ATTACKS[name]
    payload = compress(make_raw())
    assert len(payload) < 3_000
    with pytest.raises(DecodeError):
        decode_frame(payload, headers)
    refused_s, read_s = costs_s((payload, headers), (FULL_LIST_PAYLOAD, CBOR))
    # what has no bound costs a hundred times as much; a busy machine shows up to a half more than there is
    assert refused_s < 2 * read_s


@pytest.mark.parametrize("name", ATTACKS)
def test_refusing_a_small_frame_holds_no_more_than_the_bytes_it_unpacks_to(name: str):
    headers, make_raw = ATTACKS[name]
    raw = make_raw()
    payload = compress(raw)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode_frame(payload, headers)
        held_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held_bytes < 2 * len(raw) + 6_000_000


@pytest.mark.parametrize("encode", [encode_cbor, encode_gob], ids=["cbor", "gob"])
@pytest.mark.parametrize(
    "message",
    [
        FULL_LIST,
        Message(data=("",) * MAX_TEXTS),
        Message(data=("\0" * 4_000_000,)),
        Message(data=tuple(f"line {number}\n" for number in range(MAX_TEXTS))),
        Message(
            data=tuple(map(str, range(MAX_TEXTS))), method_args=tuple(map(str, range(MAX_TEXTS)))
        ),
        Message(previous_message=Message(data=("x",) * MAX_TEXTS)),
    ],
    ids=["60 bytes each", "empty", "zeros", "lines", "two lists", "of the message before"],
)
def test_what_is_large_and_well_formed_is_read(encode, message: Message):
    headers = CBOR if encode is encode_cbor else GOB
    assert decode_frame(compress(encode(message)), headers) == message
