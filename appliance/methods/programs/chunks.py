"""What a program or a file says, in pieces that are worth a message each.

Whole lines go out, as many as are there at a time, up to `PIECE_BYTES`. A longer line is cut, and one that does not
end goes out after `SILENCE_S`: a prompt must not wait for its answer. Whoever fills a talk waits for room, so that a
listener who is slow or away slows the speaker down and costs no memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

PIECE_BYTES = 32 * 1024
HELD_BYTES = 4 * PIECE_BYTES
"""What may wait here before the speaker does."""
SILENCE_S = 0.2
GATHER_S = 0.01
"""How long a piece waits for company: a message costs two disks a commit."""
LAST_WORDS_S = 2.0
"""After the time is over: how long what was said before may still go out piece by piece."""

Say = Callable[[bytes, str], Awaitable[None]]
"""Sends one piece of a stream; waits while the listener is behind."""


class Piece(NamedTuple):
    """A part of what one stream said."""

    stream: str
    data: bytes


class Chunker:
    """Two streams become one row of pieces, in the order in which they were heard."""

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock if clock is not None else asyncio.get_running_loop().time
        self._said: deque[tuple[str, bytearray]] = deque()
        self._unfinished: dict[str, bytearray] = {}
        self._heard_mono: dict[str, float] = {}
        self._held = 0
        self._is_ended = False
        self._stirred = asyncio.Event()
        self._freed = asyncio.Event()
        self.on_room: list[Callable[[], None]] = []
        """Told when a piece was taken."""

    @property
    def room(self) -> int:
        """How many bytes may be added now."""
        return max(0, HELD_BYTES - self._held)

    @property
    def is_over(self) -> bool:
        """Whether nothing is here and nothing more will come."""
        return self._is_ended and not self._held

    def add(self, stream: str, data: bytes) -> None:
        """Something was said."""
        self._held += len(data)
        self._heard_mono[stream] = self._clock()
        unfinished = self._unfinished.setdefault(stream, bytearray())
        unfinished += data
        end = unfinished.rfind(b"\n") + 1
        if len(unfinished) - end >= PIECE_BYTES:
            end = len(unfinished)
        self._utter(stream, end)
        self._stirred.set()

    def end(self) -> None:
        """Nothing more will be said."""
        for stream in list(self._unfinished):
            self._utter(stream)
        self._is_ended = True
        self._stirred.set()

    def peek(self) -> Piece | None:
        """The next piece, which stays here until it is taken; None when nothing is ready."""
        if not self._said:
            return None
        stream, data = self._said[0]
        return Piece(stream, bytes(data[: _cut(data)]))

    def take(self, piece: Piece) -> None:
        """`piece` has gone out."""
        data = self._said[0][1]
        del data[: len(piece.data)]
        if not data:
            self._said.popleft()
        self._held -= len(piece.data)
        self._freed.set()
        for tell in self.on_room:
            tell()

    async def wait_room(self) -> None:
        """Until something may be added."""
        while not self.room:
            self._freed.clear()
            await self._freed.wait()

    async def wait(self) -> None:
        """Until a piece is ready, or the talk over."""
        while not self._said and not self.is_over:
            self._stirred.clear()
            due_mono = self._let_go_of_silent()
            if self._said:
                return
            try:
                async with asyncio.timeout_at(due_mono):
                    await self._stirred.wait()
            except TimeoutError:
                pass
        if not self._is_ended:
            await asyncio.sleep(GATHER_S)

    def rest(self) -> dict[str, bytes]:
        """All that has not gone out, by stream."""
        found: dict[str, bytes] = {}
        for stream, data in [*self._said, *self._unfinished.items()]:
            found[stream] = found.get(stream, b"") + bytes(data)
        return found

    def _let_go_of_silent(self) -> float | None:
        """Utter beginnings of lines that were not continued; when to look again."""
        now, due_mono = self._clock(), None
        for stream in list(self._unfinished):
            silent_at = self._heard_mono[stream] + SILENCE_S
            if silent_at <= now:
                self._utter(stream)
            elif due_mono is None or silent_at < due_mono:
                due_mono = silent_at
        return due_mono

    def _utter(self, stream: str, end: int | None = None) -> None:
        unfinished = self._unfinished[stream]
        said = unfinished[:end]
        del unfinished[:end]
        if not unfinished:
            del self._unfinished[stream]
        if not said:
            return
        if self._said and self._said[-1][0] == stream:
            self._said[-1][1].extend(said)
        else:
            self._said.append((stream, said))


def _cut(data: bytearray) -> int:
    """Where the first piece of `data` ends: behind a line if there is one, never within a character."""
    if len(data) <= PIECE_BYTES:
        return len(data)
    end = data.rfind(b"\n", 0, PIECE_BYTES) + 1
    if end:
        return end
    end = PIECE_BYTES
    while end > PIECE_BYTES - 4 and data[end] & 0xC0 == 0x80:
        end -= 1
    return end if data[end] & 0xC0 != 0x80 else PIECE_BYTES


async def run_talk(
    talk: Chunker,
    speaker: Awaitable[None],
    say: Say,
    *,
    timeout_s: float,
    stop: Callable[[], None] | None = None,
    stop_grace_s: float = 0.0,
    leaving: asyncio.Event | None = None,
) -> bool:
    """Send what `speaker` adds to `talk`, until it ends, its time is over or `leaving` is set; whether it was stopped.

    `stop` makes the speaker end within `stop_grace_s` (None: it is cancelled); what it said before may still go out for
    `LAST_WORDS_S`. What has not by then stays in the talk. What speaker or `say` raise is raised here, when both have ended.
    """
    speaking = asyncio.ensure_future(speaker)
    # however it ends: who sends must see that nothing more comes
    speaking.add_done_callback(lambda _: talk.end())
    sending = asyncio.create_task(_send_all(talk, say))
    left = None if leaving is None else asyncio.create_task(leaving.wait())
    is_stopped = False
    try:
        await asyncio.wait(
            {sending} if left is None else {sending, left},
            timeout=timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not sending.done():
            is_stopped = not speaking.done()
            if stop is None:
                speaking.cancel()
            else:
                stop()
                # woken by both: a listener who is away hears nothing more, however long it is waited
                await asyncio.wait(
                    {sending, speaking}, timeout=stop_grace_s, return_when=asyncio.FIRST_COMPLETED
                )
            # what was said before the end is worth more than an end on the second
            await asyncio.wait({sending}, timeout=LAST_WORDS_S)
    finally:
        tasks = [task for task in (speaking, sending, left) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in (speaking, sending):
        if not task.cancelled():
            task.result()
    return is_stopped


async def _send_all(talk: Chunker, say: Say) -> None:
    while True:
        await talk.wait()
        while (piece := talk.peek()) is not None:
            # taken only when it has gone out: what has not is part of the rest
            await say(piece.data, piece.stream)
            talk.take(piece)
        if talk.is_over:
            return
