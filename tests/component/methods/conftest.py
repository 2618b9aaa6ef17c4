"""What the handler tests share: a data directory of their own and a context that records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.core.copying import PIECE_BYTES
from appliance.core.message import Message
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import SubscriberSpec
from appliance.errors import HandlerError
from appliance.methods.base import (
    FilePosition,
    FileTaker,
    HandlerContext,
    Outgoing,
    Result,
    WorkerLine,
)
from appliance.methods.copies import sender as _copy_pace
from appliance.methods.copies.receiver import CopyTaker
from appliance.methods.files.data_dir import DataFiles
from appliance.methods.registry import METHODS
from tests.component.methods.copy_pair import CopyPair
from tests.support.waiting import turns, until_async

NOW = 1_700_000_000.0


@dataclass
class Bench:
    """Handlers with everything they need; what they do to the world is in the fields."""

    files: DataFiles
    root: Path
    shown: list[str] = field(default_factory=list)
    shown_on_stderr: list[str] = field(default_factory=list)
    hellos: list[str] = field(default_factory=list)
    reports: list[str | None] = field(default_factory=list)
    positions: list[FilePosition] = field(default_factory=list)
    workers: list[WorkerLine] = field(default_factory=list)
    timeout_s: float = 10.0
    spec_fields: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    asker_is_appliance: bool = True
    replies: list[tuple[str, bytes]] = field(default_factory=list)
    """Partial replies: stream and data."""
    steps: list[tuple[int, int]] = field(default_factory=list)
    """Progress as it was told."""
    delivered: list[Outgoing] = field(default_factory=list)
    deliver_error: str | None = None
    on_deliver: Callable[[Outgoing], Awaitable[bool]] | None = None
    files_taker: FileTaker | None = None
    max_payload_bytes: int = 1_048_576
    switched: list[tuple[str, ...]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """Where each piece ended, in words of the method's own."""
    on_reply: Callable[[], None] = field(default=lambda: None)
    listener: asyncio.Event | None = None
    """Set while somebody takes partial replies; None: always."""
    reply_error: str | None = None
    leaving: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, text: str, *, to_stderr: bool = False) -> None:
        (self.shown_on_stderr if to_stderr else self.shown).append(text)

    def saw_hello(self, node: NodeName, report: str | None) -> None:
        self.hellos.append(node)
        self.reports.append(report)

    async def intend(self, position: FilePosition) -> None:
        self.positions.append(position)

    async def reply(self, data: bytes, *, stream: str = "stdout", place: str = "") -> None:
        if self.reply_error is not None:
            raise HandlerError(self.reply_error)
        if self.listener is not None:
            await self.listener.wait()
        self.replies.append((stream, data))
        self.places.append(place)
        self.on_reply()

    def said(self, stream: str | None = None) -> bytes:
        """What partial replies said in all, or on one stream."""
        return b"".join(data for name, data in self.replies if stream in (None, name))

    async def until(self, condition: Callable[[], object]) -> None:
        """Look again and again until it holds: the world outside gives no event."""
        await until_async(condition)

    async def progress(self, done_bytes: int, total_bytes: int) -> None:
        self.steps.append((done_bytes, total_bytes))

    async def start(self, node: str, method: str, *, by: str) -> str:
        self.switched.append(("start", node, method, by))
        return f"{method} started"

    async def stop(self, node: str, method: str, at_node: str, kind: str, *, by: str) -> str:
        self.switched.append(("stop", node, method, at_node, kind, by))
        return f"{method} stopped"

    async def deliver(self, outgoing: Outgoing) -> bool:
        if self.deliver_error is not None:
            raise HandlerError(self.deliver_error)
        self.delivered.append(outgoing)
        return True if self.on_deliver is None else await self.on_deliver(outgoing)

    def context(self, method: str, resume: FilePosition | None = None) -> HandlerContext:
        spec = SubscriberSpec(
            node=NodeName("ship1"),
            subject=Subject(f"ship1.{method}.EventACK"),
            method=MethodName(method),
            wants_ack=True,
            **self.spec_fields,
        )
        return HandlerContext(
            node=NodeName("ship1"),
            spec=spec,
            timeout_s=self.timeout_s,
            now=NOW,
            files=self.files,
            console=self,
            hellos=self,
            list_workers=lambda: self.workers,
            switch=self,
            intend=self.intend,
            outlet=self,
            headers=self.headers,
            asker_is_appliance=self.asker_is_appliance,
            files_taker=self.files_taker,
            max_payload_bytes=self.max_payload_bytes,
            leaving=self.leaving,
            resume=resume,
        )

    async def handle(
        self, method: str, resume: FilePosition | None = None, **fields: Any
    ) -> Result:
        """Have the method's handler perform a message from central to ship1 with these fields."""
        fields = {"to_node": "ship1", "from_node": "central", "id": 7, **fields}
        return await self.perform(Message(method=method, **fields), resume)

    async def perform(self, message: Message, resume: FilePosition | None = None) -> Result:
        """Have the handler of its method perform a message."""
        handler = METHODS[MethodName(message.method)].make()
        return await handler.handle(message, self.context(message.method, resume))

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def list_files(self) -> list[str]:
        """Every file in the data directory, without our own bookkeeping."""
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_file() and ".appliance-appending" not in path.parts
        )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    root = tmp_path / "data"
    async with DataFiles(root) as files:
        yield Bench(files, root)


@pytest.fixture
async def pair(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[CopyPair]:
    """A node that copies and the one that takes, with the wire between them; all pieces but the last are of one size."""
    monkeypatch.setattr(_copy_pace, "FIRST_PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(_copy_pace, "SLOW_S", 3_600.0)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    taker = CopyTaker(tmp_path / "notes", now=time.time)
    other = Bench(bench.files, bench.root, files_taker=taker)
    yield CopyPair(bench, other, here, there)
    await taker.close()


@pytest.fixture
async def loop_tick() -> Callable[[], Any]:
    """Let everything that is ready on the loop run."""

    async def tick() -> None:
        await turns(20)

    return tick
