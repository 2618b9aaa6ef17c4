"""The audit trail on disk: lines of a chain, files that take turns, never in anybody's way.

Entries are written in batches by a thread and synced; what could not be written waits and is tried again, up to a bound,
beyond which those of a sender are summed up, as they are where he has used up his share of the files (`core.audit_room`).
What of his share is left is kept beside the trail: who has the daemon end begins with no new one. Source of the chain:
`core.audit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from appliance.core.audit import (
    MAX_LINE_BYTES,
    Head,
    digest_of,
    line_size,
    make_line,
    read_link,
)
from appliance.core.audit_room import SUM_EVERY_S, AuditRoom, Bounds, Crowd, Sender, mark_of
from appliance.core.current import Current
from appliance.core.hidden import Hiding
from appliance.core.specs import AuditSettings
from appliance.core.times import rfc3339
from appliance.durable_file import write_private

_log = logging.getLogger(__name__)

AUDIT_FILE = "audit.jsonl"
SHARES_FILE = "audit.shares"
MAX_WAITING = 10_000
"""Entries that are not written yet: of the daemon's own, of each crowd half as many, of each sender a quarter."""
SAVE_AFTER_BYTES = 65_536
"""What is left of the shares is kept when so much was entered since, and at the end."""
AGAIN_S = 5.0
"""When what could not be written is tried again."""
LOOK_EVERY_S = SUM_EVERY_S / 10
_TAIL_BYTES = 2 * MAX_LINE_BYTES


class _Shares(msgspec.Struct):
    """What was left to whom, as a part of what he may enter at once."""

    at: float
    left: dict[str, float]


class ChainFiles:
    """The files of the chain, and its end; called in a thread, by one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.head = Head()

    def write(self, batch: list[Mapping[str, Any]], settings: AuditSettings) -> None:
        """Put entries behind the others, on disk when it returns. Raises OSError; nothing of them stands there then."""
        head, lines = self.head, []
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
        self.head = head
        if size >= settings.max_bytes:
            self._move_on(settings.keep_files)
            _tell_head(head)

    def _move_on(self, keep_files: int) -> None:
        free = 1
        while free < keep_files and self._numbered(free).exists():
            free += 1
        # from behind, and only up to the first free name: a kill in between costs the next turn no file
        for number in range(free, 1, -1):
            os.replace(self._numbered(number - 1), self._numbered(number))
        os.replace(self._path, self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{AUDIT_FILE}.{number}")

    def find_end(self, keep_files: int) -> int:
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
                self.head = Head(link.number, digest_of(lines[-1]))
                return lost + torn
            lost += size
        if self._path.exists():
            # not written by us: left as it is for whoever looks, and nothing is put behind it
            self._move_on(keep_files)
        return lost


class Queue:
    """Entries that are not written yet, and of whom."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Sender | None, Mapping[str, Any]]] = deque()
        self._count_of: Counter[Sender | Crowd | None] = Counter()
        self.entered = 0
        """Entries since the start."""

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        """The oldest first."""
        return [entry for _, entry in self._entries]

    def has_place(self, sender: Sender | None) -> bool:
        """Whether he may have one more entry wait: a disk that is slow or full is not for him alone."""
        count_of = self._count_of
        if sender is None:
            return count_of[None] < MAX_WAITING
        return count_of[sender.crowd] < MAX_WAITING // 2 and count_of[sender] < MAX_WAITING // 4

    @property
    def has_place_for_sums(self) -> bool:
        """Whether what waits leaves room for sums."""
        return len(self._entries) < MAX_WAITING // 2

    def put(self, sender: Sender | None, entry: Mapping[str, Any]) -> None:
        """One more, of the daemon's own with None."""
        self._entries.append((sender, entry))
        self._count_of.update(_counted(sender))
        self.entered += 1

    def written(self, count: int) -> None:
        """So many of the oldest wait no more."""
        for _ in range(count):
            sender, _ = self._entries.popleft()
            for whose in _counted(sender):
                self._count_of[whose] -= 1
                if not self._count_of[whose]:
                    del self._count_of[whose]


