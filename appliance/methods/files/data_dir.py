"""The data directory as handlers see it: confined, durable, never blocking the event loop.

Each file in use has a lane, a FIFO of jobs worked off by one task. Appends that wait together
become one batch: one round of `Intend`, one write, one sync. That is where the speed comes from,
and it costs no promise: a caller is told only when its own bytes are durable. `methods.files.append`
says how a crash in the middle is made good.

A cancelled caller does not take back what its lane has begun; a position written for nobody is
remembered, so that the same message coming again within this process is not appended twice.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from types import TracebackType
from typing import TypeVar

from appliance.core.current import Current
from appliance.core.file_names import RESERVED_PREFIX, check_parts
from appliance.core.specs import FileSettings
from appliance.errors import FileFailed, PathForbidden
from appliance.methods.base import FilePosition, Intend
from appliance.methods.files.append import (
    SLOT_COUNT,
    AppendFiles,
    Candidate,
    Target,
    position_path,
)
from appliance.methods.files.confine import open_parent, replace_file
from appliance.methods.files.rotation import Rotation
from appliance.supervision import run_in_pool

_T = TypeVar("_T")
Parts = tuple[str, ...]

_BATCH_JOBS = 256
_BATCH_BYTES = 4 * 1024 * 1024
_REMEMBERED_ORPHANS = 4_096
_THREAD_COUNT = 4

PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS})
"""Errors that reach the caller as `OSError`:

they pass, and no message is to blame, so one waits and tries again.
"""


@dataclass(slots=True, eq=False)
class _Append:
    data: bytes
    resume: FilePosition | None
    intend: Intend
    rotate_at_bytes: int | None
    told: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Write:
    data: bytes
    told: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Lane:
    parts: Parts
    jobs: deque[_Append | _Write] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class DataFiles:
    """Implements `base.Files`. An async context manager; or `start` first and `close` last."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        settings: Current[FileSettings] | None = None,
    ) -> None:
        self._root = os.fspath(root)
        self._settings = settings if settings is not None else Current(FileSettings())
        self._files = AppendFiles(self._root)
        self._lanes: dict[Parts, _Lane] = {}
        self._orphans: OrderedDict[FilePosition, None] = OrderedDict()
        self._free_slots: asyncio.Queue[int] = asyncio.Queue()
        self._threads = ThreadPoolExecutor(_THREAD_COUNT, thread_name_prefix="files")

    async def start(self) -> None:
        """Make and open the directory, and undo what a crash left torn.

        Raises:
            FileFailed: the directory cannot be used.
        """
        try:
            await run_in_pool(self._threads, self._files.start)
        except OSError as error:
            await self.close()
            raise FileFailed(self._root, error.strerror or str(error)) from error
        for slot in range(SLOT_COUNT):
            self._free_slots.put_nowait(slot)

    async def close(self) -> None:
        """Wait until all that was begun is done, then let go of the directory."""
        while tasks := [lane.task for lane in self._lanes.values() if lane.task is not None]:
            await asyncio.wait(tasks)
        self._threads.shutdown(wait=True)  # idle by now
        self._files.close()

    async def __aenter__(self) -> DataFiles:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def append(
        self,
        parts: Sequence[str],
        data: bytes,
        *,
        resume: FilePosition | None,
        intend: Intend,
        rotate_at_bytes: int | None = None,
    ) -> None:
        """Append `data` durably, exactly once if a repeat after a crash brings its `resume`.

        Raises:
            PathForbidden: the path is not usable below the data directory.
            FileFailed: the system refused; nothing was appended.
            OSError: one of `PASSING`; nothing was appended.

        Cancellation: before the batch has begun nothing is appended; afterwards it is, although
        nobody is told.
        """
        told = asyncio.get_running_loop().create_future()
        await self._put(tuple(parts), _Append(data, resume, intend, rotate_at_bytes, told))

    async def write(self, parts: Sequence[str], data: bytes) -> None:
        """Replace the file's content atomically and durably. Fails and is cancelled as `append`."""
        told = asyncio.get_running_loop().create_future()
        await self._put(tuple(parts), _Write(data, told))

    async def _put(self, parts: Parts, job: _Append | _Write) -> None:
        check_parts(parts)
        lane = self._lanes.get(parts)
        if lane is None:
            lane = self._lanes[parts] = _Lane(parts)
            lane.jobs.append(job)
            lane.task = asyncio.get_running_loop().create_task(
                self._run(lane), name=f"files {position_path(parts)[-80:]}"
            )
        else:
            lane.jobs.append(job)
        await job.told

    async def _run(self, lane: _Lane) -> None:
        """Work off a lane until it is empty; it then ceases to exist."""
        jobs: list[_Append] | list[_Write] = []
        try:
            while lane.jobs:
                # as many batches at once as there are slots for notes about torn ones
                slot = await self._free_slots.get()
                try:
                    jobs = _take_jobs(lane)
                    await self._do(slot, lane.parts, jobs)
                finally:
                    self._free_slots.put_nowait(slot)
        finally:
            del self._lanes[lane.parts]
            for job in (*jobs, *lane.jobs):
                job.told.cancel()  # only after a cancellation is there anybody left to tell

    async def _do(self, slot: int, parts: Parts, jobs: list[_Append] | list[_Write]) -> None:
        try:
            for job in jobs:
                if isinstance(job, _Write):
                    await run_in_pool(self._threads, self._replace, parts, job.data)
                    _tell(job)
            appends = [job for job in jobs if isinstance(job, _Append)]
            if appends:
                await self._append_batch(slot, parts, appends)
        except Exception as error:  # noqa: BLE001 - becomes the callers' exception
            for job in jobs:
                _fail(job, _mapped(parts, error))

    def _replace(self, parts: Parts, data: bytes) -> None:
        directory_fd, name = open_parent(self._files.root_fd, parts)
        try:
            temporary = f"{RESERVED_PREFIX}{blake2b(name, digest_size=12).hexdigest()}".encode()
            replace_file(directory_fd, name, temporary, data)
        finally:
            os.close(directory_fd)

    async def _append_batch(self, slot: int, parts: Parts, jobs: list[_Append]) -> None:
        path = position_path(parts)
        for job in jobs:
            if job.resume is not None and job.resume in self._orphans:
                # appended although its caller was cut off: the repeat is told so, and nothing is written twice
                del self._orphans[job.resume]
                _tell(job)
        # repeats first and in file order: together they restore what a crash interrupted
        jobs = sorted((job for job in jobs if not job.told.done()), key=_place)
        if not jobs:
            return
        target = await run_in_pool(
            self._threads,
            self._files.open_target,
            parts,
            [Candidate(job.data, job.resume) for job in jobs],
            self._rotation(jobs),
        )
        try:
            waiting: list[_Append] = []
            for job, is_written in zip(jobs, target.written, strict=True):
                if is_written or not job.data:
                    _tell(job)
                else:
                    waiting.append(job)
            placed = await self._intend(slot, path, target, waiting)
            if placed:
                data = b"".join(job.data for job, _ in placed)
                await run_in_pool(self._threads, self._files.write_batch, slot, target, data)
            for job, position in placed:
                # nobody is there to note that it is done, so its repeat will come
                if not _tell(job):
                    self._remember_orphan(position)
        finally:
            target.close()

    async def _intend(
        self, slot: int, path: str, target: Target, jobs: list[_Append]
    ) -> list[tuple[_Append, FilePosition]]:
        """Give each job its place and have it stored; a job that cannot be stored is told so."""
        while jobs:
            placed: list[tuple[_Append, FilePosition]] = []
            offset = target.size_bytes
            for job in jobs:
                placed.append((job, FilePosition(path, offset, len(job.data), target.inode)))
                offset += len(job.data)
            # both before the first byte: after a crash either tells where the batch was to stand
            noted, *stored = await asyncio.gather(
                run_in_pool(
                    self._threads, self._files.note_batch, slot, target, offset - target.size_bytes
                ),
                *(job.intend(position) for job, position in placed if job.resume != position),
                return_exceptions=True,
            )
            if isinstance(noted, BaseException):
                raise noted
            intending = [job for job, position in placed if job.resume != position]
            failed = 0
            for job, outcome in zip(intending, stored, strict=True):
                if isinstance(outcome, BaseException):
                    failed += 1
                    _fail(job, outcome)
            if not failed:
                return placed
            jobs = [job for job in jobs if not job.told.done()]
        return []

    def _rotation(self, jobs: Sequence[_Append]) -> Rotation:
        bounds = [job.rotate_at_bytes for job in jobs if job.rotate_at_bytes is not None]
        # a log's own bound is for its own lines alone
        at_bytes = min(bounds) if len(bounds) == len(jobs) else None
        return Rotation.of(self._settings.value, at_bytes)

    def _remember_orphan(self, position: FilePosition) -> None:
        self._orphans[position] = None
        if len(self._orphans) > _REMEMBERED_ORPHANS:
            self._orphans.popitem(last=False)


