"""Records on disk of every config set that was applied or refused, with the files of the applied ones.

One JSON file per record below ``<state>/history``, written to a temporary name and renamed. The set's files are kept
once per digest, so that a later rollback has them even when Git and the broker are away. Of a refused set only the
difference to the set in force is kept. Secrets never stand in a config file (they are references), so none stand here.

What the disk does not take stays in memory, counts as what is on disk does, and is written when there is room.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from appliance.config.revision import Revision
from appliance.core.describe import describe_plan
from appliance.durable_file import write_private
from appliance.errors import RequestInvalid
from appliance.reconcile.reload_result import ReloadResult, drain_json, problem_json
from appliance.telemetry.report import Telemetry

# What changed between the files of two config sets, as a unified diff. Pure, and bounded in time and size.

MAX_LINES = 2_000
MAX_CHARACTERS = 256 * 1024
MAX_COMPARED_LINES = 20_000
"""Of one file: comparing takes time that grows with the square of it, where lines repeat."""


def find_differences(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The files that differ, in order of their names; cut off with an ellipsis where it gets long."""
    lines: list[str] = []
    characters = 0
    for line in _differing_lines(before, after):
        characters += len(line) + 1
        if len(lines) >= MAX_LINES or characters > MAX_CHARACTERS:
            lines.append("…")
            break
        lines.append(line)
    return "\n".join(lines) + "\n" if lines else ""


