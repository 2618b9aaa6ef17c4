"""Frames: headers, compression and the bounds on both."""

from __future__ import annotations

import threading

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.message import Message
from appliance.core.specs import Compression, Serialization
from appliance.errors import DecodeError, EncodeError
from appliance.wire.cbor import encode_cbor
from appliance.wire.codecs import COMPRESSIONS, SERIALIZATIONS
from appliance.wire.frame import (
    WireLimits,
    decode_frame,
    encode_frame,
    encode_payload,
    encode_stored,
    encoding_name,
    frame_headers,
    split_encoding,
    transcode,
)
from appliance.wire.zstd import compress, decompress
from tests.support.wire_cases import Vector, any_message, as_gob_can, load_vectors

VECTORS = load_vectors()
CBOR = {"serial": "cbor"}
ZSTD = {"serial": "cbor", "cmp": "z"}
ENCODINGS = ("cbor", "cbor+zstd", "gob", "gob+zstd")
LIMITS = WireLimits()
HELLO = Message(to_node="central", method="REQHello", data=("Hello from ship1\n",))
by_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)


@by_vector
def test_frame_of_a_go_node_is_read(vector: Vector):
    assert decompress(vector.cbor_zstd, limit_bytes=1 << 20) == vector.cbor
    assert decode_frame(vector.cbor, CBOR, LIMITS) == vector.message
    assert decode_frame(vector.cbor_zstd, ZSTD, LIMITS) == vector.message
    assert decompress(vector.gob_zstd, limit_bytes=1 << 20) == vector.gob
    assert decode_frame(vector.gob, {}, LIMITS) == as_gob_can(vector.message)
    assert decode_frame(vector.gob_zstd, {"cmp": "z"}, LIMITS) == as_gob_can(vector.message)


@by_vector
def test_our_compressed_frame_decompresses_to_the_bytes_of_a_go_node(vector: Vector):
    payload = encode_payload(vector.message, "cbor", "zstd")
    assert zstandard.ZstdDecompressor().decompress(payload) == vector.cbor
    payload, headers = encode_frame(vector.message, "gob", "zstd")
    assert headers == {"cmp": "z"}
    assert zstandard.ZstdDecompressor().decompress(payload) == vector.gob


@pytest.mark.parametrize("compression", ["none", "zstd"])
@by_vector
def test_message_that_go_would_refuse_in_cbor_goes_out_as_gob(vector: Vector, compression: str):
    payload, headers = encode_frame(vector.message, "cbor", compression)
    stored = encode_stored(vector.message, "cbor", compression)
    used = "gob" if vector.name == "invalid_utf8" else "cbor"
    assert headers == frame_headers(used, compression)
    assert payload == encode_payload(vector.message, used, compression)
    assert stored == (payload, encoding_name(used, compression))


def test_one_text_that_is_not_utf8_anywhere_in_the_message_is_enough():
    inner = Message(file_name="\udcff")
    for message in (inner, Message(data=("a", "\udcff")), Message(previous_message=inner)):
        assert encode_frame(message, "cbor", "none")[1] == {}
        assert encode_frame(message, "cbor", "zstd")[1] == {"cmp": "z"}


@given(any_message, st.sampled_from(["cbor", "gob"]), st.sampled_from(["none", "zstd"]))
@settings(max_examples=60)
def test_any_message_survives_the_round_trip(
    message: Message, serialization: str, compression: str
):
    payload, headers = encode_frame(message, serialization, compression)
    expected = message if headers.get("serial") == "cbor" else as_gob_can(message)
    assert decode_frame(payload, headers, LIMITS) == expected


def test_headers_are_those_of_the_seed_and_no_others():
    assert encode_frame(HELLO, "cbor", "none")[1] == {"serial": "cbor"}
    assert encode_frame(HELLO, "cbor", "zstd")[1] == {"serial": "cbor", "cmp": "z"}
    assert encode_frame(HELLO, "gob", "none")[1] == {}
    assert encode_frame(HELLO, "gob", "zstd")[1] == {"cmp": "z"}
    assert dict(frame_headers("cbor", "zstd")) == ZSTD
    assert dict(frame_headers("gob", "none")) == {}


def test_returned_headers_may_be_changed_by_the_caller():
    encode_frame(HELLO, "cbor", "none")[1]["appl-id"] = "x"
    assert encode_frame(HELLO, "cbor", "none")[1] == CBOR


