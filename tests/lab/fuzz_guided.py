"""Coverage-guided fuzzing of the decoders, by hand: `python -m tests.lab.fuzz_guided DECODER [SECONDS]`.

Needs atheris, which the tests do not: `pip install atheris` into an environment of its own. The corpus begins with the
recorded frames of a Go node. Anything but a message or the decode error ends the run with the input that did it; so
does a call that takes longer than a second.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["appliance"]):
    from appliance.core.message import Message
    from appliance.core.names import parse_subject
    from appliance.dialect.headers import ID_HEADER, parse_identity
    from appliance.errors import DecodeError, SubjectInvalid
    from appliance.wire.cbor import decode_cbor, encode_cbor
    from appliance.wire.frame import WireLimits, decode_frame
    from appliance.wire.gob import decode_gob, encode_gob

from tests.support.gob_streams import UNKNOWN, stream_with
from tests.support.wire_cases import as_gob_can, load_vectors

LIMITS = WireLimits()
MAX_SECONDS = 1.0


def fuzz_gob(raw: bytes) -> None:
    message = decode_gob(raw, max_depth=16)
    assert type(message) is Message
    assert decode_gob(encode_gob(message), max_depth=16) == as_gob_can(message)


def fuzz_cbor(raw: bytes) -> None:
    message = decode_cbor(raw, max_depth=16)
    assert type(message) is Message
    assert decode_cbor(encode_cbor(message), max_depth=16) == message


def fuzz_zstd(raw: bytes) -> None:
    """The frame's first byte chooses the serialization, the rest is the payload."""
    headers = {"cmp": "z", "serial": "cbor"} if raw[:1] == b"c" else {"cmp": "z"}
    assert type(decode_frame(raw[1:], headers, LIMITS)) is Message


def fuzz_headers(raw: bytes) -> None:
    """Lines of a header block, then an empty line, then the payload; and what a subject and an identity may be."""
    head, _, payload = raw.partition(b"\n\n")
    text = head.decode("utf-8", "surrogateescape")
    parse_identity({ID_HEADER: text})
    with contextlib.suppress(SubjectInvalid):
        parse_subject(text)
    headers = dict(line.split(":", 1) for line in text.split("\n") if ":" in line)
    parse_identity(headers)
    assert type(decode_frame(payload, headers, LIMITS)) is Message


def write_corpus(name: str, directory: Path) -> None:
    if name == "gob":
        for kind, (type_id, content) in UNKNOWN.items():
            (directory / kind).write_bytes(stream_with(type_id, content))
    for vector in load_vectors():
        seeds = {
            "gob": [vector.gob],
            "cbor": [vector.cbor],
            "zstd": [b"g" + vector.gob_zstd, b"c" + vector.cbor_zstd],
            "headers": [
                b"serial:cbor\n\n" + vector.cbor,
                b"cmp:z\nappl-id:0123456789abcdef-7-m\n\n" + vector.gob_zstd,
                b"ship1.REQPing.EventACK\n\n" + vector.gob,
            ],
        }[name]
        for number, seed in enumerate(seeds):
            (directory / f"{vector.name}-{number}").write_bytes(seed)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gob": fuzz_gob,
    "cbor": fuzz_cbor,
    "zstd": fuzz_zstd,
    "headers": fuzz_headers,
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"which decoder? one of {', '.join(TARGETS)}")
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 120
    target = TARGETS[name]

    def run_one(raw: bytes) -> None:
        started = time.process_time()
        with contextlib.suppress(DecodeError):
            target(raw)
        if time.process_time() - started > MAX_SECONDS:
            raise AssertionError(f"took longer than {MAX_SECONDS} s")

    with tempfile.TemporaryDirectory() as directory:
        write_corpus(name, Path(directory))
        options = [f"-max_total_time={seconds}", "-max_len=16384", "-rss_limit_mb=1024"]
        atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", directory], run_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
