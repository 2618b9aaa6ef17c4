"""Bytes, texts and configs of a million seeds for whatever reads them: `python -m tests.lab.fuzz [--inputs 1000000]`.

An input follows from its target and its number, so that one that does harm is found again. What is read or refused with
the error that is declared for it is right; anything else is trouble, and so are an input that takes longer than
`MAX_CPU_S` and memory that grows beyond `MAX_GROWTH_MIB`. Each run starts from what is right (recorded frames, shown
configs), and breaks it in a few places: nearly right goes deeper than noise.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.bus.frames import parse_denial
from appliance.config.environment_file import parse_environment_file
from appliance.core.names import parse_subject
from appliance.dialect.base import Answer, AnswerKind
from appliance.dialect.headers import parse_identity, read_ending
from appliance.dialect.spoken import make_dialect
from appliance.errors import ConfigInvalid, ConfigUnreadable, DecodeError, SubjectInvalid
from appliance.inputs.reading import TextKind, read_text_of_messages
from appliance.wire.cbor import decode_cbor
from appliance.wire.frame import WireLimits, decode_frame
from appliance.wire.gob import decode_gob
from appliance.wire.headers import parse_headers
from tests.support.config_files import ROOT, load
from tests.support.gob_streams import UNKNOWN, stream_with
from tests.support.wire_cases import load_vectors

MAX_CPU_S = 1.0
MAX_GROWTH_MIB = 256
MAX_INPUT_BYTES = 16_384
LIMITS = WireLimits()
DIALECT = make_dialect()
ASKED = DIALECT.asked("ship1", "REQPing")
INTERESTING = (
    0,
    1,
    2,
    0x0A,
    0x1F,
    0x20,
    0x5F,
    0x7F,
    0x80,
    0x9F,
    0xBF,
    0xF7,
    0xF8,
    0xFB,
    0xFE,
    0xFF,
)
WORDS = (
    b"appl-id", b"appl-hello", b"appl-ended", b"serial", b"cmp", b": ", b"\r\n", b"NATS/1.0 503", b"*", b">", b"..",
    b"\xff\xff\xff\xff", b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", b"{", b"[", b"- &a [*a, *a]", b"${X:-", b"!!python/x",
    b"nan", b"-1", b"99999999999999999999", b"\xef\xbb\xbf", b"\x00", b"0123456789abcdef-7-m", b"toNode", b"methodArgs",
)  # fmt: skip


def break_somewhere(raw: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """The bytes with one to six changes."""
    found = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(found) + 1)
        how = rng.randrange(8)
        if how == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1 and at < len(found):
            found[at] = rng.choice(INTERESTING)
        elif how == 2:
            del found[at : at + rng.choice((1, 2, 8, 64))]
        elif how == 3:
            found[at:at] = found[at : at + rng.choice((1, 4, 16, 256))] * rng.choice((1, 2, 50))
        elif how == 4:
            found[at:at] = rng.choice(WORDS)
        elif how == 5:
            del found[at:]
        elif how == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            found[at:at] = other[start : start + rng.choice((4, 32, 256))]
        else:
            found[at:at] = rng.randbytes(rng.choice((1, 2, 9)))
    return bytes(found[:MAX_INPUT_BYTES])


@dataclass(frozen=True, slots=True)
class Target:
    """What reads bytes, what it begins with, and the errors that it may refuse with."""

    name: str
    read: Callable[[bytes, Path], object]
    corpus: Callable[[], list[bytes]]
    refusals: tuple[type[Exception], ...] = ()
    inputs: int = 1_000_000
    """How many of them the long run tries."""


@dataclass(slots=True)
class Report:
    """What came of some inputs of a target."""

    target: str
    tried: int = 0
    refused: int = 0
    cpu_s: float = 0.0
    slowest_s: float = 0.0
    growth_mib: int = 0
    trouble: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        each_us = self.cpu_s / max(1, self.tried) * 1e6
        said = (
            f"{self.target}: {self.tried} inputs, {self.refused} refused, {each_us:.0f} us each,"
            f" slowest {self.slowest_s * 1e3:.1f} ms, {self.growth_mib:+} MiB"
        )
        return "\n  ".join([said, *self.trouble])


def try_inputs(
    target: Target,
    *,
    seed: int = 0,
    inputs: int | None = None,
    seconds: float | None = None,
    directory: Path,
) -> Report:
    """Try so many inputs of a seed, or as many as can be tried in so many seconds of processor time."""
    corpus = target.corpus()
    report = Report(target.name)
    before = _peak_mib()
    began_s = time.thread_time()
    while report.tried != inputs and len(report.trouble) < 3:
        # NB: a generator of its own for each thousand, so that any of them can be reached without those before it
        if report.tried % 1_000 == 0:
            rng = random.Random(f"{target.name} {seed} {report.tried // 1_000}")
        raw = break_somewhere(rng.choice(corpus), rng, corpus)
        started_s = time.thread_time()
        try:
            target.read(raw, directory)
        except target.refusals:
            report.refused += 1
        except (Exception, RecursionError) as error:
            report.trouble.append(
                f"input {report.tried} of seed {seed}: {type(error).__name__}: {error!s:.200}: {raw.hex()}"
            )
        took_s = time.thread_time() - started_s
        report.tried += 1
        report.slowest_s = max(report.slowest_s, took_s)
        if took_s > MAX_CPU_S:
            report.trouble.append(
                f"input {report.tried - 1} of seed {seed}: {took_s:.1f} s: {raw.hex()[:2_000]}"
            )
        if seconds is not None and time.thread_time() - began_s > seconds:
            break
    report.cpu_s = time.thread_time() - began_s
    gc.collect()
    report.growth_mib = _peak_mib() - before
    if report.growth_mib > MAX_GROWTH_MIB:
        report.trouble.append(f"the process grew by {report.growth_mib} MiB")
    return report


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _read_zstd(raw: bytes, directory: Path) -> object:
    """The first byte chooses the serialization, the rest is the payload."""
    del directory
    headers = {"cmp": "z", "serial": "cbor"} if raw[:1] == b"c" else {"cmp": "z"}
    return decode_frame(raw[1:], headers, LIMITS)


def _read_frame(raw: bytes, directory: Path) -> object:
    """A header block, an empty line, the payload; as a subscriber reads it."""
    del directory
    head, _, payload = raw.partition(b"\r\n\r\n")
    block = head + b"\r\n\r\n"
    DIALECT.identify(block)
    return DIALECT.read(block, payload, LIMITS)


def _read_answer(raw: bytes, directory: Path) -> object:
    del directory
    head, _, payload = raw.partition(b"\r\n\r\n")
    return DIALECT.read_answer(head + b"\r\n\r\n", payload, ASKED)


def _read_headers(raw: bytes, directory: Path) -> object:
    del directory
    headers = parse_headers(raw)
    parse_identity(headers)
    return [read_ending(value) for value in headers.values()]


def _read_subject(raw: bytes, directory: Path) -> object:
    del directory
    text = raw.decode("utf-8", "surrogateescape")
    parse_denial(text)
    return parse_subject(text)


def _read_config(raw: bytes, directory: Path) -> object:
    path = directory / "fuzzed.yaml"
    path.write_bytes(raw)
    return load(path)


def _read_messages(raw: bytes, directory: Path) -> object:
    del directory
    return read_text_of_messages(raw, max_messages=1_000, from_node="central", kind=TextKind.ANY)


def _read_environment(raw: bytes, directory: Path) -> object:
    del directory
    return parse_environment_file(raw.decode("utf-8", "replace"))


def _gob() -> list[bytes]:
    return [stream_with(*unknown) for unknown in UNKNOWN.values()] + [
        vector.gob for vector in load_vectors()
    ]


def _frames() -> list[bytes]:
    heads = (
        b"serial: cbor\r\n",
        b"cmp: z\r\nappl-id: 0123456789abcdef-7-m\r\n",
        b"appl-hello: 1\r\n",
    )
    payloads = [raw for one in load_vectors() for raw in (one.cbor, one.gob_zstd, one.gob)]
    return [
        b"NATS/1.0\r\n" + head + b"\r\n" + payload
        for head, payload in zip(heads * len(payloads), payloads, strict=False)
    ]


def _answers() -> list[bytes]:
    kinds = ("taken", "done", "working", "busy", "refused", "failed", "here")
    answers = [
        DIALECT.write_answer(
            Answer(AnswerKind(kind), True, "0123456789abcdef", 250), "ship1", 7, to_appliance=True
        )
        for kind in kinds
    ]
    others = [
        b"NATS/1.0 503\r\n\r\n",
        b'\r\n\r\n{"stream":"S","seq":1}',
        b"\r\n\r\nconfirmed from: ship1: 7",
        b"\r\n\r\n",
    ]
    return [block + payload for block, payload in answers] + others


def _header_blocks() -> list[bytes]:
    return [frame.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" for frame in _frames() + _answers()]


def _subjects() -> list[bytes]:
    return [
        b"ship1.REQPing.EventACK",
        b"north.buoy.REQCliCommand.CommandNACK",
        b"ship1.REQPing.EventACK.reply.1a.2b",
        b"ship1.REQPing.EventACK_publisher",
        b'permissions violation for publish to "ship1.REQPing.EventACK"',
    ]


def _configs() -> list[bytes]:
    paths = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "tests/configs_bad").glob("*.yaml")]
    return [raw for path in sorted(paths) if len(raw := path.read_bytes()) < 4_000]


def _messages() -> list[bytes]:
    element = {
        "toNode": "ship1",
        "method": "REQCliCommand",
        "methodArgs": ["ls", "-l"],
        "data": ["x"],
        "ACKTimeout": 5,
    }
    return [
        json.dumps([element, element]).encode(),
        json.dumps(element, indent=1).encode(),
        b'- toNode: ship1\n  method: REQPing\n- toNodes: [a, b]\n  method: REQToFile\n  data: ["x"]\n',
        b"[]",
    ]


def _environments() -> list[bytes]:
    return [b"A=b\nB='c d'\nC=\"e\\\n f\"\n# x\nexport D=1\n"]


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("gob", lambda raw, _: decode_gob(raw, max_depth=16), _gob, (DecodeError,)),
        Target(
            "cbor",
            lambda raw, _: decode_cbor(raw, max_depth=16),
            lambda: [vector.cbor for vector in load_vectors()],
            (DecodeError,),
        ),
        Target(
            "zstd",
            _read_zstd,
            lambda: [
                raw for one in load_vectors() for raw in (b"g" + one.gob_zstd, b"c" + one.cbor_zstd)
            ],
            (DecodeError,),
        ),
        Target("frame", _read_frame, _frames, (DecodeError,)),
        Target("answer", _read_answer, _answers),
        Target("headers", _read_headers, _header_blocks),
        Target("subject", _read_subject, _subjects, (SubjectInvalid,)),
        Target("environment", _read_environment, _environments),
        Target("messages", _read_messages, _messages, inputs=10_000),
        Target("config", _read_config, _configs, (ConfigInvalid, ConfigUnreadable), inputs=20_000),
    )
}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument(
        "--inputs", type=int, help="of each (a million; 20,000 configs, 10,000 lists)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    is_right = True
    for name in options.targets.split(","):
        target = TARGETS[name]
        with tempfile.TemporaryDirectory() as directory, contextlib.suppress(KeyboardInterrupt):
            report = try_inputs(
                target,
                seed=options.seed,
                inputs=options.inputs or target.inputs,
                directory=Path(directory),
            )
            print(report, flush=True)
            is_right = is_right and not report.trouble
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
