"""What is known of messages that are alike changes nothing of what is written and read, only what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.message import Message
from appliance.errors import DecodeError
from appliance.wire.alike import MAX_KNOWN, MAX_REST_BYTES, AlikeReader
from appliance.wire.cbor import decode_cbor, encode_cbor
from appliance.wire.frame import FrameStencil, encode_fields

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2**33)
TEXTS = st.none() | st.lists(st.text(max_size=300) | st.just("\udcff"), max_size=3).map(tuple)
SIZES = (0, 1, 23, 24, 255, 256, 65_535, 65_536)


def message_like(**fields: Any) -> Message:
    usual: dict[str, Any] = {
        "to_node": "ship1",
        "id": 123_456_789,
        "data": ("hello",),
        "method": "REQToConsole",
        "from_node": "central",
        "ack_timeout_s": 5,
        "retries": 3,
        "method_timeout_s": 10,
    }
    return Message(**usual | fields)


MESSAGES = st.builds(
    message_like,
    to_node=st.text(max_size=30) | st.text(min_size=200, max_size=400),
    to_nodes=TEXTS,
    id=NUMBERS,
    data=TEXTS,
    method_args=TEXTS,
    is_reply=st.booleans(),
    directory=st.text(max_size=20),
    previous_message=st.none() | st.just(Message()),
)


@given(MESSAGES, NUMBERS, TEXTS)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_stencil_writes_what_the_encoder_writes(
    compression: str, message: Message, number: int, data: tuple[str, ...] | None
):
    stencil = FrameStencil(list(message), "cbor", compression)
    written = stencil.encode(number, data)
    if written is not None:
        other = message._replace(id=number, data=data)
        assert written == encode_fields(list(other), "cbor", compression)


@pytest.mark.parametrize("size", SIZES)
def test_text_of_any_size_is_read_as_it_was_written(size: int):
    message = message_like(data=("x" * size,))
    stencil, reader = FrameStencil(list(message), "cbor", "none"), AlikeReader()
    reader.learn(encode_cbor(message), message)
    written = stencil.encode(message.id, message.data)
    assert (written is None) is (size > 65_535)
    if written is not None:
        assert written[0] == encode_cbor(message)
        assert reader.read(written[0]) == message


@pytest.mark.parametrize("number", [True, 1.0, 65_535, 2**32, -1])
def test_number_of_another_form_is_left_to_the_encoder(number: Any):
    assert FrameStencil(list(message_like()), "cbor", "none").encode(number, ("x",)) is None


@pytest.mark.parametrize("data", [None, (), ("a", "b"), (b"x",), ["x"], ("\udcff",)])
def test_data_of_another_form_is_left_to_the_encoder(data: Any):
    assert FrameStencil(list(message_like()), "cbor", "none").encode(1 << 20, data) is None


def test_there_is_no_stencil_of_what_no_other_message_has():
    large = ("x" * MAX_REST_BYTES,)
    for message in (message_like(method_args=large), message_like(previous_message=Message())):
        assert not FrameStencil(list(message), "cbor", "none").is_of_use
    assert not FrameStencil(list(message_like()), "gob", "none").is_of_use


@given(MESSAGES, MESSAGES, st.data())
def test_reader_gives_what_the_decoder_gives_of_any_bytes(
    first: Message, second: Message, data: st.DataObject
):
    reader = AlikeReader()
    for message in (first, second, first._replace(id=1 << 20, data=("other",))):
        payload = bytearray(encode_cbor(message))
        for _ in range(data.draw(st.integers(0, 3))):
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
        raw = bytes(payload[: data.draw(st.just(len(payload)) | st.integers(0, len(payload)))])
        found = reader.read(raw)
        try:
            decoded = decode_cbor(raw)
        except DecodeError:
            assert found is None
        else:
            assert found is None or found == decoded
            reader.learn(raw, decoded)


def test_every_prefix_and_every_changed_byte_is_judged_as_by_the_decoder():
    message = message_like()
    reader, payload = AlikeReader(), encode_cbor(message)
    reader.learn(payload, message)
    assert reader.read(payload) == message
    cut = [payload[:end] for end in range(len(payload))]
    changed = [
        payload[:at] + bytes([byte]) + payload[at + 1 :]
        for at in range(len(payload))
        for byte in (0, 1, 0x1B, 0x5F, 0x60, 0x78, 0x79, 0x7F, 0x80, 0x81, 0x82, 0xF6, 0xFF)
    ]
    for raw in [*cut, *changed, payload + b"\0", payload + payload]:
        found = reader.read(raw)
        if found is not None:
            assert found == decode_cbor(raw)


def test_number_of_the_header_stands_in_the_place_of_its_own():
    message = message_like()
    reader, payload = AlikeReader(), encode_cbor(message)
    reader.learn(payload, message)
    assert reader.read(payload, 7) == message._replace(id=7)


def test_what_is_remembered_is_bounded_in_number_and_size():
    reader = AlikeReader()
    for number in range(3 * MAX_KNOWN):
        message = message_like(directory=str(number))
        reader.learn(encode_cbor(message), message)
        assert len(reader._rests) <= MAX_KNOWN
    large = message_like(directory="x" * MAX_REST_BYTES)
    reader.learn(encode_cbor(large), large)
    assert reader.read(encode_cbor(large)) is None
