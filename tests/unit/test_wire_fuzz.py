"""Hostile bytes at every decoder: a message or the decode error, within bounds of memory and time."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.message import Message
from appliance.core.names import parse_subject
from appliance.dialect.headers import ID_HEADER, Identity, parse_identity
from appliance.errors import DecodeError, SubjectInvalid
from appliance.wire.cbor import decode_cbor
from appliance.wire.frame import WireLimits, decode_frame
from appliance.wire.gob import decode_gob
from appliance.wire.zstd import compress, decompress
from tests.support import gob_streams as gob
from tests.support.wire_cases import load_vectors

VECTORS = load_vectors()
LIMITS = WireLimits(max_message_bytes=1 << 20, max_decompressed_bytes=1 << 20)
Decode = Callable[[bytes], object]
DECODERS: dict[str, Decode] = {
    "gob": lambda raw: decode_gob(raw, max_depth=16),
    "cbor": lambda raw: decode_cbor(raw, max_depth=16),
    "gob frame": lambda raw: decode_frame(compress(raw), {"cmp": "z"}, LIMITS),
    "cbor frame": lambda raw: decode_frame(compress(raw), {"cmp": "z", "serial": "cbor"}, LIMITS),
    "zstd gob": lambda raw: decode_frame(raw, {"cmp": "z"}, LIMITS),
    "zstd cbor": lambda raw: decode_frame(raw, {"cmp": "z", "serial": "cbor"}, LIMITS),
}
SEEDS = {
    "gob": [vector.gob for vector in VECTORS[:-1]],
    "cbor": [vector.cbor for vector in VECTORS[:-1]],
    "gob frame": [vector.gob for vector in VECTORS[:-1]],
    "cbor frame": [vector.cbor for vector in VECTORS[:-1]],
    "zstd gob": [vector.gob_zstd for vector in VECTORS],
    "zstd cbor": [vector.cbor_zstd for vector in VECTORS],
}
MAX_SECONDS = 2.0
by_decoder = pytest.mark.parametrize("name", DECODERS)


def decode_or_refuse(decode: Decode, raw: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(DecodeError):
        assert type(decode(raw)) is Message
    assert time.process_time() - started < MAX_SECONDS


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A valid frame with some bytes changed, taken out, put in, doubled, or cut off."""
    raw = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(raw)))
        match draw(st.integers(0, 4)):
            case 0:
                raw[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del raw[place : place + draw(st.integers(1, 9))]
            case 2:
                raw[place:place] = draw(st.binary(min_size=1, max_size=9))
            case 3:
                raw[place:place] = raw[place : place + draw(st.integers(1, 60))]
            case 4:
                raw[place:] = draw(st.binary(max_size=20))
    return bytes(raw)


@by_decoder
@given(data=st.data())
@settings(max_examples=120)
def test_damaged_frame_is_read_or_refused(name: str, data: st.DataObject):
    decode_or_refuse(DECODERS[name], data.draw(damaged(SEEDS[name])))


@by_decoder
@given(raw=st.binary(max_size=300))
@settings(max_examples=80)
def test_random_bytes_are_refused(name: str, raw: bytes):
    decode_or_refuse(DECODERS[name], raw)


TYPES = st.one_of(st.integers(0, 9), st.integers(64, 70), st.sampled_from([-1, 16, 23, 2**62]))
NAMES = st.sampled_from(
    ("ID", "Data", "Method", "ToNodes", "PreviousMessage", "IsReply", "Colour", "")
)
DEFINITIONS = st.one_of(
    st.builds(
        lambda number, fields: gob.struct_type(number, *fields),
        st.integers(64, 70),
        st.lists(st.tuples(NAMES, TYPES), max_size=5),
    ),
    st.builds(gob.slice_type, st.integers(64, 70), TYPES),
    st.builds(gob.array_type, st.integers(64, 70), TYPES, st.integers(-1, 4)),
    st.builds(gob.map_type, st.integers(64, 70), TYPES, TYPES),
    st.builds(gob.opaque_type, st.integers(64, 70), st.integers(4, 6)),
)
CONTENT = st.lists(
    st.one_of(
        st.integers(0, 4).map(lambda byte: bytes([byte])),
        st.integers(0, 2**64 - 1).map(gob.uint),
        st.binary(max_size=5).map(gob.text),
    ),
    max_size=30,
).map(b"".join)


@given(st.lists(DEFINITIONS, max_size=6), st.integers(64, 70), CONTENT)
@settings(max_examples=300)
def test_gob_of_any_types_with_any_content_is_read_or_refused(
    definitions: list[bytes], type_id: int, content: bytes
):
    decode_or_refuse(DECODERS["gob"], b"".join(definitions) + gob.value(type_id, content))


@by_decoder
def test_every_prefix_of_a_valid_frame_is_refused(name: str):
    for seed in SEEDS[name]:
        for size in range(min(len(seed), 700)):
            with pytest.raises(DecodeError):
                DECODERS[name](seed[:size])


@by_decoder
def test_every_byte_enlarged_is_read_or_refused_within_memory(name: str):
    seed = next(raw for raw in SEEDS[name] if len(raw) > 90)
    for place in range(len(seed)):
        for byte in {seed[place] + 1, seed[place] | 0x1F, 0xFF, 0xF8} - {seed[place]}:
            if not seed[place] < byte < 256:
                continue
            changed = seed[:place] + bytes([byte]) + seed[place + 1 :]
            try:
                DECODERS[name](changed)
            except DecodeError:
                continue


@by_decoder
def test_claims_of_huge_sizes_cost_no_memory(name: str):
    seed = next(raw for raw in SEEDS[name] if len(raw) > 90)
    worst_bytes = 0
    for place in range(0, len(seed), 3):
        for claim in (
            b"\xf8\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\x9b\0\0\0\1\0\0\0\0",
            b"\xfd\xff\xff",
        ):
            changed = seed[:place] + claim + seed[place + 1 :]
            tracemalloc.start()
            try:
                DECODERS[name](changed)
            except DecodeError:
                pass
            finally:
                worst_bytes = max(worst_bytes, tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
    # a zstd frame that does not state its size is given room up to the limit
    room_bytes = LIMITS.max_decompressed_bytes if name.startswith("zstd") else 0
    assert worst_bytes < 300_000 + room_bytes


@given(st.binary(max_size=200), st.integers(0, 1000))
@settings(max_examples=80)
def test_decompression_never_exceeds_its_limit(raw: bytes, limit_bytes: int):
    for payload in (raw, b"\x28\xb5\x2f\xfd" + raw, compress(raw)):
        try:
            assert len(decompress(payload, limit_bytes=limit_bytes)) <= limit_bytes
        except DecodeError:
            continue


HEADER_NAMES = st.sampled_from(("serial", "Serial", "cmp", "CMP", "appl-id", "")) | st.text()
HEADER_VALUES = st.sampled_from(("cbor", "gob", "z", "Z", "")) | st.text(max_size=20)


@given(st.dictionaries(HEADER_NAMES, HEADER_VALUES, max_size=5), st.sampled_from(VECTORS))
@settings(max_examples=150)
def test_any_headers_are_understood_or_refused(headers: dict[str, str], vector):
    for payload in (vector.gob, vector.cbor, vector.gob_zstd, vector.cbor_zstd):
        try:
            assert type(decode_frame(payload, headers, LIMITS)) is Message
        except DecodeError:
            continue


@given(st.text() | st.from_regex(r"[0-9a-fx]{15,17}-[-0-9²٣]{0,25}(-m)?", fullmatch=True))
@settings(max_examples=200)
def test_any_identity_is_understood_or_counts_as_none(text: str):
    identity = parse_identity({ID_HEADER: text})
    assert type(identity) is Identity
    assert identity.instance is None or 0 < identity.message_id < 2**63


@given(st.text() | st.lists(st.sampled_from("ab.*>_ ") | st.text(max_size=3)).map(".".join))
@settings(max_examples=200)
def test_any_subject_is_parsed_or_refused(subject: str):
    with contextlib.suppress(SubjectInvalid):
        assert parse_subject(subject)
