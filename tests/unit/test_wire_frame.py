"""Frames: headers, compression and the bounds on both."""

from __future__ import annotations

import threading

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.message import Message
from appliance.errors import DecodeError, EncodeError
from appliance.wire.cbor import encode_cbor
from appliance.wire.frame import (
    WireLimits,
    decode_frame,
    encode_frame,
    frame_headers,
    transcode,
)
from appliance.wire.zstd import compress, decompress
from tests.support.wire_cases import Vector, any_message, load_vectors

VECTORS = load_vectors()
CBOR = {"serial": "cbor"}
ZSTD = {"serial": "cbor", "cmp": "z"}
LIMITS = WireLimits()
HELLO = Message(to_node="central", method="REQHello", data=("Hello from ship1\n",))
by_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)


@by_vector
def test_compressed_frame_of_a_go_node_is_read(vector: Vector):
    assert decompress(vector.cbor_zstd, limit_bytes=1 << 20) == vector.cbor
    assert decode_frame(vector.cbor_zstd, ZSTD, LIMITS) == vector.message


@by_vector
def test_our_compressed_frame_decompresses_to_the_bytes_of_a_go_node(vector: Vector):
    payload, headers = encode_frame(vector.message, "cbor", "zstd")
    assert headers == ZSTD
    assert zstandard.ZstdDecompressor().decompress(payload) == vector.cbor


@given(any_message, st.sampled_from(["none", "zstd"]))
@settings(max_examples=40, deadline=None)
def test_any_message_survives_the_round_trip(message: Message, compression: str):
    payload, headers = encode_frame(message, "cbor", compression)
    assert decode_frame(payload, headers, LIMITS) == message


def test_headers_are_those_of_the_seed_and_no_others():
    assert encode_frame(HELLO, "cbor", "none")[1] == {"serial": "cbor"}
    assert encode_frame(HELLO, "cbor", "zstd")[1] == {"serial": "cbor", "cmp": "z"}
    assert dict(frame_headers("cbor", "zstd")) == ZSTD


def test_returned_headers_may_be_changed_by_the_caller():
    encode_frame(HELLO, "cbor", "none")[1]["appl-id"] = "x"
    assert encode_frame(HELLO, "cbor", "none")[1] == CBOR


def test_foreign_headers_beside_ours_do_no_harm():
    payload, headers = encode_frame(HELLO, "cbor", "zstd")
    assert decode_frame(payload, headers | {"appl-id": "x-1", "fromNode": "y"}, LIMITS) == HELLO


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "gob, which is not supported yet"),
        ({"Serial": "cbor"}, "gob, which is not supported yet"),
        ({"cmp": "z"}, "gob, which is not supported yet"),
        ({"serial": "gob"}, "unknown serialization 'gob'"),
        ({"serial": "CBOR"}, "unknown serialization"),
        ({"serial": "cbor", "cmp": "g"}, "unknown compression 'g'"),
        ({"serial": "cbor", "cmp": "none"}, "unknown compression"),
        ({"serial": "cbor", "cmp": ""}, "unknown compression"),
        ({"serial": "cbor", "SERIAL": "cbor"}, "given twice"),
        ({"Cmp": "z", "serial": "cbor", "cmp": "z"}, "given twice"),
    ],
)
def test_headers_we_do_not_know_are_refused_by_name(headers: dict[str, str], words: str):
    payload, _ = encode_frame(HELLO, "cbor", "none")
    with pytest.raises(DecodeError, match=words):
        decode_frame(payload, headers, LIMITS)


@pytest.mark.parametrize("pair", [("gob", "none"), ("cbor", "gzip"), ("", "")])
def test_unknown_encoding_is_refused_before_anything_is_written(pair: tuple[str, str]):
    with pytest.raises(EncodeError, match="unknown encoding"):
        frame_headers(*pair)
    with pytest.raises(EncodeError, match="unknown encoding"):
        encode_frame(HELLO, *pair)


@by_vector
def test_every_prefix_of_a_compressed_frame_is_refused(vector: Vector):
    ours, _ = encode_frame(vector.message, "cbor", "zstd")
    for payload in (ours, vector.cbor_zstd):
        for size in range(len(payload)):
            with pytest.raises(DecodeError):
                decode_frame(payload[:size], ZSTD, LIMITS)