def test_foreign_headers_beside_ours_do_no_harm():
    payload, headers = encode_frame(HELLO, "cbor", "zstd")
    assert decode_frame(payload, headers | {"appl-id": "x-1", "fromNode": "y"}, LIMITS) == HELLO


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Serial": "cbor"}, "'Serial' has to be written 'serial'"),
        ({"serial": "cbor", "CMP": "z"}, "'CMP' has to be written 'cmp'"),
        ({"serial": "gob"}, "unknown serialization 'gob'"),
        ({"serial": "CBOR"}, "unknown serialization"),
        ({"serial": "cbor", "cmp": "g"}, "unknown compression 'g'"),
        ({"serial": "cbor", "cmp": "none"}, "unknown compression"),
        ({"serial": "cbor", "cmp": ""}, "unknown compression"),
        ({"cmp": "gzip"}, "unknown compression 'gzip'"),
        ({"serial": "", "cmp": "gzip"}, "unknown serialization"),
        ({"serial": "cbor", "SERIAL": "cbor"}, "given twice"),
        ({"Cmp": "z", "serial": "cbor", "cmp": "z"}, "given twice"),
    ],
)
def test_headers_we_do_not_know_are_refused_by_name(headers: dict[str, str], words: str):
    payload, _ = encode_frame(HELLO, "cbor", "none")
    with pytest.raises(DecodeError, match=words):
        decode_frame(payload, headers, LIMITS)


@pytest.mark.parametrize("pair", [("json", "none"), ("gob", "gzip"), ("cbor", "gzip"), ("", "")])
def test_unknown_encoding_is_refused_before_anything_is_written(pair: tuple[str, str]):
    with pytest.raises(EncodeError, match="unknown encoding"):
        frame_headers(*pair)
    with pytest.raises(EncodeError, match="unknown encoding"):
        encode_frame(HELLO, *pair)


@by_vector
def test_every_prefix_of_a_compressed_frame_is_refused(vector: Vector):
    ours = encode_payload(vector.message, "cbor", "zstd")
    for payload, headers in (
        (ours, ZSTD),
        (vector.cbor_zstd, ZSTD),
        (vector.gob_zstd, {"cmp": "z"}),
    ):
        for size in range(len(payload)):
            with pytest.raises(DecodeError):
                decode_frame(payload[:size], headers, LIMITS)


@given(st.sampled_from(VECTORS), st.data())
@settings(max_examples=100)
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
@settings(max_examples=100)
def test_random_payload_raises_the_decode_error_and_nothing_else(raw: bytes):
    for headers in (CBOR, ZSTD, {}, {"cmp": "z"}):
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


@pytest.mark.parametrize("source", ENCODINGS)
@pytest.mark.parametrize("target", ENCODINGS)
@by_vector
def test_stored_payload_is_rewritten_into_any_other_encoding(
    vector: Vector, source: str, target: str
):
    message = as_gob_can(vector.message)
    payload, before = encode_stored(message, *split_encoding(source))
    rewritten, after = transcode(payload, before, target)
    assert (rewritten, after) == encode_stored(message, *split_encoding(target))
    back = transcode(rewritten, after, source)
    assert back == (payload, before)


def test_stored_payload_that_is_not_utf8_stays_gob_when_cbor_is_asked_for():
    message = Message(data=("\udcff",))
    plain, packed = (encode_payload(message, "gob", word) for word in ("none", "zstd"))
    assert transcode(plain, "gob", "cbor") == (plain, "gob")
    assert transcode(packed, "gob+zstd", "cbor+zstd") == (packed, "gob+zstd")
    assert transcode(plain, "gob", "cbor+zstd") == (packed, "gob+zstd")
    assert transcode(packed, "gob+zstd", "cbor") == (plain, "gob")


def test_rewriting_takes_all_messages_that_can_be_sent():
    message = Message(data=("x",))
    for _ in range(29):
        message = Message(data=("x",), previous_message=message)
    plain = encode_cbor(message)
    packed, encoding = transcode(plain, "cbor", "gob+zstd")
    assert transcode(packed, encoding, "cbor") == (plain, "cbor")


def test_rewriting_refuses_unknown_encodings_and_damaged_payloads():
    with pytest.raises(EncodeError):
        transcode(b"", "cbor", "json")
    with pytest.raises(EncodeError):
        transcode(b"", "json", "cbor")
    for source, target in (("cbor+zstd", "cbor"), ("cbor", "gob"), ("gob", "cbor+zstd")):
        with pytest.raises(DecodeError):
            transcode(b"no frame", source, target)


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


def test_every_encoding_that_the_config_takes_has_a_codec_and_the_other_way_round():
    assert set(SERIALIZATIONS) == {name.value for name in Serialization}
    assert set(COMPRESSIONS) == {name.value for name in Compression}
