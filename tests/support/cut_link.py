"""A TCP link between a client and a server of ours, cut and mended at will, as a cable would be.

with CutLink(server.port) as link:
    await connect(f"nats://127.0.0.1:{link.port}")
    link.hold()     # open, and nothing passes: what a dead radio looks like
    link.swallow()  # dark: what comes from either side is gone, a farewell included, and neither side learns of it
    link.cut()      # every connection is reset, new ones are refused
    link.mend()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from types import TracebackType

_BLOCK_BYTES = 65_536


class CutLink:
    """Runs in a thread of its own; every method may be called from any other."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self.bytes_per_s: float | None = None
        """How fast it is each way; None: as fast as it goes."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cut link")
        self._server: asyncio.Server | None = None
        self._passes = asyncio.Event()
        self._swallows = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.passed_bytes = 0
        """What went either way so far."""
        self.cuts = 0

    def hold(self) -> None:
        """Let nothing pass; the connections stay."""
        self._call(self._set_passing(False))

    def swallow(self) -> None:
        """Lose whatever is sent from now on, either way, until `mend`.

        A side that closes its connection is not heard of at the other. After `mend`, a connection that lost anything is
        reset by the first byte that either side sends on it, as a peer that knows nothing of it would do.
        """
        self._call(self._set_swallowing(True))

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self.cuts += 1
        self._call(self._cut())

    def mend(self) -> None:
        """Take connections again."""
        self._call(self._mend())

    def __enter__(self) -> CutLink:
        self._thread.start()
        self.mend()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _set_passing(self, passes: bool) -> None:
        if passes:
            self._passes.set()
        else:
            self._passes.clear()

    async def _set_swallowing(self, swallows: bool) -> None:
        self._swallows = swallows

    async def _mend(self) -> None:
        self._swallows = False
        self._passes.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_writer: asyncio.StreamWriter | None = None
        try:
            if self._swallows:
                while await reader.read(_BLOCK_BYTES):
                    pass  # who calls in the dark is never answered
                raise _Ended
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            loss = _Loss()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, far_writer, loss))
                group.create_task(self._pass(far_reader, writer, loss))
        except (OSError, _Ended, ExceptionGroup, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in (writer, far_writer):
                if one is not None:
                    _reset(one)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loss: _Loss
    ) -> None:
        while block := await reader.read(_BLOCK_BYTES):
            await self._passes.wait()
            if self._swallows:
                loss.has_happened = True
                continue
            if loss.has_happened:
                raise _Ended
            if self.bytes_per_s is not None:
                await asyncio.sleep(len(block) / self.bytes_per_s)
            writer.write(block)
            await writer.drain()
            self.passed_bytes += len(block)
        if not self._swallows:
            raise _Ended
        loss.has_happened = True  # the other side sends on, and learns of it once that passes again


class _Loss:
    """Of one connection, both ways."""

    def __init__(self) -> None:
        self.has_happened = False


class _Ended(Exception):
    """One side has closed."""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close without a farewell: what was on the way is lost."""
    with contextlib.suppress(OSError):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
