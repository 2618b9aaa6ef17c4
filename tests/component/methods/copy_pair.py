"""A node that copies, `ship1`, and one that takes, `central`: handlers on both sides, and real frames between them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.core.copying import COPY_FROM, PIECE_HEADER, Copied, read_copied, read_piece
from appliance.errors import HandlerError
from appliance.methods.base import FilePosition, Outgoing
from appliance.methods.copies import sender as _copy_sender
from appliance.wire.frame import decode_frame, encode_frame

if TYPE_CHECKING:
    from tests.component.methods.conftest import Bench

Hook = Callable[[str, int | None], Awaitable[None]]


class CopyPair:
    """`sender` and `receiver` are benches; files of the one are below `here`, of the other below `there`."""

    def __init__(self, sender: Bench, receiver: Bench, here: Path, there: Path) -> None:
        self.sender, self.receiver = sender, receiver
        self.here, self.there = here, there
        self.encoding = ("cbor", "none")
        self.taken: list[tuple[str, int | None]] = []
        """Methods and offsets, as they were acknowledged."""
        self.in_flight = 0
        self.most_in_flight = 0
        self.before: Hook | None = None
        """Called with method and offset of what has come; what it raises is what the sender hears."""
        sender.on_deliver = self.deliver
        sender.spec_fields["allow_paths"] = (f"{here}/**",)
        receiver.spec_fields["allow_paths"] = (f"{there}/**",)

    async def copy(
        self,
        source: Path | str,
        target: str | None = None,
        *more: str,
        resume: FilePosition | None = None,
    ) -> Copied | None:
        """Have a file copied, to `there / "copied"` unless told otherwise; what the answer says."""
        arguments = (str(source), "central", target or f"{self.there}/copied", *more)
        result = await self.sender.handle(COPY_FROM, method_args=arguments, resume=resume)
        assert result.exit_status == 0
        return read_copied((result.output or b"").decode("utf-8", "surrogateescape"))

    async def deliver(self, outgoing: Outgoing) -> bool:
        """What the outbox, the broker and a subscriber do: encode, decode, handle, acknowledge."""
        payload, headers = encode_frame(outgoing.message, *self.encoding)
        assert len(payload) < self.sender.max_payload_bytes
        message = decode_frame(payload, headers)
        text = (outgoing.headers or {}).get(PIECE_HEADER)
        offset = read_piece(text).offset if text else None
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.before is not None:
                await self.before(message.method, offset)
            self.receiver.headers = dict(outgoing.headers or {})
            await self.receiver.perform(message)
        except HandlerError as error:
            if str(error).startswith("expired"):
                raise
            raise HandlerError(f"refused: {error}") from error
        finally:
            self.in_flight -= 1
        self.taken.append((message.method, offset))
        return True

    async def break_off(self, source: Path, at_offset: int) -> FilePosition:
        """Copy until the piece at an offset comes, then end the sender as a stop of its daemon does; its last mark."""
        reached = asyncio.Event()

        async def stall(_method: str, offset: int | None) -> None:
            if (offset or 0) >= at_offset:
                reached.set()
                await asyncio.Event().wait()

        self.before = stall
        task = asyncio.create_task(self.copy(source))
        async with asyncio.timeout(60):
            await reached.wait()
            await self.sender.until(lambda: self.in_flight == _copy_sender.WINDOW)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.before = None
        self.sender.delivered.clear()
        return self.sender.positions[-1]

    @property
    def offsets(self) -> list[int]:
        """Where the pieces that were sent begin."""
        headers = [outgoing.headers or {} for outgoing in self.sender.delivered]
        return [read_piece(found[PIECE_HEADER]).offset for found in headers]

    @property
    def parts(self) -> list[Path]:
        """Files that are not finished."""
        return [path for path in self.there.rglob("*") if ".appl-part-" in path.name]


def write_random(path: Path, size: int, seed: int = 1) -> bytes:
    """A file that no compression makes smaller; its content."""
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return data
