"""Gob: Go's recorded bytes, any message, foreign types, and everything that is no message."""

from __future__ import annotations

import tracemalloc
from itertools import permutations

import pytest
from hypothesis import given, settings

from appliance.core.message import Message
from appliance.errors import DecodeError, EncodeError
from appliance.wire.gob import decode_gob, encode_gob
from appliance.wire.gob.numbers import read_int, read_uint, write_int, write_uint
from appliance.wire.layout import MAX_TEXTS, MAX_VALUES
from tests.support import gob_streams as gob
from tests.support.gob_streams import UNKNOWN, UNKNOWN_TYPES, stream_with
from tests.support.wire_cases import Vector, any_int, any_message, as_gob_can, load_vectors

VECTORS = load_vectors()
BY_NAME = {vector.name: vector for vector in VECTORS}
by_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)

SIMPLE = gob.struct_type(70, ("ID", gob.INT), ("Method", gob.STRING), ("Data", 71)) + (
    gob.slice_type(71, gob.STRING)
)


def nest(depth: int) -> Message:
    message = Message(data=("x",))
    for _ in range(depth - 1):
        message = Message(previous_message=message)
    return message


@by_vector
def test_bytes_of_a_go_node_are_read(vector: Vector):
    assert decode_gob(vector.gob) == as_gob_can(vector.message)


@by_vector
def test_our_bytes_are_those_of_a_go_node(vector: Vector):
    assert encode_gob(vector.message) == vector.gob


@given(any_message)
@settings(max_examples=150)
def test_any_message_survives_the_round_trip(message: Message):
    assert decode_gob(encode_gob(message)) == as_gob_can(message)


@given(any_int)
def test_numbers_are_those_of_an_independent_writer(number: int):
    assert write_int(number) == gob.sint(number)
    assert read_int(gob.sint(number), 0) == (number, len(gob.sint(number)))
    assert write_uint(abs(number)) == gob.uint(abs(number))
    assert read_uint(gob.uint(abs(number)), 0)[0] == abs(number)
    assert decode_gob(encode_gob(Message(retries=number))).retries == number


def test_empty_previous_message_is_kept_and_empty_lists_are_not():
    message = Message(data=(), previous_message=Message())
    assert decode_gob(encode_gob(message)) == Message(previous_message=Message())


def test_list_that_a_stream_gives_as_empty_is_empty():
    assert decode_gob(SIMPLE + gob.value(70, gob.struct((2, gob.texts())))).data == ()


# -- foreign types ------------------------------------------------------------------------------


def test_types_may_come_in_any_order_and_with_any_ids():
    for first in (24, 65, 1_000, 2**40):
        main, nodes, strings = first, first + 7, first + 3
        definitions = [
            gob.struct_type(
                main,
                ("Method", gob.STRING),
                ("PreviousMessage", main),
                ("ToNodes", nodes),
                ("Data", strings),
                ("ID", gob.INT),
            ),
            gob.slice_type(nodes, gob.STRING),
            gob.slice_type(strings, gob.STRING),
        ]
        content = gob.struct(
            (0, gob.text("REQPing")),
            (1, gob.struct((0, gob.text("inner")))),
            (2, gob.texts("a", "b")),
            (3, gob.texts(b"\xff")),
            (4, gob.sint(-5)),
        )
        expected = Message(
            method="REQPing",
            to_nodes=("a", "b"),
            data=("\udcff",),
            id=-5,
            previous_message=Message(method="inner"),
        )
        for order in permutations(definitions):
            assert decode_gob(b"".join(order) + gob.value(main, content)) == expected


def test_previous_message_may_be_of_another_type_than_the_message():
    stream = (
        gob.struct_type(65, ("PreviousMessage", 66), ("ID", gob.INT))
        + gob.struct_type(66, ("ID", gob.INT), ("Colour", gob.STRING), name="Old")
        + gob.value(
            65,
            gob.struct(
                (0, gob.struct((0, gob.sint(3)), (1, gob.text("red")))),
                (1, gob.sint(4)),
            ),
        )
    )
    assert decode_gob(stream) == Message(id=4, previous_message=Message(id=3))


def test_fields_a_message_lacks_are_missing_and_nothing_else_is_needed():
    assert decode_gob(gob.struct_type(65) + gob.value(65, gob.struct())) == Message()


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_field_of_any_kind_is_skipped(kind: str):
    assert decode_gob(stream_with(*UNKNOWN[kind])) == Message(id=1, method="REQPing")


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_field_that_is_cut_short_is_refused_wherever_it_is_cut(kind: str):
    type_id, content = UNKNOWN[kind]
    main = gob.struct_type(65, ("Colour", type_id))
    for size in range(len(content)):
        with pytest.raises(DecodeError):
            decode_gob(main + UNKNOWN_TYPES + gob.value(65, b"\x01" + content[:size]))


