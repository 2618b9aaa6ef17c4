"""CBOR: the recorded bytes of Go nodes in both directions, and everything else refused by one error."""

from __future__ import annotations

import tracemalloc

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.core.message import Message
from appliance.errors import DecodeError, EncodeError
from appliance.wire.cbor import _encode_any_bytes, decode_cbor, encode_cbor
from appliance.wire.layout import MAX_TEXTS, MAX_VALUES
from tests.support.wire_cases import Vector, any_message, load_vectors

VECTORS = load_vectors()
BY_NAME = {vector.name: vector for vector in VECTORS}
by_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
ZERO = list(Message())


@by_vector
def test_message_encodes_to_the_bytes_of_a_go_node(vector: Vector):
    assert encode_cbor(vector.message) == vector.cbor


@by_vector
def test_bytes_of_a_go_node_decode_to_the_message(vector: Vector):
    assert decode_cbor(vector.cbor) == vector.message


@by_vector
def test_own_encoder_for_raw_bytes_agrees_with_the_library_layout(vector: Vector):
    assert _encode_any_bytes(vector.message) == vector.cbor


@given(any_message)
@settings(max_examples=80)
def test_any_message_survives_the_round_trip(message: Message):
    assert decode_cbor(encode_cbor(message)) == message


@given(any_message)
@settings(max_examples=40)
def test_both_encoders_write_the_same_bytes(message: Message):
    assert _encode_any_bytes(message) == encode_cbor(message)


@by_vector
def test_every_prefix_is_refused(vector: Vector):
    step = max(1, len(vector.cbor) // 700)
    for size in range(0, len(vector.cbor), step):
        with pytest.raises(DecodeError):
            decode_cbor(vector.cbor[:size])


@by_vector
def test_bytes_after_the_message_are_refused(vector: Vector):
    end = b"\x50" + bytes(range(0xE0, 0xF0))
    for extra in (b"\x00", b"\xff", vector.cbor, end, end + end, end[:9], bytes(17)):
        with pytest.raises(DecodeError):
            decode_cbor(vector.cbor + extra)


def test_message_that_holds_the_end_mark_itself_is_read_rightly():
    message = Message(data=("".join(chr(0xDC00 + byte) for byte in range(0xE0, 0xF0)),))
    raw = encode_cbor(message)
    assert decode_cbor(raw) == message
    with pytest.raises(DecodeError, match="after the message"):
        decode_cbor(raw + b"\x60")


@given(st.sampled_from(VECTORS), st.data())
@settings(max_examples=150)
def test_changed_bytes_decode_or_are_refused_and_nothing_else(vector: Vector, data: st.DataObject):
    raw = bytearray(vector.cbor[:600])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode_cbor(bytes(raw))
    except DecodeError:
        return
    assert decode_cbor(encode_cbor(message)) == message


@given(st.binary(max_size=200))
@example(b"\x98\x19" + b"\x60" * 25)
@settings(max_examples=150)
def test_random_bytes_raise_the_decode_error_and_nothing_else(raw: bytes):
    for candidate in (raw, b"\x98\x19" + raw):
        try:
            decode_cbor(candidate)
        except DecodeError:
            continue


@pytest.mark.parametrize(
    "length",
    [b"\x7b" + b"\xff" * 8, b"\x7a\x7f\xff\xff\xff", b"\x9b" + b"\x7f" * 8, b"\x5b" + b"\xff" * 8],
)
@pytest.mark.parametrize("field", range(25))
def test_enlarged_length_is_refused_at_once(field: int, length: bytes):
    parts = [cbor2.dumps(value) for value in ZERO]
    parts[field] = length
    with pytest.raises(DecodeError):
        decode_cbor(b"\x98\x19" + b"".join(parts))


def with_field(name: str, raw: bytes) -> bytes:
    """The zero message with one field's bytes replaced."""
    parts = [cbor2.dumps(value) for value in ZERO]
    parts[Message._fields.index(name)] = raw
    return b"\x98\x19" + b"".join(parts)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("to_node", b"\x41a"),
        ("to_node", b"\x01"),
        ("to_node", b"\xf5"),
        ("method", b"\x80"),
        ("id", b"\xf5"),
        ("id", b"\x60"),
        ("id", b"\xf9\x3c\x00"),
        ("id", b"\x1b\x80" + bytes(7)),
        ("retries", b"\x3b\x80" + bytes(7)),
        ("is_reply", b"\x00"),
        ("data", b"\x60"),
        ("data", b"\x81\x41a"),
        ("data", b"\x81\x01"),
        ("data", b"\x81\x80"),
        ("to_nodes", b"\xa0"),
        ("previous_message", b"\x60"),
        ("file_name", b"\xf7"),
        ("relay_reply_method", b"\xe0"),
    ],
)
def test_wrong_type_is_refused_by_the_name_of_its_field(name: str, raw: bytes):
    if name == "previous_message":
        with pytest.raises(DecodeError, match="must be an array"):
            decode_cbor(with_field(name, raw))
        return
    with pytest.raises(DecodeError, match=f"field {name} "):
        decode_cbor(with_field(name, raw))


