"""What is told about jobs, written soon: whatever came until then in one write, in a task that runs while there is any."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from appliance.core.current import Current
from appliance.core.specs import JobSettings
from appliance.errors import StoreError
from appliance.jobs.records import Target
from appliance.outbox.job_file import JobFile, Statement

RETRY_S = 1.0
SLACK = 1.25
"""Output is cut back when it exceeds its bound by that much, not with every piece."""

_UPDATE_TARGET = "UPDATE target SET is_open = ?, kind = ?, state = ? WHERE key = ?"
_INSERT_PIECE = (
    "INSERT OR IGNORE INTO piece (job, target, source, stream, data) VALUES (?, ?, ?, ?, ?)"
)


class Piece(NamedTuple):
    """Something that a node said, until it is written."""

    target: Target
    source: str | None
    stream: str
    data: bytes


class JobWriter:
    """One for a ledger."""

    def __init__(self, file: JobFile, settings: Current[JobSettings]) -> None:
        self._file = file
        self._settings = settings
        self._changed: dict[Target, None] = {}
        self._pieces: list[Piece] = []
        self._orders: list[Statement] = []
        self._has_answers = self._is_writing_answers = False
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        """For what was told to be written."""
        self._watching: list[asyncio.Future[None]] = []
        """For anything to change."""

    @property
    def holds_answers(self) -> bool:
        """Whether there are answers that are not on disk yet."""
        return self._has_answers or self._is_writing_answers

    def change(self, target: Target) -> None:
        """What is known of a message has changed."""
        self._changed[target] = None
        self._stir()

    def forget(self, target: Target) -> None:
        """Nobody wants to know any more what it was changed to."""
        self._changed.pop(target, None)

    def add_answer(
        self, target: Target, source: str | None, pieces: Iterable[tuple[str, bytes]]
    ) -> None:
        """What a node said, by stream; the message that it answers has changed with it (`change`)."""
        self._has_answers = True
        for stream, data in pieces:
            if data:
                target.kept_bytes += len(data)
                target.job.size_bytes += len(data)
                name = None if source is None else f"{source} {stream}"
                self._pieces.append(Piece(target, name, stream, data))

    def order(self, text: str, values: Sequence[object]) -> None:
        """A statement of the caller's own, after what was told before it."""
        self._orders.append((text, values))
        self._stir()

    async def wait_for_change(self, timeout_s: float) -> None:
        """Until anything that was told is written, or the time is over."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watching.append(future)
        try:
            await asyncio.wait({future}, timeout=timeout_s)
        finally:
            if future in self._watching:
                self._watching.remove(future)

    async def written(self) -> None:
        """Until everything that was told so far is on disk, or turned out not to be possible."""
        if self._task is None or self._task.done():
            if not self._has_work:
                return
            self._stir()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    async def close(self) -> None:
        """Write what is left, and no more."""
        await self.written()
        if self._task is not None:
            self._task.cancel()

    @property
    def _has_work(self) -> bool:
        return bool(self._changed or self._pieces or self._orders)

    def _stir(self) -> None:
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._write(), name="write jobs")

    async def _write(self) -> None:
        while self._has_work or self._waiting:
            waiting, self._waiting = self._waiting, []
            self._is_writing_answers, self._has_answers = self._has_answers, False
            changed, self._changed = self._changed, {}
            pieces, self._pieces = self._pieces, []
            orders, self._orders = self._orders, []
            statements = [_update(target) for target in changed]
            statements += [_insert(piece) for piece in pieces] + orders
            is_failing = False
            try:
                await self._file.write(statements)
                await self._cut_back({piece.target for piece in pieces})
            except StoreError:
                # what came of it is written some day; what it said meanwhile is lost, and that is told with it
                is_failing = True
                self._changed = {**changed, **self._changed}
                self._orders = orders + self._orders
                for target, _, _, data in pieces:
                    target.state.forgotten_bytes += len(data)
                    target.kept_bytes -= len(data)
                    target.job.size_bytes -= len(data)
            self._is_writing_answers = False
            watching, self._watching = self._watching, []
            for future in waiting + watching:
                if not future.done():
                    future.set_result(None)
            if is_failing:
                await asyncio.sleep(RETRY_S)

    async def _cut_back(self, targets: Iterable[Target]) -> None:
        """Of a long output the end is kept."""
        limit = self._settings.value.max_output_bytes
        for target in targets:
            if target.kept_bytes <= limit * SLACK:
                continue
            rows = await self._file.read(
                "SELECT seq, length(data) FROM piece WHERE target = ? ORDER BY seq", (target.key,)
            )
            excess = sum(size for _, size in rows) - limit
            last, gone = 0, 0
            for seq, size in rows:
                if gone >= excess:
                    break
                last, gone = seq, gone + size
            target.kept_bytes -= gone
            target.job.size_bytes -= gone
            target.state.forgotten_bytes += gone
            await self._file.write(
                [
                    ("DELETE FROM piece WHERE target = ? AND seq <= ?", (target.key, last)),
                    _update(target),
                ]
            )


def _update(target: Target) -> Statement:
    state = msgspec.json.encode(target.state)
    return _UPDATE_TARGET, (target.is_open, str(target.kind), state, target.key)


def _insert(piece: Piece) -> Statement:
    target = piece.target
    return _INSERT_PIECE, (target.job.key, target.key, piece.source, piece.stream, piece.data)
