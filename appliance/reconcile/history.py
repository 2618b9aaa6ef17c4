"""Records on disk of every config set that was applied or refused, with the files of the applied ones.

One JSON file per record below ``<state>/history``, written to a temporary name and renamed. The set's files are kept
once per digest, so that a later rollback has them even when Git and the broker are away. Secrets never stand in a
config file (they are references), so none stand here.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from appliance.errors import RequestInvalid

HISTORY_DIR = "history"
"""Below the state directory."""
KEEP_RECORDS = 50
MAX_DIFF_LINES = 2_000
MAX_SET_BYTES = 16 * 1024 * 1024

Record = dict[str, object]
IN_FORCE = frozenset({"applied", "reverted"})
"""Results after which the record's set was the one in force."""


class KeptSet(NamedTuple):
    """A set as the history keeps it."""

    digest: str
    revision: str | None
    files: dict[str, str]


class History:
    """Appends and reads records. Synchronous; callers on the loop use a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sets = directory / "sets"
        self._next = 1

    def open(self) -> None:
        """Make the directory and find the next number."""
        self._sets.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = [int(path.stem) for path in self._record_paths()]
        self._next = max(numbers, default=0) + 1

    def append(self, record: Record, files: Mapping[str, str]) -> None:
        """Keep one record, and the files of its set; forget the oldest beyond the last 50."""
        digest = str(record.get("digest") or "")
        name = digest.removeprefix("sha256:")
        if files and name.isalnum() and sum(map(len, files.values())) <= MAX_SET_BYTES:
            target = self._sets / f"{name}.json"
            if not target.exists():
                _write(target, {"digest": digest, "files": dict(files)})
        number = self._next
        self._next += 1
        _write(self._directory / f"{number:08d}.json", {"number": number, **record})
        self._forget_oldest()

    def newest(self, limit: int = KEEP_RECORDS) -> list[Record]:
        """The newest records first."""
        records = []
        for path in sorted(self._record_paths(), reverse=True)[:limit]:
            record = _read(path)
            if record is not None:
                records.append(record)
        return records

    def last_applied(self) -> Record | None:
        """The newest record whose set was applied."""
        for record in self.newest():
            if record.get("result") in IN_FORCE:
                return record
        return None

    def find_kept(self, to: str | None, current_digest: str) -> KeptSet:
        """A set that was in force: the one that `to` names (see `find`), or the newest other than the current one.

        Raises:
            RequestInvalid: there is none, or its files were not kept.
        """
        if to is None:
            found = next(
                (
                    record
                    for record in self.newest()
                    if record.get("result") in IN_FORCE and record.get("digest") != current_digest
                ),
                None,
            )
            if found is None:
                raise RequestInvalid("no set was in force before this one")
        else:
            found = self.find(to)
            if found is None:
                raise RequestInvalid(f"no record of {to[:80]!r} in the history")
        digest = str(found.get("digest") or "")
        files = self.files_of(digest)
        if files is None:
            raise RequestInvalid(
                f"the files of record {found.get('number')} were not kept"
                + (": it was refused" if found.get("result") == "refused" else "")
            )
        revision = found.get("revision")
        return KeptSet(digest, str(revision) if revision else None, files)

    def find(self, key: str) -> Record | None:
        """The newest record with this number, generation, or start of its digest or revision."""
        records = self.newest()
        for record in records:
            if key in (str(record.get("number")), f"generation {record.get('generation')}"):
                return record
        for record in records:
            if str(record.get("generation")) == key and record.get("result") in IN_FORCE:
                return record
            digest = str(record.get("digest") or "").removeprefix("sha256:")
            revision = str(record.get("revision") or "")
            if len(key) >= 4 and (
                digest.startswith(key.removeprefix("sha256:")) or revision.startswith(key)
            ):
                return record
        return None

    def files_of(self, digest: str) -> dict[str, str] | None:
        """The files of a kept set."""
        found = _read(self._sets / f"{digest.removeprefix('sha256:')}.json")
        files = found.get("files") if found else None
        return files if isinstance(files, dict) else None

    def difference(self, record: Record) -> str:
        """What changed in the files, as a unified diff; "" where one side was not kept."""
        after = self.files_of(str(record.get("digest") or ""))
        before = self.files_of(str(record.get("previous_digest") or ""))
        if after is None or before is None:
            return ""
        lines: list[str] = []
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name, ""), after.get(name, "")
            if old != new:
                lines += difflib.unified_diff(
                    old.splitlines(),
                    new.splitlines(),
                    f"before/{name}",
                    f"after/{name}",
                    lineterm="",
                )
            if len(lines) > MAX_DIFF_LINES:
                return "\n".join([*lines[:MAX_DIFF_LINES], "…"]) + "\n"
        return "\n".join(lines) + "\n" if lines else ""

    def _record_paths(self) -> list[Path]:
        return [path for path in self._directory.glob("*.json") if path.stem.isdecimal()]

    def _forget_oldest(self) -> None:
        paths = sorted(self._record_paths())
        for path in paths[:-KEEP_RECORDS]:
            path.unlink(missing_ok=True)
        if len(paths) > KEEP_RECORDS:
            used = {
                str(record.get("digest") or "").removeprefix("sha256:") for record in self.newest()
            }
            for path in self._sets.glob("*.json"):
                if path.stem not in used:
                    path.unlink(missing_ok=True)


def _write(target: Path, value: Record) -> None:
    temporary = target.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8", opener=_private) as file:
        json.dump(value, file, ensure_ascii=True, indent=1, default=str)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, target)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read(path: Path) -> Record | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