def _take_jobs(lane: _Lane) -> list[_Append] | list[_Write]:
    """The next jobs to do together: one write, or appends up to the bounds of a batch."""
    appends: list[_Append] = []
    size_bytes = 0
    while lane.jobs:
        job = lane.jobs[0]
        if job.told.done():  # cancelled before it was begun
            lane.jobs.popleft()
        elif isinstance(job, _Write):
            if appends:
                break
            lane.jobs.popleft()
            return [job]
        else:
            if appends and (
                len(appends) >= _BATCH_JOBS or size_bytes + len(job.data) > _BATCH_BYTES
            ):
                break
            lane.jobs.popleft()
            appends.append(job)
            size_bytes += len(job.data)
    return appends


def _place(job: _Append) -> tuple[bool, int]:
    return (job.resume is None, 0 if job.resume is None else job.resume.offset)


def _tell(job: _Append | _Write) -> bool:
    """Whether there was still somebody to tell."""
    if job.told.done():
        return False
    job.told.set_result(None)
    return True


def _fail(job: _Append | _Write, error: BaseException) -> None:
    if job.told.done():
        return
    if isinstance(error, asyncio.CancelledError):
        job.told.cancel()
    else:
        job.told.set_exception(error)


def _mapped(parts: Parts, error: Exception) -> Exception:
    """An exception of its own for each caller."""
    if isinstance(error, OSError):
        if error.errno in PASSING:
            return OSError(error.errno, error.strerror, "/".join(parts))
        mapped = FileFailed("/".join(parts), error.strerror or str(error))
        mapped.__cause__ = error
        return mapped
    if isinstance(error, PathForbidden):
        return PathForbidden(str(error))
    return error