def _counted(sender: Sender | None) -> tuple[Sender | Crowd | None, ...]:
    return (None,) if sender is None else (sender, sender.crowd)


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
        self._shares = state_dir / SHARES_FILE
        self._chain = ChainFiles(state_dir / AUDIT_FILE)
        self._settings = settings
        self._wall = wall
        self._hiding = hiding or Hiding()
        self._room = AuditRoom(now=wall())
        self._look_at = 0.0
        """When sums are looked at again."""
        self._saved_bytes = 0
        self._waiting = Queue()
        self._told_lost = 0
        self.lost = 0
        """What was to be one and found no room, of what the daemon says of itself."""
        self._trouble: str | None = None
        self._stirred = asyncio.Event()
        self._writing: asyncio.Task[bool] | None = None

    async def open(self) -> None:
        """Find the end of the chain; one that is torn or unreadable is an entry itself."""
        try:
            cut_bytes = await asyncio.to_thread(
                self._chain.find_end, self._settings.value.keep_files
            )
        except OSError as error:
            _log.warning("the audit trail cannot be read: %s", error.strerror)
            cut_bytes = 0
        self._room = await asyncio.to_thread(self._read_shares)
        _tell_head(self._chain.head)
        if cut_bytes:
            self.note(by="", asked="audit", what={"cut_bytes": cut_bytes}, outcome="continued")

    def note(
        self,
        *,
        by: str,
        asked: str,
        what: Mapping[str, Any],
        outcome: object,
        sender: Sender | None = None,
        **more: Any,
    ) -> None:
        """Enter something that happened now, or have it summed up. Never waits, never raises."""
        entry = self._entry(by=by, asked=asked, what=what, outcome=outcome, **more)
        if sender is None:
            if self._waiting.has_place(None):
                self._enqueue(None, entry)
            else:
                self.lost += 1
            return
        now = self._wall()
        if self._waiting.has_place(sender) and self._room.may_enter(
            sender, entry, line_size(entry), now, self._bounds
        ):
            self._enqueue(sender, entry)
        elif self._room.sum_up(sender, entry, now):
            fields = {"of": sender.label()}
            _log.warning(
                "the audit trail sums up what it is asked: its share of the trail is used up",
                extra={"fields": fields},
            )
            mark = self._entry(**mark_of(sender))
            if self._room.can_bear(sender, line_size(mark), now, self._bounds):
                self._enqueue(sender, mark)
            self._stirred.set()

    @property
    def _bounds(self) -> Bounds:
        settings = self._settings.value
        return Bounds(settings.max_bytes * settings.keep_files, settings.keep_s)

    @property
    def entered(self) -> int:
        """Entries since the start."""
        return self._waiting.entered

    @property
    def summed(self) -> int:
        """Entries since the start that are told by a sum."""
        return self._room.summed

    @property
    def unnamed(self) -> int:
        """Of these those of which not even a name is told."""
        return self._room.unnamed

    @property
    def summing(self) -> list[str]:
        """Whose entries are summed up now, in words."""
        return self._room.summing

    def troubles(self) -> list[str]:
        """Of whom so many different things are asked for that not all are named, in words."""
        return [
            f"the audit trail only counts some of what {label} asks for: its share is used up"
            for label in self._room.counting
        ]

    def _enqueue(self, sender: Sender | None, entry: Mapping[str, Any]) -> None:
        self._waiting.put(sender, entry)
        self._stirred.set()

    def _enter_sums(self, *, all_of_them: bool = False) -> None:
        """Those whose time has come; at the end all of them."""
        now = self._wall()
        if self._waiting.has_place_for_sums or all_of_them:
            for sender, facts in self._room.take_due(
                now,
                self._bounds,
                lambda facts: line_size(self._entry(**facts)),
                of_every_age=all_of_them,
            ):
                self._enqueue(sender, self._entry(**facts))
        if all_of_them:
            for facts in self._room.take_untold(rfc3339(now)):
                self._enqueue(None, self._entry(**facts))

    async def run(self) -> None:
        """Write what is entered, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S if self._room.has_sums else None):
                    await self._stirred.wait()
            self._stirred.clear()
            # also where entries come all the time, so that none of these waits ever ends by itself
            if self._wall() >= self._look_at:
                self._look_at = self._wall() + LOOK_EVERY_S
                self._enter_sums()
            self._writing = asyncio.create_task(self._write_waiting(), name="audit entries")
            # NB: a thread is not cancelled with its task: it must not be asked again while it writes
            if not await asyncio.shield(self._writing):
                await asyncio.sleep(AGAIN_S)
                self._stirred.set()

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        self._enter_sums(all_of_them=True)
        await self._write_waiting(is_last=True)
        _tell_head(self._chain.head)

    async def _write_waiting(self, *, is_last: bool = False) -> bool:
        batch, lost = self._waiting.entries, self.lost
        count, newly_lost = len(batch), lost - self._told_lost
        if newly_lost:
            batch.append(
                self._entry(by="", asked="audit", what={"entries": newly_lost}, outcome="lost")
            )
        if not batch:
            return True
        try:
            await asyncio.to_thread(self._chain.write, batch, self._settings.value)
        except OSError as error:
            # once, and not with every try for as long as a disk is full
            if error.strerror != self._trouble:
                self._trouble = error.strerror
                _log.warning("the audit trail cannot be written: %s", error.strerror)
            return False
        if self._trouble is not None:
            self._trouble = None
            _log.info("the audit trail is written again")
        self._waiting.written(count)
        self._told_lost = lost
        spent = self._room.spent_bytes
        if spent - self._saved_bytes >= (1 if is_last else SAVE_AFTER_BYTES):
            self._saved_bytes = spent
            left = self._room.left(self._wall(), self._bounds)
            with contextlib.suppress(OSError):  # the trail itself is more: it tells of the disk
                await asyncio.to_thread(self._write_shares, left)
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

    def _read_shares(self) -> AuditRoom:
        now = self._wall()
        try:
            kept = msgspec.json.decode(self._shares.read_bytes(), type=_Shares)
        except (OSError, msgspec.MsgspecError):
            return AuditRoom(now=now)
        back = max(0.0, now - kept.at) / self._bounds.keep_s
        return AuditRoom({name: min(1.0, part + back) for name, part in kept.left.items()}, now)

    def _write_shares(self, left: Mapping[str, float]) -> None:
        kept = _Shares(at=self._wall(), left=dict(left))
        write_private(self._shares, msgspec.json.encode(kept))


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