@given(st.sampled_from(VECTORS), st.data())
@settings(max_examples=100, deadline=None)
def test_changed_byte_in_a_compressed_frame_is_refused_or_harmless(
    vector: Vector, data: st.DataObject
):
    raw = bytearray(vector.cbor_zstd)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        message = decode_frame(bytes(raw), ZSTD, LIMITS)
    except DecodeError:
        return
    assert message == vector.message


@given(st.binary(max_size=100))
@settings(max_examples=100, deadline=None)
def test_random_payload_raises_the_decode_error_and_nothing_else(raw: bytes):
    for headers in (CBOR, ZSTD):
        for payload in (raw, b"\x28\xb5\x2f\xfd" + raw):
            try:
                decode_frame(payload, headers, LIMITS)
            except DecodeError:
                continue


def bomb(size: int, *, states_size: bool) -> bytes:
    compressor = zstandard.ZstdCompressor(write_content_size=states_size)
    stream = compressor.compressobj(size=size) if states_size else compressor.compressobj()
    zeros = bytes(1 << 20)
    parts = [stream.compress(zeros) for _ in range(size >> 20)]
    return b"".join([*parts, stream.flush()])


@pytest.mark.parametrize("states_size", [True, False])
def test_bomb_is_refused_before_it_grows(states_size: bool):
    payload = bomb(64 << 20, states_size=states_size)
    assert len(payload) < 10_000
    with pytest.raises(DecodeError):
        decode_frame(payload, ZSTD, LIMITS)


def test_frame_that_only_claims_to_be_huge_is_refused():
    for claim in (3 << 30, 1 << 62):
        payload = b"\x28\xb5\x2f\xfd\xe0" + claim.to_bytes(8, "little") + b"\x01\x00\x00"
        with pytest.raises(DecodeError, match="exceeds the limit"):
            decode_frame(payload, ZSTD, LIMITS)


def test_window_beyond_that_of_go_is_refused():
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=27, write_content_size=False
    )
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    payload = stream.compress(b"a" * 1000) + stream.flush()
    with pytest.raises(DecodeError):
        decompress(payload, limit_bytes=1 << 20)


def test_exactly_the_limit_is_accepted_and_one_byte_more_is_not():
    for states_size in (True, False):
        compressor = zstandard.ZstdCompressor(write_content_size=states_size)
        assert len(decompress(compressor.compress(bytes(1000)), limit_bytes=1000)) == 1000
        with pytest.raises(DecodeError):
            decompress(compressor.compress(bytes(1001)), limit_bytes=1000)


def test_second_frame_or_garbage_after_the_frame_is_refused():
    frame = compress(b"A" * 100)
    for extra in (frame, b"garbage", b"\x00"):
        with pytest.raises(DecodeError):
            decompress(frame + extra, limit_bytes=1 << 20)


def test_nothing_compresses_to_nothing_as_in_go():
    assert compress(b"") == b""
    assert decompress(b"", limit_bytes=10) == b""


def test_compression_is_deterministic_with_size_and_checksum():
    payload = compress(b"some text " * 20)
    assert payload == compress(b"some text " * 20)
    parameters = zstandard.get_frame_parameters(payload)
    assert parameters.content_size == 200
    assert parameters.has_checksum


def test_payload_over_the_message_limit_is_refused_unread():
    payload, headers = encode_frame(HELLO, "cbor", "none")
    with pytest.raises(DecodeError, match="exceeds the limit of 10"):
        decode_frame(payload, headers, WireLimits(max_message_bytes=10))


def test_stored_payload_is_rewritten_into_another_encoding_and_back():
    plain = encode_cbor(HELLO)
    packed = transcode(plain, "cbor", "cbor+zstd")
    assert packed == compress(plain)
    assert transcode(packed, "cbor+zstd", "cbor") == plain
    assert transcode(packed, "cbor+zstd", "cbor+zstd") is packed


def test_rewriting_refuses_unknown_encodings_and_damaged_payloads():
    with pytest.raises(EncodeError):
        transcode(b"", "cbor", "gob")
    with pytest.raises(EncodeError):
        transcode(b"", "json", "cbor")
    with pytest.raises(DecodeError):
        transcode(b"no frame", "cbor+zstd", "cbor")


def test_threads_do_not_share_a_compression_context():
    failures: list[object] = []

    def work(seed: int) -> None:
        text = bytes([seed]) * 20_000
        results = {decompress(compress(text), limit_bytes=1 << 20) for _ in range(50)}
        if results != {text}:
            failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