def _differing_lines(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        # as git writes them; a file that is not there is /dev/null
        shown = name.lstrip("/")
        old_name = f"a/{shown}" if old is not None else "/dev/null"
        new_name = f"b/{shown}" if new is not None else "/dev/null"
        old_lines, new_lines = (old or "").splitlines(), (new or "").splitlines()
        if max(len(old_lines), len(new_lines)) > MAX_COMPARED_LINES:
            yield from (f"--- {old_name}", f"+++ {new_name}", "… too long to compare")
        else:
            yield from difflib.unified_diff(old_lines, new_lines, old_name, new_name, lineterm="")


HISTORY_DIR = "history"
"""Below the state directory."""
KEEP_RECORDS = 50
KEEP_IN_FORCE = 2
"""Sets that were in force are not pushed out by refused ones: that many different ones always stay."""
MIN_PREFIX_CHARACTERS = 4
MAX_SET_BYTES = 16 * 1024 * 1024
MAX_UNWRITTEN = 20
"""Records that wait for room on the disk; beyond that the oldest is forgotten, never the newest of a set in force."""
MAX_UNWRITTEN_BYTES = 4 * MAX_SET_BYTES

LAST_AT = 1e11
"""Some three thousand years: no moment of ours lies beyond."""
_RECORD_NAME = re.compile(r"[0-9]{8}").fullmatch

Record = dict[str, object]
IN_FORCE = frozenset({"applied", "reverted"})
"""Results after which the record's set was the one in force."""


class KeptSet(NamedTuple):
    """A set as the history keeps it."""

    digest: str
    revision: Revision | None
    files: dict[str, str]


class _RecordValues(msgspec.Struct):
    """What is reckoned with in a record; the rest is only shown."""

    number: int
    at: Annotated[float, msgspec.Meta(ge=0, le=LAST_AT)] = 0.0
    generation: int | None = None
    result: str | None = None
    digest: str | None = None
    problems: list[Record] | None = None
    actions: list[Record] | None = None


class _Unwritten(NamedTuple):
    """A record that the disk has not taken, as it would stand there, and the set that belongs to it."""

    record: str
    is_in_force: bool
    set_name: str
    files: str
    """"" where no files are to be kept."""

    @property
    def size(self) -> int:
        return len(self.record) + len(self.files)


class History:
    """Appends and reads records. Synchronous; callers on the loop use a thread, several of them at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sets = directory / "sets"
        self._next = 1
        self._unwritten: dict[int, _Unwritten] = {}
        self._writing = threading.Lock()

    def open(self) -> None:
        """Make the directory and find the next number."""
        self._sets.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = [int(path.stem) for path in self._record_paths()]
        self._next = max(numbers, default=0) + 1

    def append(
        self, record: Record, files: Mapping[str, str], attempted: Mapping[str, str] | None = None
    ) -> None:
        """Keep one record, and the files of its set; forget the oldest beyond the last 50.

        `attempted` are the files of a refused set: what they would have changed is kept instead.

        Raises:
            OSError: it is in memory only, until a `write` succeeds.
        """
        digest = str(record.get("digest") or "")
        name = digest.removeprefix("sha256:")
        kept = ""
        if files and name.isalnum() and sum(map(len, files.values())) <= MAX_SET_BYTES:
            kept = _to_text({"digest": digest, "files": dict(files)})
        if attempted:
            before = self.files_of(str(record.get("previous_digest") or ""))
            record = {**record, "diff": find_differences(before or {}, attempted)}
        number = self._next
        self._next += 1
        text = _to_text({"number": number, **record})
        self._unwritten[number] = _Unwritten(text, record.get("result") in IN_FORCE, name, kept)
        self._bound_unwritten()
        self.write()

    def write(self) -> None:
        """Put on disk what is in memory only, the oldest first.

        Raises:
            OSError: the disk takes no more; what is left stays in memory.
        """
        with self._writing:
            if not self._unwritten:
                return
            for number, one in sorted(self._unwritten.items()):
                target = self._sets / f"{one.set_name}.json"
                # the same content has the same name, so it need not be written again
                if one.files and not target.exists():
                    write_private(target, one.files.encode())
                write_private(self._directory / f"{number:08d}.json", one.record.encode())
                del self._unwritten[number]
            self._forget_oldest()

    @property
    def unwritten(self) -> int:
        """How many records a restart would not find."""
        return len(self._unwritten)

    def _bound_unwritten(self) -> None:
        numbers = sorted(self._unwritten)
        in_force = [number for number in numbers if self._unwritten[number].is_in_force]
        size = sum(one.size for one in self._unwritten.values())
        for number in numbers:
            if len(self._unwritten) <= MAX_UNWRITTEN and size <= MAX_UNWRITTEN_BYTES:
                return
            if number not in in_force[-1:]:
                size -= self._unwritten.pop(number).size

    def newest(self, limit: int | None = None) -> list[Record]:
        """The newest records first."""
        # in this order: what is written meanwhile is met twice, and not missed
        found = {number: one.record for number, one in list(self._unwritten.items())}
        numbers = found.keys() | {int(path.stem) for path in self._record_paths()}
        records = []
        for number in sorted(numbers, reverse=True)[:limit]:
            text = found.get(number)
            record = _read_record(self._directory / f"{number:08d}.json", text)
            if record is not None:
                records.append(record)
        return records

    def last_applied(self) -> Record | None:
        """The newest record whose set was applied."""
        for record in self.newest():
            if record.get("result") in IN_FORCE:
                return record
        return None

    def find_kept(self, to: str) -> KeptSet:
        """The set that `to` names (see `find`).

        Raises:
            RequestInvalid: there is none, or its files were not kept.
        """
        found = self.find(to)
        if found is None:
            raise RequestInvalid(f"no record of {to[:80]!r} in the history")
        self._insist_on_one(to)
        kept = self._kept(found)
        if kept is None:
            raise RequestInvalid(
                f"the files of record {found.get('number')} were not kept"
                + (": it was refused" if found.get("result") == "refused" else "")
            )
        return kept

    def sets_before(self, digest: str) -> list[KeptSet]:
        """The sets that were in force before the one with this digest came anew, the newest first, each once.

        A set that is in force again by a rollback, a failed trial or a restart did not come anew: so who goes back
        from it goes further back, and not to what was taken back.
        """
        records = [record for record in self.newest() if record.get("result") in IN_FORCE]
        digests = [str(record.get("digest") or "") for record in records]
        # the newest record of it that is no way back: what came before that is what it replaced
        position = next(
            (
                index
                for index, record in enumerate(records)
                if digests[index] == digest
                and record.get("trigger") not in ("rollback", "trial")
                and digests[index + 1 : index + 2] != [digest]
            ),
            0,
        )
        found: dict[str, KeptSet] = {}
        for record, known_as in zip(records[position:], digests[position:], strict=True):
            if known_as in found or known_as == digest:
                continue
            kept = self._kept(record)
            if kept is not None:
                found[known_as] = kept
        return list(found.values())

    def revision_of(self, digest: str) -> Revision | None:
        """Where the files of a set that was in force came from, when it was so last."""
        for record in self.newest():
            if record.get("digest") == digest and record.get("result") in IN_FORCE:
                return _revision_of(record)
        return None

    def _kept(self, record: Record) -> KeptSet | None:
        digest = str(record.get("digest") or "")
        files = self.files_of(digest)
        return None if files is None else KeptSet(digest, _revision_of(record), files)

    def find(self, key: str) -> Record | None:
        """The record with this number or generation, or with this start of its digest or revision.

        Of several the newest counts; of those with a revision, rather one that was in force, as the commit has it.
        """
        records = self.newest()
        for record in records:
            if str(record.get("number")) == key.removeprefix("#"):
                return record
        number = key.removeprefix("generation ").removeprefix("g")
        for record in records:
            if str(record.get("generation")) == number and record.get("result") in IN_FORCE:
                return record
        found = [record for record in records if _names_by_start(record, key)]
        return min(found, key=_is_second_choice, default=None)

    def _insist_on_one(self, key: str) -> None:
        """Raises RequestInvalid where a start of a digest or revision stands for several of them."""
        names = {name for record in self.newest() for name in _names_by_start(record, key)}
        if len(names) > 1:
            raise RequestInvalid(
                f"{key[:80]!r} is the start of several: {', '.join(sorted(names))}"
            )

    def files_of(self, digest: str) -> dict[str, str] | None:
        """The files of a kept set."""
        name = digest.removeprefix("sha256:")
        kept = [one.files for one in list(self._unwritten.values()) if one.set_name == name]
        found = _read(self._sets / f"{name}.json", next(filter(None, kept), None))
        files = found.get("files") if found else None
        if not isinstance(files, dict):
            return None
        return files if all(isinstance(text, str) for text in files.values()) else None

    def difference(self, record: Record) -> str:
        """What the set changed in the files, as a unified diff; "" where one side was not kept."""
        kept = record.get("diff")
        if isinstance(kept, str):
            return kept
        after = self.files_of(str(record.get("digest") or ""))
        before = self.files_of(str(record.get("previous_digest") or ""))
        return "" if after is None or before is None else find_differences(before, after)

    def _record_paths(self) -> list[Path]:
        return [path for path in self._directory.glob("*.json") if _RECORD_NAME(path.stem)]

    def _forget_oldest(self) -> None:
        paths = sorted(self._record_paths(), reverse=True)
        if len(paths) <= KEEP_RECORDS:
            return
        used: set[str] = set()
        in_force: set[str] = set()
        for position, path in enumerate(paths):
            record = _read_record(path) or {}
            digest = str(record.get("digest") or "")
            is_way_back = (
                record.get("result") in IN_FORCE
                and digest not in in_force
                and len(in_force) < KEEP_IN_FORCE
            )
            # sets that were in force live longer than other records: they are where a rollback can go
            if position >= KEEP_RECORDS and not is_way_back:
                path.unlink(missing_ok=True)
                continue
            used.add(digest.removeprefix("sha256:"))
            if is_way_back:
                in_force.add(digest)
        # after the records: only now is known which sets one of them still names
        for path in self._sets.glob("*.json"):
            if path.stem not in used:
                path.unlink(missing_ok=True)


def _names_by_start(record: Record, key: str) -> list[str]:
    """The digest and the revision of a record, if they begin with `key`."""
    digest = str(record.get("digest") or "")
    revision = str(record.get("revision") or "")
    start = key.removeprefix("sha256:")
    if len(start) < MIN_PREFIX_CHARACTERS:
        return []
    found = [digest] if digest.removeprefix("sha256:").startswith(start) else []
    return [*found, revision] if start == key and revision.startswith(key) else found


def _revision_of(record: Record) -> Revision | None:
    names = ("revision", "branch", "dirty", "author")
    commit, branch, dirty, author = (record.get(name) for name in names)
    if not commit:
        return None
    return Revision(
        commit=str(commit),
        branch=str(branch) if branch else None,
        dirty=dirty if isinstance(dirty, bool) else None,
        author=str(author) if author else None,
    )


def _is_second_choice(record: Record) -> tuple[bool, int]:
    dirty = record.get("dirty")
    # what is not known to be as the commit has it comes after what is, and before what is not
    doubt = {False: 0, True: 2}.get(dirty, 1) if isinstance(dirty, bool) else 1
    return record.get("result") not in IN_FORCE, doubt


def _to_text(value: Record) -> str:
    return json.dumps(value, ensure_ascii=True, indent=1, default=str)


def _read(path: Path, unwritten: str | None = None) -> Record | None:
    """What stands there, or what is to stand there."""
    try:
        text = path.read_text(encoding="utf-8") if unwritten is None else unwritten
        value = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_record(path: Path, unwritten: str | None = None) -> Record | None:
    """None for what is damaged: a record is a label, and no reason not to start."""
    record = _read(path, unwritten)
    try:
        msgspec.convert(record, _RecordValues)
    except msgspec.ValidationError:
        return None
    return record


# Writes verdicts into the history, with what else is worth knowing later: who asked, which set stood before.

MAX_ACTIONS = 1_000
MAX_PROBLEMS = 200


class Recorder:
    """A record that cannot be written is told once and tried again, and holds nothing up."""

    def __init__(self, history: History, telemetry: Telemetry) -> None:
        self._history = history
        self._telemetry = telemetry
        self._told = ""
        self.unwritten = 0
        """How many records the disk did not take; one that is just being written is none of them."""

    async def last_applied(self) -> Record:
        """Of the set that was in force last; empty where none was."""
        return await asyncio.to_thread(self._history.last_applied) or {}

    async def record(
        self,
        verdict: ReloadResult,
        *,
        revision: Revision | None,
        previous_digest: str | None,
        files: Mapping[str, str],
        attempted: Mapping[str, str] | None = None,
    ) -> None:
        """Keep one verdict.

        `files` are those of a set in force, kept for a rollback; `attempted` those of a refused one.
        """
        record = {
            "at": verdict.at,
            "result": verdict.result,
            "trigger": verdict.trigger,
            "by": verdict.by,
            "generation": verdict.generation,
            "digest": verdict.digest,
            "previous_digest": previous_digest,
            "revision": revision.commit if revision else None,
            "branch": revision.branch if revision else None,
            "dirty": revision.dirty if revision else None,
            "author": revision.author if revision else None,
            "actions": describe_plan(verdict.plan, verdict.hidden)[:MAX_ACTIONS],
            "problems": [problem_json(problem) for problem in verdict.problems[:MAX_PROBLEMS]],
            "duration_seconds": round(verdict.duration_s, 6),
            "drain": drain_json(verdict.drains),
            "failed": dict(verdict.failed),
        }
        await self._write(self._history.append, record, files, attempted)

    async def catch_up(self) -> None:
        """Write what a full disk did not take: a restart would go back to an older set."""
        if self.unwritten:
            await self._write(self._history.write)

    async def _write(self, write: Callable[..., None], *args: object) -> None:
        try:
            await asyncio.to_thread(write, *args)
        except OSError as error:
            # NB: not the whole text, where a temporary file has another name each time
            why = error.strerror or str(error)
            if why != self._told:
                self._told = why
                self._telemetry.history_not_written(str(error))
            self.unwritten = self._history.unwritten
            return
        self._told = ""
        self.unwritten = 0
