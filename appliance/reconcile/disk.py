"""Reading the config from a file system that may hang: NFS, FUSE, a disk that is dying.

A call that hangs cannot be ended, only left alone. So every call has a thread of its own that nobody waits for at the
end of the process, a bound after which its caller goes on without it, and while one hangs no other is begun.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from appliance.config.revision import Revision
from appliance.errors import ConfigUnreadable
from appliance.reconcile.reload_result import LoadedSet
from appliance.reconcile.source import FileConfigSource

T = TypeVar("T")

READ_TIMEOUT_S = 10.0
"""Reading all files of the largest config takes a second."""
LOAD_TIMEOUT_S = 120.0
"""Compiling a hundred thousand subscriptions takes five, on a small machine ten times that."""


async def call_in_thread(function: Callable[..., T], *args: object) -> T:
    """As `asyncio.to_thread`, in a thread that holds up neither other calls nor the end of the process.

    Cancellation: the thread goes on, and what it finds is thrown away.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        result, caught = None, None
        try:
            result = function(*args)
        except BaseException as error:  # noqa: BLE001 - the boundary: the thread hands everything on
            caught = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result, caught)

    threading.Thread(target=run, name="config files", daemon=True).start()
    return await future


class _OtherPaths:
    """Sets that somebody asks about, wherever they lie."""

    def __init__(self, source: FileConfigSource) -> None:
        self._source = source
        self._loading: asyncio.Task[LoadedSet] | None = None

    async def load(self, paths: Sequence[str]) -> LoadedSet:
        """See `SourceReader.load_from`."""
        named = ", ".join(paths)
        if self._loading is not None and not self._loading.done():
            raise ConfigUnreadable(named, "other paths are being read; ask again later")
        task = self._loading = asyncio.ensure_future(call_in_thread(self._source.load_from, paths))
        task.add_done_callback(_forget)
        # NB: shielded by `wait`: who asked may go, and the thread goes on all the same
        done, _ = await asyncio.wait({task}, timeout=LOAD_TIMEOUT_S)
        if not done:
            raise ConfigUnreadable(named, "the file system does not answer")
        return task.result()

    def close(self) -> None:
        """Leave alone what hangs."""
        if self._loading is not None:
            self._loading.cancel()


def _forget(task: asyncio.Task[LoadedSet]) -> None:
    if not task.cancelled():
        task.exception()  # whoever asked has it, or has gone


class SourceReader:
    """A config source, asked without waiting for it for ever."""

    def __init__(self, source: FileConfigSource, path: str = "") -> None:
        self._source = source
        self._path = path
        self._hanging: set[asyncio.Task[Any]] = set()
        self._asking = 0
        self._others = _OtherPaths(source)

    @property
    def is_asking(self) -> bool:
        """Whether somebody waits for an answer of the file system."""
        return self._asking > 0

    async def fingerprint(self) -> str:
        """Digest of the content as it is now; "" when it cannot be read."""
        return await self._ask_or(self._source.fingerprint, "")

    async def revision(self, known: Revision | None) -> Revision | None:
        """The commit that the files stand at; the one that is known while that cannot be told."""
        return await self._ask_or(self._source.revision, known)

    async def signers(self, known: str) -> str:
        """Digest of what tells who may sign, beside the config; the one that is known while that cannot be told."""
        return await self._ask_or(self._source.signers, known)

    async def texts(self) -> dict[str, str]:
        """The files as they are now; empty when they cannot be read."""
        return await self._ask_or(self._source.texts, {})

    async def load(self) -> LoadedSet:
        """Read, check and compile. Raises ConfigInvalid, ConfigUnreadable, RunNodesUnclear."""
        return await self._ask(self._source.load, timeout_s=LOAD_TIMEOUT_S)

    async def load_from(self, paths: Sequence[str]) -> LoadedSet:
        """Read, check and compile other paths, those of one caller at a time.

        Raises:
            ConfigInvalid, ConfigUnreadable, RunNodesUnclear.
        """
        # apart from the own ones: where others hang, nothing is wrong with these
        return await self._others.load(paths)

    async def load_given(
        self, files: Mapping[str, bytes], digest: str, variables: Collection[str] | None
    ) -> LoadedSet:
        """Check and compile texts that a caller sent; reads no config file. Raises ConfigInvalid, RunNodesUnclear."""
        return await call_in_thread(self._source.load_given, files, digest, variables)

    async def load_kept(
        self, files: Mapping[str, str], digest: str, revision: Revision | None
    ) -> LoadedSet:
        """Check and compile a set that the history kept; reads no config file. Raises ConfigInvalid, RunNodesUnclear."""
        return await call_in_thread(self._source.load_kept, files, digest, revision)

    async def _ask_or(self, function: Callable[..., T], otherwise: T) -> T:
        try:
            return await self._ask(function, timeout_s=READ_TIMEOUT_S)
        except Exception:  # noqa: BLE001 - whatever it is, the load that follows meets it again, and tells it
            return otherwise

    async def _ask(self, function: Callable[..., T], *, timeout_s: float) -> T:
        # another call would hang on the same disk, and leave another thread behind
        if self._hanging:
            raise self._no_answer()
        task = asyncio.ensure_future(call_in_thread(function))
        self._asking += 1
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout_s)
        except BaseException:
            # the thread goes on; what it finds is thrown away
            task.cancel()
            raise
        finally:
            self._asking -= 1
        if not done:
            self._hanging.add(task)
            task.add_done_callback(self._came_back)
            raise self._no_answer()
        return task.result()

    def _came_back(self, task: asyncio.Task[Any]) -> None:
        self._hanging.discard(task)
        if not task.cancelled():
            task.exception()  # what it says is old by now

    def _no_answer(self) -> ConfigUnreadable:
        return ConfigUnreadable(self._path, "the file system does not answer")

    async def close(self) -> None:
        """Leave alone what hangs."""
        self._others.close()
        for task in tuple(self._hanging):
            task.cancel()
        if self._hanging:
            await asyncio.wait(self._hanging)