@pytest.mark.parametrize("name", Message._fields)
def test_null_leaves_the_zero_value_as_in_go(name: str):
    assert decode_cbor(with_field(name, b"\xf6")) == Message()


def test_null_among_texts_is_an_empty_text_as_in_go():
    assert decode_cbor(with_field("data", b"\x82\xf6\x61a")).data == ("", "a")


def test_nil_and_empty_are_kept_apart():
    assert decode_cbor(with_field("data", b"\x80")).data == ()
    assert decode_cbor(with_field("data", b"\xf6")).data is None


@pytest.mark.parametrize("count", [0, 1, 24, 26, 27])
def test_other_counts_of_elements_are_refused(count: int):
    raw = cbor2.dumps([*ZERO, "", ""][:count])
    with pytest.raises(DecodeError, match="elements where a message has 25"):
        decode_cbor(raw)


@pytest.mark.parametrize("raw", [b"\xa0", b"\x00", b"\x60", b"\xf6", b"", b"\xff"])
def test_what_is_no_array_is_refused(raw: bytes):
    with pytest.raises(DecodeError):
        decode_cbor(raw)


def test_indefinite_lengths_are_accepted_as_in_go():
    body = b"".join(cbor2.dumps(value) for value in ZERO)
    assert decode_cbor(b"\x9f" + body + b"\xff") == Message()
    assert decode_cbor(with_field("data", b"\x9f\x61a\xff")).data == ("a",)
    assert decode_cbor(with_field("method", b"\x7f\x61a\x61b\xff")).method == "ab"


def test_longer_heads_than_needed_are_accepted_as_in_go():
    body = b"".join(cbor2.dumps(value) for value in ZERO)
    assert decode_cbor(b"\x99\x00\x19" + body) == Message()
    assert decode_cbor(with_field("id", b"\x1b" + bytes(7) + b"\x05")).id == 5


TAGS = [0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004]


@pytest.mark.parametrize("tag", [*TAGS, 43000, 55799, 6, 99, 2**32])
def test_every_tag_is_refused(tag: int):
    for inner in ("", 1, b"\x01", [1, 2]):
        raw = cbor2.dumps(cbor2.CBORTag(tag, inner))
        for name in ("method", "id", "data"):
            with pytest.raises(DecodeError):
                decode_cbor(with_field(name, raw))
        with pytest.raises(DecodeError):
            decode_cbor(raw)


def test_maps_are_refused_whatever_their_keys():
    for raw in (b"\xa2\x61a\x01\x61a\x02", b"\xa1\x01\x02", b"\xa1\x80\x80"):
        with pytest.raises(DecodeError):
            decode_cbor(with_field("data", raw))


def nest(levels: int) -> Message:
    """A message with `levels` previous ones inside one another."""
    message = Message(method="REQPing")
    for _ in range(levels):
        message = Message(method="REQPing", previous_message=message)
    return message


def test_depth_is_bounded_by_the_limit():
    raw = encode_cbor(nest(14))
    assert decode_cbor(raw, max_depth=16) == nest(14)
    with pytest.raises(DecodeError):
        decode_cbor(raw, max_depth=10)


