"""Copies for callers of the API: what they bring is sent by this daemon, what nodes send for them is kept until fetched."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from appliance.api import model
from appliance.api.requests import EncodedData, JobToBegin, SubmitRequest, carried
from appliance.api.submission import accepts, describe_unknown, describe_unsubscribed
from appliance.core.copying import (
    COPY_FROM,
    COPY_TO,
    SPOOL_WORD,
    Attributes,
    Copied,
    TargetPlace,
    describe_copied,
    find_attribute_problem,
    join_target,
)
from appliance.core.current import Current
from appliance.core.delivery import DeliveryState
from appliance.core.hidden import Hiding
from appliance.core.message import Message, text_to_bytes
from appliance.core.names import MethodName, NodeName, is_node_name
from appliance.core.outcome import Outcome
from appliance.core.specs import DesiredState, SubscriberSpec
from appliance.errors import (
    HandlerError,
    JobCancelled,
    RequestInvalid,
    StoreError,
)
from appliance.jobs.ledger import JobLedger, NewMessage
from appliance.jobs.records import JobFacts, TargetFacts, TargetState
from appliance.methods.base import Outgoing
from appliance.methods.copies.receiver import measure_room
from appliance.methods.copies.sender import TELL_EVERY_S, CopySender
from appliance.methods.copies.source import HeldSource, SourceFile
from appliance.methods.copies.spool import CopySpool, SpoolEntry
from appliance.outbox.texts import plain_text
from appliance.workers.reply_writer import Delivering
from appliance.workers.services import WorkerServices

_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC

MAX_SENDING = 16
"""Files of callers that are sent at once; each has some pieces in memory. Others wait their turn."""

MAX_HELD_BYTES = 128 * 1024
"""What is larger is brought to a file here first."""
MAX_WORDS = 256
"""Of a command line, as they are shown."""

ChooseSender = Callable[[str | None, str, str], NodeName]


class CopyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A copy to begin: `from_node` sends a file that the caller fetches, or `to_node` gets one at `path`."""

    from_node: str | None = None
    to_node: str | None = None
    path: str | EncodedData | None = None
    name: str | EncodedData = ""
    """What the file is called at the caller's, for texts."""
    make_directories: bool = False
    """Whether missing directories of `path` are made."""
    within: str | EncodedData | None = None
    """Of these only those below this directory."""
    mode: int | None = None
    owner: str = ""
    modified_ns: int | None = None
    kept_owner: str = ""
    """What the file has there beside its content; without these as the node has it."""
    node: str | None = None
    """The own node that takes part."""
    content: EncodedData | None = None
    """A small file as a whole, which is sent at once: then the answer is what comes of it."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request means: the own `node`, the `other` one, and where a file goes there."""

    node: NodeName
    other: str
    target: TargetPlace
    name: str
    note: str | None = None
    """What looks like a slip."""
    hint: str | None = None
    """What may be the reason if nothing comes of it."""


