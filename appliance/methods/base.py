"""What a handler is given and what it gives back.

A method is one file in this package that holds a module-level `METHOD = Method(info=…, make=…)`. `make()` is called
once per subscriber (and again on a swap, before the new handler takes its first message); the handler it returns
is called once per message and must be safe to call concurrently.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import NodeName
from appliance.core.specs import SubscriberSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a handler made of a message.

    `output` becomes the reply (None: no reply; b"" is an empty reply, as REQPong's). `report` is a text for
    errorCentral (a command's exit status and stderr, say). `exit_status` rides on the reply for our own CLI.
    """

    output: bytes | None = None
    report: str | None = None
    exit_status: int | None = None


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
        """Append `data` durably; see `methods._files` for how a crash in the middle is made good.

        With `rotate_at_bytes` a file that would grow beyond it is moved aside first (one predecessor is kept).
        """
        ...

    async def write(self, parts: Sequence[str], data: bytes) -> None:
        """Replace the file's content atomically and durably."""
        ...


@dataclass(frozen=True, slots=True)
class FilePosition:
    """Where an append was going to write when it was interrupted.

    `path` is below the data directory and percent-encoded, so that any store can keep it as text.
    """

    path: str
    offset: int
    length: int


Intend = Callable[[FilePosition], Awaitable[None]]
"""Stores durably, with the message, where an append is about to write."""


class Console(Protocol):
    """The daemon's standard output."""

    def write(self, text: str) -> None:
        """Write text whose control characters are already escaped."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLine:
    """One worker as REQOpProcessList lists it."""

    number: int
    kind: str
    subject: str
    phase: str


class HelloSink(Protocol):
    """Told about every hello, so that presence shows in metrics and status."""

    def saw_hello(self, node: NodeName) -> None:
        """`node` is a declared node that said hello now."""
        ...


@dataclass(slots=True, kw_only=True)
class HandlerContext:
    """Everything a handler may touch. One per message.

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
    intend: Intend
    resume: FilePosition | None = None
    hidden_environment: frozenset[str] = frozenset()
    """Environment variables that hold secrets of the daemon's."""


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
