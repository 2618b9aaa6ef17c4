"""What a handler is given and what it gives back.

A method is one file in this package that holds a module-level `METHOD = Method(info=…, make=…)`. `make()` is called
once per subscriber (and again on a swap, before the new handler takes its first message); the handler it returns
is called once per message and must be safe to call concurrently.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.core.copying import NO_ATTRIBUTES, Attributes, Piece
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import NodeName
from appliance.core.specs import SubscriberSpec
from appliance.dialect.headers import Ending
from appliance.methods.programs.running import NO_PROGRAM, ProgramKey, RunningPrograms


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a handler made of a message.

    `output` becomes the reply (None: no reply; b"" is an empty reply, as REQPong's). `report` is a text for
    errorCentral (a command's exit status and stderr, say). `exit_status` and `stderr` ride on the reply for
    appliances, which know from the status that the answer is complete. `messages` are sent in the same commit that
    marks this message as handled: a crash neither loses nor doubles them.

    After partial replies an empty `output` goes to appliances only: to a Go node it would say nothing.
    """

    output: bytes | None = None
    report: str | None = None
    exit_status: int | None = None
    stderr: bytes = b""
    is_truncated: bool = False
    """Whether a part of the output was thrown away; told to appliances beside the status."""
    ending: Ending | None = None
    """How a program ended beside its status; told to appliances likewise."""
    messages: tuple[Outgoing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message that a handler sends. `message.from_node` is set to the own node, the id is given by the outbox.

    `headers` are ours (``appl-…``); Go nodes ignore them. `expires_s` None means as the publisher's settings say.
    With `keeps_dead` off a message that `Outlet.deliver` failed to deliver is forgotten and is no dead letter: the
    handler tells what came of it. With `in_name_of` the body names that node as its sender: a Go node answers to it.
    `not_understood` is what to say where it is for appliances alone and another node took it, which has not done it then.
    """

    message: Message
    headers: Mapping[str, str] | None = None
    expires_s: float | None = None
    keeps_dead: bool = True
    in_name_of: str = ""
    not_understood: str = ""


class Outlet(Protocol):
    """How a handler speaks while it works. Everything said is in the outbox, on disk, when a call returns."""

    async def reply(self, data: bytes, *, stream: str = "stdout", place: str = "") -> None:
        """A piece of the answer. Pieces of one message arrive in order, one at a time; the last is the `Result`.

        `place` tells where it ends, where another request may go on behind it.

        Waits while the outbox is nearly full, so a program that talks too much is slowed down and not lost.

        Raises:
            HandlerError: the answer cannot be sent at all (unknown reply method, bad destination).
            AnswerUnwanted: nobody waits for it any more, as when a pipe's reader has gone; let it pass.
        """
        ...

    async def progress(self, done_bytes: int, total_bytes: int) -> None:
        """Tell an appliance that asked how far long work is; at most about once a second, silently dropped else."""
        ...

    async def deliver(self, outgoing: Outgoing) -> bool:
        """Send a message and wait until it is acknowledged; whether by an appliance that has finished its work.

        Several may run at once; they are sent in the order of the calls. Cancellation leaves it in the outbox, unless
        `keeps_dead` is off.

        Raises:
            HandlerError: it cannot be sent, was refused by its receiver, dropped or became a dead letter; the text
                says why.
            AnswerUnwanted: the receiver took it and wants no more of the kind; let it pass.
        """
        ...


DONE = Result()
"""Handled; nothing to say."""


class Files(Protocol):
    """The data directory; every path is confined to it whatever the names in a message say."""

    async def append(
        self,
        parts: Sequence[str],
        data: bytes,
        *,
        resume: FilePosition | None,
        intend: Intend,
        rotate_at_bytes: int | None = None,
    ) -> None:
        """Append `data` durably; see `methods.files.data_dir` for how a crash in the middle is made good.

        With `rotate_at_bytes` a file that would grow beyond it is moved aside first (one predecessor is kept).
        """
        ...

    async def write(self, parts: Sequence[str], data: bytes) -> None:
        """Replace the file's content atomically and durably."""
        ...


_INODE_MARK = "?"
"""Stands in no percent-encoded path."""


@dataclass(frozen=True, slots=True)
class FilePosition:
    """Where an append was going to write when it was interrupted.

    `path` is below the data directory and percent-encoded, so that any store can keep it as text. `inode` tells the file
    from another that has its name later; 0 where that is not known.
    """

    path: str
    offset: int
    length: int
    inode: int = 0

    def to_note(self) -> str:
        """As it is stored with the message. What read three values still does: to it the path is that of another file."""
        path = f"{self.path}{_INODE_MARK}{self.inode}" if self.inode else self.path
        return json.dumps([path, self.offset, self.length])

    @classmethod
    def from_note(cls, note: str) -> FilePosition:
        """What `to_note` gave, of this version or one before."""
        path, offset, length = json.loads(note)
        path, _, inode = path.partition(_INODE_MARK)
        return cls(path, offset, length, int(inode or 0))


Intend = Callable[[FilePosition], Awaitable[None]]
"""Stores durably, with the message, where an append is about to write."""


class Console(Protocol):
    """The daemon's standard output, and its standard error."""

    def write(self, text: str, *, to_stderr: bool = False) -> None:
        """Write text whose control characters are already escaped."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLine:
    """One worker as REQOpProcessList lists it."""

    number: int
    kind: str
    subject: str
    phase: str


class WorkerSwitch(Protocol):
    """Starts and stops workers beside the config, until the next reload. On disk when a call returns."""

    async def start(self, node: NodeName, method: str, *, by: str) -> str:
        """Start a subscriber of `node`; the words for the one who asked. Raises HandlerError."""
        ...

    async def stop(self, node: NodeName, method: str, at_node: str, kind: str, *, by: str) -> str:
        """Stop a worker of `node`; the words for the one who asked. Raises HandlerError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRights:
    """What a subscriber may write: `allow_paths` and `max_file_bytes` of its spec at this moment.

    `makes_directories` is the asker's wish: missing ones are made, where `allow_paths` has them, too.
    """

    allow_paths: tuple[str, ...] | None
    max_bytes: int
    makes_directories: bool = True
    attributes: Attributes = NO_ATTRIBUTES
    """Likewise: what the file has beside its content."""
    within: str = ""
    """Likewise: missing directories are made below this one, where it is there. Empty: wherever that is."""


class FileTaker(Protocol):
    """Takes files that peers copy to this daemon: whole, or in pieces that may come again and in any order."""

    async def take_file(
        self, path: str, data: bytes, sha256: str | None, sender: str, rights: WriteRights
    ) -> None:
        """Replace the file at `path` atomically and durably.

        Raises:
            HandlerError: forbidden, or the system refuses; the old file is as it was.
        """
        ...

    async def take_piece(
        self, path: str, data: bytes, piece: Piece, sender: str, rights: WriteRights
    ) -> None:
        """Keep a piece durably; with the last one the whole is checked and replaces the file at `path`.

        Raises:
            HandlerError: as with `take_file`.
            AnswerUnwanted: nobody here waits for this file any more.
        """
        ...

    async def forget(self, path: str, piece: Piece, sender: str, rights: WriteRights) -> None:
        """The sender has given up: remove what has come of this transfer.

        Raises:
            HandlerError: as with `take_file`.
        """
        ...


class HelloSink(Protocol):
    """Told about every hello, so that presence shows in metrics and status."""

    def saw_hello(self, node: NodeName, report: str | None) -> None:
        """`node`, declared or not, said hello now; `report` is what it says of its config, as it came."""
        ...


def _is_none(_node: str) -> bool:
    return False


async def _call_off_nothing(_key: ProgramKey) -> None:
    """For handlers that are tried alone."""


@dataclass(slots=True, kw_only=True)
class HandlerContext:
    """Everything a handler may touch. One per message, made by `workers.executor` when it is first looked at.

    `spec` is the subscriber's spec at this moment, so that live changes hold for the next message.
    `timeout_s` is the time this message has (its own methodTimeout, else the spec's). `now` is wall-clock seconds.
    `resume` is set when a durable handler runs again after a crash.
    """

    node: NodeName
    spec: SubscriberSpec
    timeout_s: float
    now: float
    files: Files
    console: Console
    hellos: HelloSink
    list_workers: Callable[[], Sequence[WorkerLine]]
    switch: WorkerSwitch
    intend: Intend
    outlet: Outlet
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that the message came with."""
    asker_is_appliance: bool = False
    """Whether the sender is an appliance (it says so by its ``appl-id``) and not a Go node."""
    signer: str = ""
    """The node that is proved to have sent the message; "" where nothing proves it."""
    is_known_appliance: Callable[[str], bool] = _is_none
    """Whether a node has ever said that it is one."""
    files_taker: FileTaker | None = None
    """Where copied files go; None where a daemon takes none."""
    max_payload_bytes: int = 1_048_576
    """What the broker takes in one message."""
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the subscriber begins to drain: what has no end of its own should come to one."""
    resume: FilePosition | None = None
    hidden_environment: frozenset[str] = frozenset()
    """Environment variables that hold secrets of the daemon's."""
    programs: RunningPrograms = field(default_factory=RunningPrograms)
    """What runs here, of all messages."""
    program_key: ProgramKey = NO_PROGRAM
    """What a program that this message starts is known by."""
    call_off: Callable[[ProgramKey], Awaitable[None]] = _call_off_nothing
    """Has a message of this subject not begin any more, whatever restarts meanwhile."""


class Handler(Protocol):
    """Performs a method."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Perform `message`.

        Raises:
            HandlerError: refused or failed; the text goes to the error log and to senders of ours.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method: its facts and a factory for its handler."""

    info: MethodInfo
    make: Callable[[], Handler]
    orders: Mapping[str, Callable[[], Handler]] = field(default_factory=dict)
    """Words about what it has started, by method, with what obeys them: they come on its own subject."""
    renew: Callable[[SubscriberSpec], Method] | None = None
    """Makes the method of another spec where the spec itself defines what is done; asked on a swap."""
    module: str = ""
    """Where another process finds it, filled in by `registry`."""