class CopyJobs:
    """Copies under way, each known by its token. What cannot be done is raised as an `ApplianceError`."""

    def __init__(
        self,
        spool: CopySpool,
        services: WorkerServices,
        *,
        desired: Current[DesiredState],
        choose_sender: ChooseSender,
        ledger: JobLedger,
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._services = services
        self._desired = desired
        self._choose_sender = choose_sender
        self._running: dict[int, asyncio.Task[Copied]] = {}
        """By the number that the ledger knows them by."""
        self._called_off: dict[int, str] = {}
        """Of these the ones that an operator ended, and the words for it."""
        self._endings: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(MAX_SENDING)

    async def close(self) -> None:
        """End what is still to be told to other nodes."""
        for task in self._endings:
            task.cancel()
        await asyncio.gather(*self._endings, return_exceptions=True)

    def begin(self, request: CopyRequest) -> model.CopyBegun:
        """Make a token; the own node and the word that the other node is given as the path.

        Raises:
            RequestInvalid: no such node, or the file could not come; the text says what to add to the config.
        """
        asked = self._read(request)
        entry = self._spool.add(asked.node, asked.other, target=asked.target, name=asked.name)
        return model.CopyBegun(
            token=entry.token, node=asked.node, path=entry.word, note=asked.note, hint=asked.hint
        )

    def _read(self, request: CopyRequest) -> _Asked:
        other = request.from_node or request.to_node or ""
        if not is_node_name(other):
            raise RequestInvalid(f"{other[:60]!r} is no node name")
        path = carried(request.path or "")
        method = MethodName(COPY_FROM if request.from_node is not None else COPY_TO)
        node = self._choose_sender(request.node, other, method)
        if request.from_node is not None:
            self._check_can_come(node, other)
        elif not path.startswith("/"):
            raise RequestInvalid("the path at the other node begins with a slash")
        attributes = Attributes(
            request.mode, request.owner, request.modified_ns, request.kept_owner
        )
        problem = find_attribute_problem(attributes)
        if problem is not None:
            raise RequestInvalid(problem)
        return _Asked(
            node=node,
            other=other,
            target=TargetPlace(
                path, request.make_directories, attributes, carried(request.within or "")
            ),
            name=carried(request.name) or "a file",
            note=describe_unknown(self._desired.value, other),
            hint=describe_unsubscribed(self._desired.value, other, method),
        )

    def _check_can_come(self, node: NodeName, other: str) -> None:
        desired = self._desired.value
        specs = [
            spec
            for spec in desired.workers.values()
            if isinstance(spec, SubscriberSpec) and (spec.node, spec.method) == (node, COPY_TO)
        ]
        if not specs:
            raise RequestInvalid(
                f"no file could come back: {node} does not subscribe {COPY_TO}; add"
                f" `{COPY_TO}: {{accept_from: [{other}]}}` to nodes.{node}.subscribe"
                " (it needs no allow_paths for this)"
            )
        unknown = describe_unknown(desired, other)
        if unknown is not None and not accepts(specs[0], other, desired):
            raise RequestInvalid(f"no file could come back: {unknown}; add it to `nodes`")
        if not accepts(specs[0], other, desired):
            raise RequestInvalid(
                f"no file could come back: {COPY_TO} of {node} takes nothing from {other};"
                f" add {other} to its accept_from"
            )

    async def store(self, token: str, size: int, blocks: AsyncIterator[bytes]) -> str:
        """Keep what the caller brings; its SHA-256."""
        entry = self._entry(token)
        if not entry.is_outgoing:
            raise RequestInvalid("this copy comes from a node: nothing is brought for it")
        if entry.users or entry.arrived.is_set():
            raise RequestInvalid("its content is here already, or on its way")
        entry.users += 1
        has_all = False
        try:
            file_fd = await asyncio.to_thread(_open_new, entry.path, size)
            try:
                hasher = hashlib.sha256()
                left = size
                async for block in blocks:
                    left -= len(block)
                    await asyncio.to_thread(_append, file_fd, block, hasher)
            finally:
                os.close(file_fd)
            if left:
                raise RequestInvalid(f"{left} bytes of the content are missing")
            has_all = True
        except OSError as error:
            raise RequestInvalid(
                f"cannot keep the file in the state directory: {(error.strerror or str(error)).lower()}"
            ) from error
        finally:
            entry.users -= 1
            if not has_all:
                # whoever brings it has gone, or begins anew: half a file keeps no room
                self._spool.remove(token)
        entry.sha256 = hasher.hexdigest()
        entry.arrived.set()
        return entry.sha256

    async def begin_job(self, asked: JobToBegin, by: str, hiding: Hiding) -> model.JobBegun:
        """A job for several files that are copied by one command.

        Raises:
            StoreError: nothing is kept of it.
        """
        id_ = self._ledger.new_id()
        args = [plain_text(hiding.text(carried(word))) for word in asked.args[:MAX_WORDS]]
        facts = JobFacts(command="cp", by=by, node=asked.from_node or "", args=args)
        facts.files = asked.files
        await self._ledger.begin(id_, facts, [])
        return model.JobBegun(id=id_, takes_content=MAX_HELD_BYTES)

    def call_off(self, number: int, by: str) -> bool:
        """End a copy that this daemon brings to a node; whether it was under way."""
        task = self._running.get(number)
        if task is None:
            return False
        self._called_off[number] = f"cancelled by {by or 'an operator'}"
        return task.cancel()

    async def send(
        self, token: str, wait_s: float, by: str = "", into: str = ""
    ) -> AsyncGenerator[model.CopyLine, None]:
        """Send what was brought, as part of the job `into` if any; how far it is, and at last what came of it."""
        entry = self._entry(token)
        if not entry.is_outgoing or not entry.arrived.is_set():
            raise RequestInvalid("nothing was brought to be sent")
        # its file must not be swept while it is sent
        entry.users += 1
        try:
            source = await SourceFile.open(str(entry.path), None, None)
            source.path = entry.name  # what the caller calls it
            source.sha256 = entry.sha256
            asked = _Asked(NodeName(entry.node), entry.other, entry.target, entry.name)
            async with contextlib.aclosing(self._bring(asked, source, wait_s, by, into)) as lines:
                async for line in lines:
                    yield line
        except (GeneratorExit, asyncio.CancelledError):
            # whoever brought the file died before it was told: nobody will say that it can go
            self._spool.remove(token)
            raise
        finally:
            entry.users -= 1

    async def send_whole(
        self, request: CopyRequest, wait_s: float, by: str = "", into: str = ""
    ) -> AsyncGenerator[model.CopyLine, None]:
        """Send a small file that came with the request; the same lines, and one before them of what looks like a slip."""
        asked = self._read(request)
        data = b"" if request.content is None else text_to_bytes(carried(request.content))
        if request.to_node is None or len(data) > MAX_HELD_BYTES:
            raise RequestInvalid(f"content goes to a node, up to {MAX_HELD_BYTES} bytes of it")
        yield model.CopyLine(event="begun", note=asked.note, hint=asked.hint)
        source = HeldSource(data, asked.name)
        async with contextlib.aclosing(self._bring(asked, source, wait_s, by, into)) as lines:
            async for line in lines:
                yield line

    async def _bring(
        self, entry: _Asked, source: SourceFile, wait_s: float, by: str, into: str
    ) -> AsyncGenerator[model.CopyLine, None]:
        with contextlib.closing(source):
            lines_of = self._bring_open(entry, source, wait_s, by, into)
            async with contextlib.aclosing(lines_of) as lines:
                async for line in lines:
                    yield line

    async def _bring_open(
        self, entry: _Asked, source: SourceFile, wait_s: float, by: str, into: str
    ) -> AsyncGenerator[model.CopyLine, None]:
        line = _Line(entry.node, self._services, source.size)
        kept = await self._begin_job(entry, by, into)
        sending = self._send(entry, source, line, wait_s)
        job = asyncio.create_task(sending, name=f"copy to {entry.other}")
        self._running[kept] = job
        job.add_done_callback(lambda ended: self._end_job(kept, ended))
        job.add_done_callback(lambda _: line.changed.set())
        try:
            yield line.facts()
            while not job.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TELL_EVERY_S):
                        await line.changed.wait()
                line.changed.clear()
                yield line.facts()
            if job.cancelled() and (why := self._called_off.get(kept)):
                raise HandlerError(why)
            copied = job.result()
            text = describe_copied(entry.name, f"{entry.other}:{entry.target.path}", copied)
            yield model.CopyLine(event="copied", text=text, **copied._asdict())
        finally:
            # the stream was closed: nobody waits for this copy any more
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            self._running.pop(kept, None)
            self._called_off.pop(kept, None)

    async def _begin_job(self, entry: _Asked, by: str, into: str) -> int:
        """Keep that a file is brought to a node; by which number its end is told.

        Raises:
            JobCancelled: nothing more is to be copied for that job.
        """
        kept = self._ledger.jobs.get(into) if into else None
        if kept is not None and kept.is_cancelled:
            raise JobCancelled(kept.id)
        number = self._services.store.next_id()
        facts = JobFacts(
            command="cp",
            by=by,
            node=entry.node,
            method=COPY_TO,
            args=[plain_text(entry.name), plain_text(f"{entry.other}:{entry.target.path}")],
        )
        file = "" if kept is None else plain_text(entry.name)
        where = TargetFacts(to=entry.other, node=entry.node, file=file)
        message = NewMessage(number, where, TargetState(outcome=Outcome()))
        # a copy is worth more than what is kept of it
        with contextlib.suppress(StoreError):
            if kept is None:
                await self._ledger.begin(self._ledger.new_id(), facts, [message])
            else:
                await self._ledger.extend(kept, facts, [message])
        return number

    def _end_job(self, number: int, ended: asyncio.Task[Copied]) -> None:
        if ended.cancelled():
            why = self._called_off.get(number, "interrupted")
            self._ledger.concluded(number, f"failed: {why}")
        elif (error := ended.exception()) is not None:
            self._ledger.concluded(number, f"failed: {error}")
        else:
            is_told = ended.result().is_confirmed
            state = DeliveryState.DONE if is_told else DeliveryState.TAKEN
            self._ledger.concluded(number, None, state=state)

    async def _send(self, entry: _Asked, source: SourceFile, line: _Line, wait_s: float) -> Copied:
        sender = CopySender(
            source,
            Message(
                method=COPY_FROM,
                method_args=(entry.name, entry.other, *join_target(entry.target)),
            ),
            node=entry.node,
            to_node=entry.other,
            path=entry.target.path,
            line=line,
            max_payload_bytes=self._services.bus.max_payload,
            wait_s=wait_s,
        )
        try:
            # a bounded number at once: each holds pieces in memory here
            async with self._turns:
                return await sender.send()
        except asyncio.CancelledError:
            # the caller has gone; the other node need not keep for a day what it has taken
            ending = asyncio.create_task(sender.take_back(), name=f"take back from {entry.other}")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            raise

    async def wait_for(self, token: str, wait_s: float) -> SpoolEntry | None:
        """The file of a token once it is there; None when it is not yet."""
        entry = self._entry(token)
        if not entry.arrived.is_set():
            try:
                async with asyncio.timeout(wait_s):
                    await entry.arrived.wait()
            except TimeoutError:
                return None
        return entry

    def give_up(self, requests: Sequence[SubmitRequest]) -> None:
        """Whoever asked for these and waited has gone: files that were to come for him are for nobody."""
        for request in requests:
            words = list(map(carried, request.method_args or ()))
            if request.method == COPY_FROM and len(words) > 2 and words[2].startswith(SPOOL_WORD):
                self._spool.remove(words[2].removeprefix(SPOOL_WORD))

    def end(self, token: str) -> bool:
        """Forget a token and its file."""
        return self._spool.remove(token)

    def _entry(self, token: str) -> SpoolEntry:
        entry = self._spool.find(token)
        if entry is None:
            raise RequestInvalid("no such copy")
        return entry


