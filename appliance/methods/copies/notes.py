"""Notes of unfinished files: a small file for each, so that parts all over the machine are found and removed again.

Blocking; called in the threads of `_copy_taker`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from appliance.core.copying import Piece
from appliance.core.message import text_to_bytes

PART_MARK = b".appl-part-"
"""In the name of every part; nothing else is ever removed."""
MAX_PARTS = 32
"""Unfinished files of one sender: who begins another one loses the one that lies untouched the longest."""
PART_KEEP_S = 86_400.0
SWEEP_EVERY_S = 3_600.0
CLOCK_PLAY_S = 60.0
"""A time further in the future was given by a clock that was wrong then, and says nothing."""
MAKING_S = 60.0
"""Between a note and its part."""
_SENDER_CHARACTERS = 8


def part_key(sender: str, piece: Piece, path: str) -> str:
    """The name of a part; its beginning tells parts of one sender from those of others."""
    facts = b"\0".join(map(text_to_bytes, (sender, piece.id, str(piece.size), piece.sha256, path)))
    whose = hashlib.sha256(text_to_bytes(sender)).hexdigest()[:_SENDER_CHARACTERS]
    return whose + hashlib.sha256(facts).hexdigest()[: 32 - _SENDER_CHARACTERS]


class PartNotes:
    """A directory of its own: a note's name is the part's key, its content where the part is, its time when the part was
    touched last. That time is written by us and of the clock `now`, which nobody can set: files that wait for the rest
    must not look old because the wall clock was.
    """

    def __init__(self, directory: Path, now: Callable[[], float]) -> None:
        self._directory = directory
        self._now = now
        self._sweep_at = 0.0

    def add(self, key: str, where: bytes) -> None:
        """Remember a part that is about to be made."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        (self._directory / key).write_bytes(where)
        self.touch(key)

    def touch(self, key: str) -> None:
        """The part was written to."""
        now = self._now()
        with contextlib.suppress(OSError):
            os.utime(self._directory / key, (now, now))

    def remove(self, key: str) -> None:
        """The part is none any more."""
        with contextlib.suppress(OSError):
            (self._directory / key).unlink()

    def make_room(self, key: str) -> None:
        """Remove what the sender of this part has left over beyond its share."""
        whose = key[:_SENDER_CHARACTERS]
        notes = [note for note in self._list() if note.name.startswith(whose)]
        now = self._now()
        touched = sorted((_touched_at(note, now), note) for note in notes)
        for _, note in touched[: max(0, len(touched) - MAX_PARTS + 1)]:
            with contextlib.suppress(OSError):
                _remove_part(note)

    def sweep(self) -> None:
        """Remove parts that nobody has touched for a day, and notes of what is gone; looks once an hour, however often
        it is called.
        """
        now = self._now()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_EVERY_S
        for note in self._list():
            with contextlib.suppress(OSError):
                keep_s = PART_KEEP_S if _has_part(note) else MAKING_S
                if now - _touched_at(note, now) > keep_s:
                    _remove_part(note)

    def _list(self) -> list[Path]:
        try:
            return [self._directory / name for name in os.listdir(self._directory)]
        except FileNotFoundError:
            return []


def _has_part(note: Path) -> bool:
    try:
        return os.path.lexists(note.read_bytes())
    except ValueError:
        return False


def _touched_at(note: Path, now: float) -> float:
    """When the part of a note was written to last, as far as that can be: the part's own time, which the wall clock gave
    it, can only make it younger.
    """
    times = [0.0]
    with contextlib.suppress(OSError):
        times.append(note.stat().st_mtime)
    with contextlib.suppress(OSError, ValueError):
        times.append(os.lstat(note.read_bytes()).st_mtime)
    return max(time for time in times if time <= now + CLOCK_PLAY_S)


def _remove_part(note: Path) -> None:
    where = note.read_bytes()
    if PART_MARK in os.path.basename(where):  # a damaged note may name anything
        with contextlib.suppress(FileNotFoundError):
            os.unlink(where)
    note.unlink()
