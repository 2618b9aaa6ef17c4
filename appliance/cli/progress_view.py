"""How far a copy is: one line that is written over on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.cells import cell_len, set_cell_size

from appliance.core.escape import escape_line

SPEED_SPAN_S = 8.0
FIRST_DRAW_S = 0.3
"""What has failed by then, or is there, needs no bar before it."""
DRAW_EVERY_S = 0.1
TELL_EVERY_S = 10.0
"""Where there is no terminal."""
WAITING_AFTER_S = 2.0
STALLED_AFTER_S = 5.0
TICK_S = 1.0
READING_AFTER_S = 1.0
_BAR_COLUMNS = 20
_NAME_COLUMNS = 30
_FACTS_COLUMNS = 48
"""What the share, the sizes, the speed and the time take beside name and bar."""


class _Motion:
    """How one file gets on: since when, how far, and how fast of late."""

    def __init__(self, now: float) -> None:
        self.began = self.moved_at = now
        self.so_far = (0, 0)
        """Done, and all of it."""
        self._marks: list[tuple[float, int]] = []

    def note(self, done: int, total: int, now: float) -> None:
        """So far it is."""
        if done != self.so_far[0]:
            self.moved_at = now
        self.so_far = (done, total)
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > SPEED_SPAN_S:
            self._marks.pop(0)

    def say_pace(self, now: float) -> str:
        """Speed and time left; words where there is none."""
        done, total = self.so_far
        if not done:
            return "waiting" if now - self.began >= WAITING_AFTER_S else ""
        if done < total and now - self.moved_at >= STALLED_AFTER_S:
            return "stalled"
        (first_at, first), (last_at, last) = self._marks[0], self._marks[-1]
        if last_at <= first_at or last <= first:
            return ""
        speed = (last - first) / (last_at - first_at)
        if done >= total:
            return f"{say_bytes(speed)}/s"
        return f"{say_bytes(speed)}/s  {_say_time((total - done) / speed)} left"


class ProgressView:
    """For one file at a time: `begin`, any number of `show`, `finish` or `end`. May be called from several threads."""

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
        self._motion = _Motion(0.0)
        self._due = 0.0
        self._is_drawn = False
        self._lock = threading.RLock()

    def begin(self, name: str) -> None:
        """Another file."""
        with self._lock:
            self._name = escape_line(name)
            now = self._clock()
            self._motion = _Motion(now)
            self._due = now + (FIRST_DRAW_S if self.is_terminal else TELL_EVERY_S)

    def show(self, done: int, total: int) -> None:
        """So far it is."""
        with self._lock:
            now = self._clock()
            self._motion.note(done, total, now)
            if not self._is_quiet and total and now >= self._due:
                self._due = now + (DRAW_EVERY_S if self.is_terminal else TELL_EVERY_S)
                self._draw_so_far(now)

    def tick(self) -> None:
        """Nothing was heard for a while: on a terminal that shows."""
        with self._lock:
            now = self._clock()
            if (
                self.is_terminal
                and self._is_drawn
                and now - self._motion.moved_at >= STALLED_AFTER_S
            ):
                self._draw_so_far(now)

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """Tick while the block runs, which waits for whatever there is to show."""
        over = threading.Event()

        def tick() -> None:
            while not over.wait(TICK_S):
                self.tick()

        thread = threading.Thread(target=tick, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def show_reading(self, done: int, total: int) -> None:
        """What is read before anything is sent; only people who look on want to know."""
        with self._lock:
            now = self._clock()
            is_long = now - self._motion.began >= READING_AFTER_S
            if self.is_terminal and not self._is_quiet and is_long and now >= self._due:
                self._due = now + DRAW_EVERY_S
                self._motion.moved_at = now
                self._draw(f"{done * 100 // total:3d}% of {say_bytes(total)}", "read", 0.0)

    def finish(self, size: int) -> None:
        """It is there: on a terminal its size, speed and time stay to be seen, as with scp."""
        with self._lock:
            if self.is_terminal and not self._is_quiet:
                seconds = self._clock() - self._motion.began
                pace = ""
                if seconds >= 1:
                    pace = f"{say_bytes(size / seconds)}/s  in {_say_time(seconds)}"
                self._draw(f"100%  {say_bytes(size)}", pace, 1.0)
            self.end()

    def clear(self) -> None:
        """Make room for other lines."""
        self._leave("\r\x1b[K")

    def end(self) -> None:
        """Keep what is shown, and go to the next line."""
        self._leave("\n")

    def _leave(self, text: str) -> None:
        with self._lock:
            if self._is_drawn:
                self._stream.write(text)
                self._stream.flush()
                self._is_drawn = False

    def _draw_so_far(self, now: float) -> None:
        done, total = self._motion.so_far
        if total:
            self._draw(describe_amount(done, total), self._motion.say_pace(now), done / total)

    def _draw(self, amount: str, pace: str, share: float) -> None:
        if not self.is_terminal:
            self._stream.write(f"{self._name}: {' '.join(f'{amount} {pace}'.split())}\n")
            self._stream.flush()
            return
        columns = shutil.get_terminal_size().columns - 1
        rest = columns - _FACTS_COLUMNS
        bar = _BAR_COLUMNS if rest >= 2 * _BAR_COLUMNS else 0
        name = _fit(self._name, max(8, min(_NAME_COLUMNS, rest - bar - 3)))
        text = f"{name}  {_bar(share, bar)}{amount}  {pace}"
        self._stream.write("\r\x1b[K" + set_cell_size(text, min(columns, cell_len(text))))
        self._stream.flush()
        self._is_drawn = True


def describe_amount(done: int, total: int) -> str:
    """`` 18%  37.7 MB of 210 MB``. There is no 100 % before it is all done."""
    return f"{done * 100 // total:3d}%  {say_bytes(done)} of {say_bytes(total)}"


def say_bytes(count: float) -> str:
    """``950 B``, ``1.2 MB``: thousands, as disks count."""
    if count < 999.5:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1_000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.0f} {unit}" if count >= 99.95 else f"{count:.1f} {unit}"


def _bar(share: float, columns: int) -> str:
    full = int(min(share, 1.0) * columns)
    return f"[{'#' * full}{'.' * (columns - full)}] " if columns else ""


def _fit(name: str, columns: int) -> str:
    """The name in exactly so many columns; of a long one its end, which tells more."""
    if cell_len(name) <= columns:
        return set_cell_size(name, columns)
    while cell_len(name) > columns - 1:
        name = name[1:]
    return set_cell_size("…" + name, columns)


def _say_time(seconds: float) -> str:
    whole = int(seconds + 0.999)
    if whole >= 3_600:
        return f"{whole // 3_600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"