class _Line:
    """Sends pieces in the name of a node, and keeps how far it is for the one who asks."""

    def __init__(self, node: NodeName, services: WorkerServices, total_bytes: int) -> None:
        self._delivering = Delivering(node, services)
        self._progress = (0, total_bytes)
        self.changed = asyncio.Event()

    async def deliver(self, outgoing: Outgoing) -> bool:
        return await self._delivering.deliver(outgoing)

    async def progress(self, done_bytes: int, total_bytes: int) -> None:
        self._progress = (done_bytes, total_bytes)
        self.changed.set()

    def facts(self) -> model.CopyLine:
        return model.CopyLine(event="progress", progress=self._progress)


def _open_new(path: Path, size: int) -> int:
    free, kept = measure_room(os.statvfs(path.parent))
    if size and size + kept > free:
        raise RequestInvalid(f"no room for {size} bytes in the state directory: {free} are free")
    return os.open(path, _WRITE_FLAGS, 0o600)


def _append(file_fd: int, block: bytes, hasher: Any) -> None:
    if block.strip(b"\0"):
        view = memoryview(block)
        while view:
            view = view[os.write(file_fd, view) :]
    else:
        # a hole stays one
        os.ftruncate(file_fd, os.lseek(file_fd, len(block), os.SEEK_CUR))
    hasher.update(block)