@pytest.mark.parametrize("raw", [b"\x81" * 1_000_000, b"\x98\x19" + b"\x81" * 1_000_000])
def test_deep_nesting_is_refused_without_recursion(raw: bytes):
    with pytest.raises(DecodeError):
        decode_cbor(raw)


def test_nothing_deeper_than_go_reads_is_sent():
    assert encode_cbor(nest(29))
    with pytest.raises(EncodeError, match="inside one another"):
        encode_cbor(nest(30))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"id": 2**63}, "id"),
        ({"id": True}, "id"),
        ({"retries": 1.0}, "retries"),
        ({"method": b"x"}, "method"),
        ({"data": ["a"]}, "data"),
        ({"data": (1,)}, "data"),
        ({"is_reply": 1}, "is_reply"),
    ],
)
def test_field_of_a_wrong_type_is_not_sent(change: dict[str, object], name: str):
    with pytest.raises(EncodeError, match=f"field {name} "):
        encode_cbor(Message()._replace(**change))


@pytest.mark.parametrize("name", ["data", "method_args", "to_nodes", "reply_method_args"])
def test_more_texts_than_any_reader_takes_are_refused_on_both_sides(name: str):
    fits = Message()._replace(**{name: ("",) * MAX_TEXTS})
    assert decode_cbor(encode_cbor(fits)) == fits
    raw = cbor2.dumps(list(Message()._replace(**{name: ("",) * (MAX_TEXTS + 1)})))
    with pytest.raises(DecodeError, match=f"field {name} holds 65537 texts, more than 65536"):
        decode_cbor(raw)
    with pytest.raises(EncodeError, match=f"field {name} "):
        encode_cbor(Message()._replace(**{name: ("",) * (MAX_TEXTS + 1)}))


@pytest.mark.parametrize(
    "filler",
    [b"\x60", b"\x01", b"\x80", b"\xf6", b"\x61x", b"\x19\x01\x00", b"\x81\x80", b"\x9f\xff"],
    ids=bytes.hex,
)
@pytest.mark.parametrize("is_usual", [True, False], ids=["usual head", "other head"])
def test_a_frame_of_countless_values_is_refused_before_they_are_made(filler: bytes, is_usual: bool):
    head = b"\x98\x19" if is_usual else b"\x9f"
    raw = head + filler * (MAX_VALUES + 1)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode_cbor(raw)
        assert tracemalloc.get_traced_memory()[1] < 100_000 + len(raw)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("is_definite", [True, False], ids=["definite", "indefinite"])
def test_values_of_one_message_are_counted_however_they_are_nested(is_definite: bool):
    message = Message(data=("",) * MAX_TEXTS)
    for _ in range(4):
        message = message._replace(previous_message=message)
    raw = encode_cbor(message)
    if not is_definite:
        raw = raw.replace(b"\x98\x19", b"\x9f") + b"\xff" * 5
    with pytest.raises(DecodeError, match="more than 262144 values"):
        decode_cbor(raw)
    assert decode_cbor(encode_cbor(message), max_values=10**6) == message


def test_one_large_text_is_one_value():
    message = Message(data=("x" * 4_000_000,), method="REQToFile")
    assert decode_cbor(encode_cbor(message)) == message


def test_surrogate_that_stands_for_no_byte_is_not_sent():
    with pytest.raises(EncodeError, match="surrogate"):
        encode_cbor(Message(data=("\ud800",)))


def test_text_that_is_not_utf8_is_carried_byte_for_byte():
    raw = encode_cbor(BY_NAME["invalid_utf8"].message)
    assert bytes.fromhex("61fffe0062") in raw
    data = decode_cbor(raw).data
    assert data is not None
    assert [text.encode("utf-8", "surrogateescape").hex() for text in data] == [
        "61fffe0062",
        "00010280ff",
    ]


def test_error_text_does_not_repeat_what_was_sent():
    secret = "hunter2" * 50
    raw = with_field("id", cbor2.dumps(secret))
    with pytest.raises(DecodeError) as caught:
        decode_cbor(raw)
    assert "hunter2" not in str(caught.value)