@pytest.mark.parametrize(
    ("type_id", "content"),
    [
        (gob.BYTES, gob.uint(2**63)),
        (gob.STRING, gob.uint(2**64 - 1)),
        (81, gob.uint(2**62)),
        (82, gob.uint(2) + b"\1\2"),
        (83, gob.uint(2**40) + b"\0\0"),
        (84, gob.uint(3)),
        (85, gob.uint(2**32)),
        (gob.INTERFACE, gob.text("T") + gob.sint(-99) + b"\0"),
        (gob.INTERFACE, gob.text("T") + gob.sint(2) + gob.uint(2**50)),
        (gob.INTERFACE, gob.uint(2**50)),
        (gob.INT, b"\xf7" + bytes(9)),
    ],
)
def test_unknown_field_that_lies_about_its_size_is_refused(type_id: int, content: bytes):
    with pytest.raises(DecodeError):
        decode_gob(stream_with(type_id, content))


def test_skipping_ends_at_the_depth_limit_however_the_types_turn_in_circles():
    for content in (b"\x01" * 50_000, b"\x01" * 20):
        with pytest.raises(DecodeError, match="deeper"):
            decode_gob(stream_with(88, content))
        with pytest.raises(DecodeError, match="deeper"):
            decode_gob(stream_with(84, b"\x02" * len(content)))


def test_values_of_one_stream_are_counted_however_they_are_nested():
    inner = gob.uint(MAX_TEXTS) + bytes(MAX_TEXTS)
    with pytest.raises(DecodeError, match="more than 262144 values"):
        decode_gob(stream_with(80, gob.uint(MAX_VALUES) + bytes(MAX_VALUES)))
    with pytest.raises(DecodeError, match="more than 262144 values"):
        decode_gob(stream_with(81, gob.uint(4) + inner * 4))
    types = gob.struct_type(65, ("Data", 66), ("PreviousMessage", 65)) + gob.slice_type(66, 6)
    content = b"\0"
    for _ in range(5):
        content = b"\x01" + inner + b"\x01" + content + b"\0"
    with pytest.raises(DecodeError, match="more than 262144 values"):
        decode_gob(types + gob.value(65, content[:-1]))


# -- refused ------------------------------------------------------------------------------------


@by_vector
def test_every_prefix_is_refused(vector: Vector):
    for size in range(len(vector.gob)):
        with pytest.raises(DecodeError):
            decode_gob(vector.gob[:size])


@by_vector
def test_every_byte_enlarged_is_refused_or_read_and_nothing_else(vector: Vector):
    raw = vector.gob[:700]
    for place in range(len(raw)):
        for byte in {raw[place] + 1, 0x7F, 0x80, 0xF7, 0xF8, 0xFE, 0xFF}:
            if byte <= raw[place] or byte > 255:
                continue
            changed = raw[:place] + bytes([byte]) + vector.gob[place + 1 :]
            try:
                assert type(decode_gob(changed)) is Message
            except DecodeError:
                continue


@by_vector
def test_bytes_after_the_message_are_refused(vector: Vector):
    for extra in (b"\0", b"\x01", vector.gob, gob.value(65, b"\0"), gob.slice_type(90, 2)):
        with pytest.raises(DecodeError):
            decode_gob(vector.gob + extra)


KNOWN_NAMES = ("ToNode", "ToNodes", "ID", "Data", "IsReply", "PreviousMessage", "RelayReplyMethod")


