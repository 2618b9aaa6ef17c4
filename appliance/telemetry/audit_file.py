"""The audit trail on disk: lines of a chain, files that take turns, never in anybody's way.

Entries are written in batches by a thread and synced; what could not be written waits and is tried again, up to a bound,
beyond which entries are counted and the number is an entry. Source of the chain: `core.audit`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from appliance.core.audit import MAX_LINE_BYTES, Head, digest_of, make_line, read_link
from appliance.core.current import Current
from appliance.core.hidden import Hiding
from appliance.core.specs import AuditSettings
from appliance.core.times import rfc3339

_log = logging.getLogger(__name__)

AUDIT_FILE = "audit.jsonl"
MAX_WAITING = 10_000
AGAIN_S = 5.0
"""When what could not be written is tried again."""
_TAIL_BYTES = 2 * MAX_LINE_BYTES


class AuditFile:
    """Life: `open` -> `note` any number of times, with `run` in a task -> `close`."""

    def __init__(
        self,
        state_dir: Path,
        settings: Current[AuditSettings],
        wall: Callable[[], float],
        *,
        hiding: Hiding | None = None,
    ) -> None:
        self._path = state_dir / AUDIT_FILE
        self._settings = settings
        self._wall = wall
        self._hiding = hiding or Hiding()
        self._head = Head()
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._lost = 0
        self._trouble: str | None = None
        self._stirred = asyncio.Event()
        self._writing: asyncio.Task[bool] | None = None

    async def open(self) -> None:
        """Find the end of the chain; one that is torn or unreadable is an entry itself."""
        try:
            cut_bytes = await asyncio.to_thread(self._find_end)
        except OSError as error:
            _log.warning("the audit trail cannot be read: %s", error.strerror)
            cut_bytes = 0
        _tell_head(self._head)
        if cut_bytes:
            self.note(by="", asked="audit", what={"cut_bytes": cut_bytes}, outcome="continued")

    def note(
        self, *, by: str, asked: str, what: Mapping[str, Any], outcome: object, **more: Any
    ) -> None:
        """Enter something that happened now. Never waits, never raises."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(self._entry(by=by, asked=asked, what=what, outcome=outcome, **more))
        self._stirred.set()

    async def run(self) -> None:
        """Write what is entered, until cancelled."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            self._writing = asyncio.create_task(self._write_waiting(), name="audit entries")
            # NB: a thread is not cancelled with its task: it must not be asked again while it writes
            if not await asyncio.shield(self._writing):
                await asyncio.sleep(AGAIN_S)
                self._stirred.set()

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await self._write_waiting()
        _tell_head(self._head)

    async def _write_waiting(self) -> bool:
        batch, lost = list(self._waiting), self._lost
        if lost:
            batch.append(self._entry(by="", asked="audit", what={"entries": lost}, outcome="lost"))
        if not batch:
            return True
        try:
            await asyncio.to_thread(self._write, batch, self._settings.value)
        except OSError as error:
            # once, and not with every try for as long as a disk is full
            if error.strerror != self._trouble:
                self._trouble = error.strerror
                _log.warning("the audit trail cannot be written: %s", error.strerror)
            return False
        if self._trouble is not None:
            self._trouble = None
            _log.info("the audit trail is written again")
        for _ in batch[: len(batch) - bool(lost)]:
            self._waiting.popleft()
        self._lost -= lost
        return True

    def _entry(
        self, *, by: str, asked: str, what: Mapping[str, Any], outcome: object, **more: Any
    ) -> Mapping[str, Any]:
        # a name that is asked for (a path, a program) may be one that a config took from the environment
        entry = {
            "by": by,
            **more,
            "asked": asked,
            "what": self._hiding.fields(what),
            "outcome": outcome,
        }
        return {"at": rfc3339(self._wall()), **self._hiding.fields(entry)}

    # -- in a thread ------------------------------------------------------------------------------

    def _write(self, batch: list[Mapping[str, Any]], settings: AuditSettings) -> None:
        head, lines = self._head, []
        for facts in batch:
            line, head = make_line(head, facts)
            lines.append(line + b"\n")
        data = b"".join(lines)
        audit_fd = os.open(
            self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            began = os.fstat(audit_fd).st_size
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(audit_fd, view) :]
                os.fdatasync(audit_fd)
            except OSError:
                # a part of it would be no entry, and the next one would stand behind it
                os.ftruncate(audit_fd, began)
                raise
            size = os.fstat(audit_fd).st_size
        finally:
            os.close(audit_fd)
        self._head = head
        if size >= settings.max_bytes:
            self._move_on(settings.keep_files)
            _tell_head(head)

    def _move_on(self, keep_files: int) -> None:
        for number in range(keep_files, 0, -1):
            old = self._numbered(number)
            if number == keep_files:
                old.unlink(missing_ok=True)
            elif old.exists():
                os.replace(old, self._numbered(number + 1))
        os.replace(self._path, self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{AUDIT_FILE}.{number}")

    def _find_end(self) -> int:
        """Set the head from the files; bytes that are no entries, as of a line that a crash has torn."""
        lost = 0
        for path in (self._path, self._numbered(1)):
            try:
                with path.open("r+b") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - _TAIL_BYTES))
                    tail = file.read()
                    torn = len(tail) - (tail.rfind(b"\n") + 1)
                    lines = tail[: len(tail) - torn].splitlines()
                    link = read_link(lines[-1]) if lines else None
                    if link is not None:
                        file.truncate(size - torn)
            except FileNotFoundError:
                continue
            if link is not None:
                self._head = Head(link.number, digest_of(lines[-1]))
                return lost + torn
            lost += size
        if self._path.exists():
            # not written by us: left as it is for whoever looks, and nothing is put behind it
            self._move_on(self._settings.value.keep_files)
        return lost


def find_trail(state_dir: Path) -> list[Path]:
    """The files of a trail, the oldest first."""
    old = [path for path in state_dir.glob(f"{AUDIT_FILE}.*") if path.suffix[1:].isdecimal()]
    old.sort(key=lambda path: int(path.suffix[1:]), reverse=True)
    current = state_dir / AUDIT_FILE
    return [*old, *([current] if current.exists() else [])]


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file without their ends, each bounded."""
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            yield line.rstrip(b"\n")


def _tell_head(head: Head) -> None:
    """What the chain itself cannot show, its end, is said where it cannot be changed with it."""
    if head.number:
        fields = {"number": head.number, "digest": head.digest}
        words = (
            "what operators asked is kept: appliance audit show, and verify --head with this digest"
        )
        _log.info(words, extra={"fields": fields})
