"""Have a command run by the runner: a process with more rights, behind a unix socket, with an allow list of its own.

One connection is one command. The daemon sends what it wants; the runner decides, runs, and sends what the program
says and what became of it. Closing the connection ends the command. The environment of the program is the runner's,
with three variables of the message: who can set `LD_PRELOAD` needs no allow list.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from appliance.core.command_options import NO_OPTIONS, CommandOptions
from appliance.core.message import text_to_bytes
from appliance.errors import CommandForbidden, HandlerError
from appliance.methods.programs.child import STOP_GRACE_S
from appliance.methods.programs.chunks import Say
from appliance.methods.programs.command import CommandResult

MESSAGE_VARIABLES = ("APPLIANCE_MESSAGE_ID", "APPLIANCE_FROM_NODE", "STEWARD_DATA")
MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Arguments and data; Linux itself takes some 2 MiB."""
MAX_ARGUMENTS = 10_000
MAX_VARIABLES = 16
MAX_GIVEN_VARIABLES = 64
LONGEST_TIMEOUT_S = 1e9
"""Beyond it the number is no time: infinite, or none at all."""
MAX_ANSWER_BYTES = 192 * 1024 * 1024
"""Twice what `max_output_bytes` may be, with room."""
CONNECT_TIMEOUT_S = 5.0
PATIENCE_S = 10.0
"""How much later than the command's own end the runner's word of it may come."""

_LENGTH = struct.Struct(">I")


class RunRequest(msgspec.Struct, frozen=True, tag="run"):
    """A command. `max_output_bytes` None: pass on what it says while it runs."""

    argv: Annotated[list[bytes], msgspec.Meta(min_length=1, max_length=MAX_ARGUMENTS)]
    environment: Annotated[dict[str, Any], msgspec.Meta(max_length=MAX_VARIABLES)]
    """Texts; what is not UTF-8 is bytes, which a runner of an earlier version refuses."""
    timeout_s: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_TIMEOUT_S)]
    max_output_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stdin: bytes = b""
    stop_grace_s: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_TIMEOUT_S)] = STOP_GRACE_S


class RunWithRequest(RunRequest, frozen=True, tag="run with"):
    """A command with what a runner of an earlier version would run it without; that one refuses it by its tag."""

    user: str = ""
    directory: bytes = b""
    variables: Annotated[dict[str, bytes], msgspec.Meta(max_length=MAX_GIVEN_VARIABLES)] = (
        msgspec.field(default_factory=dict)
    )
    """Beside those of the message."""


class Said(msgspec.Struct, frozen=True, tag="said"):
    """A piece of what it wrote."""

    stream: str
    data: bytes


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """What became of it; the fields of `CommandResult`."""

    exit_status: int
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False
    truncated: bool = False
    stderr_tail: bytes = b""
    ends_line: bool = True
    start_error: str | None = None
    is_held: bool = False
    signal: int | None = None


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It was not run. `because` is `forbidden` where the allow list does not cover it."""

    because: Literal["forbidden", "failed"]
    reason: str


Answer = Said | Ended | Refused
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_requests: msgspec.msgpack.Decoder[RunRequest | RunWithRequest] = msgspec.msgpack.Decoder(
    RunRequest | RunWithRequest
)


def to_frame(value: RunRequest | Answer) -> bytes:
    """As it goes over the socket: four bytes of length, then MessagePack."""
    body = msgspec.msgpack.encode(value)
    return _LENGTH.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader, limit_bytes: int) -> bytes:
    """The next body.

    Raises:
        EOFError: the other side is gone.
        ValueError: it is larger than allowed.
    """
    (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if size > limit_bytes:
        raise ValueError(f"a frame of {size} bytes exceeds the limit of {limit_bytes} bytes")
    return await reader.readexactly(size)


def read_request(body: bytes) -> RunRequest:
    """A request. Raises ValueError when it is none."""
    request = _requests.decode(body)
    for name, value in request.environment.items():
        # one kind of text alone is what the decoder can tell from others
        if not isinstance(value, str | bytes):
            raise ValueError(f"variable {name[:60]!r} is no text")
    return request


async def run_remote(
    socket_path: str,
    argv: Sequence[bytes],
    *,
    environment: Mapping[str, str],
    timeout_s: float,
    max_output_bytes: int | None = None,
    say: Say | None = None,
    stdin: bytes = b"",
    stop_grace_s: float = STOP_GRACE_S,
    options: CommandOptions = NO_OPTIONS,
) -> CommandResult:
    """Run `argv` by the runner at `socket_path`, as `run_command`, or with `say` as `stream_command` would.

    Raises:
        CommandForbidden: the runner's allow list does not cover it.
        HandlerError: the runner cannot be reached, is busy, or broke off.

    Cancellation: the connection is closed, and by that the command ended.
    """
    request = RunRequest(
        argv=list(argv),
        # no more than the runner takes: the rest of our environment is nobody's business
        environment={
            name: _as_carried(environment[name])
            for name in MESSAGE_VARIABLES
            if name in environment
        },
        timeout_s=timeout_s,
        max_output_bytes=None if say is not None else max_output_bytes,
        stdin=stdin,
        stop_grace_s=stop_grace_s,
    )
    # an earlier runner reads no stdin where it passes on what a program says
    if options._replace(has_stdin=False) != NO_OPTIONS or (stdin and say is not None):
        request = RunWithRequest(
            **msgspec.structs.asdict(request),
            user=options.user,
            directory=text_to_bytes(options.directory),
            variables={name: text_to_bytes(text) for name, text in options.variables.items()},
        )
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(socket_path)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "it does not answer"
        raise HandlerError(f"the runner at {socket_path} cannot be reached: {reason}") from error
    try:
        writer.write(to_frame(request))
        async for answer in _Answers(reader, socket_path, timeout_s + stop_grace_s + PATIENCE_S):
            match answer:
                case Said(stream=stream, data=data):
                    if say is not None:
                        await say(data, stream)
                case Refused(because="forbidden", reason=reason):
                    raise CommandForbidden(f"the runner at {socket_path} forbids it: {reason}")
                case Refused(reason=reason):
                    raise HandlerError(f"the runner at {socket_path} refused: {reason}")
                case Ended():
                    return CommandResult(**msgspec.structs.asdict(answer))
        raise HandlerError(f"the runner at {socket_path} broke off")
    finally:
        writer.close()


def _as_carried(value: str) -> str | bytes:
    raw = text_to_bytes(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class _Answers:
    """What the runner says, until it ends."""

    def __init__(self, reader: asyncio.StreamReader, path: str, silence_s: float) -> None:
        self._reader = reader
        self._path = path
        self._silence_s = silence_s

    def __aiter__(self) -> _Answers:
        return self

    async def __anext__(self) -> Answer:
        try:
            async with asyncio.timeout(self._silence_s):
                return _answers.decode(await read_frame(self._reader, MAX_ANSWER_BYTES))
        except (EOFError, OSError) as error:
            raise StopAsyncIteration from error
        except (ValueError, TimeoutError) as error:
            reason = str(error) or "it said nothing for too long"
            raise HandlerError(f"the runner at {self._path} failed: {reason}") from error
