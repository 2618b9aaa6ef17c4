"""How far a copy is: one line that is written over on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from appliance.core.escape import escape_line

SPEED_SPAN_S = 8.0
DRAW_EVERY_S = 0.1
TELL_EVERY_S = 10.0
"""Where there is no terminal."""
_BAR_COLUMNS = 20


class ProgressView:
    """For one file at a time: `begin`, any number of `show`, `end`."""

    def __init__(
        self,
        *,
        is_quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self.is_terminal = self._stream.isatty()
        self._is_quiet = is_quiet
        self._clock = clock
        self._name = ""
        self._due = 0.0
        self._marks: list[tuple[float, int]] = []
        self._is_drawn = False

    def begin(self, name: str) -> None:
        """Another file."""
        self._name = escape_line(name)
        self._marks.clear()
        now = self._clock()
        self._due = now if self.is_terminal else now + TELL_EVERY_S

    def show(self, done: int, total: int) -> None:
        """So far it is."""
        now = self._clock()
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > SPEED_SPAN_S:
            self._marks.pop(0)
        if self._is_quiet or (now < self._due and done < total):
            return
        if self.is_terminal:
            self._due = now + DRAW_EVERY_S
            self._draw(describe(self._name, done, total, self._speed(), bar=True))
        elif now >= self._due:
            self._due = now + TELL_EVERY_S
            text = describe(self._name, done, total, self._speed(), bar=False)
            print(text, file=self._stream, flush=True)

    def clear(self) -> None:
        """Make room for other lines."""
        if self._is_drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._is_drawn = False

    def end(self) -> None:
        """Keep what is shown, and go to the next line."""
        if self._is_drawn:
            self._stream.write("\n")
            self._stream.flush()
            self._is_drawn = False

    def _draw(self, text: str) -> None:
        columns = shutil.get_terminal_size().columns
        self._stream.write("\r\x1b[K" + text[: columns - 1])
        self._stream.flush()
        self._is_drawn = True

    def _speed(self) -> float | None:
        """Bytes per second over the last few seconds."""
        (first_at, first), (last_at, last) = self._marks[0], self._marks[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else None


def describe(name: str, done: int, total: int, speed: float | None, *, bar: bool) -> str:
    """One line."""
    share = done / total if total else 1.0
    parts = [f"{name:30s}" if bar else f"{name}:"]
    if bar:
        full = round(share * _BAR_COLUMNS)
        parts.append("[" + "#" * full + "." * (_BAR_COLUMNS - full) + "]")
    parts.append(f"{int(share * 100):3d}%" if bar else f"{int(share * 100)}%")
    parts.append(f"{say_bytes(done)} of {say_bytes(total)}")
    if speed is not None:
        parts.append(f"{say_bytes(speed)}/s")
        if 0 < done < total:
            parts.append("stalled" if speed <= 0 else f"{_say_left((total - done) / speed)} left")
    return "  ".join(parts) if bar else " ".join(parts)


def say_bytes(count: float) -> str:
    """``950 B``, ``1.2 MB``: thousands, as disks count."""
    if count < 1_000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1_000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.0f} {unit}" if count >= 99.95 else f"{count:.1f} {unit}"


def _say_left(seconds: float) -> str:
    whole = int(seconds) + 1
    if whole >= 3_600:
        return f"{whole // 3_600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"
