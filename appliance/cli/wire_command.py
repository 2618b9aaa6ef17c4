"""`wire decode` and `wire encode`: bytes of captured messages to Steward JSON and back, without a daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from appliance.cli.options import Exit, UnusedStateDirOption, print_json_line, warn
from appliance.core.specs import Compression, Serialization
from appliance.errors import DecodeError, WireError

if TYPE_CHECKING:
    from appliance.core.message import Message

MAX_LINE_BYTES = 256 * 1024 * 1024
"""One message in hex; far beyond what a broker takes."""

_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")


FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="Read this file; - is stdin.", show_default=True)
]
RawOption = Annotated[
    bool, typer.Option("--raw", help="The whole input is one message, in bytes instead of hex.")
]

_DECODE_HELP = """Read messages as they travel, one per line in hex, and print each as JSON on a line.

All 25 fields, under Steward's own names. What is not UTF-8 is shown as {"base64": "…"}. Blank lines
and those that begin with # are skipped. A line that is no message is told on stderr with its
number, and the next ones are read all the same.

Without options each message is looked at: CBOR, gob and zstd begin differently.

Exits 0, or 65 when a line was no message.

\b
Examples:
  appliance wire decode captured.hex | jq .method
  xxd -p -c0 message.bin | appliance wire decode
  appliance wire decode --raw --serialization gob message.bin
"""
_ENCODE_HELP = """Read messages as JSON, one per line, and print each in hex as it would travel.

Keys are Steward's own (toNodes is not expanded), in any case; what is left out is zero. Bytes that
are not UTF-8 are given as {"base64": "…"}. On the wire, CBOR is announced by the header serial:
cbor, gob by none; zstd by cmp: z.

Exits 0, or 65 when a line was no message.

\b
Examples:
  echo '{"toNode":"ship1","method":"REQPing","FromNode":"central"}' | appliance wire encode
  appliance wire encode --serialization gob --compression zstd messages.json
  appliance wire encode --raw message.json > message.bin
"""


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="Messages as bytes: decode what was captured, encode what is to be sent.",
        no_args_is_help=True,
    )
    group.command("decode", help=_DECODE_HELP)(wire_decode)
    group.command("encode", help=_ENCODE_HELP)(wire_encode)
    app.add_typer(group, name="wire")


def wire_decode(
    file: FileArgument = "-",
    serialization: Annotated[
        Serialization | None,
        typer.Option("--serialization", help="What it is in. Default: told by its first byte."),
    ] = None,
    compression: Annotated[
        Compression | None,
        typer.Option("--compression", help="What is around it. Default: told by its first bytes."),
    ] = None,
    raw: RawOption = False,
    _state_dir: UnusedStateDirOption = None,
) -> int:
    """Bytes in, JSON out."""

    def decode(payload: bytes) -> None:
        from appliance.wire.steward_json import message_to_json

        message = _decode(payload, serialization, compression)
        print_json_line(message_to_json(message))

    if raw:
        return _read_whole(file, decode)
    return _read_lines(file, lambda line: decode(_read_hex(line)))


def wire_encode(
    file: FileArgument = "-",
    serialization: Annotated[
        Serialization, typer.Option("--serialization", help="Go's own default is gob.")
    ] = Serialization.CBOR,
    compression: Annotated[
        Compression, typer.Option("--compression", help="What to put around it.")
    ] = Compression.NONE,
    raw: RawOption = False,
    _state_dir: UnusedStateDirOption = None,
) -> int:
    """JSON in, bytes out."""
    if raw and sys.stdout.isatty():
        raise typer.BadParameter("bytes are not for a terminal: redirect them", param_hint="--raw")

    def encode(text: bytes) -> bytes:
        from appliance.wire.frame import encode_payload
        from appliance.wire.steward_json import parse_message

        try:
            message = parse_message(text.decode())
        except UnicodeDecodeError as error:
            raise DecodeError("no JSON: it is not UTF-8") from error
        return encode_payload(message, serialization.value, compression.value)

    def write_hex(line: bytes) -> None:
        print(encode(line).hex(), flush=True)  # noqa: T201

    def write_raw(whole: bytes) -> None:
        sys.stdout.buffer.write(encode(whole))
        sys.stdout.buffer.flush()

    return _read_whole(file, write_raw) if raw else _read_lines(file, write_hex)


def _decode(
    payload: bytes, serialization: Serialization | None, compression: Compression | None
) -> Message:
    """One message, in the encoding given or in the one that its first bytes tell."""
    from appliance.wire.codecs import COMPRESSIONS, guess_compression, guess_serialization
    from appliance.wire.frame import WireLimits, decode_frame, frame_headers

    limits = WireLimits(
        max_message_bytes=MAX_LINE_BYTES, max_decompressed_bytes=MAX_LINE_BYTES, max_depth=33
    )
    if not payload:
        raise DecodeError("no bytes")
    if compression is None:
        compression = Compression(guess_compression(payload))
    if serialization is None:
        unpack = COMPRESSIONS[compression.value].decompress
        payload = unpack(payload, limit_bytes=limits.max_decompressed_bytes)
        compression = Compression.NONE
    written_in = serialization.value if serialization else guess_serialization(payload)
    headers = frame_headers(written_in, compression.value)
    return decode_frame(payload, headers, limits)


def _read_hex(line: bytes) -> bytes:
    digits = b"".join(line.removeprefix(b"0x").removeprefix(b"0X").split())
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        raise DecodeError(f"no hex: {_find_hex_fault(digits)}") from None


def _find_hex_fault(digits: bytes) -> str:
    for number, digit in enumerate(digits, 1):
        if digit not in _HEX_DIGITS:
            return f"character {number} is {chr(digit)!r}"
    return f"an odd number of digits ({len(digits)})"


def _read_lines(file: str, take: Callable[[bytes], None]) -> int:
    """Every line that is not empty and no comment; a bad one is told and does not end it."""
    exit_code = Exit.OK
    with _open(file) as source:
        for number, line in enumerate(iter(lambda: source.readline(MAX_LINE_BYTES), b""), 1):
            stripped = line.strip()
            if not stripped or stripped.startswith(b"#"):
                continue
            try:
                take(stripped)
            except WireError as error:
                warn(f"line {number}: {error}")
                exit_code = Exit.DATA
    return exit_code


def _read_whole(file: str, take: Callable[[bytes], None]) -> int:
    with _open(file) as source:
        try:
            take(source.read(MAX_LINE_BYTES))
        except WireError as error:
            warn(str(error))
            return Exit.DATA
    return Exit.OK


@contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115 - closed below; only opening it is guarded
    except OSError as error:
        raise typer.BadParameter(
            f"cannot read {file}: {error.strerror or error}", param_hint="FILE"
        ) from None
    with source:
        yield source
