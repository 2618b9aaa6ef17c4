"""Sends a file to a node: whole where it fits one message, else in pieces, a few of them in flight.

The first piece goes alone and has only `wait_s`: nobody but an appliance takes pieces, and whether one is there should
be known soon. Once it was taken, links may be down and nodes may start again: pieces wait for up to `STALL_S`. The last
piece goes when all others are acknowledged, since it makes the receiver check the whole. How large pieces are, and how
long an acknowledgement is waited for, follows from how long they took (`_copy_pace`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol

from appliance.core.copying import (
    BEGIN_AGAIN,
    COPY_CHUNK,
    COPY_TO,
    HASH_DIFFERS,
    MAX_WHOLE_BYTES,
    NOBODY_TOOK,
    PIECE_BYTES,
    PIECE_HEADER,
    SHA256_HEADER,
    Copied,
    Piece,
    name_transfer,
    needs_appliance,
    pack_piece,
    write_piece,
)
from appliance.core.delivery import DeliveryState, WaitReason, why_of_reason
from appliance.core.message import CALLER_FILE, Message, bytes_to_text, text_to_bytes
from appliance.core.retry import NO_BROKER, NOBODY_THERE
from appliance.errors import AnswerUnwanted, HandlerError
from appliance.methods.base import Outgoing
from appliance.methods.copies.source import SourceFile
from appliance.methods.texts import shorten

# How large the next piece of a file is, and how long its acknowledgement may take: as earlier ones went. Pure.
#
# A window of pieces is in flight, so what one takes is mostly the time that those before it take on the line. On a thin
# one pieces become small: then the first acknowledgement comes soon, progress is seen, a break costs little, and
# nothing is sent again only because it is not there yet.

FIRST_PIECE_BYTES = 32 * 1024
MIN_PIECE_BYTES = 4 * 1024
QUICK_S = 0.5
SLOW_S = 4.0
MIN_ACK_TIMEOUT_S = 5
MAX_ACK_TIMEOUT_S = 120
_WHOLE_BYTES_PER_S = 20_000
"""What a line is expected to do for a file that goes in one message, of which nothing is known beforehand."""


class Pace:
    """Of one copy; pieces have at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slowest_s = 0.0
        self.length = min(FIRST_PIECE_BYTES, most)
        """Of the next piece."""

    def note(self, seconds: float) -> None:
        """An acknowledgement came after that long."""
        self._slowest_s = max(seconds, self._slowest_s * 0.7)
        if seconds < QUICK_S:
            self.length = min(self.length * 2, self._most)
        elif seconds > SLOW_S:
            self.length = max(self.length // 2, min(MIN_PIECE_BYTES, self._most))

    @property
    def ack_timeout_s(self) -> int:
        """How long to wait for the next one before the piece is sent again."""
        return max(MIN_ACK_TIMEOUT_S, min(MAX_ACK_TIMEOUT_S, math.ceil(4 * self._slowest_s)))


def whole_timeout_s(size: int) -> int:
    """How long the acknowledgement of a file in one message may take."""
    return MIN_ACK_TIMEOUT_S + size // _WHOLE_BYTES_PER_S


WINDOW = 4
STALL_S = 900.0
TELL_EVERY_S = 2.0
MARK_EVERY_BYTES = 4 * 1024 * 1024
MARK_EVERY_S = 10.0
LEAST_ROOM_BYTES = 1_024
MAX_BEGINNINGS = 3
TAKE_BACK_S = 10.0
_ENVELOPE_BYTES = 2_048
"""What a message holds beside its texts, in either serialization, with the headers."""
_RETRIES = 100_000


class Line(Protocol):
    """How pieces leave and how far they are; a part of `base.Outlet`."""

    async def deliver(self, outgoing: Outgoing) -> bool:
        """See `base.Outlet`."""
        ...

    async def progress(self, done_bytes: int, total_bytes: int) -> None:
        """See `base.Outlet`."""
        ...


class Mark(NamedTuple):
    """Up to where a transfer is acknowledged without a gap."""

    transfer: str
    offset: int
    size: int


async def _no_mark(_mark: Mark) -> None:
    return


class Reached:
    """How far the pieces of a beginning are: what is acknowledged, and up to where that is marked."""

    def __init__(self, begin: int, mono: Callable[[], float]) -> None:
        self._mono = mono
        self._acked: dict[int, int] = {}
        """Beyond a gap: lengths by their offsets."""
        self.done_to = self._marked_to = begin
        """Up to where there is no gap."""
        self._marked_mono = mono()

    def add(self, offset: int, length: int) -> None:
        """A piece was acknowledged."""
        self._acked[offset] = length
        while (length := self._acked.pop(self.done_to, 0)) > 0:
            self.done_to += length

    @property
    def done_bytes(self) -> int:
        """What is acknowledged, gaps or not."""
        return self.done_to + sum(self._acked.values())

    def is_mark_due(self) -> bool:
        """Whether it is worth a mark now, which is then taken for made."""
        new, now = self.done_to - self._marked_to, self._mono()
        if new >= MARK_EVERY_BYTES or (new > 0 and now - self._marked_mono >= MARK_EVERY_S):
            self._marked_to, self._marked_mono = self.done_to, now
            return True
        return False


class CopySender:
    """One copy. `base` is the message that it comes from: what is sent is a copy of that, as in the seed."""

    def __init__(
        self,
        source: SourceFile,
        base: Message,
        *,
        node: str,
        to_node: str,
        path: str,
        line: Line,
        max_payload_bytes: int,
        wait_s: float,
        resume: Mark | None = None,
        mark: Callable[[Mark], Awaitable[None]] = _no_mark,
        in_name_of: str = "",
    ) -> None:
        self._source = source
        self._node = node
        self._to_node = to_node
        self._path = path
        self._line = line
        self._wait_s = wait_s
        self._resume = resume
        self._mark = mark
        self._in_name_of = in_name_of
        """Whom a Go node that takes the whole file tells so; "" for this node."""
        directory, _, name = path.rpartition("/")
        self._message = base._replace(
            to_node=to_node,
            from_node=node,
            directory=directory or ("/" if path.startswith("/") else "."),
            file_name=name,
            data=None,
            previous_message=None,
            is_reply=False,
        )
        self._room_bytes = max_payload_bytes - _ENVELOPE_BYTES - _text_bytes(self._message)
        self._pace = Pace(max(1, min(PIECE_BYTES, self._room_bytes // 4 * 3)))  # as base64
        self._mono = asyncio.get_running_loop().time
        self._reached = Reached(0, self._mono)
        self._begun: Piece | None = None
        """What the receiver has a part of, or may have."""

    async def send(self) -> Copied:
        """Copy; returns when the receiver has the file.

        Raises:
            HandlerError: it has not, for the reason given.
        """
        # small enough for one message, which a Go node takes as well
        content = await self._source.read_all(min(MAX_WHOLE_BYTES, self._room_bytes))
        if content is not None and self._resume is None:
            return await self._send_whole(content)
        if self._room_bytes < LEAST_ROOM_BYTES:
            raise HandlerError("the broker takes no messages large enough for a file")
        return await self._send_in_pieces()

    async def take_back(self) -> None:
        """Tell the receiver, if it has taken a part, that no more comes; it is told once and not for long."""
        if self._begun is None:
            return
        outgoing = Outgoing(
            message=self._message._replace(method=COPY_CHUNK, data=("",)),
            headers={PIECE_HEADER: write_piece(self._begun)},
            expires_s=TAKE_BACK_S,
            keeps_dead=False,
        )
        with contextlib.suppress(HandlerError, TimeoutError):
            async with asyncio.timeout(TAKE_BACK_S):
                await self._line.deliver(outgoing)

    # -- whole ------------------------------------------------------------------------------------

    async def _send_whole(self, content: bytes) -> Copied:
        if self._in_name_of and self._in_name_of != self._node:
            try:
                return await self._send_whole_as(content, self._in_name_of)
            except HandlerError as error:
                if not str(error.__cause__).startswith(f"{DeliveryState.REFUSED}:"):
                    raise
            # by an appliance, for nobody else refuses: it takes files of this node perhaps, and asks for no answer
        return await self._send_whole_as(content, "")

    async def _send_whole_as(self, content: bytes, in_name_of: str) -> Copied:
        size, sha256 = len(content), hashlib.sha256(content).hexdigest()
        message = self._message._replace(method=COPY_TO, data=(bytes_to_text(content),))
        if not in_name_of:
            # what a Go node answers comes here, where nobody waits for it: it is taken, and filed nowhere
            message = message._replace(file_name=CALLER_FILE)
        outgoing = Outgoing(
            message=message._replace(ack_timeout_s=whole_timeout_s(size)),
            headers={SHA256_HEADER: sha256},
            expires_s=self._wait_s,
            keeps_dead=False,
            in_name_of=in_name_of,
            not_understood=_NOT_UNDERSTOOD
            if needs_appliance(self._message.method_args or ())
            else "",
        )
        del content, message
        delivery = asyncio.create_task(
            self._line.deliver(outgoing), name=f"file for {self._to_node}"
        )
        try:
            while not (await asyncio.wait({delivery}, timeout=TELL_EVERY_S))[0]:
                await self._line.progress(0, size)
            return Copied(size, sha256, delivery.result())
        except HandlerError as error:
            raise self._explain(error, _WHY_ABSENT) from error
        finally:
            await _end({delivery})

    # -- pieces -----------------------------------------------------------------------------------

    async def _send_in_pieces(self) -> Copied:
        source, resume = self._source, self._resume
        if resume is not None:
            if source.size < resume.size:
                raise source.changed()
            source.size = resume.size  # what was appended since is not a part of it
        sha256 = await source.hash(lambda: self._line.progress(0, source.size))
        transfer = name_transfer(
            node=self._node,
            source=source.path,
            target=f"{self._to_node}:{self._path}",
            size=source.size,
            sha256=sha256,
        )
        # the content names the transfer: what was taken of another content must not be gone on with
        if resume is not None and resume.transfer != transfer:
            raise source.changed()
        begin = resume.offset if resume is not None and resume.offset < source.size else 0
        for _ in range(MAX_BEGINNINGS):
            try:
                await self._send_pieces(Piece(transfer, 0, source.size, sha256), begin)
            except HandlerError as error:
                # the receiver has lost what it had (its part was swept, or its disk was full): from the beginning
                if BEGIN_AGAIN not in str(error):
                    if NOBODY_TOOK not in str(error) and not isinstance(error, AnswerUnwanted):
                        # it need not keep for a day what will not be completed
                        await self.take_back()
                    raise
                begin = 0
            else:
                return Copied(source.size, sha256, True)
        raise HandlerError(f"{self._to_node} loses what it has taken of {shorten(self._path)}")

    async def _send_pieces(self, whole: Piece, begin: int) -> None:
        """All pieces from `begin` on: the first alone, a window of them, the last alone."""
        offset, reached = begin, Reached(begin, self._mono)
        self._reached = reached
        # a receiver that has taken nothing yet may be no appliance at all, so one piece asks first
        is_known = self._resume is not None or begin > 0
        waiting: set[asyncio.Task[None]] = set()
        try:
            while (length := self._pace.length) < whole.size - offset or waiting:
                window = WINDOW if is_known else 1
                while len(waiting) < window and length < whole.size - offset:
                    waiting.add(self._start(whole, offset, length, is_known))
                    offset += length
                    length = self._pace.length
                await self._check(await self._wait(waiting, whole.size), waiting)
                is_known = is_known or reached.done_to > begin
                if reached.is_mark_due():
                    await self._mark(Mark(whole.id, reached.done_to, whole.size))
        finally:
            await _end(waiting)
        # alone: the one that completes the file must find all others taken
        last = self._start(whole, offset, whole.size - offset, is_known)
        await self._follow({last}, whole.size)

    def _start(self, whole: Piece, offset: int, length: int, is_known: bool) -> asyncio.Task[None]:
        return asyncio.create_task(
            self._send_piece(whole, offset, length, is_known), name=f"piece {offset}"
        )

    async def _send_piece(self, whole: Piece, offset: int, length: int, is_known: bool) -> None:
        data = await self._source.read(offset, length)
        message = self._message._replace(
            method=COPY_CHUNK,
            data=(pack_piece(data),),
            ack_timeout_s=self._pace.ack_timeout_s,
            retries=_RETRIES,
        )
        del data
        outgoing = Outgoing(
            message=message,
            headers={PIECE_HEADER: write_piece(whole._replace(offset=offset))},
            expires_s=max(self._wait_s, STALL_S) if is_known else self._wait_s,
            keeps_dead=False,
        )
        began_mono = self._mono()
        # who is cancelled now cannot know whether the receiver gets it
        begun_before, self._begun = self._begun, whole
        try:
            await self._line.deliver(outgoing)
        except HandlerError as error:
            self._begun = begun_before
            raise self._explain(error, _WHY_SILENT if is_known else _WHY_NO_PIECES) from error
        self._pace.note(self._mono() - began_mono)
        self._reached.add(offset, length)

    async def _follow(self, waiting: set[asyncio.Task[None]], total: int) -> None:
        """Wait for all of these, telling how far it is."""
        try:
            while waiting:
                await self._check(await self._wait(waiting, total), waiting)
        finally:
            await _end(waiting)

    async def _check(self, done: set[asyncio.Task[None]], waiting: set[asyncio.Task[None]]) -> None:
        """Raise the first failure; what was sent with it is about to fail as well, and may do so in peace."""
        failures = [error for task in done if (error := task.exception()) is not None]
        if not failures:
            return
        if waiting:
            await asyncio.wait(waiting, timeout=TELL_EVERY_S)
        raise failures[0]

    async def _wait(self, waiting: set[asyncio.Task[None]], total: int) -> set[asyncio.Task[None]]:
        """Those that have ended, taken out of `waiting`; empty when it took long and the asker was told so."""
        done, _ = await asyncio.wait(
            waiting, timeout=TELL_EVERY_S, return_when=asyncio.FIRST_COMPLETED
        )
        waiting -= done
        await self._line.progress(self._reached.done_bytes, total)
        return done

    def _explain(self, error: HandlerError, why: str) -> HandlerError:
        if isinstance(error, AnswerUnwanted):
            return error
        reason = str(error)
        ended = reason.partition(":")[0]
        if ended in (DeliveryState.REFUSED, DeliveryState.FAILED):
            if HASH_DIFFERS in reason:
                return HandlerError(f"{self._source.changed()}, or on the way ({HASH_DIFFERS})")
            said = "refused it" if ended == DeliveryState.REFUSED else "could not take it"
            return HandlerError(f"{self._to_node} {said}: {why_of_reason(reason)}")
        if "expired" not in reason and "no acknowledgement" not in reason:
            return HandlerError(f"{self._to_node}: {reason}")
        _, is_denied, words = reason.partition(f": {WaitReason.DENIED}: ")
        if is_denied:
            why = f"{WaitReason.DENIED}: {words}"
        elif reason.endswith(NO_BROKER):
            why = NO_BROKER
        elif not reason.endswith(NOBODY_THERE):
            why = f"no acknowledgement came; {why}"
        where = f"{shorten(self._path)} at {self._to_node}"
        return HandlerError(f"{NOBODY_TOOK} {where} in time: {why}")


_WHY_ABSENT = f"the node is away, or does not subscribe {COPY_TO}"
_WHY_NO_PIECES = (
    f"the node is away, does not subscribe {COPY_TO}, or is no appliance, which files larger than"
    f" {MAX_WHOLE_BYTES} bytes need"
)
_NOT_UNDERSTOOD = (
    "the node does not say that it is an appliance, and others, as Go nodes, know no mode, owner or time of change of a"
    " copy, nor which directories may be made: nothing was written"
)
_WHY_SILENT = "the node took a part and is silent since"


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """None of them goes on: they read a file that is about to be closed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _text_bytes(message: Message) -> int:
    texts: list[str] = [field for field in message if isinstance(field, str)]
    for field in message:
        if isinstance(field, tuple) and not isinstance(field, Message):
            texts += field
    return sum(len(text_to_bytes(text)) + 10 for text in texts)