@pytest.mark.parametrize("name", KNOWN_NAMES)
def test_field_of_another_type_is_refused_by_name_even_when_it_is_not_sent(name: str):
    right = {"ID": gob.INT, "IsReply": gob.BOOL, "ToNodes": 80, "Data": 80}.get(name, gob.STRING)
    for wrong in {1, 2, 3, 4, 5, 6, 7, 8, *range(80, 89)} - {right}:
        if name == "PreviousMessage" and wrong == 84:
            continue  # a struct: what fits of it is read
        if name == "PreviousMessage" and wrong == right:
            continue
        stream = gob.struct_type(65, (name, wrong)) + UNKNOWN_TYPES
        with pytest.raises(DecodeError, match="PreviousMessage|is of type|" + name):
            decode_gob(stream + gob.value(65, b"\0"))


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "cut short"),
        (b"\0", "cut short"),
        (b"\x03\xff\x82\0", "never defined"),
        (SIMPLE, "cut short"),
        (SIMPLE + gob.value(71, gob.texts("a")), "no struct"),
        (SIMPLE + gob.value(6, b"\0" + gob.text("a")), "never defined"),
        (SIMPLE + gob.value(0, b"\0"), "never defined"),
        (SIMPLE + gob.value(99, b"\0"), "never defined"),
        (SIMPLE + gob.value(70, b"\x04\0"), "does not have"),
        (SIMPLE + gob.value(70, b"\xff\xff\0"), "does not have"),
        (SIMPLE + gob.value(70, b"\x02\x05abc\0"), "Method is cut short"),
        (SIMPLE + gob.value(70, b"\x01\xf7" + bytes(9) + b"\0"), "72 bits"),
        (SIMPLE + gob.value(70, b"\x01\x80" + bytes(200)), "bits"),
        (SIMPLE + gob.value(70, b"\0\0"), "after the message"),
        (SIMPLE + gob.value(70, b"\0") + b"\0", "after the message|cut short"),
        (SIMPLE + gob.value(70, b"\x03" + gob.uint(MAX_TEXTS + 1)), "more than 65536"),
        (SIMPLE + gob.value(70, b"\x03" + gob.uint(2**63)), "more than 65536"),
        (SIMPLE + gob.value(70, b"\x03\x20aaa\0"), "Data is cut short"),
        (SIMPLE + gob.slice_type(71, 6) + gob.value(70, b"\0"), "type 71 twice"),
        (gob.struct_type(20) + gob.value(20, b"\0"), "Go's own"),
        (gob.struct_type(6) + gob.value(6, b"\0"), "Go's own"),
        (gob.struct_type(65, ("X", 0)) + gob.value(65, b"\0"), "never defined"),
        (gob.struct_type(65, ("X", 12)) + gob.value(65, b"\0"), "never defined"),
        (gob.struct_type(65, ("X", 16)) + gob.value(65, b"\0"), "never defined"),
        (gob.struct_type(65, ("X", -65)) + gob.value(65, b"\0"), "never defined"),
        (
            gob.struct_type(65, ("X", 66)) + gob.slice_type(66, 67) + gob.value(65, b"\0"),
            "type 67, which is never defined",
        ),
        (gob.struct_type(65, ("ID", 2), ("ID", 2)) + gob.value(65, b"\0"), "two fields named ID"),
        (gob.framed(gob.sint(-65) + b"\0") + gob.value(65, b"\0"), "of no kind"),
        (gob.framed(gob.sint(-65) + b"\x08\0\0") + gob.value(65, b"\0"), "unknown form"),
        (gob.framed(gob.sint(-65) + b"\x03\0\x01\0\0") + gob.value(65, b"\0"), "after a type"),
        (gob.framed(gob.sint(-65) + b"\x03\x02\xfc\xff\xff\xff\xff"), "cut short"),
        (
            gob.framed(gob.sint(-65) + b"\x03\x02\xfc\xff\xff\xff\xff") + gob.value(65, b"\0"),
            "more than 256 fields",
        ),
        (b"\x01\x01" * 1_000_000, "more than 32 types"),
        (b"".join(gob.slice_type(n, 6) for n in range(65, 194)), "more than 32 types"),
    ],
)
def test_what_is_no_message_is_refused_with_its_reason(stream: bytes, words: str):
    with pytest.raises(DecodeError, match=words):
        decode_gob(stream)


def test_long_forms_of_small_numbers_are_read_as_go_reads_them():
    long_zero, long_one = b"\xf8" + bytes(8), b"\xf8" + bytes(7) + b"\x01"
    fields = long_one + b"\xfe\x00\x04" + long_one + b"\xff\x01x" + long_zero
    assert decode_gob(SIMPLE + gob.value(70, fields)) == Message(id=2, method="x")


def test_nesting_is_bounded_and_counted_as_in_cbor():
    assert decode_gob(encode_gob(nest(15)), max_depth=16) == nest(15)
    with pytest.raises(DecodeError, match="deeper"):
        decode_gob(encode_gob(nest(16)), max_depth=16)
    bottomless = gob.struct_type(65, ("PreviousMessage", 65))
    with pytest.raises(DecodeError, match="deeper"):
        decode_gob(bottomless + gob.value(65, b"\x01" * 500_000))


def test_memory_stays_in_proportion_to_the_stream():
    many = gob.texts(*[b"\xff"] * 10_000)
    names = ("ToNodes", "Data", "MethodArgs", "ReplyMethodArgs")
    four = gob.struct_type(65, *((name, 66) for name in names)) + gob.slice_type(66, gob.STRING)
    fields = (b"\x01" + many) * 4 + b"\0"
    types = b"".join(
        gob.struct_type(65 + n, *[(f"F{i}", 6) for i in range(2_048 // 128)]) for n in range(128)
    )
    cases = [
        four + gob.value(65, fields),
        types + gob.value(65, b"\0"),
        gob.framed(gob.sint(-65) + b"\x03\x02" + gob.uint(2_048) + bytes(2_048) + b"\0\0"),
        SIMPLE + gob.value(70, b"\x03" + gob.uint(MAX_TEXTS) + bytes(1_000)),
        stream_with(81, gob.uint(30_000) + bytes(30_000)),
    ]
    for stream in cases:
        tracemalloc.start()
        try:
            decode_gob(stream)
        except DecodeError:
            pass
        finally:
            _, peak_bytes = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak_bytes < 100 * len(stream) + 200_000, (len(stream), peak_bytes)


# -- encoding -----------------------------------------------------------------------------------


def test_what_cannot_be_sent_is_refused_before_anything_is_written():
    with pytest.raises(EncodeError, match="30 messages"):
        encode_gob(nest(31))
    for change in ({"id": 2**63}, {"data": ["list"]}, {"method": b"x"}, {"is_reply": 1}):
        with pytest.raises(EncodeError):
            encode_gob(Message()._replace(**change))
    for text in ("\ud800", "a\udc7f"):
        with pytest.raises(EncodeError, match="surrogate"):
            encode_gob(Message(data=(text,)))
